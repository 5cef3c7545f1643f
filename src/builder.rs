//! The builder: every option, and the checks that make a bad configuration fail early.

use std::{fmt, sync::Arc, time::Duration};

use cookie::Cookie;
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    clock::{Clock, SystemClock},
    codec::{Codec, JSON_TAG, JsonCodec},
    cookies::CookieTemplate,
    error::{BoxError, ConfigError, StoreError},
    event::{Events, Hook, SessionEvent},
    expiry::{ExpiryPolicy, Extension, MaxAge},
    id::Scope,
    keys::KeyRing,
    manager::{Backing, Config, ConflictPolicy, Hooks, SessionManager, Warned},
    merge::Shape,
    seal::{Content, Protection, Sealer},
    store::SessionStore,
    transport::{Carrier, Transport},
};

const STORE_TIMEOUT: Duration = Duration::from_secs(2);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Browsers cut cookie lifetimes to this (RFC 6265bis, section 5.5).
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Long enough for anything and short enough that no sum overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl<T> SessionManager<T>
where
    T: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts a manager; `.keys(..)` or `.store(..)` is all it needs.
    pub fn builder() -> SessionManagerBuilder<T> {
        SessionManagerBuilder {
            keys: None,
            audience: env!("CARGO_PKG_NAME").to_owned(),
            kind: None,
            cookie: Cookie::new("__Host-session", ""),
            has_cookie: false,
            insecure_http: false,
            remove_unpartitioned: false,
            signed: false,
            backing: None,
            revocations: None,
            transport: Transport::cookie(),
            max_age: MaxAge::Persistent(DAY),
            extension: Extension::OnSave,
            absolute_timeout: 30 * DAY,
            anonymous_ttl: None,
            max_payload: 64 * 1024,
            codec: Arc::new(JsonCodec),
            hooks: Hooks::default(),
            on_event: None,
            on_conflict: None,
            schema: 1,
            accept_schema: None,
            store_timeout: None,
            clock: Arc::new(SystemClock),
            default: T::default,
            shape: Shape::of::<T>,
        }
    }
}

/// All options of a [`SessionManager`]; [`build`](Self::build) checks them.
///
/// The defaults are safe for production over https. What differs from them should have a reason.
#[must_use = "a builder does nothing until `build`"]
#[allow(clippy::struct_excessive_bools, reason = "independent options, each its own method")]
pub struct SessionManagerBuilder<T> {
    keys: Option<KeyRing>,
    audience: String,
    kind: Option<String>,
    cookie: Cookie<'static>,
    has_cookie: bool,
    insecure_http: bool,
    remove_unpartitioned: bool,
    signed: bool,
    backing: Option<Backing>,
    revocations: Option<Arc<dyn SessionStore>>,
    transport: Transport,
    max_age: MaxAge,
    extension: Extension,
    absolute_timeout: Duration,
    anonymous_ttl: Option<Duration>,
    max_payload: usize,
    codec: Arc<dyn Codec<T>>,
    hooks: Hooks<T>,
    on_event: Option<Arc<Hook>>,
    on_conflict: Option<ConflictPolicy>,
    schema: u32,
    accept_schema: Option<u32>,
    store_timeout: Option<Duration>,
    clock: Arc<dyn Clock>,
    default: fn() -> T,
    shape: fn([&Value; 3]) -> Shape,
}

impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets the keys that seal tokens: a [`Key`](crate::Key), or a [`KeyRing`] to rotate them.
    ///
    /// Required in cookie mode. With a store the id is sealed too, so that forged ids cost no store call.
    pub fn keys(mut self, keys: impl Into<KeyRing>) -> Self {
        self.keys = Some(keys.into());
        self
    }

    /// Sets which application the sessions are for; tokens and ids of another audience do not open.
    ///
    /// Default: this crate's name. Set it where applications share keys or a store.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// Sets what kind of session this is; tokens and ids of another kind do not open.
    ///
    /// Default: the name of the cookie or header.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Sets the cookie's name and attributes; what the template leaves unset takes the default.
    ///
    /// Default: `__Host-session`, `Path=/`, Secure, HttpOnly, SameSite=Lax.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager, cookie::{Cookie, SameSite}};
    ///
    /// let strict = Cookie::build("__Host-login").same_site(SameSite::Strict);
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .cookie(strict)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// Without HttpOnly any script on the page reads the cookie, without Secure anyone on the network;
    /// both give a warning.
    pub fn cookie(mut self, template: impl Into<Cookie<'static>>) -> Self {
        self.cookie = template.into();
        self.has_cookie = true;
        self
    }

    /// Sends the cookie over plain http: drops Secure and the `__Host-` or `__Secure-` prefix. Default: off.
    ///
    /// # Security
    ///
    /// For development only, with browsers that refuse Secure cookies on `http://localhost`.
    pub fn insecure_http(mut self, insecure: bool) -> Self {
        self.insecure_http = insecure;
        self
    }

    /// Expires the unpartitioned cookie of the same name whenever a partitioned one is set or removed.
    ///
    /// Default: off. For sites that moved to Partitioned cookies
    /// ([CHIPS](https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies)).
    pub fn remove_unpartitioned(mut self, remove: bool) -> Self {
        self.remove_unpartitioned = remove;
        self
    }

    /// Signs tokens instead of encrypting them: the client can read them, and still not change them.
    ///
    /// # Security
    ///
    /// Whatever the session holds is visible to whoever holds the browser.
    pub fn signed(mut self) -> Self {
        self.signed = true;
        self
    }

    /// Keeps the data in a store; the client holds an id alone. Default: the data is in the cookie.
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.backing = Some(Backing::Store(Arc::new(store)));
        self
    }

    /// Chooses a store per request, such as one for each tenant.
    ///
    /// Outside requests, [`SessionManager::with_store`] names the store.
    pub fn store_for(
        mut self,
        choose: impl Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.backing = Some(Backing::StoreFor(Arc::new(choose)));
        self
    }

    /// Ends sessions of cookie mode for good: a list of those destroyed or given a new id.
    ///
    /// Default: none; a copied cookie then outlives its logout. Every load asks the list, so a list that is
    /// down is 503. Every node must share it.
    ///
    /// A logout takes a place in the list until no token of its session can be alive, which is
    /// `absolute_timeout` and ten minutes. Anybody can get a session and end it, so requests that end one
    /// should be limited in number where the list is bounded: a full list answers a logout with 503.
    pub fn revocations(mut self, list: impl SessionStore) -> Self {
        self.revocations = Some(Arc::new(list));
        self
    }

    /// Sets where the token travels. Default: [`Transport::cookie`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Makes ids of new sessions. Default: 32 bytes from the operating system.
    ///
    /// # Security
    ///
    /// Whoever can guess an id has the session: the bytes must be random.
    pub fn id_generator(
        mut self,
        generate: impl Fn(&Parts) -> [u8; 32] + Send + Sync + 'static,
    ) -> Self {
        self.hooks.generate_id = Some(Box::new(generate));
        self
    }

    /// Sets how long a session lives after each save. Default: one day.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = MaxAge::Persistent(max_age);
        self
    }

    /// Lets the cookie go when the browser closes; the server ends the session `ttl` after each save.
    pub fn browser_session(mut self, ttl: Duration) -> Self {
        self.max_age = MaxAge::BrowserSession(ttl);
        self
    }

    /// Restarts the clock at every commit, changed or not. Default: off.
    pub fn rolling(mut self, rolling: bool) -> Self {
        self.extension = match (rolling, self.extension) {
            (true, _) => Extension::Rolling,
            (false, Extension::Rolling) => Extension::OnSave,
            (false, other) => other,
        };
        self
    }

    /// Restarts the clock at a commit when less than half of the time is left. Default: off.
    ///
    /// `rolling` does so anyway, so it wins where both are set.
    pub fn renew(mut self, renew: bool) -> Self {
        self.extension = match (renew, self.extension) {
            (true, Extension::OnSave) => Extension::Renew,
            (false, Extension::Renew) => Extension::OnSave,
            (_, other) => other,
        };
        self
    }

    /// Ends every session at this age, whatever extends it. Default: 30 days (NIST SP 800-63B, AAL1).
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.absolute_timeout = timeout;
        self
    }

    /// Cuts the life of sessions without an owner. Default: they live as long as any.
    ///
    /// Needs [`owner`](Self::owner), which tells the ones from the others.
    pub fn anonymous_ttl(mut self, ttl: Duration) -> Self {
        self.anonymous_ttl = Some(ttl);
        self
    }

    /// Sets the bytes that encoded data may take. Default: 64 KiB. In cookie mode the cookie's own limit of
    /// 4096 bytes comes first.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Refuses sessions that come in, by the request and the data; a fresh one starts instead.
    ///
    /// Such as for binding a session to a client. The refused row is left to expire.
    pub fn validate(
        mut self,
        validate: impl Fn(&Parts, &T) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.hooks.validate = Some(Box::new(validate));
        self
    }

    /// Refuses data by itself, also outside requests and after a merge; a fresh session starts instead.
    ///
    /// What a handler commits is not asked about: data that is refused here is saved, and refused when it
    /// comes in again.
    pub fn validate_data(mut self, validate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.validate_data = Some(Box::new(validate));
        self
    }

    /// Changes the data before every save, after merging; what it changes does not cause a save.
    pub fn before_save(mut self, before_save: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.hooks.before_save = Some(Box::new(before_save));
        self
    }

    /// Encodes the data in another way than JSON.
    ///
    /// With a store, [`ConflictPolicy::Merge`] needs JSON, as does [`migrate`](Self::migrate).
    pub fn codec(mut self, codec: impl Codec<T>) -> Self {
        self.codec = Arc::new(codec);
        self
    }

    /// Calls `on_event` with everything that happens, beside the `tracing` output.
    ///
    /// It runs within the request, so it should not block, and must not panic: a request that ends so
    /// after its row was written sends no cookie.
    pub fn on_event(mut self, on_event: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// Sets what happens when two requests change one stored session. Default: [`ConflictPolicy::Merge`].
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.on_conflict = Some(policy);
        self
    }

    /// Tells whose session it is, from its data; `None` for nobody's.
    ///
    /// Finding sessions by owner also needs a store with
    /// [`indexes_owners`](SessionStore::indexes_owners).
    pub fn owner(mut self, owner: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.hooks.owner = Some(Box::new(owner));
        self
    }

    /// Numbers the shape of the data. Default: 1. Needs [`migrate`](Self::migrate) above that.
    pub fn schema_version(mut self, version: u32) -> Self {
        self.schema = version;
        self
    }

    /// Brings JSON of an older schema version into today's shape; an error refuses the session.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{MemoryStore, SessionManager};
    /// use serde_json::Value;
    ///
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct Cart { skus: Vec<String> }
    ///
    /// // Version 1 held one article.
    /// let sessions = SessionManager::<Cart>::builder()
    ///     .store(MemoryStore::new())
    ///     .schema_version(2)
    ///     .migrate(|from, mut data| -> Result<Value, String> {
    ///         if from == 1 {
    ///             let cart = data.as_object_mut().ok_or("not a cart")?;
    ///             let sku = cart.remove("sku").ok_or("no article")?;
    ///             cart.insert("skus".into(), Value::Array(vec![sku]));
    ///         }
    ///         Ok(data)
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn migrate<E>(
        mut self,
        migrate: impl Fn(u32, Value) -> Result<Value, E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<BoxError>,
    {
        self.hooks.migrate =
            Some(Box::new(move |from, value| migrate(from, value).map_err(Into::into)));
        self
    }

    /// Also reads this newer schema version, as step one of a rolling change. Default: none newer.
    ///
    /// Data of a newer version is 503 otherwise, so that no node replaces what it does not understand. With
    /// several nodes, change the type in two releases:
    ///
    /// 1. `.accept_schema(2)`, with a type that reads both shapes (`#[serde(default)]` on what is new), and
    ///    still saves version 1;
    /// 2. when every node runs that: `.schema_version(2).migrate(..)`.
    pub fn accept_schema(mut self, version: u32) -> Self {
        self.accept_schema = Some(version);
        self
    }

    /// Bounds one store call; a store that takes longer counts as down. Default: two seconds.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = Some(timeout);
        self
    }

    /// Sets where now comes from. Default: the system's clock.
    ///
    /// A store has a clock of its own: give it the same one.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Checks everything and makes the manager.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] whose text names the option and what to change.
    pub fn build(self) -> Result<SessionManager<T>, ConfigError> {
        self.check_durations()?;
        self.check_combinations()?;
        let template =
            CookieTemplate::new(self.cookie, self.insecure_http, self.remove_unpartitioned)?;
        let carrier = Carrier::new(self.transport, template);
        let kind: Arc<str> = self.kind.as_deref().unwrap_or(carrier.name()).into();
        let protection = if self.signed { Protection::Signed } else { Protection::Encrypted };
        let (backing, holds) = match self.backing {
            Some(backing) => (backing, Content::Id),
            None => (Backing::Token(self.revocations), Content::Data),
        };
        let sealer = match &self.keys {
            Some(ring) => {
                let bound_to = [&*self.audience, &*kind, carrier.binding()];
                Some(Sealer::new(ring, protection, holds, bound_to)?)
            }
            None if holds == Content::Id => None,
            None => return Err(ConfigError::MissingKeys),
        };
        let config = Config {
            scope: Scope::new(&self.audience, &kind),
            sealer,
            carrier,
            policy: ExpiryPolicy {
                max_age: self.max_age,
                extension: self.extension,
                absolute_timeout: self.absolute_timeout,
                anonymous_ttl: self.anonymous_ttl,
            },
            clock: self.clock,
            codec: self.codec,
            default: self.default,
            shape: self.shape,
            hooks: self.hooks,
            schema: self.schema,
            accept_schema: self.accept_schema.unwrap_or(self.schema),
            events: Events::new(kind, self.on_event),
            max_payload: self.max_payload,
            store_timeout: self.store_timeout.unwrap_or(STORE_TIMEOUT),
            on_conflict: self.on_conflict.unwrap_or_default(),
            warned: Warned::default(),
        };
        Ok(SessionManager::new(config, backing))
    }

    fn check_durations(&self) -> Result<(), ConfigError> {
        let max_age = match self.max_age {
            MaxAge::Persistent(ttl) => ("max_age", ttl, LONGEST_COOKIE),
            MaxAge::BrowserSession(ttl) => ("browser_session", ttl, LONGEST_COOKIE),
        };
        let durations = [
            Some(max_age),
            Some(("absolute_timeout", self.absolute_timeout, LONGEST_TIMEOUT)),
            self.anonymous_ttl.map(|ttl| ("anonymous_ttl", ttl, LONGEST_COOKIE)),
            self.store_timeout.map(|ttl| ("store_timeout", ttl, DAY)),
        ];
        for (option, actual, limit) in durations.into_iter().flatten() {
            if actual.is_zero() || actual > limit {
                return Err(ConfigError::Duration { option, actual, limit });
            }
        }
        if self.max_age.ttl() > self.absolute_timeout {
            return Err(ConfigError::MaxAgeAboveAbsoluteTimeout {
                max_age: self.max_age.ttl(),
                absolute_timeout: self.absolute_timeout,
            });
        }
        Ok(())
    }

    fn check_combinations(&self) -> Result<(), ConfigError> {
        let needs = |option, needs| Err(ConfigError::Needs { option, needs });
        let excludes = |option, excludes| Err(ConfigError::Excludes { option, excludes });
        let invalid = |option, problem| Err(ConfigError::Invalid { option, problem });
        let is_json = self.codec.tag() == JSON_TAG;
        let merges = self.on_conflict.unwrap_or_default() == ConflictPolicy::Merge;
        if self.backing.is_some() {
            if self.revocations.is_some() {
                return excludes("revocations", "a store, whose sessions end by themselves");
            }
            if self.signed && self.keys.is_none() {
                return needs("signed", "`.keys(..)`");
            }
            if merges && !is_json {
                return needs(
                    "on_conflict",
                    "`Reject` or `Overwrite` where a `.codec(..)` is set, since merging needs JSON",
                );
            }
        } else {
            if self.on_conflict.is_some() {
                return needs(
                    "on_conflict",
                    "`.store(..)`; a browser keeps the cookie that arrives last",
                );
            }
            if self.store_timeout.is_some() && self.revocations.is_none() {
                return needs("store_timeout", "`.store(..)` or `.revocations(..)`");
            }
        }
        if self.hooks.migrate.is_some() && !is_json {
            return needs("migrate", "JSON; it cannot be combined with a `.codec(..)`");
        }
        if self.schema > 1 && self.hooks.migrate.is_none() {
            return needs(
                "schema_version",
                "`.migrate(..)`, which may refuse what it does not want",
            );
        }
        if self.accept_schema.is_some_and(|accepted| accepted < self.schema) {
            return needs("accept_schema", "a version from `.schema_version(..)` up");
        }
        if self.anonymous_ttl.is_some() && self.hooks.owner.is_none() {
            return needs("anonymous_ttl", "`.owner(..)`");
        }
        if !self.transport.is_cookie() {
            let no_cookie = "a `.transport(..)` that is no cookie";
            if self.has_cookie {
                return excludes("cookie", no_cookie);
            }
            if self.insecure_http {
                return excludes("insecure_http", no_cookie);
            }
        }
        if let Some(problem) = self.transport.problem() {
            return invalid("transport", problem);
        }
        if self.max_payload == 0 {
            return invalid("max_payload", "no session fits into 0 bytes");
        }
        if self.schema == 0 {
            return invalid("schema_version", "versions begin with 1");
        }
        let names = [("audience", Some(&*self.audience)), ("kind", self.kind.as_deref())];
        for (option, name) in names {
            if name == Some("") {
                return invalid(option, "an empty name tells nothing apart; leave the option out");
            }
        }
        Ok(())
    }
}

impl<T> fmt::Debug for SessionManagerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManagerBuilder").finish_non_exhaustive()
    }
}
