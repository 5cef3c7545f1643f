//! What the crate promises, through its public API and a real router.
#![allow(unreachable_pub, unnameable_types, reason = "`pub` here is what modules share")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows fails, as it should")]

#[path = "../common/mod.rs"]
mod common;
mod forge;
mod logins;
mod requests;
mod support;

use common::{browser, cancellation, concurrency, logs, model, world};

mod applications;
mod auto_commit;
mod auto_traits;
mod bad_input;
mod bearer;
mod caching;
mod cleanup;
mod codec;
mod commit_rules;
mod composition;
mod config_errors;
mod cookie_lifetimes;
mod cookie_template;
mod created_sessions;
mod csrf;
mod data_methods;
mod debug_output;
mod double_clicks;
mod dropped_requests;
mod duplicate_cookies;
mod encrypted_rows;
mod error_responses;
mod error_texts;
mod events;
mod expiry;
mod extending;
mod faulty_store;
mod field_types;
mod first_screen;
mod former_cookies;
mod guards;
mod guards_at_once;
mod guards_in_random_orders;
mod identity;
mod keys;
mod keys_from_text;
mod logout_within_a_request;
mod memory_attacks;
mod memory_bound;
mod one_request;
mod options;
mod outside;
mod own_timeouts;
mod plain_http;
mod reading_back;
mod response_parts;
mod retries;
mod review;
mod revocation_list;
mod revocations;
mod round_trip;
mod size;
mod state;
mod store_conformance;
mod store_memory;
mod store_mode;
mod tenants;
mod test_session;
mod third_party_store;
mod tokens;
mod transport;
mod type_isolation;
mod unfinished_commits;
mod warnings;
