//! Servers as processes of their own, and what the system knows of them.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub struct Server {
    process: Child,
    pub port: u16,
}

/// What a process has at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub kilobytes: u64,
    pub files: u64,
}

impl Server {
    /// This program as the server without sessions.
    pub fn bare() -> Self {
        Self::start(Command::new(env::current_exe().unwrap()).arg("bare"))
    }

    pub fn example(name: &str) -> Self {
        let mut key = [0; 64];
        getrandom::fill(&mut key).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::start(Command::new(built(name)).env("SESSION_KEY", hex).env("PORT", "0"))
    }

    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim_end().rsplit(':').next().unwrap().parse();
        Self { process, port: port.unwrap_or_else(|_| panic!("no port in {line:?}")) }
    }

    pub fn sample(&self) -> Sample {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        let status = fs::read_to_string(folder.join("status")).expect("the server runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let files = fs::read_dir(folder.join("fd")).unwrap().count() as u64;
        Sample { kilobytes, files }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds an example of the crate as it is published, and returns its program.
fn built(example: &str) -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "--message-format", "json"])
        .args(["--example", example])
        .current_dir(crate_root)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the example {example} does not compile");
    let messages = String::from_utf8(output.stdout).unwrap();
    // The example is the last that is compiled.
    let mut programs = messages.lines().rev().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(message["executable"].as_str()?.into())
    });
    programs.next().expect("a program")
}
