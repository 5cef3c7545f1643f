//! The manager without its data type: the options that `build` checked, and the place where sessions live.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64},
    time::Duration,
};

use axum::response::Response;
use cookie::Cookie;
use http::request::Parts;
use serde_json::Value;

use super::{ConflictPolicy, any_data::DataType, rows::Rows, tenant::Tenant};
use crate::{
    clock::{Clock, Timestamp},
    decision::Prepared,
    error::{BoxError, ConfigError, Result, SessionError, StoreError},
    event::{Events, SessionEventKind as Kind},
    expiry::{ExpiryPolicy, Lifetime},
    id::{ID_BYTES, StoreKey, unique},
    import::Import,
    keys::DerivedKey,
    seal::Sealer,
    store::{Record, SessionStore, Version},
    transport::Transport,
    warnings::{Route, Warnings},
};

/// A session manager without its data type. Every request clones it.
#[derive(Clone)]
pub(crate) struct Core(Arc<Base>);

/// A manager's settings, and where it keeps and carries its sessions.
#[derive(Clone)]
pub(crate) struct Base {
    settings: Arc<Settings>,
    pub(crate) home: Arc<Home>,
    /// The store that `store_for` chose.
    chosen: Option<Arc<dyn SessionStore>>,
    pub(crate) tenant: Arc<Tenant>,
}

/// The checked options, and what `build` made for them.
pub(crate) struct Settings {
    pub(crate) options: Options,
    pub(crate) data: Box<dyn DataType>,
    pub(crate) sealer: Option<Sealer>,
    /// Opens the payloads of rows, and seals them if `encrypt_rows` is set.
    pub(crate) row_sealer: Option<Sealer>,
    /// The keys with which names of owners are hashed, the one for new rows first. None in a token.
    pub(crate) owner_keys: Vec<DerivedKey>,
    /// The keys from which the ids of imported sessions are derived, the one for new sessions first.
    pub(crate) import_keys: Vec<DerivedKey>,
    pub(crate) warnings: Warnings,
    /// Counts saves. Some of them are read back as a check.
    pub(crate) saves: AtomicU64,
}

/// The options that the manager keeps and that depend on no data type.
///
/// Where a check asks whether an option was set, the option is `None` until then.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) type_name: &'static str,
    pub(crate) audience: String,
    pub(crate) audience_for: Option<Box<AudienceFor>>,
    pub(crate) transport: Option<Transport>,
    pub(crate) cookie: Option<Cookie<'static>>,
    pub(crate) cookie_for: Option<Box<CookieFor>>,
    pub(crate) former_cookies: Vec<Cookie<'static>>,
    /// The readers of sessions of other libraries, in the order in which they are asked.
    pub(crate) imports: Vec<Import>,
    pub(crate) insecure_http: bool,
    pub(crate) remove_unpartitioned: bool,
    pub(crate) events: Events,
    pub(crate) policy: ExpiryPolicy,
    pub(crate) extend_if: Option<Box<ExtendIf>>,
    /// The clock of the operating system, if there is none.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) generate_id: Option<Box<GenerateId>>,
    pub(crate) error_response: Option<Box<ErrorResponse>>,
    /// The application has an `.owner(..)`.
    pub(crate) owner_is_told: bool,
    pub(crate) codec_tag: u8,
    pub(crate) schema: u32,
    pub(crate) accept_schema: Option<u32>,
    pub(crate) migrate: Option<Box<Migrate>>,
    pub(crate) on_conflict: Option<ConflictPolicy>,
    pub(crate) max_payload: usize,
    pub(crate) max_sessions_per_owner: Option<u32>,
    pub(crate) encrypt_rows: bool,
    pub(crate) max_cookie_bytes: Option<usize>,
    pub(crate) store_timeout: Option<Duration>,
    pub(crate) clock_skew: Duration,
}

type AudienceFor = dyn Fn(&Parts) -> String + Send + Sync;
type CookieFor = dyn Fn(&Parts) -> Cookie<'static> + Send + Sync;
type ExtendIf = dyn Fn(&Parts) -> bool + Send + Sync;
type GenerateId = dyn Fn(&Parts) -> [u8; ID_BYTES] + Send + Sync;
type ErrorResponse = dyn Fn(&SessionError) -> Response + Send + Sync;
type Migrate = dyn Fn(u32, Value) -> Result<Value, BoxError> + Send + Sync;
type StoreFor = dyn Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync;

