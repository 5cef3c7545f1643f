//! The examples as programs of their own.

use std::{
    env,
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use axum_typed_session::Key;

/// A running example. It is stopped when this is dropped.
pub struct Program {
    process: Child,
    port: u16,
}

impl Program {
    /// Builds an example where it has changed, and starts it on a free port.
    pub fn start(example: &str) -> Self {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = ["build", "--quiet", "--locked", "--all-features", "--example", example];
        let status =
            Command::new(cargo).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.unwrap().success(), "{example} does not compile");
        let key = Key::generate().master().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let mut process = Command::new(folder_of_examples().join(example))
            .env("PORT", "0")
            .env("SESSION_KEY", key)
            .env_remove("INSECURE_HTTP")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{example} says where it listens, not `{line}`"));
        Self { process, port }
    }

    /// The address of a page on a host, which the browser resolves to this machine.
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder_of_examples() -> PathBuf {
    let tests = env::current_exe().unwrap();
    tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples")
}
