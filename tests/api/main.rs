//! What the crate promises, through its public API and a real router.

mod store_support;
mod support;

mod cancellation;
mod concurrency;
mod faulty_store;
mod first_screen;
mod model;
mod outside;
mod revocations;
mod store_mode;
