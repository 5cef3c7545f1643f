//! The manager: one kind of session, from the tokens of a request to the writes and cookies of its commits.

mod any_data;
mod basis;
mod commit;
mod core;
mod created;
mod data;
mod endings;
mod import;
mod incoming;
mod owners;
mod page;
mod rows;
mod stored;
mod tenant;
mod tokens;
mod writes;

use std::{fmt, marker::PhantomData, pin::Pin, sync::Arc};

use axum::{extract::FromRef, response::Response};

pub(crate) use self::stored::{AnyChange, any_change};
pub(crate) use self::{
    any_data::{Data, DataOptions, DataType},
    basis::{Basis, Draft},
    core::{Core, Home, Options, Settings},
    rows::CONTENTION,
};
pub use self::{created::CreatedSession, page::SessionPage, stored::StoredSession};
use crate::error::SessionError;

/// The result of two requests that change one stored session at once, for
/// [`on_conflict`](crate::SessionManagerBuilder::on_conflict). Default: [`Merge`](Self::Merge).
///
/// # Example
///
/// ```
/// use axum_typed_session::{ConflictPolicy, MemoryStore, SessionManager};
///
/// let sessions = SessionManager::<u32>::builder()
///     .store(MemoryStore::new())
///     .on_conflict(ConflictPolicy::Reject)
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// Both changes are kept if both can be kept. Otherwise the later commit is [`SessionError::Conflict`].
    ///
    /// The fields of the session's type and the keys of its maps merge separately. If both requests append to a
    /// list, both additions are kept, unless the items are numbers or booleans. If both set a string, the string of
    /// the later commit is kept. [`Counter`](crate::Counter), [`Latest`](crate::Latest), [`Set`](crate::Set) and
    /// [`Once`](crate::Once) decide how their field merges. A nested struct, an enum and a tuple are one value
    /// each. Two different changes of one value conflict. So do two changes of one number, and data with integers
    /// beyond 64 bits. Two additions to a `HashSet` that holds items conflict too, because its JSON has another
    /// order each time: use [`Set`](crate::Set).
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) has a table.
    #[default]
    Merge,
    /// The later commit is [`SessionError::Conflict`].
    Reject,
    /// The later commit replaces the data of the earlier commit. A session that has ended stays ended.
    ///
    /// # Security
    ///
    /// The changes of the earlier request are lost without an error.
    Overwrite,
}

/// The sessions of one type. The state of the router holds the manager, and handlers take a
/// [`Session`](crate::Session).
///
/// [`builder`](Self::builder) makes a manager. A clone is cheap and shares everything. Its methods work on stored
/// sessions outside a request, for background jobs and admin pages.
///
/// # Example
///
/// The manager itself is the state:
///
/// ```
/// use axum::Router;
/// use axum_typed_session::{ConfigError, Key, SessionManager};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
///
/// fn app() -> Result<Router, ConfigError> {
///     let sessions = SessionManager::<Visits>::builder().keys(Key::generate()).build()?;
///     Ok(Router::new().with_state(sessions))
/// }
/// ```
///
/// Or it is a field of a state with `FromRef`:
///
/// ```
/// use axum::{Router, extract::FromRef};
/// use axum_typed_session::{ConfigError, Key, SessionManager};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
///
/// #[derive(Clone, FromRef)]
/// struct AppState { visits: SessionManager<Visits> }
///
/// fn app() -> Result<Router, ConfigError> {
///     let visits = SessionManager::builder().keys(Key::generate()).build()?;
///     Ok(Router::new().with_state(AppState { visits }))
/// }
/// ```
#[doc(alias = "SessionManagerLayer")]
pub struct SessionManager<T> {
    pub(crate) core: Core,
    data: PhantomData<fn() -> T>,
}

impl<T> Clone for SessionManager<T> {
    fn clone(&self) -> Self {
        Self::new(self.core.clone())
    }
}

impl<T> fmt::Debug for SessionManager<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager")
            .field("carrier", &self.core.tenant.carrier.description)
            .finish_non_exhaustive()
    }
}

/// Serves a router whose state is an `Arc` of a struct with `#[derive(FromRef)]`.
impl<S, T> FromRef<Arc<S>> for SessionManager<T>
where
    Self: FromRef<S>,
{
    fn from_ref(state: &Arc<S>) -> Self {
        Self::from_ref(&**state)
    }
}

/// A future of the core. It is boxed in code without a data type, so it is compiled once for all types.
pub(crate) type BoxFuture<'a, R> =
    Pin<Box<dyn Future<Output = Result<R, SessionError>> + Send + 'a>>;

impl<T> SessionManager<T> {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, data: PhantomData }
    }

    /// Returns the response of an error: the page that
    /// [`error_response`](crate::SessionManagerBuilder::error_response) sets, or a short plain sentence.
    ///
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) calls it for every session error of a request. Without the
    /// layer, call it where the application renders its own errors.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{extract::State, response::Response};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn index(
    ///     State(sessions): State<SessionManager<Visits>>,
    ///     session: Result<Session<Visits>, SessionError>,
    /// ) -> Result<Response, Response> {
    ///     let page = |error| sessions.error_response(&error);
    ///     let mut session = session.map_err(page)?;
    ///     session.count += 1;
    ///     let body = format!("{} visits", session.count);
    ///     Ok(session.commit().await.map_err(page)?.wrap(body))
    /// }
    /// ```
    pub fn error_response(&self, error: &SessionError) -> Response {
        let mut response = match &self.core.error_response {
            Some(respond) => respond(error),
            None => error.response(),
        };
        // The application may answer with 200, which a shared cache would keep.
        self.core.tenant.carrier.mark(false, response.headers_mut());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_3<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_2<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_futures_of_every_request_stay_on_the_fast_path_of_allocators() {
        let sizes = [size_of_3(Core::open), size_of_2(Core::commit), size_of_3(Core::update_row)];
        eprintln!("{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    }
}
