//! Events of sessions, for logs, metrics and alarms.

use tracing::Level;

use crate::id::{Fingerprint, StoreKey};

/// An event of a session, for [`on_event`](crate::SessionManagerBuilder::on_event).
///
/// Every event is also written with `tracing`, under the target `axum_typed_session::event`. No event carries an
/// id, a key or a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionEvent {
    /// The kind of event.
    pub kind: SessionEventKind,
    /// The session, as a fingerprint that finds no row; `None` if no session is known.
    pub session: Option<Fingerprint>,
}

/// The kinds of [`SessionEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEventKind {
    /// A token came in, and the store has no session for it.
    Missed,
    /// A session came in after its end.
    Expired,
    /// `validate`, `validate_data` or `migrate` rejected a session that came in.
    Invalid,
    /// A session came in whose data cannot be read.
    Corrupt,
    /// A session came in that a newer version of the application or of this crate wrote.
    Newer,
    /// A session came in that had ended by a logout, a revocation or a new id.
    Revoked,
    /// A token came in that is malformed, was tampered with, or was sealed for another purpose.
    InvalidToken,
    /// A token came in that was sealed with a key that is not in the ring.
    UnknownKey,
    /// Several valid sessions came in under one cookie name. The newest was used.
    Ambiguous {
        /// How many were valid.
        valid: usize,
    },
    /// A new session was saved.
    Created,
    /// A session was saved.
    Saved,
    /// A session's expiry was moved. Its data stayed the same.
    Touched,
    /// A session got a new id.
    Regenerated {
        /// The session under its former id.
        former: Fingerprint,
    },
    /// A session was ended.
    Destroyed,
    /// Two requests changed a session at once. The result depends on
    /// [`on_conflict`](crate::SessionManagerBuilder::on_conflict).
    Conflict {
        /// The field that both changed so that both changes cannot hold, as a JSON pointer (RFC 6901). `None`
        /// if the changes were merged, or if no single field is the cause.
        field: Option<String>,
    },
    /// A request tried to save a session that another request had ended.
    Gone,
    /// A session did not fit. Nothing was sent.
    TooLarge {
        /// The bytes it takes.
        actual: usize,
        /// The bytes it may take.
        limit: usize,
    },
    /// A store failed or did not answer in time.
    StoreError {
        /// The operation that failed, such as `load`.
        operation: &'static str,
    },
}

impl SessionEventKind {
    /// Returns the name in snake case, such as `invalid_token`.
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

    /// An event that clients can cause at will is no warning; otherwise any client could flood the log.
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

/// Where one manager's events go.
pub(crate) struct Events {
    pub(crate) kind: String,
    pub(crate) hook: Option<Box<Hook>>,
}

const TARGET: &str = "axum_typed_session::event";

impl Events {
    /// Reports an event. `session` costs a hash, so it is called only if something listens.
    pub(crate) fn report(
        &self,
        kind: SessionEventKind,
        session: impl FnOnce() -> Option<StoreKey>,
    ) {
        let is_logged = kind.level() != Level::DEBUG;
        if is_logged || self.hook.is_some() || tracing::enabled!(target: TARGET, Level::DEBUG) {
            self.send(kind, session());
        }
    }

    fn send(&self, kind: SessionEventKind, session: Option<StoreKey>) {
        let event = SessionEvent { kind, session: session.map(|key| key.fingerprint()) };
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
