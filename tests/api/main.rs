//! What the crate promises, through its public API and a real router.

mod support;

mod faulty_store;
mod first_screen;
mod store_conformance;
mod store_memory;
mod test_session;
mod third_party_store;
