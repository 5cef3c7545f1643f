//! Every engine passes the suite that stores of others are judged by.

use std::{sync::Arc, time::Duration};

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    MemoryStore, SqliteStore, session_store_conformance,
    testing::{
        ManualClock,
        conformance::{self, StoreUnderTest},
    },
};
use sqlx::{
    ConnectOptions as _, MySql, Postgres, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use tokio::sync::Mutex;

use crate::{
    engines::{Database, Engine, Folder},
    servers,
};

/// Breaks the engine by taking its table away, and damages a row where it stands.
fn with_faults<E: Engine>(store: StoreUnderTest, database: &Arc<Database<E>>) -> StoreUnderTest {
    let run = |sql: &'static str| {
        let database = Arc::clone(database);
        move || {
            let database = Arc::clone(&database);
            async move { _ = database.execute(sql).await }
        }
    };
    let database = Arc::clone(database);
    store
        .break_with(
            run("ALTER TABLE {t} RENAME TO {t}_away"),
            run("ALTER TABLE {t}_away RENAME TO {t}"),
        )
        .damage_with(move |key| {
            let database = Arc::clone(&database);
            let hex: Vec<_> = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let (data, key) = (E::blob("ff"), E::blob(&hex.concat()));
            let sql = format!("UPDATE {{t}} SET data = {data} WHERE session_key = {key}");
            async move { assert_eq!(database.execute(&sql).await, 1) }
        })
}

/// By the engine's clock: checks of expiry wait a second.
async fn by_its_clock<E: Engine>() -> StoreUnderTest {
    match Database::<E>::fresh().await {
        Some(database) => {
            let store = StoreUnderTest::new(database.store.clone());
            with_faults(store, &Arc::new(database))
        }
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
    let store = StoreUnderTest::new(database.store.clone().clock(clock.clone()));
    let store = store.advance_with(move |duration| {
        clock.advance(duration);
        async {}
    });
    with_faults(store, &Arc::new(database))
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

/// A file that another program locks for itself. Without a write-ahead log, nobody can read it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sqlite_file_is_an_error_and_comes_back() {
    let folder = Folder(servers::folder("sqlite"));
    let options = SqliteConnectOptions::new()
        .filename(folder.0.join("sessions.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .busy_timeout(Duration::from_millis(50));
    let locker: Arc<Mutex<SqliteConnection>> =
        Arc::new(Mutex::new(options.connect().await.unwrap()));
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool);
    store.migrate().await.unwrap();
    let lock = |sql: &'static str| {
        let locker = locker.clone();
        move || {
            let locker = locker.clone();
            async move { Sqlite::run_on(&mut *locker.lock().await, sql).await.unwrap() }
        }
    };
    let store = StoreUnderTest::new(store).break_with(lock("BEGIN EXCLUSIVE"), lock("COMMIT"));
    conformance::a_broken_engine_is_an_error(&store).await;
    conformance::rows_are_back_when_the_engine_is(&store).await;
}
