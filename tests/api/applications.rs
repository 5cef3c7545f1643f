//! Whole applications over memory, also where it pauses, and over the least a store can be.

use std::future::ready;

use axum_typed_session::{MemoryStore, SessionStore, delegate_session_store, testing::ManualClock};

use crate::{
    cancellation::{Pausing, cancellation_over},
    concurrency::concurrency_over,
    model::model_over,
    world::{Backend, Memory, Opened},
};

concurrency_over!(concurrency, Some(Memory));
concurrency_over!(concurrency_over_the_least, Some(Least));
concurrency_over!(concurrency_with_pauses, Some(Pausing(&Memory)));
cancellation_over!(cancellation, Some(Memory));
model_over!(three_clients_see_what_the_model_says, 150, Some(Memory));

/// Stores that have only what the trait asks for: to touch or end a version is a load and a write.
struct Least;

struct LeastStore(MemoryStore);

impl Backend for Least {
    async fn open(&self, clock: &ManualClock) -> Opened {
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let rows = store.clone();
        Opened::new(LeastStore(store), move || ready(rows.len()))
    }
}

impl SessionStore for LeastStore {
    delegate_session_store!(load, save, destroy => self.0);
}
