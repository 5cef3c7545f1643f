//! The builder: every option of a manager.

mod checks;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use axum::response::Response;
use cookie::Cookie;
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    clock::{Clock, SystemClock},
    codec::{Codec, JsonCodec},
    error::{BoxError, SessionError, StoreError},
    event::{Hook, SessionEvent},
    expiry::{ExpiryPolicy, IdleTimeout, Rolling},
    keys::KeyRing,
    manager::{ConflictPolicy, DataOptions, ErrorResponse, GenerateId, Home, SessionManager},
    merge::Shape,
    seal::Protection,
    store::SessionStore,
    transport::Transport,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
            protection: Protection::Encrypted,
            home: None,
            revocations: None,
            transport: Transport::cookie(),
            policy: ExpiryPolicy {
                idle_timeout: IdleTimeout::Persistent(DAY),
                rolling: Rolling::Off,
                absolute_timeout: 30 * DAY,
                anonymous_idle_timeout: None,
            },
            max_payload: 64 * 1024,
            generate_id: None,
            on_event: None,
            error_response: None,
            on_conflict: None,
            schema: 1,
            accept_schema: None,
            store_timeout: None,
            clock: Arc::new(SystemClock),
            data: DataOptions {
                default: T::default,
                shape: Shape::of::<T>,
                codec: Arc::new(JsonCodec),
                validate: None,
                validate_data: None,
                before_save: None,
                owner: None,
                migrate: None,
                saves: AtomicU64::new(0),
            },
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
    protection: Protection,
    home: Option<Home>,
    revocations: Option<Arc<dyn SessionStore>>,
    transport: Transport,
    policy: ExpiryPolicy,
    max_payload: usize,
    generate_id: Option<Box<GenerateId>>,
    on_event: Option<Arc<Hook>>,
    error_response: Option<Box<ErrorResponse>>,
    on_conflict: Option<ConflictPolicy>,
    schema: u32,
    accept_schema: Option<u32>,
    store_timeout: Option<Duration>,
    clock: Arc<dyn Clock>,
    data: DataOptions<T>,
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

    /// Sets what kind of session this is. Tokens and ids of another kind do not open.
    ///
    /// Default: the short name of the data type, such as `Login` or `Vec<Login>`, so that no type opens the
    /// sessions of another. Renaming the type therefore ends its sessions: set the former name here to keep
    /// them.
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

    /// Signs tokens instead of encrypting them: the client can read them, and still not change them. Default:
    /// off.
    ///
    /// # Security
    ///
    /// Everything that the session holds is visible to the person who has the browser.
    pub fn signed(mut self, signed: bool) -> Self {
        self.protection = if signed { Protection::Signed } else { Protection::Encrypted };
        self
    }

    /// Keeps the data in a store; the client holds an id alone. Default: the data is in the cookie.
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.home = Some(Home::Store(Arc::new(store)));
        self
    }

    /// Chooses a store per request, such as one for each tenant.
    ///
    /// Outside requests, [`SessionManager::with_store`] names the store.
    pub fn store_for(
        mut self,
        choose: impl Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.home = Some(Home::StoreFor(Arc::new(choose)));
        self
    }

    /// Makes logout final in cookie mode. Ended ids are kept in `list`, and every request asks it.
    ///
    /// Default: none; a copied cookie then works until it expires. Every node must share the list. A list that
    /// is down is 503.
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
        self.generate_id = Some(Box::new(generate));
        self
    }

    /// Ends a session this long after its last save. Default: one day, in a cookie that survives a restart of
    /// the browser.
    ///
    /// [`IdleTimeout::BrowserSession`] gives a cookie that the browser forgets when it closes.
    /// [`rolling`](Self::rolling) lets requests that only read extend the session too.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::{IdleTimeout, Key, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .idle_timeout(IdleTimeout::BrowserSession(Duration::from_secs(2 * 60 * 60)))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "max_age")]
    #[doc(alias = "maxAge")]
    #[doc(alias = "ttl")]
    pub fn idle_timeout(mut self, timeout: impl Into<IdleTimeout>) -> Self {
        self.policy.idle_timeout = timeout.into();
        self
    }

    /// Sets which commits of an unchanged session restart its idle timeout: none, every one (`true`), or those
    /// with less than half of the time left ([`Rolling::BelowHalf`]). Default: none.
    ///
    /// In cookie mode a token is sealed anew only once a twentieth of its life has passed.
    #[doc(alias = "renew")]
    pub fn rolling(mut self, rolling: impl Into<Rolling>) -> Self {
        self.policy.rolling = rolling.into();
        self
    }

    /// Ends every session at this age, whatever extends it. Default: 30 days (NIST SP 800-63B, AAL1).
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.policy.absolute_timeout = timeout;
        self
    }

    /// Sets a shorter idle timeout for sessions without an owner. Default: the same as for all.
    ///
    /// Needs [`owner`](Self::owner).
    pub fn anonymous_idle_timeout(mut self, timeout: Duration) -> Self {
        self.policy.anonymous_idle_timeout = Some(timeout);
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
        self.data.validate = Some(Box::new(validate));
        self
    }

    /// Rejects stored data for which this returns `false`, also outside requests; a fresh session starts
    /// instead.
    ///
    /// A commit of such data is [`SessionError::Invalid`] and saves nothing. A merge that would give such data
    /// is a conflict.
    pub fn validate_data(mut self, validate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.data.validate_data = Some(Box::new(validate));
        self
    }

    /// Changes the data before every save, after merging. Runs only if the session is saved anyway.
    pub fn before_save(mut self, before_save: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.data.before_save = Some(Box::new(before_save));
        self
    }

    /// Encodes the data in another way than JSON.
    ///
    /// With a store, [`ConflictPolicy::Merge`] needs JSON, as does [`migrate`](Self::migrate).
    pub fn codec(mut self, codec: impl Codec<T>) -> Self {
        self.data.codec = Arc::new(codec);
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

    /// Renders what the client sees of an error. Default: a short plain sentence.
    ///
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) renders every session error of a request so: of an extractor,
    /// of a handler and of its own commit. Without the layer, call
    /// [`SessionManager::error_response`] where the application renders its errors.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::response::{Html, IntoResponse};
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .error_response(|error| (error.status(), Html("<h1>Please try again</h1>")).into_response())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn error_response(
        mut self,
        render: impl Fn(&SessionError) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.error_response = Some(Box::new(render));
        self
    }

    /// Names the user a session belongs to. Return `None` while nobody is logged in.
    ///
    /// Changes of concurrent requests are merged only as long as the owner stays the same. Without this
    /// option, [`regenerate`](crate::Session::regenerate) counts as a change of person.
    ///
    /// Finding sessions by owner also needs a store with
    /// [`indexes_owners`](SessionStore::indexes_owners).
    pub fn owner(mut self, owner: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.data.owner = Some(Box::new(owner));
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
        self.data.migrate =
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
}

impl<T> fmt::Debug for SessionManagerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManagerBuilder").finish_non_exhaustive()
    }
}
