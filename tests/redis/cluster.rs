//! A cluster that moves slots, loses a master and goes away, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum_typed_session::{
    RedisStore, SessionStore as _, StoreError, StoreKey,
    store::{Record, SaveOutcome, Write},
};
use redis::{Cmd, cmd};
use tokio::task::{JoinSet, spawn_blocking};

use crate::{
    servers::wait_until,
    support::{
        Cluster, Redis, SECOND, any_key, any_owner, or_skip, record, row_key, saved, update,
    },
};

/// One session that a writer counts up, and what the writer was told.
struct Counted {
    key: StoreKey,
    /// The last count that was acknowledged.
    acknowledged: u64,
    /// Writes without an answer since the first; each may have landed or not.
    unknown: u64,
    /// The longest time without an acknowledgement.
    outage: Duration,
}

fn counting(count: u64) -> Record {
    record().payload(count.to_string()).build()
}

fn count(record: &Record) -> u64 {
    std::str::from_utf8(record.payload()).unwrap().parse().unwrap()
}

/// Counts sessions up, each by one writer, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<Counted>,
}

impl Load {
    async fn start(store: &RedisStore, sessions: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for _ in 0..sessions {
            let key = any_key();
            saved(store.save(&key, &counting(0), Write::Create).await);
            writers.spawn(write(store.clone(), key, stop.clone()));
        }
        Self { stop, writers }
    }

    async fn stop(self) -> Vec<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await
    }
}

