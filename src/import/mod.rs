//! Sessions of other libraries, for [`import`](crate::SessionManagerBuilder::import): a site moves to this crate, and
//! its users stay signed in.
//!
//! [`OldSessions`] reads the session of another library from a request.

#[cfg(feature = "import")]
mod cookie_session;
#[cfg(feature = "import")]
mod egg;
#[cfg(feature = "import")]
mod express;
#[cfg(feature = "import")]
mod jar;
#[cfg(feature = "import")]
mod keygrip;
#[cfg(feature = "import")]
mod koa;
#[cfg(feature = "import")]
mod old_cookie;
#[cfg(feature = "import")]
mod rows;
#[cfg(feature = "import")]
mod tower;

use std::{any::Any, marker::PhantomData, time::Duration};

use async_trait::async_trait;
use cookie::Cookie;
use http::request::Parts;
use time::OffsetDateTime;

#[cfg(all(feature = "import", any(feature = "postgres", feature = "sqlite")))]
pub use self::rows::TowerTable;
#[cfg(feature = "import")]
pub use self::{
    cookie_session::CookieSessions,
    egg::EggSessions,
    express::ExpressSessions,
    jar::JarCookies,
    koa::KoaSessions,
    rows::{OldRow, OldRows},
    tower::TowerSessions,
};
use crate::{clock::Timestamp, error::StoreError};

/// A reader of the sessions of another library, for [`import`](crate::SessionManagerBuilder::import).
///
/// # Example
///
/// An old application kept the name of the user in a cookie, and a signature in the same cookie:
///
/// ```
/// use axum::http::{header, request::Parts};
/// use axum_typed_session::{
///     StoreError,
///     cookie::{Cookie, CookieJar, Key},
///     import::{OldSession, OldSessions},
/// };
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// struct SignedName(Key);
///
/// #[async_trait::async_trait]
/// impl OldSessions<Login> for SignedName {
///     fn cookies(&self) -> Vec<Cookie<'static>> {
///         vec![Cookie::build("user").path("/").into()]
///     }
///
///     async fn find(&self, request: &Parts) -> Result<Option<OldSession<Login>>, StoreError> {
///         let mut jar = CookieJar::new();
///         for header in request.headers.get_all(header::COOKIE) {
///             let cookies = Cookie::split_parse(header.to_str().unwrap_or_default().to_owned());
///             cookies.flatten().for_each(|cookie| jar.add_original(cookie));
///         }
///         let Some(signed) = jar.get("user").map(|cookie| cookie.value().to_owned()) else {
///             return Ok(None);
///         };
///         let name = jar.signed(&self.0).get("user").map(|cookie| cookie.value().to_owned());
///         Ok(name.map(|name| OldSession::new(Login { user: Some(name) }, signed)))
///     }
/// }
/// ```
///
/// # Security
///
/// Whatever `find` returns becomes a session. Return only what the old library has signed, encrypted with
/// authentication, or kept in its store under an id that nobody can guess. Compare signatures in constant time.
#[async_trait]
pub trait OldSessions<T>: Send + Sync + 'static {
    /// Returns the cookies of the old library, with the Path and the Domain that they were set with.
    ///
    /// They are removed by the response that imports a session, and by every response that removes the session
    /// cookie. [`find`](Self::find) is called only if a request brings a cookie with one of these names. With an
    /// empty list it is called for every request without a session.
    fn cookies(&self) -> Vec<Cookie<'static>>;

    /// Returns the old session of a request. Returns `None` if there is none, or if it is forged, expired or
    /// damaged.
    ///
    /// [`store_timeout`](crate::SessionManagerBuilder::store_timeout) bounds the call.
    ///
    /// # Errors
    ///
    /// The store of the old library could not be asked. The request gets
    /// [`SessionError::Store`](crate::SessionError::Store), which is 503, so that nobody is signed out by it.
    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError>;
}

