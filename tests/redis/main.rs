//! `RedisStore` against private Redis servers: one, and a cluster of three.
//!
//! Needs `redis-server` on the path. Says so loudly where it is missing; with `CI` set that is a failure.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../common/browser.rs"]
mod browser;
#[path = "../common/cancellation.rs"]
mod cancellation;
#[path = "../common/concurrency.rs"]
mod concurrency;
#[path = "../common/model.rs"]
mod model;
#[path = "../common/servers.rs"]
mod servers;
#[path = "../common/shops.rs"]
mod shops;
#[path = "../common/world.rs"]
mod world;

mod proxy;
mod support;

mod applications;
mod cluster;
mod conformance;
mod connecting;
mod failover;
mod faults;
mod owners;
mod processes;
mod protocol;
mod sessions;
