//! Moving the expiry, and nothing else.

use std::time::Duration;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{an_hour_after, answered, conflict, gone, same, saved, update},
    parallel::in_parallel,
    races::ROUNDS,
};
use crate::{
    expiry::IdleTimeout,
    store::{Record, SaveOutcome},
};

/// `touch` moves the expiry and nothing else. Only the version may change too.
pub async fn touch_moves_only_the_expiry(store: &StoreUnderTest) {
    let record = store.record().payload("kept").owner(any_owner());
    let record =
        record.idle_timeout(IdleTimeout::BrowserSession(Duration::from_secs(7 * 60))).build();
    let key = store.created(&record).await;
    let later = an_hour_after(&record);
    saved(store.touch(&key, record.version(), later).await, "touching with a later expiry");
    let found = store.found(&key, "loading what was touched").await;
    let wanted = Record { version: found.version(), ..record.with_expires_at(later) };
    same(&found, &wanted, "loading what was touched");
}

/// `touch` with an earlier expiry is `Saved` and keeps the later expiry.
pub async fn touch_never_shortens(store: &StoreUnderTest) {
    let record = store.record().build();
    let key = store.created(&record).await;
    for earlier in [store.soon(), record.expires_at()] {
        saved(store.touch(&key, record.version(), earlier).await, "touching with no later expiry");
        store.holds(&key, &record, "loading after a touch with no later expiry").await;
    }
}

/// `touch` at another version is `Conflict` with the row, and moves nothing.
pub async fn touch_conflicts_with_another_version(store: &StoreUnderTest) {
    let record = store.record().payload("current").build();
    let other = store.record().build().version();
    let key = store.created(&record).await;
    let later = an_hour_after(&record);
    for expires_at in [later, store.soon()] {
        let touched = store.touch(&key, other, expires_at).await;
        conflict(touched, &record, "touching at another version");
    }
    store.holds(&key, &record, "loading after a touch that conflicted").await;
}

/// `touch` without a row is `Gone`, and makes no row.
pub async fn touch_never_makes_a_row(store: &StoreUnderTest) {
    let key = any_key();
    let version = store.record().build().version();
    gone(store.touch(&key, version, store.later()).await, "touching where no row is");
    store.absent(&key, "loading after a touch that was Gone").await;
}

/// After `touch`, an update at the current version works.
pub async fn touch_leaves_the_row_writable(store: &StoreUnderTest) {
    let record = store.record().payload("before").build();
    let key = store.created(&record).await;
    let later = an_hour_after(&record);
    saved(store.touch(&key, record.version(), later).await, "touching with a later expiry");
    let found = store.found(&key, "loading what was touched").await;
    let next = store.record().payload("after").build();
    saved(store.save(&key, &next, update(&found)).await, "updating after a touch");
    store.holds(&key, &next, "loading what was updated after a touch").await;
    let late = store.touch(&key, found.version(), an_hour_after(&next)).await;
    conflict(late, &next, "touching at the version before an update");
    store.holds(&key, &next, "loading after a touch that came too late").await;
}

/// Of several concurrent touches, the latest end that was answered `Saved` stays.
pub async fn concurrent_touches_keep_the_latest_end(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        let record = store.record().build();
        let key = store.created(&record).await;
        let minutes = [40, 20, 30, 10].map(|minutes| Duration::from_secs(minutes * 60));
        let ends = minutes.map(|minutes| record.expires_at().saturating_add(minutes));
        let touches = ends.map(|end| {
            let (store, version) = (store.shared(), record.version());
            async move { store.touch(&key, version, end).await }
        });
        let mut latest = record.expires_at();
        for (end, answer) in ends.into_iter().zip(in_parallel(touches).await) {
            match answered(answer, "touching a row that others touch") {
                SaveOutcome::Saved => latest = latest.max(end),
                // A touch may give the row another version.
                SaveOutcome::Conflict(_) => {}
                SaveOutcome::Gone => {
                    panic!("a touch was answered Gone, though nobody destroyed the row")
                }
            }
        }
        let found = store.found(&key, "loading a row that was touched several times at once").await;
        assert!(
            found.expires_at() >= latest,
            "a touch that raced others moved the expiry to an earlier time than one that was Saved"
        );
    }
}

/// `touch` moves the expiry of a tombstone, and `destroy_at` removes a tombstone at its version.
pub async fn tombstones_are_touched_and_destroyed_like_rows(store: &StoreUnderTest) {
    let tombstone = store.record().tombstone().build();
    let key = store.created(&tombstone).await;
    let later = an_hour_after(&tombstone);
    saved(store.touch(&key, tombstone.version(), later).await, "touching a tombstone");
    let found = store.found(&key, "loading a tombstone that was touched").await;
    let wanted = Record { version: found.version(), ..tombstone.with_expires_at(later) };
    same(&found, &wanted, "loading a tombstone that was touched");
    let destroyed = store.destroy_at(&key, found.version()).await;
    saved(destroyed, "destroying a tombstone at its version");
    store.absent(&key, "loading a tombstone after destroy_at").await;
}
