//! An expired row counts as absent.

use super::{
    StoreUnderTest, any_owner,
    expect::{answered, gone, saved, update},
    listing::all_pages,
};
use crate::store::Write;

/// `load` never returns an expired row, even if the row is not deleted yet.
pub async fn load_hides_an_expired_row(store: &StoreUnderTest) {
    let key = store.expired(&store.brief_record().build()).await;
    store.absent(&key, "loading an expired row").await;
    if store.lists_sessions() {
        let listed = all_pages(store, 1000, async |_| {}).await;
        assert!(!listed.contains(&key), "list returned an expired row that load hides");
    }
}

/// [`Write::Create`] over an expired row is `Saved`.
pub async fn create_replaces_an_expired_row(store: &StoreUnderTest) {
    let key = store.expired(&store.brief_record().payload("old").build()).await;
    let next = store.record().payload("next").build();
    saved(store.save(&key, &next, Write::Create).await, "creating over an expired row");
    store.holds(&key, &next, "loading what was created over an expired row").await;
}

/// [`Write::Create`] over an expired row writes, even if that row has the version of the record.
pub async fn create_replaces_an_expired_row_of_its_own_version(store: &StoreUnderTest) {
    let record = store.brief_record().payload("again").build();
    let key = store.expired(&record).await;
    let again = record.with_expires_at(store.later());
    let create = store.save(&key, &again, Write::Create).await;
    saved(create, "creating over an expired row of the same version");
    let doing = "loading what was created over an expired row of the same version";
    store.holds(&key, &again, doing).await;
}

/// [`Write::Update`] of an expired row is `Gone`, also at the version of the row and with the row's own version.
pub async fn update_does_not_revive_an_expired_row(store: &StoreUnderTest) {
    let record = store.brief_record().build();
    let key = store.expired(&record).await;
    let late = store.record().payload("late").build();
    let updated = store.save(&key, &late, update(&record)).await;
    gone(updated, "updating an expired row at its version");
    store.absent(&key, "loading an expired row after an update").await;
    let again = record.clone().with_expires_at(store.later());
    let updated = store.save(&key, &again, update(&record)).await;
    gone(updated, "repeating an update after the row expired");
    store.absent(&key, "loading an expired row after a repeated update").await;
}

/// `touch` of an expired row is `Gone`.
pub async fn touch_does_not_revive_an_expired_row(store: &StoreUnderTest) {
    let record = store.brief_record().build();
    let key = store.expired(&record).await;
    gone(store.touch(&key, record.version(), store.later()).await, "touching an expired row");
    store.absent(&key, "loading an expired row after a touch").await;
}

/// An expired row is no `Conflict`: an update, a touch and a `destroy_at` at another version are `Gone`.
pub async fn writes_at_another_version_of_an_expired_row_are_gone(store: &StoreUnderTest) {
    let key = store.expired(&store.brief_record().build()).await;
    let (other, late) = (store.record().build(), store.record().payload("late").build());
    let updated = store.save(&key, &late, update(&other)).await;
    gone(updated, "updating an expired row at another version");
    let touched = store.touch(&key, other.version(), store.later()).await;
    gone(touched, "touching an expired row at another version");
    let destroyed = store.destroy_at(&key, other.version()).await;
    gone(destroyed, "destroying an expired row at another version");
    store.absent(&key, "loading an expired row after writes at another version").await;
}

/// `destroy` of an expired row is `Ok`.
pub async fn destroy_of_an_expired_row_succeeds(store: &StoreUnderTest) {
    let key = store.expired(&store.brief_record().build()).await;
    answered(store.destroy(&key).await, "destroying an expired row");
    store.absent(&key, "loading an expired row after destroy").await;
}

/// `find_by_owner` lists no expired row, and `destroy_by_owner` counts none.
pub async fn find_by_owner_hides_expired_rows(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let owner = any_owner();
    store.expired(&store.brief_record().owner(owner).build()).await;
    let found = answered(store.find_by_owner(&owner).await, "finding an owner whose row expired");
    assert!(found.is_empty(), "finding an owner whose row expired: got {found:?}");
    let ended =
        answered(store.destroy_by_owner(&owner, None).await, "destroying an owner's expired rows");
    assert_eq!(ended, 0, "destroying an owner's rows counted an expired one");
}

/// A touched row still exists after its first expiry, not only in the answer of `load`.
pub async fn touched_rows_outlive_their_first_expiry(store: &StoreUnderTest) {
    let owner = any_owner();
    let record = store.brief_record().owner(owner).build();
    let key = store.created(&record).await;
    store.created(&store.brief_record().owner(owner).build()).await;
    let touched = store.touch(&key, record.version(), store.later()).await;
    saved(touched, "touching a row that expires soon");
    // Neither takes the later expiry back, whatever its answer.
    let version = store.found(&key, "loading a touched row").await.version();
    let _ =
        answered(store.touch(&key, version, store.soon()).await, "touching with an earlier expiry");
    let _ = answered(
        store.save(&key, &record, Write::Create).await,
        "repeating a create after a touch",
    );
    store.pass_soon().await;
    store.found(&key, "loading a touched row after its first expiry").await;
    if store.lists_sessions() {
        let listed = all_pages(store, 1000, async |_| {}).await;
        assert!(listed.contains(&key), "list left out a touched row after its first expiry");
    }
    if store.indexes_owners() {
        let found = store.find_by_owner(&owner).await;
        let found = answered(found, "finding a touched row by its owner");
        assert_eq!(
            found,
            [key],
            "an owner with one touched row, which lives on, and one row that expired"
        );
    }
    if store.returns_expired() {
        answered(store.take_expired(1000).await, "taking expired rows after a touch");
    }
    answered(store.delete_expired(1000).await, "deleting expired rows after a touch");
    store.found(&key, "loading a touched row after expired rows were deleted").await;
}

