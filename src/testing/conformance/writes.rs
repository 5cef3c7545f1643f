//! Saving and destroying a row.

use super::{
    StoreUnderTest, any_key,
    expect::{answered, conflict, gone, saved, update},
};
use crate::store::{SaveOutcome, Write};

/// [`Write::Create`] without a row is `Saved`, and the row then holds the record.
pub async fn create_finds_no_row(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("new").build();
    store.absent(&key, "loading a key that was never saved").await;
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    store.holds(&key, &record, "loading what was created").await;
}

/// [`Write::Create`] never replaces a live row. It is `Conflict` with that row.
pub async fn create_conflicts_with_a_live_row(store: &StoreUnderTest) {
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    let key = store.created(&first).await;
    conflict(store.save(&key, &second, Write::Create).await, &first, "creating over a live row");
    store.holds(&key, &first, "loading after a create that conflicted").await;
}

/// [`Write::Create`] treats a tombstone like any other live row.
pub async fn create_conflicts_with_a_tombstone(store: &StoreUnderTest) {
    let tombstone = store.record().tombstone().build();
    let late = store.record().payload("late").build();
    let key = store.created(&tombstone).await;
    conflict(store.save(&key, &late, Write::Create).await, &tombstone, "creating over a tombstone");
    store.holds(&key, &tombstone, "loading a tombstone, which load returns").await;
}

/// [`Write::Update`] at the version of the row is `Saved`, and the row then holds the record.
pub async fn update_replaces_the_version_it_expects(store: &StoreUnderTest) {
    let mut current = store.record().payload("0").build();
    let key = store.created(&current).await;
    for count in 1..4 {
        let next = store.record().payload(count.to_string()).build();
        let updated = store.save(&key, &next, update(&current)).await;
        saved(updated, "updating at the version that is there");
        store.holds(&key, &next, "loading what was updated").await;
        current = next;
    }
}

/// [`Write::Update`] at any other version is `Conflict` with the row, and writes nothing.
pub async fn update_conflicts_with_another_version(store: &StoreUnderTest) {
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    let late = store.record().payload("late").build();
    let key = store.created(&first).await;
    let updated = store.save(&key, &second, update(&first)).await;
    saved(updated, "updating at the version that is there");
    let again = store.save(&key, &late, update(&first)).await;
    conflict(again, &second, "updating at a version that was replaced");
    let destroyed = store.destroy_at(&key, first.version()).await;
    conflict(destroyed, &second, "destroying at a version that was replaced");
    store.holds(&key, &second, "loading after an update that conflicted").await;
}

/// [`Write::Update`] without a row is `Gone`, and makes no row.
pub async fn update_never_makes_a_row(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("late").build();
    for (what, expected) in [("another", &store.record().build()), ("its own", &record)] {
        let updated = store.save(&key, &record, update(expected)).await;
        gone(updated, &format!("updating where no row is, expecting {what} version"));
        store.absent(&key, "loading after an update that was Gone").await;
    }
}

/// A create of a record that is stored already is `Saved`: an earlier try took effect, and its answer was lost.
pub async fn a_repeated_create_is_one_write(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("once").build();
    for _ in 0..3 {
        let again = store.save(&key, &record, Write::Create).await;
        saved(again, "repeating a create with its own version");
        store.holds(&key, &record, "loading after a repeated create").await;
    }
}

/// An update to a record that is stored already is `Saved`: an earlier try took effect, and its answer was lost.
pub async fn a_repeated_update_is_one_write(store: &StoreUnderTest) {
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    let key = store.created(&first).await;
    for _ in 0..3 {
        let again = store.save(&key, &second, update(&first)).await;
        saved(again, "repeating an update with its own version");
        store.holds(&key, &second, "loading after a repeated update").await;
    }
    let third = store.record().payload("third").build();
    let updated = store.save(&key, &third, update(&second)).await;
    saved(updated, "updating after a repeated update");
    let again = store.save(&key, &second, update(&first)).await;
    conflict(again, &third, "repeating an update that another has replaced");
}

