//! The builder: every option of a manager.

mod checks;

use std::{any::type_name, fmt, sync::Arc, time::Duration};

use axum::response::Response;
use cookie::Cookie;
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    clock::Clock,
    codec::{Codec, JSON_TAG, JsonCodec},
    error::{BoxError, SessionError, StoreError},
    event::{EndReason, Events, SessionEvent},
    expiry::{IdleTimeout, Rolling},
    import::{Import, OldSessions},
    keys::KeyRing,
    manager::{ConflictPolicy, DataOptions, Home, Options, SessionManager},
    merge::Shape,
    store::SessionStore,
    transport::Transport,
};

impl<T> SessionManager<T>
where
    T: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts the options of a manager.
    ///
    /// Set [`keys`](SessionManagerBuilder::keys) or [`store`](SessionManagerBuilder::store), and end with
    /// [`build`](SessionManagerBuilder::build). Every other option has a default.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder().keys(Key::generate()).build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn builder() -> SessionManagerBuilder<T> {
        SessionManagerBuilder {
            options: Options {
                type_name: type_name::<T>(),
                audience: env!("CARGO_PKG_NAME").to_owned(),
                events: Events { kind: short_name(type_name::<T>()), hook: None },
                codec_tag: JSON_TAG,
                schema: 1,
                max_payload: 64 * 1024,
                clock_skew: Duration::from_secs(60),
                ..Options::default()
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
                on_end: None,
            },
        }
    }
}

/// The options of a [`SessionManager`]. [`SessionManager::builder`] starts one, and [`build`](Self::build) makes the
/// manager.
///
/// [`keys`](Self::keys) or [`store`](Self::store) is required. Every other option has a default, which is meant for
/// production over https. [`options`](crate::guide::options) lists all of them in one table.
///
/// No option fails or panics when it is set: [`build`](Self::build) reports a wrong value as a
/// [`ConfigError`](crate::ConfigError). A function that an option takes runs inside requests, so it must not block.
///
/// # Example
///
/// ```
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
/// use std::time::Duration;
/// use axum_typed_session::{MemoryStore, SessionManager};
///
/// let sessions = SessionManager::<Login>::builder()
///     .store(MemoryStore::new())
///     .owner(|login| login.user.clone())
///     .idle_timeout(Duration::from_secs(2 * 60 * 60))
///     .rolling(true)
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[must_use = "call `.build()` to make the manager; until then the options have no effect"]
#[doc(alias("options", "config", "settings", "SessionManagerLayer", "SessionConfig"))]
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

