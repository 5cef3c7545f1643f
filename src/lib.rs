//! Typed HTTP sessions for axum: a handler takes `Session<MyData>`, works on its own struct, and returns
//! the guard that `commit` hands it.
//!
//! The data lives in a sealed cookie by default, so one key is all it needs, or in a
//! [`SessionStore`] with nothing but an id in the cookie.
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
//!     session.count += 1;                                // plain &mut: no keys, no locks, no await
//!     let body = format!("{} visits", session.count);    // the body first: commit takes the session
//!     Ok((session.commit().await?, body))                // the one I/O point; its guard is the cookie
//! }
//!
//! async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
//!     session.destroy();                                 // noted here, done by commit
//!     Ok((session.commit().await?, Redirect::to("/")))
//! }
//!
//! fn app() -> Result<Router, ConfigError> {
//!     let sessions = SessionManager::<Visits>::builder()
//!         .keys(KeyRing::from_env("SESSION_KEY")?)       // made once, with `openssl rand -hex 64`
//!         .build()?;
//!     Ok(Router::new()
//!         .route("/", get(index))
//!         .route("/logout", post(logout))
//!         .with_state(sessions))                         // forgot it? the program does not compile
//! }
//! ```
//!
//! # The one rule
//!
//! **Every handler that takes a session ends with its guard, or runs under the layer.** The guard is the
//! [`SessionCommit`] that `commit` returns. A commit of an untouched session does no I/O. Its guard keeps shared
//! caches from serving the response to other visitors, and lets `rolling` extend the session of somebody who only
//! reads. The guard is the last part before the body, `(headers, session.commit().await?, body)`, or
//! [wraps](SessionCommit::wrap) the response. Under [`AutoCommitLayer`] handlers need no commit. [`SessionManager::no_session`] is the guard for a
//! handler whose `Option<Session<T>>` is `None`.
//!
//! # Cookie or store
//!
//! | | sealed cookie | store |
//! |---|---|---|
//! | needs | a key | a server, or this process's memory |
//! | size | 2,945 bytes of data; 2,700 through nginx as it comes | `max_payload`, 64 KiB |
//! | two requests change it at once | the browser keeps the cookie that arrives last | merged, or an error; never lost |
//! | logout | a copied cookie works until it expires, unless `revocations` | immediate, everywhere |
//! | ending all sessions of a person, handles, jobs | no | yes |
//!
//! Data that must not be rolled back, such as attempt counters or used coupons, belongs in a store: a client can
//! always send an older cookie again. In cookie mode with `rolling`, an answer that arrives late can also put an
//! older cookie back over a newer one; the window is small, since an unchanged session is sealed anew only once a
//! twentieth of its life has passed.
//!
//! A cookie of 4096 bytes, which is the most that browsers keep, holds 2,945 bytes of data. A proxy may allow less:
//! nginx answers 502 to more than 2,776 bytes by default, and to more than 2,495 with `proxy_cache`, unless
//! `proxy_buffer_size 8k` is set. [`max_cookie_bytes`](SessionManagerBuilder::max_cookie_bytes) has all figures, and
//! makes such a session fail in the application instead.
//!
//! # Forms
//!
//! The cookie is `SameSite=Lax`, so browsers do not send it with a post of another site. They send it with every `GET`,
//! so `GET` must change nothing, and with a post of another host of the same site. [`Session::csrf_token`] covers these
//! posts, login forms and old browsers, and says what it does not cover.
//!
//! # Requests that change one session at once
//!
//! With a store, changes of concurrent requests are merged where both can hold. The fields of your type and the
//! keys of maps merge one by one. Fields that only make sense together go into one nested struct, which is one value.
//!
//! | both requests | result |
//! |---|---|
//! | changed different fields, or different keys of a map | both |
//! | appended to a list (of anything but numbers and booleans) | both |
//! | changed a [`Counter`], [`Latest`] or [`Set`] | the sum, the later commit, the union |
//! | set a string | the later commit |
//! | set a [`Once`], a number, an enum, a nested struct, or anything else | [`SessionError::Conflict`], 409 |
//!
//! A WARN names the field of a conflict. Change a field through [`Session::update`] where none of this fits.
//!
//! Changes never cross from one person to another. A [`clear`](Session::clear), a change of the owner and, without
//! an [`owner`](SessionManagerBuilder::owner), a [`regenerate`](Session::regenerate) are boundaries: a commit, an
//! `update` or a handle based on the other side is `Conflict` or `Gone`. A login takes over the cart that the
//! anonymous session gathered meanwhile.
//!
//! # Sizing
//!
//! Bytes of a session of 243 bytes, its owner and all indices included, and the calls of a request:
//!
//! | | bytes | a request that reads | one that writes |
//! |---|---|---|---|
//! | sealed cookie | some 480 in the browser | no call | no call |
//! | `MemoryStore` | 666 | no call | no call |
//! | `RedisStore` | 811 | 1 command | 2 commands |
//! | `SqliteStore` | 518 | 1 statement | 2 statements |
//! | `PostgresStore` | 620 | 1 statement | 2 statements |
//! | `MySqlStore` (MariaDB) | 964 | 1 statement | 2 statements |
//!
//! The docs of each store say how they were measured. On paper, a gigabyte of Redis holds some 1.3 million
//! sessions, and its one core serves a load in 1 µs and a save in 5 µs: a node that sees 10,000 requests a
//! second, a third of them writing, is busy for a quarter of the time. A cluster of three nodes spreads
//! sessions evenly and carries three times that.
//!
//! Begin with the cookie while the data is small and an old copy of it does no harm. Move to a store when a
//! logout must hold everywhere, when requests change the data at once, or when it outgrows a cookie; to the
//! database you run anyway, or to Redis when sessions would be its main load. Move to a cluster when one node's
//! memory or core is half used, or when one node must not be everyone's.
//!
//! # Options and defaults
//!
//! All are methods of [`SessionManagerBuilder`].
//!
//! | option | default | what it is for |
//! |---|---|---|
//! | `keys` | required without a store | seals tokens; a [`KeyRing`] reads keys from the environment and rotates them |
//! | `audience`, `kind` | this crate's name; the short name of the data type | what tokens and ids are for |
//! | `cookie` | `__Host-session`, `Path=/`, Secure, HttpOnly, SameSite=Lax | name and attributes |
//! | `former_cookie` | none | a cookie as it was before its name, Path, Domain or Partitioned changed |
//! | `cookie_for`, `audience_for` | the same for every request | tenants, each with its own cookie and sessions |
//! | `transport` | the cookie | bearer, a header, or functions of your own |
//! | `signed`, `insecure_http`, `remove_unpartitioned` | off | readable tokens; development; moving to CHIPS |
//! | `store`, `store_for` | none: the cookie holds the data | sessions on the server; one store per tenant |
//! | `revocations` | none | real logout in cookie mode |
//! | `id_generator` | 32 bytes from the operating system | ids of your own |
//! | `idle_timeout` | 1 day after each save | how long an unused session lives |
//! | `rolling` | off | which reads restart that time |
//! | `extend_if` | every request | which requests extend a session at all |
//! | `absolute_timeout` | 30 days | what nothing extends |
//! | `max_absolute_timeout` | as `absolute_timeout` | the longest absolute timeout that one session can have |
//! | `owner` | none | whose session it is, for `sessions_of` and "log out everywhere" |
//! | `anonymous_idle_timeout` | as `idle_timeout` | shorter lives for sessions without an owner |
//! | `max_payload` | 64 KiB | the largest session |
//! | `max_cookie_bytes` | 4096 | the largest cookie, where a proxy allows less than browsers |
//! | `validate`, `validate_data` | everything is valid | refusing what comes in |
//! | `before_save` | nothing | changing what is saved |
//! | `codec` | JSON | other encodings |
//! | `schema_version`, `migrate`, `accept_schema` | 1, none, none newer | data whose type changes |
//! | `on_conflict` | `Merge` | two requests that change one session |
//! | `store_timeout` | 2 s | when a store counts as down |
//! | `on_event` | `tracing` alone | metrics and audits |
//! | `error_response` | a short plain sentence | what the client sees of an error |
//! | `clock_skew` | 60 s | how far the clocks of nodes differ |
//! | `clock` | the system's | tests |
//!
//! # `Arc<AppState>` as state
//!
//! axum's `FromRef` cannot be implemented for `Arc` of your type from outside; wrap it:
//!
//! ```
//! use std::sync::Arc;
//! use axum::extract::FromRef;
//! use axum_typed_session::SessionManager;
//!
//! struct Inner { visits: SessionManager<u32> }
//!
//! #[derive(Clone)]
//! struct AppState(Arc<Inner>);
//!
//! impl FromRef<AppState> for SessionManager<u32> {
//!     fn from_ref(state: &AppState) -> Self {
//!         state.0.visits.clone()
//!     }
//! }
//! ```
//!
//! # For those who come from koa-session or egg-session
//!
//! | there | here |
//! |---|---|
//! | `ctx.session.x = 1` | `session.x = 1` on your own type |
//! | `ctx.session = null` | `session.destroy()` |
//! | `autoCommit: true`, `manuallyCommit()` | [`AutoCommitLayer`], `session.commit().await?` |
//! | `save()`, `regenerate()`, `isNew`, `maxAge` | `force_save()`, `regenerate()`, `is_new()`, `set_idle_timeout()` |
//! | `app.keys`, `config.keys = 'new,old'` | `keys`; `KeyRing::from_env` reads the same list |
//! | `key`, `path`, `domain`, `secure`, `httpOnly`, `sameSite`, `partitioned` | `cookie` |
//! | `domain` as a function of the request | `cookie_for` for all attributes; `audience_for` keeps tenants apart |
//! | `removeUnpartitioned`, `rolling`, `renew`, `maxAge`, `maxAge: 'session'` | `remove_unpartitioned`, `rolling`, `rolling`, `idle_timeout`, `idle_timeout` |
//! | `signed`, `encrypt` | encrypted; `signed` for readable |
//! | `store`, `ContextStore`, `externalKey`, `genid` | `store`, `store_for`, `transport`, `id_generator` |
//! | `valid`, `beforeSave`, `encode`/`decode` | `validate`, `before_save`, `codec` |
//! | `session:missed`, `session:expired`, `session:invalid`, `logValue` | `on_event`; values are never logged |
//! | `overwrite` | always: one `Set-Cookie` per name |
//! | egg-security's `ctx.csrf` | `csrf_token()`, `verify_csrf()` |
//! | `prefix` | the stores' own option: they see hashes only |
//! | unsigned cookies | not offered: anyone could forge them |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | `RedisStore`, for Redis, Valkey and their clusters |
//! | `redis-rustls` | `rediss://` URLs; needs a C compiler |
//! | `sqlite` | `SqliteStore`, with SQLite compiled in; needs a C compiler |
//! | `postgres`, `mysql` | `PostgresStore`, and `MySqlStore` also for MariaDB |
//! | `testing` | what tests of an application or a store need |
//!
//! The default features need Rust 1.88. `sqlite`, `postgres` and `mysql` need 1.94, as `sqlx` does.
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
    event::{SessionEvent, SessionEventKind},
    expiry::{IdleTimeout, Rolling},
    fields::{Counter, Latest, Once, Set},
    handle::SessionHandle,
    id::{Fingerprint, SessionId, StoreKey},
    keys::{Key, KeyRing},
    layer::AutoCommitLayer,
    manager::{ConflictPolicy, CreatedSession, SessionManager, StoredSession},
    session::{ProvidesSessions, Session},
    store::{MemoryStore, SessionStore},
    transport::Transport,
};
