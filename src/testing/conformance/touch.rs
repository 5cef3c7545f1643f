//! Moving the expiry alone.

use std::time::Duration;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{absent, answered, conflict, gone, holds, same, saved},
};
use crate::{expiry::MaxAge, record::Record, store::Write};

/// `touch` moves the expiry and nothing else, the version excepted where the engine needs a new one.
pub async fn touch_moves_only_the_expiry(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("kept").owner(any_owner());
    let record = record.max_age(MaxAge::BrowserSession(Duration::from_secs(7 * 60))).build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    let later = record.expires_at().saturating_add(Duration::from_secs(60 * 60));
    saved(store.touch(&key, record.version(), later).await, "touching with a later expiry");
    let found = answered(store.load(&key).await, "loading what was touched");
    let Some(found) = found else {
        panic!("loading what was touched: expected the row, which load does not find");
    };
    let wanted = Record { version: found.version(), ..record.with_expires_at(later) };
    same(&found, &wanted, "loading what was touched");
}

/// `touch` with an earlier expiry is `Saved` and leaves the later one.
pub async fn touch_never_shortens(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    for earlier in [store.soon(), record.expires_at()] {
        saved(store.touch(&key, record.version(), earlier).await, "touching with no later expiry");
        holds(store.load(&key).await, &record, "loading after a touch with no later expiry");
    }
}

/// `touch` at another version is `Conflict` with what is there, and moves nothing.
pub async fn touch_conflicts_with_another_version(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("current").build();
    let other = store.record().build().version();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    let later = record.expires_at().saturating_add(Duration::from_secs(60 * 60));
    for expires_at in [later, store.soon()] {
        conflict(
            store.touch(&key, other, expires_at).await,
            &record,
            "touching at another version",
        );
    }
    holds(store.load(&key).await, &record, "loading after a touch that conflicted");
}

/// `touch` where there is no row is `Gone`, and makes none.
pub async fn touch_never_makes_a_row(store: &StoreUnderTest) {
    let key = any_key();
    let version = store.record().build().version();
    gone(store.touch(&key, version, store.later()).await, "touching where no row is");
    absent(store.load(&key).await, "loading after a touch that was Gone");
}

/// After `touch` an update still works: at the version loaded before, or at the one that is there now.
pub async fn touch_leaves_the_row_writable(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("before").build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    let later = record.expires_at().saturating_add(Duration::from_secs(60 * 60));
    saved(store.touch(&key, record.version(), later).await, "touching with a later expiry");
    let found = answered(store.load(&key).await, "loading what was touched");
    let expected = found.map_or(record.version(), |found| found.version());
    let next = store.record().payload("after").build();
    saved(store.save(&key, &next, Write::Update { expected }).await, "updating after a touch");
    holds(store.load(&key).await, &next, "loading what was updated after a touch");
}
