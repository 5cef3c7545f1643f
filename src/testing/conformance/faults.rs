//! An engine that fails, and rows that cannot be read.
//!
//! The checks end early for a store that says nothing about [`break_with`](StoreUnderTest::break_with) or
//! [`damage_with`](StoreUnderTest::damage_with).

use std::{
    collections::BTreeSet,
    fmt::Debug,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    Fault, StoreUnderTest, any_key, any_owner,
    expect::{an_hour_after, answered, saved, update},
    listing::all_expired,
    parallel::sleep,
};
use crate::{error::StoreError, id::StoreKey, store::Write};

/// A call without an answer for so long counts as an error, as it does in a manager.
const NO_ANSWER: Duration = Duration::from_secs(2);

/// A store may take so long until it has noticed that its engine is back.
const RECOVERY: Duration = Duration::from_secs(30);

/// While the engine fails, every call is [`StoreError::Unavailable`]. `None`, `Gone`, an empty list and a zero would
/// mean that a session has ended.
pub async fn a_broken_engine_is_an_error(store: &StoreUnderTest) {
    let Some(fault) = &store.fault else {
        return;
    };
    let loaded = store.record().payload("kept").build();
    let key = store.created(&loaded).await;
    every_call_fails(store, fault, &key).await;
    works_again(store, &key).await;
    store.holds(&key, &loaded, "loading a row that was loaded while the engine was broken").await;
}

/// Breaks the engine, tries every method of the store, and repairs the engine. The row under `loaded` is only loaded.
async fn every_call_fails(store: &StoreUnderTest, fault: &Fault, loaded: &StoreKey) {
    let owner = any_owner();
    let record = store.record().owner(owner).payload("kept").build();
    let (key, next) = (store.created(&record).await, store.record().owner(owner).build());
    let (version, later) = (record.version(), an_hour_after(&record));
    (fault.begin)(()).await;
    fails("load", store.load(loaded)).await;
    fails("load without a row", store.load(&any_key())).await;
    if store.indexes_owners() {
        fails("find_by_owner", store.find_by_owner(&owner)).await;
    }
    if store.lists_sessions() {
        fails("list", store.list(None, 10)).await;
    }
    if store.returns_expired() {
        fails("take_expired", store.take_expired(10)).await;
    }
    if !store.engine_deletes_expired {
        fails("delete_expired", store.delete_expired(10)).await;
    }
    fails("save with Create", store.save(&any_key(), &next, Write::Create)).await;
    fails("save with Update", store.save(&key, &next, update(&record))).await;
    fails("touch", store.touch(&key, version, later)).await;
    fails("destroy_at", store.destroy_at(&key, version)).await;
    fails("destroy", store.destroy(&key)).await;
    if store.indexes_owners() {
        fails("destroy_by_owner", store.destroy_by_owner(&owner, None)).await;
    }
    (fault.end)(()).await;
}

async fn fails<R: Debug>(call: &str, answer: impl Future<Output = Result<R, StoreError>>) {
    let answer = in_time(answer).await;
    assert!(
        matches!(answer, None | Some(Err(StoreError::Unavailable(_) | StoreError::Timeout { .. }))),
        "{call} while the engine is broken: expected Unavailable, got {answer:?}"
    );
}

