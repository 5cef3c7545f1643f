//! What goes over the wire and what lies in the server.

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    IdleTimeout, RedisStore, SessionStore as _, StoreError, StoreKey,
    store::{OwnerKey, SaveOutcome, Timestamp, Write},
    testing::RecordBuilder,
};
use redis::cmd;

use crate::{
    common::assert_matches,
    support::{
        HOUR, Redis, any_key, any_owner, created, index_key, or_skip, record, row_key, saved,
        shared, shared_cluster, update,
    },
};

#[tokio::test]
async fn an_operation_is_one_command() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (update_at_once, update_after_all) =
        if redis.has_ifeq() { ("SET", "SET EVALSHA") } else { ("EVALSHA", "EVALSHA") };
    let (key, owner) = (any_key(), any_owner());
    let first = record().owner(owner).payload("1").build();
    let of_session = || {
        let record = record().owner(owner).created_at(first.created_at());
        record.absolute_end(first.absolute_end())
    };
    let (second, third) = (of_session().payload("2").build(), of_session().payload("3").build());
    let later = second.expires_at().saturating_add(HOUR);
    // The server learns the scripts, and the store what the server can do.
    let other = created(&store, &first).await;
    saved(store.touch(&other, first.version(), later).await);
    saved(store.save(&other, &second, update(&first)).await);
    let gone = store.destroy_at(&other, first.version()).await.unwrap();
    assert_eq!(gone, SaveOutcome::Conflict(second.clone().into()));

    let mut monitor = redis.monitor();
    let mut takes = |commands: &str| assert_eq!(monitor.since_last_time().join(" "), commands);
    saved(store.save(&key, &first, Write::Create).await);
    takes("EVALSHA SET");
    saved(store.save(&key, &first, Write::Create).await);
    takes("EVALSHA SET GET");
    store.load(&key).await.unwrap();
    takes("GET");
    saved(store.save(&key, &second, update(&first)).await);
    takes(update_at_once);
    let conflict = store.save(&key, &first, update(&first)).await.unwrap();
    assert_eq!(conflict, SaveOutcome::Conflict(second.clone().into()));
    takes(update_after_all);
    saved(store.touch(&key, second.version(), later).await);
    takes("EVALSHA");
    // The row has another expiry than when it was loaded, and the same version.
    saved(store.save(&key, &third, update(&second)).await);
    takes(update_after_all);
    assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&third));
    takes("GET");
    saved(store.destroy_at(&key, third.version()).await);
    takes("EVALSHA");
    created(&store, &record().build()).await;
    takes("SET");
    store.destroy(&key).await.unwrap();
    takes("DEL");
    store.list(None, 10).await.unwrap();
    takes("SCAN");
}

#[tokio::test]
async fn a_server_that_cannot_compare_values_is_asked_once() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let [first, second, third] = [(); 3].map(|()| record().build());
    let key = created(&store, &first).await;
    let wanted = if redis.has_ifeq() { "SET SET" } else { "SET EVALSHA EVAL EVALSHA" };
    let mut monitor = redis.monitor();
    saved(store.save(&key, &second, update(&first)).await);
    saved(store.clone().save(&key, &third, update(&second)).await);
    assert_eq!(monitor.since_last_time().join(" "), wanted);
    assert_eq!(store.load(&key).await.unwrap(), Some(third));
}

#[tokio::test]
async fn only_an_update_of_owner_or_absolute_end_writes_the_index_again() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, ada, bob) = (any_key(), any_owner(), any_owner());
    let anonymous = record().build();
    let (end, later) = (anonymous.absolute_end(), anonymous.absolute_end().saturating_add(HOUR));
    let of = |owner: OwnerKey| {
        record().owner(owner).created_at(anonymous.created_at()).absolute_end(end)
    };
    let chain = [
        (of(ada).build(), true),
        (of(ada).payload("changed").build(), false),
        (of(ada).payload("changed again").build(), false),
        (of(bob).build(), true),
        (of(bob).idle_timeout(IdleTimeout::Persistent(HOUR)).build(), false),
        (of(bob).absolute_end(later).build(), true),
        (of(bob).absolute_end(later).payload("{}").build(), false),
        (record().payload("nobody's").build(), false),
    ];
    let (first, second) = (of(ada).build(), of(ada).build());
    let other = created(&store, &first).await;
    saved(store.save(&other, &second, update(&first)).await);
    saved(store.save(&key, &anonymous, Write::Create).await);
    let update_row = if redis.has_ifeq() { "SET" } else { "EVALSHA" };
    let mut monitor = redis.monitor();
    let mut before = anonymous.clone();
    for (after, is_indexed) in chain {
        monitor.since_last_time();
        let outcome = store.save(&key, &after, update(&before)).await.unwrap();
        assert_eq!(outcome, SaveOutcome::Saved);
        let commands = monitor.since_last_time().join(" ");
        let wanted = if is_indexed { format!("EVALSHA {update_row}") } else { update_row.into() };
        assert_eq!(commands, wanted, "{:?} to {:?}", before.owner(), after.owner());
        assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&after));
        let found = async |owner| store.find_by_owner(owner).await.unwrap().contains(&key);
        assert_eq!(found(&ada).await, after.owner() == Some(ada));
        assert_eq!(found(&bob).await, after.owner() == Some(bob));
        before = after;
    }
}

