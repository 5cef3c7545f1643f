//! PostgreSQL behind PgBouncer in transaction mode, as Debian ships it.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{Router, response::IntoResponse, routing::post};
use axum_typed_session::{
    MemoryStore, PostgresStore, Session, SessionError, SessionManager, SessionStore as _,
    StoreError, StoreKey, session_store_conformance,
    store::{SaveOutcome, Write},
    testing::{ManualClock, RecordBuilder, conformance::StoreUnderTest},
};
use http::{Request, StatusCode};
use sqlx::{
    PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    browser,
    cancellation::cancellation_over,
    concurrency::concurrency_over,
    engines::{Database, Private, Remote, User, create, options, text},
    servers::{find, free_port},
    world::{Backend, Opened},
};

/// Starts a pooler that uses so many connections to the server on this port.
pub fn start(postgres: u16, connections: u32) -> Option<Private> {
    // Not on everyone's path.
    let program = PathBuf::from("/usr/sbin/pgbouncer");
    let program = Some(program).filter(|program| program.is_file());
    let program = program.or_else(|| find("pgbouncer", "PgBouncer"))?;

    let user = User::named("postgres");
    let folder = user.folder("pgbouncer");
    let port = free_port(0);
    let users = folder.join("users");
    fs::write(&users, "\"postgres\" \"\"\n").unwrap();
    let settings = folder.join("pgbouncer.ini");
    let text_of_settings = format!(
        "[databases]\n* = host=127.0.0.1 port={postgres}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 1000\n",
        text(&users)
    );
    fs::write(&settings, text_of_settings).unwrap();
    let command = user.command(&program, &[&text(&settings)]);
    Some(Private::start(folder, port, command))
}

/// Makes a pool as an application does.
async fn connect(port: u16, pool: PgPoolOptions) -> PgPool {
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    let options = options.username("postgres").extra_float_digits(None);
    pool.connect_with(options).await.unwrap()
}

/// A pooler that tests share, in front of the server that all tests share.
struct Pooled {
    /// A table, and a connection around the pooler.
    database: Database<Postgres>,
    /// The store on this table, through the pooler.
    store: PostgresStore,
    port: u16,
    /// Tests that send many requests do so one after the other, or they would share the pooler's few connections
    /// until a request gives up.
    #[expect(dead_code, reason = "kept for its end")]
    turn: MutexGuard<'static, ()>,
}

impl Pooled {
    async fn fresh() -> Option<Self> {
        static POOLER: OnceLock<Option<Private>> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let database = Database::<Postgres>::fresh().await?;
        let server = Postgres::port(&database.pool);
        let port = POOLER.get_or_init(|| start(server, 4)).as_ref()?.port;
        // As patient as the pools of the other suites.
        let pool = connect(port, options()).await;
        let store = PostgresStore::new(pool).table_name(&database.table).unwrap();
        let store = store.without_prepared_statements();
        store.migrate().await.unwrap();
        let turn = TURN.lock().await;
        Some(Self { database, store, port, turn })
    }
}

impl Backend for Pooled {
    async fn open(&self, clock: &ManualClock) -> Opened {
        let database = Arc::new(Database::in_pool(self.database.pool.clone()).await);
        let store = self.store.clone().table_name(&database.table).unwrap().clock(clock.clone());
        Opened::new(store, move || {
            let database = database.clone();
            async move { usize::try_from(database.rows().await).unwrap() }
        })
    }
}

concurrency_over!(concurrency_through_pgbouncer, Pooled::fresh().await);
cancellation_over!(cancellation_through_pgbouncer, Pooled::fresh().await);

async fn through_pgbouncer() -> StoreUnderTest {
    match Pooled::fresh().await {
        Some(pooled) => StoreUnderTest::new(pooled.store),
        None => StoreUnderTest::new(MemoryStore::new()),
    }
}

session_store_conformance!(conformance_through_pgbouncer, through_pgbouncer().await);

