//! `RedisStore` against private Redis servers: one, and a cluster of three.
//!
//! Needs `redis-server` on the path, or the program that the variable `REDIS_SERVER` names, such as `valkey-server`.
//! Says so loudly where it is missing; with `CI` set that is a failure.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rows.rs"]
mod rows;
mod support;

use common::{browser, cancellation, concurrency, model, proxy, servers, shops, world};

mod applications;
mod cluster;
mod conformance;
mod connecting;
mod credentials;
mod failover;
mod faults;
mod formats;
mod lazy;
mod list;
mod owners;
mod processes;
mod protocol;
mod rights;
mod sentinel;
mod sessions;
