//! Helpers for the tests of an application or of a store. They need the feature `testing`.
//!
//! | for the tests of | use |
//! |---|---|
//! | handlers that need a signed-in user | [`TestSession`] |
//! | timeouts | [`ManualClock`] |
//! | a store that is down, or two requests at the same time | [`FaultyStore`], [`Gate`] |
//! | a store of your own | [`session_store_conformance!`](crate::session_store_conformance), [`conformance`], [`RecordBuilder`] |
//!
//! Add the feature in `[dev-dependencies]` only. The guide has a page about [testing](crate::guide::testing), and
//! the example `testing_your_app` shows a whole test file.

mod client;
mod clock;
pub mod conformance;
mod faulty_store;
mod record;
mod session;

pub use self::{
    clock::ManualClock,
    faulty_store::{Fault, FaultyStore, Gate, Operation},
    record::RecordBuilder,
    session::TestSession,
};

/// Draws random bytes, so that no two tests share their keys.
fn random<const N: usize>() -> [u8; N] {
    #[allow(clippy::expect_used, reason = "without random bytes tests would share their keys")]
    crate::id::random().expect("random bytes of the operating system")
}
