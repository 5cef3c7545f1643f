//! A row lives until its end, and no longer.

use std::time::Duration;

use super::{
    MOST_SKEW, StoreUnderTest, any_key,
    expect::{gone, saved, update},
};
use crate::{clock::Timestamp, store::Write};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Longer than an engine may count seconds from now: 30 days in memcached.
const SIXTY_DAYS: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// A row is there until shortly before its end, and absent after it. The end comes from a create, an update or a
/// touch.
pub async fn rows_live_until_their_end(store: &StoreUnderTest) {
    match &store.advance {
        Some(_) => {
            for life in [HOUR, SIXTY_DAYS] {
                lives_until_its_end(store, life, Duration::from_secs(5)).await;
            }
        }
        None => {
            lives_until_its_end(store, Duration::from_secs(1), Duration::from_millis(400)).await;
        }
    }
}

/// Looks at rows of a life `shortly` before its end, and after the end.
async fn lives_until_its_end(store: &StoreUnderTest, life: Duration, shortly: Duration) {
    let began = store.now();
    let end = began.saturating_add(life);
    let long = store.record().expires_at(end).payload("long").build();
    let half = store.record().expires_at(began.saturating_add(life / 2)).build();
    let [created, updated, touched] =
        [store.created(&long).await, store.created(&half).await, store.created(&half).await];
    let update = store.save(&updated, &long, update(&half)).await;
    let touch = store.touch(&touched, half.version(), end).await;
    if !store.is_surely_before(began.saturating_add(life / 2)) {
        // The machine is so slow that half of the life is over.
        return;
    }
    saved(update, "updating a row to a later end");
    saved(touch, "touching a row with a later end");
    let rows = [(created, "create"), (updated, "update"), (touched, "touch")];

    let wait = end.saturating_since(store.now()).saturating_sub(shortly);
    store.pass(wait).await;
    for (key, write) in &rows {
        let found = store.load(key).await;
        if store.is_surely_before(end) {
            let is_there = matches!(found, Ok(Some(_)));
            assert!(
                is_there,
                "loading a row {shortly:?} before the end that its {write} set, which was {life:?} away: got {found:?}"
            );
        }
    }
    store.pass(shortly * 2 + MOST_SKEW).await;
    for (key, write) in &rows {
        store.absent(key, &format!("loading a row after the end that its {write} set")).await;
    }
}

/// A record whose end has passed before it is saved, or passes moments later, is no row that lives forever.
pub async fn a_record_saved_after_its_end_is_absent(store: &StoreUnderTest) {
    let (now, live) = (store.now().as_unix_millis(), store.record().payload("live").build());
    let ending = |end: u64| {
        let (began, end) = (end.saturating_sub(5000), Timestamp::from_unix_millis(end));
        store.record().created_at(Timestamp::from_unix_millis(began)).expires_at(end).build()
    };
    let ends = [
        ("in 1970", 0),
        ("a minute ago", now.saturating_sub(60_000)),
        // Engines that count whole seconds may make zero of these, and zero may mean that a row never ends.
        ("half a second ago", now.saturating_sub(500)),
        ("at this moment", now + 300),
    ];
    let mut rows = Vec::new();
    for (when, end) in ends {
        let (record, created, updated) = (ending(end), any_key(), store.created(&live).await);
        let create = store.save(&created, &record, Write::Create).await;
        saved(create, &format!("creating a row with an end {when}"));
        let update = store.save(&updated, &record, update(&live)).await;
        saved(update, &format!("updating a row to an end {when}"));
        // The clocks may differ about the others.
        if end + 5000 < now {
            let doing = format!("loading a row that was saved with an end {when}");
            store.absent(&created, &doing).await;
            store.absent(&updated, &doing).await;
        }
        rows.push((when, created, record.clone()));
        rows.push((when, updated, record));
    }
    store.pass_soon().await;
    for (when, key, record) in &rows {
        let doing = format!("loading, after a while, a row that was saved with an end {when}");
        store.absent(key, &doing).await;
        let late = store.save(key, &live, update(record)).await;
        gone(late, &format!("updating a row that was saved with an end {when}"));
    }
}
