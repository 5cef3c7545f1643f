//! The index of an owner's sessions, beyond what every store promises.

use std::time::Instant;

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    Key, KeyRing, RedisStore, SessionManager, SessionStore as _, StoreKey,
    store::{OwnerKey, Record, SaveOutcome, Timestamp, Write},
    testing::ManualClock,
};
use redis::cmd;
use serde::{Deserialize, Serialize};

use crate::support::{
    Cluster, DAY, HOUR, Redis, SECOND, SLOTS, any_key, any_owner, created, index_key, or_skip,
    record, row_key, saved, shared, shared_cluster, update,
};

fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

fn entries(redis: &Redis, owner: &OwnerKey) -> Vec<(Vec<u8>, u64)> {
    redis.ask(cmd("ZRANGE").arg(index_key(owner)).arg(0).arg(-1).arg("WITHSCORES"))
}

/// A record of a session that lives for an hour and may live until `end`.
fn ending(owner: OwnerKey, end: Timestamp) -> Record {
    record().owner(owner).expires_at(now().saturating_add(HOUR)).absolute_end(end).build()
}

fn entry(key: &StoreKey, end: Timestamp) -> (Vec<u8>, u64) {
    (key.as_bytes().to_vec(), end.as_unix_millis())
}

#[tokio::test]
async fn an_entry_ends_with_its_session_and_the_index_with_its_last_entry() {
    let redis = or_skip!(shared());
    let clock = ManualClock::at(OffsetDateTime::now_utc());
    let store = redis.store().await.clock(clock.clone());
    let (owner, short, long, next) = (any_owner(), any_key(), any_key(), any_key());
    let ending = |end| ending(owner, end);
    let (in_two_hours, in_a_day) = (now().saturating_add(2 * HOUR), now().saturating_add(DAY));
    saved(store.save(&long, &ending(in_a_day), Write::Create).await);
    saved(store.save(&short, &ending(in_two_hours), Write::Create).await);
    assert_eq!(entries(redis, &owner), [entry(&short, in_two_hours), entry(&long, in_a_day)]);
    let ttl: u64 = redis.ask(cmd("TTL").arg(index_key(&owner)));
    assert!((86_300..=86_400 + 3_600).contains(&ttl), "{ttl}");

    // Four hours on, the short session and an hour for clocks that differ are over.
    clock.advance(4 * HOUR);
    let in_two_days = now().saturating_add(2 * DAY);
    saved(store.save(&next, &ending(in_two_days), Write::Create).await);
    assert_eq!(entries(redis, &owner), [entry(&long, in_a_day), entry(&next, in_two_days)]);
    let ttl: u64 = redis.ask(cmd("TTL").arg(index_key(&owner)));
    assert!((150_000..=172_800 + 3_600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn an_entry_never_ends_before_its_row() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let (owner, key) = (any_owner(), any_key());
    let ending = |end| ending(owner, end);
    let (sooner, later) = (now().saturating_add(DAY), now().saturating_add(2 * DAY));
    let (first, second, third) = (ending(sooner), ending(later), ending(sooner));
    saved(store.save(&key, &first, Write::Create).await);
    assert_eq!(entries(redis, &owner), [entry(&key, sooner)]);
    saved(store.save(&key, &second, update(&first)).await);
    assert_eq!(entries(redis, &owner), [entry(&key, later)]);
    saved(store.save(&key, &third, update(&second)).await);
    assert_eq!(entries(redis, &owner), [entry(&key, later)]);
}

#[tokio::test]
async fn an_entry_is_there_before_its_row_and_stays_when_the_row_never_comes() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (owner, key) = (any_owner(), any_key());
    // The row's place is taken, so the row cannot come.
    redis.ask::<()>(cmd("LPUSH").arg(row_key(&key)).arg("taken"));
    let row = record().owner(owner).build();
    store.save(&key, &row, Write::Create).await.expect_err("taken");
    assert_eq!(entries(&redis, &owner), [entry(&key, row.absolute_end())]);
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), []);
    assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 0);
    // It is free again, and a create that was under way all the time arrives: it is found.
    redis.ask::<()>(cmd("DEL").arg(row_key(&key)));
    saved(store.save(&key, &row, Write::Create).await);
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), [key]);
}

#[tokio::test]
async fn without_its_entry_no_row_is_written() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let (owner, key) = (any_owner(), any_key());
    redis.ask::<()>(cmd("SET").arg(index_key(&owner)).arg("not an index"));
    store.save(&key, &record().owner(owner).build(), Write::Create).await.expect_err("no entry");
    assert_eq!(store.load(&key).await.unwrap(), None);
    let anonymous = record().build();
    saved(store.save(&key, &anonymous, Write::Create).await);
    let login = record().owner(owner).build();
    store.save(&key, &login, update(&anonymous)).await.expect_err("no entry");
    assert_eq!(store.load(&key).await.unwrap(), Some(anonymous));
}

