//! `RedisStore` against private Redis servers: one, and a cluster of three.
//!
//! Needs `redis-server` on the path. Says so loudly where it is missing; with `CI` set that is a failure.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../servers/mod.rs"]
mod servers;

mod proxy;
mod support;

mod cluster;
mod conformance;
mod connecting;
mod faults;
mod owners;
mod protocol;
mod sessions;
