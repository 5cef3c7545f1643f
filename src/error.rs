//! The three errors: of a store, of a session, and of a configuration.

mod texts;

use std::{error::Error, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// The result of what the core does.
pub(crate) type Result<T, E = SessionError> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The error of a [`SessionStore`](crate::SessionStore) that could not do an operation.
///
/// In a handler it is the source of [`SessionError::Store`], with the status 503. A store of your own returns these
/// variants. [`StoreError::unavailable`] wraps the error of a database driver, and has an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not be reached, or failed internally.
    Unavailable(BoxError),

    /// The store did not answer within [`store_timeout`](crate::SessionManagerBuilder::store_timeout). It is
    /// unknown whether a write took effect.
    Timeout {
        /// The time that was exceeded.
        after: Duration,
    },

    /// The store has reached its capacity, and refuses another session.
    Full,

    /// The stored session is damaged, or this crate did not write it.
    Corrupt,

    /// The stored session has a record format that only a newer release of this crate can read.
    Newer,

    /// The session has expired, and its row is not deleted yet.
    ///
    /// [`load`](crate::SessionStore::load) may return it instead of `None`, so that the event of the session is
    /// [`Expired`](crate::SessionEventKind::Expired) and not [`Missed`](crate::SessionEventKind::Missed).
    Expired,

    /// The store does not implement an optional operation.
    Unsupported {
        /// The method of [`SessionStore`](crate::SessionStore) that was called.
        operation: &'static str,
    },
}

impl StoreError {
    /// Makes an [`Unavailable`](Self::Unavailable) error from the error of a database driver, or from a text.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::StoreError;
    ///
    /// fn read(path: &str) -> Result<Vec<u8>, StoreError> {
    ///     std::fs::read(path).map_err(StoreError::unavailable)
    /// }
    /// ```
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// The error of an extraction, of a commit, or of an operation outside a request.
///
/// It is an axum response: a handler returns `Result<_, SessionError>` and uses `?`. The client gets the status and
/// one short plain sentence; the log gets the details.
/// [`error_response`](crate::SessionManagerBuilder::error_response) sets another page. A bad, foreign or expired
/// token is not an error. It leads to a fresh session, which is a new session that was not loaded from the request,
/// and to a [`SessionEvent`](crate::SessionEvent).
///
/// # Example
///
/// A handler that answers a conflict with a page of its own:
///
/// ```
/// use axum::{http::StatusCode, response::{IntoResponse, Response}};
/// use axum_typed_session::{Session, SessionError};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
///
/// async fn index(mut session: Session<Visits>) -> Result<Response, SessionError> {
///     session.count += 1;
///     match session.commit().await {
///         Ok(commit) => Ok(commit.into_response()),
///         Err(SessionError::Conflict) => {
///             Ok((StatusCode::CONFLICT, "You clicked twice.").into_response())
///         }
///         Err(error) => Err(error),
///     }
/// }
/// ```
///
/// [`guide::errors`](crate::guide::errors) lists what to do about each error.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// 503: the store or the revocation list failed, or did not answer in time. After a timeout it is unknown
    /// whether a write took effect.
    Store(StoreError),

    /// 503: a newer version of the application or of this crate wrote the session. A fresh session would replace
    /// data that a newer node still needs. See [`accept_schema`](crate::SessionManagerBuilder::accept_schema).
    Newer,

    /// 500: two managers in one request use the same cookie or header, or a former cookie of one manager is the
    /// cookie of the other.
    DuplicateName {
        /// The cookie or header, such as `cookie "__Host-session"`.
        carrier: String,
    },

    /// 409: another request changed the same data, and both changes cannot be kept. See
    /// [`guide::parallel_requests`](crate::guide::parallel_requests).
    Conflict,

    /// 409: another request ended the session, or gave it a new id or another owner.
    Gone,

    /// 500: the session is larger than [`max_payload`](crate::SessionManagerBuilder::max_payload) or
    /// [`max_cookie_bytes`](crate::SessionManagerBuilder::max_cookie_bytes) allows.
    TooLarge {
        /// The bytes that the session takes.
        actual: usize,
        /// The bytes that it may take.
        limit: usize,
    },

