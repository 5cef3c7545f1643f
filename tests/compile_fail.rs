//! Mistakes that must not compile, and what the compiler says to them.
//!
//! The expected texts are those of the toolchain in `rust-version`.

#[test]
fn mistakes_do_not_compile_and_read_well() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
