//! The tests of an application with sessions.
//!
//! The program is a small one: users log in and count their visits. The tests at the end of the file are what this
//! example is about. They use the feature `testing` of this crate:
//!
//! | test | shows |
//! |---|---|
//! | `a_visit_is_counted` | [`TestSession`]: a request with a session, and the data after the response |
//! | `a_handler_is_a_function` | a handler called directly, without a router |
//! | `a_browser_logs_in_and_out` | the whole router with a cookie jar |
//! | `a_session_ends_when_it_is_not_used` | [`ManualClock`]: time passes at once |
//! | `a_store_that_is_down_is_503` | [`FaultyStore`]: the store fails when the test says so |
//! | `a_login_is_on_record` | the events of a session |
//!
//! ```text
//! cargo test --example testing_your_app --features testing
//! ```
//!
//! The program runs, too:
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example testing_your_app
//! ```
//!
//! In a second terminal:
//!
//! ```text
//! curl -c jar -b jar -d name=ann http://127.0.0.1:3000/login
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/visits
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/visits
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/logout
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/visits
//! ```
//!
//! In your own crate, name the feature where only tests see it:
//!
//! ```toml
//! [dev-dependencies]
//! axum-typed-session = { version = "..", features = ["testing"] }
//! ```
//!
//! `PORT` sets the port, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.
//!
//! [`TestSession`]: axum_typed_session::testing::TestSession
//! [`ManualClock`]: axum_typed_session::testing::ManualClock
//! [`FaultyStore`]: axum_typed_session::testing::FaultyStore

use std::{env, error::Error, time::Duration};

use axum::{
    Form, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use axum_typed_session::{
    KeyRing, MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder,
    SessionStore,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Visits {
    user: Option<String>,
    count: u32,
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
}

/// Check the password here. The example `login` shows how.
async fn login(
    mut session: Session<Visits>,
    Form(credentials): Form<Credentials>,
) -> Result<impl IntoResponse, SessionError> {
    let body = format!("hello {}\n", credentials.name);
    session.user = Some(credentials.name);
    session.regenerate();
    Ok((session.commit().await?, body))
}

async fn visit(mut session: Session<Visits>) -> Result<Response, SessionError> {
    let Some(user) = session.user.clone() else {
        let commit = session.commit().await?;
        return Ok(commit.wrap((StatusCode::UNAUTHORIZED, "log in first\n")));
    };
    session.count += 1;
    let body = format!("visits of {user}: {}\n", session.count);
    Ok(session.commit().await?.wrap(body))
}

async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, "goodbye\n"))
}

/// The options that the program and its tests share. The program adds its key, and a test adds a clock.
fn sessions(store: impl SessionStore) -> SessionManagerBuilder<Visits> {
    SessionManager::builder()
        .store(store)
        .owner(|visits: &Visits| visits.user.clone())
        .idle_timeout(IDLE_TIMEOUT)
}

