//! Sessions of other libraries, signed in with the real libraries, go on as sessions of this crate.
#![allow(unreachable_pub, unnameable_types, reason = "`pub` here is what modules share")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows fails, as it should")]

#[path = "../common/answers.rs"]
mod answers;
#[path = "../common/browser.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod browser;
#[path = "../common/random_json.rs"]
mod random_json;
#[path = "../common/servers.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod servers;
#[path = "../common/tower_stores.rs"]
mod tower_stores;

mod cookies;
mod jars;
mod limits;
mod node;
mod redis_server;
mod rows_of_express;
mod rows_of_koa;
mod rows_of_tower;
mod seal;
mod site;