#[tokio::test]
async fn a_save_after_a_change_of_the_key_adds_the_session_to_the_index_of_the_new_hash() {
    #[derive(Default, Serialize, Deserialize)]
    struct Login {
        user: Option<String>,
        visits: u32,
    }
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let manager = |keys: KeyRing| {
        let sessions = SessionManager::<Login>::builder().store(store.clone()).keys(keys);
        sessions.owner(|login| login.user.clone()).build().unwrap()
    };
    let (old, new) = (Key::generate(), Key::generate());
    let login = Login { user: Some("ann".to_owned()), visits: 1 };
    let key = manager(old.clone().into()).create(login).await.unwrap().key();
    let both = manager(KeyRing::new(new.clone()).accept_former(old));
    both.update(key, |login| login.visits += 1).await.unwrap();
    let [session] = &manager(new.into()).sessions_of("ann").await.unwrap()[..] else {
        panic!("one session")
    };
    assert_eq!((session.key(), session.visits), (key, 2));
}

async fn heals_when_sessions_expire(store: RedisStore) {
    let owner = any_owner();
    let soon = now().saturating_add(SECOND / 5);
    created(&store, &record().owner(owner).expires_at(soon).build()).await;
    let lasting = login(&store, &owner).await;
    assert_eq!(store.find_by_owner(&owner).await.unwrap().len(), 2);
    tokio::time::sleep(SECOND / 4).await;
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), [lasting]);
    assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 1);
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), []);
}

#[tokio::test]
async fn expired_sessions_are_not_found_on_one_server() {
    heals_when_sessions_expire(or_skip!(shared()).store().await).await;
}

#[tokio::test]
async fn expired_sessions_are_not_found_on_a_cluster() {
    heals_when_sessions_expire(or_skip!(shared_cluster()).store().await).await;
}

/// Logins while everything is being ended: what was acknowledged before is gone, what came after is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_all_sessions_of_an_owner_misses_none_on_a_cluster() {
    let cluster: &Cluster = or_skip!(shared_cluster());
    let store = cluster.store().await;
    let owner = any_owner();
    let before = logins(store.clone(), owner, 200).await;
    let later = tokio::spawn(logins(store.clone(), owner, 100));
    let keep = before[7];
    let destroyed = store.destroy_by_owner(&owner, Some(&keep)).await.unwrap();
    assert!(destroyed >= 199, "{destroyed}");
    for key in &before {
        let found = store.load(key).await.unwrap();
        assert_eq!(found.is_some(), *key == keep);
    }
    let later = later.await.unwrap();
    let mut live = Vec::new();
    for key in before.into_iter().chain(later) {
        live.extend(store.load(&key).await.unwrap().map(|_| key));
    }
    live.sort();
    let mut found = store.find_by_owner(&owner).await.unwrap();
    found.sort();
    assert_eq!(found, live);
}

/// Gives a session a new id, in the order in which the core does.
async fn regenerate(
    store: &RedisStore,
    old: &StoreKey,
    row: &Record,
    new: &StoreKey,
) -> SaveOutcome {
    let moved = record().owner(row.owner().unwrap()).build();
    saved(store.save(new, &moved, Write::Create).await);
    let tombstone = record().tombstone().build();
    store.save(old, &tombstone, update(row)).await.unwrap()
}

/// The index is read before the session gets its new id, and the session's row after.
#[tokio::test]
async fn a_session_that_gets_a_new_id_between_index_and_row_is_found_and_ended() {
    let redis = or_skip!(shared());
    let direct = redis.store().await;
    let (proxy, store) = redis.proxied_store().await;
    let (owner, second, third) = (any_owner(), any_key(), any_key());
    let row = record().owner(owner).build();
    let first = created(&store, &row).await;

    let meanwhile = proxy.hold_next_answer(regenerate(&direct, &first, &row, &second));
    let (found, outcome) = tokio::join!(store.find_by_owner(&owner), meanwhile);
    assert_eq!((found.unwrap(), outcome), (vec![second], SaveOutcome::Saved));

    let row = store.load(&second).await.unwrap().unwrap();
    let meanwhile = proxy.hold_next_answer(regenerate(&direct, &second, &row, &third));
    let (ended, outcome) = tokio::join!(store.destroy_by_owner(&owner, None), meanwhile);
    assert_eq!((ended.unwrap(), outcome), (1, SaveOutcome::Saved));
    assert_eq!(store.load(&third).await.unwrap(), None);
}

