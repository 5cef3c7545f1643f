//! One kind of session as far as no data type is concerned: what `build` checked, and where sessions live.

use std::{
    any::TypeId,
    mem,
    ops::Deref,
    ptr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::response::Response;
use http::request::Parts;

use super::{ConflictPolicy, basis::Incoming, rows::Rows};
use crate::{
    clock::{Clock, Timestamp},
    decision::Prepared,
    error::{SessionError, SessionRejection, StoreError},
    event::{Events, SessionEventKind as Kind},
    expiry::{ExpiryPolicy, Lifetime},
    id::{ID_BYTES, Scope, StoreKey, random},
    seal::Sealer,
    store::{Record, SessionStore, Version},
    transport::Carrier,
    warnings::{Mistake, Route, Warnings},
};

/// A session manager without its data type.
#[derive(Clone)]
pub(crate) struct Core {
    settings: Arc<Settings>,
    pub(super) home: Home,
}

/// What the builder checked and no data type is needed for.
pub(crate) struct Settings {
    pub(crate) audience: String,
    pub(crate) kind: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) sealer: Option<Sealer>,
    pub(crate) carrier: Carrier,
    pub(crate) policy: ExpiryPolicy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Events,
    pub(crate) warnings: Warnings,
    pub(crate) generate_id: Option<Box<GenerateId>>,
    pub(crate) error_response: Option<Box<ErrorResponse>>,
    pub(crate) codec_tag: u8,
    pub(crate) schema: u32,
    pub(crate) accept_schema: u32,
    /// The application has an `.owner(..)`.
    pub(crate) owner_is_told: bool,
    pub(crate) on_conflict: ConflictPolicy,
    pub(crate) max_payload: usize,
    pub(crate) store_timeout: Duration,
}

pub(crate) type GenerateId = dyn Fn(&Parts) -> [u8; ID_BYTES] + Send + Sync;
pub(crate) type ErrorResponse = dyn Fn(&SessionError) -> Response + Send + Sync;
type StoreFor = dyn Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync;

/// Where the data lives.
#[derive(Clone)]
pub(crate) enum Home {
    /// In the token; ended sessions in the list, if there is one.
    Token(Option<Arc<dyn SessionStore>>),
    Store(Arc<dyn SessionStore>),
    StoreFor(Arc<StoreFor>),
}

/// The version of a record inside a token, which is replaced as a whole.
pub(super) const UNVERSIONED: Version = Version::from_bytes([0; 16]);

impl Core {
    pub(crate) fn new(settings: Settings, home: Home) -> Self {
        Self { settings: Arc::new(settings), home }
    }

    pub(super) fn with_store(&self, store: impl SessionStore) -> Self {
        Self { settings: self.settings.clone(), home: Home::Store(Arc::new(store)) }
    }

