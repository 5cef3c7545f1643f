//! What tests of an application, and of a store, need.

mod clock;
mod faulty_store;

pub use self::{
    clock::ManualClock,
    faulty_store::{Fault, FaultyStore, Gate, Operation},
};
