//! Servers that crash, hang and cut connections under an application.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::post,
};
use axum_typed_session::{
    Session, SessionError, SessionManager, SessionStore as _, StoreKey,
    store::{SaveOutcome, SqlStore, Write},
    testing::RecordBuilder,
};
use http::{Request, StatusCode, header};
use sqlx::pool::PoolOptions;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    browser,
    engines::{Database, Private, Remote, create, on_every_server, options},
    proxy::Proxy,
    servers::eventually,
};

const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// An application on a server of its own.
struct App<E: Remote> {
    server: Private,
    database: Database<E>,
    client: Client,
    /// A permit for each request that may commit.
    gate: Arc<Semaphore>,
    loaded: Arc<AtomicU32>,
}

/// A handler that waits between load and commit until it is let through.
async fn count(
    Extension(gate): Extension<Arc<Semaphore>>,
    Extension(loaded): Extension<Arc<AtomicU32>>,
    mut session: Session<u32>,
) -> Result<Response, SessionError> {
    *session += 1;
    loaded.fetch_add(1, Ordering::SeqCst);
    gate.acquire().await.unwrap().forget();
    let count = session.to_string();
    Ok((session.commit().await?, count).into_response())
}

impl<E: Remote> App<E> {
    async fn fresh() -> Option<Self> {
        let server = E::start()?;
        let options = PoolOptions::new().max_connections(MOST_CONNECTIONS);
        let pool = E::connect(server.port, options).await;
        let database = Database::in_pool(pool).await;
        let sessions = SessionManager::<u32>::builder()
            .store(database.store.clone())
            .store_timeout(STORE_TIMEOUT)
            .build()
            .unwrap();
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let loaded = Arc::new(AtomicU32::new(0));
        let router = Router::new()
            .route("/", post(count))
            .layer(Extension(gate.clone()))
            .layer(Extension(loaded.clone()))
            .with_state(sessions);
        Some(Self { server, database, client: Client(router), gate, loaded })
    }

    /// Sends a request that has loaded its session and may not commit before the gate is opened.
    async fn send_as_far_as_the_gate(&self, cookie: &str) -> JoinHandle<Answer> {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
        self.loaded.store(0, Ordering::SeqCst);
        let (client, cookie) = (self.client.clone(), cookie.to_owned());
        let request = tokio::spawn(async move { client.send(Some(&cookie)).await });
        while self.loaded.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        request
    }

    fn open_the_gate(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    fn all_idle(&self) -> bool {
        let pool = &self.database.pool;
        pool.num_idle() == usize::try_from(pool.size()).unwrap()
    }

    /// Every connection is idle, every place in the pool can be taken, and the server has no more.
    async fn expect_no_leak(&self) {
        eventually("no connection is in use", async || self.all_idle()).await;
        let pool = &self.database.pool;
        let mut all = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            all.push(pool.acquire().await.unwrap());
        }
        drop(all);
        eventually("the server has no other connections", async || {
            let connections = self.database.number(E::COUNT_CONNECTIONS).await;
            connections <= i64::from(MOST_CONNECTIONS)
        })
        .await;
    }
}

#[derive(Clone)]
struct Client(Router);

impl Client {
    /// Sends one request, of a session or of a new one.
    async fn send(&self, cookie: Option<&str>) -> Answer {
        let mut request = Request::post("/");
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let started = Instant::now();
        let answer = browser::send(&self.0, request).await;
        let took = started.elapsed();
        let (cookie, count) = (answer.pair(), answer.body.parse().ok());
        Answer { status: answer.status, cookie, count, took }
    }

    async fn log_in(&self) -> String {
        let answer = self.send(None).await;
        assert_eq!((answer.status, answer.count), (StatusCode::OK, Some(1)));
        answer.cookie.expect("a new session's cookie")
    }

    /// Asks until the application works again, with the store and pool it has.
    async fn recovered(&self, cookie: &str) -> u32 {
        let mut count = None;
        eventually("recovery", async || {
            let answer = self.send(Some(cookie)).await;
            count = answer.count;
            if count.is_none() {
                answer.expect_unavailable();
            }
            count.is_some()
        })
        .await;
        count.unwrap()
    }
}

const MOST_CONNECTIONS: u32 = 8;

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    cookie: Option<String>,
    count: Option<u32>,
    took: Duration,
}

