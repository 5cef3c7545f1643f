//! Managers and stores on a manual clock, logs, and what else tests share.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{FromRequestParts as _, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use axum_typed_session::{
    Fingerprint, Key, MemoryStore, Session, SessionError, SessionEvent, SessionEventKind,
    SessionManager, SessionManagerBuilder, SessionStore, StoreError, delegate_session_store,
    testing::{Gate, ManualClock},
};
use http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::Level;

pub use crate::{
    browser::{Answer, Browser, COOKIE, DAY, HOUR, MILLISECOND, MINUTE, SECOND, send},
    logs::Log,
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visits {
    pub count: u32,
}

/// One key for all tests: deriving is cheap, but a shared one shows that nothing else keeps them apart.
pub fn key() -> Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(Key::generate).clone()
}

/// A cookie-mode manager on a manual clock.
pub fn cookie_mode(clock: &ManualClock) -> SessionManagerBuilder<Visits> {
    Mode::Cookie.builder(clock)
}

/// Where the data lives, for promises that hold wherever it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Cookie,
    Store,
}

impl Mode {
    pub fn builder<T>(self, clock: &ManualClock) -> SessionManagerBuilder<T>
    where
        T: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let builder = SessionManager::builder().clock(clock.clone());
        match self {
            Self::Cookie => builder.keys(key()),
            Self::Store => builder.store(ProbeStore::new(clock)),
        }
    }
}

/// Makes a test in each mode of functions that take a [`Mode`].
macro_rules! in_both_modes {
    ($($name:ident,)*) => {
        mod cookie_mode {
            $(#[tokio::test] async fn $name() { super::$name($crate::support::Mode::Cookie).await; })*
        }
        mod store_mode {
            $(#[tokio::test] async fn $name() { super::$name($crate::support::Mode::Store).await; })*
        }
    };
}
pub(crate) use in_both_modes;

/// Runs work that takes seconds, and fails if it takes longer than any busy machine could need.
///
/// The work has a thread of its own, because nothing else could stop it.
#[track_caller]
pub fn ends_within_a_minute<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(work());
        done.send(()).unwrap();
    });
    match end.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => panic!("it takes longer than a minute"),
        Err(RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}

/// A memory store that lists the calls it gets, and fails those it is told to.
#[derive(Clone)]
pub struct ProbeStore {
    inner: MemoryStore,
    calls: Arc<Mutex<Vec<&'static str>>>,
    failing: Arc<Mutex<Option<&'static str>>>,
}

impl ProbeStore {
    pub fn new(clock: &ManualClock) -> Self {
        Self {
            inner: MemoryStore::builder().clock(clock.clone()).build(),
            calls: Arc::default(),
            failing: Arc::default(),
        }
    }

    /// Returns the calls since the last time.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Lets every such call fail from now on.
    pub fn fail(&self, operation: &'static str) {
        *self.failing.lock().unwrap() = Some(operation);
    }

    /// Every call lets others run first, so that a future can be dropped there.
    async fn called(&self, operation: &'static str) -> Result<(), StoreError> {
        self.calls.lock().unwrap().push(operation);
        tokio::task::yield_now().await;
        if *self.failing.lock().unwrap() == Some(operation) {
            return Err(StoreError::unavailable("told to fail"));
        }
        Ok(())
    }
}

impl SessionStore for ProbeStore {
    delegate_session_store!(all except destroy_at, survives_restart => self.inner, async |operation, call| {
        self.called(operation).await?;
        call.await
    });
    /// So that no test has to expect a warning of a list in memory.
    fn survives_restart(&self) -> bool {
        true
    }

    delegate_session_store!(destroy_at => self.inner, async |_, call| {
        self.called("destroy").await?;
        call.await
    });
}

/// An app that does what the path says, in order, and then commits: `/add/regenerate`.
///
/// `commit` commits in between, after which the session is extracted anew; all guards go into the
/// response. It answers with the count.
pub fn scripted(sessions: SessionManager<Visits>) -> Router {
    Router::new().fallback(run_script).with_state(sessions)
}

/// Does one step of a script.
pub fn act(session: &mut Session<Visits>, step: &str) {
    match step {
        // Two of them are folders, for cookies with a Path.
        "read" | "shop" | "about" => {}
        "add" => session.count += 1,
        "undo" => session.count -= 1,
        "borrow" => _ = &mut session.count,
        "destroy" => session.destroy(),
        "regenerate" => session.regenerate(),
        "reset" => session.clear(),
        "save" => session.force_save(),
        "longer" => session.set_idle_timeout(2 * DAY),
        other => panic!("no such step: {other}"),
    }
}

