//! Every engine passes the suite that stores of others are judged by.

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    MemoryStore, SqliteStore, session_store_conformance,
    testing::{ManualClock, conformance::StoreUnderTest},
};
use sqlx::{MySql, Postgres, Sqlite};

use crate::engines::{Database, Engine};

/// By the engine's clock: checks of expiry wait a second.
async fn by_its_clock<E: Engine>() -> StoreUnderTest {
    match Database::<E>::fresh().await {
        Some(database) => StoreUnderTest::new(database.store.clone()),
        // Where an engine is missing was said aloud; a macro cannot leave its tests out.
        None => StoreUnderTest::new(MemoryStore::new()),
    }
}

/// By a clock that checks move.
async fn by_another_clock<E: Engine>() -> StoreUnderTest {
    let Some(database) = Database::<E>::fresh().await else {
        return StoreUnderTest::new(MemoryStore::new());
    };
    let clock = ManualClock::at(OffsetDateTime::now_utc());
    let store = database.store.clone().clock(clock.clone());
    StoreUnderTest::new(store).advance_with(move |duration| {
        // The folder of the file is the database's.
        let _ = &database;
        clock.advance(duration);
        async {}
    })
}

async fn in_memory() -> StoreUnderTest {
    let store = SqliteStore::connect("sqlite::memory:").await.unwrap();
    store.migrate().await.unwrap();
    StoreUnderTest::new(store)
}

session_store_conformance!(sqlite_in_memory, in_memory().await);
session_store_conformance!(sqlite_in_a_file, by_another_clock::<Sqlite>().await);
session_store_conformance!(postgres, by_its_clock::<Postgres>().await);
session_store_conformance!(mariadb, by_its_clock::<MySql>().await);
