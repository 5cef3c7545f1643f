//! The three errors: of a store, of a session, and of a configuration.

use std::{error::Error, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a [`SessionStore`](crate::SessionStore) could not do an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not be reached, or failed internally.
    #[error("the session store is unavailable")]
    Unavailable(#[source] BoxError),

    /// The store did not answer within [`store_timeout`](crate::SessionManagerBuilder::store_timeout). Whether a
    /// write took effect is unknown.
    #[error(
        "the session store did not answer within {after:?} (`store_timeout`); \
         whether a write took effect is unknown"
    )]
    Timeout {
        /// The time that was exceeded.
        after: Duration,
    },

    /// The store refuses another session because it has reached its bound.
    #[error("the session store is full; raise its capacity or shorten `anonymous_idle_timeout`")]
    Full,

    /// The row was not written by this crate, or was damaged.
    #[error("the stored session is unreadable")]
    Corrupt,

    /// The row has a record format that only a newer release of this crate can read.
    #[error("the stored session has a newer record format; upgrade this node")]
    Newer,

    /// The store does not implement an optional operation.
    #[error("this session store does not support `{operation}`")]
    Unsupported {
        /// The method of [`SessionStore`](crate::SessionStore) that was called.
        operation: &'static str,
    },
}

impl StoreError {
    /// Makes an [`Unavailable`](Self::Unavailable) error of an engine's own error.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// Why a session could not be extracted or committed, or why an operation outside a request failed.
///
/// Bad, foreign and expired tokens are not errors. They lead to a fresh session and a
/// [`SessionEvent`](crate::SessionEvent).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The store, or the revocation list, failed or did not answer in time: 503. After a time-out it is unknown
    /// whether a write took effect.
    #[error("the session could not be loaded or stored")]
    Store(#[source] StoreError),

    /// The session was written by a newer release of the application or of this crate: 503.
    ///
    /// A fresh session would replace data that a newer node still needs.
    #[error(
        "the session was written by a newer version; finish the rollout, \
         or accept it first with `accept_schema`"
    )]
    Newer,

    /// Two managers in one request use the same cookie or header, the one perhaps as a former cookie: 500.
    #[error(
        "two session managers of one request use the {carrier}; give one of them another `.cookie(..)`, \
         `.former_cookie(..)` or `.transport(..)`"
    )]
    DuplicateName {
        /// The cookie or header, such as `cookie "__Host-session"`.
        carrier: String,
    },

    /// Another request changed the same data, and both changes cannot hold: 409.
    #[error(
        "another request changed the same session data; repeat the request, change it \
         through `update`, or choose another `on_conflict`"
    )]
    Conflict,

    /// Another request ended the session or gave it a new id or owner: 409.
    #[error("the session has ended, or another request gave it a new id or another owner")]
    Gone,

    /// The session does not fit into [`max_payload`](crate::SessionManagerBuilder::max_payload) or
    /// [`max_cookie_bytes`](crate::SessionManagerBuilder::max_cookie_bytes): 500.
    #[error(
        "the session takes {actual} bytes where {limit} are allowed; keep less in it, raise \
         `.max_payload(..)`, or use `.store(..)` where a cookie is the limit (`.max_cookie_bytes(..)`, at most 4096)"
    )]
    TooLarge {
        /// The bytes it takes.
        actual: usize,
        /// The bytes it may take.
        limit: usize,
    },

    /// The data could not be serialized, or does not read back: 500.
    #[error("the session data could not be encoded by its `Serialize` or `codec`")]
    Encode(#[source] BoxError),

    /// [`validate_data`](crate::SessionManagerBuilder::validate_data) refuses the data: 500.
    #[error("`validate_data` refuses the session data, so it was not saved")]
    Invalid,

    /// The token could not be made: 500.
    #[error("the session token could not be sealed or written as a header")]
    Seal(#[source] BoxError),

    /// The session was committed after its response had been made: 500.
    #[error(
        "the sessions of this request are committed and its response is on its way; commit earlier, \
         or keep a `SessionHandle` (`session.handle()`) instead of the session"
    )]
    Closed,

    /// The operation needs a session store: 500.
    #[error(
        "`{operation}` needs a session store; set one with `.store(..)`, or where `.store_for(..)` chooses, \
         name one with `manager.for_request(..)` or `manager.with_store(..)`"
    )]
    NoStore {
        /// The method that was called.
        operation: &'static str,
    },

    /// The operation needs a saved session, and this session is fresh or has ended: 500.
    #[error("the session is not saved; change it or call `force_save()`, and commit it first")]
    NotSaved,

    /// [`SessionCommit::handle`](crate::SessionCommit::handle) was asked for another type than the session's: 500.
    #[error(
        "`handle::<{asked}>()` of a commit of `Session<{actual}>`; write `handle::<{actual}>()`"
    )]
    OtherType {
        /// The type that was asked for.
        asked: &'static str,
        /// The type of the session.
        actual: &'static str,
    },

    /// The request did not prove that it comes from a page of this session: 403. See
    /// [`verify_csrf`](crate::Session::verify_csrf).
    #[error(
        "the CSRF token is not of this session; send back what `csrf_token()` returned, and after a `regenerate()` \
         render the form again"
    )]
    Csrf,

    /// [`update`](crate::Session::update) was called on a session with uncommitted changes: 500.
    #[error("`update` needs a session without uncommitted changes; commit them first")]
    Uncommitted,

    /// Every id that was drawn for a new session is in use: 500.
    #[error("every id drawn was in use; `id_generator` must return random ids")]
    IdInUse,

    /// [`cookie_for`](crate::SessionManagerBuilder::cookie_for) or
    /// [`audience_for`](crate::SessionManagerBuilder::audience_for) returned what cannot be used, or an operation
    /// outside a request was not told for which tenant: 500.
    #[error(transparent)]
    Config(ConfigError),

    /// The operating system gave no random bytes: 500.
    #[error("the operating system's random source failed")]
    Random(#[source] BoxError),
}

