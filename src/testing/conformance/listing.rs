//! Pages of all rows, and expired rows that are handed out.
//!
//! The checks of a rule end early for a store that does not support it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    StoreUnderTest, any_owner,
    expect::{an_hour_after, answered, same, saved, update},
    parallel::in_parallel,
};
use crate::{
    error::StoreError,
    id::StoreKey,
    store::{Cursor, KeyPage, Record, SessionStore, Write},
};

/// Far more pages than a fresh store has.
const MOST_PAGES: usize = 10_000;

/// How many keys a page may have beyond its limit: an engine that walks a hash table returns whole buckets.
const SPARE: usize = 64;

/// The limit of a small page.
const FEW: u32 = 5;

/// `list` returns every live row, in pages of about `limit` keys, and comes to an end.
pub async fn list_returns_every_live_row(store: &StoreUnderTest) {
    if !store.lists_sessions() {
        store.created(&store.record().build()).await;
        let page = store.list(None, 1000).await;
        assert!(page.is_err(), "list without `lists_sessions()`: expected an error, got {page:?}");
        return;
    }
    let mut live = BTreeSet::new();
    for number in 0..3 * SPARE {
        live.insert(store.created(&store.record().payload(number.to_string()).build()).await);
    }
    for limit in [1000, 10] {
        let listed = all_pages(store, limit, async |_| {}).await;
        let missed = live.difference(&listed).count();
        assert_eq!(missed, 0, "list(.., {limit}) left out {missed} of {} rows", live.len());
    }
}