    /// Returns `true` if both came out of one `build` and keep their sessions in one place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings) && self.home.is_same(&other.home)
    }

    /// Returns `true` if the data is in the token, where no other request can change it.
    pub(crate) fn data_in_token(&self) -> bool {
        matches!(self.home, Home::Token(_))
    }

    /// Returns the store of a request: of its rows, or of the revocation list.
    pub(super) fn store_of(
        &self,
        parts: &Parts,
    ) -> Result<Option<Arc<dyn SessionStore>>, SessionRejection> {
        match &self.home {
            Home::Token(list) => Ok(list.clone()),
            Home::Store(store) => Ok(Some(store.clone())),
            Home::StoreFor(store_for) => store_for(parts).map(Some).map_err(|error| {
                self.alarm(Kind::StoreError { operation: "store_for" });
                error.into()
            }),
        }
    }

    /// Returns the store of operations outside a request.
    pub(super) fn store(
        &self,
        operation: &'static str,
    ) -> Result<&Arc<dyn SessionStore>, SessionError> {
        match &self.home {
            Home::Store(store) => Ok(store),
            Home::Token(_) | Home::StoreFor(_) => Err(SessionError::NoStore { operation }),
        }
    }

    /// Returns the rows of a request's sessions, or `None` where the data is in the token.
    pub(super) fn rows<'a>(&'a self, incoming: &'a Incoming) -> Option<Rows<'a>> {
        let store = incoming.store.as_ref().filter(|_| !self.data_in_token());
        store.map(|store| self.rows_in(store))
    }

    /// Returns the revocation list of a request whose data is in the token.
    pub(super) fn list<'a>(&'a self, incoming: &'a Incoming) -> Option<Rows<'a>> {
        let list = incoming.store.as_ref().filter(|_| self.data_in_token());
        list.map(|list| self.rows_in(list))
    }

    pub(super) fn rows_in<'a>(&'a self, store: &'a Arc<dyn SessionStore>) -> Rows<'a> {
        Rows { store, timeout: self.store_timeout, events: &self.events }
    }

    /// Makes the record of data that was prepared for a save.
    pub(super) fn record(
        &self,
        prepared: &Prepared,
        lifetime: Lifetime,
        epoch: u64,
    ) -> Result<Record, SessionError> {
        Ok(Record {
            version: if self.data_in_token() {
                UNVERSIONED
            } else {
                Version::random().map_err(SessionError::Random)?
            },
            schema: self.schema,
            codec: self.codec_tag,
            owner: prepared.owner,
            lifetime,
            epoch,
            tombstone: false,
            payload: prepared.payload.clone(),
        })
    }

    /// Draws the epoch of a new identity. In a token it would have no reader.
    pub(super) fn new_epoch(&self) -> Result<u64, SessionError> {
        if self.data_in_token() {
            return Ok(0);
        }
        random().map(|bytes| u64::from_be_bytes(bytes) | 1).map_err(SessionError::Random)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    pub(crate) fn report(&self, kind: Kind, session: impl FnOnce() -> StoreKey) {
        self.events.report(kind, || Some(session()));
    }

    /// Reports an event of no known session.
    pub(crate) fn alarm(&self, kind: Kind) {
        self.events.report(kind, || None);
    }

    pub(crate) fn warn(
        &self,
        mistake: Mistake,
        session: &'static str,
        route: Option<&Route>,
        pointer: Option<&str>,
    ) {
        self.warnings.warn(mistake, session, route, pointer, self.now());
    }

    /// Renders an error for the client.
    pub(crate) fn render(&self, error: &SessionError) -> Response {
        match &self.error_response {
            Some(respond) => respond(error),
            None => error.response(),
        }
    }

    /// Reports and returns [`SessionError::Gone`].
    pub(crate) fn gone(&self, key: Option<StoreKey>) -> SessionError {
        self.events.report(Kind::Gone, || key);
        SessionError::Gone
    }

    pub(super) fn check_size(&self, actual: usize, limit: usize) -> Result<(), SessionError> {
        if actual <= limit {
            return Ok(());
        }
        self.alarm(Kind::TooLarge { actual, limit });
        Err(SessionError::TooLarge { actual, limit })
    }
}

/// The managers there are and their data types, so that two of one kind are noticed.
static LIVE: Mutex<Vec<(Weak<Settings>, TypeId, &'static str)>> = Mutex::new(Vec::new());

impl Core {
    /// Warns of another manager that opens this one's sessions, or whose sessions this one opens.
    pub(crate) fn warn_of_shared_kind(&self, id: TypeId, name: &'static str) {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(settings, ..)| settings.strong_count() > 0);
        for (other, other_id, other_name) in live.iter() {
            let Some(other) = other.upgrade().filter(|other| self.is_of_one_kind(other)) else {
                continue;
            };
            let (ours, theirs) = (self.carrier.describe(), other.carrier.describe());
            if ours == theirs && id != *other_id {
                tracing::warn!(
                    "the session managers of `{name}` and of `{other_name}` open each other's sessions: give \
                     each its own `.kind(..)` or its own cookie"
                );
            } else if ours != theirs && (self.sealer.is_none() || other.sealer.is_none()) {
                tracing::warn!(
                    "the session managers under the {ours} and under the {theirs} are of one kind, so that an id \
                     of one opens as the other's where they share a store: give each its own `.kind(..)`, or \
                     seal ids with `.keys(..)`"
                );
            }
        }
        live.push((Arc::downgrade(&self.settings), id, name));
    }

    fn is_of_one_kind(&self, other: &Settings) -> bool {
        self.audience == other.audience
            && self.kind == other.kind
            && self.carrier.binding == other.carrier.binding
    }
}

impl Deref for Core {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Home {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // `with_store` is the one way to another home, and always gives a store.
            (Self::Store(one), Self::Store(other)) => {
                ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
            }
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }
}