#[tokio::test]
async fn scripts_survive_a_flush_and_an_unknown_server() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let key = any_key();
    let mut before = record().owner(any_owner()).build();
    saved(store.save(&key, &before, Write::Create).await);
    for round in 0..3 {
        redis.ask::<()>(cmd("SCRIPT").arg("FLUSH"));
        let after = record().owner(any_owner()).payload(round.to_string()).build();
        saved(store.save(&key, &after, update(&before)).await);
        redis.ask::<()>(cmd("SCRIPT").arg("FLUSH"));
        let later = after.expires_at().saturating_add(HOUR);
        saved(store.touch(&key, after.version(), later).await);
        assert_eq!(store.load(&key).await.unwrap().unwrap().expires_at(), later);
        before = after;
    }
}

#[tokio::test]
async fn a_row_holds_the_record_and_nothing_else() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, owner) = (any_key(), any_owner());
    let record = record().owner(owner).payload("{\"cart\":[7]}").build();
    saved(store.save(&key, &record, Write::Create).await);

    let mut keys = redis.keys();
    keys.sort();
    assert_eq!(keys, [index_key(&owner), row_key(&key)]);
    let row: Vec<u8> = redis.ask(cmd("GET").arg(row_key(&key)));
    let expires_at = record.expires_at().as_unix_millis().to_be_bytes();
    let version = record.version();
    let parts = [&version.as_bytes()[..], &expires_at, &record.to_bytes()];
    assert_eq!(row, parts.concat());
    let members: Vec<(Vec<u8>, u64)> =
        redis.ask(cmd("ZRANGE").arg(index_key(&owner)).arg(0).arg(-1).arg("WITHSCORES"));
    assert_eq!(members, [(key.as_bytes().to_vec(), record.absolute_end().as_unix_millis())]);
}

#[tokio::test]
async fn the_prefix_begins_every_key() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await.prefix("shop:");
    let record = record().owner(any_owner()).build();
    created(&store, &record).await;
    let keys = redis.keys();
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key.starts_with(b"shop:")));
    let elsewhere = redis.store().await.prefix("forum:");
    assert_eq!(elsewhere.find_by_owner(&record.owner().unwrap()).await.unwrap(), []);
}

#[tokio::test]
async fn rows_live_as_long_as_the_server_is_told() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let key = any_key();
    let now = Timestamp::from(OffsetDateTime::now_utc());
    let in_an_hour = record().expires_at(now.saturating_add(HOUR)).build();
    let pttl = || redis.ask::<i64>(cmd("PTTL").arg(row_key(&key)));

    saved(store.save(&key, &in_an_hour, Write::Create).await);
    assert!((3_590_000..=3_600_000).contains(&pttl()), "{}", pttl());
    let later = now.saturating_add(2 * HOUR);
    saved(store.touch(&key, in_an_hour.version(), later).await);
    assert!((7_190_000..=7_200_000).contains(&pttl()), "{}", pttl());
    // Forever is longer than the server can count.
    let forever =
        record().expires_at(Timestamp::from_unix_millis(u64::MAX)).owner(any_owner()).build();
    saved(store.save(&key, &forever, update(&in_an_hour)).await);
    let loaded = store.load(&key).await.unwrap().unwrap();
    assert_eq!((loaded.version(), loaded.expires_at()), (forever.version(), forever.expires_at()));
    // What is over when it is written is not there.
    let over = record().expires_at(now).build();
    saved(store.save(&key, &over, update(&forever)).await);
    assert_eq!(store.load(&key).await.unwrap(), None);
    saved(store.save(&key, &over, Write::Create).await);
    assert_eq!(store.load(&key).await.unwrap(), None);
}

/// Neither a load nor a write takes what is there for a row, until it is destroyed.
async fn refuses(store: &RedisStore, key: &StoreKey, is_expected: fn(&StoreError) -> bool) {
    let row = record().build();
    let failures = [
        ("load", store.load(key).await.err()),
        ("create", store.save(key, &row, Write::Create).await.err()),
        ("update", store.save(key, &row, update(&record().build())).await.err()),
        ("touch", store.touch(key, row.version(), row.expires_at()).await.err()),
    ];
    for (doing, failure) in failures {
        assert!(failure.as_ref().is_some_and(is_expected), "{doing}: {failure:?}");
    }
}

