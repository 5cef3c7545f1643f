//! Sessions of tower-sessions.

use std::collections::HashMap;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::{Cookie, Key};
use http::request::Parts;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    OldSession, OldSessions,
    jar::open,
    old_cookie::{MOST_LEVELS, OldCookie, Take, is_shallow, percent_decoded},
    rows::{OldRows, load},
};
use crate::error::StoreError;

/// Sessions of the crate [tower-sessions](https://crates.io/crates/tower-sessions) in its Redis, SQLite or PostgreSQL
/// store, for [`import`](crate::SessionManagerBuilder::import).
///
/// `rows` is a [`RedisStore`](crate::RedisStore) that is connected to the old Redis, or a
/// [`TowerTable`](super::TowerTable). The versions 0.13 to 0.15 of tower-sessions write the same rows.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "redis")]
/// # fn old() -> Result<(), Box<dyn std::error::Error>> {
/// use axum_typed_session::{RedisStore, import::TowerSessions};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u64 }
///
/// let redis = RedisStore::connect_lazy("redis://127.0.0.1:6379")?;
/// let old = TowerSessions::new(redis, |data| {
///     Some(Visits { count: data["count"].as_u64()? }) // what `session.insert("count", ..)` kept
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// - By default the id in the cookie is not signed. It is 128 random bits, which nobody guesses. Each request with
///   another id costs a query.
/// - The old store has the ids in plain text, so who reads it has every session. The old row stays, and the old
///   application accepts its cookie until the row expires. Delete the rows when the last node of the old application
///   has stopped.
pub struct TowerSessions<T> {
    rows: Box<dyn OldRows>,
    cookie: OldCookie,
    /// The key of the cookie, with `true` if it is encrypted.
    key: Option<(Key, bool)>,
    take: Take<T>,
}

impl<T> TowerSessions<T> {
    /// Reads the cookie `id` and the row of its id. `take` gets the data of the session as one JSON object, and returns
    /// what this application keeps of it; `None` imports nothing.
    pub fn new(
        rows: impl OldRows,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (rows, cookie) = (Box::new(rows), OldCookie::named("id"));
        Self { rows, cookie, key: None, take: Box::new(take) }
    }

    /// Sets the cookie, as `with_name`, `with_path` and `with_domain` of tower-sessions set it. Default: `id` with the
    /// Path `/`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::{Cookie, Key}, import::{OldRows, TowerSessions}};
    ///
    /// fn old(rows: impl OldRows, key: Key) -> TowerSessions<u64> {
    ///     TowerSessions::new(rows, |data| data["count"].as_u64())
    ///         .cookie(Cookie::build("shop.id").path("/shop"))
    ///         .private(key)
    /// }
    /// ```
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<Cookie<'static>>) -> Self {
        self.cookie = OldCookie(cookie.into());
        self
    }

    /// Accepts only cookies that `with_signed` of tower-sessions signed with this key. Default: the cookie is not
    /// signed. [`cookie`](Self::cookie) has an example of the other kind.
    #[must_use]
    pub fn signed(mut self, key: Key) -> Self {
        self.key = Some((key, false));
        self
    }

    /// Accepts only cookies that `with_private` of tower-sessions encrypted with this key. Default: the cookie is not
    /// encrypted. The example of [`cookie`](Self::cookie) uses it.
    #[must_use]
    pub fn private(mut self, key: Key) -> Self {
        self.key = Some((key, true));
        self
    }

    /// Returns the bytes of the id in the cookie.
    fn id(&self, request: &Parts) -> Option<[u8; 16]> {
        self.cookie.values(&request.headers).find_map(|value| {
            let value = percent_decoded(value)?;
            let text = match &self.key {
                Some((key, is_private)) => open(key, *is_private, self.cookie.with(&value))?,
                None => value.into_owned(),
            };
            URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
        })
    }
}

impl<T> std::fmt::Debug for TowerSessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TowerSessions").finish_non_exhaustive()
    }
}

/// The row of tower-sessions in `MessagePack`: the id, the data and the end.
#[derive(Deserialize)]
struct Row(IgnoredAny, HashMap<String, Value>, OffsetDateTime);

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for TowerSessions<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![self.cookie.0.clone()]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        let Some(id) = self.id(request) else { return Ok(None) };
        let Some(row) = load(&*self.rows, &URL_SAFE_NO_PAD.encode(id)).await? else {
            return Ok(None);
        };
        let mut row_of = rmp_serde::Deserializer::from_read_ref(&row.bytes);
        // The row and its map are two levels around the data.
        row_of.set_max_depth(MOST_LEVELS + 2);
        let Ok(Row(_, data, expires_at)) = Row::deserialize(&mut row_of) else {
            return Ok(None);
        };
        let data = Value::Object(data.into_iter().collect());
        let data = Some(data).filter(|data| is_shallow(data, MOST_LEVELS));
        let found = data.and_then(|data| (self.take)(data));
        Ok(found.map(|data| {
            let mut old = OldSession::new(data, id).expires_at(expires_at);
            old.expires_in = row.expires_in;
            old
        }))
    }
}
