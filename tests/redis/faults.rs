//! A server that stops, hangs, forgets or hangs up, and a store that is never made anew.

use std::time::{Duration, Instant};

use axum_typed_session::{
    RedisStore, SessionStore as _, StoreError, StoreKey,
    store::{Record, SaveOutcome, Write},
};
use redis::cmd;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    common::assert_matches,
    servers::eventually,
    support::{
        Redis, SECOND, any_key, any_owner, created, or_skip, record, saved, shared, unavailable,
        update,
    },
};

/// No operation may take longer, whatever is wrong: the default `store_timeout`.
const BOUND: Duration = Duration::from_secs(2);

async fn bounded<R>(
    doing: &str,
    operation: impl Future<Output = Result<R, StoreError>>,
) -> Result<R, StoreError> {
    let outcome = timeout(BOUND, operation).await;
    outcome.unwrap_or_else(|_| panic!("{doing} took longer than {BOUND:?}"))
}

/// Every operation fails with a typed error, in time.
async fn is_unavailable(store: &RedisStore, key: &StoreKey, row: &Record) {
    let next = record().owner(any_owner()).build();
    let later = row.expires_at().saturating_add(SECOND);
    let owner = any_owner();
    let failures = [
        ("load", bounded("load", store.load(key)).await.err()),
        ("create", bounded("create", store.save(&any_key(), &next, Write::Create)).await.err()),
        ("update", bounded("update", store.save(key, &next, update(row))).await.err()),
        ("touch", bounded("touch", store.touch(key, row.version(), later)).await.err()),
        ("destroy", bounded("destroy", store.destroy(&any_key())).await.err()),
        ("find", bounded("find", store.find_by_owner(&owner)).await.err()),
        ("end all", bounded("end all", store.destroy_by_owner(&owner, None)).await.err()),
    ];
    for (doing, failure) in failures {
        assert_matches!(failure, Some(StoreError::Unavailable(_)), "to {doing}");
    }
}

#[tokio::test]
async fn a_stopped_server_is_unavailable_until_it_is_back() {
    let mut redis = or_skip!(Redis::start_durable());
    let store = redis.store().await;
    let (key, row) = (any_key(), record().payload("old").build());
    saved(store.save(&key, &row, Write::Create).await);
    for _ in 0..3 {
        redis.kill();
        let started = Instant::now();
        is_unavailable(&store, &key, &row).await;
        println!("seven operations on a stopped server failed within {:?}", started.elapsed());
        redis.resume();
        assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&row));
    }
}