/// Pages of one key lead to every row too.
pub async fn list_returns_every_row_in_pages_of_one(store: &StoreUnderTest) {
    if !store.lists_sessions() {
        return;
    }
    let mut live = BTreeSet::new();
    for number in 0..5 {
        live.insert(store.created(&store.record().payload([number]).build()).await);
    }
    let (mut listed, mut next) = (BTreeSet::new(), None);
    // Enough for a fresh store. A shared server may have too many rows for pages of one.
    for _ in 0..300 {
        let page = answered(store.list(next.as_ref(), 1).await, "listing one row");
        within_limit(&page, 1);
        listed.extend(page.keys);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let missed = live.difference(&listed).count();
    assert!(
        next.is_some() || missed == 0,
        "list(.., 1) came to an end and left out {missed} of {} rows",
        live.len()
    );
}

/// `list` returns no expired row and no row that was destroyed.
pub async fn list_hides_rows_that_are_gone(store: &StoreUnderTest) {
    if !store.lists_sessions() {
        return;
    }
    let destroyed = store.created(&store.record().build()).await;
    answered(store.destroy(&destroyed).await, "destroying a row before list");
    let brief = store.brief_record().build();
    let touched = store.created(&brief).await;
    let touch = store.touch(&touched, brief.version(), store.later()).await;
    saved(touch, "touching a row before list");
    let mut live = BTreeSet::new();
    for _ in 0..4 {
        live.insert(store.created(&store.record().build()).await);
    }
    // So many that whole pages hold nothing else.
    let mut expired = BTreeSet::new();
    for _ in 0..150 {
        expired.insert(store.created(&store.brief_record().build()).await);
    }
    store.pass_soon().await;
    let listed = all_pages(store, FEW, async |_| {}).await;
    assert!(!listed.contains(&destroyed), "list returned a row that was destroyed");
    assert!(listed.is_disjoint(&expired), "list returned an expired row");
    assert!(listed.contains(&touched), "list left out a row whose expiry a touch moved");
    assert!(listed.is_superset(&live), "list left out a live row that stands among expired rows");
}

/// A row that is stored from the first page to the last is listed, while it and other rows change.
pub async fn list_misses_no_row_while_others_come_and_go(store: &StoreUnderTest) {
    if !store.lists_sessions() {
        return;
    }
    let mut current = Vec::new();
    for number in 0..40 {
        let record = store.record().payload(number.to_string()).build();
        current.push((store.created(&record).await, record));
    }
    let stays: BTreeSet<StoreKey> = current.iter().map(|(key, _)| *key).collect();
    let mut passing = BTreeSet::new();
    for _ in 0..stays.len() {
        passing.insert(store.created(&store.record().build()).await);
    }
    let mut page = 0;
    let listed = all_pages(store, FEW, async |listed| {
        // So many pages suffice, or the list would have no end.
        page += 1;
        if page > 40 {
            return;
        }
        // Rows that were listed end, so that a count of rows moves, and others begin.
        for key in listed.intersection(&passing) {
            answered(store.destroy(key).await, "destroying a row between two pages");
        }
        passing.retain(|key| !listed.contains(key));
        for _ in 0..3 {
            passing.insert(store.created(&store.record().build()).await);
        }
        // A row that stays, in another version: one that was listed ends later, and one that was not ends earlier, so
        // that both move in an order by expiry.
        let is_later = page % 2 == 0;
        let row = current.iter_mut().find(|(key, _)| listed.contains(key) == is_later);
        let Some((key, record)) = row else {
            return;
        };
        let next = store.record().payload("next").build();
        let half_an_hour = store.now().saturating_add(Duration::from_secs(30 * 60));
        let end = if is_later { an_hour_after(&next) } else { half_an_hour };
        let next = next.with_expires_at(end);
        saved(store.save(key, &next, update(record)).await, "updating a row between two pages");
        *record = next;
    })
    .await;
    let missed = stays.difference(&listed).count();
    assert_eq!(missed, 0, "list left out {missed} rows that were stored all the time");
}

/// A cursor of any bytes is an error or begins somewhere, and `list` panics at no limit.
pub async fn list_takes_any_cursor_and_limit(store: &StoreUnderTest) {
    if !store.lists_sessions() {
        return;
    }
    for _ in 0..SPARE + 10 {
        store.created(&store.record().build()).await;
    }
    let cursors = [
        Cursor::new(Vec::new()),
        Cursor::new([0]),
        Cursor::new(*b"a cursor of another store; it ends in a quote '\""),
        Cursor::new([0xff; 32]),
        Cursor::new([0xff; 5000]),
    ];
    for cursor in &cursors {
        // Whether it is an error is up to the engine.
        let _ = store.list(Some(cursor), 10).await;
    }
    for limit in [0, 1, u32::MAX] {
        let page =
            answered(store.list(None, limit).await, &format!("listing at most {limit} rows"));
        within_limit(&page, limit);
    }
}

/// A store without [`lists_sessions`](crate::SessionStore::lists_sessions) returns an error instead of an empty page.
pub async fn without_a_list_it_is_unsupported(store: &StoreUnderTest) {
    if store.lists_sessions() {
        return;
    }
    let page = store.list(None, 10).await;
    assert!(
        matches!(page, Err(StoreError::Unsupported { .. })),
        "list without `lists_sessions()`: expected Unsupported, got {page:?}"
    );
}

/// `take_expired` deletes the expired rows, at most `limit` in a call, and returns each as it was saved.
pub async fn take_expired_returns_what_it_deletes(store: &StoreUnderTest) {
    if !store.returns_expired() {
        store.expired(&store.brief_record().build()).await;
        let taken = store.take_expired(1000).await;
        assert!(
            taken.is_err(),
            "take_expired without `returns_expired()`: expected an error, got {taken:?}"
        );
        return;
    }
    let live = store.created(&store.record().payload("live").build()).await;
    let mut wanted = BTreeMap::new();
    for number in 0..5 {
        let record = store.brief_record().owner(any_owner()).payload([number; 9]).build();
        wanted.insert(store.created(&record).await, record);
    }
    let tombstone = store.brief_record().tombstone().build();
    wanted.insert(store.created(&tombstone).await, tombstone);
    store.pass_soon().await;
    let none = answered(store.take_expired(0).await, "taking at most no expired rows");
    assert!(none.is_empty(), "take_expired(0) returned {} rows", none.len());

    let taken = all_expired(&**store, 2).await;
    for (key, record) in &wanted {
        let found = taken.iter().filter(|(taken, _)| taken == key).collect::<Vec<_>>();
        let [(_, found)] = found[..] else {
            panic!("take_expired returned an expired row {} times instead of once", found.len());
        };
        same(found, record, "a record that take_expired returned");
        store.absent(key, "loading a row after take_expired").await;
    }
    store.found(&live, "loading a live row after every expired row was taken").await;
    // What is deleted is gone for every other method too.
    let deleted =
        answered(store.delete_expired(1000).await, "deleting expired rows after all are taken");
    assert_eq!(
        deleted, 0,
        "delete_expired found rows after take_expired had returned an empty page"
    );
}

/// `take_expired` takes no live row: none that a touch or an update let live longer, and none that replaced an
/// expired row.
pub async fn take_expired_leaves_live_rows(store: &StoreUnderTest) {
    if !store.returns_expired() {
        return;
    }
    let (brief, next) = (store.brief_record().build(), store.record().payload("next").build());
    let [touched, updated, replaced] =
        [store.created(&brief).await, store.created(&brief).await, store.created(&brief).await];
    let touch = store.touch(&touched, brief.version(), store.later()).await;
    saved(touch, "touching a row before take_expired");
    saved(store.save(&updated, &next, update(&brief)).await, "updating a row before take_expired");
    store.pass_soon().await;
    let create = store.save(&replaced, &next, Write::Create).await;
    saved(create, "replacing an expired row before take_expired");

    let taken = all_expired(&**store, 1000).await;
    for key in [touched, updated, replaced] {
        let is_taken = taken.iter().any(|(taken, _)| *taken == key);
        assert!(!is_taken, "take_expired returned a live row");
        store.found(&key, "loading a live row after take_expired").await;
    }
}

/// Of several nodes that take expired rows at once, one is given each row.
pub async fn take_expired_gives_each_row_once(store: &StoreUnderTest) {
    if !store.returns_expired() {
        return;
    }
    let mut expired = BTreeSet::new();
    for number in 0..60 {
        let record = store.brief_record();
        let record = if number % 10 == 0 { record.tombstone() } else { record };
        expired.insert(store.created(&record.build()).await);
    }
    store.pass_soon().await;
    let nodes = (0..4).map(|_| {
        let store = store.shared();
        async move { all_expired(&*store, 7).await }
    });
    let mut taken: Vec<StoreKey> = Vec::new();
    for node in in_parallel(nodes).await {
        taken.extend(node.into_iter().map(|(key, _)| key));
    }
    // Rows that one node was deleting may have been hidden from the others.
    taken.extend(all_expired(&**store, 1000).await.into_iter().map(|(key, _)| key));
    taken.retain(|key| expired.contains(key));
    let rows: BTreeSet<StoreKey> = taken.iter().copied().collect();
    assert_eq!(taken.len(), rows.len(), "take_expired returned a row to more than one caller");
    assert_eq!(rows.len(), expired.len(), "take_expired by several callers at once lost rows");
}

/// A store without [`returns_expired`](crate::SessionStore::returns_expired) returns an error instead of an empty
/// page.
pub async fn without_taking_expired_rows_it_is_unsupported(store: &StoreUnderTest) {
    if store.returns_expired() {
        return;
    }
    let taken = store.take_expired(10).await;
    assert!(
        matches!(taken, Err(StoreError::Unsupported { .. })),
        "take_expired without `returns_expired()`: expected Unsupported, got {taken:?}"
    );
}

/// Reads all pages, and calls `between` after each with all that was listed.
pub(super) async fn all_pages(
    store: &StoreUnderTest,
    limit: u32,
    mut between: impl AsyncFnMut(&BTreeSet<StoreKey>),
) -> BTreeSet<StoreKey> {
    let mut listed = BTreeSet::new();
    let mut next = None;
    for _ in 0..MOST_PAGES {
        let page = store.list(next.as_ref(), limit).await;
        let page = answered(page, "listing a page of rows");
        within_limit(&page, limit);
        listed.extend(page.keys);
        between(&listed).await;
        if page.next.is_none() {
            return listed;
        }
        next = page.next;
    }
    panic!("list(.., {limit}) still has a next page after {MOST_PAGES} pages");
}

#[track_caller]
fn within_limit(page: &KeyPage, limit: u32) {
    let (count, most) = (page.keys.len(), usize::try_from(limit).unwrap_or(usize::MAX));
    let most = most.saturating_add(SPARE);
    assert!(count <= most, "list(.., {limit}) returned a page of {count} keys");
}

/// Takes expired rows until none is left.
pub(super) async fn all_expired(store: &dyn SessionStore, limit: u32) -> Vec<(StoreKey, Record)> {
    let mut taken = Vec::new();
    for _ in 0..MOST_PAGES {
        let rows = answered(store.take_expired(limit).await, "taking expired rows");
        if rows.is_empty() {
            return taken;
        }
        let count = rows.len();
        let within = usize::try_from(limit).is_ok_and(|limit| count <= limit);
        assert!(within, "take_expired({limit}) returned {count} rows");
        taken.extend(rows);
    }
    panic!("take_expired({limit}) still returns rows after {MOST_PAGES} calls");
}
