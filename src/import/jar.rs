//! Cookies of a `PrivateCookieJar` or `SignedCookieJar`.

use async_trait::async_trait;
use cookie::{Cookie, CookieJar, Key};
use http::request::Parts;

use super::{
    OldSession, OldSessions,
    old_cookie::{OldCookie, percent_decoded},
};
use crate::error::StoreError;

/// A cookie that the application kept in a `PrivateCookieJar` or `SignedCookieJar` of axum-extra, or in a jar of the
/// crate [`cookie`], for [`import`](crate::SessionManagerBuilder::import).
///
/// # Example
///
/// ```
/// use axum_typed_session::{cookie::{Cookie, Key}, import::JarCookies};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// let key = Key::generate(); // the key of the old jar
/// let old = JarCookies::private(key, Cookie::build("user").path("/"), |value| {
///     Some(Login { user: Some(value.to_owned()) })
/// });
/// ```
///
/// # Security
///
/// The jars write no end into the cookie, so a copy of a cookie is accepted until the date of the import.
pub struct JarCookies<T> {
    key: Key,
    cookie: OldCookie,
    is_private: bool,
    is_unique: bool,
    take: Box<TakeText<T>>,
}

type TakeText<T> = dyn Fn(&str) -> Option<T> + Send + Sync;

impl<T> JarCookies<T> {
    /// Reads a cookie that a private jar encrypted with this key. `take` gets the value and returns what this
    /// application keeps of it; `None` imports nothing. The type has an example.
    ///
    /// # Security
    ///
    /// The jar encrypts with AES-256-GCM and a random nonce of 96 bits, so one key must not seal more than 2^32 cookies
    /// (NIST SP 800-38D, section 8.3). The nonce makes each cookie unique.
    pub fn private(
        key: Key,
        cookie: impl Into<Cookie<'static>>,
        take: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let cookie = OldCookie(cookie.into());
        Self { key, cookie, is_private: true, is_unique: true, take: Box::new(take) }
    }

    /// Reads a cookie that a signed jar signed with this key. `take` gets the value and returns what this application
    /// keeps of it; `None` imports nothing.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::{Cookie, Key}, import::JarCookies};
    ///
    /// let key = Key::generate(); // the key of the old jar
    /// let old = JarCookies::signed(key, Cookie::new("count", ""), |value| value.parse::<u32>().ok());
    /// ```
    ///
    /// # Security
    ///
    /// - The jar signs with HMAC-SHA256. The users can read the cookie.
    /// - The signature does not cover the name (`src/secure/signed.rs` of the crate `cookie`). A value that this key
    ///   signed for any other cookie is accepted here, so `take` must refuse what the application wrote elsewhere.
    /// - The same value is the same cookie, for all visitors and on all devices. So a cookie is
    ///   [not unique](OldSession::not_unique), and it is not imported once only. See [`unique`](Self::unique).
    pub fn signed(
        key: Key,
        cookie: impl Into<Cookie<'static>>,
        take: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self { is_private: false, is_unique: false, ..Self::private(key, cookie, take) }
    }

    /// Says that no two visitors have the same value, such as the random id of a session. Each cookie is then imported
    /// once. Default: `false` for a signed cookie. An encrypted cookie is always unique.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::{Cookie, Key}, import::JarCookies};
    ///
    /// # let key = Key::generate();
    /// let old = JarCookies::signed(key, Cookie::new("id", ""), |id| Some(id.to_owned()));
    /// let old = old.unique(true);
    /// ```
    ///
    /// # Security
    ///
    /// If it is not so, a second visitor with the same value gets the session of the first, or none.
    #[must_use]
    pub fn unique(mut self, is_unique: bool) -> Self {
        self.is_unique = is_unique || self.is_private;
        self
    }

    /// Opens the first value that this key has sealed. Returns it with the text that it was in.
    fn open(&self, request: &Parts) -> Option<(String, Vec<u8>)> {
        let open = |value: &str| {
            let opened = open(&self.key, self.is_private, self.cookie.with(value));
            opened.zip(Some(value.as_bytes().into()))
        };
        // A jar of the crate `cookie` writes the value as it is, and a jar of axum-extra encodes it.
        let opens =
            |value| percent_decoded(value).and_then(|value| open(&value)).or_else(|| open(value));
        self.cookie.values(&request.headers).find_map(opens)
    }
}

/// Opens a cookie of a jar of the crate `cookie`. No other text than the jar's own opens, since the crate accepts
/// canonical base64 only.
pub(super) fn open(key: &Key, is_private: bool, cookie: Cookie<'static>) -> Option<String> {
    let jar = CookieJar::new();
    let opened =
        if is_private { jar.private(key).decrypt(cookie) } else { jar.signed(key).verify(cookie) };
    opened.map(|cookie| cookie.value().to_owned())
}

impl<T> std::fmt::Debug for JarCookies<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JarCookies").finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for JarCookies<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![self.cookie.0.clone()]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        Ok(self.open(request).and_then(|(value, sealed)| {
            let data = (self.take)(&value)?;
            let credential = self.is_unique.then_some(sealed);
            Some(OldSession { credential, ..OldSession::not_unique(data) })
        }))
    }
}
