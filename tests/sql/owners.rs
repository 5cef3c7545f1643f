//! A logout everywhere ends every session there was, whatever goes on meanwhile.

use std::time::{Duration, Instant};

use axum_typed_session::{
    SessionStore as _, StoreKey,
    store::{OwnerKey, Record, SaveOutcome, SqlStore, Write},
    testing::RecordBuilder,
};
use sqlx::{MySql, Postgres};

use crate::engines::{Database, Engine, create, on_every_engine};

const OWNER: OwnerKey = OwnerKey::from_bytes([7; 32]);

on_every_engine! {
    regenerates_race_the_end_of_all
    more_sessions_of_one_owner_than_a_statement_ends
}

const fn key(number: u8) -> StoreKey {
    StoreKey::from_bytes([number; 32])
}

async fn log_in<E: Engine>(store: &SqlStore<E>, key: StoreKey) -> Record {
    let record = RecordBuilder::new().owner(OWNER).build();
    create(store, key, &record).await;
    record
}

/// Does what a session does that gets a new id.
async fn regenerate<E: Engine>(store: &SqlStore<E>, old: (StoreKey, &Record), new: StoreKey) {
    log_in(store, new).await;
    let tombstone = RecordBuilder::new().tombstone().build();
    let retired = store.save(&old.0, &tombstone, Write::Update { loaded: old.1 });
    if retired.await.unwrap() != SaveOutcome::Saved {
        store.destroy(&new).await.unwrap();
    }
}

/// A row that another transaction holds for a moment stops the statement between the place of the new row
/// and that of the old one.
async fn a_session_regenerated_behind_a_locked_row<E: Engine>(isolation: &'static str) {
    let Some(database) = Database::<E>::prepared(isolation).await else {
        return;
    };
    let store = &database.store;
    let (new, locked, old, kept) = (key(1), key(2), key(3), key(4));
    log_in(store, locked).await;
    let record = log_in(store, old).await;
    log_in(store, kept).await;

    let mut transaction = database.pool.begin().await.unwrap();
    let lock = "SELECT 1 FROM {t} WHERE session_key = {key} FOR UPDATE";
    let lock = lock.replace("{t}", &database.table).replace("{key}", &E::blob(&"02".repeat(32)));
    E::run_on(&mut transaction, lock.leak()).await.unwrap();
    let destroy = {
        let store = store.clone();
        tokio::spawn(async move { store.destroy_by_owner(&OWNER, Some(&kept)).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!destroy.is_finished(), "{isolation}: it waits for the lock");
    regenerate(store, (old, &record), new).await;
    transaction.commit().await.unwrap();

    assert_eq!(destroy.await.unwrap().unwrap(), 2, "{isolation}");
    let left = store.find_by_owner(&OWNER).await.unwrap();
    assert_eq!(left, [kept], "{isolation}");
    let tombstone = store.load(&old).await.unwrap();
    assert!(tombstone.is_some(), "{isolation}: what was replaced stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_regenerated_behind_a_lock_of_postgres_is_ended() {
    for level in Postgres::ISOLATION_LEVELS {
        a_session_regenerated_behind_a_locked_row::<Postgres>(level).await;
    }
}

/// From `REPEATABLE READ` on, the statement locks the place of the new row too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_regenerated_behind_a_lock_of_mariadb_is_ended() {
    a_session_regenerated_behind_a_locked_row::<MySql>(MySql::ISOLATION_LEVELS[0]).await;
}

/// Sessions of one owner get new ids while all of them are ended.
async fn regenerates_race_the_end_of_all<E: Engine>(_: Database<E>) {
    for level in E::ISOLATION_LEVELS {
        regenerates_race_the_end_of_all_at(Database::<E>::prepared(level).await.unwrap()).await;
    }
}

async fn regenerates_race_the_end_of_all_at<E: Engine>(database: Database<E>) {
    let store = &database.store;
    for round in 0..200_u8 {
        database.execute("DELETE FROM {t}").await;
        // The new rows' places are before, between and behind the others'.
        let places = [round, round.wrapping_add(85), round.wrapping_add(170)];
        let [first, second, third] = places.map(key);
        let others = [0, 8][usize::from(round % 2)];
        for other in 0..others {
            log_in(store, key(round.wrapping_add(3 + other * 17))).await;
        }
        let record = log_in(store, first).await;
        let regenerates = {
            let store = store.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(u64::from(round) * 37 % 1500)).await;
                regenerate(&store, (first, &record), second).await;
                if let Some(record) = store.load(&second).await.unwrap() {
                    regenerate(&store, (second, &record), third).await;
                }
            })
        };
        tokio::time::sleep(Duration::from_micros(u64::from(round) * 53 % 1500)).await;
        let ended = store.destroy_by_owner(&OWNER, None).await.unwrap();
        regenerates.await.unwrap();
        assert_eq!(store.find_by_owner(&OWNER).await.unwrap(), [], "{round}");
        // The one that moves may be met at two places of the three.
        let others = u64::from(others);
        assert!((others + 1..=others + 3).contains(&ended), "{ended}");
    }
}

const MANY: u32 = 60_000;

async fn more_sessions_of_one_owner_than_a_statement_ends<E: Engine>(database: Database<E>) {
    database.execute(&E::expired_rows("{t}", MANY)).await;
    let live = format!(
        "UPDATE {{t}} SET expires_at = 9000000000000, owner = {}",
        E::blob(&"07".repeat(32))
    );
    database.execute(&live).await;
    let started = Instant::now();
    let found = database.store.find_by_owner(&OWNER).await.unwrap();
    let listed = started.elapsed();
    assert_eq!(found.len(), usize::try_from(MANY).unwrap());

    let started = Instant::now();
    let ended = database.store.destroy_by_owner(&OWNER, Some(&found[0]));
    assert_eq!(ended.await.unwrap(), u64::from(MANY) - 1);
    println!(
        "{}: {MANY} sessions of one owner listed in {listed:.0?}, ended in {:.0?}",
        E::NAME,
        started.elapsed()
    );
    assert_eq!(database.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_that_reads_empty_values_as_null_lists_and_ends_sessions() {
    let mode = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',EMPTY_STRING_IS_NULL')";
    let Some(database) = Database::<MySql>::prepared(mode).await else {
        return;
    };
    let store = &database.store;
    log_in(store, key(1)).await;
    log_in(store, key(2)).await;
    assert_eq!(store.list(None, 10).await.unwrap().keys, [key(1), key(2)]);
    assert_eq!(store.destroy_by_owner(&OWNER, None).await.unwrap(), 2);
}