/// **Keys and store**: where the data lives. Without a [`store`](Self::store) the cookie holds the data, which is
/// *cookie mode*. [`where_data_lives`](crate::guide::where_data_lives) compares the two.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets the keys that encrypt tokens: a [`Key`](crate::Key), or a [`KeyRing`]. Default: none.
    ///
    /// A *token* is the text that the client holds, such as the value of the cookie. A [`KeyRing`] reads its keys
    /// from the environment and rotates them; see [`keys_and_schemas`](crate::guide::keys_and_schemas). In cookie
    /// mode keys are required. With a [`store`](Self::store) they are optional: they encrypt the id in the token,
    /// and a forged token then costs no call of the store.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{KeyRing, SessionManager};
    ///
    /// // SESSION_KEY holds the output of `openssl rand -hex 64`.
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(KeyRing::from_env("SESSION_KEY")?)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// In cookie mode, anyone who knows a key can make a valid session. A key from
    /// [`Key::generate`](crate::Key::generate) is lost at the restart of the process, and so is every session that
    /// it sealed.
    #[doc(alias("secret", "secret_key", "encrypt", "with_private", "with_signed"))]
    pub fn keys(mut self, keys: impl Into<KeyRing>) -> Self {
        self.token.keys = Some(keys.into());
        self
    }

    /// Signs tokens instead of encrypting them. Default: `false`, so tokens are encrypted.
    ///
    /// The client can read a signed token but cannot change it. The option needs [`keys`](Self::keys).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .signed(true)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// In cookie mode the user of the browser can read everything that the session holds.
    pub fn signed(mut self, signed: bool) -> Self {
        self.token.signed = signed;
        self
    }

    /// Keeps the data in a store. The client then holds only an id. Default: none; the cookie holds the data.
    ///
    /// [`stores`](crate::guide::stores) compares the stores that this crate brings and says how to choose one.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store(MemoryStore::new())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.token.home = Some(Home::Store(Arc::new(store)));
        self
    }

    /// Chooses the store for each request, such as the store of a tenant. Default: none.
    ///
    /// `choose` runs when a request extracts its session. Its error is the [`SessionError::Store`] of that request.
    /// The example `tenants` shows one application for several tenants. Outside a request, call
    /// [`SessionManager::with_store`] with the store, or [`SessionManager::for_request`] with a request of that
    /// tenant.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use std::sync::Arc;
    /// use axum_typed_session::{MemoryStore, SessionManager, SessionStore};
    ///
    /// let (shop, blog) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store_for(move |request| -> Result<Arc<dyn SessionStore>, _> {
    ///         let is_shop = request.uri.path().starts_with("/shop");
    ///         Ok(if is_shop { shop.clone() } else { blog.clone() })
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn store_for(
        mut self,
        choose: impl Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.token.home = Some(Home::StoreFor(Arc::new(choose)));
        self
    }

    /// Encrypts the data of sessions in the store. Default: off. It needs [`store`](Self::store) and
    /// [`keys`](Self::keys).
    ///
    /// The data is encrypted with XAES-256-GCM, with a key that is derived from the keys for this purpose alone. It
    /// is bound to the key of its row, so data that is copied to another row does not open. The next save of a
    /// session encrypts data from before the option was set. The next commit encrypts data of a
    /// [former key](KeyRing::accept_former) again, even if the request only reads. Without the option, encrypted data
    /// can still be read.
    ///
    /// Data grows by 45 bytes. With 318 bytes of data in memory and a sealed id, the work for a session took 1.14 times
    /// the instructions when a request read it, and 1.22 times when it changed it. To measure it again, run
    /// `cargo bench --manifest-path benches/Cargo.toml --bench cost -- sealed-id encrypted-rows`.
    ///
    /// # Security
    ///
    /// - It protects against readers of the store, of a dump and of a backup. They see the times of a session, its
    ///   size and a hash of its owner, but neither data nor names. The hash is keyed as soon as the manager has
    ///   [`keys`](Self::keys), so names cannot be tried out; without keys, they can.
    /// - It does not protect against writers of the store. They can delete a row, put an earlier row of the same
    ///   session back, or write a row that is not encrypted.
    /// - A session is lost if its key is removed from the [`KeyRing`] before a request commits the session with the new
    ///   key. Keep a former key for as long as the longest idle timeout.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .store(MemoryStore::new())
    ///     .encrypt_rows(true)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("encryption at rest", "at rest"))]
    pub fn encrypt_rows(mut self, encrypt: bool) -> Self {
        self.options.encrypt_rows = encrypt;
        self
    }

    /// Sets how long one call of the store may take. Default: 2 seconds. The longest value is one day.
    ///
    /// A store that does not answer in time counts as down: the request gets [`SessionError::Store`], which is 503.
    /// It is then unknown whether a write took effect. The option also bounds calls of the list of
    /// [`revocations`](Self::revocations). See [`errors`](crate::guide::errors).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use std::time::Duration;
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store(MemoryStore::new())
    ///     .store_timeout(Duration::from_millis(500))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.options.store_timeout = Some(timeout);
        self
    }

    /// Makes signing out final in cookie mode: `list` keeps the ids of ended sessions. Default: none.
    ///
    /// Without the list, a copy of the cookie opens the session until it expires, even after the user signed out.
    /// With the list, every request that brings a session asks the list. While the list is down, such a request is
    /// answered with
    /// 503. All nodes must share one list.
    ///
    /// [`SessionManager::destroy`] ends a session whose [`key`](crate::Session::key) is known. To find the sessions
    /// of a user, use a [`store`](Self::store) instead of this option.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, MemoryStore, SessionManager};
    ///
    /// // `RedisStore` or a database store keeps the list at a restart, and shares it between nodes.
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .revocations(MemoryStore::new())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # How long an id stays in the list
    ///
    /// An id stays in the list as long as a token of its session can be valid: for the idle timeout of the session
    /// and ten minutes. [`anonymous_idle_timeout`](Self::anonymous_idle_timeout) shortens this time for sessions
    /// without an owner.
    ///
    /// A commit that changes the idle timeout of a saved session therefore gives the session a new id. This happens
    /// at a login if there is an `anonymous_idle_timeout`, and after a
    /// [`set_idle_timeout`](crate::Session::set_idle_timeout).
    ///
    /// If the list has a capacity, limit the rate of sign-outs: every visitor can begin a session and end it, and a
    /// full list answers a sign-out with 503.
    ///
    /// # Security
    ///
    /// - A [`MemoryStore`](crate::MemoryStore) loses the list at a restart. If the keys stay the same, the cookies
    ///   of ended sessions are valid again. [`build`](Self::build) warns about it.
    /// - Raise an idle timeout on all nodes at the same time. A node computes how long an id stays in the list from
    ///   its own idle timeouts. If another node has a longer idle timeout, the list can forget an id while a copy
    ///   of its cookie is still valid.
    /// - After you lower an idle timeout, wait for the longer time before you raise it again, for the same reason.
    #[doc(alias("blacklist", "denylist", "logout", "revoke"))]
    pub fn revocations(mut self, list: impl SessionStore) -> Self {
        self.token.revocations = Some(Arc::new(list));
        self
    }
}

