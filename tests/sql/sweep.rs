//! A million expired rows are deleted while requests go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum_typed_session::{SessionManager, StoreKey, store::Cleanup, testing::RecordBuilder};

use crate::{
    browser::MINUTE,
    engines::{Database, Engine, create, on_every_engine},
};

on_every_engine! {
    expired_rows_go_while_requests_come
}

const LIVE: u8 = 100;
const EXPIRED_ROWS: u32 = 1_000_000;

async fn expired_rows_go_while_requests_come<E: Engine>(database: Database<E>) {
    let insert = Instant::now();
    database.execute(&E::expired_rows("{t}", EXPIRED_ROWS)).await;
    let inserted = insert.elapsed();
    let sessions = SessionManager::<u32>::builder().store(database.store.clone()).build().unwrap();
    let keys = (0..LIVE).map(|number| StoreKey::from_bytes([number; 32]));
    for key in keys.clone() {
        let record = RecordBuilder::new().payload("0").build();
        create(&database.store, key, &record).await;
    }

    let done = Arc::new(AtomicBool::new(false));
    let traffic = {
        let (sessions, done, keys) = (sessions.clone(), done.clone(), keys.clone());
        tokio::spawn(async move {
            let mut rounds = 0;
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                for key in keys.clone() {
                    let started = Instant::now();
                    sessions.update(key, |count| *count += 1).await.unwrap();
                    slowest = slowest.max(started.elapsed());
                }
                rounds += 1;
            }
            (rounds, slowest)
        })
    };

    // Two nodes clean up the same table.
    let started = Instant::now();
    let cleanup = Cleanup::new(database.store.clone()).every(Duration::from_millis(10)).batch(5000);
    let nodes = [cleanup.clone().spawn(), cleanup.spawn()];
    while database.rows().await > i64::from(LIVE) {
        assert!(started.elapsed() < 5 * MINUTE, "{} rows", database.rows().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = started.elapsed();
    for node in nodes {
        node.stop().await;
    }
    done.store(true, Ordering::Relaxed);
    let (rounds, slowest) = traffic.await.unwrap();
    println!(
        "{}: {EXPIRED_ROWS} rows made in {inserted:.1?}, deleted in {took:.1?}; \
         {} requests meanwhile, the slowest in {slowest:.0?}",
        E::NAME,
        rounds * u32::from(LIVE),
    );
    for key in keys {
        assert_eq!(*sessions.load(key).await.unwrap().unwrap(), rounds);
    }
}
