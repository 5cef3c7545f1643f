//! Users of the server with exactly the rights that the documentation lists.

use std::{fs, path::Path};

use axum_typed_session::{
    RedisStore, SessionStore as _,
    store::{RedisStoreBuilder, Write},
};
use redis::{Cmd, cmd};

use crate::{
    sentinel::Watched,
    support::{Redis, SECOND, any_key, any_owner, or_skip, record, saved, shared_cluster, update},
};

/// The lists of rights in the documentation.
#[derive(Debug, PartialEq)]
struct Rights {
    everywhere: String,
    on_a_cluster: String,
    with_sentinel: String,
}

impl Rights {
    /// The first three texts in backticks behind the heading.
    fn after(heading: &str, text: &str) -> Self {
        let (_, text) = text.split_once(heading).expect(heading);
        let mut quoted = text.split('`').skip(1).step_by(2);
        let mut next = || quoted.next().expect("rights").replace("\\|", "|");
        Self { everywhere: next(), on_a_cluster: next(), with_sentinel: next() }
    }

    /// Those of the page of the store.
    fn documented() -> Self {
        let text = source("src/store/redis_store/mod.rs");
        let lines = text.lines().filter_map(|line| line.strip_prefix("///"));
        let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
        Self::after("**Rights.**", &words.join(" "))
    }
}

fn source(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn the_guide_lists_the_rights_that_the_store_lists() {
    let guide = Rights::after("| rights (ACL) |", &source("src/guide/stores.md"));
    assert_eq!(guide, Rights::documented());
}

fn set_user(rights: &str) -> Cmd {
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("shop").arg("on").arg(">secret");
    user.arg(rights.split_whitespace().collect::<Vec<_>>());
    user
}

fn add_user(redis: &Redis, rights: &str) -> String {
    redis.ask::<()>(&set_user(rights));
    format!("redis://shop:secret@127.0.0.1:{}", redis.port)
}

async fn can_do_everything(store: &RedisStore) {
    let (key, owner) = (any_key(), any_owner());
    let (first, second) = (record().owner(owner).build(), record().owner(any_owner()).build());
    let later = second.expires_at().saturating_add(SECOND);
    saved(store.save(&key, &first, Write::Create).await);
    assert_eq!(store.find_by_owner(&owner).await.unwrap(), [key]);
    saved(store.save(&key, &second, update(&first)).await);
    saved(store.touch(&key, second.version(), later).await);
    assert!(store.load(&key).await.unwrap().is_some());
    store.list(None, 10).await.unwrap();
    let owner = second.owner().unwrap();
    assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 1);
    store.destroy(&key).await.unwrap();
    saved(store.save(&key, &first, Write::Create).await);
    saved(store.destroy_at(&key, first.version()).await);
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything_in_every_database() {
    let redis = or_skip!(Redis::start());
    let url = add_user(&redis, &Rights::documented().everywhere);
    for database in ["", "/0", "/3"] {
        let store = RedisStore::connect(format!("{url}{database}")).await;
        can_do_everything(&store.expect("a connection")).await;
    }
    let denied: Vec<redis::Value> = redis.ask(cmd("ACL").arg("LOG"));
    // The driver tells the server its name, which needs a right and matters to nobody. Redis 6.2 does not know the
    // subcommand.
    let denied = denied.iter().map(|entry| format!("{entry:?}"));
    let denied = denied.filter(|entry| {
        !["\"client|setinfo\"", "\"client\""].iter().any(|object| entry.contains(object))
    });
    let denied: Vec<_> = denied.collect();
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything_on_a_cluster() {
    let cluster = or_skip!(shared_cluster());
    let rights = Rights::documented();
    let rights = format!("{} {}", rights.everywhere, rights.on_a_cluster);
    let nodes = cluster.masters.iter();
    let urls: Vec<_> = nodes.map(|node| add_user(node, &rights)).collect();
    let store = RedisStore::connect_cluster(urls).await.expect("a connection");
    for _ in 0..20 {
        can_do_everything(&store).await;
    }
}

/// Of the servers, and of the sentinels, which have users of their own.
#[tokio::test]
async fn users_with_the_documented_rights_can_do_everything_with_sentinel() {
    let watched = or_skip!(Watched::start());
    let text = source("src/store/redis_store/mod.rs").replace("\n///  ", "");
    let (_, of_sentinels) = text.split_once("themselves needs `").expect("rights");
    let (of_sentinels, _) = of_sentinels.split_once('`').expect("rights");
    let mut sentinels = Vec::new();
    for sentinel in &watched.sentinels {
        sentinel.ask::<()>(&set_user(of_sentinels)).unwrap();
        sentinels.push(format!("redis://shop:secret@127.0.0.1:{}", sentinel.port));
    }
    let rights = Rights::documented();
    let rights = format!("{} {}", rights.everywhere, rights.with_sentinel);
    let service = Watched::service_url();
    let service = service.replace("redis://", "redis://shop:secret@") + "/3";
    add_user(&watched.primary, &rights);
    let store = RedisStoreBuilder::sentinel(sentinels, service).connect().await;
    can_do_everything(&store.expect("a connection")).await;
}
