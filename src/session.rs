//! The extractor.
#![allow(clippy::expect_used, reason = "each text says why it cannot happen")]

mod csrf;
mod mistakes;

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use time::OffsetDateTime;

use crate::{
    commit::SessionCommit,
    error::SessionError,
    expiry::IdleTimeout,
    handle::SessionHandle,
    id::{SessionId, StoreKey},
    manager::{Basis, Data, Draft, SessionManager, any_change},
    request::{Cell, RequestSessions},
};

/// A router state that holds a [`SessionManager`] for `T`.
///
/// Implemented for every state from which axum's `FromRef` gets one: the manager itself, or a struct
/// with `#[derive(FromRef)]` and a field of that type. Either may stand in an `Arc`.
#[diagnostic::on_unimplemented(
    message = "the state `{Self}` has no manager for `Session<{T}>`",
    label = "needs a `SessionManager<{T}>` in the state, which is `{Self}` here",
    note = "if the state is a manager: call `.with_state(sessions)` after the routes, with a `SessionManager<{T}>`",
    note = "if the state is a struct: derive `FromRef`, and add a field of type `SessionManager<{T}>`",
    note = "if the router has its state: write `#[debug_handler(state = AppState)]`, since `#[debug_handler]` takes `()`",
    note = "`.layer(sessions)`, `Extension(sessions)` and `from_fn(..)` give no state; `from_fn_with_state(..)` gives one",
    note = "every case is in `axum_typed_session::guide::does_not_compile`"
)]
pub trait ProvidesSessions<T>: Send + Sync {
    /// Returns the manager.
    fn session_manager(&self) -> SessionManager<T>;
}

#[diagnostic::do_not_recommend]
impl<S: Send + Sync, T> ProvidesSessions<T> for S
where
    SessionManager<T>: FromRef<S>,
{
    fn session_manager(&self) -> SessionManager<T> {
        SessionManager::from_ref(self)
    }
}

/// The session of a request, as an extractor that derefs to your data.
///
/// Read and change it like your own struct. [`commit`](Self::commit) saves the changes and returns the guard, a
/// [`SessionCommit`] that carries the cookie. [`destroy`](Self::destroy), [`regenerate`](Self::regenerate),
/// [`clear`](Self::clear), [`set_idle_timeout`](Self::set_idle_timeout),
/// [`set_absolute_timeout`](Self::set_absolute_timeout) and [`force_save`](Self::force_save) only record a request;
/// the commit carries it out. A handler that fails before its commit has changed nothing.
///
/// Every handler that takes a session ends with its guard, or runs under
/// [`AutoCommitLayer`](crate::AutoCommitLayer). This holds for handlers that only read, too: the guard keeps shared
/// caches from serving the response to other visitors, and lets
/// [`rolling`](crate::SessionManagerBuilder::rolling) extend the session.
///
/// A session is *fresh* if no valid session came in and none was committed in this request. It holds the default
/// of `T`, has no id yet, and is saved only once it changes.
///
/// `Option<Session<T>>` is `None` where the session would be fresh. A store that is down is still an error.
/// `Result<Session<T>, SessionError>` gives the handler that error.
///
/// `T` must read back from its own encoding, as [`Codec`](crate::Codec) says. A commit of other data is
/// [`SessionError::Encode`], and nothing is stored or sent.
///
/// Its methods are `is_new`, `id`, `key`, `created_at`, `expires_at`, `set_idle_timeout`, `clear_idle_timeout`,
/// `set_absolute_timeout`, `clear_absolute_timeout`, `regenerate`, `destroy`, `clear`, `force_save`, `discard`,
/// `handle`, `update`, `csrf_token`, `verify_csrf` and `commit`. If your type has a method of one of these names, call
/// it through the deref: `(*session).clear()`.
///
/// # Example
///
/// ```
/// use axum::response::IntoResponse;
/// use axum_typed_session::{Session, SessionError};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Visits { count: u32 }
///
/// async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
///     session.count += 1;
///     let body = format!("{} visits", session.count);
///     Ok((session.commit().await?, body))
/// }
/// ```
#[must_use = "a session that is neither read nor committed need not be extracted"]
pub struct Session<T: Send + Sync + 'static> {
    /// `None` only once `commit`, `discard` or `drop` has taken it, which end the session.
    draft: Option<Box<Draft>>,
    /// The handler read the data, so the response depends on it.
    is_read: AtomicBool,
    /// How many copies of the request there were when the session was extracted.
    copies: u32,
    cell: Arc<Cell>,
    data: PhantomData<T>,
}

