//! Whole applications over each engine.

use std::sync::Arc;

use axum_typed_session::{SessionStore, store::SqlStore, testing::ManualClock};
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    cancellation::cancellation_over,
    concurrency::concurrency_over,
    engines::{Database, Engine},
    model::model_over,
    world::{Backend, Opened},
};

concurrency_over!(concurrency_over_sqlite, Database::<Sqlite>::fresh().await);
concurrency_over!(concurrency_over_postgres, Database::<Postgres>::fresh().await);
concurrency_over!(concurrency_over_mariadb, Database::<MySql>::fresh().await);
cancellation_over!(cancellation_over_sqlite, Database::<Sqlite>::fresh().await);
cancellation_over!(cancellation_over_postgres, Database::<Postgres>::fresh().await);
cancellation_over!(cancellation_over_mariadb, Database::<MySql>::fresh().await);
model_over!(three_clients_over_sqlite, 20, Database::<Sqlite>::fresh().await);
model_over!(three_clients_over_postgres, 20, Database::<Postgres>::fresh().await);
model_over!(three_clients_over_mariadb, 20, Database::<MySql>::fresh().await);

/// Each world has a table of its own.
impl<E: Engine> Backend for Database<E>
where
    SqlStore<E>: SessionStore,
{
    async fn open(&self, clock: &ManualClock) -> Opened {
        let database = Arc::new(Self::in_pool(self.pool.clone()).await);
        let store = database.store.clone().clock(clock.clone());
        Opened::new(store, move || {
            let database = database.clone();
            async move { usize::try_from(database.rows().await).unwrap() }
        })
    }
}
