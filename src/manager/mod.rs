//! The manager: one kind of session, from the tokens of a request to the writes and cookies of its commits.

mod any_data;
mod basis;
mod commit;
mod core;
mod created;
mod data;
mod endings;
mod incoming;
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
    tokens::cookie_bytes,
};
pub use self::{created::CreatedSession, stored::StoredSession};
use crate::error::SessionError;

/// What happens when two requests change one stored session at once. Default: [`Merge`](Self::Merge);
/// [`on_conflict`](crate::SessionManagerBuilder::on_conflict) sets another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// Both changes are kept where both can hold. Otherwise the later commit is [`SessionError::Conflict`].
    ///
    /// The fields of the session's type and the keys of its maps merge one by one. Lists that only grew keep both
    /// additions, unless their items are numbers or booleans. Of two strings the later commit's is kept.
    /// [`Counter`](crate::Counter), [`Latest`](crate::Latest), [`Set`](crate::Set) and [`Once`](crate::Once) say how
    /// a field merges. A nested struct, an enum and a tuple are one value each. Two different changes of one value
    /// conflict, as do two changes of one number, and data that holds integers beyond 64 bits.
    #[default]
    Merge,
    /// The later commit is [`SessionError::Conflict`].
    Reject,
    /// The later commit replaces the data of the earlier commit. A session that has ended stays ended.
    Overwrite,
}

/// The sessions of one type. The router's state holds it; handlers take a [`Session`](crate::Session).
///
/// Cheap to clone. [`builder`](Self::builder) makes one. Its methods work on stored sessions outside a request, for
/// background jobs and admin pages.
///
/// # Example
///
/// ```
/// use axum::{Router, extract::FromRef};
/// use axum_typed_session::{Key, SessionManager};
///
/// #[derive(Clone, FromRef)]
/// struct AppState {
///     visits: SessionManager<u32>,
/// }
///
/// let visits = SessionManager::builder().keys(Key::generate()).build()?;
/// let app: Router = Router::new().with_state(AppState { visits });
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
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

/// For a router whose state is an `Arc` of a struct with `#[derive(FromRef)]`.
impl<S, T> FromRef<Arc<S>> for SessionManager<T>
where
    Self: FromRef<S>,
{
    fn from_ref(state: &Arc<S>) -> Self {
        Self::from_ref(&**state)
    }
}

/// A future of the core. Boxed in code without a data type, it is compiled once for all types.
pub(crate) type BoxFuture<'a, R> =
    Pin<Box<dyn Future<Output = Result<R, SessionError>> + Send + 'a>>;

impl<T> SessionManager<T> {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, data: PhantomData }
    }

    /// Renders an error with the function of [`error_response`](crate::SessionManagerBuilder::error_response), or as
    /// a short plain sentence.
    ///
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) calls it for every session error of a request. Without the
    /// layer, call it where the application renders its own errors.
    pub fn error_response(&self, error: &SessionError) -> Response {
        let mut response = match &self.core.error_response {
            Some(respond) => respond(error),
            None => error.response(),
        };
        // It may be a 200, which a shared cache would keep.
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
        let sizes = [
            size_of_3(Core::open),
            size_of_3(Core::look_up),
            size_of_2(Core::commit),
            size_of_2(Core::update_row),
        ];
        assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    }
}