/// Where the data lives.
#[derive(Clone)]
pub(crate) enum Home {
    /// In the token. The list contains ended sessions, if there is one.
    Token(Option<Arc<dyn SessionStore>>),
    Store(Arc<dyn SessionStore>),
    StoreFor(Arc<StoreFor>),
}

const STORE_TIMEOUT: Duration = Duration::from_secs(2);

const MAX_SESSIONS_PER_OWNER: u32 = 100;

impl Options {
    /// Returns `true` if a newer version of the application wrote a record.
    pub(super) fn is_newer(&self, record: &Record) -> bool {
        record.schema > self.accept_schema.unwrap_or(self.schema)
    }

    pub(super) fn store_timeout(&self) -> Duration {
        self.store_timeout.unwrap_or(STORE_TIMEOUT)
    }

    pub(super) fn max_sessions_per_owner(&self) -> usize {
        let limit = self.max_sessions_per_owner.unwrap_or(MAX_SESSIONS_PER_OWNER);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }
}

/// The version of a record inside a token, which is replaced as a whole.
pub(super) const UNVERSIONED: Version = Version::from_bytes([0; 16]);

impl Core {
    pub(crate) fn new(settings: Settings, home: Home) -> Result<Self, ConfigError> {
        let tenant = Arc::new(settings.tenant(None)?);
        let (settings, home) = (Arc::new(settings), Arc::new(home));
        let core = Self(Arc::new(Base { settings, home, chosen: None, tenant }));
        core.warn_of_shared_kind();
        Ok(core)
    }

    pub(crate) fn with_store(&self, store: impl SessionStore) -> Self {
        let home = Arc::new(Home::Store(Arc::new(store)));
        Self(Arc::new(Base { home, chosen: None, ..Base::clone(&self.0) }))
    }

    /// Returns the core of one request, with the store, the cookie and the audience that the options choose; `None` if
    /// they choose none.
    pub(crate) fn of_request(&self, parts: &Parts) -> Result<Option<Self>> {
        let mut own = None;
        if let Home::StoreFor(choose) = &*self.home {
            let store = choose(parts).inspect_err(|_| {
                self.events.report(Kind::StoreError { operation: "store_for" }, || None);
            });
            Arc::make_mut(&mut own.get_or_insert_with(|| self.clone()).0).chosen = Some(store?);
        }
        if self.cookie_for.is_some() || self.audience_for.is_some() {
            let tenant = self.settings.tenant(Some(parts)).map_err(SessionError::Config)?;
            for risk in &tenant.carrier.template.risks {
                self.warn(risk, None, None);
            }
            Arc::make_mut(&mut own.get_or_insert_with(|| self.clone()).0).tenant = Arc::new(tenant);
        }
        Ok(own)
    }

