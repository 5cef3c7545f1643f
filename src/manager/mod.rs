//! The manager: one session kind's configuration, opening sessions and carrying decisions out.

mod commit;
mod contention;
mod end;
mod open;
mod outside;
mod payload;
mod rows;
mod save;
mod token;

use std::{
    fmt, mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::request::Parts;
use serde_json::Value;

pub use self::outside::StoredSession;
use self::rows::Rows;
pub(crate) use self::{
    commit::{Committed, Effect},
    payload::Draft,
};
use crate::{
    clock::{Clock, Timestamp},
    codec::Codec,
    decision::Origin,
    error::{BoxError, SessionError, StoreError},
    event::{Events, SessionEvent},
    expiry::ExpiryPolicy,
    id::{ID_BYTES, Scope, SessionId, StoreKey, random},
    merge::Shape,
    record::Record,
    seal::Sealer,
    store::SessionStore,
    transport::Carrier,
};

/// What happens when two requests change one stored session at once; `Merge` unless
/// [`on_conflict`](crate::SessionManagerBuilder::on_conflict) sets another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// Changes to different fields of the data, and to different keys of maps in it, both survive. Lists that
    /// only grew keep both tails, unless they are of numbers or booleans. Of two strings the later commit's
    /// stands. [`Counter`](crate::Counter), [`Latest`](crate::Latest), [`Set`](crate::Set) and
    /// [`Once`](crate::Once) merge as they say. Anything else that both changed is
    /// [`SessionError::Conflict`] for the later commit, numbers even if they are equal.
    ///
    /// A nested struct, an enum, a tuple and all that `#[serde(flatten)]` brings in are one value each: fields
    /// that only make sense together go into a nested struct. The order of a list is no change, since a
    /// `HashSet` is written in another order each time. Data with integers beyond 64 bits does not merge.
    #[default]
    Merge,
    /// The later commit is [`SessionError::Conflict`].
    Reject,
    /// The later commit replaces the earlier one, knowingly. A session that has ended stays ended.
    Overwrite,
}

/// The sessions of one type: what the router's state holds and handlers never see.
///
/// Cheap to clone. [`builder`](Self::builder) makes one; its methods work on stored sessions outside a
/// request, for background jobs and admin pages.
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
    config: Arc<Config<T>>,
    backing: Backing,
}

impl<T> Clone for SessionManager<T> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), backing: self.backing.clone() }
    }
}

impl<T> fmt::Debug for SessionManager<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager")
            .field("carrier", &self.config.carrier)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

type Migrate = dyn Fn(u32, Value) -> Result<Value, BoxError> + Send + Sync;

/// Everything the builder checked.
pub(crate) struct Config<T> {
    pub(crate) scope: Scope,
    pub(crate) sealer: Option<Sealer>,
    pub(crate) carrier: Carrier,
    pub(crate) policy: ExpiryPolicy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) default: fn() -> T,
    pub(crate) shape: fn([&Value; 3]) -> Shape,
    pub(crate) hooks: Hooks<T>,
    pub(crate) schema: u32,
    pub(crate) accept_schema: u32,
    pub(crate) events: Events,
    pub(crate) max_payload: usize,
    pub(crate) store_timeout: Duration,
    pub(crate) on_conflict: ConflictPolicy,
    pub(crate) warned: Warned,
}

type Validate<T> = dyn Fn(&Parts, &T) -> bool + Send + Sync;
type ValidateData<T> = dyn Fn(&T) -> bool + Send + Sync;
type BeforeSave<T> = dyn Fn(&mut T) + Send + Sync;
type Owner<T> = dyn Fn(&T) -> Option<String> + Send + Sync;
type GenerateId = dyn Fn(&Parts) -> [u8; ID_BYTES] + Send + Sync;

/// The application's functions.
pub(crate) struct Hooks<T> {
    pub(crate) validate: Option<Box<Validate<T>>>,
    pub(crate) validate_data: Option<Box<ValidateData<T>>>,
    pub(crate) before_save: Option<Box<BeforeSave<T>>>,
    pub(crate) owner: Option<Box<Owner<T>>>,
    pub(crate) migrate: Option<Box<Migrate>>,
    pub(crate) generate_id: Option<Box<GenerateId>>,
}

impl<T> Default for Hooks<T> {
    fn default() -> Self {
        Self {
            validate: None,
            validate_data: None,
            before_save: None,
            owner: None,
            migrate: None,
            generate_id: None,
        }
    }
}

