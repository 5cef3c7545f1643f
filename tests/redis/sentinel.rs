//! Redis Sentinel: three sentinels, a primary and a replica, and failovers between the two.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::Path,
    routing::{get, post},
};
use axum_typed_session::{
    RedisStore, Session, SessionCommit, SessionError, SessionManager, SessionStore as _,
    StoreError, StoreKey, store::Write,
};
use http::StatusCode;
use redis::{Client, Cmd, FromRedisValue, cmd};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    browser::Browser,
    connecting::line,
    servers::{self, Server, comes_true, wait_until},
    support::{Redis, SECOND, any_key, created, or_skip, record, row_key, saved, unavailable},
    world::all_at_once,
};

/// The name of the service.
const SERVICE: &str = "shop-sessions";

/// A process that watches the servers.
pub struct Sentinel {
    server: Server,
    pub port: u16,
}

impl Sentinel {
    /// Starts a sentinel that watches the primary together with others, so many of which must agree.
    pub fn start(primary: &Redis, quorum: usize) -> Self {
        let address = format!("127.0.0.1 {}", primary.port);
        Self::start_with(&primary.program(), &address, quorum, &[])
    }

    /// Starts a sentinel with settings of its own.
    pub fn start_with(
        program: &str,
        address: &str,
        quorum: usize,
        settings: &[(&str, String)],
    ) -> Self {
        let (port, folder) = (servers::free_port(0), servers::folder("sentinel"));
        let settings = settings.iter().map(|(name, value)| format!("{name} {value}\n"));
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n{}\
             sentinel monitor {SERVICE} {address} {quorum}\n\
             sentinel down-after-milliseconds {SERVICE} 2000\n\
             sentinel failover-timeout {SERVICE} 10000\n",
            folder.display(),
            settings.collect::<String>(),
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, settings).unwrap();
        let arguments = [&*file.display().to_string(), "--sentinel"];
        let server = Server::start(&folder, program, &arguments).expect("a shell");
        let sentinel = Self { server, port };
        let answers = comes_true(|| sentinel.master().is_ok());
        assert!(answers, "the sentinel does not start:\n{}", sentinel.server.log());
        sentinel
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn ask<R: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<R> {
        command.query(&mut Client::open(self.url())?.get_connection_with_timeout(SECOND)?)
    }

    pub fn signal(&self, signal: &str) {
        self.server.signal(signal);
    }

    /// What it knows of the primary.
    fn master(&self) -> redis::RedisResult<BTreeMap<String, String>> {
        self.ask(cmd("SENTINEL").arg("MASTER").arg(SERVICE))
    }

    /// The port of the server that it names as the primary.
    fn primary(&self) -> u16 {
        let address: (String, u16) =
            self.ask(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(SERVICE)).unwrap();
        address.1
    }
}

/// A primary, its replica, and three sentinels that know each other.
pub struct Watched {
    pub primary: Redis,
    pub replica: Redis,
    pub sentinels: Vec<Sentinel>,
}

impl Watched {
    pub fn start() -> Option<Self> {
        let start =
            || Redis::start_with(&[("--appendonly", "no"), ("--repl-diskless-sync-delay", "0")]);
        let (primary, replica) = (start()?, start()?);
        replica.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port));
        wait_until("the replica to follow", || {
            replica.info("replication", "master_link_status") == "up"
        });
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(&primary, 2)).collect();
        for sentinel in &sentinels {
            wait_until("the sentinels to know all", || {
                let known = sentinel.master().unwrap();
                known["num-slaves"] == "1" && known["num-other-sentinels"] == "2"
            });
        }
        Some(Self { primary, replica, sentinels })
    }

    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Sentinel::url).collect()
    }

    pub fn service_url() -> String {
        format!("redis://{SERVICE}")
    }

    pub async fn store(&self) -> RedisStore {
        let store = RedisStore::connect_sentinel(self.sentinel_urls(), Self::service_url());
        store.await.expect("a connection")
    }

    /// Waits until the replica has all that the primary has.
    fn replicate(&self) {
        wait_until("replication", || {
            let offset = |server: &Redis, field| server.info("replication", field);
            offset(&self.primary, "master_repl_offset")
                == offset(&self.replica, "slave_repl_offset")
        });
    }

    /// Waits until a sentinel has made the old primary a replica, which ends its connections.
    fn wait_for_the_old_primary(&self) {
        wait_until("the old primary to follow", || {
            let info = self.primary.connection().and_then(|mut connection| {
                cmd("INFO").arg("replication").query::<String>(&mut connection)
            });
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        });
    }

    /// Waits until all sentinels name the replica as the primary.
    fn wait_for_failover(&self) {
        wait_until("the failover", || {
            let named = self.sentinels.iter().map(Sentinel::primary);
            named.collect::<Vec<_>>() == [self.replica.port; 3]
        });
    }
}

