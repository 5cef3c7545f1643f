//! Each test that `docs/security.md` cites is in the source, so that the page says what was shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files that `api/tokens` may stand for.
fn files(repository: &Path, module: &str) -> [PathBuf; 5] {
    [
        format!("{module}.rs"),
        format!("tests/{module}.rs"),
        format!("src/testing/{module}.rs"),
        format!("src/{module}.rs"),
        format!("src/{module}/tests.rs"),
    ]
    .map(|path| repository.join(path))
}

/// Returns `true` if one of the files has the function.
fn is_there(repository: &Path, module: &str, name: &str) -> bool {
    let sources =
        files(repository, module).map(|path| fs::read_to_string(path).unwrap_or_default());
    let heads = [format!("fn {name}("), format!("fn {name}<")];
    sources.iter().any(|source| heads.iter().any(|head| source.contains(head)))
}

/// The citations of a page, such as `api/tokens::a_signed_token_is_readable` between two backquotes.
fn citations(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |text: &str| {
        let of_name = |byte: u8| byte.is_ascii_lowercase() || b"_/0123456789".contains(&byte);
        !text.is_empty() && text.bytes().all(of_name)
    };
    let code = page.split('`').skip(1).step_by(2);
    let cited = code.filter_map(|code| code.split_once("::"));
    cited.filter(move |(module, name)| {
        is_name(module) && is_name(name) && !["file", "guide"].contains(module)
    })
}

#[test]
fn every_test_that_the_page_cites_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The page is in the repository, and not in the package.
    let Ok(page) = fs::read_to_string(repository.join("docs/security.md")) else {
        assert!(!repository.join("docs").exists(), "docs/security.md is missing");
        return;
    };
    let cited: Vec<_> = citations(&page).collect();
    assert!(cited.len() > 100, "{} tests are cited", cited.len());
    let missing = cited.iter().filter(|(module, name)| !is_there(repository, module, name));
    let missing: Vec<_> = missing.map(|(module, name)| format!("{module}::{name}")).collect();
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn a_test_that_was_renamed_is_missed() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page =
        "`security_page::a_test_that_was_renamed_is_missed`, `security_page::it_was`, `Key::from`";
    let found = citations(page).map(|(module, name)| is_there(repository, module, name));
    assert_eq!(found.collect::<Vec<_>>(), [true, false]);
}
