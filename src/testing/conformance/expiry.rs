//! Expired is absent.

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{absent, answered, gone, holds, saved},
};
use crate::{id::StoreKey, record::Record, store::Write};

/// Puts rows there and lets them expire.
async fn expired(store: &StoreUnderTest, record: &Record) -> StoreKey {
    let key = any_key();
    saved(store.save(&key, record, Write::Create).await, "creating a row that expires soon");
    store.pass_soon().await;
    key
}

/// `load` never returns an expired row, swept or not.
pub async fn load_hides_an_expired_row(store: &StoreUnderTest) {
    let key = expired(store, &store.brief_record().build()).await;
    absent(store.load(&key).await, "loading an expired row");
}

/// [`Write::Create`] over an expired row is `Saved`.
pub async fn create_replaces_an_expired_row(store: &StoreUnderTest) {
    let key = expired(store, &store.brief_record().payload("old").build()).await;
    let next = store.record().payload("next").build();
    saved(store.save(&key, &next, Write::Create).await, "creating over an expired row");
    holds(store.load(&key).await, &next, "loading what was created over an expired row");
}

/// [`Write::Update`] of an expired row is `Gone`, also at its version or with its own.
pub async fn update_does_not_revive_an_expired_row(store: &StoreUnderTest) {
    let record = store.brief_record().build();
    let key = expired(store, &record).await;
    let write = Write::Update { expected: record.version() };
    let late = store.record().payload("late").build();
    gone(store.save(&key, &late, write).await, "updating an expired row at its version");
    absent(store.load(&key).await, "loading an expired row after an update");
    let again = record.with_expires_at(store.later());
    gone(store.save(&key, &again, write).await, "repeating an update after the row expired");
    absent(store.load(&key).await, "loading an expired row after a repeated update");
}

/// `touch` of an expired row is `Gone`.
pub async fn touch_does_not_revive_an_expired_row(store: &StoreUnderTest) {
    let record = store.brief_record().build();
    let key = expired(store, &record).await;
    gone(store.touch(&key, record.version(), store.later()).await, "touching an expired row");
    absent(store.load(&key).await, "loading an expired row after a touch");
}

/// `destroy` of an expired row is a success.
pub async fn destroy_of_an_expired_row_succeeds(store: &StoreUnderTest) {
    let key = expired(store, &store.brief_record().build()).await;
    answered(store.destroy(&key).await, "destroying an expired row");
    absent(store.load(&key).await, "loading an expired row after destroy");
}

/// `find_by_owner` lists no expired row, and `destroy_by_owner` counts none.
pub async fn find_by_owner_hides_expired_rows(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let owner = any_owner();
    expired(store, &store.brief_record().owner(owner).build()).await;
    let found = answered(store.find_by_owner(&owner).await, "finding an owner whose row expired");
    assert!(found.is_empty(), "finding an owner whose row expired: got {found:?}");
    let ended =
        answered(store.destroy_by_owner(&owner, None).await, "destroying an owner's expired rows");
    assert_eq!(ended, 0, "destroying an owner's rows counted an expired one");
}

/// A touched row is still there when its first expiry has passed, not only in what `load` says of it.
pub async fn touched_rows_outlive_their_first_expiry(store: &StoreUnderTest) {
    let (key, owner) = (any_key(), any_owner());
    let record = store.brief_record().owner(owner).build();
    saved(store.save(&key, &record, Write::Create).await, "creating a row that expires soon");
    saved(
        store.touch(&key, record.version(), store.later()).await,
        "touching a row that expires soon",
    );
    store.pass_soon().await;
    let found = answered(store.load(&key).await, "loading a touched row after its first expiry");
    assert!(found.is_some(), "a touched row was gone at its first expiry");
    if store.indexes_owners() {
        let found =
            answered(store.find_by_owner(&owner).await, "finding a touched row by its owner");
        assert_eq!(found, [key], "the owner index lost a touched row at its first expiry");
    }
}

/// An update's expiry is the row's, earlier or later than the one before.
pub async fn save_moves_the_expiry(store: &StoreUnderTest) {
    let (longer, shorter) = (any_key(), any_key());
    for (key, from, to) in [
        (longer, store.brief_record().build(), store.record().build()),
        (shorter, store.record().build(), store.brief_record().build()),
    ] {
        saved(store.save(&key, &from, Write::Create).await, "creating where no row is");
        let write = Write::Update { expected: from.version() };
        saved(store.save(&key, &to, write).await, "updating with another expiry");
    }
    store.pass_soon().await;
    let found =
        answered(store.load(&longer).await, "loading a row that an update made live longer");
    assert!(found.is_some(), "a row was gone at the expiry it had before an update moved it");
    absent(store.load(&shorter).await, "loading a row that an update made expire earlier");
}

/// `delete_expired` deletes no live row.
pub async fn delete_expired_leaves_live_rows(store: &StoreUnderTest) {
    let live = store.record().payload("live").build();
    let live_key = any_key();
    saved(store.save(&live_key, &live, Write::Create).await, "creating where no row is");
    let dead = expired(store, &store.brief_record().build()).await;
    answered(store.delete_expired(1000).await, "deleting expired rows");
    let found = answered(store.load(&live_key).await, "loading a live row after delete_expired");
    assert!(found.is_some(), "delete_expired deleted a live row");
    absent(store.load(&dead).await, "loading an expired row after delete_expired");
}

/// `delete_expired` deletes at most `limit` rows a call, and comes to an end.
pub async fn delete_expired_respects_its_limit(store: &StoreUnderTest) {
    for _ in 0..5 {
        let record = store.brief_record().build();
        saved(
            store.save(&any_key(), &record, Write::Create).await,
            "creating a row that expires soon",
        );
    }
    store.pass_soon().await;
    let none = answered(store.delete_expired(0).await, "deleting at most no expired rows");
    assert_eq!(none, 0, "delete_expired(0) says that it deleted rows");
    // Far more calls than a fresh store has expired rows.
    for _ in 0..1000 {
        let deleted = answered(store.delete_expired(2).await, "deleting at most two expired rows");
        assert!(deleted <= 2, "delete_expired(2) says that it deleted {deleted} rows");
        if deleted == 0 {
            return;
        }
    }
    panic!(
        "delete_expired(2) says that it deleted rows a thousand times over, where there were five"
    );
}
