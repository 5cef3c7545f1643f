//! Sessions of a login, and an app with a route for each thing a handler can do to one.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, RawQuery},
    response::IntoResponse,
    routing::{get, post},
};
use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    IdleTimeout, Session, SessionError, SessionManager, SessionManagerBuilder, testing::ManualClock,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use crate::support::{Answer, COOKIE, key, send};

/// What `GET /` answers to a fresh session.
pub const FRESH: &str = "fresh";

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Login {
    pub user: Option<String>,
    pub note: String,
}

/// A cookie-mode manager of logins on a manual clock.
pub fn logins(clock: &ManualClock) -> SessionManagerBuilder<Login> {
    without_keys(clock).keys(key())
}

/// A manager of logins that lacks the keys.
pub fn without_keys(clock: &ManualClock) -> SessionManagerBuilder<Login> {
    SessionManager::builder().clock(clock.clone())
}

/// Asserts what `build()` says to a manager that it refuses.
#[track_caller]
pub fn expect_refusal(manager: SessionManagerBuilder<Login>, text: &str) {
    match manager.build() {
        Ok(_) => panic!("accepted, but expected: {text}"),
        Err(error) => assert_eq!(error.to_string(), text),
    }
}

/// An app over a manager: `GET /` reads, `POST /{action}?{argument}` does one thing and commits.
pub fn app(builder: SessionManagerBuilder<Login>) -> Router {
    router(builder.build().unwrap())
}

pub fn router(sessions: SessionManager<Login>) -> Router {
    Router::new()
        .route("/", get(read))
        .route("/id", get(id))
        .route("/times", get(times))
        .route("/{action}", post(act))
        .with_state(sessions)
}

/// Saves a note in a new session.
pub async fn issue(app: &Router, note: &str) -> Answer {
    let answer = send(app, Request::post(format!("/note?{note}"))).await;
    answer.expect(StatusCode::OK, note)
}

/// Saves a note in a new session and returns the cookie as a browser sends it.
pub async fn issue_cookie(app: &Router, note: &str) -> String {
    format!("{COOKIE}={}", issue(app, note).await.token())
}

/// A cookie that differs at its end only, so that it has to be opened to be refused.
pub fn forged(cookie: &str) -> String {
    format!("{}AAAA", &cookie[..cookie.len() - 4])
}

async fn read(session: Session<Login>) -> String {
    let note = if session.is_new() { FRESH.to_owned() } else { session.note.clone() };
    // No guard: what is to show here is that a mere read commits nothing.
    session.discard();
    note
}

/// The store key in hexadecimal and the secret as it might leak, with a space between.
async fn id(session: Session<Login>) -> String {
    let id = session.id().unwrap();
    let secret = URL_SAFE_NO_PAD.encode(id.as_bytes());
    let both = format!("{} {secret}", id.store_key().to_base64url());
    session.discard();
    both
}

/// When the session began and ends, in milliseconds from where a manual clock starts.
async fn times(session: Session<Login>) -> String {
    let (created_at, expires_at) = (session.created_at(), session.expires_at());
    session.discard();
    format!("{} {}", since_start(created_at), since_start(expires_at))
}

pub fn since_start(time: OffsetDateTime) -> i128 {
    let start: OffsetDateTime = axum_typed_session::Clock::now(&ManualClock::new());
    (time - start).whole_milliseconds()
}

async fn act(
    Path(action): Path<String>,
    RawQuery(argument): RawQuery,
    mut session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    let argument = argument.unwrap_or_default();
    let seconds = || Duration::from_secs(argument.parse().unwrap());
    match &*action {
        "note" => session.note = argument,
        "user" => session.user = Some(argument).filter(|user| !user.is_empty()),
        "commit" => {}
        "save" => session.force_save(),
        "regenerate" => session.regenerate(),
        "reset" => session.clear(),
        "destroy" => session.destroy(),
        "max-age" => session.set_idle_timeout(seconds()),
        "browser" => session.set_idle_timeout(IdleTimeout::BrowserSession(seconds())),
        unknown => panic!("no such action: {unknown}"),
    }
    let note = session.note.clone();
    Ok((session.commit().await?, note))
}