/// A session of another library, which [`OldSessions`] found. That trait has an example.
#[derive(Debug)]
#[non_exhaustive]
pub struct OldSession<T> {
    /// The data of the session, as this application keeps it.
    pub data: T,
    /// The bytes that made the client the owner of the old session, such as its id or the value of its cookie. `None`
    /// if other visitors may have the same bytes.
    pub credential: Option<Vec<u8>>,
    /// When the old session would have ended; `None` if that is not known. The new session ends no later, until its
    /// next save.
    pub expires_at: Option<OffsetDateTime>,
    /// How long the old session had left; `None` if that is not known. The new session ends no later, until its next
    /// save.
    pub expires_in: Option<Duration>,
}

impl<T> OldSession<T> {
    /// Makes an old session whose end is not known. The example of [`OldSessions`] uses it.
    ///
    /// `credential` is what made the client the owner of the old session, such as its id or the value of its cookie.
    /// An old session is imported once, and it is known by these bytes. Only a hash of them is stored.
    ///
    /// # Security
    ///
    /// No other session may have the same bytes, since the requests of both would reach one session. The client must
    /// not be able to change them without a refusal, as by another spelling of base64, since a used cookie could be
    /// imported again.
    pub fn new(data: T, credential: impl Into<Vec<u8>>) -> Self {
        Self { credential: Some(credential.into()), ..Self::not_unique(data) }
    }

    /// Makes an old session that cannot be told from others, such as a cookie that is the same for everyone with the
    /// same data. Its end is not known.
    ///
    /// # Security
    ///
    /// It cannot be imported once only. A copy of the old cookie can be imported until the old session or the import
    /// ends, also after a sign-out. Requests that a browser sends at once get a session each, of which the browser
    /// keeps one.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::import::OldSession;
    ///
    /// let old = OldSession::not_unique("anna");
    /// assert_eq!(old.credential, None);
    /// ```
    pub fn not_unique(data: T) -> Self {
        Self { data, credential: None, expires_at: None, expires_in: None }
    }

    /// Sets when the old session would have ended.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{import::OldSession, time::OffsetDateTime};
    ///
    /// fn ending(user: String, id: &str, expires_at: OffsetDateTime) -> OldSession<String> {
    ///     OldSession::new(user, id).expires_at(expires_at)
    /// }
    /// ```
    #[must_use]
    pub fn expires_at(mut self, at: OffsetDateTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Sets how long the old session had left, such as the time to live of its row.
    ///
    /// # Example
    ///
    /// ```
    /// use std::{any::Any, marker::PhantomData, time::Duration};
    /// use axum_typed_session::import::OldSession;
    ///
    /// let old = OldSession::new("anna", "the id").expires_in(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn expires_in(mut self, left: Duration) -> Self {
        self.expires_in = Some(left);
        self
    }

    /// Returns the session with other data.
    pub(crate) fn map<D>(self, map: impl FnOnce(T) -> D) -> OldSession<D> {
        let Self { data, credential, expires_at, expires_in } = self;
        OldSession { data: map(data), credential, expires_at, expires_in }
    }

    /// Returns the earlier end, or the end of time.
    pub(crate) fn end(&self, now: Timestamp) -> Timestamp {
        let at = self.expires_at.map(Timestamp::from);
        let left = self.expires_in.map(|left| now.saturating_add(left));
        at.into_iter().chain(left).min().unwrap_or(Timestamp::from_unix_millis(u64::MAX))
    }
}

/// Session data without its type.
type Data = dyn Any + Send + Sync;

/// An `.import(..)` of the application, without its data type.
pub(crate) struct Import {
    pub(crate) until: Timestamp,
    pub(crate) cookies: Vec<Cookie<'static>>,
    pub(crate) source: Box<dyn OldSessions<Box<Data>>>,
}

impl Import {
    pub(crate) fn new<T: Send + Sync + 'static>(
        until: Timestamp,
        source: impl OldSessions<T>,
    ) -> Self {
        let cookies = source.cookies();
        Self { until, cookies, source: Box::new(Untyped(source, PhantomData)) }
    }
}

struct Untyped<S, T>(S, PhantomData<fn() -> T>);

#[async_trait]
impl<S: OldSessions<T>, T: Send + Sync + 'static> OldSessions<Box<Data>> for Untyped<S, T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        self.0.cookies()
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<Box<Data>>>, StoreError> {
        let old = self.0.find(request).await?;
        Ok(old.map(|old| old.map(|data| -> Box<Data> { Box::new(data) })))
    }
}
