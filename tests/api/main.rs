//! What the crate promises, through its public API and a real router.

mod support;

mod first_screen;
