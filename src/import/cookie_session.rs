//! Sessions of cookie-session.

use async_trait::async_trait;
use base64::alphabet;
use cookie::Cookie;
use http::request::Parts;
use serde_json::Value;

use super::{
    OldSession, OldSessions,
    keygrip::{Hash, Secrets},
    old_cookie::{OldCookie, Take, decode, json},
};
use crate::error::StoreError;

/// Sessions of the npm package [cookie-session](https://www.npmjs.com/package/cookie-session), for
/// [`import`](crate::SessionManagerBuilder::import).
///
/// The option `signed` of cookie-session must be on, as it is by default.
///
/// # Example
///
/// ```
/// use axum_typed_session::import::CookieSessions;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// // The option `keys` of cookie-session, or `secret` as the only key
/// let old = CookieSessions::new(["the newest key", "an older key"], |data| {
///     let user = data["user"].as_str()?.to_owned();
///     Some(Login { user: Some(user) })
/// });
/// ```
///
/// # Security
///
/// - cookie-session writes no end into the cookie, so a copy of a cookie never expires there. The import accepts it
///   until the date of the import.
/// - The same data is the same cookie, for all visitors and on all devices. So by default a cookie is
///   [not unique](OldSession::not_unique), and it is not imported once only. See [`unique`](Self::unique).
/// - The package [keygrip](https://www.npmjs.com/package/keygrip) signs with HMAC-SHA1. No forgery of it is known. The
///   users can read everything in the cookie, and a guessable key can be found from one cookie, offline. An empty key
///   is ignored here.
pub struct CookieSessions<T> {
    secrets: Secrets,
    cookie: OldCookie,
    is_unique: bool,
    take: Take<T>,
}

impl<T> CookieSessions<T> {
    /// Reads the cookie `session`, signed with one of these keys. `take` gets the data of the session and returns what
    /// this application keeps of it; `None` imports nothing.
    pub fn new(
        keys: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (secrets, cookie) = (Secrets::new(keys), OldCookie::named("session"));
        Self { secrets, cookie, is_unique: false, take: Box::new(take) }
    }

    /// Sets the cookie: the option `name` of cookie-session, with its Path and Domain. Default: `session` with the
    /// Path `/`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::Cookie, import::CookieSessions};
    ///
    /// let old = CookieSessions::new(["the key"], |data| data["count"].as_u64())
    ///     .cookie(Cookie::build("express:sess").path("/shop"));
    /// ```
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<Cookie<'static>>) -> Self {
        self.cookie = OldCookie(cookie.into());
        self
    }

    /// Says that no two visitors have the same data, as where each session holds a random text. Each cookie is then
    /// imported once. Default: `false`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::import::CookieSessions;
    ///
    /// // Every session has a CSRF secret of its own.
    /// let old = CookieSessions::new(["the key"], |data| data["user"].as_u64()).unique(true);
    /// ```
    ///
    /// # Security
    ///
    /// If it is not so, a second visitor with the same data gets the session of the first, or none.
    #[must_use]
    pub fn unique(mut self, is_unique: bool) -> Self {
        self.is_unique = is_unique;
        self
    }
}

impl<T> std::fmt::Debug for CookieSessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieSessions").finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for CookieSessions<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        self.cookie.with_signature()
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        let value = self.secrets.signed_value(Hash::Sha1, &self.cookie, &request.headers);
        let found = value.and_then(|value| {
            let data = (self.take)(json(&decode(&alphabet::STANDARD, value)?)?)?;
            Some(OldSession {
                credential: self.is_unique.then(|| value.into()),
                ..OldSession::not_unique(data)
            })
        });
        Ok(found)
    }
}
