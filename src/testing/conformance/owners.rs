//! Finding and ending sessions by their owner. If the store has no index of owners, these checks pass.

use std::collections::BTreeSet;

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{answered, saved, update},
};
use crate::{
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, Write},
};

async fn replace(store: &StoreUnderTest, key: &StoreKey, from: &Record, to: &Record) {
    let updated = store.save(key, to, update(from)).await;
    saved(updated, "updating at the version that is there");
}

async fn end_all(store: &StoreUnderTest, owner: &OwnerKey, keep: Option<&StoreKey>) -> u64 {
    answered(store.destroy_by_owner(owner, keep).await, "destroying an owner's rows")
}

async fn find(store: &StoreUnderTest, owner: &OwnerKey) -> BTreeSet<StoreKey> {
    let found = answered(store.find_by_owner(owner).await, "finding rows by owner");
    let distinct: BTreeSet<_> = found.iter().copied().collect();
    assert_eq!(found.len(), distinct.len(), "find_by_owner lists a row twice: {found:?}");
    distinct
}

/// `find_by_owner` lists every live row of the owner, and no other row.
pub async fn owners_are_found_by_their_rows(store: &StoreUnderTest) {
    let (ada, bob) = (any_owner(), any_owner());
    if !store.indexes_owners() {
        store.created(&store.record().owner(ada).build()).await;
        let found = store.find_by_owner(&ada).await;
        assert!(found.is_err(), "find_by_owner without an index: expected an error, got {found:?}");
        return;
    }
    let nobody = find(store, &ada).await;
    assert!(nobody.is_empty(), "an owner without rows was found: {nobody:?}");
    let mut wanted = BTreeSet::new();
    for _ in 0..3 {
        wanted.insert(store.created(&store.record().owner(ada).build()).await);
    }
    let of_bob = store.created(&store.record().owner(bob).build()).await;
    store.created(&store.record().build()).await;
    assert_eq!(find(store, &ada).await, wanted, "the rows of an owner");
    assert_eq!(find(store, &bob).await, BTreeSet::from([of_bob]), "the rows of another owner");
}

/// Owners are 32 bytes: no text, no letter case, no padding.
pub async fn owners_are_compared_byte_by_byte(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let base: [u8; 32] = *any_owner().as_bytes();
    let ending = |end: [u8; 2]| {
        let mut bytes = base;
        if let Some(tail) = bytes.last_chunk_mut() {
            *tail = end;
        }
        OwnerKey::from_bytes(bytes)
    };
    let owners =
        [*b"aa", *b"aA", *b"a\0", *b"a ", [b'a', 0xff], [b'a', 0xfe], *b"\0a", *b"a%"].map(ending);
    let mut rows = Vec::new();
    for owner in owners {
        rows.push((owner, store.created(&store.record().owner(owner).build()).await));
    }
    for (owner, key) in rows {
        let found = find(store, &owner).await;
        assert_eq!(
            found,
            BTreeSet::from([key]),
            "owners that differ in their last bytes were mixed up"
        );
    }
}

/// If an update changes the owner, the row moves to the new owner. If the update has no owner, the row leaves the
/// index.
pub async fn the_owner_index_follows_the_row(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let (ada, bob) = (any_owner(), any_owner());
    let anonymous = store.record().build();
    let of_ada = store.record().owner(ada).build();
    let of_bob = store.record().owner(bob).build();
    let key = store.created(&anonymous).await;
    let (row, none) = (BTreeSet::from([key]), BTreeSet::new());
    replace(store, &key, &anonymous, &of_ada).await;
    assert_eq!(find(store, &ada).await, row, "a row that got an owner");
    replace(store, &key, &of_ada, &of_bob).await;
    assert_eq!(find(store, &ada).await, none, "the former owner of a row");
    assert_eq!(find(store, &bob).await, row, "the new owner of a row");
    replace(store, &key, &of_bob, &store.record().build()).await;
    assert_eq!(find(store, &bob).await, none, "the owner of a row that now has none");
}

