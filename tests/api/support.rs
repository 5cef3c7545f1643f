//! A browser over a router, a manual clock, and what tests share.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use axum::{Router, body::Body};
use axum_typed_session::{
    Key, SessionEvent, SessionManager, SessionManagerBuilder, testing::ManualClock,
};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

pub const COOKIE: &str = "__Host-session";
pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);

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
    SessionManager::<Visits>::builder()
        .keys(key())
        .clock(clock.clone())
}

/// What came back for one request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The `Set-Cookie` headers, as text.
    pub fn set_cookies(&self) -> Vec<&str> {
        let cookies = self.headers.get_all(header::SET_COOKIE).iter();
        cookies.map(|cookie| cookie.to_str().unwrap()).collect()
    }

    /// The one `Set-Cookie` header.
    #[track_caller]
    pub fn set_cookie(&self) -> &str {
        match self.set_cookies()[..] {
            [cookie] => cookie,
            ref cookies => panic!("expected one Set-Cookie, got {cookies:?}"),
        }
    }

    /// The value of the one `Set-Cookie` header.
    #[track_caller]
    pub fn token(&self) -> String {
        let pair = self.set_cookie().split(';').next().unwrap();
        pair.split_once('=').unwrap().1.to_owned()
    }

    /// The `Max-Age` of the one `Set-Cookie` header, in seconds.
    #[track_caller]
    pub fn max_age(&self) -> Option<u64> {
        let mut attributes = self.set_cookie().split("; ");
        let seconds = attributes.find_map(|attribute| attribute.strip_prefix("Max-Age="))?;
        Some(seconds.parse().unwrap())
    }

    /// One header's values, joined as HTTP allows.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        let texts = values.iter().map(|value| value.to_str().unwrap());
        (!values.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
    }

    #[track_caller]
    pub fn expect(self, status: StatusCode, body: &str) -> Self {
        assert_eq!((self.status, &*self.body), (status, body));
        self
    }

    #[track_caller]
    pub fn expect_no_cookie(self) -> Self {
        assert_eq!(self.set_cookies(), Vec::<&str>::new());
        self
    }
}

/// A client with a cookie jar, which keeps what a browser would until it is told to go.
#[derive(Clone)]
pub struct Browser {
    app: Router,
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(app: Router) -> Self {
        Self {
            app,
            jar: BTreeMap::new(),
        }
    }

    /// The same jar in front of another node.
    pub fn at(&self, app: &Router) -> Self {
        Self {
            app: app.clone(),
            jar: self.jar.clone(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path)).await
    }

    pub async fn post(&mut self, path: &str) -> Answer {
        self.send(Request::post(path)).await
    }

    pub async fn send(&mut self, mut request: http::request::Builder) -> Answer {
        if !self.jar.is_empty() {
            let pairs = self
                .jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            let pairs: Vec<_> = pairs.collect();
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        let answer = send(&self.app, request).await;
        for cookie in answer.set_cookies() {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// The session cookie's value.
    #[track_caller]
    pub fn token(&self) -> String {
        self.jar.get(COOKIE).expect("a session cookie").clone()
    }

    pub fn has_session(&self) -> bool {
        self.jar.contains_key(COOKIE)
    }
}

/// Sends a request without a jar.
pub async fn send(app: &Router, request: http::request::Builder) -> Answer {
    let request = request.body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
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

    /// Returns the names of the events since the last call.
    pub fn take(&self) -> Vec<&'static str> {
        self.take_events().iter().map(SessionEvent::name).collect()
    }
}

/// Runs a future, and returns with its result what was logged meanwhile.
pub fn traced<R>(run: impl Future<Output = R>) -> (R, String) {
    let log = LogBuffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    let result = tracing::subscriber::with_default(subscriber, || runtime.block_on(run));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