fn has(server: &Redis, key: &StoreKey) -> bool {
    server.ask(cmd("EXISTS").arg(row_key(key)))
}

/// Runs what blocks while the store goes on.
async fn meanwhile<R: Send + 'static>(
    watched: &Arc<Watched>,
    run: impl FnOnce(&Watched) -> R + Send + 'static,
) -> R {
    let watched = watched.clone();
    spawn_blocking(move || run(&watched)).await.unwrap()
}

/// What a store went through that saves and loads until told to stop.
#[derive(Default)]
struct History {
    /// The rows whose save was acknowledged, with the time of it.
    saved: Vec<(StoreKey, Instant)>,
    refused: u32,
    /// The longest time between two acknowledged saves.
    outage: Duration,
}

/// Saves rows one after the other, and loads the latest after each.
async fn save_until(stop: Arc<AtomicBool>, store: RedisStore) -> History {
    let mut history = History::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let (key, row) = (any_key(), record().build());
        match store.save(&key, &row, Write::Create).await {
            Ok(outcome) => {
                saved(Ok(outcome));
                history.outage = history.outage.max(last.elapsed());
                last = Instant::now();
                history.saved.push((key, last));
            }
            Err(StoreError::Unavailable(_)) => history.refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        sleep(SECOND / 100).await;
    }
    history
}