/// The source of [`SessionError::Encode`] for data that its codec encodes but does not decode.
pub(crate) const DOES_NOT_READ_BACK: &str = "the session data would not read back, so it was not saved; look for a \
    float that is NaN or infinite, nesting of more than 127 levels, and `skip_serializing_if` without \
    `#[serde(default)]`";

impl SessionError {
    /// Returns the status of the response that this error becomes.
    pub fn status(&self) -> StatusCode {
        if matches!(self, Self::Store(_) | Self::Newer) {
            StatusCode::SERVICE_UNAVAILABLE
        } else if matches!(self, Self::Conflict | Self::Gone) {
            StatusCode::CONFLICT
        } else if matches!(self, Self::Csrf) {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }

    /// Logs the error and returns a response that shows the client no internals.
    pub(crate) fn response(&self) -> Response {
        let status = self.status();
        // As an `Error`, so that a subscriber can follow its sources.
        let error: &(dyn Error + 'static) = self;
        if status.is_server_error() {
            tracing::error!(error, "session error");
        } else {
            tracing::info!(error, "session error");
        }
        let text = match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                "The service is unavailable at the moment, please try again.\n"
            }
            StatusCode::CONFLICT => "Your session changed in the meantime, please try again.\n",
            StatusCode::FORBIDDEN => "This page is out of date, please load it again.\n",
            _ => "The session could not be handled.\n",
        };
        (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Newer) { Self::Newer } else { Self::Store(error) }
    }
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let mut response = self.response();
        response.extensions_mut().insert(Failed(Arc::new(self)));
        response
    }
}

/// The error behind a response, from which the layer renders the configured response.
#[derive(Clone)]
pub(crate) struct Failed(pub(crate) Arc<SessionError>);

/// Why [`build`](crate::SessionManagerBuilder::build) refused a configuration, or a [`KeyRing`](crate::KeyRing) could
/// not be read. The text names the option or the variable, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}
