//! `migrate()` at any time, from anywhere, under any good name.

use std::time::Duration;

use axum_typed_session::{
    ConfigError, MySqlStore, PostgresStore, SessionStore as _, SqliteStore, StoreError, StoreKey,
    store::SqlStore, testing::RecordBuilder,
};
use sqlx::{Database as _, MySql, MySqlPool, PgPool, Postgres, SqlitePool};
use tokio::time::timeout;

use crate::{
    common::assert_matches,
    engines::{Database, Engine, Remote, create, on_every_engine, on_every_server, options},
};

on_every_engine! {
    many_nodes_migrate_at_once
    a_missing_table_names_the_remedy
    names_are_taken_literally
    the_documented_sql_makes_the_same_table
    migrating_again_waits_for_no_writer
    a_name_that_an_index_has_is_not_passed_over
}

mod servers {
    use super::*;

    on_every_server! { Database;
        who_may_only_read_and_write_migrates
        a_name_in_a_schema_is_not_one_without
    }
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
        works(&store).await;
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
    assert!(text.contains("nobody_made_this") && text.contains("`migrate()`"), "{text}");
    assert!(source.source().is_some(), "the engine's own error is kept");
}

async fn names_are_taken_literally<E: Engine>(database: Database<E>) {
    // Reserved words, the default name inside another, and the longest.
    for name in ["select", "order", "Typed_Sessions_v2", &"x".repeat(48)] {
        let store = SqlStore::new(database.pool.clone());
        let store = store.table_name(name).unwrap();
        store.migrate().await.unwrap();
        works(&store).await;
    }
}

async fn the_documented_sql_makes_the_same_table<E: Engine>(database: Database<E>) {
    let store = SqlStore::new(database.pool.clone());
    let store = store.table_name("by_hand").unwrap();
    E::run_sql(&database.pool, store.schema_sql()).await.unwrap();
    works(&store).await;
    store.migrate().await.unwrap();
}

async fn migrating_again_waits_for_no_writer<E: Engine>(database: Database<E>) {
    let mut writer = database.pool.begin().await.unwrap();
    let write = format!("DELETE FROM {} WHERE expires_at < 0", database.table);
    E::run_on(&mut writer, write.leak()).await.unwrap();
    let migrated = timeout(Duration::from_secs(1), database.store.migrate()).await;
    migrated.expect("it waited").unwrap();
    writer.rollback().await.unwrap();
}

async fn a_name_that_an_index_has_is_not_passed_over<E: Engine>(database: Database<E>) {
    database.execute("CREATE INDEX {t}_2_owner ON {t} (version)").await;
    let store = SqlStore::new(database.pool.clone());
    let store = store.table_name(&format!("{}_2", database.table)).unwrap();
    let migrated = store.migrate().await;
    // Tables of MySQL name their indices each for itself.
    if E::NAME == MySql::NAME {
        migrated.unwrap();
    } else {
        expect_missing_index(migrated);
    }
}

fn expect_missing_index(migrated: Result<(), StoreError>) {
    let Err(StoreError::Unavailable(source)) = migrated else {
        panic!("{migrated:?}");
    };
    let text = source.to_string();
    assert!(text.contains("lacks its index on `expires_at` or"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_mysql_lacks_is_missed() {
    if let Some(database) = Database::<MySql>::fresh().await {
        database.execute("DROP INDEX owner ON {t}").await;
        expect_missing_index(database.store.migrate().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indices_that_postgres_lacks_are_made_without_holding_writers_up() {
    let Some(database) = Database::<Postgres>::fresh().await else {
        return;
    };
    database.execute("DROP INDEX {t}_owner").await;
    let mut writer = database.pool.begin().await.unwrap();
    let write = format!("DELETE FROM {} WHERE expires_at < 0", database.table);
    Postgres::run_on(&mut writer, write.leak()).await.unwrap();
    // It waits for the writer, and whoever asked for it gives up.
    let migrate = database.store.migrate();
    let migrated = timeout(Duration::from_millis(200), migrate).await;
    assert!(migrated.is_err(), "{migrated:?}");
    timeout(Duration::from_secs(2), works(&database.store)).await.expect("it waited");
    writer.commit().await.unwrap();
    database.store.migrate().await.unwrap();
    let indices = "SELECT COUNT(*) FROM pg_indexes WHERE tablename = '{t}'";
    assert_eq!(database.number(indices).await, 3);
}

async fn who_may_only_read_and_write_migrates<E: Remote>(database: Database<E>) {
    database.execute("CREATE USER {t}_clerk").await;
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {t}_clerk";
    database.execute(grant).await;
    let user = format!("{}_clerk", database.table);
    let pool = E::connect_as(&user, E::port(&database.pool), options()).await;
    let store = SqlStore::new(pool);
    assert_matches!(store.migrate().await, Err(StoreError::Unavailable(_)));
    let store = store.table_name(&database.table).unwrap();
    store.migrate().await.unwrap();
    works(&store).await;
}

async fn a_name_in_a_schema_is_not_one_without<E: Remote>(database: Database<E>) {
    database.execute("CREATE SCHEMA {t}_app").await;
    let store = SqlStore::new(database.pool.clone());
    let name = format!("{}_app.{}", database.table, database.table);
    let store = store.table_name(&name).unwrap();
    for _ in 0..2 {
        store.migrate().await.unwrap();
    }
    works(&store).await;
    assert_eq!(database.rows().await, 0);
    assert_eq!(database.number("SELECT COUNT(*) FROM {t}_app.{t}").await, 1);
}

async fn works<E: Engine>(store: &SqlStore<E>) {
    let key = StoreKey::from_bytes(*b"one key for every table there is");
    create(store, key, &RecordBuilder::new().build()).await;
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
    assert_eq!(sqlite.schema_sql(), include_str!("../../src/store/sql/sqlite.sql"));
    assert_eq!(postgres.schema_sql(), include_str!("../../src/store/sql/postgres.sql"));
    assert_eq!(mysql.schema_sql(), include_str!("../../src/store/sql/mysql.sql"));

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
            let text = refused.map(|refused: ConfigError| refused.to_string()).unwrap_or_default();
            assert!(text.starts_with("`.table_name(..)`: "), "{name:?}: {text}");
        }
    }
    assert!(postgres.table_name("app.sessions").is_ok());
    assert!(mysql.table_name("app.sessions").is_ok());
    let error = sqlite.table_name("main.sessions").unwrap_err().to_string();
    assert_eq!(error, "`.table_name(..)`: the name has a schema, but this engine has no schemas");
}
