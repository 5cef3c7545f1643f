//! Saving and destroying one row.

use super::{
    StoreUnderTest, any_key,
    expect::{absent, answered, conflict, gone, holds, saved},
};
use crate::store::Write;

/// [`Write::Create`] where there is no row is `Saved`, and the row then holds the record.
pub async fn create_finds_no_row(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("new").build();
    absent(store.load(&key).await, "loading a key that was never saved");
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    holds(store.load(&key).await, &record, "loading what was created");
}

/// [`Write::Create`] never replaces a live row: it is `Conflict` with what is there.
pub async fn create_conflicts_with_a_live_row(store: &StoreUnderTest) {
    let key = any_key();
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    saved(store.save(&key, &first, Write::Create).await, "creating where no row is");
    conflict(store.save(&key, &second, Write::Create).await, &first, "creating over a live row");
    holds(store.load(&key).await, &first, "loading after a create that conflicted");
}

/// A tombstone is a live row like any other to [`Write::Create`].
pub async fn create_conflicts_with_a_tombstone(store: &StoreUnderTest) {
    let key = any_key();
    let tombstone = store.record().tombstone().build();
    let record = store.record().payload("late").build();
    saved(store.save(&key, &tombstone, Write::Create).await, "creating a tombstone");
    conflict(
        store.save(&key, &record, Write::Create).await,
        &tombstone,
        "creating over a tombstone",
    );
    holds(store.load(&key).await, &tombstone, "loading a tombstone, which load returns");
}

/// [`Write::Update`] at the version that is there is `Saved`, and the row then holds the record.
pub async fn update_replaces_the_version_it_expects(store: &StoreUnderTest) {
    let key = any_key();
    let mut current = store.record().payload("0").build();
    saved(store.save(&key, &current, Write::Create).await, "creating where no row is");
    for count in 1..4 {
        let next = store.record().payload(count.to_string()).build();
        let write = Write::Update { expected: current.version() };
        saved(store.save(&key, &next, write).await, "updating at the version that is there");
        holds(store.load(&key).await, &next, "loading what was updated");
        current = next;
    }
}

/// [`Write::Update`] at any other version is `Conflict` with what is there, and writes nothing.
pub async fn update_conflicts_with_another_version(store: &StoreUnderTest) {
    let key = any_key();
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    let late = store.record().payload("late").build();
    saved(store.save(&key, &first, Write::Create).await, "creating where no row is");
    let write = Write::Update { expected: first.version() };
    saved(store.save(&key, &second, write).await, "updating at the version that is there");
    conflict(
        store.save(&key, &late, write).await,
        &second,
        "updating at a version that was replaced",
    );
    holds(store.load(&key).await, &second, "loading after an update that conflicted");
}

/// [`Write::Update`] where there is no row is `Gone`, and makes none.
pub async fn update_never_makes_a_row(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("late").build();
    let expected = store.record().build().version();
    let write = Write::Update { expected };
    gone(store.save(&key, &record, write).await, "updating where no row ever was");
    absent(store.load(&key).await, "loading after an update that was Gone");
    let write = Write::Update { expected: record.version() };
    gone(
        store.save(&key, &record, write).await,
        "updating where no row is, expecting its own version",
    );
    absent(store.load(&key).await, "loading after an update that was Gone");
}

/// Creating again what is already there under its own version is `Saved`: the first answer was lost.
pub async fn a_repeated_create_is_one_write(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("once").build();
    for _ in 0..3 {
        saved(
            store.save(&key, &record, Write::Create).await,
            "repeating a create with its own version",
        );
        holds(store.load(&key).await, &record, "loading after a repeated create");
    }
}

/// Updating again what is already there under its own version is `Saved`: the first answer was lost.
pub async fn a_repeated_update_is_one_write(store: &StoreUnderTest) {
    let key = any_key();
    let first = store.record().payload("first").build();
    let second = store.record().payload("second").build();
    saved(store.save(&key, &first, Write::Create).await, "creating where no row is");
    for _ in 0..3 {
        let write = Write::Update { expected: first.version() };
        saved(store.save(&key, &second, write).await, "repeating an update with its own version");
        holds(store.load(&key).await, &second, "loading after a repeated update");
    }
    let third = store.record().payload("third").build();
    let write = Write::Update { expected: second.version() };
    saved(store.save(&key, &third, write).await, "updating after a repeated update");
    let write = Write::Update { expected: first.version() };
    conflict(
        store.save(&key, &second, write).await,
        &third,
        "repeating an update that another has replaced",
    );
}