async fn run_script(
    State(sessions): State<SessionManager<Visits>>,
    request: Request<Body>,
) -> Result<Response, SessionError> {
    let (mut parts, _) = request.into_parts();
    let script = parts.uri.path().to_owned();
    let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
    let mut guards = Vec::new();
    let mut note = None;
    for step in script.split('/') {
        match step {
            "" => {}
            "yield" => tokio::task::yield_now().await,
            "fail" => return Ok(StatusCode::IM_A_TEAPOT.into_response()),
            "commit" => {
                guards.push(session.commit().await?);
                session = Session::from_request_parts(&mut parts, &sessions).await?;
            }
            "reverse" => guards.reverse(),
            "id" => note = Some(session.id().map(|id| id.store_key().to_base64url())),
            "new" => note = Some(Some(session.is_new().to_string())),
            step => act(&mut session, step),
        }
    }
    let count = session.count.to_string();
    guards.push(session.commit().await?);
    let body = note.map_or(count, Option::unwrap_or_default);
    let response = body.into_response();
    let join = |response, guard| (guard, response).into_response();
    Ok(guards.into_iter().fold(response, join))
}

/// What a request to [`changing`] does to its session, once the gate lets it.
pub struct Change<T: Send + Sync + 'static> {
    gate: Gate,
    change: Arc<ChangeSession<T>>,
}

type ChangeSession<T> = dyn Fn(&mut Session<T>) + Send + Sync;

impl<T: Send + Sync + 'static> Change<T> {
    pub fn new(change: impl Fn(&mut Session<T>) + Send + Sync + 'static) -> Self {
        let gate = Gate::new();
        gate.open();
        Self::behind(gate, change)
    }

    /// Waits at the gate between the load and the change.
    pub fn behind(gate: Gate, change: impl Fn(&mut Session<T>) + Send + Sync + 'static) -> Self {
        let change = Arc::new(change);
        Self { gate, change }
    }
}

impl<T: Send + Sync + 'static> Clone for Change<T> {
    fn clone(&self) -> Self {
        let (gate, change) = (self.gate.clone(), self.change.clone());
        Self { gate, change }
    }
}

/// An app that changes its session of any type as a [`Change`] says and commits, and shows it as JSON.
pub fn changing<T>(sessions: SessionManager<T>) -> Router
where
    T: Serialize + Clone + Send + Sync + 'static,
{
    let change = |mut session: Session<T>, Extension(change): Extension<Change<T>>| async move {
        change.gate.pass().await;
        (change.change)(&mut session);
        session.commit().await
    };
    let show = |session: Session<T>| async move {
        let data = Json(T::clone(&session));
        // No guard: a look commits nothing.
        session.discard();
        data
    };
    Router::new().route("/", post(change).get(show)).with_state(sessions)
}

/// A `GET` with cookies written by hand.
pub async fn get_with_cookies(app: &Router, cookies: &str) -> Answer {
    send(app, Request::get("/").header(header::COOKIE, cookies)).await
}

/// A list of events, to hand to `on_event`.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<SessionEvent>>>);

impl EventLog {
    pub fn hook(&self) -> impl Fn(&SessionEvent) + Send + Sync + 'static {
        let events = self.0.clone();
        move |event| events.lock().unwrap().push(event.clone())
    }

    /// Returns the events since the last call.
    pub fn take_events(&self) -> Vec<SessionEvent> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Returns the kinds of the events since the last call, and the sessions they happened to.
    pub fn take_kinds(&self) -> Vec<(SessionEventKind, Option<Fingerprint>)> {
        self.take_events().into_iter().map(|event| (event.kind, event.session)).collect()
    }

    /// Returns the names of the events since the last call.
    pub fn take(&self) -> Vec<&'static str> {
        self.take_events().iter().map(|event| event.kind.name()).collect()
    }
}

/// Runs a future, and returns with its result all that was logged meanwhile.
pub fn traced<R>(run: impl Future<Output = R>) -> (R, String) {
    let log = Log::of(Level::TRACE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    (runtime.unwrap().block_on(run), log.text())
}