/// **Cookie and transport**: how the token travels. [`cookie_not_kept`](crate::guide::cookie_not_kept) helps where a
/// browser does not keep the cookie.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets the name and the attributes of the cookie. Default: `__Host-session`, with `Path=/`, `Secure`,
    /// `HttpOnly` and `SameSite=Lax`.
    ///
    /// An attribute that `template` does not set takes its default. `Max-Age` follows the
    /// [`idle_timeout`](Self::idle_timeout), so `template` must not set it. See
    /// [`cookie_not_kept`](crate::guide::cookie_not_kept).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager, cookie::{Cookie, SameSite}};
    ///
    /// let strict = Cookie::build("__Host-login").same_site(SameSite::Strict);
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .cookie(strict)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Changing the cookie later
    ///
    /// A browser keeps two cookies if they differ in name, `Path`, `Domain` or `Partitioned`, and a token is valid
    /// only in the cookie in which it was sent. If you change one of these, add the cookie as it was with
    /// [`former_cookie`](Self::former_cookie). Otherwise the change ends all sessions.
    ///
    /// # Errors of `build`
    ///
    /// [`build`](Self::build) refuses a cookie that no browser keeps, such as a `Domain` with a scheme or a port.
    /// It does not know public suffixes such as `co.uk`, for which browsers drop cookies too. A `Domain` that is an
    /// IP address or a name without a dot gives a warning: browsers send the cookie to that host alone, as they do
    /// without a `Domain`.
    ///
    /// # Security
    ///
    /// Without `HttpOnly`, any script on the page can read the cookie. Without `Secure`, anyone on the network can
    /// read it. Both give a warning.
    #[doc(alias("name", "with_name", "path", "domain", "secure", "partitioned"))]
    #[doc(alias("http_only", "httponly", "same_site", "samesite", "cookie_name"))]
    pub fn cookie(mut self, template: impl Into<Cookie<'static>>) -> Self {
        self.options.cookie = Some(template.into());
        self
    }

    /// Chooses the cookie for each request, such as a cookie with the `Domain` of a tenant. Default:
    /// [`cookie`](Self::cookie) for all requests.
    ///
    /// `choose` runs when a request extracts its session. Its result gets the defaults of [`cookie`](Self::cookie)
    /// and the same checks. A cookie that no browser keeps is the [`SessionError::Config`] of that request.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager, cookie::Cookie};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .cookie_for(|request| match request.headers.get("host") {
    ///         // One session for all hosts below `shop.example`.
    ///         Some(host) if host.as_bytes().ends_with(b".shop.example") => {
    ///             Cookie::build("__Secure-session").domain("shop.example").build()
    ///         }
    ///         _ => Cookie::new("__Host-session", ""),
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// A client can send the cookie of one host to another host. Where tenants share keys, set
    /// [`audience_for`](Self::audience_for) too.
    #[doc(alias("domain", "subdomain", "tenant"))]
    pub fn cookie_for(
        mut self,
        choose: impl Fn(&Parts) -> Cookie<'static> + Send + Sync + 'static,
    ) -> Self {
        self.options.cookie_for = Some(Box::new(choose));
        self
    }

    /// Also reads a cookie with the name and attributes of an earlier release. Default: none. Call it once for each
    /// former cookie.
    ///
    /// A session in a former cookie counts if no valid session came in today's cookie. The next commit sends the
    /// session in today's cookie, even if nothing changed. A response that sets today's cookie for the first time,
    /// or removes it, also removes every former cookie. [`Session::destroy`](crate::Session::destroy) ends the
    /// sessions of all of them.
    ///
    /// [`keys`](Self::keys), [`kind`](Self::kind) and [`audience`](Self::audience) must be those of the earlier
    /// release. Remove the option after the longest absolute timeout
    /// ([`max_absolute_timeout`](Self::max_absolute_timeout)): no session of the former cookie is left then.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager, cookie::Cookie};
    ///
    /// // The cookie was set for the path `/shop`. Now it is set for the whole host.
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .cookie(Cookie::new("session", ""))
    ///     .former_cookie(Cookie::build("session").path("/shop"))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Several nodes
    ///
    /// Change the cookie in two releases, so that every node can read every cookie:
    ///
    /// 1. `.cookie(old).former_cookie(new)`: the nodes read the new cookie, and still send the old cookie.
    /// 2. `.cookie(new).former_cookie(old)`, after every node runs the first release.
    ///
    /// # Security
    ///
    /// The prefix `__Host-` of today's cookie does not protect a former cookie without the prefix. Another host of
    /// the same site can still set that former cookie, and so give a visitor without a session a session of the
    /// attacker.
    pub fn former_cookie(mut self, template: impl Into<Cookie<'static>>) -> Self {
        self.options.former_cookies.push(template.into());
        self
    }

    /// Takes over the sessions of another library until a date, so that its users stay signed in. Default: none. Call
    /// it once for each library.
    ///
    /// `old` is asked if a request brings no valid session of this manager. The session that it finds is the session
    /// of the request, and its data can be read and changed as always. The first commit saves it, even if nothing
    /// changed: the response sets the session cookie and removes the [cookies](OldSessions::cookies) of the old
    /// library. A handler that does not commit has imported nothing, and the next request asks again. The event
    /// [`Imported`](crate::SessionEventKind::Imported) counts the sessions that moved.
    ///
    /// The session lives for as long as the old one had left, and no longer than the options of this manager allow.
    /// A save restarts its idle timeout. [`validate`](Self::validate) and [`validate_data`](Self::validate_data) are
    /// asked as for any session. The option needs [`keys`](Self::keys), since the new id is derived from them and from
    /// the old credential: requests that a browser sends at once get the same session.
    /// [`id_generator`](Self::id_generator) is not called.
    ///
    /// Two managers must not import the same old cookie, since the first that does removes it.
    ///
    /// # Security
    ///
    /// - An old session is imported once. A mark with a hash of its credential stays in the [`store`](Self::store), or
    ///   in the list of [`revocations`](Self::revocations), until the old session would have expired or the import
    ///   ends. For some seconds after the import, requests that the browser has already sent reach the imported
    ///   session. After that, and after a sign-out, the old credential opens nothing.
    /// - In cookie mode without [`revocations`](Self::revocations) there is no such mark, and
    ///   [`build`](Self::build) warns: a copy of an old cookie can be imported again until it expires.
    /// - [`destroy_all_of`](SessionManager::destroy_all_of) does not know old sessions that were not imported yet.
    ///   End them in the old library.
    /// - A sign-out removes the old cookies from the browser. A copy of an old cookie that was never imported stays
    ///   valid until it expires, as it does in the old library.
    /// - Every format has the weakness of its library. Choose a near date for `until`.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{
    ///     Key, MemoryStore, SessionManager, import::OldSessions,
    ///     time::{Duration, OffsetDateTime},
    /// };
    ///
    /// fn sessions(old: impl OldSessions<Login>) -> SessionManager<Login> {
    ///     let builder = SessionManager::<Login>::builder().keys(Key::generate());
    ///     let until = OffsetDateTime::now_utc() + Duration::days(30);
    ///     builder.store(MemoryStore::new()).import(until, old).build().unwrap()
    /// }
    /// ```
    #[doc(alias("migrate", "koa-session", "egg-session", "express-session", "cookie-session"))]
    pub fn import(mut self, until: OffsetDateTime, old: impl OldSessions<T>) -> Self {
        self.options.imports.push(Import::new(until.into(), old));
        self
    }

    /// Moves sessions from the cookie without `Partitioned` to the partitioned cookie. Default: `false`.
    ///
    /// It is for sites that added `Partitioned` to their cookie
    /// ([CHIPS](https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies)). The
    /// cookie without `Partitioned` is read like a [`former_cookie`](Self::former_cookie), and it is removed when
    /// the partitioned cookie is set.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager, cookie::{Cookie, SameSite}};
    ///
    /// let embedded = Cookie::build("__Host-session").same_site(SameSite::None).partitioned(true);
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .cookie(embedded)
    ///     .remove_unpartitioned(true)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "CHIPS")]
    pub fn remove_unpartitioned(mut self, remove: bool) -> Self {
        self.options.remove_unpartitioned = remove;
        self
    }

    /// Sends the cookie over plain http, for development. Default: `false`.
    ///
    /// The cookie then has no `Secure` and no prefix `__Host-` or `__Secure-`. Chromium keeps the default cookie at
    /// `http://localhost`, and some browsers do not. At other hosts, browsers drop a `Secure` cookie that comes
    /// over plain http. If a new session is sent to such a browser, a WARN names the host, once for each host and
    /// for at most ten hosts. See [`cookie_not_kept`](crate::guide::cookie_not_kept).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .insecure_http(cfg!(debug_assertions))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// Never use it in production: anyone on the network can read the cookie. [`build`](Self::build) warns about
    /// it.
    #[doc(alias("with_secure", "secure", "localhost", "http"))]
    pub fn insecure_http(mut self, insecure: bool) -> Self {
        self.options.insecure_http = insecure;
        self
    }

    /// Sets how the token travels. Default: [`Transport::cookie`].
    ///
    /// [`api_tokens`](crate::guide::api_tokens) shows an API with bearer tokens.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager, Transport};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .transport(Transport::bearer())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("bearer", "header", "externalKey", "authorization"))]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.options.transport = Some(transport);
        self
    }

    /// Sets how many bytes the name and the value of the cookie may take together. Default: 4096, because browsers
    /// drop a longer cookie (RFC 6265bis).
    ///
    /// A session that takes more bytes is [`SessionError::TooLarge`]. With a [`transport`](Self::transport) other
    /// than the cookie, the option counts the name of the request header and the token, without `Bearer `. [`build`](Self::build) refuses it
    /// together with a [`store`](Self::store), where the cookie holds only an id.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// // At most 2,672 bytes of data, which nginx lets through with its defaults.
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .max_cookie_bytes(3_700)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Behind nginx
    ///
    /// A proxy may allow less than a browser. nginx reads all headers of a response into one buffer, which has 4096
    /// bytes by default. If the headers do not fit, nginx answers 502. Measured with nginx 1.22 and a response of
    /// one cookie and a text:
    ///
    /// | nginx | the most session data without 502 |
    /// |---|---|
    /// | defaults | 2,800 bytes |
    /// | `proxy_http_version 1.1` | 2,786 bytes |
    /// | with `proxy_cache` | 2,519 bytes |
    /// | `proxy_buffer_size 8k` | 2,969 bytes, which is all that fits into a cookie |
    ///
    /// Other headers and cookies of the application take their share of the buffer. With `proxy_cache`, the key of
    /// the cache, which holds the URL, takes its share too. A WARN appears once when the cookies of a response take
    /// as many bytes as one cookie with 2,724 bytes of data. That is too late for `proxy_cache`.
    ///
    /// If you control nginx, set `proxy_buffer_size 8k`. Otherwise set this option, so that a session that is too
    /// large fails in the application with an error that says so. See [`many_nodes`](crate::guide::many_nodes).
    #[doc(alias("nginx", "502", "4096"))]
    pub fn max_cookie_bytes(mut self, bytes: usize) -> Self {
        self.options.max_cookie_bytes = Some(bytes);
        self
    }
}

