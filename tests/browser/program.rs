//! The examples as programs of their own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use axum_typed_session::Key;

use crate::examples::program_of;

/// A running example. It is stopped when this is dropped.
pub struct Program {
    process: Child,
    port: u16,
}

impl Program {
    /// Builds an example where it has changed, and starts it on a free port.
    pub fn start(example: &str) -> Self {
        let key = Key::generate();
        let key = key.as_bytes().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let mut process = Command::new(program_of(example))
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
