//! What the suites over memory, Redis and SQL share.
#![allow(dead_code, reason = "each suite uses a part of it")]

pub mod browser;
pub mod cancellation;
pub mod concurrency;
pub mod model;
pub mod servers;
pub mod shops;
pub mod world;