/// **Lifetime**: when a session ends. [`lifetime`](crate::guide::lifetime) shows all timeouts in one picture.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets how long a session lives after its last save. Default: 1 day, in a cookie that survives a restart of
    /// the browser.
    ///
    /// [`IdleTimeout::BrowserSession`] makes a cookie that the browser forgets when it closes.
    /// [`Session::set_idle_timeout`](crate::Session::set_idle_timeout) sets the time of one session. With
    /// [`rolling`](Self::rolling), a request that only reads restarts the time too. The longest value is 400 days,
    /// because browsers keep no cookie longer. See [`lifetime`](crate::guide::lifetime).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use std::time::Duration;
    /// use axum_typed_session::{IdleTimeout, Key, SessionManager};
    ///
    /// let two_hours = Duration::from_secs(2 * 60 * 60);
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .idle_timeout(IdleTimeout::BrowserSession(two_hours))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("max_age", "maxAge", "max-age", "ttl", "session_ttl"))]
    #[doc(alias("expiry", "with_expiry", "expires"))]
    pub fn idle_timeout(mut self, timeout: impl Into<IdleTimeout>) -> Self {
        self.options.policy.idle_timeout = timeout.into();
        self
    }

    /// Sets which commits of an unchanged session restart its idle timeout. Default: [`Rolling::Off`], so only a
    /// save restarts it.
    ///
    /// `true` is [`Rolling::EveryCommit`]. With [`Rolling::BelowHalf`], a commit restarts the time when less than
    /// half of it is left. In cookie mode, an unchanged session gets a new token only after a twentieth of its time
    /// has passed. A handler that only reads must return its guard, which is the
    /// [`SessionCommit`](crate::SessionCommit) that [`Session::commit`](crate::Session::commit) returns. See
    /// [`lifetime`](crate::guide::lifetime).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, Rolling, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .rolling(Rolling::BelowHalf)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("renew", "sliding", "OnInactivity", "session_lifecycle"))]
    pub fn rolling(mut self, rolling: impl Into<Rolling>) -> Self {
        self.options.policy.rolling = rolling.into();
        self
    }

    /// Chooses the requests that extend their session. Default: every request.
    ///
    /// Use it for requests that a browser sends while nobody uses it, such as polling. If `extend_if` returns
    /// `false`, the request extends nothing: [`rolling`](Self::rolling) has no effect, and a save keeps the expiry
    /// of the session, also a save by [`Session::update`](crate::Session::update). Three things still work: a new
    /// session begins, [`Session::set_idle_timeout`](crate::Session::set_idle_timeout) restarts the idle timeout,
    /// and a login begins the session anew. See [`lifetime`](crate::guide::lifetime).
    ///
    /// `extend_if` runs once in a request, when the session is loaded.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .rolling(true)
    ///     .extend_if(|request| request.uri.path() != "/notifications")
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "polling")]
    pub fn extend_if(mut self, extend_if: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.options.extend_if = Some(Box::new(extend_if));
        self
    }

    /// Sets the age at which a session ends, even if it is in use. Default: 30 days (NIST SP 800-63B, AAL1).
    ///
    /// The age counts from [`created_at`](crate::Session::created_at). One session can have another absolute
    /// timeout, by [`Session::set_absolute_timeout`](crate::Session::set_absolute_timeout). That timeout can be
    /// longer than this option only if [`max_absolute_timeout`](Self::max_absolute_timeout) allows it. The longest
    /// value is 100 years. See [`lifetime`](crate::guide::lifetime).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use std::time::Duration;
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .absolute_timeout(Duration::from_secs(7 * 24 * 60 * 60))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("AtDateTime", "lifetime"))]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.absolute_timeout = timeout;
        self
    }

    /// Sets the longest absolute timeout that one session can have. Default:
    /// [`absolute_timeout`](Self::absolute_timeout).
    ///
    /// [`Session::set_absolute_timeout`](crate::Session::set_absolute_timeout) sets the timeout of one session,
    /// such as for "keep me signed in". A session that sets none still ends at
    /// [`absolute_timeout`](Self::absolute_timeout). The longest value is 100 years. See
    /// [`lifetime`](crate::guide::lifetime).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use std::time::Duration;
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .keys(Key::generate())
    ///     .max_absolute_timeout(Duration::from_secs(90 * 24 * 60 * 60))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// A stolen session can be used until its absolute timeout. NIST SP 800-63B asks for a new login after at most
    /// 30 days.
    #[doc(alias("remember_me", "keep me signed in"))]
    pub fn max_absolute_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.max_absolute_timeout = Some(timeout);
        self
    }

    /// Sets a shorter idle timeout for sessions without an owner. Default: [`idle_timeout`](Self::idle_timeout).
    ///
    /// It bounds the room that visitors take in a store if they never sign in. It needs [`owner`](Self::owner). The
    /// longest value is 400 days. See [`lifetime`](crate::guide::lifetime).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use std::time::Duration;
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(MemoryStore::new())
    ///     .owner(|login| login.user.clone())
    ///     .anonymous_idle_timeout(Duration::from_secs(30 * 60))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn anonymous_idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.policy.anonymous_idle_timeout = Some(timeout);
        self
    }
}

