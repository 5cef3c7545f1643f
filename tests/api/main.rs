//! What the crate promises, through its public API and a real router.

mod support;

mod auto_commit;
mod cancellation;
mod commit_rules;
mod first_screen;
mod one_request;
mod state;
