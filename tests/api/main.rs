//! What the crate promises, through its public API and a real router.
#![allow(
    unreachable_pub,
    unnameable_types,
    reason = "`pub` here is what modules share"
)]

mod support;

mod auto_commit;
mod cancellation;
mod commit_rules;
mod first_screen;
mod one_request;
mod state;
