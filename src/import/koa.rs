//! Sessions of koa-session in a signed cookie.

use async_trait::async_trait;
use base64::alphabet;
use cookie::Cookie;
use http::request::Parts;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    OldSession, OldSessions,
    keygrip::{Hash, Secrets},
    old_cookie::{OldCookie, Take, decode, json},
};
use crate::error::StoreError;

/// Sessions of the npm package [koa-session](https://www.npmjs.com/package/koa-session) in its signed cookie, for
/// [`import`](crate::SessionManagerBuilder::import).
///
/// The option `signed` of koa-session must be on, as it is by default, and `encode` and `decode` must not be set. Data
/// in an external store is not read.
///
/// # Example
///
/// ```
/// use axum_typed_session::import::KoaSessions;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// // `app.keys` of the koa application
/// let old = KoaSessions::new(["the newest key", "an older key"], |data| {
///     let user = data["user"].as_str()?.to_owned();
///     Some(Login { user: Some(user) })
/// });
/// ```
///
/// # Security
///
/// The package [keygrip](https://www.npmjs.com/package/keygrip) signs with HMAC-SHA1. No forgery of it is known, but
/// the users of the application can read everything in the cookie. The key has the strength that it was chosen with:
/// a short one can be found from one cookie, offline. An empty key is ignored here.
///
/// koa-session writes the end of the session into the cookie in milliseconds, which makes the cookie unique. Two
/// visitors would share a session only if the same data was saved for both in one millisecond and both were imported
/// within seconds. A cookie without an end, as with `maxAge: 'session'`, is
/// [not unique](OldSession::not_unique).
pub struct KoaSessions<T> {
    secrets: Secrets,
    hash: Hash,
    cookie: OldCookie,
    take: Take<T>,
}

impl<T> KoaSessions<T> {
    /// Reads the cookie `koa.sess`, signed with one of these keys. `take` gets the data of the session and returns
    /// what this application keeps of it; `None` imports nothing.
    pub fn new(
        keys: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (secrets, cookie) = (Secrets::new(keys), OldCookie::named("koa.sess"));
        Self { secrets, hash: Hash::Sha1, cookie, take: Box::new(take) }
    }

    /// Sets the cookie: the option `key` of koa-session, with its Path and Domain. Default: `koa.sess` with the Path
    /// `/`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::Cookie, import::KoaSessions};
    ///
    /// let old = KoaSessions::new(["the key"], |data| data["count"].as_u64())
    ///     .cookie(Cookie::build("koa:sess").domain("example.com"));
    /// ```
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<Cookie<'static>>) -> Self {
        self.cookie = OldCookie(cookie.into());
        self
    }

    pub(super) fn hash(mut self, hash: Hash) -> Self {
        self.hash = hash;
        self
    }
}

impl<T> std::fmt::Debug for KoaSessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KoaSessions").finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for KoaSessions<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        self.cookie.with_signature()
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        let value = self.secrets.signed_value(self.hash, &self.cookie, &request.headers);
        Ok(value.and_then(|value| session(value, value.as_bytes(), &self.take)))
    }
}

/// Reads the JSON of koa-session, whose fields with an underscore are about the session itself.
pub(super) fn session<T>(text: &str, credential: &[u8], take: &Take<T>) -> Option<OldSession<T>> {
    let Some(Value::Object(mut fields)) = json(&decode(&alphabet::STANDARD, text)?) else {
        return None;
    };
    let end = fields.remove("_expire").map(|end| end.as_u64());
    fields.remove("_maxAge");
    fields.remove("_session");
    let data = take(Value::Object(fields))?;
    match end {
        Some(end) => {
            let at = i128::from(end?) * 1_000_000;
            // Later than any calendar is no end at all.
            let at = OffsetDateTime::from_unix_timestamp_nanos(at).ok()?;
            Some(OldSession::new(data, credential).expires_at(at))
        }
        None => Some(OldSession::not_unique(data)),
    }
}