#[tokio::test]
async fn a_server_stopped_between_load_and_save_keeps_the_old_row() {
    let mut redis = or_skip!(Redis::start_durable());
    let store = redis.store().await;
    let (key, old) = (any_key(), record().payload("old").build());
    saved(store.save(&key, &old, Write::Create).await);
    let loaded = store.load(&key).await.unwrap().unwrap();
    let new = record().payload("new").build();
    redis.kill();
    unavailable(bounded("save", store.save(&key, &new, update(&loaded))).await);
    redis.resume();
    assert_eq!(store.load(&key).await.unwrap(), Some(old));
    saved(store.save(&key, &new, update(&loaded)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_during_saves_holds_every_row_whole_and_every_acknowledged_one() {
    let mut redis = or_skip!(Redis::start_durable());
    let store = redis.store().await;
    let mut rows = Vec::new();
    for _ in 0..50 {
        let (key, old) = (any_key(), record().payload("old").build());
        saved(store.save(&key, &old, Write::Create).await);
        rows.push((key, old));
    }
    let mut writers = Vec::new();
    for (key, mut last) in rows {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            loop {
                let next = record().payload(vec![b'x'; 1000]).build();
                match bounded("save", store.save(&key, &next, update(&last))).await {
                    Ok(outcome) => assert_eq!(outcome, SaveOutcome::Saved),
                    Err(StoreError::Unavailable(_)) => return (key, last, next),
                    Err(error) => panic!("{error:?}"),
                }
                last = next;
            }
        }));
    }
    tokio::time::sleep(SECOND / 5).await;
    redis.kill();
    let mut landed = 0;
    let mut outcomes = Vec::new();
    for writer in writers {
        outcomes.push(writer.await.unwrap());
    }
    redis.resume();
    for (key, acknowledged, unknown) in outcomes {
        let found = store.load(&key).await.unwrap().unwrap();
        assert!(found == acknowledged || found == unknown, "{found:?}");
        landed += u32::from(found == unknown);
        // Trying again with the same version is safe whether or not it landed.
        saved(store.save(&key, &unknown, update(&acknowledged)).await);
    }
    println!("of 50 writes without an answer {landed} had landed");
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_and_its_unanswered_write_may_be_repeated() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, old) = (any_key(), record().payload("old").build());
    let (dropped, landed) = (record().payload("dropped").build(), record().payload("new").build());
    saved(store.save(&key, &old, Write::Create).await);
    created(&store, &old).await;

    redis.signal("STOP");
    unavailable(bounded("load", store.load(&key)).await);
    unavailable(bounded("save", store.save(&key, &landed, update(&old))).await);
    // What the core does: it drops the call.
    timeout(SECOND / 20, store.save(&any_key(), &dropped, Write::Create)).await.unwrap_err();
    redis.signal("CONT");

    saved(bounded("save again", store.save(&key, &landed, update(&old))).await);
    assert_eq!(store.load(&key).await.unwrap(), Some(landed));
    // The answers of all that was given up belong to nobody else.
    for number in 0..50 {
        let (key, row) = (any_key(), record().payload(number.to_string()).build());
        saved(store.save(&key, &row, Write::Create).await);
        assert_eq!(store.load(&key).await.unwrap(), Some(row));
    }
}

#[tokio::test]
async fn a_server_that_comes_back_empty_has_no_sessions_and_takes_new_ones() {
    let mut redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, old) = (any_key(), record().owner(any_owner()).build());
    saved(store.save(&key, &old, Write::Create).await);
    redis.kill();
    redis.resume();
    assert_eq!(store.load(&key).await.unwrap(), None);
    let next = record().owner(old.owner().unwrap()).build();
    assert_eq!(store.save(&key, &next, update(&old)).await.unwrap(), SaveOutcome::Gone);
    let touched = store.touch(&key, old.version(), next.expires_at()).await;
    assert_eq!(touched.unwrap(), SaveOutcome::Gone);
    assert_eq!(store.load(&key).await.unwrap(), None);
    created(&store, &next).await;
    assert_eq!(store.find_by_owner(&next.owner().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_cut_connection_is_not_noticed() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, mut row) = (any_key(), record().build());
    saved(store.save(&key, &row, Write::Create).await);
    for _ in 0..20 {
        redis.hang_up();
        assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&row));
        redis.hang_up();
        let next = record().build();
        saved(store.save(&key, &next, update(&row)).await);
        row = next;
        redis.hang_up();
        saved(store.touch(&key, row.version(), row.expires_at()).await);
        redis.hang_up();
        created(&store, &record().owner(any_owner()).build()).await;
    }
}

#[tokio::test]
async fn a_save_whose_answer_is_lost_is_repeated_once() {
    let redis = or_skip!(shared());
    let (proxy, store) = redis.proxied_store().await;
    let (first, second) = (record().build(), record().build());
    let key = created(&store, &first).await;
    let lost = proxy.lose_next_answer(async {});
    let (outcome, ()) = tokio::join!(store.save(&key, &second, update(&first)), lost);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(second));
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_one_create() {
    let redis = or_skip!(shared());
    let (proxy, store) = redis.proxied_store().await;
    let (key, row) = (any_key(), record().build());
    let lost = proxy.lose_next_answer(async {});
    let (outcome, ()) = tokio::join!(store.save(&key, &row, Write::Create), lost);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(row));
}

