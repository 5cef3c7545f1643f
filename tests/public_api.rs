//! Every public item is listed in `docs/public-api.txt`, so that a change of one is seen in review.
//!
//! `UPDATE_PUBLIC_API=1 cargo test --all-features --test public_api` writes the list anew.

use std::{env, ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

#[test]
fn the_committed_list_names_every_public_item() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = repository.join("docs/public-api.txt");
    let items = public_items(repository);
    if env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&list, &items).unwrap();
    }
    let committed = fs::read_to_string(&list).unwrap();
    let differences = differences(&committed, &items);
    assert!(
        differences.is_empty(),
        "the public API has changed:\n{}\nif that is meant, run \
         `UPDATE_PUBLIC_API=1 cargo test --all-features --test public_api`, commit docs/public-api.txt, \
         and add a line to CHANGELOG.md",
        differences.join("\n")
    );
}

/// The public items with all features, one in a line, without the implementations of auto traits.
fn public_items(repository: &Path) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = folder.parent().unwrap();
    // The JSON output is unstable. The released `rustdoc` gives it to those who ask like this. Build scripts that saw the
    // variable would run again, here and at the next build, and all that depends on them would be compiled twice.
    let rustdoc = folder.join("rustdoc");
    fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n").unwrap();
    fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_package(name)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .current_dir(repository)
        .args(["rustdoc", "--locked", "--lib", "--all-features", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", &rustdoc)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let api = public_api::Builder::from_rustdoc_json(target.join("doc/axum_typed_session.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .expect("docs/public-api.txt is compared with the toolchain of `public-api` in Cargo.toml");
    // The guide exists in the documentation only.
    let items = api.items().map(|item| format!("{item}\n"));
    let items: Vec<String> = items.filter(|item| !item.contains("::guide")).collect();
    assert!(items.len() > 300, "only {} items were found", items.len());
    items.concat()
}

/// Returns `true` for a variable with which `cargo test` describes the package. A build script that reads one would run
/// again.
fn is_of_package(name: &OsStr) -> bool {
    let starts = |start| name.to_str().is_some_and(|name| name.starts_with(start));
    starts("CARGO_PKG_") || starts("CARGO_MANIFEST_")
}

/// The lines that only one of the lists has, as in a patch.
fn differences(committed: &str, found: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (committed.lines().collect(), found.lines().collect());
    let removed = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let added = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    removed.chain(added).collect()
}
