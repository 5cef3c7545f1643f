//! Writers of a row that has expired, each on its own thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    StoreUnderTest,
    expect::{answered, saved},
    parallel::in_parallel,
    races::{ROUNDS, one_of_many_is_saved},
};
use crate::{id::StoreKey, store::Write};

/// How often a cleanup races creates, if the time of the engine can be moved.
const CLEANUPS: usize = 5;

/// So many expired rows are replaced during a cleanup.
const ROWS: usize = 40;

/// The time between two creates, so that they last as long as a cleanup in fast and in slow stores.
const PAUSE: Duration = Duration::from_micros(100);

/// Of several concurrent creates over an expired row, exactly one is `Saved`. The others are `Conflict` with its row.
pub async fn concurrent_creates_over_an_expired_row_save_one(store: &StoreUnderTest) {
    let brief = store.brief_record().build();
    let mut keys = Vec::new();
    for _ in 0..ROUNDS {
        keys.push(store.created(&brief).await);
    }
    store.pass_soon().await;
    for key in keys {
        one_of_many_is_saved(store, key, None).await;
    }
}

/// A row that replaces an expired row during `delete_expired` or `take_expired` stays.
pub async fn a_row_created_during_a_cleanup_stays(store: &StoreUnderTest) {
    // Where rows expire by waiting, one cleanup of each kind has to do.
    let cleanups = if store.advance.is_some() { CLEANUPS } else { 1 };
    for _ in 0..cleanups {
        if !store.engine_deletes_expired {
            creates_race_a_cleanup(store, false).await;
        }
        if store.returns_expired() {
            creates_race_a_cleanup(store, true).await;
        }
    }
}

async fn creates_race_a_cleanup(store: &StoreUnderTest, takes_rows: bool) {
    let brief = store.brief_record().build();
    let mut keys: Vec<StoreKey> = Vec::new();
    for _ in 0..ROWS {
        keys.push(store.created(&brief).await);
    }
    store.pass_soon().await;
    let (keys, next) = (Arc::new(keys), store.record().payload("next").build());
    let is_cleaning = Arc::new(AtomicBool::new(false));
    let tasks = (0..3).map(|task: usize| {
        let (store, keys, next) = (store.shared(), keys.clone(), next.clone());
        let is_cleaning = is_cleaning.clone();
        async move {
            if task == 2 {
                is_cleaning.store(true, Ordering::SeqCst);
                if takes_rows {
                    return answered(store.take_expired(1000).await, "taking expired rows");
                }
                answered(store.delete_expired(1000).await, "deleting expired rows");
                return Vec::new();
            }
            // Each task has a thread of its own.
            while !is_cleaning.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            for key in keys.iter().skip(task).step_by(2) {
                let created = store.save(key, &next, Write::Create).await;
                saved(created, "creating over an expired row during a cleanup");
                thread::sleep(PAUSE);
            }
            Vec::new()
        }
    });
    for (key, taken) in in_parallel(tasks).await.into_iter().flatten() {
        let is_old = taken.version() == brief.version() || !keys.contains(&key);
        assert!(is_old, "take_expired returned a live row, which replaced an expired one");
    }
    let cleanup = if takes_rows { "take_expired" } else { "delete_expired" };
    for key in keys.iter() {
        let doing = format!("loading a row that replaced an expired one during {cleanup}");
        store.holds(key, &next, &doing).await;
    }
}
