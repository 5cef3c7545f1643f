//! The SQL stores against private servers of the real engines.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/browser.rs"]
mod browser;
#[path = "../common/cancellation.rs"]
mod cancellation;
#[path = "../common/concurrency.rs"]
mod concurrency;
mod engines;
#[path = "../common/model.rs"]
mod model;
#[path = "../common/servers.rs"]
mod servers;
#[path = "../common/shops.rs"]
mod shops;
#[path = "../common/world.rs"]
mod world;

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
