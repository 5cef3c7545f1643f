//! What happened to sessions, for logs, metrics and alarms.

use std::{fmt, sync::Arc};

use tracing::Level;

use crate::id::Fingerprint;

/// Something that happened to a session.
///
/// Every event is also written with `tracing`, under the target `axum_typed_session::event`. None carries an id, a
/// key or a payload; [`session`](Self::session) is a fingerprint that finds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A token came in whose session the store does not have.
    Missed {
        /// The session.
        session: Fingerprint,
    },
    /// A session came in after its end.
    Expired {
        /// The session.
        session: Fingerprint,
    },
    /// `validate` or `migrate` refused a session that came in.
    Invalid {
        /// The session.
        session: Fingerprint,
    },
    /// A session came in whose data cannot be read.
    Corrupt {
        /// The session.
        session: Fingerprint,
    },
    /// A session came in that a newer version wrote.
    Newer {
        /// The session, if it could be told.
        session: Option<Fingerprint>,
    },
    /// A session came in that a logout, a revocation or a new id has ended.
    Revoked {
        /// The session.
        session: Fingerprint,
    },
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
    Created {
        /// The session.
        session: Fingerprint,
    },
    /// A session was saved.
    Saved {
        /// The session.
        session: Fingerprint,
    },
    /// A session's expiry was moved; its data stayed.
    Touched {
        /// The session.
        session: Fingerprint,
    },
    /// A session got a new id.
    Regenerated {
        /// The session under its new id.
        session: Fingerprint,
        /// The session under its former id.
        former: Fingerprint,
    },
    /// A session was ended.
    Destroyed {
        /// The session.
        session: Fingerprint,
    },
    /// Two requests changed a session at once; what became of it is up to `on_conflict`.
    Conflict {
        /// The session.
        session: Fingerprint,
        /// The field that both changed so that they cannot both hold, as a JSON pointer (RFC 6901). `None`
        /// if the changes were merged, or exclude each other as a whole.
        field: Option<String>,
    },
    /// A request wanted to save a session that another had ended.
    Gone {
        /// The session, unless its id was replaced.
        session: Option<Fingerprint>,
    },
    /// A session did not fit, and nothing was sent.
    TooLarge {
        /// The bytes it takes.
        actual: usize,
        /// The bytes it may take.
        limit: usize,
    },
    /// A store failed or hung.
    StoreError {
        /// What it was asked, such as `load`.
        operation: &'static str,
    },
}

impl SessionEvent {
    /// Returns the event's name in snake case, such as `invalid_token`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Missed { .. } => "missed",
            Self::Expired { .. } => "expired",
            Self::Invalid { .. } => "invalid",
            Self::Corrupt { .. } => "corrupt",
            Self::Newer { .. } => "newer",
            Self::Revoked { .. } => "revoked",
            Self::InvalidToken => "invalid_token",
            Self::UnknownKey => "unknown_key",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Created { .. } => "created",
            Self::Saved { .. } => "saved",
            Self::Touched { .. } => "touched",
            Self::Regenerated { .. } => "regenerated",
            Self::Destroyed { .. } => "destroyed",
            Self::Conflict { .. } => "conflict",
            Self::Gone { .. } => "gone",
            Self::TooLarge { .. } => "too_large",
            Self::StoreError { .. } => "store_error",
        }
    }

    /// Returns the fingerprint of the session it is about, if there is one.
    #[must_use]
    pub const fn session(&self) -> Option<Fingerprint> {
        match self {
            Self::Missed { session }
            | Self::Expired { session }
            | Self::Invalid { session }
            | Self::Corrupt { session }
            | Self::Revoked { session }
            | Self::Created { session }
            | Self::Saved { session }
            | Self::Touched { session }
            | Self::Regenerated { session, .. }
            | Self::Destroyed { session }
            | Self::Conflict { session, .. } => Some(*session),
            Self::Newer { session } | Self::Gone { session } => *session,
            Self::InvalidToken
            | Self::UnknownKey
            | Self::Ambiguous { .. }
            | Self::TooLarge { .. }
            | Self::StoreError { .. } => None,
        }
    }

    /// What clients can cause at will is no warning, or anyone could flood the log.
    const fn level(&self) -> Level {
        match self {
            Self::StoreError { .. } | Self::TooLarge { .. } => Level::ERROR,
            Self::Corrupt { .. } | Self::Newer { .. } => Level::WARN,
            Self::Missed { .. }
            | Self::Expired { .. }
            | Self::Invalid { .. }
            | Self::Revoked { .. }
            | Self::InvalidToken
            | Self::UnknownKey
            | Self::Ambiguous { .. }
            | Self::Created { .. }
            | Self::Saved { .. }
            | Self::Touched { .. }
            | Self::Regenerated { .. }
            | Self::Destroyed { .. }
            | Self::Conflict { .. }
            | Self::Gone { .. } => Level::DEBUG,
        }
    }
}

pub(crate) type Hook = dyn Fn(&SessionEvent) + Send + Sync;

/// Where one manager's events go.
#[derive(Clone)]
pub(crate) struct Events {
    kind: Arc<str>,
    hook: Option<Arc<Hook>>,
}

impl Events {
    pub(crate) fn new(kind: Arc<str>, hook: Option<Arc<Hook>>) -> Self {
        Self { kind, hook }
    }

    /// Reports an everyday event, which is not even made when nobody listens: most name a session, and
    /// that takes a hash.
    pub(crate) fn emit(&self, make: impl FnOnce() -> SessionEvent) {
        if self.hook.is_some() || tracing::enabled!(target: TARGET, Level::DEBUG) {
            let event = make();
            debug_assert_eq!(event.level(), Level::DEBUG, "{event:?} is an alarm");
            self.report(&event);
        }
    }

    /// Reports an event of a higher level, which is too rare for its cost to matter.
    pub(crate) fn alarm(&self, event: &SessionEvent) {
        self.report(event);
    }

    fn report(&self, event: &SessionEvent) {
        if let Some(hook) = &self.hook {
            hook(event);
        }
        self.trace(event);
    }

    fn trace(&self, event: &SessionEvent) {
        macro_rules! write {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    event = event.name(),
                    kind = &*self.kind,
                    session = event.session().map(tracing::field::display),
                    detail = ?event,
                )
            };
        }
        match event.level() {
            Level::ERROR => write!(Level::ERROR),
            Level::WARN => write!(Level::WARN),
            _ => write!(Level::DEBUG),
        }
    }
}

const TARGET: &str = "axum_typed_session::event";

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("kind", &self.kind)
            .field("hook", &self.hook.is_some())
            .finish()
    }
}
