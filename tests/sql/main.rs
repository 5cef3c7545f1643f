//! The SQL stores against private servers of the real engines.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[cfg(feature = "import")]
#[path = "../common/answers.rs"]
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod engines;
#[cfg(feature = "import")]
#[path = "../common/random_json.rs"]
mod random_json;
#[cfg(feature = "import")]
#[path = "../common/tower_stores.rs"]
mod tower_stores;

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
