//! The SQL stores against private servers of the real engines.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/mod.rs"]
mod common;
mod engines;

use common::{browser, cancellation, concurrency, model, proxy, servers, shops, world};

mod applications;
mod conformance;
mod connect;
mod contention;
mod errors;
mod faults;
mod formats;
mod late_start;
mod migration;
#[cfg(feature = "import")]
mod old_rows;
mod owners;
mod pgbouncer;
mod processes;
mod rows;
mod sizing;
mod sweep;
