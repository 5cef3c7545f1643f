//! Passwords that change while the application runs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use axum_typed_session::{
    RedisStore, SessionStore as _,
    store::{RedisStoreBuilder, Write},
};
use redis::cmd;
use tokio::time::sleep;

use crate::{
    connecting::line,
    sentinel::Watched,
    support::{Cluster, Redis, SECOND, any_key, created, or_skip, record, saved, unavailable},
};

/// Where the application gets its password from, and how often it was asked.
#[derive(Clone, Default)]
struct Vault {
    password: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU32>,
}

impl Vault {
    fn of(password: &str) -> Self {
        let vault = Self::default();
        vault.set(Some(password));
        vault
    }

    fn set(&self, password: Option<&str>) {
        *self.password.lock().unwrap() = password.map(str::to_owned);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    /// A store that asks here.
    fn for_store(&self, store: RedisStoreBuilder) -> RedisStoreBuilder {
        let vault = self.clone();
        store.credentials(move || {
            let vault = vault.clone();
            async move {
                vault.asked.fetch_add(1, Ordering::Relaxed);
                sleep(SECOND / 100).await;
                let password = vault.password.lock().unwrap().clone();
                Ok(("shop".to_owned(), password.ok_or("the vault is sealed")?))
            }
        })
    }
}

/// Gives the user of the application a password, the only one, and ends its connections.
fn rotate<'a>(servers: impl IntoIterator<Item = &'a Redis>, password: &str) {
    for server in servers {
        let password = format!(">{password}");
        let rights = ["on", "resetpass", &password, "~*", "&*", "+@all"];
        server.ask::<()>(cmd("ACL").arg("SETUSER").arg("shop").arg(&rights));
        let mut hang_up = cmd("CLIENT");
        hang_up.arg("KILL").arg("USER").arg("shop");
        server.ask::<u32>(&hang_up);
    }
}

/// Saves rows until one is saved, and returns how many were refused.
async fn until_saved(store: &RedisStore) -> u32 {
    let (started, mut refused) = (Instant::now(), 0);
    loop {
        let asked = Instant::now();
        let (key, row) = (any_key(), record().build());
        match store.save(&key, &row, Write::Create).await {
            Ok(outcome) => {
                saved(Ok(outcome));
                return refused;
            }
            failed => unavailable(failed),
        }
        refused += 1;
        assert!(asked.elapsed() < 3 * SECOND / 2, "{:?}", asked.elapsed());
        assert!(started.elapsed() < 5 * SECOND, "{refused} refused");
        sleep(SECOND / 50).await;
    }
}

/// Rotates the password, first in the vault, and then so that the vault lags behind.
async fn rotation_is_followed(store: RedisStoreBuilder, servers: &[&Redis]) {
    rotate(servers.iter().copied(), "first");
    let vault = Vault::of("first");
    let store = vault.for_store(store).connect().await.expect("a connection");
    created(&store, &record().build()).await;
    for password in ["second", "third"] {
        sleep(SECOND + SECOND / 10).await;
        vault.set(Some(password));
        rotate(servers.iter().copied(), password);
        let refused = until_saved(&store).await;
        println!("{refused} saves refused after a rotation");
    }
    sleep(SECOND + SECOND / 10).await;
    rotate(servers.iter().copied(), "last");
    for _ in 0..5 {
        let (key, row) = (any_key(), record().build());
        unavailable(store.save(&key, &row, Write::Create).await);
    }
    vault.set(Some("last"));
    let refused = until_saved(&store).await;
    println!("{refused} saves refused until the vault was asked again");
}

#[tokio::test]
async fn a_password_that_changes_needs_no_restart() {
    let redis = or_skip!(Redis::start());
    rotation_is_followed(RedisStoreBuilder::server(redis.url()), &[&redis]).await;
}

#[tokio::test]
async fn a_password_that_changes_fails_no_request_if_the_application_knows_it() {
    let redis = or_skip!(Redis::start());
    rotate([&redis], "first");
    let vault = Vault::of("first");
    let store = vault.for_store(RedisStoreBuilder::server(redis.url()));
    let store = store.connect().await.unwrap();
    for password in ["second", "third"] {
        sleep(SECOND + SECOND / 10).await;
        vault.set(Some(password));
        rotate([&redis], password);
        assert_eq!(until_saved(&store).await, 0);
    }
    assert_eq!(vault.asked(), 3);
}

#[tokio::test]
async fn a_password_that_changes_needs_no_restart_with_sentinel() {
    let watched = or_skip!(Watched::start());
    let store = RedisStoreBuilder::sentinel(watched.sentinel_urls(), Watched::service_url());
    rotation_is_followed(store, &[&watched.primary]).await;
}

#[tokio::test]
async fn a_password_that_changes_needs_no_restart_on_a_cluster() {
    let cluster = or_skip!(Cluster::start(false));
    let masters: Vec<_> = cluster.masters.iter().collect();
    let store = RedisStoreBuilder::cluster(cluster.masters.iter().map(Redis::url));
    rotation_is_followed(store, &masters).await;
}

#[tokio::test]
async fn the_application_is_asked_once_a_second_however_many_requests_wait() {
    let redis = or_skip!(Redis::start());
    rotate([&redis], "first");
    let vault = Vault::of("first");
    let store = vault.for_store(RedisStoreBuilder::server(redis.url()));
    let store = store.connect().await.unwrap();
    rotate([&redis], "second");
    let logins = || -> u32 {
        let count = redis.info("stats", "total_connections_received");
        count.parse().unwrap()
    };
    let (started, logins_before, asked_before) = (Instant::now(), logins(), vault.asked());
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        requests.spawn(async move {
            while started.elapsed() < 3 * SECOND {
                unavailable(store.load(&any_key()).await);
            }
        });
    }
    requests.join_all().await;
    let took = started.elapsed().as_secs_f64();
    let (logins, asked) = (logins() - logins_before - 1, vault.asked() - asked_before);
    println!("{logins} logins and {asked} questions in {took} s");
    assert!(f64::from(logins) <= took + 1.0 && f64::from(asked) <= took + 1.0);
    vault.set(Some("second"));
    until_saved(&store).await;
}

#[tokio::test]
async fn an_application_without_a_password_is_unavailable_and_says_why() {
    let redis = or_skip!(Redis::start());
    rotate([&redis], "first");
    let vault = Vault::default();
    let builder = || vault.for_store(RedisStoreBuilder::server(redis.url()));
    let error = builder().connect().await.unwrap_err();
    let text = line(&error);
    assert!(text.contains("no credentials for Redis: the vault is sealed"), "{text}");
    let store = builder().connect_lazy().unwrap();
    let text = line(&store.load(&any_key()).await.unwrap_err());
    assert!(text.contains("the vault is sealed"), "{text}");
    vault.set(Some("first"));
    until_saved(&store).await;
}

#[tokio::test]
async fn a_function_that_panics_or_hangs_is_an_error() {
    let redis = or_skip!(Redis::start());
    let store = RedisStoreBuilder::server(redis.url());
    let store = store.credentials(|| async { panic!("on purpose") });
    let text = line(&store.connect_lazy().unwrap().load(&any_key()).await.unwrap_err());
    assert!(text.contains("panicked"), "{text}");
    let store = RedisStoreBuilder::server(redis.url()).credentials(std::future::pending);
    let store = store.connect_lazy().unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        unavailable(store.load(&any_key()).await);
        assert!(started.elapsed() < 3 * SECOND / 2, "{:?}", started.elapsed());
    }
}
