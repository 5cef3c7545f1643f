//! Measures what a session takes in the memory store.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml --bench memory
//! ```
//!
//! It saves a million sessions of 243 bytes of JSON, first without and then with an owner, and prints by how many
//! bytes the process grew for each. It runs on Linux only, since it reads `/proc/self/status`.

use std::{env, error::Error, fs, process::Command};

use axum_typed_session::{MemoryStore, SessionManager};
use serde::{Deserialize, Serialize};

const SESSIONS: usize = 1_000_000;
const PAYLOAD: usize = 243;

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    note: String,
}

impl Login {
    /// Makes a login with [`PAYLOAD`] bytes of JSON.
    fn numbered(number: usize, owned: bool) -> Result<Self, Box<dyn Error>> {
        let mut login = Self { user: owned.then(|| number.to_string()), note: String::new() };
        let written = serde_json::to_vec(&login)?.len();
        login.note = "x".repeat(PAYLOAD - written);
        Ok(login)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("without") => measure(false),
        Some("with") => measure(true),
        // Each in a process of its own: a second run would reuse the memory of the first.
        _ => {
            for owner in ["without", "with"] {
                Command::new(env::current_exe()?).arg(owner).status()?;
            }
            Ok(())
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(owned: bool) -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::builder().max_bytes(usize::MAX).build();
    let sessions = SessionManager::<Login>::builder()
        .store(store.clone())
        .owner(|login| login.user.clone())
        .build()?;
    let before = resident_bytes()?;
    for number in 0..SESSIONS {
        // Nobody asks for this session again, so its token is dropped.
        let _ = sessions.create(Login::numbered(number, owned)?).await?;
    }
    let grown = resident_bytes()?.saturating_sub(before);
    println!(
        "{} sessions of {PAYLOAD} bytes {} owner: {} bytes each, {} of them beside the payload",
        store.len(),
        if owned { "with an" } else { "without" },
        grown / SESSIONS,
        (grown / SESSIONS).saturating_sub(PAYLOAD),
    );
    Ok(())
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.ok_or("no VmRSS in /proc/self/status")?.parse::<usize>()? * 1024)
}
