//! Sessions of express-session.

use async_trait::async_trait;
use base64::alphabet;
use cookie::Cookie;
use http::request::Parts;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    OldSession, OldSessions,
    keygrip::{Hash, Secrets},
    old_cookie::{OldCookie, Take, decode, json, percent_decoded},
    rows::{OldRows, load},
};
use crate::error::StoreError;

/// Sessions of the npm package [express-session](https://www.npmjs.com/package/express-session) in Redis, as
/// [connect-redis](https://www.npmjs.com/package/connect-redis) keeps them, for
/// [`import`](crate::SessionManagerBuilder::import).
///
/// Another store is read if it implements [`OldRows`] and its rows hold JSON.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "redis")]
/// # fn old() -> Result<(), Box<dyn std::error::Error>> {
/// use axum_typed_session::{RedisStore, import::ExpressSessions};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// let redis = RedisStore::connect_lazy("redis://127.0.0.1:6379")?;
/// // The option `secret` of express-session
/// let old = ExpressSessions::new(redis, ["the newest secret", "an older one"], |data| {
///     let user = data["user"].as_str()?.to_owned();
///     Some(Login { user: Some(user) })
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// - The id in the cookie is signed with HMAC-SHA256 (package
///   [cookie-signature](https://www.npmjs.com/package/cookie-signature)). The signature does not cover the name of the
///   cookie, so an id of another cookie with the same secret is accepted, as it is by express-session. An empty secret
///   is ignored here.
/// - connect-redis keeps ids in plain text: who reads the old Redis and knows the secret has every session.
/// - The old row stays. The old application accepts its cookie until the row expires. Delete the rows when the last
///   node of the old application has stopped.
pub struct ExpressSessions<T> {
    rows: Box<dyn OldRows>,
    secrets: Secrets,
    cookie: OldCookie,
    prefix: String,
    take: Take<T>,
}

impl<T> ExpressSessions<T> {
    /// Reads the cookie `connect.sid`, signed with one of these secrets, and the row `sess:` of its id. `take` gets the
    /// data of the session without its `cookie`, and returns what this application keeps of it; `None` imports nothing.
    pub fn new(
        rows: impl OldRows,
        secrets: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            rows: Box::new(rows),
            secrets: Secrets::new(secrets),
            cookie: OldCookie::named("connect.sid"),
            prefix: "sess:".to_owned(),
            take: Box::new(take),
        }
    }

    /// Sets the cookie: the option `name` of express-session, with its Path and Domain. Default: `connect.sid` with the
    /// Path `/`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::Cookie, import::{ExpressSessions, OldRows}};
    ///
    /// fn old(rows: impl OldRows) -> ExpressSessions<u64> {
    ///     ExpressSessions::new(rows, ["the secret"], |data| data["count"].as_u64())
    ///         .cookie(Cookie::build("shop.sid").domain("example.com"))
    ///         .prefix("shop:")
    /// }
    /// ```
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<Cookie<'static>>) -> Self {
        self.cookie = OldCookie(cookie.into());
        self
    }

    /// Sets the option `prefix` of connect-redis. Default: `sess:`. The example of [`cookie`](Self::cookie) uses it.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Returns the id in the cookie, if one of the secrets signed it.
    fn id(&self, request: &Parts) -> Option<String> {
        self.cookie.values(&request.headers).find_map(|value| {
            let value = percent_decoded(value)?;
            let (id, signature) = value.strip_prefix("s:")?.rsplit_once('.')?;
            let signature = decode(&alphabet::STANDARD, signature)?;
            let is_signed = self.secrets.verify(Hash::Sha256, id.as_bytes(), &signature);
            (is_signed && !id.is_empty()).then(|| id.to_owned())
        })
    }
}

impl<T> std::fmt::Debug for ExpressSessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExpressSessions").finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for ExpressSessions<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![self.cookie.0.clone()]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        let Some(id) = self.id(request) else { return Ok(None) };
        let Some(row) = load(&*self.rows, &format!("{}{id}", self.prefix)).await? else {
            return Ok(None);
        };
        let Some(Value::Object(mut fields)) = json(&row.bytes) else { return Ok(None) };
        let cookie = fields.remove("cookie");
        let Some(data) = (self.take)(Value::Object(fields)) else { return Ok(None) };
        let mut old = OldSession::new(data, id);
        old.expires_in = row.expires_in;
        // A touch moves the end of the row alone, so the date in it counts only where the row has no end.
        if row.expires_in.is_none()
            && let Some(date) = cookie.as_ref().and_then(|cookie| cookie.get("expires")?.as_str())
        {
            let Ok(at) = OffsetDateTime::parse(date, &Rfc3339) else { return Ok(None) };
            old.expires_at = Some(at);
        }
        Ok(Some(old))
    }
}