async fn no_session_that_gets_a_new_id_is_missed(store: RedisStore) {
    let (mut regenerated, mut refused) = (0, 0);
    for round in 0..600 {
        let (owner, old, new) = (any_owner(), any_key(), any_key());
        let row = record().owner(owner).build();
        saved(store.save(&old, &row, Write::Create).await);
        let regenerating = tokio::spawn({
            let store = store.clone();
            async move { regenerate(&store, &old, &row, &new).await }
        });
        // Of all moments the one before the row is asked for counts.
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            let found = store.find_by_owner(&owner).await.unwrap();
            assert!(!found.is_empty());
            assert_eq!(regenerating.await.unwrap(), SaveOutcome::Saved);
            continue;
        }
        store.destroy_by_owner(&owner, None).await.unwrap();
        if regenerating.await.unwrap() == SaveOutcome::Saved {
            assert_eq!(store.load(&new).await.unwrap(), None, "round {round}");
            regenerated += 1;
        } else {
            refused += 1;
        }
    }
    println!("{regenerated} regenerated and ended, {refused} ended before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_that_gets_a_new_id_is_missed_on_one_server() {
    no_session_that_gets_a_new_id_is_missed(or_skip!(shared()).store().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_that_gets_a_new_id_is_missed_on_a_cluster() {
    no_session_that_gets_a_new_id_is_missed(or_skip!(shared_cluster()).store().await).await;
}

#[tokio::test]
async fn ending_sessions_drops_the_entries_of_those_that_it_ended() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (owner, other) = (any_owner(), any_owner());
    let of_owner = record().owner(owner).build();
    let [kept, live, replaced, given, logged_out] = [(); 5].map(|()| any_key());
    for key in [&kept, &live, &replaced, &given, &logged_out] {
        saved(store.save(key, &of_owner, Write::Create).await);
    }
    let tombstone = record().tombstone().build();
    saved(store.save(&replaced, &tombstone, update(&of_owner)).await);
    let of_other = record().owner(other).build();
    saved(store.save(&given, &of_other, update(&of_owner)).await);
    store.destroy(&logged_out).await.unwrap();

    assert_eq!(store.destroy_by_owner(&owner, Some(&kept)).await.unwrap(), 1);
    let left = entries(&redis, &owner);
    let mut left: Vec<_> = left.into_iter().map(|(key, _)| key).collect();
    left.sort();
    // The row that is missing, and the one that has another owner, may be about to be written. The session of a
    // tombstone may come back under its old id.
    let mut wanted = [kept, replaced, given, logged_out].map(|key| key.as_bytes().to_vec());
    wanted.sort();
    assert_eq!(left, wanted);
    assert!(store.load(&replaced).await.unwrap().is_some());
    assert_eq!(store.load(&given).await.unwrap(), Some(of_other));
}

#[tokio::test]
async fn the_newest_sessions_end_before_older_entries_are_looked_at() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let owner = any_owner();
    add_ended_logins(&redis, &owner, 3_000);
    for _ in 0..20 {
        login(&store, &owner).await;
    }
    let mut monitor = redis.monitor();
    assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 20);
    let commands = monitor.since_last_time();
    let last = commands.iter().rposition(|name| name == "DEL").unwrap();
    let asked = commands[..last].iter().filter(|name| *name == "GETRANGE");
    assert_eq!(asked.count(), 1_000);
    assert_eq!(commands[0], "ZRANGE");
    // The rows are read again, in case one has come back.
    assert_eq!(commands[last + 1], "ZREM");
    assert_eq!(commands[last + 2..last + 22], ["GETRANGE"; 20]);
    assert_eq!(commands[last + 22], "ZRANGE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_sessions_than_a_page_are_all_found_and_ended() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let owner = any_owner();
    for _ in 0..2_500 {
        login(&store, &owner).await;
    }
    assert_eq!(store.find_by_owner(&owner).await.unwrap().len(), 2_500);
    assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 2_500);
    assert_eq!(redis.keys(), Vec::<Vec<u8>>::new());
}

/// The create landed, its session was ended with its entry, and it is sent again.
#[tokio::test]
async fn a_session_that_is_created_again_after_a_lost_answer_has_its_entry_again() {
    let redis = or_skip!(shared());
    let direct = redis.store().await;
    let owner = any_owner();
    // The server learns the scripts.
    login(&direct, &any_owner()).await;
    let (proxy, store) = redis.proxied_store().await;
    let ended = async { assert_eq!(direct.destroy_by_owner(&owner, None).await.unwrap(), 1) };
    // The first answer is the index's, the second the row's.
    let indexed = proxy.hold_next_answer(async { [proxy.lose_next_answer(ended)] });
    let meanwhile = async {
        let [saved] = indexed.await;
        saved.await;
    };
    let (key, row) = (any_key(), record().owner(owner).build());
    let (outcome, ()) = tokio::join!(store.save(&key, &row, Write::Create), meanwhile);
    saved(outcome);
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), [key]);
}