fn app(sessions: SessionManager<Visits>) -> Router {
    Router::new()
        .route("/login", post(login))
        .route("/visits", post(visit))
        .route("/logout", post(logout))
        .with_state(sessions)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("testing_your_app: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let sessions = sessions(MemoryStore::new())
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(sessions)).await?;
    Ok(())
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        RequestPartsExt as _,
        body::Body,
        http::{Request, header},
    };
    use axum_typed_session::{
        cookie::{Cookie, CookieJar},
        testing::{Fault, FaultyStore, ManualClock, Operation, TestSession},
        time,
    };
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn ann() -> Visits {
        Visits { user: Some("ann".to_owned()), count: 0 }
    }

    /// A request with a session in one line: no login form is needed to test what comes after it.
    #[tokio::test]
    async fn a_visit_is_counted() -> Result<(), Box<dyn Error>> {
        let sessions = sessions(MemoryStore::new()).build()?;
        let mut session = TestSession::start(&sessions, ann()).await?;

        let (name, value) = session.header();
        let request = Request::post("/visits").header(name, value).body(Body::empty())?;
        let response = app(sessions).oneshot(request).await?;

        assert_eq!(response.status(), StatusCode::OK);
        let data = session.after(response.headers()).await?;
        assert_eq!(data, Some(Visits { count: 1, ..ann() }));
        Ok(())
    }

    /// The session comes from a request, as the extractor makes it.
    #[tokio::test]
    async fn a_handler_is_a_function() -> Result<(), Box<dyn Error>> {
        let sessions = sessions(MemoryStore::new()).build()?;
        let mut test_session = TestSession::start(&sessions, ann()).await?;

        let (name, value) = test_session.header();
        let (mut parts, ()) = Request::builder().header(name, value).body(())?.into_parts();
        let session = parts.extract_with_state::<Session<Visits>, _>(&sessions).await?;
        let response = logout(session).await?.into_response();

        assert_eq!(test_session.after(response.headers()).await?, None);
        Ok(())
    }

    /// A client with a cookie jar.
    struct Browser {
        app: Router,
        jar: CookieJar,
    }

    impl Browser {
        fn new(sessions: SessionManager<Visits>) -> Self {
            Self { app: app(sessions), jar: CookieJar::new() }
        }

        /// Submits a form and returns the status and the body.
        async fn post(&mut self, path: &str, form: &str) -> (StatusCode, String) {
            let cookies: Vec<_> =
                self.jar.iter().map(|cookie| cookie.stripped().to_string()).collect();
            let request = Request::post(path)
                .header(header::COOKIE, cookies.join("; "))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(form.to_owned()))
                .unwrap();
            let response = self.app.clone().oneshot(request).await.unwrap();
            for cookie in response.headers().get_all(header::SET_COOKIE) {
                let cookie = Cookie::parse(cookie.to_str().unwrap().to_owned()).unwrap();
                // A response removes a cookie by a lifetime of zero.
                if cookie.max_age() == Some(time::Duration::ZERO) {
                    self.jar.force_remove(cookie.name());
                } else {
                    self.jar.add_original(cookie);
                }
            }
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }

        #[track_caller]
        fn cookie(&self) -> Option<String> {
            self.jar.get("__Host-session").map(|cookie| cookie.value().to_owned())
        }
    }

    fn answer(status: StatusCode, body: &str) -> (StatusCode, String) {
        (status, body.to_owned())
    }

    /// From the first request to the last, as a browser sends them.
    #[tokio::test]
    async fn a_browser_logs_in_and_out() -> Result<(), Box<dyn Error>> {
        let mut browser = Browser::new(sessions(MemoryStore::new()).build()?);
        let refused = answer(StatusCode::UNAUTHORIZED, "log in first\n");
        assert_eq!(browser.post("/visits", "").await, refused);
        assert_eq!(browser.cookie(), None, "a stranger gets no cookie");

        browser.post("/login", "name=ann").await;
        let first = browser.cookie();
        assert_eq!(browser.post("/visits", "").await, answer(StatusCode::OK, "visits of ann: 1\n"));
        assert_eq!(browser.post("/visits", "").await, answer(StatusCode::OK, "visits of ann: 2\n"));
        browser.post("/login", "name=ann").await;
        assert_ne!(browser.cookie(), first, "every login gives the session a new id");

        browser.post("/logout", "").await;
        assert_eq!(browser.cookie(), None);
        assert_eq!(browser.post("/visits", "").await, refused);
        Ok(())
    }

    /// The manager and the store get the same clock.
    #[tokio::test]
    async fn a_session_ends_when_it_is_not_used() -> Result<(), Box<dyn Error>> {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let mut browser = Browser::new(sessions(store).clock(clock.clone()).build()?);
        let a_while = IDLE_TIMEOUT / 3 * 2;

        browser.post("/login", "name=ann").await;
        clock.advance(a_while);
        assert_eq!(browser.post("/visits", "").await.0, StatusCode::OK);
        // The visit has changed the session, and a save restarts the idle timeout.
        clock.advance(a_while);
        assert_eq!(browser.post("/visits", "").await.0, StatusCode::OK);
        clock.advance(IDLE_TIMEOUT);
        assert_eq!(browser.post("/visits", "").await.0, StatusCode::UNAUTHORIZED);
        Ok(())
    }

    /// A user sees an error, and stays logged in until the store answers again.
    #[tokio::test]
    async fn a_store_that_is_down_is_503() -> Result<(), Box<dyn Error>> {
        let store = FaultyStore::new(MemoryStore::new());
        let mut browser = Browser::new(sessions(store.clone()).build()?);
        browser.post("/login", "name=ann").await;

        store.inject(Operation::all(), Fault::Fail);
        assert_eq!(browser.post("/visits", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
        store.heal();
        // The store fails between the load and the save, so the visit is not counted.
        store.inject_next(1, Operation::Save, Fault::Fail);
        assert_eq!(browser.post("/visits", "").await.0, StatusCode::SERVICE_UNAVAILABLE);

        assert_eq!(browser.post("/visits", "").await, answer(StatusCode::OK, "visits of ann: 1\n"));
        Ok(())
    }

    /// `on_event` is where an application writes an audit log.
    #[tokio::test]
    async fn a_login_is_on_record() -> Result<(), Box<dyn Error>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let events = log.clone();
        let sessions = sessions(MemoryStore::new())
            .on_event(move |event| events.lock().unwrap().push(event.kind.name()))
            .build()?;
        let mut browser = Browser::new(sessions);

        browser.post("/login", "name=ann").await;
        browser.post("/login", "name=ann").await;
        browser.post("/logout", "").await;

        assert_eq!(*log.lock().unwrap(), ["created", "regenerated", "destroyed"]);
        Ok(())
    }
}