/// **Identity**: which user, application and tenant a session belongs to.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Names the user that a session belongs to. Return `None` while nobody is signed in. Default: none.
    ///
    /// [`build`](Self::build) refuses a function that names an owner for the default data: all visitors who are not
    /// signed in would be one owner. If the name is a `String`, return `None` while it is empty.
    ///
    /// With a store that has [`indexes_owners`](SessionStore::indexes_owners), [`SessionManager::sessions_of`]
    /// lists the sessions of a user, and [`SessionManager::destroy_all_of`] ends them. See
    /// [`devices`](crate::guide::devices).
    ///
    /// Two requests that change one session are merged only if the owner stays the same. A login changes the owner
    /// from `None` to a name, and takes over what the anonymous session got in the meantime. Without this option, a
    /// [`Session::regenerate`](crate::Session::regenerate) counts as a change of the owner. See
    /// [`parallel_requests`](crate::guide::parallel_requests).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(MemoryStore::new())
    ///     .owner(|login| login.user.clone())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("user", "user_id", "devices", "logout_everywhere"))]
    pub fn owner(mut self, owner: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.options.owner_is_told = true;
        self.data.owner = Box::new(owner);
        self
    }

    /// Sets how many sessions an [`owner`](Self::owner) may have. The next login ends the oldest of them. Default: 100,
    /// where the store [indexes owners](SessionStore::indexes_owners).
    ///
    /// After several logins at once, exactly the newest sessions remain. A login asks the store for the sessions of its
    /// owner, and loads them if they are too many. If the store fails at that, or the request is dropped, the login
    /// succeeds, and the next login ends the surplus. A session that a newer version of the application wrote is not ended. A session that
    /// ends within the next seconds does not count; by the default options these are 81.
    ///
    /// # Security
    ///
    /// OWASP ASVS 5.0, 7.1.2, asks for a documented limit of concurrent sessions. With 1, a login ends the session on
    /// every other device. Without a limit, one account could fill the store: a store in memory never drops a session
    /// of a user who is signed in.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(MemoryStore::new())
    ///     .owner(|login| login.user.clone())
    ///     .max_sessions_per_owner(5)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("concurrent sessions", "single session", "max_sessions", "limit"))]
    pub fn max_sessions_per_owner(mut self, limit: u32) -> Self {
        self.options.max_sessions_per_owner = Some(limit);
        self
    }

    /// Sets the application that the sessions belong to. Default: `axum-typed-session`.
    ///
    /// A token or an id of another audience opens no session. Set the audience if several applications share keys
    /// or a store. Changing it ends all sessions. An empty text is an error of [`build`](Self::build). See
    /// [`several_types`](crate::guide::several_types).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .audience("shop")
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.options.audience = audience.into();
        self
    }

    /// Chooses the audience of each request, such as the tenant. Default: [`audience`](Self::audience) for all
    /// requests.
    ///
    /// A session of one tenant is unknown to every other tenant, even if they share a store and a key: its token
    /// does not open, its id finds no stored session, and its owner is another owner. `choose` runs when a request
    /// extracts its session. An empty text is [`SessionError::Config`].
    ///
    /// Outside a request, [`SessionManager::for_request`] gives the manager of one tenant.
    /// [`create`](SessionManager::create), [`sessions`](SessionManager::sessions), and all operations on keys and owners
    /// need it. Expired sessions of all tenants are reported to [`on_end`](Self::on_end) by [`report_to`](crate::store::Cleanup::report_to) and
    /// [`delete_expired`](SessionManager::delete_expired) of the manager without a tenant. It cannot tell them from
    /// sessions of another type, so keep those in a store of their own.
    ///
    /// Caches tell hosts apart. If `choose` reads another header than `Host`, and a cache may keep the response,
    /// add that header to `Vary`.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .audience_for(|request| {
    ///         let host = request.headers.get("host").and_then(|host| host.to_str().ok());
    ///         host.unwrap_or("unknown").to_ascii_lowercase()
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "tenant")]
    pub fn audience_for(
        mut self,
        choose: impl Fn(&Parts) -> String + Send + Sync + 'static,
    ) -> Self {
        self.options.audience_for = Some(Box::new(choose));
        self
    }

    /// Sets the name of the session type. Default: the short name of the data type, such as `Login` or
    /// `Vec<Login>`.
    ///
    /// A token or an id of another kind opens no session, so no type opens the sessions of another type. If you
    /// rename the type, its sessions end. To keep them, set the former name here. An empty text is an error of
    /// [`build`](Self::build). See [`several_types`](crate::guide::several_types).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// // The type was called `Counter` in the last release.
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .kind("Counter")
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "rename")]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.options.events.kind = kind.into();
        self
    }

    /// Sets the function that makes the id of a new session. Default: 32 random bytes from the operating system.
    ///
    /// `generate` runs when a new session is saved and when a session gets a new id. If every id that it returns is
    /// in use, the commit is [`SessionError::IdInUse`]. [`SessionManager::create`] has no request, so it does not
    /// call `generate` and always uses the default. Where the cookie carries the data, an id has 16 bytes: the first
    /// 16 that `generate` returns, by default random bytes of the thread's generator. The other 16 are zero. See
    /// [`security`](crate::guide::security).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// # fn hardware_random() -> [u8; 32] { [7; 32] }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .id_generator(|_request| hardware_random())
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Security
    ///
    /// A client that guesses an id has the session, so the bytes must be random.
    #[doc(alias("genid", "session_id"))]
    pub fn id_generator(
        mut self,
        generate: impl Fn(&Parts) -> [u8; 32] + Send + Sync + 'static,
    ) -> Self {
        self.options.generate_id = Some(Box::new(generate));
        self
    }
}

