//! Requests can be dropped at every await, so every operation must leave whole rows then.

use std::future::Future;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{an_hour_after, answered, update},
    parallel::drop_after,
};
use crate::{
    error::StoreError,
    id::StoreKey,
    store::{Record, Write},
};

/// More polls than any operation should take; networked stores take a handful.
const MOST_POLLS: usize = 200;

/// Runs an operation on a fresh row again and again, dropping it one poll later each time.
async fn drop_after_every_poll<F, R>(
    store: &StoreUnderTest,
    doing: &str,
    before: Option<&Record>,
    operation: impl Fn(StoreKey) -> F,
    is_whole: impl Fn(Option<&Record>) -> bool,
) where
    F: Future<Output = Result<R, StoreError>>,
{
    for polls in 1..=MOST_POLLS {
        let key = match before {
            Some(record) => store.created(record).await,
            None => any_key(),
        };
        let finished = drop_after(polls, operation(key)).await;
        let found = answered(store.load(&key).await, &format!("loading after {doing} was dropped"));
        assert!(
            is_whole(found.as_ref()),
            "{doing} was dropped after poll {polls} and left neither the old row nor the new: {found:?}"
        );
        index_agrees(store, &key, doing).await;
        // A lock left behind would show here.
        answered(store.destroy(&key).await, &format!("destroying after {doing} was dropped"));
        if let Some(answer) = finished {
            answered(answer, doing);
            return;
        }
    }
    panic!("{doing} was not done after {MOST_POLLS} polls");
}

/// Checks that a live row is found by its owner, even if its last writer was dropped.
async fn index_agrees(store: &StoreUnderTest, key: &StoreKey, doing: &str) {
    if !store.indexes_owners() {
        return;
    }
    let owner = |found: Option<Record>| found.and_then(|record| record.owner());
    let Some(before) = owner(answered(store.load(key).await, doing)) else {
        return;
    };
    let found = answered(store.find_by_owner(&before).await, doing);
    // The engine may still work on the dropped operation, so the row may be gone by now.
    let after = owner(answered(store.load(key).await, doing));
    assert!(
        found.contains(key) || after != Some(before),
        "{doing} was dropped and left a live row that its owner's index does not list"
    );
}

/// A create that is dropped leaves no row or the whole row.
pub async fn a_dropped_create_leaves_all_or_nothing(store: &StoreUnderTest) {
    let new = &store.record().owner(any_owner()).payload("new").build();
    let create = |key| async move { store.save(&key, new, Write::Create).await };
    let is_whole = |found: Option<&Record>| found.is_none_or(|found| found == new);
    drop_after_every_poll(store, "a create", None, create, is_whole).await;
}

/// An update that is dropped leaves the old row or the new row.
pub async fn a_dropped_update_leaves_old_or_new(store: &StoreUnderTest) {
    let old = &store.record().owner(any_owner()).payload("old").build();
    let new = &store.record().owner(any_owner()).payload("new").build();
    let update = |key| async move { store.save(&key, new, update(old)).await };
    let is_whole = |found: Option<&Record>| found == Some(old) || found == Some(new);
    drop_after_every_poll(store, "an update", Some(old), update, is_whole).await;
}

/// A touch that is dropped leaves the row as it was, or with the later expiry.
pub async fn a_dropped_touch_leaves_a_whole_row(store: &StoreUnderTest) {
    let old = &store.record().owner(any_owner()).payload("kept").build();
    let later = an_hour_after(old);
    let touch = |key| async move { store.touch(&key, old.version(), later).await };
    let is_whole = |found: Option<&Record>| {
        found.is_some_and(|found| {
            let touched = Record { version: found.version(), ..old.clone() };
            found == old || *found == touched.with_expires_at(later)
        })
    };
    drop_after_every_poll(store, "a touch", Some(old), touch, is_whole).await;
}

/// A destroy that is dropped leaves the whole row or no row.
pub async fn a_dropped_destroy_leaves_all_or_nothing(store: &StoreUnderTest) {
    let old = &store.record().owner(any_owner()).payload("old").build();
    let destroy = |key| async move { store.destroy(&key).await };
    let is_whole = |found: Option<&Record>| found.is_none_or(|found| found == old);
    drop_after_every_poll(store, "a destroy", Some(old), destroy, is_whole).await;
    let destroy = |key| async move { store.destroy_at(&key, old.version()).await };
    drop_after_every_poll(store, "a destroy_at", Some(old), destroy, is_whole).await;
}

/// A `destroy_by_owner` that is dropped leaves each row whole or removed, and the remaining rows in the index.
pub async fn a_dropped_destroy_by_owner_leaves_whole_rows(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let owner = any_owner();
    let old = &store.record().owner(owner).payload("old").build();
    let kept = &store.created(old).await;
    let destroy = |_key| async move { store.destroy_by_owner(&owner, Some(kept)).await };
    let is_whole = |found: Option<&Record>| found.is_none_or(|found| found == old);
    drop_after_every_poll(store, "a destroy_by_owner", Some(old), destroy, is_whole).await;
    store.holds(kept, old, "loading the row that a destroy_by_owner was to keep").await;
}
