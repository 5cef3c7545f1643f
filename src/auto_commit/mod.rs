//! A middleware that commits what handlers leave uncommitted.

mod layer;
mod service;

pub use self::{layer::AutoCommitLayer, service::AutoCommit};
