//! What happened to sessions, for logs, metrics and alarms.

use std::sync::Arc;

use tracing::Level;

use crate::id::{Fingerprint, StoreKey};

/// Something that happened to a session.
///
/// Every event is also written with `tracing`, under the target `axum_typed_session::event`. None carries an
/// id, a key or a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionEvent {
    /// What happened.
    pub kind: SessionEventKind,
    /// The session it happened to, as a fingerprint that finds no row; `None` where no session is known.
    pub session: Option<Fingerprint>,
}

/// The kinds of [`SessionEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEventKind {
    /// A token came in whose session the store does not have.
    Missed,
    /// A session came in after its end.
    Expired,
    /// `validate` or `migrate` refused a session that came in.
    Invalid,
    /// A session came in whose data cannot be read.
    Corrupt,
    /// A session came in that a newer version wrote.
    Newer,
    /// A session came in that a logout, a revocation or a new id has ended.
    Revoked,
    /// A token came in that is malformed, was tampered with or belongs to another purpose.
    InvalidToken,
    /// A token came in under a key that is not in the ring.
    UnknownKey,
    /// Several valid sessions came in under one name; the newest was taken.
    Ambiguous {
        /// How many were valid.
        valid: usize,
    },
    /// A new session was saved.
    Created,
    /// A session was saved.
    Saved,
    /// A session's expiry was moved; its data stayed.
    Touched,
    /// A session got a new id.
    Regenerated {
        /// The session under its former id.
        former: Fingerprint,
    },
    /// A session was ended.
    Destroyed,
    /// Two requests changed a session at once; the result depends on `on_conflict`.
    Conflict {
        /// The field that both changed so that they cannot both hold, as a JSON pointer (RFC 6901). `None`
        /// if the changes were merged, or exclude each other as a whole.
        field: Option<String>,
    },
    /// A request wanted to save a session that another had ended.
    Gone,
    /// A session did not fit, and nothing was sent.
    TooLarge {
        /// The bytes it takes.
        actual: usize,
        /// The bytes it may take.
        limit: usize,
    },
    /// A store failed or hung.
    StoreError {
        /// The operation that was asked for, such as `load`.
        operation: &'static str,
    },
}

impl SessionEvent {
    /// Returns the name of its kind in snake case, such as `invalid_token`.
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }
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

    const fn is_error(&self) -> bool {
        matches!(self, Self::StoreError { .. } | Self::TooLarge { .. })
    }

    /// Events that clients can cause at will are no warnings, or anyone could flood the log.
    const fn is_warning(&self) -> bool {
        matches!(self, Self::Corrupt | Self::Newer)
    }
}

pub(crate) type Hook = dyn Fn(&SessionEvent) + Send + Sync;

/// Where one manager's events go.
pub(crate) struct Events {
    pub(crate) kind: Arc<str>,
    pub(crate) hook: Option<Arc<Hook>>,
}

const TARGET: &str = "axum_typed_session::event";

impl Events {
    /// Reports an event. `session` is not asked for when nobody listens, since it takes a hash.
    pub(crate) fn report(
        &self,
        kind: SessionEventKind,
        session: impl FnOnce() -> Option<StoreKey>,
    ) {
        let is_everyday = !kind.is_error() && !kind.is_warning();
        if is_everyday && self.hook.is_none() && !tracing::enabled!(target: TARGET, Level::DEBUG) {
            return;
        }
        let event = SessionEvent { kind, session: session().map(|key| key.fingerprint()) };
        if let Some(hook) = &self.hook {
            hook(&event);
        }
        self.trace(&event);
    }

    fn trace(&self, event: &SessionEvent) {
        macro_rules! trace {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    event = event.name(),
                    kind = &*self.kind,
                    session = event.session.map(tracing::field::display),
                    detail = ?event.kind,
                )
            };
        }
        if event.kind.is_error() {
            trace!(Level::ERROR);
        } else if event.kind.is_warning() {
            trace!(Level::WARN);
        } else {
            trace!(Level::DEBUG);
        }
    }
}
