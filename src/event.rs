//! Events of sessions, for logs, metrics and alarms.

use tracing::Level;

use crate::id::{Fingerprint, StoreKey};

/// An event of a session, for the function that [`on_event`](crate::SessionManagerBuilder::on_event) sets.
///
/// Every event is also written with `tracing`, under the target `axum_typed_session::event`. Store errors and
/// sessions that are too large have the level ERROR, damaged and newer sessions WARN, and all other events DEBUG.
/// No event contains an id, a key or session data.
///
/// # Example
///
/// ```
/// use axum_typed_session::{SessionEvent, SessionEventKind};
///
/// /// Counts events by their names, such as `created`.
/// fn count(event: &SessionEvent) {
///     println!("session_events_total{{kind={:?}}}", event.kind.name());
///     if let SessionEventKind::StoreError { operation } = event.kind {
///         eprintln!("the session store failed in `{operation}`");
///     }
/// }
/// ```
///
/// The function is set with `.on_event(count)`.
#[doc(alias("hook", "metrics", "audit"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionEvent {
    /// The kind of the event.
    pub kind: SessionEventKind,
    /// The session, as the first bytes of a hash; `None` if no session is known.
    pub session: Option<Fingerprint>,
}

/// The kinds of [`SessionEvent`], which has an example.
///
/// "Came in" means that the session came with a request, or that a method of the [manager](crate::SessionManager)
/// loaded it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEventKind {
    /// A token came in, and the store has no session for it.
    ///
    /// In Redis and memcached this includes every session that has expired, since the server deletes it. A
    /// [`MemoryStore`](crate::MemoryStore) deletes expired sessions within a minute. In SQL they stay until a
    /// [`Cleanup`](crate::store::Cleanup) deletes them.
    Missed,
    /// A session came in that had expired.
    Expired,
    /// A session came in, and [`validate`](crate::SessionManagerBuilder::validate),
    /// [`validate_data`](crate::SessionManagerBuilder::validate_data) or
    /// [`migrate`](crate::SessionManagerBuilder::migrate) rejected it.
    Invalid,
    /// A session came in, and its data cannot be read.
    Corrupt,
    /// A session came in that a newer version of the application or of this crate wrote.
    Newer,
    /// A session came in that had ended by a sign-out, a revocation or a new id.
    Revoked,
    /// A token came in that is malformed, was changed, or was made for another purpose.
    InvalidToken,
    /// A token came in that was made with a key that is not in the [`KeyRing`](crate::KeyRing).
    UnknownKey,
    /// Several valid sessions came in under one cookie name. The newest was used.
    Ambiguous {
        /// How many sessions were valid.
        valid: usize,
    },
    /// A session of another library was saved as one of this crate, for
    /// [`import`](crate::SessionManagerBuilder::import).
    Imported,
    /// A new session was saved.
    Created,
    /// A stored session was saved again.
    Saved,
    /// The expiry of a session was moved. Its data stayed the same.
    Touched,
    /// A session got a new id.
    Regenerated {
        /// The session under its old id.
        former: Fingerprint,
    },
    /// A session was ended.
    Destroyed,
    /// Two requests changed a session at once. [`on_conflict`](crate::SessionManagerBuilder::on_conflict) decides
    /// the result.
    Conflict {
        /// The field that both requests changed, as a JSON pointer (RFC 6901). `None` if the changes were merged,
        /// or if no single field is the cause.
        field: Option<String>,
    },
    /// A request tried to save a session that another request had ended.
    Gone,
    /// A session was larger than its limit. Nothing was saved or sent.
    TooLarge {
        /// The bytes that the session takes.
        actual: usize,
        /// The bytes that it may take.
        limit: usize,
    },
    /// A store failed or did not answer in time.
    StoreError {
        /// The operation that failed, such as `load`.
        operation: &'static str,
    },
}

/// The reason why a session ended, for [`on_end`](crate::SessionManagerBuilder::on_end), which has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The application ended it: by a sign-out of its own, of all sessions of its owner, or by an admin.
    Destroyed,
    /// Its time was over.
    Expired,
    /// Its owner signed in once more, and had more sessions than
    /// [`max_sessions_per_owner`](crate::SessionManagerBuilder::max_sessions_per_owner) allows.
    OverLimit,
}

impl SessionEventKind {
    /// Returns the name in snake case, such as `invalid_token`. The example of [`SessionEvent`] uses it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::Revoked => "revoked",
            Self::InvalidToken => "invalid_token",
            Self::UnknownKey => "unknown_key",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Imported => "imported",
            Self::Created => "created",
            Self::Saved => "saved",
            Self::Touched => "touched",
            Self::Regenerated { .. } => "regenerated",
            Self::Destroyed => "destroyed",
            Self::Conflict { .. } => "conflict",
            Self::Gone => "gone",
            Self::TooLarge { .. } => "too_large",
            Self::StoreError { .. } => "store_error",
        }
    }

    /// Returns DEBUG for every event that clients can cause at will. Otherwise a client could flood the log.
    fn level(&self) -> Level {
        if matches!(self, Self::StoreError { .. } | Self::TooLarge { .. }) {
            Level::ERROR
        } else if matches!(self, Self::Corrupt | Self::Newer) {
            Level::WARN
        } else {
            Level::DEBUG
        }
    }
}

type Hook = dyn Fn(&SessionEvent) + Send + Sync;

/// The receivers of the events of one manager.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) kind: String,
    pub(crate) hook: Option<Box<Hook>>,
}

const TARGET: &str = "axum_typed_session::event";

impl Events {
    /// Reports an event. `key` computes a hash, so it is called only if the log or the hook wants the event.
    pub(crate) fn report(&self, kind: SessionEventKind, key: impl FnOnce() -> Option<StoreKey>) {
        let is_logged = kind.level() != Level::DEBUG;
        if is_logged || self.hook.is_some() || tracing::enabled!(target: TARGET, Level::DEBUG) {
            self.send(kind, key());
        }
    }

    fn send(&self, kind: SessionEventKind, key: Option<StoreKey>) {
        let event = SessionEvent { kind, session: key.map(|key| key.fingerprint()) };
        if let Some(hook) = &self.hook {
            hook(&event);
        }
        // The level of an event is a constant of its place in the code.
        macro_rules! trace {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    event = event.kind.name(),
                    kind = &*self.kind,
                    session = event.session.map(tracing::field::display),
                    detail = ?event.kind,
                )
            };
        }
        match event.kind.level() {
            Level::ERROR => trace!(Level::ERROR),
            Level::WARN => trace!(Level::WARN),
            _ => trace!(Level::DEBUG),
        }
    }
}
