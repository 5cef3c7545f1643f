//! Moving the expiry, and nothing else.

use std::time::Duration;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{an_hour_after, conflict, gone, same, saved, update},
};
use crate::{expiry::IdleTimeout, store::Record};

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
