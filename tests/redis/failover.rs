//! Primaries that are demoted or hang, a name that moves, and a store that is never made anew.

use std::time::{Duration, Instant};

use axum_typed_session::{RedisStore, SessionStore as _, StoreKey, store::Write};
use redis::cmd;
use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};

use crate::{
    cluster::move_slot,
    servers::{eventually, wait_until},
    support::{
        Cluster, Redis, SECOND, SLOTS, any_key, any_owner, created, or_skip, record, row_key,
        saved, unavailable, update,
    },
};

/// A primary and a replica that has all it has.
fn pair() -> Option<(Redis, Redis)> {
    let (primary, replica) = (Redis::start()?, Redis::start()?);
    follow(&replica, &primary);
    wait_until("the replica to follow", || {
        replica.info("replication", "master_link_status") == "up"
    });
    Some((primary, replica))
}

fn follow(replica: &Redis, primary: &Redis) {
    replica.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port));
}

fn promote(replica: &Redis) {
    replica.ask::<()>(cmd("REPLICAOF").arg("NO").arg("ONE"));
}

fn connections(redis: &Redis) -> usize {
    let clients: String = redis.ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal"));
    // Its own connection is one of them.
    clients.lines().count() - 1
}

/// Loads a row until it is there, and returns how long that took.
async fn until_found(store: &RedisStore, key: &StoreKey) -> Duration {
    let (started, mut errors) = (Instant::now(), 0);
    loop {
        match store.load(key).await {
            Ok(found) => {
                assert!(found.is_some());
                println!("found again after {:?} and {errors} errors", started.elapsed());
                return started.elapsed();
            }
            failed => unavailable(failed),
        }
        errors += 1;
        assert!(started.elapsed() < 25 * SECOND, "{errors} errors");
        sleep(SECOND / 20).await;
    }
}