impl<T: Send + Sync + 'static> Session<T> {
    /// Returns `true` if the session is fresh: no valid one came in and none was committed in this request.
    pub fn is_new(&self) -> bool {
        self.basis().live().is_none()
    }

    /// Returns the session's id; `None` until a fresh session is committed.
    ///
    /// Treat the id like a password. Other parts of the program need only the [`key`](Self::key).
    pub fn id(&self) -> Option<&SessionId> {
        self.basis().live().map(|live| &live.id)
    }

    /// Returns the key under which the store keeps the session, such as for a list of "your devices"; `None` until a
    /// fresh session is committed.
    ///
    /// Nobody can log in with it. After a commit, [`SessionCommit::key`] is the key.
    pub fn key(&self) -> Option<StoreKey> {
        self.id().map(StoreKey::from)
    }

    /// Returns when the session began; for a fresh session, when it was extracted.
    ///
    /// It begins anew with each login, when the [`owner`](crate::SessionManagerBuilder::owner) goes from `None` or
    /// another to somebody, and with a logout by [`clear`](Self::clear) and [`regenerate`](Self::regenerate). Its
    /// absolute timeout counts from here.
    pub fn created_at(&self) -> OffsetDateTime {
        let created_at = self.basis().live().map(|live| live.record.created_at());
        created_at.unwrap_or(self.basis().incoming.opened_at).into()
    }

    /// Returns when the session ends unless a commit extends it.
    ///
    /// For a fresh session this is the end it would have if it were committed now. So it is for a saved session
    /// once its timeouts are set or cleared, or [`clear`](Self::clear) and [`regenerate`](Self::regenerate) are both
    /// called. It is never later than the builder's options allow.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.cell.core.expires_at(self.draft()).into()
    }

    /// Sets how long this session lives from each save on, such as for "keep me signed in".
    ///
    /// The commit saves the session even if nothing else changed, and later saves and logins keep this time. Less
    /// than a second counts as a second.
    ///
    /// The session still ends at its absolute timeout, which
    /// [`set_absolute_timeout`](Self::set_absolute_timeout) can set too. An idle timeout above it is cut:
    /// [`expires_at`](Self::expires_at) says so at once, and the commit warns, once for each manager. Without an
    /// owner, [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) is the limit. No
    /// browser keeps a cookie longer than 400 days.
    #[doc(alias = "maxAge")]
    #[doc(alias = "set_max_age")]
    pub fn set_idle_timeout(&mut self, idle_timeout: impl Into<IdleTimeout>) {
        self.draft_mut().intents.timeouts.idle = Some(Some(idle_timeout.into()));
    }

    /// Gives the session back the [`idle_timeout`](crate::SessionManagerBuilder::idle_timeout) of the builder.
    ///
    /// The commit of a saved session saves it, so that the time counts from then on. A logout by
    /// [`clear`](Self::clear) and [`regenerate`](Self::regenerate) does the same by itself.
    #[doc(alias = "clear_max_age")]
    pub fn clear_idle_timeout(&mut self) {
        self.draft_mut().intents.timeouts.idle = Some(None);
    }

    /// Sets the age at which this session ends whatever it does, counted from [`created_at`](Self::created_at).
    ///
    /// The commit saves the session even if nothing else changed, and later saves keep this time. A login keeps it
    /// too, and counts it anew. Less than a second counts as a second. If the session is older already, it ends with
    /// the commit.
    ///
    /// A timeout above [`max_absolute_timeout`](crate::SessionManagerBuilder::max_absolute_timeout) is cut:
    /// [`expires_at`](Self::expires_at) says so at once, and the commit warns, once for each manager. Set the idle
    /// timeout too if the session may be unused that long.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::Session;
    ///
    /// const SEASON: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    ///
    /// // With `.max_absolute_timeout(SEASON)` in the builder.
    /// fn keep_me_signed_in(session: &mut Session<String>) {
    ///     session.set_absolute_timeout(SEASON);
    ///     session.set_idle_timeout(SEASON);
    /// }
    /// ```
    pub fn set_absolute_timeout(&mut self, timeout: Duration) {
        self.draft_mut().intents.timeouts.absolute = Some(Some(timeout));
    }

    /// Gives the session back the [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout) of the builder,
    /// counted from [`created_at`](Self::created_at).
    ///
    /// If the session is older already, it ends with the commit. A logout by [`clear`](Self::clear) and
    /// [`regenerate`](Self::regenerate) gives the timeout back by itself, and begins the session anew.
    pub fn clear_absolute_timeout(&mut self) {
        self.draft_mut().intents.timeouts.absolute = Some(None);
    }

    /// Gives the session a new id and keeps the data. Call it at every login and logout (OWASP ASVS 7.2.4).
    ///
    /// A fresh session gets a new id anyway, so there it does nothing. It never undoes a logout: if another request
    /// has ended the session, the commit is [`SessionError::Gone`]. [`SessionCommit::id`] is the new id.
    ///
    /// # Security
    ///
    /// In cookie mode a copy of the old cookie stays valid until it expires, with the data it had. With
    /// [`revocations`](crate::SessionManagerBuilder::revocations) the old cookie ends at once.
    pub fn regenerate(&mut self) {
        self.draft_mut().intents.regenerate = true;
    }

    /// Ends the session: the commit removes the row, and the cookie if the browser sent one.
    ///
    /// `destroy` wins over [`regenerate`](Self::regenerate), changes of the timeouts and changes of the data. Under
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) it is committed whatever the status of the response.
    ///
    /// # Security
    ///
    /// In cookie mode a copy of the old cookie stays valid until it expires. With
    /// [`revocations`](crate::SessionManagerBuilder::revocations) the old cookie ends at once.
    pub fn destroy(&mut self) {
        self.draft_mut().intents.destroy = true;
    }

    /// Sets the data back to its default and keeps the id.
    ///
    /// No change of another request survives it. Together with [`regenerate`](Self::regenerate) it is a logout that
    /// can keep a flash message: the session begins anew, with the timeouts of the builder unless others are set
    /// before the commit.
    #[doc(alias = "reset")]
    pub fn clear(&mut self) {
        let data = self.cell.core.data.default();
        let basis = self.basis().clone();
        if self.is_new() && basis.uncommitted.is_none() {
            self.draft_mut().restart(basis, data);
        } else {
            *self.lend() = data;
            self.draft_mut().intents.clear = !self.is_new();
        }
    }

    /// Saves the session at the commit even if nothing changed, and even if it is fresh.
    pub fn force_save(&mut self) {
        self.draft_mut().intents.force_save = true;
    }

    /// Drops this session's uncommitted changes without the warning that a plain drop gives.
    pub fn discard(mut self) {
        self.draft = None;
    }

    /// Returns a handle that outlives the response, for a socket or a job.
    ///
    /// # Errors
    ///
    /// - [`SessionError::NoStore`] in cookie mode, where the data leaves with the response.
    /// - [`SessionError::NotSaved`] while the session is fresh, since it has no row yet. Commit it, and call
    ///   [`SessionCommit::handle`].
    pub fn handle(&self) -> Result<SessionHandle<T>, SessionError> {
        SessionHandle::new(&self.cell.core, self.basis().live())
    }

    /// Changes the stored session now, so that concurrent changes are never lost: 100 concurrent
    /// increments are exactly 100.
    ///
    /// `change` runs again on the newest row until its write lands, so it should do nothing but change the
    /// data. On a fresh session and in cookie mode it only changes this copy, and the commit saves it.
    /// Commit after an `update` too: its guard is part of the response as after any other change.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Uncommitted`]: this session has other changes that are not committed.
    /// - [`SessionError::Conflict`]: other requests wrote first for five seconds.
    /// - All other errors of [`commit`](Self::commit).
    ///
    /// After an error the session is as it was and can be changed and committed.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the row wholly old or wholly new, and the session as after an error.
    pub async fn update<R: Send>(
        &mut self,
        mut change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        let core = &self.cell.core;
        if core.data_in_token() || self.is_new() {
            return Ok(change(&mut *self));
        }
        if let Some(draft) = &mut self.draft
            && (draft.intents.any() || core.change(draft)?.is_some())
        {
            return Err(SessionError::Uncommitted);
        }
        let mut result = None;
        let draft = self.cell.update(self.basis(), &mut any_change(change, &mut result)).await?;
        self.draft = Some(draft);
        result.ok_or(SessionError::Gone)
    }

    /// Saves the changes and returns the guard, which belongs into the response.
    ///
    /// It writes nothing if the store already holds the same data, and sends nothing if the browser already holds
    /// the same cookie. A commit of an untouched session does no I/O, unless
    /// [`rolling`](crate::SessionManagerBuilder::rolling) extends it.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`]: the store failed or hung; the browser keeps its cookie.
    /// - [`SessionError::Conflict`]: another request changed the same data, and both changes cannot hold.
    /// - [`SessionError::Gone`]: another request ended the session.
    /// - [`SessionError::Closed`]: the response is already on its way.
    /// - [`SessionError::TooLarge`]: the data does not fit.
    /// - [`SessionError::Encode`]: the data does not serialize or does not read back.
    /// - [`SessionError::Invalid`]: [`validate_data`](crate::SessionManagerBuilder::validate_data) refuses the data.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves every row wholly old or wholly new. A dropped `regenerate` may leave a row under
    /// an id that no client knows; that row expires soon.
    pub async fn commit(mut self) -> Result<SessionCommit, SessionError> {
        if let Some(commit) = self.draft.take().and_then(|draft| self.cell.commit(draft)) {
            commit.await?;
        }
        self.cell.promise();
        Ok(SessionCommit(self.cell.clone()))
    }

    fn basis(&self) -> &Arc<Basis> {
        &self.draft().basis
    }

    fn draft(&self) -> &Draft {
        self.draft.as_ref().expect(TAKEN)
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.draft.as_mut().expect(TAKEN)
    }

    fn lend(&mut self) -> &mut Box<Data> {
        self.cell.core.lend(self.draft.as_mut().expect(TAKEN))
    }
}

