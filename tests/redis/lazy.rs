//! A store that is made while its servers are down.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum_typed_session::{
    RedisStore, SessionStore as _,
    store::{RedisStoreBuilder, Write},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    sentinel::{Sentinel, Watched},
    servers::wait_until,
    support::{Cluster, Redis, SECOND, any_key, created, or_skip, record, unavailable},
};

/// Every operation fails soon, and the first after the servers are back succeeds.
async fn is_unavailable(store: &RedisStore, within: Duration) {
    for _ in 0..5 {
        let started = Instant::now();
        unavailable(store.load(&any_key()).await);
        assert!(started.elapsed() < within, "{:?}", started.elapsed());
    }
}

#[test]
fn a_store_is_made_outside_of_a_runtime() {
    RedisStore::connect_lazy("redis://127.0.0.1").unwrap();
    RedisStoreBuilder::cluster(["redis://127.0.0.1"]).connect_lazy().unwrap();
    let sentinels = ["redis://127.0.0.1:26379"];
    RedisStoreBuilder::sentinel(sentinels, "redis://shop").connect_lazy().unwrap();
}

/// Allocators take longer for a future of more than a kilobyte.
#[test]
fn the_future_of_a_call_is_small() {
    let store = RedisStore::connect_lazy("redis://127.0.0.1").unwrap();
    let (key, record) = (any_key(), record().build());
    let (version, expires_at) = (record.version(), record.expires_at());
    let sizes = [
        size_of_val(&*store.load(&key)),
        size_of_val(&*store.save(&key, &record, Write::Create)),
        size_of_val(&*store.touch(&key, version, expires_at)),
    ];
    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
}

#[tokio::test]
async fn a_store_that_was_made_while_its_server_was_down_works_when_it_is_up() {
    let mut redis = or_skip!(Redis::start());
    redis.kill();
    let store = RedisStore::connect_lazy(redis.url()).unwrap();
    is_unavailable(&store, SECOND / 2).await;
    redis.resume();
    created(&store, &record().build()).await;
    assert_eq!(redis.info("clients", "connected_clients"), "2");
}

#[tokio::test]
async fn a_store_that_was_made_while_its_cluster_was_down_works_when_it_is_up() {
    let mut cluster = or_skip!(Cluster::start(false));
    cluster.masters.iter_mut().for_each(Redis::kill);
    let store = RedisStoreBuilder::cluster(cluster.masters.iter().map(Redis::url));
    let store = store.connect_lazy().unwrap();
    is_unavailable(&store, 3 * SECOND / 2).await;
    cluster.masters.iter_mut().for_each(Redis::resume);
    for master in &cluster.masters {
        wait_until("the cluster to be up", || master.cluster_info("cluster_state") == "ok");
    }
    for _ in 0..20 {
        created(&store, &record().build()).await;
    }
}

#[tokio::test]
async fn a_store_that_was_made_while_its_sentinels_were_down_works_when_they_are_up() {
    let redis = or_skip!(Redis::start());
    let sentinel = Sentinel::start(&redis, 1);
    sentinel.signal("STOP");
    let store = RedisStoreBuilder::sentinel([sentinel.url()], Watched::service_url());
    let store = store.connect_lazy().unwrap();
    is_unavailable(&store, 3 * SECOND / 2).await;
    sentinel.signal("CONT");
    let started = Instant::now();
    while store.load(&any_key()).await.is_err() {
        assert!(started.elapsed() < 2 * SECOND);
    }
    created(&store, &record().build()).await;
}

/// Something that takes connections and ends them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let count = connections.clone();
    thread::spawn(move || {
        while listener.accept().is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let store = RedisStore::connect_lazy(url).unwrap();
    let started = Instant::now();
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        requests.spawn(async move {
            while started.elapsed() < 3 * SECOND {
                let asked = Instant::now();
                unavailable(store.load(&any_key()).await);
                assert!(asked.elapsed() < 3 * SECOND / 2, "{:?}", asked.elapsed());
            }
        });
    }
    requests.join_all().await;
    let connections = connections.load(Ordering::Relaxed);
    println!("200 tasks made {connections} connections in {:?}", started.elapsed());
    assert!((5..40).contains(&connections), "{connections}");
}

/// The first requests of all share one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_requests_share_one_connection() {
    let redis = or_skip!(Redis::start());
    let made = || -> u32 { redis.info("stats", "total_connections_received").parse().unwrap() };
    let before = made();
    let store = RedisStore::connect_lazy(redis.url()).unwrap();
    sleep(SECOND / 10).await;
    assert_eq!(made(), before + 1);
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        requests.spawn(async move { created(&store, &record().build()).await });
    }
    requests.join_all().await;
    // The questions are connections, too.
    assert_eq!(made(), before + 3);
}
