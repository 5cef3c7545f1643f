//! The time that a request costs, and how often it allocates.
//!
//! `cargo bench --manifest-path benches/speed/Cargo.toml --features others --bench time` prints nanoseconds a request above the same request to
//! a handler without sessions: the median of rounds in which all sides take turns, so that a machine that becomes slower
//! is slower for all. Below are the ratios that matter. Names of sides as arguments measure these alone. See `cost` for
//! the session and the cases.

use std::{alloc::System, env};

use measure::{Contestant, above_bare};
use sides::{CASES, SIDES};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod floor;
mod measure;
#[cfg(feature = "others")]
mod others;
#[path = "../shopper.rs"]
mod shopper;
mod sides;

#[global_allocator]
static ALLOCATIONS: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Counts the allocations of a request.
async fn allocations(contestant: &mut Contestant) -> usize {
    let region = Region::new(ALLOCATIONS);
    contestant.run(64).await;
    region.change().allocations / 64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = env::args().collect();
    let asked = |side: &&str| args.iter().any(|arg| arg == side);
    let any_asked = SIDES.iter().any(asked);
    let sides: Vec<_> = SIDES.iter().copied().filter(|side| !any_asked || asked(side)).collect();
    let mut above = vec![[0.0; CASES.len()]; sides.len()];
    let mut counted = vec![[0; CASES.len()]; sides.len()];
    for (column, case) in CASES.iter().enumerate() {
        let mut pairs = Vec::new();
        for (row, side) in sides.iter().enumerate() {
            let mut pair =
                [Contestant::of(side, case, false).await, Contestant::of(side, case, true).await];
            counted[row][column] =
                allocations(&mut pair[0]).await - allocations(&mut pair[1]).await;
            pairs.push(pair);
        }
        for (row, time) in above_bare(&mut pairs).await.into_iter().enumerate() {
            above[row][column] = time;
        }
    }
    print!("{:32}", "nanoseconds above no session");
    CASES.iter().for_each(|case| print!("{case:>12}"));
    println!("   allocations");
    for (row, side) in sides.iter().enumerate() {
        print!("{side:32}");
        above[row].iter().for_each(|time| print!("{time:>12.0}"));
        println!("   {:?}", counted[row]);
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
