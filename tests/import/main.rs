//! Sessions of other libraries, signed in with the real libraries, go on as sessions of this crate.
#![allow(unreachable_pub, unnameable_types, reason = "`pub` here is what modules share")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows fails, as it should")]

#[path = "../common/browser.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod browser;
#[path = "../common/servers.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod servers;

mod cookies;
mod jars;
mod limits;
mod node;
mod rows;
mod site;
