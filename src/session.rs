//! The extractor.
#![allow(clippy::expect_used, reason = "each text says why it cannot happen")]

mod methods;

// Below `methods`, since the documentation lists the methods of modules in this order.
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
};

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use crate::{
    error::SessionError,
    manager::{Basis, Data, Draft, SessionManager},
    request::{Cell, RequestSessions},
};

/// A router state that holds a [`SessionManager`] for `T`. [`SessionManager`] has an example.
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
    /// Returns the manager for `T`. The extractor [`Session`] calls it in every request.
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

/// The session of a request: an extractor that derefs to your data.
///
/// Read and change it like your own struct. Then call [`commit`](Self::commit), which saves the changes and returns
/// the *guard*. The guard is the [`SessionCommit`](crate::SessionCommit), which puts the cookie into the response.
///
/// **Every handler that takes a session returns its guard, or runs under
/// [`AutoCommitLayer`](crate::AutoCommitLayer).** This also holds for handlers that only read: the guard keeps
/// shared caches from serving the response to other visitors, and lets
/// [`rolling`](crate::SessionManagerBuilder::rolling) extend the session.
///
/// A *fresh session* is a new session that was not loaded from the request: no valid session came in, and no
/// session was committed in this request. It holds the default of `T` and has no id. The commit saves it only if it
/// changes.
///
/// [`destroy`](Self::destroy), [`regenerate`](Self::regenerate), [`clear`](Self::clear),
/// [`force_save`](Self::force_save) and the methods that set or clear timeouts only record what the commit will do.
/// If a handler fails before its commit, nothing has changed. Under
/// [`AutoCommitLayer`](crate::AutoCommitLayer#which-responses-commit) the status of the response decides.
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
///
/// [`guide::getting_started`](crate::guide::getting_started) continues this example. Compile errors have [their own
/// page](crate::guide::does_not_compile).
///
/// # As an argument of a handler
///
/// | argument | no valid session came in | the store failed |
/// |---|---|---|
/// | `Session<T>` | a fresh session | the [`SessionError`] is the response, 503 |
/// | `Option<Session<T>>` | `None`; return [`no_session`](SessionManager::no_session) as the guard | the same |
/// | `Result<Session<T>, SessionError>` | a fresh session | the handler gets the error |
///
/// # The data type
///
/// `T` is your own type. It implements `Default`, `Serialize` and `DeserializeOwned`. Its data must read back from
/// its own encoding; [`Codec`](crate::Codec) lists the data that does not. A commit of such data is
/// [`SessionError::Encode`], and nothing is stored or sent. A change needs a `&mut` of the data: a change through a
/// shared reference, as of an atomic number or in a `Mutex`, is not noticed and not saved.
///
/// There are no keys to insert and get: a value of the session is a field of your type. This includes [flash
/// messages](crate::guide::flash_messages). If your type has a method with the name of a method below, call it
/// through the deref: `(*session).clear()`.
#[doc(alias("insert", "get", "remove", "flash", "flash message", "extractor"))]
#[must_use = "a session that is neither read nor committed need not be extracted"]
pub struct Session<T: Send + Sync + 'static> {
    /// `None` only once `commit`, `discard` or `drop` has taken it, which end the session.
    draft: Option<Box<Draft>>,
    /// The handler read the data, so the response depends on it.
    is_read: AtomicBool,
    /// How many copies of the request there were when the session was extracted.
    copies: u32,
    cell: Cell,
    data: PhantomData<T>,
}

impl<T: Send + Sync + 'static> Session<T> {
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
        self.cell.fate().poison_if_panicking();
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
        let registry = RequestSessions::of(&mut parts.extensions).clone();
        let cell = registry.cell(state.session_manager().core, parts)?;
        let draft = Some(cell.hand_out(parts).await?);
        let (is_read, copies) = (AtomicBool::new(false), cell.fate().copies());
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
