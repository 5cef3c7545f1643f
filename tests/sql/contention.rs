//! Many writers at once, at every isolation level.

use std::{sync::Arc, time::Duration};

use axum_typed_session::{
    SessionManager, SessionStore as _, StoreError, StoreKey,
    store::{OwnerKey, SaveOutcome, Write},
    testing::RecordBuilder,
};
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    common::assert_matches,
    engines::{Database, Engine, Remote, create, on_every_engine},
};

on_every_engine! {
    a_hundred_updates_lose_none
    racing_creates_of_an_expired_row_save_one
}

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

async fn a_hundred_updates_lose_none<E: Engine>(database: Database<E>) {
    let manager = SessionManager::<u32>::builder().store(database.store.clone()).build().unwrap();
    let record = RecordBuilder::new().payload("0").build();
    create(&database.store, KEY, &record).await;
    let updates = (0..100).map(|_| {
        let manager = manager.clone();
        tokio::spawn(async move { manager.update(KEY, |count| *count += 1).await })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.unwrap().unwrap();
    }
    assert_eq!(*manager.load(KEY).await.unwrap().unwrap(), 100);
}

async fn racing_creates_of_an_expired_row_save_one<E: Engine>(database: Database<E>) {
    for _ in 0..20 {
        database.execute("DELETE FROM {t}").await;
        create(&database.store, KEY, &RecordBuilder::new().build()).await;
        database.execute("UPDATE {t} SET expires_at = 1").await;
        let creates = (0..8).map(|_| {
            let store = database.store.clone();
            tokio::spawn(async move {
                let record = RecordBuilder::new().build();
                let outcome = store.save(&KEY, &record, Write::Create).await;
                (record.version(), outcome.unwrap())
            })
        });
        let mut winners = Vec::new();
        let mut seen = Vec::new();
        for create in creates.collect::<Vec<_>>() {
            match create.await.unwrap() {
                (version, SaveOutcome::Saved) => winners.push(version),
                (_, SaveOutcome::Conflict(row)) => seen.push(row.version()),
                (_, SaveOutcome::Gone) => panic!("a create is never gone"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert!(seen.iter().all(|version| *version == winners[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_postgres() {
    let level = "SELECT COUNT(*) FROM pg_settings \
                 WHERE name = 'transaction_isolation' AND setting = 'serializable'";
    everything_at_once::<Postgres>(level).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_mariadb() {
    everything_at_once::<MySql>("SELECT @@tx_isolation = 'SERIALIZABLE'").await;
}

/// Updates of one session beside logins, lists, logouts everywhere and cleanup of others.
async fn everything_at_once<E: Engine>(is_serializable: &str) {
    let level = E::ISOLATION_LEVELS.last().unwrap();
    let Some(database) = Database::<E>::prepared(level).await else {
        return;
    };
    assert_eq!(database.number(is_serializable).await, 1);
    let others = (0..4_u8).map(|number| {
        let store = database.store.clone();
        tokio::spawn(async move {
            let owner = OwnerKey::from_bytes([number % 2; 32]);
            for round in 0..25 {
                let key = StoreKey::from_bytes([number * 25 + round + 10; 32]);
                let record = RecordBuilder::new().owner(owner).build();
                create(&store, key, &record).await;
                store.find_by_owner(&owner).await.unwrap();
                store.delete_expired(10).await.unwrap();
                store.destroy_by_owner(&owner, None).await.unwrap();
                assert!(store.load(&key).await.unwrap().is_none());
            }
        })
    });
    let others: Vec<_> = others.collect();
    a_hundred_updates_lose_none(database).await;
    for other in others {
        other.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_on_postgres_is_repeated() {
    if let Some(database) = Database::<Postgres>::prepared("SET deadlock_timeout = '100ms'").await {
        a_deadlock_is_repeated(database).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_on_mariadb_is_repeated() {
    if let Some(database) = Database::<MySql>::fresh().await {
        let deadlocks = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                         WHERE variable_name = 'INNODB_DEADLOCKS'";
        let before = database.number(deadlocks).await;
        let database = a_deadlock_is_repeated(database).await;
        assert!(database.number(deadlocks).await > before);
    }
}

/// A transaction of the application and a logout everywhere lock the same two rows in turns.
async fn a_deadlock_is_repeated<E: Remote>(database: Database<E>) -> Database<E> {
    let owner = OwnerKey::from_bytes([1; 32]);
    let keys = [[1; 32], [2; 32]].map(StoreKey::from_bytes);
    for key in keys {
        create(&database.store, key, &RecordBuilder::new().owner(owner).build()).await;
    }
    // Work that makes the engine rather end the other one.
    database.execute("CREATE TABLE {t}_work (n BIGINT)").await;
    let mut transaction = database.pool.begin().await.unwrap();
    let begin = |sql: &str| sql.replace("{t}", &database.table);
    for _ in 0..50 {
        let work = begin("INSERT INTO {t}_work VALUES (1)");
        E::run_on(&mut transaction, work.leak()).await.unwrap();
    }
    let lock = |key: &str| {
        let sql = "UPDATE {t} SET expires_at = expires_at + 1 WHERE session_key = {key}";
        let sql = begin(sql).replace("{key}", &E::blob(&key.repeat(32)));
        &*sql.leak()
    };
    E::run_on(&mut transaction, lock("02")).await.unwrap();
    let store = database.store.clone();
    let destroy = tokio::spawn(async move { store.destroy_by_owner(&owner, None).await });
    // Long enough for the other to lock the first row and wait for the second.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!destroy.is_finished());
    E::run_on(&mut transaction, lock("01")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(destroy.await.unwrap().unwrap(), 2);
    database
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sqlite_file_is_waited_for_and_then_unavailable() {
    let impatient = "PRAGMA busy_timeout = 0";
    let database = Arc::new(Database::<Sqlite>::prepared(impatient).await.unwrap());
    let record = RecordBuilder::new().build();
    let mut lock = database.pool.acquire().await.unwrap();
    Sqlite::run_on(&mut lock, "BEGIN IMMEDIATE").await.unwrap();

    let saved = database.store.save(&KEY, &record, Write::Create).await;
    assert_matches!(saved, Err(StoreError::Unavailable(_)));
    // Readers do not wait for writers.
    assert!(database.store.load(&KEY).await.unwrap().is_none());

    let other = database.clone();
    let save = tokio::spawn(async move { other.store.save(&KEY, &record, Write::Create).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    Sqlite::run_on(&mut lock, "ROLLBACK").await.unwrap();
    assert_eq!(save.await.unwrap().unwrap(), SaveOutcome::Saved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_on_postgres_waits_for_no_lock() {
    let Some(database) = Database::<Postgres>::fresh().await else {
        return;
    };
    database.execute(&Postgres::expired_rows("{t}", 10)).await;
    let mut transaction = database.pool.begin().await.unwrap();
    let lock = format!("SELECT 1 FROM {} WHERE expires_at <= 5 FOR UPDATE", database.table);
    Postgres::run_on(&mut transaction, lock.leak()).await.unwrap();
    // Two nodes, of which this one comes second.
    assert_eq!(database.store.delete_expired(3).await.unwrap(), 3);
    assert_eq!(database.store.delete_expired(3).await.unwrap(), 2);
    assert_eq!(database.store.delete_expired(3).await.unwrap(), 0);
    transaction.rollback().await.unwrap();
    assert_eq!(database.store.delete_expired(9).await.unwrap(), 5);
}
