//! The npm packages of the other side, which `node/sign-in.mjs` runs.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value};

use crate::servers::find;

/// The folder with the installed packages; `None`, with a loud word, if there is no npm.
static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    find("node", "import")?;
    find("npm", "import")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/node");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import");
    let read = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
    let is_installed = folder.join("node_modules").is_dir() && read(&source) == read(&folder);
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "sign-in.mjs"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if !is_installed {
        let install = ["ci", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"];
        let status = Command::new("npm").args(install).current_dir(&folder).status();
        assert!(status.unwrap().success(), "npm could not install the packages");
    }
    Some(folder)
});

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
    let folder = FOLDER.as_ref()?;
    let keys = options.keys.join(",");
    let mut node = Command::new("node")
        .current_dir(folder)
        .args(["sign-in.mjs", options.format, &keys, options.max_age])
        .args(options.redis)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> = data.iter().map(|data| format!("{data}\n")).collect();
    node.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{} failed", options.format);
    let headers = String::from_utf8(output.stdout).unwrap();
    let headers: Vec<_> = headers.lines().map(str::to_owned).collect();
    assert_eq!(headers.len(), data.len());
    Some(headers)
}

/// Returns the data of so many sessions, which are the same in every run.
pub fn sessions(count: usize) -> Vec<Value> {
    let mut random = StdRng::seed_from_u64(7);
    (0..count)
        .map(|number| {
            let mut fields = Map::from_iter([("number".to_owned(), number.into())]);
            for _ in 0..random.random_range(0..6) {
                fields.insert(text(&mut random, 1), value(&mut random, 3));
            }
            Value::Object(fields)
        })
        .collect()
}

/// Characters that formats have to quote or to encode, and others.
const LETTERS: [&str; 12] = ["a", "Z", "0", "\"", "\\", "/", "+", "=", "\n", "é", "日", "🙂"];

fn text(random: &mut StdRng, at_least: usize) -> String {
    let letters = (0..random.random_range(at_least..12)).map(|_| *LETTERS.choose(random).unwrap());
    letters.collect()
}

fn value(random: &mut StdRng, levels: usize) -> Value {
    let kinds = if levels == 0 { 4 } else { 6 };
    match random.random_range(0..kinds) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        // Integers that JavaScript has too.
        2 => random.random_range(-(1_i64 << 53)..1 << 53).into(),
        3 => text(random, 0).into(),
        4 => (0..random.random_range(0..4)).map(|_| value(random, levels - 1)).collect(),
        _ => {
            let fields = (0..random.random_range(0..4))
                .map(|_| (text(random, 0), value(random, levels - 1)));
            Value::Object(fields.collect())
        }
    }
}
