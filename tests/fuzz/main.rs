//! Each fuzz target over its seeds, and over edits of them that are the same in every run.
//!
//! `fuzz/` runs the same targets under libFuzzer, which edits them by what code they reach. `FUZZ_CASES` and
//! `FUZZ_SEED` choose how many edits this test makes of the seeds, and which.

#![allow(unreachable_pub, reason = "`pub` here is what modules share")]

mod targets;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use self::targets::TARGETS;

/// Longer inputs reach nothing else.
const MOST_BYTES: usize = 4096;

/// Reads the seeds of a target: one a line, in hexadecimal.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fuzz/seeds/{name}.hex"));
    let text = fs::read_to_string(file).unwrap();
    let byte = |line: &str, at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let seed = |line: &str| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect();
    text.lines().map(seed).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// Edits an input at one place.
fn edit(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let until = rng.random_range(at..=input.len().min(at + 32));
    match rng.random_range(0..8) {
        0 | 1 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        2 if at < input.len() => input[at] = *[0, 1, 2, 127, 128, 254, 255].choose(rng).unwrap(),
        3 if at < input.len() => input[at] = rng.random(),
        4 => input.insert(at, rng.random()),
        5 => _ = input.drain(at..until),
        6 => {
            let copy = input[at..until].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, copy);
        }
        _ => {
            let other = seeds.choose(rng).unwrap();
            input.truncate(at);
            input.extend(&other[rng.random_range(0..=other.len())..]);
        }
    }
    input.truncate(MOST_BYTES);
}

/// Runs a target, and prints the input that it fails with as a line for its file of seeds.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let hex: Vec<_> = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("the target {name} failed with {}", hex.concat());
        resume_unwind(panic);
    }
}

fn replay(name: &str, cases: u64) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    for seed in &seeds {
        run(name, target, seed);
    }
    let mut rng = StdRng::seed_from_u64(number("FUZZ_SEED").unwrap_or(20_260_101));
    for _ in 0..number("FUZZ_CASES").unwrap_or(cases) {
        let mut input = seeds.choose(&mut rng).unwrap().clone();
        for _ in 0..rng.random_range(1..=6) {
            edit(&mut input, &seeds, &mut rng);
        }
        run(name, target, &input);
    }
}

#[test]
fn every_header_is_read_as_the_cookies_that_it_has() {
    replay("header", 2000);
}

#[test]
fn only_a_token_that_was_sealed_opens() {
    replay("token", 2000);
}

#[test]
fn whatever_an_authentic_token_holds_is_checked() {
    replay("content", 2000);
}

#[test]
fn every_row_is_the_record_that_was_written_or_none() {
    replay("record", 2000);
}

#[test]
fn a_text_that_parses_is_the_text_that_is_written() {
    replay("id", 2000);
}

#[test]
fn two_changes_merge_or_are_a_conflict() {
    replay("merge", 1000);
}
