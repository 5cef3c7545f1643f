//! The guard: it carries the outcome of a commit into the response.

use std::{convert::Infallible, fmt, sync::Arc};

use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};

use crate::{
    error::SessionError,
    handle::SessionHandle,
    id::{SessionId, StoreKey},
    manager::{Basis, SessionManager},
    request::Cell,
};

/// The guard that [`Session::commit`](crate::Session::commit) returns; it puts the session's cookie into the
/// response.
///
/// Return it as the last part before the body: `Ok((session.commit().await?, body))`, or with headers of your own
/// `Ok((headers, session.commit().await?, body))`. Putting it there cannot fail.
///
/// - It sets or removes the cookie as the latest commit of the request's session demands, and replaces an earlier
///   cookie of the same name. Other cookies stay.
/// - It appends the header that carries the token to `Vary`.
/// - Where a token is set or removed, `Cache-Control` becomes `no-store`, unless it already says `no-store` or
///   `private`. Elsewhere a missing `Cache-Control` becomes `private`.
///
/// # Security
///
/// axum makes a response of the body, the last value, and then applies the parts in order. Headers of one part replace
/// those of the same name, so that a part after the guard can undo what the guard did:
///
/// | response | what the client gets |
/// |---|---|
/// | `(commit, [("set-cookie", "theme=dark")], body)` | no session cookie |
/// | `(commit, [("cache-control", "public")], body)` | a session cookie that shared caches may give to others |
/// | `(headers, commit)` | the same faults: the guard is the body; end with `()` |
/// | `(parts, commit, body)`, of `http::response::Parts` or `Response<()>` | the same faults: axum applies `parts` last |
/// | `(headers, commit, body)` | both cookies, and `Cache-Control: no-store` |
///
/// [`wrap`](Self::wrap) puts the guard's headers onto a whole response, so that no order matters.
/// [`AutoCommitLayer`](crate::AutoCommitLayer) puts them there once more.
#[must_use = "the client gets the cookie only if the response contains this guard, as in \
    `Ok((session.commit().await?, body))`"]
pub struct SessionCommit(pub(crate) Arc<Cell>);

impl SessionCommit {
    /// Returns the session's id after the request's latest commit; `None` if the session ended or is still fresh.
    ///
    /// After a [`regenerate`](crate::Session::regenerate) this is the new id. Treat it like a password; other parts of
    /// the program need only the [`key`](Self::key).
    pub fn id(&self) -> Option<SessionId> {
        self.0.id()
    }

    /// Returns the key under which the store keeps the session after the request's latest commit; `None` if the
    /// session ended or is still fresh.
    ///
    /// After a [`regenerate`](crate::Session::regenerate) this is the key of the new id. It names the one session to
    /// keep when the owner's others end, as after a change of password:
    ///
    /// ```
    /// use axum::{extract::State, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    ///
    /// async fn password_changed(
    ///     State(sessions): State<SessionManager<String>>,
    ///     mut session: Session<String>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     session.regenerate();
    ///     let user = session.clone();
    ///     let commit = session.commit().await?;
    ///     if let Some(key) = commit.key() {
    ///         sessions.destroy_others_of(&user, key).await?;
    ///     }
    ///     Ok(commit)
    /// }
    /// ```
    pub fn key(&self) -> Option<StoreKey> {
        self.id().map(StoreKey::from)
    }

    /// Returns a handle to the session after the request's latest commit, for a socket, a stream or a job.
    ///
    /// Here a visitor whose session was fresh has one too, since the commit saved it. `T` is the type of the
    /// [`Session<T>`](crate::Session) that was committed. Put the guard into the response that opens the socket or
    /// stream, since later nothing can set the cookie.
    ///
    /// # Errors
    ///
    /// - [`SessionError::NotSaved`] if the session is still fresh, since nothing changed, or has ended.
    /// - [`SessionError::NoStore`] in cookie mode, where the data leaves with the response.
    /// - [`SessionError::OtherType`] if the guard is of a session of another type.
    ///
    /// # Example
    ///
    /// Server-sent events that begin with a visitor's first request:
    ///
    /// ```
    /// # use std::{convert::Infallible, time::Duration};
    /// use axum::response::{IntoResponse, sse::{Event, Sse}};
    /// use axum_typed_session::{Session, SessionError};
    /// use futures_util::stream;
    ///
    /// async fn visits(mut visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    ///     *visits += 1;
    ///     let commit = visits.commit().await?;
    ///     let events = stream::unfold(commit.handle::<u32>()?, async |handle| {
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///         let visits = handle.load().await.ok()?; // the stream ends with the session
    ///         let event = Event::default().data(visits.to_string());
    ///         Some((Ok::<_, Infallible>(event), handle))
    ///     });
    ///     Ok((commit, Sse::new(events)))
    /// }
    /// ```
    pub fn handle<T: Send + Sync + 'static>(&self) -> Result<SessionHandle<T>, SessionError> {
        let basis = self.0.basis().ok();
        SessionHandle::new(&self.0.core, basis.as_deref().and_then(Basis::live))
    }

    /// Puts the session's cookie onto a whole response, after everything else in it.
    ///
    /// Use it for a response that another function made, and where the order of parts is not in your hands.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{http::header, response::{IntoResponse, Response}};
    /// use axum_typed_session::{Session, SessionError};
    ///
    /// fn page(visits: u32) -> impl IntoResponse {
    ///     ([(header::SET_COOKIE, "theme=dark")], format!("{visits} visits"))
    /// }
    ///
    /// async fn index(mut visits: Session<u32>) -> Result<Response, SessionError> {
    ///     *visits += 1;
    ///     let page = page(*visits);
    ///     Ok(visits.commit().await?.wrap(page))
    /// }
    /// ```
    pub fn wrap(self, response: impl IntoResponse) -> Response {
        (self, response).into_response()
    }
}

impl<T> SessionManager<T> {
    /// Returns the guard for a request without a session, where `Option<Session<T>>` is `None`.
    ///
    /// That response depends on the missing session: a shared cache must not serve it to a visitor who has one.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{extract::State, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    ///
    /// async fn me(
    ///     State(sessions): State<SessionManager<String>>,
    ///     session: Option<Session<String>>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     Ok(match session {
    ///         Some(session) => {
    ///             let body = format!("you are {}", *session);
    ///             (session.commit().await?, body)
    ///         }
    ///         None => (sessions.no_session(), "nobody".to_owned()),
    ///     })
    /// }
    /// ```
    pub fn no_session(&self) -> SessionCommit {
        SessionCommit(Arc::new(Cell::new(self.core.clone(), Arc::default())))
    }
}

impl Drop for SessionCommit {
    fn drop(&mut self) {
        self.0.fate.poison_if_panicking();
    }
}

impl IntoResponseParts for SessionCommit {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        self.0.deliver(parts.headers_mut());
        Ok(parts)
    }
}

impl IntoResponse for SessionCommit {
    /// Makes an empty response of status 200 with the session's cookie.
    ///
    /// Parts before it are applied to this response, after the guard. With headers of your own, end with `()`.
    fn into_response(self) -> Response {
        (self, ()).into_response()
    }
}

impl fmt::Debug for SessionCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCommit").finish_non_exhaustive()
    }
}