    /// Returns `true` if both are of the same `build` or the same `with_store`.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.home, &other.home)
    }

    /// Returns `true` if the data is in the token, where no other request can change it.
    pub(crate) fn data_in_token(&self) -> bool {
        matches!(*self.home, Home::Token(_))
    }

    /// Returns `true` if opening a session needs neither a store nor a revocation list.
    pub(crate) fn opens_at_once(&self) -> bool {
        matches!(*self.home, Home::Token(None)) && self.imports.is_empty()
    }

    /// Returns the rows for an operation that needs a store.
    pub(crate) fn rows_for(&self, operation: &'static str) -> Result<Rows<'_>> {
        self.rows().ok_or(SessionError::NoStore { operation })
    }

    /// Returns the rows of the sessions, or `None` where the data is in the token.
    pub(super) fn rows(&self) -> Option<Rows<'_>> {
        self.store().map(|store| self.rows_in(store))
    }

    pub(super) fn store(&self) -> Option<&Arc<dyn SessionStore>> {
        match (&self.chosen, &*self.home) {
            (Some(store), _) | (None, Home::Store(store)) => Some(store),
            (None, Home::Token(_) | Home::StoreFor(_)) => None,
        }
    }

    /// Returns the revocation list, if there is one where the data is in the token.
    pub(super) fn list(&self) -> Option<Rows<'_>> {
        if let Home::Token(Some(list)) = &*self.home { Some(self.rows_in(list)) } else { None }
    }

    fn rows_in<'a>(&'a self, store: &'a Arc<dyn SessionStore>) -> Rows<'a> {
        // Not the `Arc`, which is a store too and would box every future once more.
        let store = store.as_ref();
        Rows { core: self, store, timeout: self.store_timeout() }
    }

    /// Makes the record of data that was prepared for a save.
    pub(super) fn record(&self, prepared: &Prepared, lifetime: Lifetime, epoch: u64) -> Record {
        Record {
            version: if self.data_in_token() { UNVERSIONED } else { Version::unique() },
            schema: self.schema,
            codec: self.codec_tag,
            owner: prepared.owner,
            lifetime,
            epoch,
            kind: if self.data_in_token() { 0 } else { self.tenant.scope.kind },
            tombstone: false,
            is_sealed: false,
            opened_from: None,
            payload: prepared.payload.clone(),
        }
    }

    /// Returns the epoch of a new identity. Nothing reads the epoch of a token, so it is 0 there.
    pub(super) fn new_epoch(&self) -> u64 {
        if self.data_in_token() { 0 } else { unique().1.max(1) }
    }

    /// Returns how long a session lives after a save.
    pub(super) fn ttl_of(&self, record: &Record) -> Duration {
        self.policy.ttl(record.idle_timeout(), record.owner.is_some())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::by(self.clock.as_deref())
    }

    pub(crate) fn report(&self, kind: Kind, session: impl FnOnce() -> StoreKey) {
        self.events.report(kind, || Some(session()));
    }

    pub(crate) fn warn(&self, warning: &'static str, route: Option<&Route>, pointer: Option<&str>) {
        self.warnings.warn(warning, self.type_name, route, pointer, self.now());
    }

    pub(super) fn warn_once(&self, warning: &'static str) {
        self.warnings.warn_once(warning, self.type_name, None);
    }

    /// Reports and returns [`SessionError::Gone`].
    pub(crate) fn gone(&self, key: Option<StoreKey>) -> SessionError {
        self.events.report(Kind::Gone, || key);
        SessionError::Gone
    }

    pub(super) fn check_size(&self, actual: usize, limit: usize) -> Result<()> {
        if actual <= limit {
            return Ok(());
        }
        self.events.report(Kind::TooLarge { actual, limit }, || None);
        Err(SessionError::TooLarge { actual, limit })
    }
}

impl Deref for Core {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.0
    }
}

impl Deref for Base {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Deref for Settings {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// All managers of the process, so that two of one kind are noticed.
static LIVE: Mutex<Vec<(Weak<Settings>, Weak<Tenant>)>> = Mutex::new(Vec::new());

impl Core {
    /// Warns of another manager that opens this one's sessions, or whose sessions this one opens.
    fn warn_of_shared_kind(&self) {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(settings, _)| settings.strong_count() > 0);
        let carrier = &self.tenant.carrier;
        let managers = live.iter().filter_map(|(one, tenant)| one.upgrade().zip(tenant.upgrade()));
        for (other, tenant) in managers {
            // A plain id is not bound to the kind of its transport.
            let both_plain = self.sealer.is_none() && other.sealer.is_none();
            if self.audience != other.audience
                || self.events.kind != other.events.kind
                || !(both_plain || carrier.name == tenant.carrier.name)
            {
                continue;
            }
            let (ours, theirs) = (&carrier.description, &tenant.carrier.description);
            if ours == theirs && self.type_name != other.type_name {
                tracing::warn!(
                    "the session managers of `{}` and of `{}` open each other's sessions: give each of them \
                     its own `.kind(..)` or its own cookie",
                    self.type_name,
                    other.type_name
                );
            } else if ours != theirs && (self.sealer.is_none() || other.sealer.is_none()) {
                tracing::warn!(
                    "the session managers with the {ours} and with the {theirs} are of one kind, so each accepts \
                     the ids of the other if they share a store: give each of them its own `.kind(..)`, or \
                     encrypt ids with `.keys(..)`"
                );
            }
        }
        live.push((Arc::downgrade(&self.settings), Arc::downgrade(&self.tenant)));
    }
}
