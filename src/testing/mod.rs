//! What tests of an application, and of a store, need.
//!
//! For an application: [`TestSession`] makes logged-in requests, [`ManualClock`] moves time and
//! [`FaultyStore`] breaks the store when told to.

mod clock;
mod faulty_store;
mod session;

pub use self::{
    clock::ManualClock,
    faulty_store::{Fault, FaultyStore, Gate, Operation},
    session::TestSession,
};