/// Loads a row until the store answers, and returns how long that took.
async fn until_answered(store: &RedisStore, key: &StoreKey) -> Duration {
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        match store.load(key).await {
            Ok(found) => {
                assert!(found.is_some(), "a session that was replicated is lost");
                return started.elapsed();
            }
            failed => unavailable(failed),
        }
        assert!(asked.elapsed() < 2 * SECOND, "{:?}", asked.elapsed());
        assert!(started.elapsed() < 25 * SECOND);
        sleep(SECOND / 50).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_loses_nothing_that_was_replicated_and_comes_back_as_a_replica() {
    let mut watched = or_skip!(Watched::start());
    let store = watched.store().await;
    let mut keys = Vec::new();
    for _ in 0..100 {
        keys.push(created(&store, &record().build()).await);
    }
    watched.replicate();
    watched.primary.kill();
    let took = until_answered(&store, &keys[0]).await;
    println!("loaded again {took:?} after the primary died");
    for key in &keys {
        assert!(store.load(key).await.unwrap().is_some());
    }

    let watched = Arc::new(watched);
    meanwhile(&watched, Watched::wait_for_failover).await;
    let mut watched = Arc::into_inner(watched).unwrap();
    // The old primary starts as a primary, with no data, until a sentinel makes it a replica.
    watched.primary.resume();
    let watched = Arc::new(watched);
    let stop = Arc::new(AtomicBool::new(false));
    let saving = tokio::spawn(save_until(stop.clone(), store.clone()));
    meanwhile(&watched, |watched| {
        watched.wait_for_the_old_primary();
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let history = saving.await.unwrap();
    assert!(history.saved.len() > 10, "{}", history.saved.len());
    assert_eq!(history.refused, 0);
    for (key, _) in &history.saved {
        assert!(has(&watched.replica, key), "saved on a server that was no primary any more");
        assert!(store.load(key).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_an_operator_orders_costs_no_acknowledged_session_after_the_promotion() {
    let watched = Arc::new(or_skip!(Watched::start()));
    let store = watched.store().await;
    let first = created(&store, &record().build()).await;
    watched.replicate();
    let stop = Arc::new(AtomicBool::new(false));
    let saving = tokio::spawn(save_until(stop.clone(), store.clone()));
    let failed_over = meanwhile(&watched, |watched| {
        watched.sentinels[0].ask::<()>(cmd("SENTINEL").arg("FAILOVER").arg(SERVICE)).unwrap();
        watched.wait_for_failover();
        let failed_over = Instant::now();
        watched.wait_for_the_old_primary();
        failed_over
    })
    .await;
    sleep(3 * SECOND).await;
    stop.store(true, Ordering::Relaxed);
    let history = saving.await.unwrap();
    println!("refused {} saves, the longest wait was {:?}", history.refused, history.outage);
    let after = history.saved.iter().filter(|(_, at)| *at > failed_over + 2 * SECOND);
    let mut count = 0;
    for (key, _) in after {
        assert!(has(&watched.replica, key), "saved on a server that was no primary any more");
        count += 1;
    }
    assert!(count > 20, "{count}");
    assert!(history.outage < 10 * SECOND, "{:?}", history.outage);
    assert!(store.load(&first).await.unwrap().is_some());
}

/// The old primary does not know yet that it was replaced, and its connections are still open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hung_and_was_replaced_gets_no_command_when_it_is_back() {
    let watched = Arc::new(or_skip!(Watched::start()));
    // One store that is idle meanwhile, and one that is used.
    let (idle, busy) = (watched.store().await, watched.store().await);
    let key = created(&idle, &record().build()).await;
    created(&busy, &record().build()).await;
    watched.replicate();
    watched.primary.signal("STOP");
    let took = until_answered(&busy, &key).await;
    println!("loaded again {took:?} after the primary began to hang");
    meanwhile(&watched, Watched::wait_for_failover).await;
    watched.primary.signal("CONT");
    let mut keys = Vec::new();
    for _ in 0..50 {
        for store in [&idle, &busy] {
            keys.push(created(store, &record().build()).await);
        }
    }
    let role = watched.primary.info("replication", "role");
    assert_eq!(role, "master", "the old primary knew already, so this test showed nothing");
    for key in &keys {
        assert!(has(&watched.replica, key), "saved on a server that was no primary any more");
    }
}

type Cart = BTreeMap<String, u32>;

async fn add(
    mut cart: Session<Cart>,
    Path(item): Path<String>,
) -> Result<SessionCommit, SessionError> {
    *cart.entry(item).or_default() += 1;
    cart.commit().await
}

async fn items(cart: Session<Cart>) -> Json<Cart> {
    Json(cart.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_items_that_are_added_at_once_are_all_in_the_cart_also_after_a_failover() {
    let mut watched = or_skip!(Watched::start());
    let sessions = SessionManager::<Cart>::builder().store(watched.store().await).build().unwrap();
    let app = Router::new().route("/add/{item}", post(add)).route("/items", get(items));
    let mut browser = Browser::new(app.with_state(sessions));
    browser.post("/add/first").await.expect_status(StatusCode::OK);
    let statuses = all_at_once(100, |item| {
        let mut browser = browser.clone();
        async move { browser.post(&format!("/add/{item}")).await.status }
    });
    assert_eq!(statuses.await, vec![StatusCode::OK; 100]);
    watched.replicate();
    for is_after_a_failover in [false, true] {
        let started = Instant::now();
        let mut answer = browser.get("/items").await;
        while is_after_a_failover && answer.status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(started.elapsed() < 25 * SECOND);
            sleep(SECOND / 20).await;
            answer = browser.get("/items").await;
        }
        let cart: Cart = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(cart.len(), 101);
        assert!(cart.values().all(|count| *count == 1));
        watched.primary.kill();
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_service_is_told() {
    let redis = or_skip!(Redis::start());
    let sentinel = Sentinel::start(&redis, 1);
    let replica = or_skip!(Redis::start());
    replica.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(redis.port));
    let mut monitor = cmd("SENTINEL");
    monitor.arg("MONITOR").arg("mistaken").arg("127.0.0.1").arg(replica.port).arg(1);
    sentinel.ask::<()>(&monitor).unwrap();
    let nobody = format!("redis://127.0.0.1:{}", servers::free_port(0));
    for (sentinels, service, told) in [
        (vec![], "redis://shop", "there is no sentinel to ask"),
        (vec![nobody.clone()], "redis://shop", "Connection refused"),
        (vec![redis.url()], "redis://shop", "unknown command"),
        (vec![sentinel.url()], "redis://other", "No such master with that name"),
        (vec![sentinel.url()], "redis://mistaken", "which is a replica"),
        (vec![sentinel.url()], "shop", "this is not the URL of a Redis server"),
        (vec![sentinel.url()], "unix:///shop", "the URL of the service has no host"),
    ] {
        let started = Instant::now();
        let error = RedisStore::connect_sentinel(&sentinels, service).await.unwrap_err();
        let text = line(&error);
        assert!(text.contains(told), "{service}: {text}");
        // A wait for an answer would take five seconds.
        assert!(started.elapsed() < 4 * SECOND, "{:?}", started.elapsed());
    }
    // One that answers is enough.
    let store = RedisStore::connect_sentinel([nobody, sentinel.url()], Watched::service_url());
    created(&store.await.unwrap(), &record().build()).await;
}

#[tokio::test]
async fn without_sentinels_the_store_stays_with_its_primary() {
    let redis = or_skip!(Redis::start());
    let sentinel = Sentinel::start(&redis, 1);
    let store = RedisStore::connect_sentinel([sentinel.url()], Watched::service_url());
    let store = store.await.unwrap();
    let key = created(&store, &record().build()).await;
    drop(sentinel);
    let started = Instant::now();
    while started.elapsed() < 3 * SECOND {
        assert!(store.load(&key).await.unwrap().is_some());
        sleep(SECOND / 20).await;
    }
    redis.hang_up();
    sleep(2 * SECOND).await;
    assert!(store.load(&key).await.unwrap().is_some());
}

/// One that hangs must not hold up what the others know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_hangs_is_not_noticed() {
    let watched = or_skip!(Watched::start());
    let store = watched.store().await;
    let key = created(&store, &record().build()).await;
    watched.sentinels[0].signal("STOP");
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < 4 * SECOND {
        let asked = Instant::now();
        assert!(store.load(&key).await.unwrap().is_some());
        slowest = slowest.max(asked.elapsed());
        sleep(SECOND / 50).await;
    }
    println!("the slowest load took {slowest:?}");
    assert!(slowest < SECOND / 4, "{slowest:?}");
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        watched.store().await;
        fastest = fastest.min(started.elapsed());
    }
    assert!(fastest < SECOND / 2, "{fastest:?}");
}

/// Answers as a sentinel does, with a configuration that a test sets: epoch and port of the primary.
async fn pretend(configuration: Arc<Mutex<(u64, u16)>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let configuration = configuration.clone();
            tokio::spawn(async move {
                let mut commands = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut commands).await {
                    let (epoch, port) = *configuration.lock().unwrap();
                    let port = port.to_string();
                    let mut answers = String::new();
                    for command in String::from_utf8_lossy(&commands[..len]).split('*').skip(1) {
                        let mut words = vec!["127.0.0.1", &port];
                        let epoch = epoch.to_string();
                        match command.split("\r\n").nth(4) {
                            Some("GET-MASTER-ADDR-BY-NAME") => {}
                            Some("MASTER") => words = vec!["config-epoch", &epoch],
                            _ => {
                                answers += "+OK\r\n";
                                continue;
                            }
                        }
                        answers += "*2\r\n";
                        for word in words {
                            answers.extend(["$", &word.len().to_string(), "\r\n", word, "\r\n"]);
                        }
                    }
                    stream.write_all(answers.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

/// One sentinel promotes a replica, and the others hear of it later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_do_not_know_of_a_failover_yet_do_not_lead_back() {
    let (old, new) = (or_skip!(Redis::start()), or_skip!(Redis::start()));
    let (before, after) = ((1, old.port), (2, new.port));
    let sentinels = [before, before, before].map(|answer| Arc::new(Mutex::new(answer)));
    let mut urls = Vec::new();
    for sentinel in &sentinels {
        urls.push(pretend(sentinel.clone()).await);
    }
    let store = RedisStore::connect_sentinel(urls, Watched::service_url()).await.unwrap();
    assert!(has(&old, &created(&store, &record().build()).await));
    // All know of it, then one does, and then that one does not answer in time.
    for knowing in [3, 1, 0] {
        for (number, sentinel) in sentinels.iter().enumerate() {
            *sentinel.lock().unwrap() = if number < knowing { after } else { before };
        }
        sleep(2 * SECOND).await;
        for _ in 0..10 {
            let key = created(&store, &record().build()).await;
            assert!(has(&new, &key), "{knowing} sentinels know");
            sleep(SECOND / 10).await;
        }
    }
    // None speaks of it any more: the operator has set up the service anew.
    sleep(8 * SECOND).await;
    created(&store, &record().build()).await;
    sleep(SECOND).await;
    assert!(has(&old, &created(&store, &record().build()).await));
}