/// Sends a hundred requests at once and returns how many were answered with 503.
async fn refused_of_a_hundred(store: PostgresStore) -> usize {
    async fn count(mut session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
        *session += 1;
        session.commit().await
    }
    let sessions = SessionManager::<u32>::builder().store(store).build().unwrap();
    let app = Router::new().route("/", post(count)).with_state(sessions);
    let requests = (0..100).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { browser::send(&app, Request::post("/")).await.status })
    });
    let mut refused = 0;
    for request in requests.collect::<Vec<_>>() {
        match request.await.unwrap() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            other => panic!("{other}"),
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_through_a_pooler_all_succeed() {
    let Some(pooled) = Pooled::fresh().await else {
        return;
    };
    assert_eq!(refused_of_a_hundred(pooled.store.clone()).await, 0);
    // So a hundred requests reach the pooler at once.
    let pool = connect(pooled.port, options().max_connections(100)).await;
    let store = PostgresStore::new(pool);
    let store = store.table_name(&pooled.database.table).unwrap();
    let unprepared = store.clone().without_prepared_statements();
    assert_eq!(refused_of_a_hundred(unprepared).await, 0);
    // The test above can fail: this is what the option is for.
    let refused = refused_of_a_hundred(store).await;
    println!("without the option, {refused} of 100 requests are refused");
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_told_by_its_error() {
    let Some(pooled) = Pooled::fresh().await else {
        return;
    };
    let store = PostgresStore::connect(Postgres::url(pooled.port)).await.unwrap();
    let store = store.table_name(&pooled.database.table).unwrap();
    let loads = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.load(&StoreKey::from_bytes([number; 32])).await })
    });
    let mut errors = 0;
    for load in loads.collect::<Vec<_>>() {
        match load.await.unwrap() {
            Ok(found) => assert!(found.is_none()),
            Err(StoreError::Unavailable(error)) => {
                errors += 1;
                let text = error.to_string();
                assert!(text.contains("call `without_prepared_statements()`"), "{text}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(errors > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_server_change_no_value() {
    let Some(database) = Database::<Postgres>::fresh().await else {
        return;
    };
    let settings = "SET bytea_output = 'escape'; SET standard_conforming_strings = off; \
                    SET backslash_quote = off";
    let odd = Database::<Postgres>::prepared(settings).await.unwrap();
    let store = odd.store.without_prepared_statements();
    let store = store.table_name(&database.table).unwrap();
    for number in 0..=u8::MAX {
        let key = StoreKey::from_bytes([number; 32]);
        let payload: Vec<_> = (0..number).map(|byte| byte.wrapping_mul(97)).collect();
        let record = RecordBuilder::new().payload(payload).build();
        create(&store, key, &record).await;
        // Both ways read and write the same bytes.
        assert_eq!(store.load(&key).await.unwrap(), Some(record.clone()));
        assert_eq!(database.store.load(&key).await.unwrap(), Some(record));
    }
}

/// ```text
/// cargo test --all-features --test sql -- --ignored what_a_statement_costs --nocapture
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_statement_costs() {
    const ROUNDS: u32 = 2000;
    let Some(pooled) = Pooled::fresh().await else {
        return;
    };
    let prepared = &pooled.database.store;
    let unprepared = prepared.clone().without_prepared_statements();
    let through = &pooled.store;
    for (name, store) in
        [("prepared", prepared), ("unprepared", &unprepared), ("through PgBouncer", through)]
    {
        let key = StoreKey::from_bytes([1; 32]);
        let mut record = RecordBuilder::new().payload([b'x'; 243]).build();
        store.destroy(&key).await.unwrap();
        create(store, key, &record).await;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            store.load(&key).await.unwrap();
        }
        let load = started.elapsed() / ROUNDS;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let next = RecordBuilder::new().payload([b'x'; 243]).build();
            let saved = store.save(&key, &next, Write::Update { loaded: &record }).await;
            assert_eq!(saved.unwrap(), SaveOutcome::Saved);
            record = next;
        }
        println!("{name}: a load in {load:.0?}, a save in {:.0?}", started.elapsed() / ROUNDS);
    }
}