/// Every write finds out by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_became_a_replica_is_left_at_once() {
    let (primary, replica) = or_skip!(pair());
    let (name, store) = primary.proxied_store().await;
    let (key, row, next) = (any_key(), record().build(), record().build());
    let later = next.expires_at().saturating_add(SECOND);
    saved(store.save(&key, &row, Write::Create).await);
    let mut nodes = [primary, replica];
    for write in ["create", "login", "update", "touch", "destroy_at"] {
        let [from, to] = &nodes;
        wait_until("the row", || to.keys().len() == from.keys().len());
        name.move_to(to.port);
        promote(to);
        follow(from, to);
        wait_until("the link", || from.info("replication", "master_link_status") == "up");
        // The connection to the former primary is still open.
        let started = Instant::now();
        let outcome = match write {
            "create" => store.save(&any_key(), &record().build(), Write::Create).await,
            "login" => {
                let row = record().owner(any_owner()).build();
                store.save(&any_key(), &row, Write::Create).await
            }
            "update" => store.save(&key, &next, update(&row)).await,
            "touch" => store.touch(&key, next.version(), later).await,
            _ => store.destroy_at(&key, next.version()).await,
        };
        saved(outcome);
        println!("{write} took {:?} after the failover", started.elapsed());
        assert_eq!(store.load(&key).await.unwrap().is_some(), write != "destroy_at");
        wait_until("the old connection to end", || connections(from) == 0);
        assert_eq!(connections(to), 1);
        nodes.reverse();
        // The next replacement may follow after a pause.
        sleep(SECOND + SECOND / 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_under_the_old_name_is_asked_in_vain_but_not_stormed() {
    let (primary, replica) = or_skip!(pair());
    let (name, store) = replica.proxied_store().await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let made = || -> u32 {
        let made = replica.info("stats", "total_connections_received");
        made.parse().unwrap()
    };
    let (started, made_before) = (Instant::now(), made());
    let mut saves = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        saves.spawn(async move {
            for _ in 0..8 {
                let (key, row) = (any_key(), record().build());
                unavailable(store.save(&key, &row, Write::Create).await);
            }
        });
    }
    saves.join_all().await;
    let (took, made) = (started.elapsed(), made() - made_before - 1);
    println!("400 refused saves in {took:?} made {made} connections");
    assert!(f64::from(made) <= took.as_secs_f64() + 2.0);
    assert_eq!(connections(&replica), 1);
    name.move_to(primary.port);
    sleep(SECOND + SECOND / 5).await;
    created(&store, &record().build()).await;
    // Two of the proxy's for each connection that there is.
    eventually("tasks to end", async || tasks() <= before).await;
}

/// A store with a row, on a primary that hangs by now and whose name has moved to the replica.
async fn with_a_row_and_a_primary_that_hangs(
    primary: &Redis,
    replica: &Redis,
) -> (RedisStore, StoreKey) {
    let (name, store) = primary.proxied_store().await;
    let key = created(&store, &record().build()).await;
    wait_until("the row", || replica.keys().len() == 1);
    primary.signal("STOP");
    promote(replica);
    name.move_to(replica.port);
    (store, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_when_its_name_has_moved() {
    let (primary, replica) = or_skip!(pair());
    let (store, key) = with_a_row_and_a_primary_that_hangs(&primary, &replica).await;
    let took = until_found(&store, &key).await;
    assert!(took < 6 * SECOND, "{took:?}");
    created(&store, &record().build()).await;
    primary.signal("CONT");
    wait_until("the old connection to end", || connections(&primary) == 0);
}

/// As the core does with a short `store_timeout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_also_if_nobody_waits_for_it() {
    let (primary, replica) = or_skip!(pair());
    let (store, key) = with_a_row_and_a_primary_that_hangs(&primary, &replica).await;
    let started = Instant::now();
    while tokio::time::timeout(SECOND / 2, store.load(&key)).await.is_err() {
        assert!(started.elapsed() < 6 * SECOND);
    }
    println!("found again after {:?}", started.elapsed());
    primary.signal("CONT");
}

#[tokio::test]
async fn a_server_that_hangs_and_comes_back_keeps_its_connection() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await;
    let key = created(&store, &record().build()).await;
    redis.signal("STOP");
    for _ in 0..5 {
        store.load(&key).await.unwrap_err();
    }
    redis.signal("CONT");
    let took = until_found(&store, &key).await;
    assert!(took < 2 * SECOND);
    sleep(3 * SECOND).await;
    assert_eq!(connections(&redis), 1);
}

/// A password that is refused for a while, as by a server that has not read its users yet.
#[tokio::test]
async fn a_password_that_was_refused_is_tried_again() {
    let redis = or_skip!(Redis::start());
    redis.ask::<()>(cmd("ACL").arg(&["SETUSER", "shop", "on", ">right", "~*", "+@all"]));
    let url = format!("redis://shop:right@127.0.0.1:{}", redis.port);
    let store = RedisStore::connect(url).await.unwrap();
    let key = created(&store, &record().build()).await;
    redis.ask::<()>(cmd("ACL").arg(&["SETUSER", "shop", "off"]));
    redis.hang_up();
    for _ in 0..3 {
        store.load(&key).await.unwrap_err();
    }
    redis.ask::<()>(cmd("ACL").arg(&["SETUSER", "shop", "on"]));
    let took = until_found(&store, &key).await;
    assert!(took < 3 * SECOND, "{took:?}");
}

/// Saves rows and sorts them by the master that has them.
async fn keys_by_master(cluster: &Cluster, store: &RedisStore) -> [Vec<StoreKey>; 3] {
    let mut keys = [(); 3].map(|()| Vec::new());
    for _ in 0..60 {
        let key = created(store, &record().build()).await;
        let slot = cluster.masters[0].slot(row_key(&key));
        keys[usize::from(slot / SLOTS.div_ceil(3))].push(key);
    }
    keys
}

/// Loads rows one after the other, and says how many loads failed and how long the slowest took.
async fn load_for(time: Duration, store: RedisStore, keys: Vec<StoreKey>) -> (u32, Duration) {
    let (started, mut slowest, mut failed) = (Instant::now(), Duration::ZERO, 0);
    for key in keys.iter().cycle() {
        let asked = Instant::now();
        failed += u32::from(store.load(key).await.is_err());
        slowest = slowest.max(asked.elapsed());
        sleep(SECOND / 100).await;
        if started.elapsed() > time {
            break;
        }
    }
    (failed, slowest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_primary_hangs_is_whole_again_with_its_replica() {
    let cluster = or_skip!(Cluster::start(true));
    let store = cluster.store().await;
    let [others, _, of_hung] = keys_by_master(&cluster, &store).await;
    sleep(SECOND).await;
    cluster.masters[2].signal("STOP");
    let elsewhere = tokio::spawn(load_for(8 * SECOND, store.clone(), others));
    let back = until_found(&store, &of_hung[0]).await;
    let cluster = spawn_blocking(move || {
        wait_until("the replica to take over", || {
            cluster.replicas[2].info("replication", "role") == "master"
        });
        cluster
    });
    let cluster = cluster.await.unwrap();
    for key in &of_hung {
        until_found(&store, key).await;
        created(&store, &record().build()).await;
    }
    let (failed, slowest) = elsewhere.await.unwrap();
    println!("elsewhere {failed} failed, the slowest took {slowest:?}");
    assert!(back < 12 * SECOND, "{back:?}");
    cluster.masters[2].signal("CONT");
    for key in &of_hung {
        until_found(&store, key).await;
    }
    for node in cluster.nodes() {
        wait_until("old connections to end", || connections(node) <= 1);
    }
}

/// The driver followed a first failover by itself, and the next one leads back to where it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_failed_over_before_is_followed_back() {
    let cluster = or_skip!(Cluster::start(true));
    let store = cluster.store().await;
    let [others, _, of_hung] = keys_by_master(&cluster, &store).await;
    let key = of_hung[0];
    let (first, second) = (&cluster.masters[2], &cluster.replicas[2]);
    second.ask::<()>(cmd("CLUSTER").arg("FAILOVER"));
    wait_until("the replica to take over", || {
        second.info("replication", "role") == "master"
            && first.info("replication", "master_link_status") == "up"
    });
    until_found(&store, &key).await;
    // Nodes hear of it, and the store asks one of them.
    sleep(3 * SECOND).await;
    until_found(&store, &key).await;
    second.signal("STOP");
    let elsewhere = tokio::spawn(load_for(6 * SECOND, store.clone(), others));
    let took = until_found(&store, &key).await;
    let (failed, slowest) = elsewhere.await.unwrap();
    println!("elsewhere {failed} failed, the slowest took {slowest:?}");
    assert!(took < 12 * SECOND, "{took:?}");
    second.signal("CONT");
}

/// A new connection would lack the node that hangs, and the driver would look for it again and again before
/// it sends anything to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_slots_moved_before_a_node_hangs_keeps_its_connection() {
    let cluster = or_skip!(Cluster::start(false));
    for node in cluster.nodes() {
        let set = |name, value| node.ask::<()>(cmd("CONFIG").arg("SET").arg(name).arg(value));
        set("cluster-node-timeout", "60000");
        set("cluster-require-full-coverage", "no");
    }
    let store = cluster.store().await;
    let [others, moving, of_hung] = keys_by_master(&cluster, &store).await;
    let slot = cluster.masters[0].slot(row_key(&moving[0]));
    move_slot(&cluster, slot, &cluster.masters[1], &cluster.masters[0]);
    until_found(&store, &moving[0]).await;
    sleep(3 * SECOND).await;
    cluster.masters[2].signal("STOP");
    let elsewhere = tokio::spawn(load_for(6 * SECOND, store.clone(), others));
    while !elsewhere.is_finished() {
        store.load(&of_hung[0]).await.unwrap_err();
    }
    let (failed, slowest) = elsewhere.await.unwrap();
    println!("elsewhere {failed} failed, the slowest took {slowest:?}");
    assert!(failed == 0 && slowest < SECOND / 2, "{failed} {slowest:?}");
    cluster.masters[2].signal("CONT");
}
