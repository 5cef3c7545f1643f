//! The methods of a session: the commit, the facts of the session, and the requests that the commit carries out.

use std::time::Duration;

use time::OffsetDateTime;

use super::Session;
use crate::{
    commit::SessionCommit,
    decision::Origin,
    error::SessionError,
    expiry::IdleTimeout,
    handle::SessionHandle,
    id::{SessionId, StoreKey},
    manager::any_change,
};

impl<T: Send + Sync + 'static> Session<T> {
    /// Saves the changes and returns the guard, a [`SessionCommit`]. Return the guard in the response.
    ///
    /// The commit writes nothing if the store already holds the same data. It sends nothing if the browser already
    /// holds the same cookie. A commit of an untouched session does no I/O, unless
    /// [`rolling`](crate::SessionManagerBuilder::rolling) extends the session.
    ///
    /// The example of [`Session`] ends with a commit. Make it the last step that can fail:
    /// [`guide::commit_last`](crate::guide::commit_last) gives the reason.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`]: the store failed or did not answer. The browser keeps its cookie.
    /// - [`SessionError::Conflict`]: another request changed the same data, and both changes cannot be kept.
    /// - [`SessionError::Gone`]: another request ended the session.
    /// - [`SessionError::Closed`]: the response was already made.
    /// - [`SessionError::TooLarge`]: the data is larger than the limit.
    /// - [`SessionError::Encode`]: the data does not serialize or does not read back.
    /// - [`SessionError::Invalid`]: [`validate_data`](crate::SessionManagerBuilder::validate_data) rejects the
    ///   data.
    /// - [`SessionError::Newer`]: a newer version of the application changed the session meanwhile.
    /// - [`SessionError::IdInUse`], [`SessionError::Seal`] and [`SessionError::Random`]: no id or token could be
    ///   made.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, every stored session is entirely old or entirely new. A dropped commit with
    /// [`regenerate`](Self::regenerate) may have ended the old id. Then the visitor is signed out, and the session
    /// under the new id expires, since no client knows that id.
    #[doc(alias("save", "persist"))]
    pub async fn commit(mut self) -> Result<SessionCommit, SessionError> {
        if let Some(commit) = self.draft.take().and_then(|draft| self.cell.commit(draft)) {
            commit.await?;
        }
        Ok(SessionCommit(self.cell.clone()))
    }

    /// Returns `true` if the session is fresh: no valid session came in, and none was committed in this request.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::Session;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// fn greeting(session: &Session<Visits>) -> &'static str {
    ///     if session.is_new() { "Welcome!" } else { "Welcome back!" }
    /// }
    /// ```
    #[doc(alias = "isNew")]
    pub fn is_new(&self) -> bool {
        self.basis().live().is_none()
    }

    /// Returns the id of the session; `None` for a fresh session, which gets its id at the commit.
    ///
    /// Treat the id like a password, since a client that knows it has the session. Other parts of the program need
    /// only the [`key`](Self::key), which has an example.
    #[doc(alias = "session_id")]
    pub fn id(&self) -> Option<&SessionId> {
        self.basis().live().map(|live| &live.id)
    }

    /// Returns the key under which the store keeps the session; `None` for a fresh session, which gets its id at
    /// the commit.
    ///
    /// Nobody can sign in with the key. After a commit, [`SessionCommit::key`] returns it.
    ///
    /// # Example
    ///
    /// A list of a user's devices marks the device of this request:
    ///
    /// ```
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn devices(
    ///     sessions: &SessionManager<Login>,
    ///     session: &Session<Login>,
    ///     user: &str,
    /// ) -> Result<Vec<String>, SessionError> {
    ///     let stored = sessions.sessions_of(user).await?;
    ///     let lines = stored.iter().map(|device| {
    ///         let is_this = session.key() == Some(device.key());
    ///         format!("{}{}", device.created_at(), if is_this { " (this device)" } else { "" })
    ///     });
    ///     Ok(lines.collect())
    /// }
    /// ```
    pub fn key(&self) -> Option<StoreKey> {
        self.id().map(StoreKey::from)
    }

    /// Returns the time at which the session began. For a fresh session this is the time of its extraction.
    ///
    /// The absolute timeout counts from this time. A session begins anew at two moments:
    ///
    /// - at a sign-in, if there is an [`owner`](crate::SessionManagerBuilder::owner): the owner changes from
    ///   `None`, or from another user, to a user;
    /// - at a sign-out by [`clear`](Self::clear) together with [`regenerate`](Self::regenerate).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::Session;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// fn since(session: &Session<Login>) -> String {
    ///     format!("signed in since {}", session.created_at())
    /// }
    /// ```
    pub fn created_at(&self) -> OffsetDateTime {
        let created_at = self.basis().live().map(|live| live.record.created_at());
        created_at.unwrap_or(self.basis().incoming.opened_at).into()
    }

    /// Returns the time at which the session ends unless a commit extends it. The options of the builder limit it.
    ///
    /// The time changes at once if the handler sets or clears a timeout, or calls both [`clear`](Self::clear) and
    /// [`regenerate`](Self::regenerate): the method then returns the end that a commit would store now. For a fresh
    /// session it always returns that. The end with what a save or `rolling` adds is
    /// [`SessionCommit::expires_at`](crate::SessionCommit::expires_at).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Session, time::OffsetDateTime};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// fn minutes_left(session: &Session<Login>) -> i64 {
    ///     (session.expires_at() - OffsetDateTime::now_utc()).whole_minutes()
    /// }
    /// ```
    #[doc(alias("expiry", "expires", "ttl"))]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.cell.core.expires_at(self.draft()).into()
    }

    /// Sets the idle timeout of this session: the time after a save at which it ends. Use it for "keep me signed
    /// in".
    ///
    /// Default: the [`idle_timeout`](crate::SessionManagerBuilder::idle_timeout) of the builder. The commit saves
    /// the session even if nothing else changed. Later saves and sign-ins keep this timeout. Less than a second
    /// counts as a second.
    ///
    /// Three limits hold:
    ///
    /// - The session still ends at its absolute timeout, which [`set_absolute_timeout`](Self::set_absolute_timeout)
    ///   can set too. A longer idle timeout is cut. [`expires_at`](Self::expires_at) returns the result at once,
    ///   and the commit logs a warning, once for each manager.
    /// - Without an owner, [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) cuts it
    ///   as well.
    /// - No browser keeps a cookie longer than 400 days.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::{IdleTimeout, Session};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// fn remember(session: &mut Session<Login>, keep_me_signed_in: bool) {
    ///     session.set_idle_timeout(if keep_me_signed_in {
    ///         IdleTimeout::Persistent(14 * DAY)
    ///     } else {
    ///         IdleTimeout::BrowserSession(DAY) // the browser drops the cookie when it closes
    ///     });
    /// }
    /// ```
    ///
    /// [`guide::lifetime`](crate::guide::lifetime) shows all timeouts on one timeline.
    #[doc(alias("maxAge", "max-age", "set_max_age", "set_expiry", "ttl", "remember-me"))]
    #[doc(alias("remember_me"))]
    pub fn set_idle_timeout(&mut self, idle_timeout: impl Into<IdleTimeout>) {
        self.draft_mut().intents.timeouts.idle = Some(Some(idle_timeout.into()));
    }

    /// Gives the session the [`idle_timeout`](crate::SessionManagerBuilder::idle_timeout) of the builder again.
    ///
    /// The commit of a stored session saves it, so that the timeout counts from that commit. A sign-out by
    /// [`clear`](Self::clear) together with [`regenerate`](Self::regenerate) has the same effect.
    /// [`clear_absolute_timeout`](Self::clear_absolute_timeout) has an example of both.
    #[doc(alias = "clear_max_age")]
    pub fn clear_idle_timeout(&mut self) {
        self.draft_mut().intents.timeouts.idle = Some(None);
    }

    /// Sets the absolute timeout of this session: the age at which it ends even if it is used. The age counts from
    /// [`created_at`](Self::created_at).
    ///
    /// Default: the [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout) of the builder. The commit
    /// saves the session even if nothing else changed. Later saves keep this timeout. A sign-in keeps it too, and
    /// its time begins anew. Less than a second counts as a second. If the session is already older, it
    /// ends with the commit: the next request begins a fresh session.
    ///
    /// A timeout above [`max_absolute_timeout`](crate::SessionManagerBuilder::max_absolute_timeout) is cut.
    /// [`expires_at`](Self::expires_at) returns the result at once, and the commit logs a warning, once for each
    /// manager. Set the idle timeout too if the session may be unused for that time.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::Session;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// const SEASON: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    ///
    /// // With `.max_absolute_timeout(SEASON)` in the builder.
    /// fn keep_me_signed_in(session: &mut Session<Login>) {
    ///     session.set_absolute_timeout(SEASON);
    ///     session.set_idle_timeout(SEASON);
    /// }
    /// ```
    #[doc(alias("remember-me", "remember_me"))]
    pub fn set_absolute_timeout(&mut self, timeout: Duration) {
        self.draft_mut().intents.timeouts.absolute = Some(Some(timeout));
    }

    /// Gives the session the [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout) of the builder
    /// again. It counts from [`created_at`](Self::created_at).
    ///
    /// If the session is already older, the commit ends it. A sign-out by [`clear`](Self::clear) together with
    /// [`regenerate`](Self::regenerate) has the same effect, and the session begins anew.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::Session;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// /// The user no longer wants "keep me signed in".
    /// fn forget_me(session: &mut Session<Login>) {
    ///     session.clear_idle_timeout();
    ///     session.clear_absolute_timeout();
    /// }
    /// ```
    pub fn clear_absolute_timeout(&mut self) {
        self.draft_mut().intents.timeouts.absolute = Some(None);
    }

    /// Gives the session a new id at the commit, and keeps the data. Call it at every sign-in
    /// (OWASP ASVS 7.2.4).
    ///
    /// A fresh session gets a new id anyway, so `regenerate` does nothing there. It never undoes a sign-out: if
    /// another request has ended the session, the commit is [`SessionError::Gone`]. After the commit,
    /// [`SessionCommit::id`] returns the new id.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Session, SessionCommit, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn sign_in(mut session: Session<Login>) -> Result<SessionCommit, SessionError> {
    ///     session.user = Some("alice".to_owned()); // once the password was checked
    ///     session.regenerate();
    ///     session.commit().await
    /// }
    /// ```
    ///
    /// [`guide::signing_in`](crate::guide::signing_in) has the whole program.
    ///
    /// # Security
    ///
    /// Without a store, a copy of the old cookie stays valid until it expires, with its old data. With
    /// [`revocations`](crate::SessionManagerBuilder::revocations) the old cookie ends at the commit.
    #[doc(alias("cycle_id", "rotate", "renew", "renew_id"))]
    pub fn regenerate(&mut self) {
        self.draft_mut().intents.regenerate = true;
    }

    /// Ends the session at the commit. The commit removes the stored session, and removes the cookie if the browser
    /// sent one.
    ///
    /// `destroy` wins over [`regenerate`](Self::regenerate), changes of the timeouts and changes of the data. Under
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) it is committed at every status of the response.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::response::{IntoResponse, Redirect};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn sign_out(
    ///     mut session: Session<Login>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     session.destroy();
    ///     Ok((session.commit().await?, Redirect::to("/")))
    /// }
    /// ```
    ///
    /// # Security
    ///
    /// Without a store, a copy of the old cookie stays valid until it expires. With
    /// [`revocations`](crate::SessionManagerBuilder::revocations) the old cookie ends at the commit.
    #[doc(alias("flush", "purge", "logout", "log out", "sign out", "invalidate", "delete"))]
    #[doc(alias("unset"))]
    pub fn destroy(&mut self) {
        self.draft_mut().intents.destroy = true;
    }

    /// Sets the data back to its default at once, and keeps the id.
    ///
    /// Changes that other requests made to the data meanwhile are removed as well. Together with
    /// [`regenerate`](Self::regenerate) it is a sign-out that can keep a flash message: the session begins anew,
    /// with the timeouts of the builder unless the handler sets others before the commit. If another request has just
    /// given the session a new id, the commit of such a sign-out is [`SessionError::Gone`].
    ///
    /// # Example
    ///
    /// ```
    /// use axum::response::{IntoResponse, Redirect};
    /// use axum_typed_session::{Session, SessionError};
    ///
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct Login { user: Option<String>, message: Option<String> }
    ///
    /// async fn sign_out(
    ///     mut session: Session<Login>,
    /// ) -> Result<impl IntoResponse, SessionError> {
    ///     session.clear();
    ///     session.regenerate();
    ///     session.message = Some("You are signed out.".to_owned());
    ///     Ok((session.commit().await?, Redirect::to("/")))
    /// }
    /// ```
    #[doc(alias("reset", "logout"))]
    pub fn clear(&mut self) {
        let data = self.cell.core.data.default();
        let basis = self.basis().clone();
        if self.is_new() && basis.uncommitted.is_none() {
            self.draft_mut().intents.clear |= basis.origin == Origin::Tombstone;
            self.draft_mut().restart(basis, data);
        } else {
            *self.lend() = data;
            self.draft_mut().intents.clear = !self.is_new();
        }
    }

    /// Saves the session at the commit even if nothing changed, and even if it is fresh. Default: off.
    ///
    /// A save restarts the idle timeout, unless [`extend_if`](crate::SessionManagerBuilder::extend_if) excludes the
    /// request.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Session, SessionCommit, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// /// Gives every visitor a session, also a visitor whose data is still the default.
    /// async fn begin(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
    ///     session.force_save();
    ///     session.commit().await
    /// }
    /// ```
    #[doc(alias("save", "touch"))]
    pub fn force_save(&mut self) {
        self.draft_mut().intents.force_save = true;
    }

    /// Drops the session and its uncommitted changes.
    ///
    /// A response that shows data of the session needs the guard instead, so that no shared cache stores it.
    ///
    /// If a session with changes is dropped without `discard`, [`AutoCommitLayer`](crate::AutoCommitLayer) commits the
    /// changes. Without the layer, they are lost with a warning.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{http::StatusCode, response::{IntoResponse, Response}};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn index(mut session: Session<Visits>) -> Result<Response, SessionError> {
    ///     session.count += 1;
    ///     if session.count > 100 {
    ///         session.discard(); // the stored count stays 100
    ///         return Ok(StatusCode::TOO_MANY_REQUESTS.into_response());
    ///     }
    ///     Ok(session.commit().await?.into_response())
    /// }
    /// ```
    pub fn discard(mut self) {
        self.draft = None;
    }

    /// Returns a handle that reaches the stored session after the response, for a socket or a job.
    ///
    /// [`SessionHandle`] has an example. After a commit, [`SessionCommit::handle`] returns a handle too.
    ///
    /// # Errors
    ///
    /// - [`SessionError::NoStore`] without a store, since the data leaves with the response.
    /// - [`SessionError::NotSaved`] for a fresh session, which is not stored yet. Commit it, and call
    ///   [`SessionCommit::handle`].
    pub fn handle(&self) -> Result<SessionHandle<T>, SessionError> {
        let stored = self.basis().live().filter(|_| self.basis().importing().is_none());
        SessionHandle::new(&self.cell.core, stored)
    }

    /// Changes the stored session now, before the commit, so that no concurrent change is lost: a hundred
    /// concurrent increments add up to a hundred.
    ///
    /// If another request writes first, `change` runs again on the newest stored data. So it should do nothing but
    /// change the data. For a fresh session, and without a store, `change` runs once on this copy, and the commit
    /// saves it.
    ///
    /// Commit after an `update` too: the response needs the guard as after any other change.
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) compares `update` with field types such as
    /// [`Counter`](crate::Counter).
    ///
    /// # Example
    ///
    /// ```
    /// use axum::response::IntoResponse;
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    ///     let count = session.update(|visits| {
    ///         visits.count += 1;
    ///         visits.count
    ///     });
    ///     let body = format!("{} visits", count.await?);
    ///     Ok((session.commit().await?, body))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Uncommitted`]: this session has other changes that are not committed.
    /// - [`SessionError::Conflict`]: other requests wrote first for five seconds.
    /// - All other errors of [`commit`](Self::commit).
    ///
    /// After an error the session is as it was before. It can be changed and committed.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the stored session is entirely old or entirely new. The session in the handler is
    /// as after an error.
    pub async fn update<R: Send>(
        &mut self,
        mut change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        let core = &self.cell.core;
        if core.data_in_token() || self.is_new() {
            return Ok(change(&mut *self));
        }
        if let Some(draft) = &mut self.draft
            && (draft.intents.any() || core.is_changed(draft)?)
        {
            return Err(SessionError::Uncommitted);
        }
        let mut result = None;
        let draft = self.cell.update(self.basis(), &mut any_change(change, &mut result)).await?;
        (self.draft, *self.is_read.get_mut()) = (Some(draft), true);
        result.ok_or(SessionError::Gone)
    }
}
