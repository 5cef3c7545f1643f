//! Sessions of koa-session in a signed cookie, or in a store under the signed key in it.

use async_trait::async_trait;
use base64::alphabet;
use cookie::Cookie;
use http::request::Parts;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{
    OldSession, OldSessions,
    keygrip::{Hash, Secrets},
    old_cookie::{OldCookie, Take, decode, json},
    rows::{OldRows, load},
};
use crate::error::StoreError;

/// Sessions of the npm package [koa-session](https://www.npmjs.com/package/koa-session) in its signed cookie, for
/// [`import`](crate::SessionManagerBuilder::import).
///
/// The option `signed` of koa-session must be on, as it is by default, and `encode`, `decode` and `externalKey` must not
/// be set. Data in an external store is read with [`store`](Self::store).
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
    data: Data<T>,
}

/// The data of koa-session.
pub(super) struct Data<T> {
    /// `None` if the cookie holds the data.
    rows: Option<Box<dyn OldRows>>,
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
        Self { secrets, hash: Hash::Sha1, cookie, data: Data::new(take) }
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

    /// Reads the data from rows of JSON: the option `store` of koa-session. The cookie then holds the key of the row.
    ///
    /// A [`RedisStore`](crate::RedisStore) that is connected to the old Redis reads the rows of koa-redis and of every
    /// store whose `set` puts `JSON.stringify(value)` under the key itself. Any other store needs an [`OldRows`] of its
    /// own. Default: the data is in the cookie.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::import::{KoaSessions, OldRows};
    ///
    /// fn old(rows: impl OldRows) -> KoaSessions<u64> {
    ///     KoaSessions::new(["the key"], |data| data["count"].as_u64()).store(rows)
    /// }
    /// ```
    ///
    /// # Security
    ///
    /// The old store has the keys in plain text: who reads it and knows a secret has every session. The old row stays,
    /// and the old application accepts its cookie until the row expires. Delete the rows when the last node of the old
    /// application has stopped.
    #[must_use]
    pub fn store(mut self, rows: impl OldRows) -> Self {
        self.data = self.data.stored(rows);
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
        match self.secrets.signed_value(self.hash, &self.cookie, &request.headers) {
            Some(value) => self.data.find(value, value.as_bytes()).await,
            None => Ok(None),
        }
    }
}

impl<T> Data<T> {
    pub(super) fn new(take: impl Fn(Value) -> Option<T> + Send + Sync + 'static) -> Self {
        Self { rows: None, take: Box::new(take) }
    }

    pub(super) fn stored(mut self, rows: impl OldRows) -> Self {
        self.rows = Some(Box::new(rows));
        self
    }

    /// Finds the session of a text that a cookie held: the data, or the key of its row.
    pub(super) async fn find(
        &self,
        text: &str,
        sealed: &[u8],
    ) -> Result<Option<OldSession<T>>, StoreError> {
        let Some(rows) = &self.rows else {
            let found = decode(&alphabet::STANDARD, text).and_then(|bytes| self.read(&bytes));
            return Ok(found.map(|mut old| {
                // The end, in milliseconds, is what tells two sessions with the same data apart.
                old.credential = old.expires_at.map(|_| sealed.into());
                old
            }));
        };
        let Some(row) = load(&**rows, text).await? else { return Ok(None) };
        Ok(self.read(&row.bytes).map(|mut old| {
            old.credential = Some(text.into());
            old.expires_in = row.expires_in;
            old
        }))
    }

    /// Reads the JSON of koa-session, whose fields with an underscore are about the session itself.
    fn read(&self, bytes: &[u8]) -> Option<OldSession<T>> {
        let Some(Value::Object(mut fields)) = json(bytes) else { return None };
        let end = fields.remove("_expire").map(|end| milliseconds(&end));
        fields.remove("_maxAge");
        fields.remove("_session");
        let old = OldSession::not_unique((self.take)(Value::Object(fields))?);
        let Some(end) = end else { return Some(old) };
        // Later than any calendar is no end at all.
        Some(old.expires_at(OffsetDateTime::UNIX_EPOCH.checked_add(end?)?))
    }
}

/// Reads a time in milliseconds, which has a fraction if `maxAge` had one.
fn milliseconds(time: &Value) -> Option<Duration> {
    if let Some(whole) = time.as_u64() {
        return Duration::milliseconds(whole.try_into().ok()?).into();
    }
    std::time::Duration::try_from_secs_f64(time.as_f64()? / 1_000.0).ok()?.try_into().ok()
}