async fn write(store: RedisStore, key: StoreKey, stop: Arc<AtomicBool>) -> Counted {
    let mut counted = Counted { key, acknowledged: 0, unknown: 0, outage: Duration::ZERO };
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match step(&store, &key).await {
            Ok(Some(count)) => {
                counted.acknowledged = count;
                counted.outage = counted.outage.max(last.elapsed());
                last = Instant::now();
            }
            // The row is gone, with the master that had it.
            Ok(None) => return counted,
            Err(true) => counted.unknown += 1,
            Err(false) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    counted
}

/// Counts one up. An error says whether a write may have landed.
async fn step(store: &RedisStore, key: &StoreKey) -> Result<Option<u64>, bool> {
    let loaded = match store.load(key).await {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Ok(None),
        Err(error) => {
            assert!(is_unavailable(&error), "{error:?}");
            return Err(false);
        }
    };
    let next = counting(count(&loaded) + 1);
    match store.save(key, &next, update(&loaded)).await {
        Ok(SaveOutcome::Saved) => Ok(Some(count(&next))),
        Ok(outcome @ SaveOutcome::Conflict(_)) => panic!("a conflict with oneself: {outcome:?}"),
        Ok(SaveOutcome::Gone) => Ok(None),
        Err(error) => {
            assert!(is_unavailable(&error), "{error:?}");
            Err(true)
        }
    }
}

fn is_unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

fn slot(node: &Redis, key: &StoreKey) -> u16 {
    node.slot(row_key(key))
}

/// Moves a slot, slowly enough for the load to find it in between.
pub fn move_slot(cluster: &Cluster, slot: u16, from: &Redis, to: &Redis) {
    let set = |state: &str, id: String| -> Cmd {
        let mut command = cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(state).arg(id);
        command
    };
    to.ask::<()>(&set("IMPORTING", from.id()));
    from.ask::<()>(&set("MIGRATING", to.id()));
    std::thread::sleep(Duration::from_millis(5));
    loop {
        let keys: Vec<Vec<u8>> = from.ask(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1));
        if keys.is_empty() {
            break;
        }
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        from.ask::<()>(&migrate);
    }
    std::thread::sleep(Duration::from_millis(5));
    to.ask::<()>(&set("NODE", to.id()));
    for node in cluster.masters.iter().filter(|node| node.port != to.port) {
        node.ask::<()>(&set("NODE", to.id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_slots_under_load_loses_nothing() {
    let cluster = Arc::new(or_skip!(Cluster::start(false)));
    let store = cluster.store().await;
    let load = Load::start(&store, 150).await;
    let logins = tokio::spawn(log_in(store.clone(), load.stop.clone()));
    let moving = cluster.clone();
    let moved = spawn_blocking(move || {
        let [from, to, _] = &moving.masters[..] else { unreachable!("three masters") };
        let rows: Vec<Vec<u8>> = from.keys();
        let mut slots: Vec<u16> = Vec::new();
        for row in rows {
            slots.push(from.slot(row));
        }
        slots.sort_unstable();
        slots.dedup();
        for &slot in &slots {
            move_slot(&moving, slot, from, to);
        }
        slots.len()
    });
    let moved = moved.await.unwrap();
    let counted = load.stop().await;
    let logins = logins.await.unwrap();
    let (mut writes, mut unknown, mut outage) = (0, 0, Duration::ZERO);
    for session in &counted {
        let found = count(&store.load(&session.key).await.unwrap().unwrap());
        let most = session.acknowledged + session.unknown;
        assert!((session.acknowledged..=most).contains(&found), "{found}");
        writes += session.acknowledged;
        unknown += session.unknown;
        outage = outage.max(session.outage);
    }
    println!(
        "moved {moved} slots under {writes} writes and {logins} logins: {unknown} writes failed, \
         the longest wait was {outage:?}"
    );
    assert!(moved > 20 && writes > 1_000, "{moved} {writes}");
    assert_eq!(unknown, 0);
}

/// New sessions, in slots that have just been moved or are being moved.
async fn log_in(store: RedisStore, stop: Arc<AtomicBool>) -> u32 {
    let mut logins = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, owner) = (any_key(), any_owner());
        saved(store.save(&key, &record().owner(owner).build(), Write::Create).await);
        assert_eq!(store.find_by_owner(&owner).await.unwrap(), [key]);
        assert_eq!(store.destroy_by_owner(&owner, None).await.unwrap(), 1);
        logins += 1;
    }
    logins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_over_master_loses_only_what_redis_itself_lost() {
    let mut cluster = or_skip!(Cluster::start(true));
    let store = cluster.store().await;
    let load = Load::start(&store, 150).await;
    tokio::time::sleep(SECOND).await;
    let share = 16_384_u16.div_ceil(3);
    let of_first = |slot: u16| slot < share;
    cluster.masters[0].kill();
    let started = Instant::now();
    let cluster = spawn_blocking(move || {
        wait_until("the replica to take over", || {
            cluster.replicas[0].info("replication", "role") == "master"
        });
        wait_until("the cluster to be up", || {
            cluster.masters[1].cluster_info("cluster_state") == "ok"
        });
        cluster
    });
    let cluster = cluster.await.unwrap();
    let took_over = started.elapsed();
    tokio::time::sleep(SECOND).await;
    let counted = load.stop().await;

    let (mut writes, mut unknown, mut lost, mut lost_rows) = (0, 0, 0, 0);
    let (mut outage, mut elsewhere) = (Duration::ZERO, Duration::ZERO);
    for session in &counted {
        let moved = of_first(slot(&cluster.masters[1], &session.key));
        let found = store.load(&session.key).await.unwrap();
        let found = found.as_ref().map_or(0, count);
        // Never counted twice: not even a write whose answer was lost and that was sent again.
        assert!(
            found <= session.acknowledged + session.unknown,
            "{found} {}",
            session.acknowledged
        );
        if found < session.acknowledged {
            assert!(moved, "lost on a master that never failed");
            lost_rows += 1;
            lost += session.acknowledged - found;
        }
        if moved {
            outage = outage.max(session.outage);
        } else {
            elsewhere = elsewhere.max(session.outage);
        }
        writes += session.acknowledged;
        unknown += session.unknown;
    }
    println!(
        "failover after {took_over:?} under {writes} writes: {unknown} without an answer, \
         {lost} acknowledged writes of {lost_rows} rows lost by Redis' asynchronous replication; \
         the longest wait was {outage:?} on the failed master's slots, {elsewhere:?} elsewhere"
    );
    // The store goes on, without being made anew, for every slot.
    for _ in 0..100 {
        let (key, row) = (any_key(), record().owner(any_owner()).build());
        saved(store.save(&key, &row, Write::Create).await);
        assert_eq!(store.load(&key).await.unwrap(), Some(row));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_gone_is_unavailable_until_it_is_back() {
    let mut cluster = or_skip!(Cluster::start(false));
    let store = cluster.store().await;
    let keys: Vec<StoreKey> = (0..30).map(|_| any_key()).collect();
    for key in &keys {
        saved(store.save(key, &counting(0), Write::Create).await);
    }
    cluster.masters.iter_mut().for_each(Redis::kill);
    for key in &keys[..3] {
        let load = tokio::time::timeout(2 * SECOND, store.load(key)).await;
        let error = load.expect("in time").unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    }
    cluster.masters.iter_mut().for_each(Redis::resume);
    for master in &cluster.masters {
        wait_until("the cluster to be up", || master.cluster_info("cluster_state") == "ok");
    }
    let back = Instant::now();
    let mut failures = 0;
    for key in &keys {
        // Empty, since it was told to keep nothing.
        loop {
            match store.load(key).await {
                Ok(found) => break assert_eq!(found, None),
                Err(error) => assert!(is_unavailable(&error), "{error:?}"),
            }
            failures += 1;
            assert!(back.elapsed() < 5 * SECOND);
        }
        saved(store.save(key, &counting(0), Write::Create).await);
    }
    println!("{failures} loads failed after the cluster was back, for {:?}", back.elapsed());
}
