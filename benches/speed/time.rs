//! The time that a request costs, and how often it allocates.
//!
//! `cargo bench --manifest-path benches/speed/Cargo.toml --features others --bench time` prints nanoseconds a request above the same request to
//! a handler without sessions: the median of rounds in which all sides take turns, so that a machine that becomes slower
//! is slower for all. Below are the ratios that matter. Names of sides as arguments measure these alone. See `cost` for
//! the session and the cases.

use std::{
    alloc::System,
    env,
    time::{Duration, Instant},
};

use axum::Router;
use sides::{CASES, SIDES, prepared, send};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod floor;
#[cfg(feature = "others")]
mod others;
#[path = "../shopper.rs"]
mod shopper;
mod sides;

#[global_allocator]
static ALLOCATIONS: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 41;
/// The time of one side and case in one round.
const TURN: Duration = Duration::from_millis(6);
/// Past the first thousand saves of a manager, which are all read back.
const WARM_UP: usize = 1200;

/// A side and a case, or the same requests without sessions.
struct Contestant {
    app: Router,
    path: String,
    cookies: String,
    /// Nanoseconds of a request, one for each round.
    times: Vec<f64>,
    allocations: usize,
}

impl Contestant {
    async fn new(side: &str, case: &str, bare: bool) -> Self {
        let (app, path, cookies) = prepared(side, case, bare).await;
        let mut contestant = Self { app, path, cookies, times: Vec::new(), allocations: 0 };
        contestant.run(WARM_UP).await;
        let region = Region::new(ALLOCATIONS);
        contestant.run(64).await;
        contestant.allocations = region.change().allocations / 64;
        contestant
    }

    async fn run(&mut self, requests: usize) {
        for _ in 0..requests {
            send(&mut self.app, &self.path, &self.cookies).await;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    async fn turn(&mut self) {
        let (started, mut requests) = (Instant::now(), 0);
        while started.elapsed() < TURN {
            self.run(16).await;
            requests += 16;
        }
        self.times.push(started.elapsed().as_nanos() as f64 / f64::from(requests));
    }

    fn median(&mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[self.times.len() / 2]
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = env::args().collect();
    let asked = |side: &&str| args.iter().any(|arg| arg == side);
    let any_asked = SIDES.iter().any(asked);
    let sides: Vec<_> = SIDES.iter().copied().filter(|side| !any_asked || asked(side)).collect();
    let mut above = vec![[0.0; CASES.len()]; sides.len()];
    let mut allocations = vec![[0; CASES.len()]; sides.len()];
    for (column, case) in CASES.iter().enumerate() {
        let mut contestants = Vec::new();
        for side in &sides {
            contestants.push(Contestant::new(side, case, false).await);
            contestants.push(Contestant::new(side, case, true).await);
        }
        for _ in 0..ROUNDS {
            for contestant in &mut contestants {
                contestant.turn().await;
            }
        }
        for (row, pair) in contestants.chunks_mut(2).enumerate() {
            above[row][column] = pair[0].median() - pair[1].median();
            allocations[row][column] = pair[0].allocations - pair[1].allocations;
        }
    }
    print!("{:32}", "nanoseconds above no session");
    CASES.iter().for_each(|case| print!("{case:>12}"));
    println!("   allocations");
    for (row, side) in sides.iter().enumerate() {
        print!("{side:32}");
        above[row].iter().for_each(|time| print!("{time:>12.0}"));
        println!("   {:?}", allocations[row]);
    }
    for (side, yardstick) in [
        ("cookie", "floor-cookie"),
        ("cookie", "jar"),
        ("memory", "floor-memory"),
        ("memory", "tower-sessions"),
        ("memory", "ruts"),
        ("encrypted-rows", "sealed-id"),
    ] {
        let row = |name| sides.iter().position(|side| *side == name);
        let (Some(row), Some(other)) = (row(side), row(yardstick)) else { continue };
        print!("{:32}", format!("{side} / {yardstick}"));
        above[row].iter().zip(above[other]).for_each(|(a, b)| print!("{:>12.2}", a / b));
        println!();
    }
}