const TAKEN: &str = "only methods that consume the session take its draft";
const OTHER_TYPE: &str = "the manager of a type makes data of that type";

impl<T: Send + Sync + 'static> Deref for Session<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.is_read.store(true, Ordering::Relaxed);
        self.draft().data.downcast_ref().expect(OTHER_TYPE)
    }
}

impl<T: Send + Sync + 'static> DerefMut for Session<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.lend().downcast_mut().expect(OTHER_TYPE)
    }
}

impl<T: Send + Sync + 'static> Drop for Session<T> {
    fn drop(&mut self) {
        self.cell.fate.poison_if_panicking();
        if let Some(draft) = self.draft.take() {
            self.cell.take_back(self.copies, draft, *self.is_read.get_mut());
        }
    }
}

impl<S, T> FromRequestParts<S> for Session<T>
where
    S: ProvidesSessions<T>,
    T: Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let manager = state.session_manager();
        let registry = RequestSessions::of(&mut parts.extensions).clone();
        let cell = registry.cell(&manager.core, parts)?;
        let draft = Some(cell.hand_out(parts).await?);
        let (is_read, copies) = (AtomicBool::new(false), cell.fate.copies());
        Ok(Self { draft, is_read, copies, cell, data: PhantomData })
    }
}

impl<S, T> OptionalFromRequestParts<S> for Session<T>
where
    S: ProvidesSessions<T>,
    T: Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let session = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Some(session).filter(|session| !session.is_new()))
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Session<T> {
    /// Shows none of the data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_new", &self.is_new()).finish_non_exhaustive()
    }
}
