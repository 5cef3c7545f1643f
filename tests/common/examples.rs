//! The examples as programs, for tests that start them.

use std::{env, path::PathBuf, process::Command};

/// Builds an example where it has changed, and returns the path of its program.
///
/// `cargo test` builds the tests of an example, not its program.
pub fn program_of(example: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--all-features", "--example", example]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // `cargo test` describes the package in variables that `cargo build` does not set. A build script that reads one of
    // them would run again, and all that depends on it would be compiled again.
    let is_of_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        cargo.env_remove(name);
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success(), "the example {example} does not compile");
    profile.join("examples").join(example)
}
