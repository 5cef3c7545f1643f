//! The guard: it puts the outcome of a commit into the response.

use std::{convert::Infallible, fmt};

use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use http::request::Parts;
use time::OffsetDateTime;

use crate::{
    error::SessionError,
    handle::SessionHandle,
    id::{SessionId, StoreKey},
    manager::{Basis, SessionManager},
    request::{Cell, RequestSessions},
};

/// The *guard* of a session: [`Session::commit`](crate::Session::commit) returns it, and it puts the session's
/// cookie into the response.
///
/// Return it before the body: `Ok((session.commit().await?, body))`. With headers of your own, return it after
/// them: `Ok((headers, session.commit().await?, body))`. The example of [`Session`](crate::Session) shows a whole
/// handler. Putting the guard into a response cannot fail.
///
/// The guard writes three headers:
///
/// - `Set-Cookie` sets or removes the cookie, as the latest commit of the request decided. It replaces an earlier
///   cookie of the same name. Other cookies stay. A [`Transport`](crate::Transport) without a cookie writes its own
///   header.
/// - `Vary` gets the name of the request header that carries the token.
/// - `Cache-Control` becomes `no-store` if the response sets or removes a token, unless it already contains
///   `no-store` or `private`. In other responses a missing `Cache-Control` becomes `private`.
///
/// # Security
///
/// axum makes a response from the body, which is the last value, and then applies the parts in their order. A later
/// part replaces headers of the same name. So a part after the guard can undo the work of the guard:
///
/// | response | result |
/// |---|---|
/// | `(commit, [("set-cookie", "theme=dark")], body)` | no session cookie |
/// | `(commit, [("cache-control", "public")], body)` | shared caches may give the session cookie to other visitors |
/// | `(headers, commit)` | the same faults, since the guard is the body; end with `()` |
/// | `(parts, commit, body)`, of `http::response::Parts` or `Response<()>` | the same faults, since axum applies `parts` last |
/// | `(headers, commit, body)` | correct: both cookies, and `Cache-Control: no-store` |
///
/// [`wrap`](Self::wrap) puts the headers of the guard onto a whole response, so the order does not matter.
/// [`AutoCommitLayer`](crate::AutoCommitLayer) writes them once more after the handler.
#[doc(alias = "guard")]
#[must_use = "the client gets the cookie only if the response contains this guard, as in \
    `Ok((session.commit().await?, body))`"]
pub struct SessionCommit(pub(crate) Cell);

impl SessionCommit {
    /// Returns the id of the session after the latest commit of the request; `None` if the session ended or is
    /// still fresh, which means that it was neither loaded from the request nor saved.
    ///
    /// After a [`regenerate`](crate::Session::regenerate) this is the new id. Treat it like a password. Other parts
    /// of the program need only the [`key`](Self::key), which has an example.
    #[doc(alias = "session_id")]
    pub fn id(&self) -> Option<SessionId> {
        self.0.id()
    }

    /// Returns the key under which the store keeps the session after the latest commit of the request; `None` if
    /// the session ended or is still fresh.
    ///
    /// After a [`regenerate`](crate::Session::regenerate) this is the key of the new id.
    ///
    /// # Example
    ///
    /// A change of password ends all other sessions of the user:
    ///
    /// ```
    /// use axum::{extract::State, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn password_changed(
    ///     State(sessions): State<SessionManager<Login>>,
    ///     mut session: Session<Login>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     session.regenerate();
    ///     let user = session.user.clone();
    ///     let commit = session.commit().await?;
    ///     if let (Some(user), Some(key)) = (user, commit.key()) {
    ///         sessions.destroy_others_of(&user, key).await?;
    ///     }
    ///     Ok(commit)
    /// }
    /// ```
    pub fn key(&self) -> Option<StoreKey> {
        self.id().map(StoreKey::from)
    }

