//! What tests of an application, and of a store, need.
//!
//! For an application: [`TestSession`] makes logged-in requests, [`ManualClock`] moves time and
//! [`FaultyStore`] breaks the store when told to. For a store of your own: [`conformance`] checks what
//! [`SessionStore`](crate::SessionStore) promises, and
//! [`session_store_conformance!`](crate::session_store_conformance) runs it all from one line.

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

/// Draws bytes that no other test has.
fn random<const N: usize>() -> [u8; N] {
    #[allow(clippy::expect_used, reason = "without random bytes tests would share their keys")]
    crate::id::random().expect("random bytes of the operating system")
}
