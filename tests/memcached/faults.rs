//! A server that stops, hangs, forgets or hangs up, and a store that is never made anew.

use std::time::Duration;

use axum_typed_session::{
    MemcachedStore, SessionStore as _, StoreError, StoreKey,
    store::{Record, SaveOutcome, Write},
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::{
    common::assert_matches,
    servers::eventually,
    support::{
        DAY, Memcached, SECOND, any_key, created, gone, or_skip, record, saved, shared,
        unavailable, update,
    },
};

/// No operation may take longer, whatever is wrong: the default `store_timeout`.
const BOUND: Duration = Duration::from_secs(2);

/// The connections that one store opens at most.
const CONNECTIONS: u64 = 32;

async fn bounded<R>(
    doing: &str,
    operation: impl Future<Output = Result<R, StoreError>>,
) -> Result<R, StoreError> {
    let outcome = timeout(BOUND, operation).await;
    outcome.unwrap_or_else(|_| panic!("{doing} took longer than {BOUND:?}"))
}

/// Every operation fails with a typed error, in time.
async fn is_unavailable(store: &MemcachedStore, key: &StoreKey, row: &Record) {
    let next = record().build();
    let later = row.expires_at().saturating_add(SECOND);
    let failures = [
        ("load", bounded("load", store.load(key)).await.err()),
        ("create", bounded("create", store.save(&any_key(), &next, Write::Create)).await.err()),
        ("update", bounded("update", store.save(key, &next, update(row))).await.err()),
        ("touch", bounded("touch", store.touch(key, row.version(), later)).await.err()),
        ("destroy", bounded("destroy", store.destroy(&any_key())).await.err()),
        ("end", bounded("end", store.destroy_at(key, row.version())).await.err()),
    ];
    for (doing, failure) in failures {
        assert_matches!(failure, Some(StoreError::Unavailable(_)), "to {doing}");
    }
}

#[tokio::test]
async fn a_stopped_server_is_unavailable_and_comes_back_without_sessions() {
    let mut memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    for _ in 0..3 {
        let row = record().build();
        let key = created(&store, &row).await;
        memcached.kill();
        let started = Instant::now();
        is_unavailable(&store, &key, &row).await;
        assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
        memcached.resume();
        // The first operation after the restart, by a token of the server that was.
        gone(store.save(&key, &record().build(), update(&row)).await);
        gone(store.touch(&key, row.version(), row.expires_at().saturating_add(DAY)).await);
        gone(store.destroy_at(&key, row.version()).await);
        assert_eq!(store.load(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_and_its_unanswered_write_may_be_repeated() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    let (old, dropped, landed) = (record().build(), record().build(), record().build());
    let key = created(&store, &old).await;

    memcached.hang();
    is_unavailable(&store, &any_key(), &old).await;
    unavailable(bounded("save", store.save(&key, &landed, update(&old))).await);
    // What the core does: it drops the call.
    timeout(SECOND / 20, store.save(&any_key(), &dropped, Write::Create)).await.unwrap_err();
    memcached.go_on();

    saved(bounded("save again", store.save(&key, &landed, update(&old))).await);
    assert_eq!(store.load(&key).await.unwrap(), Some(landed));
    // The answers of all that was given up belong to nobody else.
    for number in 0..50 {
        let row = record().payload(number.to_string()).build();
        let key = created(&store, &row).await;
        assert_eq!(store.load(&key).await.unwrap(), Some(row));
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_noticed() {
    let memcached = or_skip!(Memcached::start_with(&["-o", "idle_timeout=1"]));
    let store = memcached.store().await;
    let first = record().build();
    let key = created(&store, &first).await;
    let closed = || memcached.stat("", "idle_kicks");
    let wait = async |kicks| {
        eventually("an idle connection to be closed", async || closed() >= kicks).await;
    };

    wait(1).await;
    assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&first));
    wait(2).await;
    let second = record().build();
    saved(store.save(&key, &second, update(&first)).await);
    wait(3).await;
    saved(store.touch(&key, second.version(), second.expires_at().saturating_add(SECOND)).await);
    wait(4).await;
    created(&store, &first).await;
    wait(5).await;
    saved(store.destroy_at(&key, second.version()).await);
    wait(6).await;
    store.destroy(&key).await.unwrap();
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_one_write() {
    let memcached = or_skip!(shared());
    let (proxy, store) = memcached.proxied_store().await;
    let [first, second] = [(); 2].map(|()| record().build());
    let later = second.expires_at().saturating_add(DAY);
    let key = any_key();

    let lost = proxy.lose_next_answer(async {});
    let (outcome, ()) = tokio::join!(store.save(&key, &first, Write::Create), lost);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&first));

    let lost = proxy.lose_next_answer(async {});
    let (outcome, ()) = tokio::join!(store.save(&key, &second, update(&first)), lost);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&second));

    // A touch reads first, so the second answer is that of its write.
    let touched = second.clone().with_expires_at(later);
    let lost = proxy.hold_next_answer(async {
        drop(proxy.lose_next_answer(async {}));
    });
    let (outcome, ()) = tokio::join!(store.touch(&key, second.version(), later), lost);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(touched));

    let lost = proxy.lose_next_answer(async {});
    let (outcome, ()) = tokio::join!(store.destroy(&key), lost);
    outcome.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_save_of_the_version_that_the_row_has_changes_nothing() {
    let store = or_skip!(shared()).store().await;
    let row = record().build();
    let key = created(&store, &row).await;
    let shorter = row.clone().with_expires_at(row.created_at().saturating_add(600 * SECOND));
    saved(store.save(&key, &shorter, update(&row)).await);
    assert_eq!(store.load(&key).await.unwrap(), Some(row));
}

/// The first try landed, and another save came on top of it before the second: a conflict would have the
/// caller apply its change to a row that has it already.
#[tokio::test]
async fn a_lost_save_never_reports_a_conflict_with_what_came_after_itself() {
    let memcached = or_skip!(shared());
    let direct = memcached.store().await;
    let (proxy, store) = memcached.proxied_store().await;
    let [first, second, third] = [(); 3].map(|()| record().build());
    let key = created(&store, &first).await;
    let lost = proxy.lose_next_answer(async {
        saved(direct.save(&key, &third, update(&second)).await);
    });
    let (outcome, ()) = tokio::join!(store.save(&key, &second, update(&first)), lost);
    unavailable(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(third));
}

#[tokio::test]
async fn a_save_that_was_lost_before_it_landed_is_sent_again() {
    let memcached = or_skip!(Memcached::start_with(&["-o", "idle_timeout=1"]));
    let store = memcached.store().await;
    let rows = [(); 20].map(|()| record().build());
    let saves = rows.iter().map(|row| created(&store, row));
    let keys = join_all(saves).await;
    let connections = || memcached.stat("", "curr_connections");
    // The connection that asks is one, and the server counts one of its own.
    eventually("all connections to be closed", async || connections() <= 2).await;
    let next = [(); 20].map(|()| record().build());
    let saves = keys.iter().zip(&rows).zip(&next);
    let saves = saves.map(|((key, row), next)| store.save(key, next, update(row)));
    for outcome in join_all(saves).await {
        saved(outcome);
    }
    for (key, next) in keys.iter().zip(next) {
        assert_eq!(store.load(key).await.unwrap(), Some(next));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_share_a_bounded_number_of_connections() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    let row = record().build();
    let key = created(&store, &row).await;
    let loads = (0..400).map(|_| {
        let (store, key) = (store.clone(), key);
        tokio::spawn(async move { store.load(&key).await })
    });
    for load in join_all(loads).await {
        assert_eq!(load.unwrap().unwrap().as_ref(), Some(&row));
    }
    let opened = memcached.stat("", "curr_connections");
    assert!(opened <= CONNECTIONS + 2, "{opened}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_dropped_saves_leave_whole_rows_and_few_connections() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    let row = record().payload(vec![b'x'; 2_000]).build();
    let (mut dropped, mut keys) = (0, Vec::new());
    for _ in 0..250 {
        let saves = (0..4_u64).map(|number| {
            let (store, key, row) = (store.clone(), any_key(), row.clone());
            keys.push(key);
            tokio::spawn(async move {
                let create = store.save(&key, &row, Write::Create);
                timeout(Duration::from_micros(100 * number), create).await
            })
        });
        for save in join_all(saves).await {
            match save.unwrap() {
                Ok(outcome) => saved(outcome),
                Err(_elapsed) => dropped += 1,
            }
        }
    }
    assert!(dropped > 0);
    for key in keys {
        let found = store.load(&key).await.unwrap();
        assert!(found.is_none_or(|found| found == row));
    }
    let opened = || memcached.stat("", "curr_connections");
    eventually("few connections", async || opened() <= CONNECTIONS + 2).await;
}

#[tokio::test]
async fn a_conflict_shows_the_row_of_another_node() {
    let memcached = or_skip!(shared());
    let [here, there] = [memcached.store().await, memcached.store().await];
    let [first, second, third] = [(); 3].map(|()| record().build());
    let key = created(&here, &first).await;
    assert_eq!(there.load(&key).await.unwrap().as_ref(), Some(&first));
    saved(here.save(&key, &second, update(&first)).await);
    let outcome = there.save(&key, &third, update(&first)).await.unwrap();
    assert_eq!(outcome, SaveOutcome::Conflict(second.clone().into()));
    let outcome = there.destroy_at(&key, first.version()).await.unwrap();
    assert_eq!(outcome, SaveOutcome::Conflict(second.clone().into()));
    // A touch elsewhere is no conflict, although the token of this node is too old then.
    saved(there.touch(&key, second.version(), second.expires_at().saturating_add(DAY)).await);
    saved(here.save(&key, &third, update(&second)).await);
    assert_eq!(there.load(&key).await.unwrap(), Some(third));
}
