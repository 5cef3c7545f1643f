//! The builder: every option of a manager.

mod checks;

use std::{any::type_name, fmt, sync::Arc, time::Duration};

use axum::response::Response;
use cookie::Cookie;
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    clock::{Clock, SystemClock},
    codec::{Codec, JSON_TAG, JsonCodec},
    error::{BoxError, SessionError, StoreError},
    event::{Events, SessionEvent},
    expiry::{ExpiryPolicy, IdleTimeout, Rolling},
    keys::KeyRing,
    manager::{ConflictPolicy, DataOptions, Home, Options, SessionManager},
    merge::Shape,
    store::SessionStore,
    transport::Transport,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl<T> SessionManager<T>
where
    T: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts a manager. It needs [`keys`](SessionManagerBuilder::keys) or
    /// [`store`](SessionManagerBuilder::store); every other option has a default.
    pub fn builder() -> SessionManagerBuilder<T> {
        SessionManagerBuilder {
            options: Options {
                type_name: type_name::<T>(),
                audience: env!("CARGO_PKG_NAME").to_owned(),
                audience_for: None,
                transport: None,
                cookie: None,
                cookie_for: None,
                former_cookies: Vec::new(),
                insecure_http: false,
                remove_unpartitioned: false,
                events: Events { kind: short_name(type_name::<T>()), hook: None },
                policy: ExpiryPolicy {
                    idle_timeout: IdleTimeout::Persistent(DAY),
                    rolling: Rolling::Off,
                    absolute_timeout: 30 * DAY,
                    max_absolute_timeout: None,
                    anonymous_idle_timeout: None,
                },
                extend_if: None,
                clock: Arc::new(SystemClock),
                generate_id: None,
                error_response: None,
                owner_is_told: false,
                codec_tag: JSON_TAG,
                schema: 1,
                accept_schema: None,
                migrate: None,
                on_conflict: None,
                max_payload: 64 * 1024,
                max_cookie_bytes: None,
                store_timeout: None,
                clock_skew: Duration::from_secs(60),
            },
            token: TokenOptions::default(),
            data: DataOptions {
                default: T::default,
                shape: Shape::of::<T>,
                codec: Arc::new(JsonCodec),
                validate: Box::new(|_, _| true),
                validate_data: Box::new(|_| true),
                before_save: None,
                owner: Box::new(|_| None),
            },
        }
    }
}

/// All options of a [`SessionManager`]; [`build`](Self::build) checks them.
///
/// The defaults are safe for production over https.
#[must_use = "a builder does nothing until `build`"]
pub struct SessionManagerBuilder<T> {
    options: Options,
    token: TokenOptions,
    data: DataOptions<T>,
}

/// The options that decide the content of a token and its seal.
#[derive(Default)]
struct TokenOptions {
    keys: Option<KeyRing>,
    signed: bool,
    /// The store, if one was set. Otherwise the token holds the data.
    home: Option<Home>,
    revocations: Option<Arc<dyn SessionStore>>,
}

/// Returns the name of a type without the paths of its modules, such as `Vec<Login>`.
fn short_name(name: &str) -> String {
    name.split_inclusive(|letter| "<>,()[]& ;".contains(letter))
        .map(|part| part.rsplit("::").next().unwrap_or(part))
        .collect()
}

impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets the keys that seal tokens: a [`Key`](crate::Key), or a [`KeyRing`], which reads keys from the environment
    /// and rotates them.
    ///
    /// Default: none. Cookie mode requires keys. With a [`store`](Self::store) they seal the id, so that forged ids
    /// cost no store call.
    pub fn keys(mut self, keys: impl Into<KeyRing>) -> Self {
        self.token.keys = Some(keys.into());
        self
    }

    /// Sets the application that the sessions are for. Tokens and ids of another audience do not open.
    ///
    /// Default: this crate's name. Set it where several applications share keys or a store.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.options.audience = audience.into();
        self
    }

    /// Chooses the audience of each request, such as the tenant. Default: [`audience`](Self::audience) for all.
    ///
    /// A session of one tenant means nothing to another: its token does not open there, its id finds no row, and its
    /// owner is another, even in one store and under one key. An empty text is [`SessionError::Config`].
    ///
    /// Outside a request, [`SessionManager::for_request`] gives the manager of one tenant.
    /// [`create`](SessionManager::create), the operations on owners and, where there is an [`owner`](Self::owner),
    /// [`update`](SessionManager::update) need it.
    ///
    /// Caches tell hosts apart. If `choose` looks at a header other than `Host`, add that header to `Vary` where a
    /// cache may keep the response.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::{header, request::Parts};
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// fn host(parts: &Parts) -> String {
    ///     let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    ///     host.unwrap_or("unknown").to_ascii_lowercase()
    /// }
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .audience_for(host)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn audience_for(
        mut self,
        choose: impl Fn(&Parts) -> String + Send + Sync + 'static,
    ) -> Self {
        self.options.audience_for = Some(Box::new(choose));
        self
    }

    /// Sets the kind of session. Tokens and ids of another kind do not open.
    ///
    /// Default: the short name of the data type, such as `Login` or `Vec<Login>`, so that no type opens the
    /// sessions of another. Renaming the type therefore ends its sessions. To keep them, set the former name here.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.options.events.kind = kind.into();
        self
    }

    /// Sets the cookie's name and attributes. An attribute that the template leaves unset takes the default.
    ///
    /// Default: `__Host-session`, `Path=/`, Secure, HttpOnly, SameSite=Lax.
    ///
    /// Browsers keep cookies of another name, Path, Domain or Partitioned apart, so a token is valid in the very cookie
    /// that it was sent in. To change one of these without ending sessions, name the cookie as it was with
    /// [`former_cookie`](Self::former_cookie).
    ///
    /// [`build`](Self::build) refuses what no browser keeps, such as a Domain with a scheme or a port. It does not know
    /// public suffixes, such as `co.uk`, whose cookies browsers drop too. A Domain that is an IP address or a name
    /// without a dot gives a warning, since browsers keep the cookie at that host alone, as they do without a Domain.
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
    /// Without HttpOnly any script on the page can read the cookie. Without Secure anyone on the network can. Both
    /// give a warning.
    pub fn cookie(mut self, template: impl Into<Cookie<'static>>) -> Self {
        self.options.cookie = Some(template.into());
        self
    }

    /// Also reads a cookie as it once was set, with the same name and attributes as in an earlier release. Default:
    /// none; call it once for each former cookie.
    ///
    /// A session in a former cookie counts where no valid session came in today's cookie. The next commit sends it in
    /// today's cookie, even if nothing changed. A response that sets today's cookie for the first time, or removes it,
    /// also removes every former cookie. A [`destroy`](crate::Session::destroy) ends the sessions of all of them.
    ///
    /// Keys, kind and audience must be those of the former release. Remove the option once the longest session has
    /// ended, which takes [`absolute_timeout`](Self::absolute_timeout).
    ///
    /// With several nodes, change the cookie in two releases, so that no node meets a cookie that it cannot read:
    ///
    /// 1. `.cookie(old).former_cookie(new)`, which already reads the new cookie.
    /// 2. `.cookie(new).former_cookie(old)`, once every node runs the first release.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager, cookie::Cookie};
    ///
    /// // The cookie was set for the path `/shop`; now it is for the whole host.
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .cookie(Cookie::new("session", ""))
    ///     .former_cookie(Cookie::build("session").path("/shop"))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// Today's prefix `__Host-` does not protect a former cookie without it. A host of the same site can still plant
    /// that one, and so sign a visitor without a session into a session of the attacker.
    pub fn former_cookie(mut self, template: impl Into<Cookie<'static>>) -> Self {
        self.options.former_cookies.push(template.into());
        self
    }

    /// Chooses the cookie of each request, such as one with the tenant's Domain. Default: [`cookie`](Self::cookie) for
    /// all requests.
    ///
    /// It is completed and checked like [`cookie`](Self::cookie). A cookie that no browser would keep is
    /// [`SessionError::Config`]. Where tenants share keys, set [`audience_for`](Self::audience_for) too: a client can
    /// send the cookie of one host to another.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::{header, request::Parts};
    /// use axum_typed_session::{Key, SessionManager, cookie::Cookie};
    ///
    /// fn cookie(parts: &Parts) -> Cookie<'static> {
    ///     let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    ///     match host {
    ///         // One session for all hosts below `shop.example`.
    ///         Some(host) if host.ends_with(".shop.example") => {
    ///             Cookie::build("__Secure-session").domain("shop.example").build()
    ///         }
    ///         _ => Cookie::new("__Host-session", ""),
    ///     }
    /// }
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .cookie_for(cookie)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "domain")]
    pub fn cookie_for(
        mut self,
        choose: impl Fn(&Parts) -> Cookie<'static> + Send + Sync + 'static,
    ) -> Self {
        self.options.cookie_for = Some(Box::new(choose));
        self
    }

    /// Sends the cookie over plain http, without Secure and without the prefix `__Host-` or `__Secure-`. Default: off.
    ///
    /// Browsers drop Secure cookies over plain http at every host but localhost, and some browsers there too. Where a
    /// new session is sent to such a browser, a WARN names the host, once for each of ten hosts at most.
    ///
    /// # Security
    ///
    /// Only for development. Anyone on the network can read the cookie.
    pub fn insecure_http(mut self, insecure: bool) -> Self {
        self.options.insecure_http = insecure;
        self
    }

    /// Reads the cookie without Partitioned as a [`former_cookie`](Self::former_cookie): its session goes on in the
    /// partitioned cookie, and it is removed once that is set.
    ///
    /// Default: off. For sites that moved to Partitioned cookies
    /// ([CHIPS](https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies)).
    pub fn remove_unpartitioned(mut self, remove: bool) -> Self {
        self.options.remove_unpartitioned = remove;
        self
    }

    /// Signs tokens instead of encrypting them: the client can read them, but not change them. Default: off.
    ///
    /// # Security
    ///
    /// The user of the browser can read everything that the session holds.
    pub fn signed(mut self, signed: bool) -> Self {
        self.token.signed = signed;
        self
    }

    /// Keeps the data in a store; the client holds only an id. Default: none, the cookie holds the data.
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.token.home = Some(Home::Store(Arc::new(store)));
        self
    }

    /// Chooses a store for each request, such as one for each tenant. Default: none.
    ///
    /// Outside a request, [`SessionManager::with_store`] names the store, or [`SessionManager::for_request`] the request
    /// to choose it for.
    pub fn store_for(
        mut self,
        choose: impl Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.token.home = Some(Home::StoreFor(Arc::new(choose)));
        self
    }

    /// Makes logout final in cookie mode. Ended ids are kept in `list`, and every request asks it.
    ///
    /// Default: none; a copied cookie then works until it expires. Every node must share the list. While the list is
    /// down, requests with a session are answered with 503.
    ///
    /// An ended id stays in the list until no token of its session can be valid any more, which takes the session's idle
    /// timeout and ten minutes. If the list is bounded, limit the rate of logouts: any visitor can begin sessions and end
    /// them, and a full list answers a logout with 503. With [`anonymous_idle_timeout`](Self::anonymous_idle_timeout)
    /// their entries leave the list sooner.
    ///
    /// So that this holds for every token of an id, a commit that changes how long the session lives after a save, such
    /// as a login with an `anonymous_idle_timeout` or a [`set_idle_timeout`](crate::Session::set_idle_timeout), gives
    /// the session a new id. A token lives no longer than the idle timeout that is configured when it comes in.
    ///
    /// [`SessionManager::destroy`] ends a session whose key is known. Operations by owner need a
    /// [`store`](Self::store), since nobody keeps the sessions of an owner here.
    ///
    /// A [`MemoryStore`](crate::MemoryStore) forgets every logout at a restart, while the keys come back. `build()` warns
    /// of it.
    ///
    /// # Security
    ///
    /// An entry is made for the idle timeouts of the node that makes it. If another node has a longer one, or if one is
    /// lowered and later raised again, the list can forget an id while a copy of its cookie is valid. So raise an idle
    /// timeout on all nodes at once, and no lowered one before the longer time is over.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, MemoryStore, SessionManager};
    ///
    /// // With several nodes, or to keep logouts over a restart: `RedisStore`, `SqliteStore` and so on.
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .revocations(MemoryStore::new())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn revocations(mut self, list: impl SessionStore) -> Self {
        self.token.revocations = Some(Arc::new(list));
        self
    }

    /// Sets how the token travels. Default: [`Transport::cookie`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.options.transport = Some(transport);
        self
    }

    /// Sets the function that makes ids of new sessions. Default: 32 random bytes from the operating system.
    ///
    /// [`create`](SessionManager::create) has no request to show to it, so its ids are random in any case.
    ///
    /// # Security
    ///
    /// A client that guesses an id has the session, so the bytes must be random.
    pub fn id_generator(
        mut self,
        generate: impl Fn(&Parts) -> [u8; 32] + Send + Sync + 'static,
    ) -> Self {
        self.options.generate_id = Some(Box::new(generate));
        self
    }

    /// Ends a session this long after its last save. Default: one day, in a cookie that survives a restart of
    /// the browser.
    ///
    /// [`Session::set_idle_timeout`](crate::Session::set_idle_timeout) sets it for one session.
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
        self.options.policy.idle_timeout = timeout.into();
        self
    }

    /// Sets which commits of an unchanged session restart its idle timeout. Default: [`Rolling::Off`].
    ///
    /// `true` is [`Rolling::EveryCommit`]. With [`Rolling::BelowHalf`] a commit restarts it once less than half of
    /// the time is left. In cookie mode a token is sealed anew only once a twentieth of its life has passed.
    #[doc(alias = "renew")]
    pub fn rolling(mut self, rolling: impl Into<Rolling>) -> Self {
        self.options.policy.rolling = rolling.into();
        self
    }

    /// Chooses the requests that extend their session. Default: every request.
    ///
    /// Use it for polling and health requests, which a browser sends while nobody is there. A request for which this
    /// returns `false` extends nothing, whoever commits it: [`rolling`](Self::rolling) does nothing, and a save, also
    /// by [`update`](crate::Session::update), keeps the session's expiry. A new session still begins,
    /// [`set_idle_timeout`](crate::Session::set_idle_timeout) still restarts the idle timeout, and a login still
    /// begins the session anew.
    ///
    /// It runs once in a request, when the session is loaded.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .rolling(true)
    ///     .extend_if(|request| request.uri.path() != "/notifications")
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn extend_if(mut self, extend_if: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.options.extend_if = Some(Box::new(extend_if));
        self
    }

    /// Ends sessions at this age; nothing extends them. Default: 30 days (NIST SP 800-63B, AAL1).
    ///
    /// The age counts from [`created_at`](crate::Session::created_at). A single session can have another absolute
    /// timeout, which [`Session::set_absolute_timeout`](crate::Session::set_absolute_timeout) sets. It is longer than
    /// this one only if [`max_absolute_timeout`](Self::max_absolute_timeout) allows it.
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.absolute_timeout = timeout;
        self
    }

    /// Sets the longest absolute timeout that one session can have. Default:
    /// [`absolute_timeout`](Self::absolute_timeout), so that none lives longer than the others.
    ///
    /// [`Session::set_absolute_timeout`](crate::Session::set_absolute_timeout) sets a session's own timeout, such as
    /// for "keep me signed in". Sessions that set none still end at `absolute_timeout`.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .max_absolute_timeout(Duration::from_secs(90 * 24 * 60 * 60))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// A stolen session can be used up to its absolute end. NIST SP 800-63B asks for a new login after 30 days at most.
    pub fn max_absolute_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.max_absolute_timeout = Some(timeout);
        self
    }

    /// Sets a shorter idle timeout for sessions without an owner. Default: [`idle_timeout`](Self::idle_timeout).
    ///
    /// Needs [`owner`](Self::owner).
    pub fn anonymous_idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.anonymous_idle_timeout = Some(timeout);
        self
    }

    /// Sets how many bytes encoded data may take. Default: 64 KiB.
    ///
    /// Without a store the limit of the cookie is lower: some 2,940 bytes of data, or what
    /// [`max_cookie_bytes`](Self::max_cookie_bytes) allows.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.options.max_payload = bytes;
        self
    }

    /// Sets how many bytes the name and the value of the cookie may take together. A session that takes more is
    /// [`SessionError::TooLarge`]. Default: 4096, above which browsers drop a cookie (RFC 6265bis).
    ///
    /// It needs sessions in the cookie, as there are without a store. Where another [`transport`](Self::transport)
    /// is set, it counts the name and the value of its header.
    ///
    /// Proxies may allow less than browsers. nginx reads all headers of a response into one buffer, of 4096 bytes by
    /// default, and answers 502 if they do not fit. Measured with nginx 1.22 and a handler that sends nothing but its
    /// guard and a text:
    ///
    /// | nginx | the most session data without 502 |
    /// |---|---|
    /// | defaults | 2,776 bytes |
    /// | `proxy_http_version 1.1` | 2,762 bytes |
    /// | with `proxy_cache` | 2,495 bytes |
    /// | `proxy_buffer_size 8k` | 2,945 bytes, which is all that fits into the cookie |
    ///
    /// Headers and cookies of the application's own take their share of the buffer. With `proxy_cache` so does the
    /// key of the cache, which holds the URL. A WARN comes once when the cookies of a response take as many bytes as
    /// one cookie with 2,700 bytes of data, which is too late for `proxy_cache`. Set `proxy_buffer_size 8k` where
    /// nginx is yours. Elsewhere set this option, so that a session which is too large fails in the application, with
    /// an error that says so.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// // Up to 2,648 bytes of data, which nginx lets through with its defaults.
    /// let sessions = SessionManager::<String>::builder()
    ///     .keys(Key::generate())
    ///     .max_cookie_bytes(3_700)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn max_cookie_bytes(mut self, bytes: usize) -> Self {
        self.options.max_cookie_bytes = Some(bytes);
        self
    }

    /// Rejects incoming sessions for which this returns `false`; a fresh session starts instead. Default: none.
    ///
    /// Use it to bind a session to a property of the client. The rejected row stays until it expires.
    pub fn validate(
        mut self,
        validate: impl Fn(&Parts, &T) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.data.validate = Box::new(validate);
        self
    }

    /// Rejects stored data for which this returns `false`, also outside a request; a fresh session starts
    /// instead. Default: none.
    ///
    /// A commit of such data is [`SessionError::Invalid`] and saves nothing. A merge that would result in such data
    /// is a [`SessionError::Conflict`].
    pub fn validate_data(mut self, validate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.data.validate_data = Box::new(validate);
        self
    }

    /// Changes the data before every save, after merging. Runs only if the session is saved anyway. Default: none.
    pub fn before_save(mut self, before_save: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.data.before_save = Some(Box::new(before_save));
        self
    }

    /// Sets the encoding of the data. Default: JSON.
    ///
    /// With a store, [`ConflictPolicy::Merge`] needs JSON, as does [`migrate`](Self::migrate).
    pub fn codec(mut self, codec: impl Codec<T>) -> Self {
        self.options.codec_tag = codec.tag();
        self.data.codec = Arc::new(codec);
        self
    }

    /// Calls `on_event` with every [`SessionEvent`], in addition to the `tracing` output. Default: none.
    ///
    /// It runs within the request, so it should not block. It must not panic: a panic after the row was written
    /// means that no cookie is sent.
    pub fn on_event(mut self, on_event: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.options.events.hook = Some(Box::new(on_event));
        self
    }

    /// Sets what happens when two requests change one stored session at once. Default: [`ConflictPolicy::Merge`].
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.options.on_conflict = Some(policy);
        self
    }

    /// Sets the response that the client gets for an error. Default: the status and a short plain sentence.
    ///
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) uses it for every session error of a request: of an extractor,
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
        self.options.error_response = Some(Box::new(render));
        self
    }

    /// Names the user a session belongs to. Return `None` while nobody is logged in. Default: none.
    ///
    /// Changes of concurrent requests merge only if the owner stays the same. A login, from `None` to a name, takes
    /// over the changes that the anonymous session got meanwhile. Without this option,
    /// [`regenerate`](crate::Session::regenerate) counts as a change of owner.
    ///
    /// Finding sessions by owner, as [`sessions_of`](SessionManager::sessions_of) does, also needs a store with
    /// [`indexes_owners`](SessionStore::indexes_owners).
    pub fn owner(mut self, owner: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.options.owner_is_told = true;
        self.data.owner = Box::new(owner);
        self
    }

    /// Sets the version number of the data's shape. Default: 1. A higher number needs [`migrate`](Self::migrate).
    pub fn schema_version(mut self, version: u32) -> Self {
        self.options.schema = version;
        self
    }

    /// Converts JSON of an older [`schema_version`](Self::schema_version) to the current shape. Default: none.
    ///
    /// If it returns an error, a fresh session starts instead.
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
        self.options.migrate =
            Some(Box::new(move |from, value| migrate(from, value).map_err(Into::into)));
        self
    }

    /// Also reads this newer schema version. Default: none.
    ///
    /// Other data of a newer version is answered with 503, so that no node replaces data that it does not
    /// understand. With several nodes, change the type in two releases:
    ///
    /// 1. `.accept_schema(2)`, with a type that reads both shapes (`#[serde(default)]` on new fields). It still
    ///    saves version 1.
    /// 2. `.schema_version(2).migrate(..)`, once every node runs the first release.
    pub fn accept_schema(mut self, version: u32) -> Self {
        self.options.accept_schema = Some(version);
        self
    }

    /// Sets how long one store call may take. A store that takes longer counts as down. Default: two seconds.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.options.store_timeout = Some(timeout);
        self
    }

    /// Sets how far the clocks of two nodes may differ. Default: 60 seconds.
    ///
    /// A token that another node sealed is refused only if it was issued later than this node's time and this
    /// duration. At most an hour; zero for a single node.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .clock_skew(Duration::from_secs(5))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.options.clock_skew = skew;
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    ///
    /// A store has its own clock. Give both the same.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.clock = Arc::new(clock);
        self
    }
}

impl<T> fmt::Debug for SessionManagerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManagerBuilder").finish_non_exhaustive()
    }
}