/// A row leaves the index when `destroy` or `destroy_at` removes it, and when it becomes a tombstone.
pub async fn the_owner_index_forgets_ended_rows(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let ada = any_owner();
    let record = store.record().owner(ada).build();
    let destroyed = store.created(&record).await;
    let destroyed_at = store.created(&record).await;
    let replaced = store.created(&record).await;
    let kept = store.created(&record).await;
    answered(store.destroy(&destroyed).await, "destroying an owner's row");
    let ended = store.destroy_at(&destroyed_at, record.version()).await;
    saved(ended, "destroying an owner's row at its version");
    replace(store, &replaced, &record, &store.record().tombstone().build()).await;
    let found = find(store, &ada).await;
    assert_eq!(
        found,
        BTreeSet::from([kept]),
        "an owner with two destroyed rows, one replaced and one live"
    );
    let anew = store.record().build();
    saved(store.save(&destroyed, &anew, Write::Create).await, "creating after destroy");
    let found = find(store, &ada).await;
    assert_eq!(found, BTreeSet::from([kept]), "an owner whose former key holds another's row");
}

/// If a create replaces an expired row, the former owner has nothing to do with the new row.
pub async fn the_owner_index_forgets_replaced_expired_rows(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let (ada, bob) = (any_owner(), any_owner());
    let key = store.expired(&store.brief_record().owner(ada).build()).await;
    let of_bob = store.record().owner(bob).build();
    saved(store.save(&key, &of_bob, Write::Create).await, "creating over an expired row");
    let (row, none) = (BTreeSet::from([key]), BTreeSet::new());
    assert_eq!(find(store, &ada).await, none, "the owner of an expired row that was replaced");
    assert_eq!(find(store, &bob).await, row, "the owner of a row that replaced an expired one");
    let ended = end_all(store, &ada, None).await;
    assert_eq!(ended, 0, "destroy_by_owner counts a row that another owner has by now");
    let doing = "loading a row after destroy_by_owner of an owner it had before it expired";
    store.holds(&key, &of_bob, doing).await;
}

/// `destroy_by_owner` removes and counts every row of the owner, and no row of another owner.
pub async fn destroy_by_owner_ends_every_session(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let (ada, bob) = (any_owner(), any_owner());
    let of_bob = store.record().owner(bob).build();
    let anonymous = store.record().build();
    let mut of_ada = Vec::new();
    for _ in 0..3 {
        of_ada.push(store.created(&store.record().owner(ada).build()).await);
    }
    let (bob_key, anonymous_key) = (store.created(&of_bob).await, store.created(&anonymous).await);
    assert_eq!(end_all(store, &ada, None).await, 3, "destroy_by_owner counts what it destroyed");
    for key in &of_ada {
        store.absent(key, "loading a row after destroy_by_owner").await;
    }
    assert!(find(store, &ada).await.is_empty(), "an owner was found after destroy_by_owner");
    store.holds(&bob_key, &of_bob, "loading another owner's row after destroy_by_owner").await;
    store
        .holds(&anonymous_key, &anonymous, "loading a row without owner after destroy_by_owner")
        .await;
    assert_eq!(
        end_all(store, &ada, None).await,
        0,
        "destroy_by_owner counts rows where there are none"
    );
}

/// `destroy_by_owner` keeps the row under `keep`, and no other row of the owner.
pub async fn destroy_by_owner_keeps_the_one_it_is_told_to(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    let ada = any_owner();
    let record = store.record().owner(ada).build();
    let kept = store.created(&record).await;
    for _ in 0..2 {
        store.created(&store.record().owner(ada).build()).await;
    }
    let ended = end_all(store, &ada, Some(&kept)).await;
    assert_eq!(ended, 2, "destroy_by_owner counts what it destroyed, not what it kept");
    store.holds(&kept, &record, "loading the row that destroy_by_owner was to keep").await;
    assert_eq!(
        find(store, &ada).await,
        BTreeSet::from([kept]),
        "an owner after all rows but one ended"
    );
    let ended = end_all(store, &ada, Some(&any_key())).await;
    assert_eq!(ended, 1, "destroy_by_owner that keeps a row it does not have ends all others");
}

/// A store without [`indexes_owners`](crate::SessionStore::indexes_owners) returns an error instead of an empty
/// list. A sign-out everywhere that ends no session must not look like a success.
pub async fn without_an_index_owners_are_unsupported(store: &StoreUnderTest) {
    if store.indexes_owners() {
        return;
    }
    let owner = any_owner();
    let found = store.find_by_owner(&owner).await;
    assert!(
        matches!(found, Err(StoreError::Unsupported { .. })),
        "find_by_owner without an index: expected Unsupported, got {found:?}"
    );
    let ended = store.destroy_by_owner(&owner, None).await;
    assert!(
        matches!(ended, Err(StoreError::Unsupported { .. })),
        "destroy_by_owner without an index: expected Unsupported, got {ended:?}"
    );
}