    /// 500: the data could not be serialized, or does not read back. [`Codec`](crate::Codec) lists such data.
    Encode(BoxError),

    /// 500: [`validate_data`](crate::SessionManagerBuilder::validate_data) rejects the data.
    Invalid,

    /// 500: the token could not be encrypted or signed, or is not a valid header value.
    Seal(BoxError),

    /// 500: the session was committed after its response had been made.
    Closed,

    /// 500: the operation needs a [`store`](crate::SessionManagerBuilder::store).
    NoStore {
        /// The method that was called.
        operation: &'static str,
    },

    /// 500: the operation needs a stored session, and this session is fresh or has ended.
    NotSaved,

    /// 500: [`SessionCommit::handle`](crate::SessionCommit::handle) was called with another type than the type of
    /// the session.
    OtherType {
        /// The type of the call.
        asked: &'static str,
        /// The type of the session.
        actual: &'static str,
    },

    /// 403: the request did not prove that it comes from a page of this session. See
    /// [`verify_csrf`](crate::Session::verify_csrf).
    Csrf,

    /// 500: [`update`](crate::Session::update) was called on a session with uncommitted changes.
    Uncommitted,

    /// 500: all ids that were generated for a new session are already in use.
    IdInUse,

    /// 500: [`cookie_for`](crate::SessionManagerBuilder::cookie_for) or
    /// [`audience_for`](crate::SessionManagerBuilder::audience_for) returned a value that cannot be used, or an
    /// operation outside a request does not know its tenant.
    Config(ConfigError),

    /// 500: the operating system gave no random bytes.
    Random(BoxError),
}

/// The source of [`SessionError::Encode`] for data that its codec encodes but does not decode.
pub(crate) const DOES_NOT_READ_BACK: &str = "the session data does not read back from its own encoding, so it \
    was not saved; look for a float that is NaN or infinite, for more than 127 levels of nesting, and for \
    `skip_serializing_if` without `#[serde(default)]`";

impl SessionError {
    /// Returns the status of the response that this error becomes: 403, 409, 500 or 503, as each variant says.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use axum_typed_session::SessionError;
    ///
    /// assert_eq!(SessionError::Conflict.status(), StatusCode::CONFLICT);
    /// assert_eq!(SessionError::Csrf.status(), StatusCode::FORBIDDEN);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.answer().0
    }

    /// Returns the status and the text for the client.
    fn answer(&self) -> (StatusCode, &'static str) {
        if matches!(self, Self::Store(_) | Self::Newer) {
            let text = "The service is unavailable at the moment, please try again.\n";
            (StatusCode::SERVICE_UNAVAILABLE, text)
        } else if matches!(self, Self::Conflict | Self::Gone) {
            (StatusCode::CONFLICT, "Your session changed in the meantime, please try again.\n")
        } else if matches!(self, Self::Csrf) {
            (StatusCode::FORBIDDEN, "This page is out of date, please load it again.\n")
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, "The session could not be handled.\n")
        }
    }

    /// Logs the error and returns a response that shows the client no internals.
    pub(crate) fn response(&self) -> Response {
        let (status, text) = self.answer();
        // Logged as an `Error`, so that a subscriber can follow its sources.
        let error: &(dyn Error + 'static) = self;
        if status.is_server_error() {
            tracing::error!(error, "session error");
        } else {
            tracing::info!(error, "session error");
        }
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

/// The error of a configuration that [`build`](crate::SessionManagerBuilder::build) refuses, or of keys that a
/// [`KeyRing`](crate::KeyRing) cannot read. The text names the option or the variable, and the fix.
///
/// # Example
///
/// ```
/// use axum_typed_session::SessionManager;
///
/// let error = SessionManager::<u32>::builder().build().unwrap_err();
/// assert!(error.to_string().contains(".keys(..)"));
/// ```
#[derive(Debug)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}
