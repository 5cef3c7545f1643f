//! Measures what a session takes in the memory store.
//!
//! ```text
//! cargo run --release --features testing --example memory_per_session
//! ```
//!
//! It saves a million sessions of 243 bytes of JSON as requests would, and divides what the process grew by.
//! Linux only, since it reads `/proc/self/status`.

use std::{env, error::Error, fs, process::Command};

use axum_typed_session::{MemoryStore, SessionManager, testing::TestSession};
use serde::{Deserialize, Serialize};

const SESSIONS: usize = 1_000_000;
const PAYLOAD: usize = 243;

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    note: String,
}

impl Login {
    /// A login whose JSON is as long as [`PAYLOAD`] says.
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
        // A process each, or the second would live in what the first gave back.
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
        TestSession::start(&sessions, Login::numbered(number, owned)?).await?;
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
