//! What a fuzzer feeds with bytes: one function for each kind of input that a client or a store sends.
//!
//! `fuzz/` runs these functions under libFuzzer, and the test beside this module runs them with its own edits.

mod content;
#[allow(dead_code, reason = "only the signature is used here")]
#[path = "../../api/forge.rs"]
mod forge;
mod header;
mod id;
mod input;
mod merge;
mod record;
mod row;
mod token;

use std::future::Future;

use axum::{
    extract::FromRequestParts as _,
    response::{IntoResponse as _, Response},
};
use axum_typed_session::{
    Key, Session, SessionError, SessionManager, SessionManagerBuilder, StoreKey,
    testing::ManualClock,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{COOKIE as COOKIE_HEADER, SET_COOKIE},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

/// One kind of input: its name, and the function that takes it.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 6] = [
    ("header", header::run),
    ("token", token::run),
    ("content", content::run),
    ("record", record::run),
    ("id", id::run),
    ("merge", merge::run),
];

const COOKIE: &str = "__Host-session";

/// The time of a [`ManualClock`], in Unix milliseconds.
const NOW: u64 = 4_102_444_800_000;

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    visits: u32,
}

fn builder() -> SessionManagerBuilder<Login> {
    SessionManager::builder().clock(ManualClock::new())
}

/// The same key in every process, so that seeds keep their meaning.
fn key() -> Key {
    Key::from(*b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
}

/// Runs a future to its end. Nothing in it waits for real time.
fn block_on<R>(future: impl Future<Output = R>) -> R {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Returns the session of a request with these headers.
async fn session_of<T: Send + Sync + 'static>(
    sessions: &SessionManager<T>,
    name: &HeaderName,
    values: &[Vec<u8>],
) -> Result<Session<T>, SessionError> {
    let mut request = Request::get("/");
    for value in values {
        request = request.header(name, HeaderValue::from_bytes(value).unwrap());
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    Session::from_request_parts(&mut parts, sessions).await
}

/// Returns the session of a request with this session cookie.
async fn session_with<T: Send + Sync + 'static>(
    sessions: &SessionManager<T>,
    token: &[u8],
) -> Result<Session<T>, SessionError> {
    let cookie = [COOKIE.as_bytes(), b"=", token].concat();
    session_of(sessions, &COOKIE_HEADER, &[cookie]).await
}

/// Commits a session, and returns the headers of the response.
async fn committed<T: Send + Sync + 'static>(
    session: Session<T>,
) -> Result<HeaderMap, SessionError> {
    let response: Response = session.commit().await?.into_response();
    Ok(response.into_parts().0.headers)
}

/// Returns the token of the `Set-Cookie` header; `None` without one.
fn token_in(headers: &HeaderMap) -> Option<String> {
    let set = headers.get(SET_COOKIE)?.to_str().unwrap().to_owned();
    Some(cookie::Cookie::parse(set).unwrap().value().to_owned())
}

/// Keeps what an HTTP server accepts in a header.
fn header_bytes(bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let is_sent = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 127);
    bytes.into_iter().filter(is_sent).collect()
}

/// Hashes the id of a `Login` as `src/id.rs` describes.
fn key_of_id(id: [u8; 32]) -> StoreKey {
    let mut hash = Sha256::new();
    for name in ["axum-typed-session v1 id", "axum-typed-session", "Login"] {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
    }
    StoreKey::from_bytes(hash.chain_update(id).finalize().into())
}
