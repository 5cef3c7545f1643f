//! The session: its data, its lifetimes, and the guard of routes.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, Uri, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use axum_typed_session::{
    IdleTimeout, Key, Latest, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder, time::OffsetDateTime,
};
use serde::{Deserialize, Serialize};

use crate::{App, pages};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Login {
    pub user: Option<String>,
    /// A message that the next page shows once.
    pub flash: Latest<Option<String>>,
    /// For the list of devices.
    pub user_agent: String,
    /// Seconds since 1970. Of two requests at once the later one counts.
    pub last_seen: Latest<i64>,
}

pub fn options(key: Key, insecure_http: bool) -> SessionManagerBuilder<Login> {
    SessionManager::<Login>::builder()
        .keys(key)
        .store(MemoryStore::new())
        .owner(|login| login.user.clone())
        // Without "keep me signed in": until the browser closes, and at most two hours without a request.
        .idle_timeout(IdleTimeout::BrowserSession(2 * HOUR))
        .rolling(true)
        .absolute_timeout(DAY)
        .max_absolute_timeout(180 * DAY)
        // A visitor who opens the sign-in form has a session too, because of its CSRF token.
        .anonymous_idle_timeout(30 * MINUTE)
        .insecure_http(insecure_http)
        .error_response(|error: &SessionError| error_page(error))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "visitors need not tell the others apart")]
fn error_page(error: &SessionError) -> Response {
    match error {
        SessionError::Csrf => pages::error(
            StatusCode::FORBIDDEN,
            "This form is too old. Go back, reload the page and send it again.",
        ),
        SessionError::Conflict | SessionError::Gone => pages::error(
            StatusCode::CONFLICT,
            "Another request changed your session at the same time. Please try again.",
        ),
        SessionError::Store(_) => pages::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "Sessions are unavailable at the moment. Please try again in a minute.",
        ),
        _ => pages::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong. Please try again.",
        ),
    }
}

/// Signs a visitor in.
pub fn sign_in(session: &mut Session<Login>, user: String, user_agent: String, keep: bool) {
    session.user = Some(user);
    session.user_agent = user_agent;
    session.last_seen = now().into();
    // A new id, so that an id which somebody learnt before is worth nothing.
    session.regenerate();
    if keep {
        session.set_idle_timeout(30 * DAY);
        session.set_absolute_timeout(180 * DAY);
    }
}

/// Notes that the device is in use, at most once a minute.
pub fn touch(session: &mut Session<Login>) {
    if session.user.is_some() && now() - *session.last_seen >= 60 {
        session.last_seen = now().into();
    }
}

/// Signs the browser out, and leads to a page that says so.
///
/// `destroy` also succeeds for the second click of a double click. A sign-out by `clear` and `regenerate` could keep a
/// message in the session, but of two at once the later one is `SessionError::Gone`.
pub fn sign_out(session: &mut Session<Login>) -> Redirect {
    session.destroy();
    Redirect::to("/?signed_out=true")
}

pub fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// The name of the user who is signed in. Other visitors are sent to the sign-in form, and come back from it.
///
/// As an argument it gives a handler the name. As a layer it guards a router.
pub struct CurrentUser(pub String);

impl FromRequestParts<App> for CurrentUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let session = Session::<Login>::from_request_parts(parts, app).await;
        let session = session.map_err(IntoResponse::into_response)?;
        match &session.user {
            Some(user) => Ok(Self(user.clone())),
            None => Err(sign_in_first(parts).into_response()),
        }
    }
}

/// A form that was sent cannot be sent again after sign-in, so only pages are returned to.
fn sign_in_first(parts: &Parts) -> Redirect {
    // A nested router removes its prefix from `uri`.
    let original = parts.extensions.get::<axum::extract::OriginalUri>().map(|uri| &uri.0);
    match original.unwrap_or(&parts.uri).path_and_query() {
        Some(path) if parts.method == "GET" => {
            let next: String = form_urlencoded::byte_serialize(path.as_str().as_bytes()).collect();
            Redirect::to(&format!("/sign-in?next={next}"))
        }
        _ => Redirect::to("/sign-in"),
    }
}

/// The path to return to after sign-in, which comes from a URL that anybody may have made.
///
/// Browsers read `//host`, `/\host` and a tab in between as another host.
pub fn local_path(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.contains(char::is_control)
        && next.parse::<Uri>().is_ok();
    if is_local { next } else { "/" }
}
