//! `migrate()` at any time, from anywhere, under any good name.

use axum_typed_session::{
    ConfigError, MySqlStore, PostgresStore, SaveOutcome, SessionStore as _, SqlStore, SqliteStore,
    StoreError, StoreKey, Write, testing::RecordBuilder,
};
use sqlx::{MySqlPool, PgPool, SqlitePool};

use crate::engines::{Database, Engine, on_every_engine};

on_every_engine! {
    many_nodes_migrate_at_once
    a_missing_table_names_the_remedy
    names_are_taken_literally
    the_documented_sql_makes_the_same_table
}

async fn many_nodes_migrate_at_once<E: Engine>(database: Database<E>) {
    for round in 0..10 {
        let store = SqlStore::new(database.pool.clone());
        let name = format!("{}_{round}", database.table);
        let store = store.table_name(&name).unwrap();
        let nodes = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.migrate().await })
        });
        for node in nodes.collect::<Vec<_>>() {
            node.await.unwrap().unwrap();
        }
        assert_eq!(works(&store).await, SaveOutcome::Saved);
    }
}

async fn a_missing_table_names_the_remedy<E: Engine>(database: Database<E>) {
    let store = SqlStore::new(database.pool.clone());
    let store = store.table_name("nobody_made_this").unwrap();
    let error = store.load(&StoreKey::from_bytes([1; 32])).await;
    let Err(StoreError::Unavailable(source)) = error else {
        panic!("{error:?}");
    };
    let text = source.to_string();
    assert!(
        text.contains("nobody_made_this") && text.contains("`migrate()`"),
        "{text}"
    );
    assert!(source.source().is_some(), "the engine's own error is kept");
}

async fn names_are_taken_literally<E: Engine>(database: Database<E>) {
    // Reserved words, the default name inside another, and the longest.
    for name in ["select", "order", "Typed_Sessions_v2", &"x".repeat(48)] {
        let store = SqlStore::new(database.pool.clone());
        let store = store.table_name(name).unwrap();
        store.migrate().await.unwrap();
        assert_eq!(works(&store).await, SaveOutcome::Saved, "{name}");
    }
}

async fn the_documented_sql_makes_the_same_table<E: Engine>(database: Database<E>) {
    let store = SqlStore::new(database.pool.clone());
    let store = store.table_name("by_hand").unwrap();
    E::run_sql(&database.pool, store.schema_sql())
        .await
        .unwrap();
    assert_eq!(works(&store).await, SaveOutcome::Saved);
    store.migrate().await.unwrap();
}

async fn works<E: Engine>(store: &SqlStore<E>) -> SaveOutcome {
    let record = RecordBuilder::new().build();
    let key = StoreKey::from_bytes(*b"one key for every table there is");
    store.save(&key, &record, Write::Create).await.unwrap()
}

fn stores() -> (SqliteStore, PostgresStore, MySqlStore) {
    (
        SqliteStore::new(SqlitePool::connect_lazy("sqlite::memory:").unwrap()),
        PostgresStore::new(PgPool::connect_lazy("postgres://localhost").unwrap()),
        MySqlStore::new(MySqlPool::connect_lazy("mysql://localhost").unwrap()),
    )
}

#[tokio::test]
async fn the_default_schema_is_the_file_and_another_name_changes_no_more_than_the_name() {
    let (sqlite, postgres, mysql) = stores();
    assert_eq!(
        sqlite.schema_sql(),
        include_str!("../../src/store/sql/sqlite.sql")
    );
    assert_eq!(
        postgres.schema_sql(),
        include_str!("../../src/store/sql/postgres.sql")
    );
    assert_eq!(
        mysql.schema_sql(),
        include_str!("../../src/store/sql/mysql.sql")
    );

    let other = postgres.table_name("app.typed_sessions_2").unwrap();
    assert_eq!(
        other.schema_sql(),
        include_str!("../../src/store/sql/postgres.sql")
            .replace("\"typed_sessions_", "\"typed_sessions_2_")
            .replace("\"typed_sessions\"", "\"app\".\"typed_sessions_2\"")
    );
}

#[tokio::test]
async fn bad_names_are_refused() {
    let (sqlite, postgres, mysql) = stores();
    let long = "x".repeat(49);
    let bad = [
        "",
        ".",
        "a.",
        ".a",
        "a.b.c",
        "1a",
        "a b",
        "a-b",
        "a;b",
        "a\"b",
        "a`b",
        "a'b",
        "a\0",
        "é",
        "a\"; DROP TABLE users; --",
        &long,
        "a.1b",
    ];
    for name in bad {
        for refused in [
            sqlite.clone().table_name(name).err(),
            postgres.clone().table_name(name).err(),
            mysql.clone().table_name(name).err(),
        ] {
            assert!(
                matches!(
                    refused,
                    Some(ConfigError::Invalid {
                        option: "table_name",
                        ..
                    })
                ),
                "{name:?}: {refused:?}"
            );
        }
    }
    assert!(postgres.table_name("app.sessions").is_ok());
    assert!(mysql.table_name("app.sessions").is_ok());
    let error = sqlite.table_name("main.sessions").unwrap_err().to_string();
    assert_eq!(
        error,
        "`.table_name(..)`: has a schema, which this engine does not"
    );
}