/// What the documentation says of owners with many logins, most of which ended long ago.
/// Its first try landed and was ended, and its second try comes between the removal of the row and of the entry.
#[tokio::test]
async fn a_session_that_comes_back_before_its_entry_is_removed_is_ended_too() {
    let redis = or_skip!(Redis::start());
    let direct = redis.store().await;
    let (owner, row) = (any_owner(), record());
    let row = row.owner(owner).build();
    let key = created(&direct, &row).await;
    let (proxy, store) = redis.proxied_store().await;
    let comes_back = async { saved(direct.save(&key, &row, Write::Create).await) };
    // The answers to ZRANGE, GETRANGE and DEL.
    let listed = proxy.hold_next_answer(async {
        [proxy.hold_next_answer(async { [proxy.hold_next_answer(comes_back)] })]
    });
    let (ended, ()) = tokio::join!(store.destroy_by_owner(&owner, None), async {
        let [read] = listed.await;
        let [removed] = read.await;
        removed.await;
    });
    assert_eq!(ended.unwrap(), 2);
    assert_eq!(direct.load(&key).await.unwrap(), None);
    assert_eq!(entries(&redis, &owner), []);
}

/// A row of a later format, and one that is damaged.
#[tokio::test]
async fn rows_that_cannot_be_read_are_listed_and_ended_with_the_others_of_their_owner() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    for format in [5_u8, 0x7f] {
        let owner = any_owner();
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(created(&store, &record().owner(owner).build()).await);
        }
        redis.ask::<()>(cmd("SETRANGE").arg(row_key(&keys[0])).arg(24).arg(&[format]));
        let mut found = store.find_by_owner(&owner).await.unwrap();
        found.sort();
        keys.sort();
        assert_eq!(found, keys, "format {format}");
        assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 3);
    }
    assert_eq!(redis.keys(), Vec::<Vec<u8>>::new());
}

async fn entries_per_second(store: &RedisStore, node_of: impl Fn(&OwnerKey) -> &'static Redis) {
    for entries in [10_000_u32, 50_000, 100_000, 200_000, 400_000] {
        let owner = any_owner();
        let redis = node_of(&owner);
        add_ended_logins(redis, &owner, entries);
        let live = login(store, &owner).await;
        let started = Instant::now();
        let found = store.find_by_owner(&owner).await;
        let found_in = started.elapsed();
        assert!(found.is_err() || found.unwrap() == [live]);
        let started = Instant::now();
        let ended = store.destroy_by_owner(&owner, None).await;
        let ended_in = started.elapsed();
        println!("{entries} entries: found in {found_in:?}, ended in {ended_in:?} ({ended:?})");
        assert_eq!(store.load(&live).await.unwrap(), None);
        redis.ask::<()>(cmd("DEL").arg(index_key(&owner)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it with --release --nocapture"]
async fn entries_per_second_on_one_server() {
    let redis = or_skip!(shared());
    entries_per_second(&redis.store().await, |_| redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it with --release --nocapture"]
async fn entries_per_second_on_a_cluster() {
    let cluster = or_skip!(shared_cluster());
    let node_of = |owner: &OwnerKey| {
        let slot = cluster.masters[0].slot(index_key(owner));
        &cluster.masters[usize::from(slot / SLOTS.div_ceil(3))]
    };
    entries_per_second(&cluster.store().await, node_of).await;
}

async fn login(store: &RedisStore, owner: &OwnerKey) -> StoreKey {
    created(store, &record().owner(*owner).build()).await
}

async fn logins(store: RedisStore, owner: OwnerKey, times: usize) -> Vec<StoreKey> {
    let mut keys = Vec::new();
    for _ in 0..times {
        keys.push(login(&store, &owner).await);
    }
    keys
}

/// Enters sessions that ended before those that follow were begun.
fn add_ended_logins(redis: &Redis, owner: &OwnerKey, count: u32) {
    let mut connection = redis.connection().unwrap();
    let end = now().as_unix_millis() + 1_000_000;
    let numbers: Vec<u32> = (0..count).collect();
    for numbers in numbers.chunks(5_000) {
        let mut command = cmd("ZADD");
        command.arg(index_key(owner));
        for number in numbers {
            command.arg(end + u64::from(*number)).arg(any_key().as_bytes());
        }
        command.exec(&mut connection).unwrap();
    }
}