/// A row that an update gave a later expiry still exists after its first expiry, also in the list and for its owner.
pub async fn updated_rows_outlive_their_first_expiry(store: &StoreUnderTest) {
    let owner = any_owner();
    let brief = store.brief_record().owner(owner).build();
    let long = store.record().owner(owner).payload("long").build();
    let key = store.created(&brief).await;
    saved(store.save(&key, &long, update(&brief)).await, "updating a row that expires soon");
    store.pass_soon().await;
    store.holds(&key, &long, "loading an updated row after its first expiry").await;
    if store.lists_sessions() {
        let listed = all_pages(store, 1000, async |_| {}).await;
        assert!(listed.contains(&key), "list left out an updated row after its first expiry");
    }
    if store.indexes_owners() {
        let found = store.find_by_owner(&owner).await;
        let found = answered(found, "finding an updated row by its owner");
        assert_eq!(found, [key], "an owner whose row was updated, after its first expiry");
        let ended = store.destroy_by_owner(&owner, None).await;
        let ended = answered(ended, "destroying an updated row by its owner");
        assert_eq!(ended, 1, "destroy_by_owner counts an updated row after its first expiry");
        store.absent(&key, "loading an updated row after destroy_by_owner").await;
    }
}

/// The expiry of an update becomes the expiry of the row, even if it is earlier.
pub async fn save_moves_the_expiry(store: &StoreUnderTest) {
    let (brief, long) = (store.brief_record().build(), store.record().build());
    let (longer, shorter) = (store.created(&brief).await, store.created(&long).await);
    for (key, from, to) in [(&longer, &brief, &long), (&shorter, &long, &brief)] {
        saved(store.save(key, to, update(from)).await, "updating with another expiry");
    }
    store.pass_soon().await;
    store.found(&longer, "loading a row that an update made live longer").await;
    let late = store.record().payload("late").build();
    let updated = store.save(&shorter, &late, update(&brief)).await;
    gone(updated, "updating a row that an update made expire earlier");
    store.absent(&shorter, "loading a row that an update made expire earlier").await;
}

/// `delete_expired` deletes no live row, also none that a touch or an update let live longer.
pub async fn delete_expired_leaves_live_rows(store: &StoreUnderTest) {
    let live = store.created(&store.record().payload("live").build()).await;
    let (brief, next) = (store.brief_record().build(), store.record().payload("next").build());
    let (touched, updated) = (store.created(&brief).await, store.created(&brief).await);
    let touch = store.touch(&touched, brief.version(), store.later()).await;
    saved(touch, "touching a row before delete_expired");
    let update = store.save(&updated, &next, update(&brief)).await;
    saved(update, "updating a row before delete_expired");
    let dead = store.expired(&store.brief_record().build()).await;
    let deleted = answered(store.delete_expired(1000).await, "deleting expired rows");
    if store.returns_expired() && deleted < 1000 {
        let taken = answered(store.take_expired(1000).await, "taking expired rows");
        let is_left = taken.iter().any(|(key, _)| *key == dead);
        assert!(!is_left, "take_expired returned a row that delete_expired should have deleted");
    }
    for key in [live, touched, updated] {
        store.found(&key, "loading a live row after delete_expired").await;
    }
    store.absent(&dead, "loading an expired row after delete_expired").await;
}

/// `delete_expired` deletes at most `limit` rows in a call, and returns 0 at the end.
pub async fn delete_expired_respects_its_limit(store: &StoreUnderTest) {
    let live = store.created(&store.record().payload("live").build()).await;
    for _ in 0..5 {
        store.created(&store.brief_record().build()).await;
    }
    store.pass_soon().await;
    let none = answered(store.delete_expired(0).await, "deleting at most no expired rows");
    assert_eq!(none, 0, "delete_expired(0) says that it deleted rows");
    // Far more calls than a fresh store has expired rows.
    for _ in 0..1000 {
        let deleted = answered(store.delete_expired(2).await, "deleting at most two expired rows");
        assert!(deleted <= 2, "delete_expired(2) says that it deleted {deleted} rows");
        if deleted == 0 {
            store.found(&live, "loading a live row after every expired row was deleted").await;
            return;
        }
    }
    panic!(
        "delete_expired(2) says that it deleted rows a thousand times over, where there were five"
    );
}

/// `delete_expired` deletes expired rows and counts them, unless the engine
/// [deletes them by itself](StoreUnderTest::engine_deletes_expired).
pub async fn delete_expired_deletes_expired_rows(store: &StoreUnderTest) {
    if store.engine_deletes_expired {
        return;
    }
    // Another check on the same engine may delete the rows first, but hardly every time.
    for _ in 0..5 {
        for _ in 0..6 {
            store.created(&store.brief_record().build()).await;
        }
        store.pass_soon().await;
        let mut deleted = 0;
        loop {
            let batch =
                answered(store.delete_expired(4).await, "deleting at most four expired rows");
            assert!(batch <= 4, "delete_expired(4) says that it deleted {batch} rows");
            deleted += batch;
            if batch < 4 {
                break;
            }
        }
        if deleted >= 6 {
            return;
        }
    }
    panic!(
        "delete_expired does not delete six of six expired rows; if the engine deletes expired rows by itself, say so \
         by `StoreUnderTest::engine_deletes_expired`"
    );
}