/// **Data**: what a session may hold, and what happens to the data at a load and at a save.
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Sets how many bytes the encoded data may take. Default: 65,536 bytes (64 KiB).
    ///
    /// A session with more data is [`SessionError::TooLarge`]. In cookie mode the limit of the cookie is lower:
    /// 2,969 bytes of data, or the bytes that [`max_cookie_bytes`](Self::max_cookie_bytes) allows. See
    /// [`where_data_lives`](crate::guide::where_data_lives).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store(MemoryStore::new())
    ///     .max_payload(8 * 1024)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.options.max_payload = bytes;
        self
    }

    /// Sets what happens when two requests change one stored session at the same time. Default:
    /// [`ConflictPolicy::Merge`].
    ///
    /// The option needs a [`store`](Self::store): in cookie mode, the browser keeps the cookie that arrives last.
    /// See [`parallel_requests`](crate::guide::parallel_requests).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{ConflictPolicy, MemoryStore, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store(MemoryStore::new())
    ///     .on_conflict(ConflictPolicy::Reject)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("merge", "race", "concurrency", "lost update"))]
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.options.on_conflict = Some(policy);
        self
    }

    /// Checks each session that comes in with a request. Default: every session is valid.
    ///
    /// If `validate` returns `false`, the handler gets a fresh session, which is a new session that was not loaded
    /// from the request. The rejected session stays in the store until it expires. Use the option to bind a session
    /// to a property of the client. See [`security`](crate::guide::security).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct Login { user: Option<String>, agent: String }
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .keys(Key::generate())
    ///     .validate(|request, login| {
    ///         let agent = request.headers.get("user-agent").map(|agent| agent.as_bytes());
    ///         agent.unwrap_or_default() == login.agent.as_bytes()
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("valid", "fingerprint"))]
    pub fn validate(
        mut self,
        validate: impl Fn(&Parts, &T) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.data.validate = Box::new(validate);
        self
    }

    /// Checks the data of each session that is loaded or saved, also outside a request. Default: all data is valid.
    ///
    /// If `validate` returns `false` for a session that comes in, the handler gets a fresh session, which is a new
    /// session that was not loaded from the request. A commit of such data is [`SessionError::Invalid`] and saves
    /// nothing. A merge that results in such data is [`SessionError::Conflict`]. See
    /// [`security`](crate::guide::security).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .validate_data(|visits| visits.count <= 1_000_000)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn validate_data(mut self, validate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.data.validate_data = Box::new(validate);
        self
    }

    /// Changes the data before each save. Default: none.
    ///
    /// `before_save` runs after changes of other requests were merged. It runs only if the session is saved anyway,
    /// so its change alone causes no save. See [`parallel_requests`](crate::guide::parallel_requests).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .before_save(|visits| visits.count = visits.count.min(1_000))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn before_save(mut self, before_save: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.data.before_save = Some(Box::new(before_save));
        self
    }

    /// Sets how the data becomes bytes. Default: JSON.
    ///
    /// With a [`store`](Self::store), [`ConflictPolicy::Merge`] needs JSON, so set another
    /// [`on_conflict`](Self::on_conflict). [`migrate`](Self::migrate) needs JSON too. See
    /// [`keys_and_schemas`](crate::guide::keys_and_schemas).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum::BoxError;
    /// use axum_typed_session::{Codec, Key, SessionManager};
    ///
    /// struct FourBytes;
    /// impl Codec<Visits> for FourBytes {
    ///     fn tag(&self) -> u8 { 2 }
    ///     fn encode(&self, visits: &Visits) -> Result<Vec<u8>, BoxError> {
    ///         Ok(visits.count.to_be_bytes().into())
    ///     }
    ///     fn decode(&self, bytes: &[u8]) -> Result<Visits, BoxError> {
    ///         Ok(Visits { count: u32::from_be_bytes(bytes.try_into()?) })
    ///     }
    /// }
    /// let builder = SessionManager::<Visits>::builder().keys(Key::generate()).codec(FourBytes);
    /// # builder.build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("serializer", "encode", "decode", "messagepack", "bincode"))]
    pub fn codec(mut self, codec: impl Codec<T>) -> Self {
        self.options.codec_tag = codec.tag();
        self.data.codec = Arc::new(codec);
        self
    }

    /// Sets the version number of the type's shape. Default: 1. A higher number needs [`migrate`](Self::migrate).
    ///
    /// Raise it if the new type cannot read the data of the old type, as the example of [`migrate`](Self::migrate)
    /// does. A new field with `#[serde(default)]` needs no new version. See
    /// [`keys_and_schemas`](crate::guide::keys_and_schemas).
    pub fn schema_version(mut self, version: u32) -> Self {
        self.options.schema = version;
        self
    }

    /// Converts JSON of an older [`schema_version`](Self::schema_version) to the current shape. Default: none.
    ///
    /// `migrate` gets the version of the data and the data. If it returns an error, the handler gets a fresh
    /// session, which is a new session that was not loaded from the request. See
    /// [`keys_and_schemas`](crate::guide::keys_and_schemas).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    ///
    /// // Version 1 called the field `name`.
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(MemoryStore::new())
    ///     .schema_version(2)
    ///     .migrate(|_from, mut data| {
    ///         let login = data.as_object_mut().ok_or("not an object")?;
    ///         let name = login.remove("name").ok_or("no name")?;
    ///         login.insert("user".to_owned(), name);
    ///         Ok::<_, &str>(data)
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias = "migration")]
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

    /// Also reads data of newer schema versions up to this one. Default: none.
    ///
    /// Data of a newer version is [`SessionError::Newer`], which is 503, so that no node replaces data that
    /// it does not understand. With several nodes, change the type in two releases:
    ///
    /// 1. `.accept_schema(2)`, with a type that reads both shapes (`#[serde(default)]` on new fields). It still
    ///    saves version 1.
    /// 2. `.schema_version(2).migrate(..)`, after every node runs the first release.
    ///
    /// See [`keys_and_schemas`](crate::guide::keys_and_schemas).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Login>::builder()
    ///     .keys(Key::generate())
    ///     .accept_schema(2)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("rolling deploy", "blue-green"))]
    pub fn accept_schema(mut self, version: u32) -> Self {
        self.options.accept_schema = Some(version);
        self
    }
}

