//! What the crate promises, through its public API and a real router.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails, as it should"
)]

mod forge;
mod logins;
mod support;

mod auto_traits;
mod bad_input;
mod config_errors;
mod cookie_template;
mod debug_output;
mod duplicate_cookies;
mod error_texts;
mod events;
mod expiry;
mod first_screen;
mod keys;
mod options;
mod size;
mod tokens;
mod transport;