impl Answer {
    /// In bounded time, and nobody is told that anything was saved.
    #[track_caller]
    fn expect_unavailable(&self) {
        assert_eq!(self.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((&self.cookie, self.count), (&None, None));
        assert!(self.took < STORE_TIMEOUT * 6, "{:?}", self.took);
    }
}

on_every_server! { App;
    crashes
    crashes_during_commits
    hangs
    cut_connections
    a_thousand_faults
    a_fail_over_needs_no_restart
}

async fn crashes<E: Remote>(mut app: App<E>) {
    let cookie = app.client.log_in().await;
    assert_eq!(app.client.send(Some(&cookie)).await.count, Some(2));

    // Before the load, and where a new session has nothing to load.
    app.server.kill();
    app.client.send(Some(&cookie)).await.expect_unavailable();
    app.client.send(None).await.expect_unavailable();
    app.server.restart();
    assert_eq!(app.client.recovered(&cookie).await, 3);

    // Between load and commit.
    let request = app.send_as_far_as_the_gate(&cookie).await;
    app.server.kill();
    app.open_the_gate();
    request.await.unwrap().expect_unavailable();
    app.server.restart();
    assert_eq!(app.client.recovered(&cookie).await, 4);
    app.expect_no_leak().await;
}

/// Clients that count up without a pause, each its own session, until an answer fails to come.
async fn count_up(client: &Client, clients: u32) -> Vec<JoinHandle<(String, u32)>> {
    let mut counting = Vec::new();
    for _ in 0..clients {
        let cookie = client.log_in().await;
        let client = client.clone();
        counting.push(tokio::spawn(async move {
            let mut acknowledged = 1;
            loop {
                let answer = client.send(Some(&cookie)).await;
                let Some(count) = answer.count else {
                    answer.expect_unavailable();
                    return (cookie, acknowledged);
                };
                assert_eq!(count, acknowledged + 1);
                acknowledged = count;
            }
        }));
    }
    counting
}

async fn all_notice(counting: &[JoinHandle<(String, u32)>]) {
    let noticed = async || counting.iter().all(JoinHandle::is_finished);
    eventually("all clients notice", noticed).await;
}

/// Whichever moment of a commit is hit, what was acknowledged is there, and at most the write that was
/// not is there beside it.
async fn expect_acknowledged(client: &Client, counting: Vec<JoinHandle<(String, u32)>>) {
    for counting in counting {
        let (cookie, acknowledged) = counting.await.unwrap();
        let next = client.recovered(&cookie).await;
        let expected = [acknowledged + 1, acknowledged + 2];
        assert!(expected.contains(&next), "{next} of {acknowledged}");
    }
}

async fn crashes_during_commits<E: Remote>(mut app: App<E>) {
    for round in 0..3 {
        let counting = count_up(&app.client, 16).await;
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        app.server.kill();
        all_notice(&counting).await;
        app.server.restart();
        expect_acknowledged(&app.client, counting).await;
    }
    app.expect_no_leak().await;
}

async fn hangs<E: Remote>(app: App<E>) {
    let cookie = app.client.log_in().await;
    // Before the load.
    app.server.pause();
    app.client.send(Some(&cookie)).await.expect_unavailable();
    app.client.send(None).await.expect_unavailable();
    app.server.resume();
    assert_eq!(app.client.recovered(&cookie).await, 2);

    // Between load and commit: the write may arrive later, whole.
    let request = app.send_as_far_as_the_gate(&cookie).await;
    app.server.pause();
    app.open_the_gate();
    request.await.unwrap().expect_unavailable();
    app.server.resume();
    let count = app.client.recovered(&cookie).await;
    assert!([3, 4].contains(&count), "{count}");

    // During commits.
    let counting = count_up(&app.client, 16).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    app.server.pause();
    all_notice(&counting).await;
    // A silent peer keeps no place in the pool, although it never says that it is gone.
    eventually("no connection is in use", async || app.all_idle()).await;
    app.server.resume();
    expect_acknowledged(&app.client, counting).await;
    app.expect_no_leak().await;
}

async fn cut_connections<E: Remote>(app: App<E>) {
    let admin = PoolOptions::new().max_connections(1);
    let admin = E::connect(app.server.port, admin).await;
    for _ in 0..10 {
        let counting = count_up(&app.client, 8).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        while !counting.iter().all(JoinHandle::is_finished) {
            E::kill_connections(&admin).await;
        }
        expect_acknowledged(&app.client, counting).await;
    }
    admin.close().await;
    app.expect_no_leak().await;
}

async fn a_thousand_faults<E: Remote>(app: App<E>) {
    let cookie = app.client.log_in().await;
    let tasks = tokio::runtime::Handle::current().metrics();
    let tasks_before = tasks.num_alive_tasks();
    let admin = PoolOptions::new().max_connections(1);
    let admin = E::connect(app.server.port, admin).await;
    let store = &app.database.store;

    // Clients that leave in the middle of a statement.
    let key = StoreKey::from_bytes([1; 32]);
    for moment in 0..600 {
        let record = RecordBuilder::new().payload([b'x'; 300]).build();
        let save = store.save(&key, &record, Write::Create);
        let within = Duration::from_micros(moment * 5);
        let _ = tokio::time::timeout(within, save).await;
        let _ = tokio::time::timeout(within, store.destroy(&key)).await;
    }
    // Connections cut between requests, and requests under way while they are.
    for _ in 0..100 {
        E::kill_connections(&admin).await;
        let request = app.client.send(Some(&cookie));
        let (answer, ()) = tokio::join!(request, E::kill_connections(&admin));
        if answer.count.is_none() {
            answer.expect_unavailable();
        }
    }
    // A server that hangs under many requests.
    for _ in 0..3 {
        app.server.pause();
        let requests = (0..100).map(|_| {
            let (client, cookie) = (app.client.clone(), cookie.clone());
            tokio::spawn(async move { client.send(Some(&cookie)).await })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap().expect_unavailable();
        }
        app.server.resume();
        app.client.recovered(&cookie).await;
    }
    admin.close().await;
    app.expect_no_leak().await;
    eventually("no task is left", async || tasks.num_alive_tasks() <= tasks_before).await;
    store.destroy(&key).await.unwrap();
    create(store, key, &RecordBuilder::new().build()).await;
}

/// The name moves to another server, while the one before lives on and refuses to write.
async fn a_fail_over_needs_no_restart<E: Remote>(app: App<E>) {
    const CONNECTIONS: u32 = 4;
    let (old, new) = (app.server, E::start().unwrap());
    let mut admins = Vec::new();
    for server in [&old, &new] {
        let admin = E::connect(server.port, options()).await;
        SqlStore::new(admin.clone()).migrate().await.unwrap();
        E::run_sql(&admin, "CREATE USER clerk").await.unwrap();
        let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON typed_sessions TO clerk";
        E::run_sql(&admin, grant).await.unwrap();
        admins.push(admin);
    }
    let name = Proxy::start(old.port).await;
    let options = PoolOptions::new().max_connections(CONNECTIONS);
    let pool = E::connect_as("clerk", name.port, options.min_connections(CONNECTIONS)).await;
    let store = SqlStore::new(pool.clone());
    let save = async || {
        let record = RecordBuilder::new().build();
        // As random as a key.
        let key =
            StoreKey::from_bytes([*record.version().as_bytes(); 2].concat().try_into().unwrap());
        store.save(&key, &record, Write::Create).await
    };
    assert_eq!(save().await.unwrap(), SaveOutcome::Saved);
    eventually("all connections are there", async || {
        pool.num_idle() == usize::try_from(CONNECTIONS).unwrap()
    })
    .await;

    for sql in E::REFUSE_WRITES {
        E::run_sql(&admins[0], sql).await.unwrap();
    }
    eventually("it refuses to write", async || save().await.is_err()).await;
    // It goes on to be read from, and nothing waits for a place in the pool.
    for _ in 0..3 * CONNECTIONS {
        assert!(save().await.is_err());
        store.load(&StoreKey::from_bytes([1; 32])).await.unwrap();
    }

    name.move_to(new.port);
    let mut refused = 0;
    while let Err(error) = save().await {
        refused += 1;
        assert!(refused <= CONNECTIONS, "{error:?}");
    }
    for _ in 0..3 * CONNECTIONS {
        if save().await.is_err() {
            refused += 1;
        }
    }
    assert!(refused <= CONNECTIONS, "each connection fails once");
    for _ in 0..3 * CONNECTIONS {
        assert_eq!(save().await.unwrap(), SaveOutcome::Saved);
    }
}
