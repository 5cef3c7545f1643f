//! The SQL stores against private servers of the real engines.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/mod.rs"]
mod common;
mod engines;

use common::{browser, cancellation, concurrency, model, proxy, servers, shops, world};

mod applications;
mod conformance;
mod contention;
mod faults;
mod migration;
mod owners;
mod processes;
mod rows;
mod sizing;
mod sweep;