/// Returns `None` if there is no answer in time.
async fn in_time<R>(answer: impl Future<Output = R>) -> Option<R> {
    let (mut answer, mut end) = (pin!(answer), pin!(sleep(NO_ANSWER)));
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// When the engine works again, the rows are there as they were saved, and the store needs no new start.
pub async fn rows_are_back_when_the_engine_is(store: &StoreUnderTest) {
    let Some(fault) = &store.fault else {
        return;
    };
    let owner = any_owner();
    let record = store.record().owner(owner).payload("kept").build();
    let (key, next) = (store.created(&record).await, store.record().payload("next").build());
    (fault.begin)(()).await;
    // A store may answer from its own memory meanwhile, and forget the row by that.
    let _ = in_time(store.load(&key)).await;
    (fault.end)(()).await;
    works_again(store, &key).await;
    store.holds(&key, &record, "loading a row after the engine was repaired").await;
    // A store that has recovered once notices the next fault too.
    every_call_fails(store, fault, &key).await;
    works_again(store, &key).await;
    store.holds(&key, &record, "loading a row after the engine was repaired twice").await;
    if store.indexes_owners() {
        let found = answered(store.find_by_owner(&owner).await, "finding an owner after a repair");
        assert_eq!(found, [key], "the owner index lost a row while the engine was broken");
    }
    saved(store.save(&key, &next, update(&record)).await, "updating a row after a repair");
    store.holds(&key, &next, "loading what was updated after a repair").await;
}

/// Waits until the store has noticed that its engine works. Until then it may fail, and may not say that the row
/// is gone.
async fn works_again(store: &StoreUnderTest, key: &StoreKey) {
    let started = Instant::now();
    loop {
        match in_time(store.load(key)).await {
            Some(Ok(_)) => return,
            Some(Err(StoreError::Unavailable(_) | StoreError::Timeout { .. })) | None => {}
            Some(Err(error)) => {
                panic!("loading a row after a repair: the store failed with {error:?}")
            }
        }
        assert!(
            started.elapsed() < RECOVERY,
            "the store still fails {RECOVERY:?} after the engine was repaired"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// A row that is no record is [`StoreError::Corrupt`] or [`StoreError::Newer`] for a load and a create, and stays.
pub async fn an_unreadable_row_is_an_error_and_stays(store: &StoreUnderTest) {
    let Some(damage) = &store.damage else {
        return;
    };
    let record = store.record().payload("unreadable").build();
    let (key, next) = (store.created(&record).await, store.record().payload("next").build());
    damage(key).await;
    unreadable(&store.load(&key).await, "loading a row that is no record");
    let created = store.save(&key, &next, Write::Create).await;
    unreadable(&created, "creating over a row that is no record");
    // Whether these read the row is up to the engine.
    let _ = store.destroy_at(&key, next.version()).await;
    let _ = store.touch(&key, next.version(), an_hour_after(&record)).await;
    let _ = store.delete_expired(1000).await;
    if store.lists_sessions() {
        let _ = store.list(None, 1000).await;
    }
    unreadable(&store.load(&key).await, "loading a row that is no record, after other calls");
    answered(store.destroy(&key).await, "destroying a row that is no record");
    store.absent(&key, "loading after an unreadable row was destroyed").await;
}

/// `destroy` removes a row that is no record, and a create then makes a new row.
pub async fn an_unreadable_row_can_be_destroyed(store: &StoreUnderTest) {
    let Some(damage) = &store.damage else {
        return;
    };
    let record = store.record().owner(any_owner()).payload("unreadable").build();
    let (key, next) = (store.created(&record).await, store.record().payload("next").build());
    damage(key).await;
    for _ in 0..2 {
        unreadable(&store.load(&key).await, "loading a row that is no record");
    }
    answered(store.destroy(&key).await, "destroying a row that is no record");
    store.absent(&key, "loading after an unreadable row was destroyed").await;
    saved(store.save(&key, &next, Write::Create).await, "creating after an unreadable row");
    store.holds(&key, &next, "loading what was created after an unreadable row").await;
}

/// `take_expired` deletes expired rows that are no record, leaves them out, and returns all others.
pub async fn take_expired_leaves_out_unreadable_rows(store: &StoreUnderTest) {
    let Some(damage) = store.damage.as_ref().filter(|_| store.returns_expired()) else {
        return;
    };
    for limit in [1, 3] {
        let mut readable = BTreeSet::new();
        let record = store.brief_record().build();
        // Whole pages of the one and of the other, and pages of both.
        for is_unreadable in [true, true, true, true, false, true, false, false, true, false] {
            let key = store.created(&record).await;
            if is_unreadable {
                damage(key).await;
            } else {
                readable.insert(key);
            }
        }
        store.pass_soon().await;
        let taken = all_expired(&**store, limit).await;
        let taken: BTreeSet<StoreKey> = taken.into_iter().map(|(key, _)| key).collect();
        let missed = readable.difference(&taken).count();
        assert_eq!(
            missed, 0,
            "take_expired({limit}) returned an empty page before {missed} of the rows behind unreadable ones"
        );
        let deleted = store.delete_expired(1000).await;
        let deleted = answered(deleted, "deleting expired rows after unreadable ones were taken");
        assert_eq!(deleted, 0, "take_expired({limit}) left unreadable rows behind");
    }
}

#[track_caller]
fn unreadable<R: Debug>(answer: &Result<R, StoreError>, doing: &str) {
    assert!(
        matches!(answer, Err(StoreError::Corrupt | StoreError::Newer)),
        "{doing}: expected Corrupt or Newer, got {answer:?}"
    );
}