/// A repeated write changes nothing, so the row keeps a later expiry from a touch.
pub async fn a_repeated_write_undoes_no_touch(store: &StoreUnderTest) {
    let record = store.brief_record().payload("once").build();
    let key = store.created(&record).await;
    saved(store.touch(&key, record.version(), store.later()).await, "touching with a later expiry");
    let touched = answered(store.load(&key).await, "loading what was touched");
    let again = store.save(&key, &record, Write::Create).await;
    let again = answered(again, "repeating a create after a touch");
    // A touch that changes the version makes the repeat a conflict, which is as good.
    let keeps_version = touched.as_ref().is_some_and(|row| row.version() == record.version());
    assert!(
        !keeps_version || again == SaveOutcome::Saved,
        "repeating a create after a touch: expected Saved, got {again:?}"
    );
    let found = answered(store.load(&key).await, "loading after a repeated create");
    assert_eq!(found, touched, "repeating a create after a touch: the row changed");
}

/// After `destroy` there is no row, not even a tombstone, and a create makes a new row.
pub async fn destroy_removes_the_row(store: &StoreUnderTest) {
    let session = store.record().payload("session").build();
    let tombstone = store.record().tombstone().build();
    for record in [session, tombstone] {
        let key = store.created(&record).await;
        answered(store.destroy(&key).await, "destroying a row");
        store.absent(&key, "loading after destroy").await;
        let next = store.record().payload("next").build();
        saved(store.save(&key, &next, Write::Create).await, "creating after destroy");
        store.holds(&key, &next, "loading what was created after destroy").await;
    }
}

/// `destroy` without a row is `Ok`, also if it is repeated.
pub async fn destroying_nothing_succeeds(store: &StoreUnderTest) {
    let key = any_key();
    for _ in 0..2 {
        answered(store.destroy(&key).await, "destroying what never was");
    }
    let key = store.created(&store.record().build()).await;
    for _ in 0..2 {
        answered(store.destroy(&key).await, "destroying a row twice");
    }
    store.absent(&key, "loading after destroy").await;
}

/// No update or touch brings a destroyed row back.
pub async fn gone_stays_gone(store: &StoreUnderTest) {
    let record = store.record().payload("ended").build();
    let late = store.record().payload("late").build();
    let key = store.created(&record).await;
    answered(store.destroy(&key).await, "destroying a row");
    gone(store.save(&key, &late, update(&record)).await, "updating a destroyed row");
    gone(store.save(&key, &record, update(&record)).await, "repeating a write after destroy");
    let touched = store.touch(&key, record.version(), store.later()).await;
    gone(touched, "touching a destroyed row");
    store.absent(&key, "loading a destroyed row after late writes").await;
}

/// `destroy_at` the version of the row is `Saved`, and the row is removed.
pub async fn destroy_at_removes_the_version_it_expects(store: &StoreUnderTest) {
    let record = store.record().payload("ended").build();
    let key = store.created(&record).await;
    let destroyed = store.destroy_at(&key, record.version()).await;
    saved(destroyed, "destroying at the version that is there");
    store.absent(&key, "loading after destroy_at").await;
    gone(store.destroy_at(&key, record.version()).await, "destroying at a version twice");
    let late = store.record().payload("late").build();
    gone(store.save(&key, &late, update(&record)).await, "updating after destroy_at");
}

/// `destroy_at` any other version is `Conflict` with the row, and removes nothing. The row may be a tombstone.
pub async fn destroy_at_conflicts_with_another_version(store: &StoreUnderTest) {
    let record = store.record().payload("session").build();
    let tombstone = store.record().tombstone().build();
    let key = store.created(&record).await;
    saved(store.save(&key, &tombstone, update(&record)).await, "updating to a tombstone");
    let destroyed = store.destroy_at(&key, record.version()).await;
    conflict(destroyed, &tombstone, "destroying at a version that became a tombstone");
    store.holds(&key, &tombstone, "loading after a destroy_at that conflicted").await;
}

/// `destroy_at` without a row, or with an expired row, is `Gone`.
pub async fn destroy_at_finds_no_row(store: &StoreUnderTest) {
    let record = store.brief_record().build();
    let destroyed = store.destroy_at(&any_key(), record.version()).await;
    gone(destroyed, "destroying at a version where no row is");
    let key = store.expired(&record).await;
    let destroyed = store.destroy_at(&key, record.version()).await;
    gone(destroyed, "destroying an expired row at its version");
}