/// What was warned of already: once per session type is enough to find the line.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    dirty: AtomicBool,
    lost: AtomicBool,
}

impl Warned {
    pub(crate) fn dirty_first_time(&self) -> bool {
        !self.dirty.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn lost_first_time(&self) -> bool {
        !self.lost.swap(true, Ordering::Relaxed)
    }
}

type StoreFor = dyn Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync;

/// Where the data lives.
#[derive(Clone)]
pub(crate) enum Backing {
    /// In the token; ended sessions in the list, if there is one.
    Token(Option<Arc<dyn SessionStore>>),
    Store(Arc<dyn SessionStore>),
    StoreFor(Arc<StoreFor>),
}

impl Backing {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // `with_store` is the one way to another backing, and always gives a store.
            (Self::Store(one), Self::Store(other)) => {
                ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
            }
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(None) => "token",
            Self::Token(Some(_)) => "token with revocations",
            Self::Store(_) => "store",
            Self::StoreFor(_) => "store per request",
        })
    }
}

/// What a request knows of its session: what a commit starts from.
pub(crate) struct Basis {
    pub(crate) origin: Origin,
    /// A token of this name came with the request, valid or not.
    pub(crate) arrived: bool,
    pub(crate) opened_at: Timestamp,
    /// The session, if the origin is `Loaded`.
    pub(crate) live: Option<Live>,
    /// Further sessions that came in, valid or refused, which a destroy ends too.
    others: Vec<(StoreKey, Option<Record>)>,
    /// Where rows, or revocations, of this request are.
    pub(crate) store: Option<Arc<dyn SessionStore>>,
    /// What `id_generator` wants to see; kept only if there is one.
    parts: Option<Arc<Parts>>,
}

/// A valid session.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) id: SessionId,
    pub(crate) record: Record,
    retired_key: bool,
}

impl Basis {
    /// Returns the basis after a commit, for the rest of the request.
    fn after(&self, origin: Origin, live: Option<Live>) -> Self {
        Self {
            origin,
            live,
            arrived: self.arrived,
            opened_at: self.opened_at,
            others: self.others.clone(),
            store: self.store.clone(),
            parts: self.parts.clone(),
        }
    }
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    pub(crate) fn new(config: Config<T>, backing: Backing) -> Self {
        Self { config: Arc::new(config), backing }
    }

    /// Says whether both came out of one `build` and keep their sessions in one place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.backing.is_same(&other.backing)
    }

    pub(crate) fn carrier(&self) -> &Carrier {
        &self.config.carrier
    }

    pub(crate) fn warned(&self) -> &Warned {
        &self.config.warned
    }

    pub(crate) fn policy(&self) -> &ExpiryPolicy {
        &self.config.policy
    }

    pub(crate) fn default_data(&self) -> T {
        (self.config.default)()
    }

    /// Says whether the data is in the token, where no other request can change it.
    pub(crate) fn data_in_token(&self) -> bool {
        matches!(self.backing, Backing::Token(_))
    }

    fn now(&self) -> Timestamp {
        self.config.clock.now().into()
    }

    fn emit(&self, make: impl FnOnce() -> SessionEvent) {
        self.config.events.emit(make);
    }

    fn alarm(&self, event: &SessionEvent) {
        self.config.events.alarm(event);
    }

    fn rows<'a>(&'a self, store: &'a Arc<dyn SessionStore>) -> Rows<'a> {
        Rows { store, timeout: self.config.store_timeout, events: &self.config.events }
    }

    /// Draws the id of a new session.
    fn draw_id(&self, basis: &Basis) -> Result<SessionId, SessionError> {
        let secret = match (&self.config.hooks.generate_id, &basis.parts) {
            (Some(generate), Some(parts)) => generate(parts),
            _ => random().map_err(SessionError::Random)?,
        };
        Ok(self.config.scope.id(secret))
    }

    /// Encodes session data, as it is.
    pub(crate) fn encode(&self, data: &T) -> Result<Bytes, SessionError> {
        self.config.codec.encode(data).map(Bytes::from).map_err(SessionError::Encode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_futures_of_every_request_stay_on_the_fast_path_of_allocators() {
        type Large = [[u64; 32]; 32];
        assert!(future_size(SessionManager::<Large>::open) <= 1024);
        assert!(future_size(SessionManager::<Large>::commit) <= 1024);
    }
}