async fn can_be_destroyed(store: &RedisStore, key: &StoreKey) {
    store.destroy(key).await.unwrap();
    assert_eq!(store.load(key).await.unwrap(), None);
}

fn is_corrupt(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt)
}

#[tokio::test]
async fn what_is_not_a_row_is_corrupt_and_stays() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let whole = record().payload("{}").build();
    let key = created(&store, &whole).await;
    let row = redis.ask::<Vec<u8>>(cmd("GET").arg(row_key(&key)));
    let mut unknown_flag = row.clone();
    unknown_flag[25] = 0x80;
    let head = row.len() - whole.payload().len();
    let mut values: Vec<Vec<u8>> = (0..head).map(|len| row[..len].to_vec()).collect();
    values.extend([unknown_flag, b"hello".to_vec(), b"{\"of\": \"another app\"}".to_vec()]);
    for value in values {
        let key = any_key();
        redis.ask::<()>(cmd("SET").arg(row_key(&key)).arg(&value));
        refuses(&store, &key, is_corrupt).await;
        assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row_key(&key))), value);
        can_be_destroyed(&store, &key).await;
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_corrupt_and_stays() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let key = any_key();
    redis.ask::<()>(cmd("LPUSH").arg(row_key(&key)).arg("a list"));
    refuses(&store, &key, is_corrupt).await;
    assert_eq!(redis.ask::<u32>(cmd("LLEN").arg(row_key(&key))), 1);
    can_be_destroyed(&store, &key).await;
}

#[tokio::test]
async fn a_row_of_a_newer_format_is_newer_and_stays() {
    let redis = or_skip!(shared());
    let store = redis.store().await;
    let key = created(&store, &record().build()).await;
    redis.ask::<()>(cmd("SETRANGE").arg(row_key(&key)).arg(24).arg(b"\x1f"));
    let row = redis.ask::<Vec<u8>>(cmd("GET").arg(row_key(&key)));
    refuses(&store, &key, |error| matches!(error, StoreError::Newer)).await;
    assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row_key(&key))), row);
}

#[tokio::test]
async fn a_server_without_memory_is_full_and_still_ends_sessions() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let (key, old) = (any_key(), record().owner(any_owner()).build());
    saved(store.save(&key, &old, Write::Create).await);
    // Less than an empty server of any version needs.
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));
    let new = record().owner(any_owner()).build();
    for write in [
        store.save(&any_key(), &record().build(), Write::Create).await,
        store.save(&any_key(), &new, Write::Create).await,
        store.save(&key, &new, update(&old)).await,
        store.touch(&key, old.version(), old.expires_at().saturating_add(HOUR)).await,
    ] {
        assert_matches!(write, Err(StoreError::Full));
    }
    assert_eq!(store.load(&key).await.unwrap(), Some(old));
    can_be_destroyed(&store, &key).await;
}

#[tokio::test]
async fn keys_spread_over_the_cluster() {
    let cluster = or_skip!(shared_cluster());
    let store = cluster.store().await;
    for _ in 0..60 {
        let record = record().owner(any_owner()).build();
        created(&store, &record).await;
    }
    for master in &cluster.masters {
        assert!(master.ask::<u32>(&cmd("DBSIZE")) > 0);
    }
}

/// Prints what the documentation says of memory.
#[tokio::test]
async fn memory_per_session() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let owner = any_owner();
    let used = || redis.info("memory", "used_memory").parse::<f64>().unwrap();
    let each = 2_000_u16;
    let mut lines = Vec::new();
    let kinds: [(&str, &dyn Fn() -> RecordBuilder); 3] = [
        ("without owner", &record),
        ("with an owner each", &|| record().owner(any_owner())),
        ("with one owner for all", &|| record().owner(owner)),
    ];
    for (what, row) in kinds {
        redis.ask::<()>(&cmd("FLUSHALL"));
        let before = used();
        let mut last = any_key();
        for _ in 0..each {
            last = created(&store, &row().payload([b'x'; 243]).build()).await;
        }
        let total = (used() - before) / f64::from(each);
        let row: u32 = redis.ask(cmd("MEMORY").arg("USAGE").arg(row_key(&last)));
        lines.push(format!("{what}: row {row} bytes, in all {total:.0} bytes a session"));
        assert!(row <= 500, "{row}");
    }
    println!("{}", lines.join("\n"));
}
