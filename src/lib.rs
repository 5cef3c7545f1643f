//! Typed HTTP sessions for axum: a handler takes `Session<MyData>`, works on its own struct, and returns the guard that
//! `commit` gives it.
//!
//! The data lives in an encrypted cookie by default, so that one key is all it needs, or in a [`SessionStore`] with an id
//! in the cookie.
//!
//! # Example
//!
//! ```
//! use axum::{Router, response::{IntoResponse, Redirect}, routing::{get, post}};
//! use axum_typed_session::{ConfigError, KeyRing, Session, SessionError, SessionManager};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Visits { count: u32 }
//!
//! async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
//!     session.count += 1;
//!     // The body comes first, since `commit` takes the session.
//!     let body = format!("{} visits", session.count);
//!     Ok((session.commit().await?, body))
//! }
//!
//! async fn sign_out(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
//!     session.destroy();
//!     Ok((session.commit().await?, Redirect::to("/")))
//! }
//!
//! fn app() -> Result<Router, ConfigError> {
//!     let sessions = SessionManager::<Visits>::builder()
//!         // Made once, with `openssl rand -hex 64`.
//!         .keys(KeyRing::from_env("SESSION_KEY")?)
//!         .build()?;
//!     // Without the state the program does not compile.
//!     Ok(Router::new()
//!         .route("/", get(index))
//!         .route("/sign-out", post(sign_out))
//!         .with_state(sessions))
//! }
//! ```
//!
//! [`guide::getting_started`] explains it line by line.
//!
//! # One rule
//!
//! **Every handler that takes a session returns its guard, or runs under the layer.** The guard is the [`SessionCommit`]
//! that [`commit`](Session::commit) returns. It sets the cookie, keeps shared caches from storing one visitor's page for
//! another, and lets [`rolling`](SessionManagerBuilder::rolling) extend the session of a visitor who only reads. A commit
//! of an unchanged session does no I/O, unless `rolling` extends the session.
//!
//! The guard is the last part before the body, as in `(headers, guard, body)`, or it [wraps](SessionCommit::wrap) the
//! response. Under [`AutoCommitLayer`] handlers need no commit: it commits every response below 500, so a handler makes
//! its changes after its checks. [`SessionManager::no_session`] is the guard of a handler whose `Option<Session<T>>` is
//! `None`.
//!
//! # Where data lives
//!
//! | | sealed cookie | store |
//! |---|---|---|
//! | needs | a key | a server, or the memory of this process |
//! | size | 2,969 bytes of data | 64 KiB, or as [`max_payload`](SessionManagerBuilder::max_payload) says |
//! | two requests change a session at once | the browser keeps the cookie that arrives last | merged, or an error |
//! | sign-out | a copied cookie works until it expires | ended at once, everywhere |
//! | list and end the sessions of a user | no | yes |
//!
//! [`guide::where_data_lives`] helps to choose, and [`guide::stores`] compares the stores.
//!
//! # Guide
//!
//! - First steps: [getting started](guide::getting_started), [where data lives](guide::where_data_lives),
//!   [all options](guide::options)
//! - Users: [signing in and out](guide::signing_in), [how long a session lives](guide::lifetime),
//!   [devices](guide::devices), [CSRF](guide::csrf), [flash messages](guide::flash_messages)
//! - Code: [parallel requests](guide::parallel_requests), [several session types](guide::several_types),
//!   [middleware and extractors](guide::middleware), [commit last](guide::commit_last), [errors](guide::errors),
//!   [testing](guide::testing)
//! - Clients: [API tokens](guide::api_tokens), [WebSockets and server-sent events](guide::websockets)
//! - Operation: [stores](guide::stores), [many nodes and proxies](guide::many_nodes),
//!   [keys and schema changes](guide::keys_and_schemas), [security](guide::security)
//! - Trouble: [it does not compile](guide::does_not_compile), [the cookie is not kept](guide::cookie_not_kept)
//! - Moving: [nobody is signed out](guide::moving_in), from [tower-sessions](guide::from_tower_sessions),
//!   [actix-session](guide::from_actix_session), [cookie jars](guide::from_cookie_jars),
//!   [koa-session](guide::from_koa_session), [egg-session](guide::from_egg_session),
//!   [express-session](guide::from_express_session), [cookie-session](guide::from_cookie_session)
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::print_stdout
    )
)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Modules use only groups above their own.

mod clock;
mod error;
mod event;
mod expiry;
mod fields;
mod id;
mod keys;
mod warnings;

pub mod store;

mod codec;
mod decision;
mod merge;

mod cookies;
pub mod import;
mod seal;
mod transport;

mod builder;
mod manager;

mod request;

mod commit;
mod handle;
pub mod layer;
mod session;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(any(doc, doctest))]
pub mod guide;

pub use cookie;
pub use time;

#[cfg(feature = "memcached")]
pub use crate::store::MemcachedStore;
#[cfg(feature = "mysql")]
pub use crate::store::MySqlStore;
#[cfg(feature = "postgres")]
pub use crate::store::PostgresStore;
#[cfg(feature = "redis")]
pub use crate::store::RedisStore;
#[cfg(feature = "sqlite")]
pub use crate::store::SqliteStore;
pub use crate::{
    builder::SessionManagerBuilder,
    clock::{Clock, SystemClock},
    codec::Codec,
    commit::SessionCommit,
    error::{ConfigError, SessionError, StoreError},
    event::{EndReason, SessionEvent, SessionEventKind},
    expiry::{IdleTimeout, Rolling},
    fields::{Counter, Latest, Once, Set},
    handle::SessionHandle,
    id::{Fingerprint, SessionId, StoreKey},
    keys::{Key, KeyRing},
    layer::AutoCommitLayer,
    manager::{ConflictPolicy, CreatedSession, SessionManager, SessionPage, StoredSession},
    session::{ProvidesSessions, Session},
    store::{MemoryStore, SessionStore},
    transport::Transport,
};
