//! Instructions a request costs, counted under valgrind: repeatable, whatever else the machine does.
//!
//! `cargo bench --manifest-path benches/speed/Cargo.toml --features others --bench cost` prints thousands of
//! instructions a request above the same request to a handler without sessions, which gets the same cookies and
//! answers the same. The session is 318 bytes of JSON in one of four cookies; without a cookie, `new` saves a default
//! one with a changed number and `fill` a whole one. Names of sides as arguments count these alone.
//!
//! With `check` it compares the sides with their floors and fails if one costs more than `LIMITS` allows.
//!
//! It needs Debian's package `valgrind`, whose processor has instructions for AES and none for SHA-256: the key
//! of a stored session is one block of it, and counts 3.5.

use std::{env, process::Command};

use shopper::Shopper;
use sides::{CASES, SIDES, prepared, send};

mod floor;
#[cfg(feature = "others")]
mod others;
#[path = "../shopper.rs"]
mod shopper;
mod sides;

/// Past the first thousand saves of a manager, which are all read back.
const FEW: usize = 1200;
const MANY: usize = 2200;

/// What valgrind counts: so many requests of one kind, or the same requests to handlers without sessions.
fn run(side: &str, case: &str, requests: usize, bare: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut app, path, cookies) = prepared(side, case, bare).await;
        for _ in 0..requests {
            send(&mut app, &path, &cookies).await;
        }
    });
}

/// Instructions for one request: the difference of many and few, so that the start does not count.
fn count(side: &str, case: &str, bare: bool) -> f64 {
    let total = |requests: usize| -> u64 {
        let output = Command::new("valgrind")
            .args(["--tool=none", "--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().unwrap())
            .args(["run", side, case, &requests.to_string(), &bare.to_string()])
            .output()
            .expect("valgrind: install Debian's package `valgrind`");
        let text = String::from_utf8_lossy(&output.stderr);
        let collected = text.split("Collected : ").nth(1).unwrap_or_else(|| panic!("{text}"));
        collected.split_whitespace().next().unwrap().parse().unwrap()
    };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let difference = (total(MANY) - total(FEW)) as f64;
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    let requests = (MANY - FEW) as f64;
    difference / requests / 1000.0
}

/// The most that a side may cost, as a ratio to its floor: read, write, fill. Counted ratios are a tenth lower.
const LIMITS: [(&str, &str, [f64; 3]); 2] =
    [("cookie", "floor-cookie", [1.05, 1.1, 1.6]), ("memory", "floor-memory", [1.35, 1.5, 1.9])];

/// Fails if a side costs more than its limit.
fn check() {
    let mut is_over = false;
    for (side, floor, limits) in LIMITS {
        for (case, limit) in ["read", "write", "fill"].into_iter().zip(limits) {
            let bare = count(side, case, true);
            let ratio = (count(side, case, false) - bare) / (count(floor, case, false) - bare);
            let verdict = if ratio > limit { "too much" } else { "ok" };
            println!("{side} / {floor}, {case}: {ratio:.2}, at most {limit:.2}: {verdict}");
            is_over |= ratio > limit;
        }
    }
    assert!(
        !is_over,
        "a request costs more instructions than before; if it has to, raise `LIMITS`"
    );
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if args.iter().any(|arg| arg == "check") {
        return check();
    }
    if let [_, run_word, side, case, requests, bare] = &args[..]
        && run_word == "run"
    {
        let bare = bare.parse().unwrap();
        return run(side, case, requests.parse().unwrap(), bare);
    }
    println!("{} bytes of JSON", serde_json::to_string(&Shopper::ann()).unwrap().len());
    println!(
        "{:15}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", CASES[0], CASES[1], CASES[2], CASES[3], CASES[4]
    );
    let asked = |side: &&str| args.iter().any(|arg| arg == side);
    let any_asked = SIDES.iter().any(asked);
    for side in SIDES.iter().filter(|side| !any_asked || asked(side)) {
        print!("{side:15}");
        for case in CASES {
            let cost = count(side, case, false) - count(side, case, true);
            print!("{cost:>12.1}");
        }
        println!();
    }
}
