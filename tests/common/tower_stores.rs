//! The stores of tower-sessions, in the program `benches/tower_stores`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::answers::answers;

/// The program, which is built by the first test that needs it.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tower_stores");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("benches");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--target-dir"]).arg(&target);
    assert!(cargo.current_dir(folder).status().unwrap().success(), "benches/tower_stores");
    target.join("debug/tower-stores")
});

/// A store of tower-sessions.
pub struct TowerStore {
    /// `redis`, `sqlite` or `postgres`.
    pub kind: &'static str,
    pub url: String,
}

impl TowerStore {
    /// Signs a visitor in for each of these data, and returns what its `Cookie` header is then.
    pub fn sign_in(&self, data: &[Value]) -> Vec<String> {
        self.requests(data.iter().map(|data| json!({"data": data})))
    }

    /// Returns the data that these sessions have, under the names that these data have.
    pub fn read(&self, headers: &[String], data: &[Value]) -> Vec<Value> {
        let requests = headers.iter().zip(data).map(|(header, data)| {
            let names: Vec<_> = data.as_object().unwrap().keys().collect();
            json!({"cookie": header, "names": names})
        });
        let found = self.requests(requests);
        found.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn requests(&self, requests: impl Iterator<Item = Value>) -> Vec<String> {
        answers(Command::new(&*PROGRAM).arg(self.kind).arg(&self.url), requests)
    }
}
