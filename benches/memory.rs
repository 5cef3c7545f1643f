//! Measures what a session takes in the memory store.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml --bench memory
//! ```
//!
//! It saves a million sessions of 243 bytes of JSON, first without and then with an owner, and prints by how many
//! bytes the process grew for each. It also prints how long a page of keys and a page of expired sessions take,
//! during which other calls to a part of the store wait. Last it loads and changes random sessions, in a store of a
//! thousand and in a store of a million, and prints how long one takes. It runs on Linux only, since it reads `/proc/self/status`.

use std::{
    env,
    error::Error,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum_typed_session::{
    Clock, MemoryStore, SessionManager, SessionStore as _, time::OffsetDateTime,
};
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

/// A clock that can leap a thousand years, after which every session has expired.
#[derive(Clone, Default)]
struct Leaping(Arc<AtomicBool>);

impl Clock for Leaping {
    fn now(&self) -> OffsetDateTime {
        let years = if self.0.load(Ordering::Relaxed) { 1000 } else { 0 };
        OffsetDateTime::now_utc() + axum_typed_session::time::Duration::days(365 * years)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("without") => measure(false),
        Some("with") => measure(true),
        Some("speed") => compare_speed(),
        // Each in a process of its own: a second run would reuse the memory of the first.
        _ => {
            for part in ["without", "with", "speed"] {
                Command::new(env::current_exe()?).arg(part).status()?;
            }
            Ok(())
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(owned: bool) -> Result<(), Box<dyn Error>> {
    let clock = Leaping::default();
    let store = MemoryStore::builder().max_bytes(usize::MAX).clock(clock.clone()).build();
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
    let (mut keys, mut next, mut times) = (0, None, Vec::new());
    loop {
        let started = Instant::now();
        let page = store.list(next.as_ref(), 1000).await?;
        times.push(started.elapsed());
        keys += page.keys.len();
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    print_times("keys", keys, times);
    clock.0.store(true, Ordering::Relaxed);
    let (mut taken, mut times) = (0, Vec::new());
    loop {
        let started = Instant::now();
        let page = store.take_expired(1000).await?;
        times.push(started.elapsed());
        if page.is_empty() {
            break;
        }
        taken += page.len();
    }
    print_times("expired sessions", taken, times);
    Ok(())
}

/// Loads and changes so many random sessions in a round. A round is short, so that other programs of the machine seldom
/// interrupt it.
const IN_A_ROUND: u32 = 200;

#[tokio::main(flavor = "current_thread")]
async fn compare_speed() -> Result<(), Box<dyn Error>> {
    for stored in [1_000, SESSIONS] {
        let store = MemoryStore::builder().max_bytes(usize::MAX).build();
        let sessions = SessionManager::<Login>::builder().store(store.clone()).build()?;
        let mut keys = Vec::with_capacity(stored);
        for number in 0..stored {
            let _ = sessions.create(Login::numbered(number, false)?).await?;
        }
        let mut next = None;
        loop {
            let page = store.list(next.as_ref(), 1000).await?;
            keys.extend(page.keys);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let (mut loads, mut changes) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            let random = || keys[rand::random::<usize>() % stored];
            let round: Vec<_> = (0..IN_A_ROUND).map(|_| random()).collect();
            let started = Instant::now();
            for key in &round {
                let _ = store.load(key).await?;
            }
            loads.push(started.elapsed() / IN_A_ROUND);
            let round: Vec<_> = (0..IN_A_ROUND).map(|_| random()).collect();
            let started = Instant::now();
            for key in round {
                sessions.update(key, |login| login.note.push('x')).await?;
            }
            changes.push(started.elapsed() / IN_A_ROUND);
        }
        loads.sort();
        changes.sort();
        let (load, change) = (loads[loads.len() / 2], changes[changes.len() / 2]);
        println!(
            "random sessions of {stored}: {load:?} a load, {change:?} a load and a changed save"
        );
    }
    Ok(())
}

/// Other programs of the machine slow a few pages down, so the slowest of a hundred is left out.
fn print_times(what: &str, count: usize, mut times: Vec<Duration>) {
    times.sort();
    let (median, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "{count} {what} in {} pages: {median:?} a page, and 99 of 100 within {most:?}",
        times.len()
    );
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.ok_or("no VmRSS in /proc/self/status")?.parse::<usize>()? * 1024)
}
