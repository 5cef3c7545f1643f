//! Store mode: an application with one handler for everything a test wants to do, over any store.

use std::{
    collections::BTreeMap,
    future::{self, Future},
    sync::Arc,
};

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::post,
};
use axum_typed_session::{
    MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder, SessionStore,
    StoreKey,
    testing::{FaultyStore, ManualClock},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::browser::{Answer, Browser};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    pub user: Option<String>,
    pub count: u32,
    pub list: Vec<String>,
    pub map: BTreeMap<String, u32>,
}

impl Data {
    pub fn count_of(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    pub fn of(name: &str) -> Self {
        Self { user: Some(name.to_owned()), ..Self::default() }
    }
}

type Script =
    Arc<dyn Fn(Session<Data>) -> BoxFuture<'static, Result<Response, SessionError>> + Send + Sync>;

/// Makes a handler's body out of an async closure.
pub fn script<F>(body: impl Fn(Session<Data>) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = Result<Response, SessionError>> + Send + 'static,
{
    Arc::new(move |session| Box::pin(body(session)))
}

/// A script that changes the session, or says what it wants, and commits.
pub fn change(change: impl Fn(&mut Session<Data>) + Send + Sync + 'static) -> Script {
    let change = Arc::new(change);
    script(move |mut session| {
        let change = change.clone();
        async move {
            change(&mut session);
            Ok(session.commit().await?.into_response())
        }
    })
}

/// A store of its own for each world that asks.
pub trait Backend: Sync {
    fn open(&self, clock: &ManualClock) -> impl Future<Output = Opened> + Send;
}

/// Makes a module of tests over a backend, each of them a function of one file that takes it. Where the
/// backend is `None` an engine is missing, which was said aloud.
macro_rules! suite_over {
    ($name:ident, $backend:expr, $suite:ident: $($case:ident)*) => {
        mod $name {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    if let Some(backend) = $backend {
                        crate::$suite::$case(&backend).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use suite_over;

/// An empty store, and what counts the rows it comes to hold.
pub struct Opened {
    store: Arc<dyn SessionStore>,
    rows: CountRows,
}

type CountRows = Arc<dyn Fn() -> BoxFuture<'static, usize> + Send + Sync>;

impl Opened {
    pub fn new<F>(store: impl SessionStore, rows: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = usize> + Send + 'static,
    {
        Self { store: Arc::new(store), rows: Arc::new(move || Box::pin(rows())) }
    }

    /// The store within another one.
    pub fn within<S: SessionStore>(self, other: impl FnOnce(Arc<dyn SessionStore>) -> S) -> Self {
        Self { store: Arc::new(other(self.store)), rows: self.rows }
    }
}

/// [`MemoryStore`]s.
pub struct Memory;

impl Memory {
    fn opened(clock: &ManualClock) -> Opened {
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let rows = store.clone();
        Opened::new(store, move || future::ready(rows.len()))
    }
}

impl Backend for Memory {
    async fn open(&self, clock: &ManualClock) -> Opened {
        Self::opened(clock)
    }
}

/// A manual clock, a store that counts and fails on demand, and the application over them.
#[derive(Clone)]
pub struct World {
    pub clock: ManualClock,
    pub store: FaultyStore<Arc<dyn SessionStore>>,
    pub sessions: SessionManager<Data>,
    rows: CountRows,
    app: Router,
}

type Builder = SessionManagerBuilder<Data>;

impl World {
    /// A world in memory.
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = ManualClock::new();
        Self::of(Memory::opened(&clock), clock, options)
    }

    pub async fn over(backend: &impl Backend) -> Self {
        Self::over_with(backend, |builder| builder).await
    }

    pub async fn over_with(
        backend: &impl Backend,
        options: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let clock = ManualClock::new();
        Self::of(backend.open(&clock).await, clock, options)
    }

    fn of(opened: Opened, clock: ManualClock, options: impl FnOnce(Builder) -> Builder) -> Self {
        let store = FaultyStore::new(opened.store);
        let builder = SessionManager::<Data>::builder()
            .store(store.clone())
            .owner(|data: &Data| data.user.clone())
            .clock(clock.clone());
        let sessions = options(builder).build().unwrap();
        Self { app: app(&sessions), clock, store, sessions, rows: opened.rows }
    }

    pub fn browser(&self) -> Browser {
        Browser::new(self.app.clone())
    }

    /// A browser with a session of `data` in the store.
    pub async fn browser_with(&self, data: Data) -> Browser {
        let mut browser = self.browser();
        let start = change(move |session| **session = data.clone());
        let answer = self.run(&mut browser, start).await;
        assert!(answer.status.is_success() && browser.has_session());
        browser
    }

    /// Sends a request whose handler does what the script says.
    pub async fn run(&self, browser: &mut Browser, script: Script) -> Answer {
        browser.send_with(http::Request::post("/"), script).await
    }

    /// What the store holds for the browser's session; `None` for an anonymous one.
    pub async fn read(&self, browser: &mut Browser) -> Option<Data> {
        let answer = browser.get("/").await;
        assert!(answer.status.is_success(), "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// How many rows the store holds.
    pub async fn rows(&self) -> usize {
        (self.rows)().await
    }
}

fn app(sessions: &SessionManager<Data>) -> Router {
    Router::new().route("/", post(run).get(read)).with_state(sessions.clone())
}

async fn run(session: Session<Data>, Extension(script): Extension<Script>) -> Response {
    script(session).await.into_response()
}

async fn read(session: Option<Session<Data>>) -> String {
    serde_json::to_string(&session.map(|session| session.clone())).unwrap()
}

/// Runs as many tasks as there are numbers at the same moment, and returns their results in order.
pub async fn all_at_once<R, F>(count: u32, task: impl Fn(u32) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(count as usize));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (barrier, task) = (barrier.clone(), task(number));
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// The store key of a browser's session.
pub async fn key_of(world: &World, browser: &mut Browser) -> StoreKey {
    let tell = script(async |session| {
        Ok(session.id().unwrap().store_key().to_base64url().into_response())
    });
    world.run(browser, tell).await.body.parse().unwrap()
}
