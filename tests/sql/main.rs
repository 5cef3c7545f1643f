//! The SQL stores against private servers of the real engines.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod engines;
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../shops/mod.rs"]
mod shops;

mod conformance;
mod contention;
mod faults;
mod migration;
mod processes;
mod rows;
mod sizing;
mod sweep;
