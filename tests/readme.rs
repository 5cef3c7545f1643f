//! The README holds: its first program runs as pasted, its links lead somewhere, and it is short.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const README: &str = include_str!("../README.md");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code block of the README that contains a text.
fn block_with(text: &str) -> &'static str {
    let blocks = README.split("```").skip(1).step_by(2);
    let block = blocks.into_iter().find(|block| block.contains(text)).expect("the block is there");
    block.split_once('\n').unwrap().1
}

#[test]
fn the_first_program_runs_as_pasted_into_a_fresh_crate() {
    let fresh = fresh_crate();
    for line in block_with("cargo add").lines() {
        let published = "cargo add axum-typed-session";
        let local = format!("cargo add --path {}", repository().display());
        run(&fresh, &line.replacen(published, &local, 1));
    }
    // Any free port, so that the test does not collide with a program that runs.
    let program = block_with("fn main()").replace("127.0.0.1:3000", "127.0.0.1:0");
    fs::write(fresh.join("src/main.rs"), program).unwrap();

    let start = block_with("SESSION_KEY=");
    assert!(start.ends_with("cargo run\n"), "{start}");
    // Built beforehand, so that the process below is the program itself.
    run(&fresh, "cargo build");
    let built = format!("exec {}/debug/visits", target().display());
    let server = Server::start(&fresh, &start.replace("cargo run", &built));

    let curl = README.split('`').find(|code| code.starts_with("curl ")).unwrap();
    let curl = curl.replace("http://127.0.0.1:3000", &server.url).replace("curl", "curl -sS");
    assert_eq!(run(&fresh, &curl), "1 visits\n");
    assert_eq!(run(&fresh, &curl), "2 visits\n");
    let sign_out = format!("curl -sS -c jar -b jar -X POST {}/sign-out", server.url);
    assert_eq!(run(&fresh, &sign_out), "");
    assert_eq!(run(&fresh, &curl), "1 visits\n");
}

/// A new crate without dependencies.
fn fresh_crate() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("visits");
    let _ = fs::remove_file(folder.join("Cargo.toml"));
    let _ = fs::remove_file(folder.join("jar"));
    fs::create_dir_all(&folder).unwrap();
    run(&folder, "cargo init --quiet --vcs none --name visits");
    // The versions that everything else is tested with.
    fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    folder
}

/// Runs a line of shell in a folder, and returns what it prints.
fn run(folder: &Path, line: &str) -> String {
    let output = shell(folder, line).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn shell(folder: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    // What cargo set for this test means nothing to another crate, and a build script that reads it would run again.
    let is_of_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        command.env_remove(name);
    }
    command.env_remove("SESSION_KEY").env("CARGO_TARGET_DIR", target());
    command
}

/// Where this test was built, and with it most of the dependencies of the new crate.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The running program.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path, lines: &str) -> Self {
        let mut process = shell(folder, lines).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.trim().strip_prefix("listening on ").expect("the program says where").to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn links_of_the_readme_lead_to_files_and_to_pages_of_the_guide() {
    let guide = "https://docs.rs/axum-typed-session/latest/axum_typed_session/guide/";
    let targets = README.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let mut pages = 0;
    for target in targets {
        let file = if let Some(page) = target.strip_prefix(guide) {
            pages += 1;
            let page = page.strip_suffix("/index.html").expect("a page of the guide is a folder");
            format!("src/guide/{page}.md")
        } else if target.starts_with("https://") {
            continue;
        } else {
            target.to_owned()
        };
        assert!(repository().join(&file).is_file(), "{target} leads nowhere");
    }
    assert_eq!(pages, fs::read_dir(repository().join("src/guide")).unwrap().count());
}

#[test]
fn the_files_that_the_comparison_names_exist() {
    let notes = README.lines().skip_while(|line| !line.starts_with('¹'));
    let notes = notes.take_while(|line| !line.is_empty()).collect::<String>();
    let files: Vec<_> = notes.split('`').skip(1).step_by(2).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        assert!(repository().join(file).exists(), "{file}");
    }
}

#[test]
fn the_readme_is_at_most_two_hundred_lines_long() {
    assert!(README.lines().count() <= 200);
}
