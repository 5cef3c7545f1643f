//! Whole applications over memcached.

use std::sync::atomic::{AtomicU32, Ordering};

use axum_typed_session::testing::ManualClock;

use crate::{
    cancellation::cancellation_over,
    concurrency::concurrency_over,
    model::model_over,
    support::{Memcached, shared},
    world::{Backend, Opened},
};

concurrency_over!(concurrency, shared());
cancellation_over!(cancellation without an index, shared());
model_over!(three_clients_see_what_the_model_says, 20, shared());

impl Backend for &'static Memcached {
    async fn open(&self, clock: &ManualClock) -> Opened {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("world-{}.", COUNT.fetch_add(1, Ordering::Relaxed));
        let store = self.store().await.prefix(&prefix).unwrap().clock(clock.clone());
        let memcached = *self;
        Opened::new(store, move || {
            let keys = memcached.keys();
            std::future::ready(keys.iter().filter(|key| key.starts_with(&prefix)).count())
        })
    }
}
