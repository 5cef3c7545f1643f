//! Typed HTTP sessions for axum.
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

// Modules use only groups above their own.

mod clock;
mod codec;
mod error;
mod event;
mod expiry;
mod id;
mod keys;

mod decision;
mod merge;
mod record;

mod cookies;
mod seal;
mod store;
mod transport;

mod builder;
mod manager;

mod auto_commit;
mod commit;
mod handle;
mod request;
mod session;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

pub use cookie;

pub use crate::{
    auto_commit::{AutoCommit, AutoCommitLayer, ResponseFuture},
    builder::SessionManagerBuilder,
    clock::{Clock, SystemClock, Timestamp},
    codec::Codec,
    commit::SessionCommit,
    error::{ConfigError, SessionError, SessionRejection, StoreError},
    event::SessionEvent,
    expiry::MaxAge,
    handle::SessionHandle,
    id::{Fingerprint, OwnerKey, SessionId, StoreKey, StoreKeyFromStrError},
    keys::{Key, KeyRing},
    manager::{ConflictPolicy, SessionManager, StoredSession},
    record::{Record, Version},
    session::{Session, SessionState},
    store::{
        Cleanup, CleanupTask, MemoryStore, MemoryStoreBuilder, SaveOutcome, SessionStore, Write,
    },
    transport::Transport,
};

#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use crate::store::MySqlStore;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use crate::store::PostgresStore;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use crate::store::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql")))
)]
pub use crate::store::{SqlEngine, SqlStore};
