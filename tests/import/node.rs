//! The npm packages of the other side, which `node/application.mjs` runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{answers::answers, servers::find};

/// The folder with the installed packages; `None`, with a loud word, if there is no npm.
static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    find("node", "import")?;
    find("npm", "import")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/node");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import");
    let read = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
    let is_installed = folder.join("node_modules").is_dir() && read(&source) == read(&folder);
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "application.mjs"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if !is_installed {
        let install = ["ci", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"];
        let status = Command::new("npm").args(install).current_dir(&folder).status();
        assert!(status.unwrap().success(), "npm could not install the packages");
    }
    Some(folder)
});

/// The keys of most applications here.
pub const KEYS: [&str; 2] = ["new", "old"];

/// What a library is told of.
pub struct Options<'a> {
    pub format: &'a str,
    /// The newest key first.
    pub keys: &'a [&'a str],
    /// Milliseconds, or `session`.
    pub max_age: &'a str,
    pub redis: Option<&'a str>,
}

/// Signs a visitor in for each of these data, and returns what its `Cookie` header is then.
pub fn sign_in(options: &Options<'_>, data: &[Value]) -> Option<Vec<String>> {
    exchange(options, data, &[]).map(|(headers, _)| headers)
}

/// Signs visitors in, as [`sign_in`]. Then returns the data of the sessions that the library finds in other `Cookie`
/// headers.
pub fn exchange(
    options: &Options<'_>,
    data: &[Value],
    sealed: &[String],
) -> Option<(Vec<String>, Vec<Value>)> {
    let folder = FOLDER.as_ref()?;
    let keys = options.keys.join(",");
    let mut node = Command::new("node");
    node.current_dir(folder);
    node.args(["application.mjs", options.format, &keys, options.max_age]).args(options.redis);
    let data_lines = data.iter().map(|data| json!({"data": data}));
    let lines = data_lines.chain(sealed.iter().map(|header| json!({"cookie": header})));
    let mut headers = answers(&mut node, lines);
    let found = headers.split_off(data.len());
    Some((headers, found.iter().map(|data| serde_json::from_str(data).unwrap()).collect()))
}