/// **Events, errors and time.**
impl<T: Send + Sync + 'static> SessionManagerBuilder<T> {
    /// Calls a function with every [`SessionEvent`], such as for metrics. Default: none.
    ///
    /// Every event is also written with `tracing`. The function runs inside the request, so it must not block. It
    /// must not panic: after a panic no cookie is sent, although the session may be saved. The example `metrics`
    /// counts events.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{Key, SessionEventKind, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .on_event(|event| match event.kind {
    ///         SessionEventKind::Created => tracing::info!("a session began"),
    ///         _ => {}
    ///     })
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("metrics", "audit", "log"))]
    pub fn on_event(mut self, on_event: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.options.events.hook = Some(Box::new(on_event));
        self
    }

    /// Sets a function that is called with the data of a session when it has ended, for an audit log, or to show that a
    /// user went offline. Default: none.
    ///
    /// | end of the session | called |
    /// |---|---|
    /// | sign-out, in a store or in a cookie | by the commit |
    /// | `destroy`, `destroy_of`, `destroy_all_of`, `destroy_others_of` of the [manager](SessionManager) | by the call |
    /// | [`max_sessions_per_owner`](Self::max_sessions_per_owner) | by the login that ends it |
    /// | expiry in SQLite, PostgreSQL, MySQL and [`MemoryStore`](crate::MemoryStore) | by a [`Cleanup`](crate::store::Cleanup) with [`report_to`](crate::store::Cleanup::report_to), or by [`delete_expired`](SessionManager::delete_expired) |
    /// | expiry in Redis, memcached and cookies | never: the server or the browser deletes the session by itself |
    /// | a session that a full store dropped, that cannot be read, or that [`SessionManager::destroy`] adds to a revocation list | never: the data is not known |
    ///
    /// It is called at least once, but for the two cases below. It may be called twice, or for a session that lives on, if the store failed or the
    /// request was dropped while the session was ended. A new id is not an end, nor is a change of the owner. If the
    /// process ends between the deletion of an expired session and the call, or if the answer of Redis or memcached to
    /// the deletion of any session is lost with its connection, there may be no call.
    ///
    /// The function must not block and must not panic: send the data into a channel, and work in another task.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// use axum_typed_session::{MemoryStore, SessionManager};
    /// use tokio::sync::mpsc;
    ///
    /// let (ended, mut audit) = mpsc::unbounded_channel();
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(MemoryStore::new())
    ///     .on_end(move |login, why| _ = ended.send((login.user, why)))
    ///     .build()?;
    /// # let task = async move {
    /// while let Some((user, why)) = audit.recv().await {
    ///     println!("the session of {user:?} ended: {why:?}");
    /// }
    /// # };
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("on_destroy", "on_expire", "on_logout", "offline", "audit"))]
    pub fn on_end(mut self, on_end: impl Fn(T, EndReason) + Send + Sync + 'static) -> Self {
        self.data.on_end = Some(Box::new(on_end));
        self
    }

    /// Sets the response that the client gets for an error. Default: the status and a short plain sentence.
    ///
    /// [`AutoCommitLayer`](crate::AutoCommitLayer) uses it for every [`SessionError`] of a request: of an
    /// extractor, of a handler and of its own commit. Without the layer, call [`SessionManager::error_response`]
    /// where the application renders its errors. See [`errors`](crate::guide::errors).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum::response::{Html, IntoResponse};
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .error_response(|error| {
    ///         (error.status(), Html("<h1>Please try again</h1>")).into_response()
    ///     })
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

    /// Sets how far the clocks of two nodes may differ. Default: 60 seconds. The longest value is one hour.
    ///
    /// In cookie mode, a token from another node is refused if its time of issue is later than the time of this
    /// node and this duration. Set zero for a single node. See [`many_nodes`](crate::guide::many_nodes).
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use std::time::Duration;
    /// use axum_typed_session::{Key, SessionManager};
    ///
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .keys(Key::generate())
    ///     .clock_skew(Duration::from_secs(5))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("ntp", "leeway"))]
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.options.clock_skew = skew;
        self
    }

    /// Sets the clock. Default: [`SystemClock`](crate::SystemClock).
    ///
    /// Tests use a [`ManualClock`](crate::testing::ManualClock), as [`testing`](crate::guide::testing) shows. A
    /// store has its own clock. If a test moves the time, give the same clock to both.
    ///
    /// # Example
    ///
    /// ```
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    /// use axum_typed_session::{MemoryStore, SessionManager, testing::ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let sessions = SessionManager::<Visits>::builder()
    ///     .store(MemoryStore::builder().clock(clock.clone()).build())
    ///     .clock(clock)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    #[doc(alias("mock", "mock time", "fake time", "freeze"))]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.clock = Some(Arc::new(clock));
        self
    }
}

impl<T> fmt::Debug for SessionManagerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManagerBuilder").finish_non_exhaustive()
    }
}
