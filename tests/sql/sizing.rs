//! What the documentation says a session takes.
//!
//! ```text
//! cargo test --all-features --test sql -- --ignored sizing --nocapture
//! ```

use std::time::{Duration, Instant};

use axum_typed_session::{SessionStore as _, StoreKey, store::OwnerKey, testing::RecordBuilder};
use sqlx::{MySql, Postgres, Sqlite};

use crate::engines::{Database, Engine, create};

const SESSIONS: u32 = 100_000;

/// Sessions of owners, with 243 bytes of data, in the order in which random ids come.
async fn bytes_per_session<E: Engine>(size: &str) {
    let Some(database) = Database::<E>::fresh().await else {
        return;
    };
    let started = Instant::now();
    let writers = (0..8).map(|_| {
        let store = database.store.clone();
        tokio::spawn(async move {
            for _ in 0..SESSIONS / 8 {
                // A version is as random as a key.
                let record = RecordBuilder::new().payload([b'x'; 243]).build();
                let random = RecordBuilder::new().build().version();
                let key = [*record.version().as_bytes(), *random.as_bytes()].concat();
                let key: [u8; 32] = key.try_into().unwrap();
                let record = RecordBuilder::new()
                    .owner(OwnerKey::from_bytes(key))
                    .payload(record.payload())
                    .build();
                let key = StoreKey::from_bytes(key);
                create(&store, key, &record).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let took = started.elapsed();
    let bytes = database.number(size).await;
    println!(
        "{}: {SESSIONS} sessions in {took:.1?}, {} bytes each",
        E::NAME,
        bytes / i64::from(SESSIONS)
    );

    let store = &database.store;
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    let (mut listed, mut next) = (0, None);
    loop {
        let page_began = Instant::now();
        let page = store.list(next.as_ref(), 1000).await.unwrap();
        slowest = slowest.max(page_began.elapsed());
        listed += page.keys.len();
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(listed, usize::try_from(SESSIONS).unwrap());
    println!(
        "{}: listed in pages of 1000 in {:.1?}, the slowest page in {slowest:.1?}",
        E::NAME,
        started.elapsed()
    );

    database.execute("UPDATE {t} SET expires_at = 1").await;
    let started = Instant::now();
    let taken = store.take_expired(1000).await.unwrap();
    println!("{}: took {} expired rows in {:.1?}", E::NAME, taken.len(), started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn sqlite() {
    let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    bytes_per_session::<Sqlite>(size).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn postgres() {
    bytes_per_session::<Postgres>("SELECT pg_total_relation_size('{t}')").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn mariadb() {
    let size = "SELECT CAST(file_size AS SIGNED) FROM information_schema.innodb_sys_tablespaces \
                WHERE name = 'sessions/{t}'";
    bytes_per_session::<MySql>(size).await;
}
