//! Pages of all rows.

use std::collections::BTreeSet;

use axum_typed_session::{
    RedisStore, SessionStore as _, StoreKey,
    store::{Cursor, Write},
};
use redis::cmd;

use crate::{
    cluster::move_slot,
    common::assert_matches,
    servers::eventually,
    support::{
        Cluster, Redis, any_key, any_owner, created, or_skip, record, row_key, saved, unavailable,
    },
};

/// All pages after one another.
async fn all(store: &RedisStore, limit: u32) -> BTreeSet<StoreKey> {
    let (mut keys, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.list(after.as_ref(), limit).await.unwrap();
        keys.extend(page.keys);
        match page.next {
            Some(next) => after = Some(next),
            None => return keys,
        }
    }
}

async fn logins(store: &RedisStore, count: usize) -> BTreeSet<StoreKey> {
    let mut keys = BTreeSet::new();
    for _ in 0..count {
        keys.insert(created(store, &record().owner(any_owner()).build()).await);
    }
    keys
}

#[tokio::test]
async fn a_list_has_the_rows_of_its_prefix_and_nothing_else() {
    let redis = or_skip!(Redis::start());
    let prefixes = ["", "shop:", "shop:row:", "*:", "?hop:", "[a-z]:", "^\\*"];
    for key in ["row:", "row:short", "shop:row:longer than thirty-two bytes of a key", "s"] {
        redis.ask::<()>(cmd("SET").arg(key).arg("not a session"));
    }
    let mut stores = Vec::new();
    for prefix in prefixes {
        let store = redis.store().await.prefix(prefix);
        let keys = logins(&store, 30).await;
        stores.push((store, keys));
    }
    for (store, keys) in &stores {
        assert_eq!(all(store, 7).await, *keys, "{store:?}");
    }
}

#[tokio::test]
async fn a_page_costs_the_server_about_as_much_as_its_limit() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let keys = logins(&store, 1_500).await;
    for limit in [1, 20, 500, u32::MAX] {
        let page = store.list(None, limit).await.unwrap();
        let most = usize::try_from(limit.min(1_000)).unwrap() + 20;
        assert!(page.keys.len() <= most, "{limit}: {}", page.keys.len());
        assert!(page.next.is_some(), "{limit}");
    }
    assert_eq!(all(&store, u32::MAX).await, keys);
}

#[tokio::test]
async fn a_list_goes_over_every_primary_of_a_cluster() {
    let cluster = or_skip!(Cluster::start(true));
    let store = cluster.store().await;
    assert_eq!(all(&store, 10).await, BTreeSet::new());
    let keys = logins(&store, 300).await;
    for master in &cluster.masters {
        assert!(master.keys().len() > 50);
    }
    assert_eq!(all(&store, 10).await, keys);
    assert_eq!(all(&store, 1_000).await, keys);
}

/// A row could move from a primary that is not listed yet to one that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_does_not_go_on_after_slots_of_the_cluster_moved() {
    let cluster = or_skip!(Cluster::start(false));
    let store = cluster.store().await;
    let keys = logins(&store, 100).await;
    let first = store.list(None, 10).await.unwrap();
    let next = first.next.unwrap();
    store.list(Some(&next), 10).await.unwrap();
    let slot = cluster.masters[0].slot(row_key(keys.first().unwrap()));
    let from = cluster.masters.iter().position(|node| !node.keys().is_empty()).unwrap();
    let owner = usize::from(slot / 16_384_u16.div_ceil(3));
    let to = (owner + 1) % 3;
    assert!(from < 3);
    move_slot(&cluster, slot, &cluster.masters[owner], &cluster.masters[to]);
    let error = store.list(Some(&next), 10).await.unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.starts_with("the slots of the Redis cluster have moved"), "{text}");
    eventually("the whole list", async || all(&store, 10).await == keys).await;
}

#[tokio::test]
async fn a_cursor_of_another_store_is_an_error() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let key = any_key();
    saved(store.save(&key, &record().build(), Write::Create).await);
    let mut beyond = vec![0; 18];
    beyond[9] = 1;
    for bytes in [Vec::new(), vec![0; 17], vec![0; 19], vec![0xff; 18], vec![0xff; 5_000], beyond] {
        unavailable(store.list(Some(&Cursor::new(bytes)), 10).await);
    }
    // Whatever number a server gets, it goes on somewhere.
    let mut anywhere = vec![0xff; 8];
    anywhere.resize(18, 0);
    assert_matches!(store.list(Some(&Cursor::new(anywhere)), 10).await, Ok(_));
}