/// A repeated write changes nothing, so a later expiry that a touch gave the row stays.
pub async fn a_repeated_write_undoes_no_touch(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.brief_record().payload("once").build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    saved(store.touch(&key, record.version(), store.later()).await, "touching with a later expiry");
    let touched = answered(store.load(&key).await, "loading what was touched");
    // A touch that changes the version makes the repeat a conflict, which is as good.
    let _ = answered(
        store.save(&key, &record, Write::Create).await,
        "repeating a create after a touch",
    );
    let found = answered(store.load(&key).await, "loading after a repeated create");
    assert_eq!(found, touched, "repeating a create after a touch: the row changed");
}

/// After `destroy` there is no row, tombstones included, and a create makes a new one.
pub async fn destroy_removes_the_row(store: &StoreUnderTest) {
    let session = store.record().payload("session").build();
    let tombstone = store.record().tombstone().build();
    for record in [session, tombstone] {
        let key = any_key();
        saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
        answered(store.destroy(&key).await, "destroying a row");
        absent(store.load(&key).await, "loading after destroy");
        let next = store.record().payload("next").build();
        saved(store.save(&key, &next, Write::Create).await, "creating after destroy");
        holds(store.load(&key).await, &next, "loading what was created after destroy");
    }
}

/// `destroy` where there is no row is a success, any number of times.
pub async fn destroying_nothing_succeeds(store: &StoreUnderTest) {
    let key = any_key();
    for _ in 0..2 {
        answered(store.destroy(&key).await, "destroying what never was");
    }
    let record = store.record().build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    for _ in 0..2 {
        answered(store.destroy(&key).await, "destroying a row twice");
    }
    absent(store.load(&key).await, "loading after destroy");
}

/// No update or touch brings a destroyed row back.
pub async fn gone_stays_gone(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("ended").build();
    let late = store.record().payload("late").build();
    let expected = record.version();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    answered(store.destroy(&key).await, "destroying a row");
    gone(store.save(&key, &late, Write::Update { expected }).await, "updating a destroyed row");
    gone(
        store.save(&key, &record, Write::Update { expected }).await,
        "repeating a write after destroy",
    );
    gone(store.touch(&key, expected, store.later()).await, "touching a destroyed row");
    absent(store.load(&key).await, "loading a destroyed row after late writes");
}

/// `destroy_at` the version that is there is `Saved`, and the row is gone.
pub async fn destroy_at_removes_the_version_it_expects(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("ended").build();
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    saved(
        store.destroy_at(&key, record.version()).await,
        "destroying at the version that is there",
    );
    absent(store.load(&key).await, "loading after destroy_at");
    gone(store.destroy_at(&key, record.version()).await, "destroying at a version twice");
    let late = store.record().payload("late").build();
    let write = Write::Update { expected: record.version() };
    gone(store.save(&key, &late, write).await, "updating after destroy_at");
}

/// `destroy_at` any other version is `Conflict` with what is there, a tombstone included, and removes
/// nothing.
pub async fn destroy_at_conflicts_with_another_version(store: &StoreUnderTest) {
    let key = any_key();
    let record = store.record().payload("session").build();
    let tombstone = store.record().tombstone().build();
    let write = Write::Update { expected: record.version() };
    saved(store.save(&key, &record, Write::Create).await, "creating where no row is");
    saved(store.save(&key, &tombstone, write).await, "updating to a tombstone");
    let destroyed = store.destroy_at(&key, record.version()).await;
    conflict(destroyed, &tombstone, "destroying at a version that became a tombstone");
    holds(store.load(&key).await, &tombstone, "loading after a destroy_at that conflicted");
}

/// `destroy_at` where there is no row, or an expired one, is `Gone`.
pub async fn destroy_at_finds_no_row(store: &StoreUnderTest) {
    let (never, expired) = (any_key(), any_key());
    let record = store.brief_record().build();
    saved(store.save(&expired, &record, Write::Create).await, "creating a row that expires soon");
    store.pass_soon().await;
    gone(
        store.destroy_at(&never, record.version()).await,
        "destroying at a version where no row is",
    );
    gone(
        store.destroy_at(&expired, record.version()).await,
        "destroying an expired row at its version",
    );
}
