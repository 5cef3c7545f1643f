//! What tests of an application, and of a store, need.

mod clock;

pub use self::clock::ManualClock;
