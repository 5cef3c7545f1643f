//! What the crate promises, through its public API and a real router.

mod support;

mod faulty_store;
mod first_screen;
