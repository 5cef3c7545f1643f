//! Whole applications over Redis, and over a cluster.

use std::sync::atomic::{AtomicU32, Ordering};

use axum_typed_session::{RedisStore, testing::ManualClock};
use redis::cmd;

use crate::{
    cancellation::cancellation_over,
    concurrency::concurrency_over,
    model::model_over,
    support::{Cluster, Redis, shared, shared_cluster},
    world::{Backend, Opened},
};

concurrency_over!(concurrency, shared());
concurrency_over!(concurrency_over_a_cluster, shared_cluster());
cancellation_over!(cancellation, shared());
cancellation_over!(cancellation_over_a_cluster, shared_cluster());
model_over!(three_clients_see_what_the_model_says, 20, shared());
model_over!(three_clients_over_a_cluster_see_what_the_model_says, 20, shared_cluster());

impl Backend for &'static Redis {
    async fn open(&self, clock: &ManualClock) -> Opened {
        let prefix = fresh_prefix();
        let store = self.store().await.prefix(&prefix).clock(clock.clone());
        opened(store, std::slice::from_ref(*self), prefix)
    }
}

impl Backend for &'static Cluster {
    async fn open(&self, clock: &ManualClock) -> Opened {
        let prefix = fresh_prefix();
        let store = self.store().await.prefix(&prefix).clock(clock.clone());
        opened(store, &self.masters, prefix)
    }
}

/// Keeps a world's keys apart from those of others on the same server.
fn fresh_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("world {}:", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn opened(store: RedisStore, masters: &'static [Redis], prefix: String) -> Opened {
    Opened::new(store, move || {
        let rows = format!("{prefix}row:*");
        let found = masters.iter().map(|master| {
            let keys: Vec<Vec<u8>> = master.ask(cmd("KEYS").arg(&rows));
            keys.len()
        });
        std::future::ready(found.sum())
    })
}
