//! What the crate promises, through its public API and a real router.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod forge;
mod logins;
mod store_support;
mod support;

mod bad_input;
mod cancellation;
mod cleanup;
mod commit_rules;
mod concurrency;
mod config_errors;
mod cookie_template;
mod duplicate_cookies;
mod expiry;
mod faulty_store;
mod first_screen;
mod keys;
mod model;
mod one_request;
mod options;
mod outside;
mod revocations;
mod size;
mod state;
mod store_conformance;
mod store_memory;
mod store_mode;
mod test_session;
mod third_party_store;
mod tokens;
mod transport;