/// The first try landed, and another save came on top of it before the second.
#[tokio::test]
async fn a_create_whose_answer_is_lost_reports_no_conflict_with_what_came_after_itself() {
    let redis = or_skip!(shared());
    let direct = redis.store().await;
    let (proxy, store) = redis.proxied_store().await;
    let (key, first, second) = (any_key(), record().build(), record().build());
    let lost = proxy.lose_next_answer(async {
        saved(direct.save(&key, &second, update(&first)).await);
    });
    let (outcome, ()) = tokio::join!(store.save(&key, &first, Write::Create), lost);
    unavailable(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(second));
}

/// The row in the way is seen by the first command, and gone for the second.
#[tokio::test]
async fn a_create_whose_obstacle_ends_meanwhile_is_saved() {
    let redis = or_skip!(shared());
    let direct = redis.store().await;
    let (proxy, store) = redis.proxied_store().await;
    let (obstacle, row) = (record().build(), record().build());
    let key = created(&direct, &obstacle).await;
    let ended = proxy.hold_next_answer(async { direct.destroy(&key).await.unwrap() });
    let (outcome, ()) = tokio::join!(store.save(&key, &row, Write::Create), ended);
    saved(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(row));
}

/// The first try landed, and another save came on top of it before the second: a conflict would have the
/// caller apply its change to a row that has it already.
async fn a_repeated_save_reports_no_conflict(redis: &Redis, before_it_is_repeated: impl Fn()) {
    let direct = redis.store().await;
    let (proxy, store) = redis.proxied_store().await;
    let [zeroth, first, second, third] = [(); 4].map(|()| record().build());
    let key = created(&store, &zeroth).await;
    // The store learns what the server can do.
    saved(store.save(&key, &first, update(&zeroth)).await);
    let lost = proxy.lose_next_answer(async {
        saved(direct.save(&key, &third, update(&second)).await);
        before_it_is_repeated();
    });
    let (outcome, ()) = tokio::join!(store.save(&key, &second, update(&first)), lost);
    unavailable(outcome);
    assert_eq!(store.load(&key).await.unwrap(), Some(third));
}

#[tokio::test]
async fn a_repeated_save_never_reports_a_conflict_with_what_came_after_itself() {
    a_repeated_save_reports_no_conflict(or_skip!(shared()), || ()).await;
}

#[tokio::test]
async fn a_repeated_save_whose_script_was_forgotten_reports_no_conflict_either() {
    let redis = or_skip!(Redis::start());
    let forget = || redis.ask::<()>(cmd("SCRIPT").arg("FLUSH"));
    a_repeated_save_reports_no_conflict(&redis, forget).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_faults_leave_neither_connections_nor_tasks_behind() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, row) = (any_key(), record().owner(any_owner()).build());
    saved(store.save(&key, &row, Write::Create).await);
    // Its own connection is one of them.
    let connections = || redis.ask::<String>(cmd("CLIENT").arg("LIST")).lines().count();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = (connections(), tasks());
    let (mut failed, mut dropped) = (0, 0);
    for fault in 0..1_000 {
        let running: Vec<_> = (0..4)
            .map(|_| {
                let (store, key, row) = (store.clone(), any_key(), row.clone());
                tokio::spawn(async move {
                    let create = store.save(&key, &row, Write::Create);
                    timeout(Duration::from_micros(300), create).await
                })
            })
            .collect();
        if fault % 2 == 0 {
            redis.hang_up();
        }
        for call in running {
            match call.await.unwrap() {
                Ok(Ok(outcome)) => assert_eq!(outcome, SaveOutcome::Saved),
                Ok(Err(StoreError::Unavailable(_))) => failed += 1,
                Ok(Err(error)) => panic!("{error:?}"),
                Err(_elapsed) => dropped += 1,
            }
        }
    }
    assert_eq!(store.load(&key).await.unwrap(), Some(row));
    // The last connection's task ends some moments after it.
    println!("after 500 cut connections, {dropped} dropped and {failed} failed saves:");
    eventually("as few connections and tasks as before", async || {
        let now = (connections(), tasks());
        println!("{now:?} connections and tasks, before {before:?}");
        now == before
    })
    .await;
    assert!(dropped > 0);
}
