//! `MemcachedStore` against private memcached servers.
//!
//! Needs `memcached` on the path. Says so loudly where it is missing; with `CI` set that is a failure.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rows.rs"]
mod rows;
mod support;

use common::{browser, cancellation, concurrency, model, proxy, servers, shops, world};

mod applications;
mod conformance;
mod connecting;
mod faults;
mod formats;
mod limits;
mod processes;
mod protocol;
mod sessions;