    /// Returns the time at which the session ends unless a later commit extends it; `None` if it ended or is still
    /// fresh. [`Session::expires_at`](crate::Session::expires_at) before the commit is the end without what the commit
    /// adds, such as by [`rolling`](crate::SessionManagerBuilder::rolling).
    ///
    /// # Example
    ///
    /// An API tells its client how long the session lasts:
    ///
    /// ```
    /// use axum::{Json, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn visit(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    ///     session.count += 1;
    ///     let commit = session.commit().await?;
    ///     let ends = commit.expires_at().map(|time| time.unix_timestamp());
    ///     Ok((commit, Json(ends)))
    /// }
    /// ```
    #[doc(alias("expiry", "ttl"))]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        let basis = self.0.basis().ok()?;
        Some(self.0.core.policy.ends_at(&basis.live()?.record.lifetime).into())
    }

    /// Returns a handle to the session after the latest commit of the request, for a socket, a stream or a job.
    ///
    /// Unlike [`Session::handle`](crate::Session::handle) it also serves a visitor whose session was fresh, since
    /// the commit has saved it. `T` is the type of the [`Session<T>`](crate::Session) that was committed. Return
    /// the guard in the response that opens the socket or the stream: a later response cannot set the cookie.
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
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn visits(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    ///     session.count += 1;
    ///     let commit = session.commit().await?;
    ///     let events = stream::unfold(commit.handle::<Visits>()?, async |handle| {
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///         let visits = handle.load().await.ok()?; // the stream ends with the session
    ///         let event = Event::default().data(visits.count.to_string());
    ///         Some((Ok::<_, Infallible>(event), handle))
    ///     });
    ///     Ok((commit, Sse::new(events)))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::NotSaved`] if the session is still fresh because nothing changed, or if it has ended.
    /// - [`SessionError::NoStore`] without a store, since the data leaves with the response.
    /// - [`SessionError::OtherType`] if the guard belongs to a session of another type.
    pub fn handle<T: Send + Sync + 'static>(&self) -> Result<SessionHandle<T>, SessionError> {
        let basis = self.0.basis().ok();
        SessionHandle::new(&self.0.core, basis.as_deref().and_then(Basis::live))
    }

    /// Puts the headers of the guard onto a whole response, after all other headers in it.
    ///
    /// Use it if another function makes the response, or if you do not control the order of its parts.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{http::header, response::{IntoResponse, Response}};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// fn page(count: u32) -> impl IntoResponse {
    ///     ([(header::SET_COOKIE, "theme=dark")], format!("{count} visits"))
    /// }
    ///
    /// async fn index(mut session: Session<Visits>) -> Result<Response, SessionError> {
    ///     session.count += 1;
    ///     let page = page(session.count);
    ///     Ok(session.commit().await?.wrap(page))
    /// }
    /// ```
    pub fn wrap(self, response: impl IntoResponse) -> Response {
        (self, response).into_response()
    }
}

impl<T> SessionManager<T> {
    /// Returns the guard, a [`SessionCommit`], for a request without a session: `Option<Session<T>>` is `None`
    /// there.
    ///
    /// The response depends on the missing session, so a shared cache must not serve it to a visitor who has a
    /// session. The guard sets no cookie.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{extract::State, response::IntoResponse};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn index(
    ///     State(sessions): State<SessionManager<Visits>>,
    ///     session: Option<Session<Visits>>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     let Some(session) = session else {
    ///         return Ok((sessions.no_session(), "no visits".to_owned()));
    ///     };
    ///     let body = format!("{} visits", session.count);
    ///     Ok((session.commit().await?, body))
    /// }
    /// ```
    pub fn no_session(&self) -> SessionCommit {
        SessionCommit(Cell::alone(self.core.clone()))
    }

    /// Ends the session of a request, also if this node cannot read it. Returns the guard, which removes the cookie.
    ///
    /// After an update of the application was taken back, some sessions have data of the newer version. An extractor
    /// answers 503 ([`SessionError::Newer`]) then, so that no older node replaces the data. So a sign-out with
    /// [`Session::destroy`](crate::Session::destroy) answers 503 too. This method signs out all the same. In every
    /// other case it does what that `destroy` and its commit do.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{extract::State, http::request::Parts, response::{IntoResponse, Redirect}};
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn sign_out(
    ///     State(sessions): State<SessionManager<Login>>,
    ///     parts: Parts,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     Ok((sessions.destroy_in(&parts).await?, Redirect::to("/")))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] unless it is certain that the session has ended. The cookie stays then.
    /// - All other errors of [`commit`](crate::Session::commit).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the session may have ended or not. It is safe to call again.
    #[doc(alias("logout", "sign out"))]
    pub async fn destroy_in(&self, parts: &Parts) -> Result<SessionCommit, SessionError> {
        let cell = RequestSessions::seen_in(&parts.extensions).cell(self.core.clone(), parts)?;
        let mut draft = cell.hand_out_to_end(parts).await?;
        draft.intents.destroy = true;
        if let Some(commit) = cell.commit(draft) {
            commit.await?;
        }
        Ok(SessionCommit(cell))
    }
}

impl Drop for SessionCommit {
    fn drop(&mut self) {
        self.0.fate().poison_if_panicking();
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
    /// Makes an empty response with the status 200 and the session's cookie.
    ///
    /// axum applies parts before it to this response, after the guard. If you return headers of your own, end with
    /// `()`: `(headers, commit, ())`.
    fn into_response(self) -> Response {
        (self, ()).into_response()
    }
}

impl fmt::Debug for SessionCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCommit").finish_non_exhaustive()
    }
}
