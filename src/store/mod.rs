//! Stores, which hold sessions on the server, and the types for writing a store of your own.
//!
//! [`stores`](crate::guide::stores) compares the stores that this crate brings. The example `custom_store` writes
//! one.
//!
//! This module re-exports the crates `redis` and `sqlx`. A connection or a pool that the application makes
//! itself must come from the same version of the crate as the store. Name its types through this module, such as
//! `axum_typed_session::store::sqlx::PgPool`, and the versions always agree.

mod cleanup;
#[cfg(any(
    feature = "memcached",
    feature = "redis",
    feature = "sqlite",
    feature = "postgres",
    feature = "mysql"
))]
mod connect_error;
mod delegate;
#[cfg(feature = "memcached")]
mod memcached_store;
mod memory;
mod page;
mod record;
#[cfg(feature = "redis")]
mod redis_store;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod row;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub(crate) use self::delegate::delegate_session_store;
#[cfg(feature = "memcached")]
pub use self::memcached_store::{MemcachedConnectError, MemcachedStore};
pub(crate) use self::record::{TIME_BYTES, put_time, take, take_time};
#[cfg(feature = "redis")]
pub use self::redis_store::{RedisConnectError, RedisStore, RedisStoreBuilder};
#[cfg(feature = "mysql")]
pub use self::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use self::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use self::sql::sqlite::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::sql::{SqlStore, connect::SqlConnectError, engine::SqlEngine};
pub use self::{
    cleanup::{Cleanup, CleanupTask},
    memory::{MemoryStore, MemoryStoreBuilder},
    page::{Cursor, KeyPage},
    record::{Record, Version},
};
use crate::id::random;
pub use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, ParseStoreKeyError, StoreKey},
};
/// The Redis driver of [`RedisStore`]. A connection that the application makes itself must come
/// from this version of the crate.
#[cfg(feature = "redis")]
pub use redis;
/// The SQL drivers of [`SqlStore`]. The pool of the application must come from this version of the crate.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use sqlx;

/// The state of the stored session that a write expects, for [`SessionStore::save`].
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// No session is stored under the key.
    Create,
    /// A session is stored under the key, in the version of `loaded`.
    Update {
        /// The record as it was loaded, with its owner and its ends. The version alone decides. An engine that compares the whole row instead
        /// must also accept a row that [`touch`](SessionStore::touch) gave a later expiry.
        loaded: &'a Record,
    },
}

impl Write<'_> {
    /// Returns the version that the row must have. Returns `None` if there must be no row.
    pub fn expected(&self) -> Option<Version> {
        match self {
            Self::Create => None,
            Self::Update { loaded } => Some(loaded.version),
        }
    }
}

/// The result of a write, from [`SessionStore::save`], [`touch`](SessionStore::touch) and
/// [`destroy_at`](SessionStore::destroy_at).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the result may be `Conflict` or `Gone`, and then nothing was written"]
pub enum SaveOutcome {
    /// The write took effect.
    Saved,
    /// Another record is stored under the key. Nothing was written. The value is that record, in a box, since it is
    /// large and this outcome is rare.
    Conflict(Box<Record>),
    /// No session is stored under the key. Nothing was written.
    Gone,
}

impl SaveOutcome {
    /// Returns the record that stood in the way of the write, if one did.
    pub(crate) fn conflicting(self) -> Option<Record> {
        if let Self::Conflict(record) = self { Some(*record) } else { None }
    }
}

/// A store of sessions on the server.
///
/// Three methods are required: [`load`](Self::load), [`save`](Self::save) and [`destroy`](Self::destroy). All other
/// methods have defaults. Handlers never call a store; [`Session`](crate::Session) does.
///
/// A store keeps one *row* for each session, under a [`StoreKey`]. The key is a hash of the session's id, so the
/// store never sees the id. The row is a [`Record`]: bytes that the store does not read, a version and an expiry.
///
/// # Rules for every store
///
/// - **An expired row counts as absent.** Every method treats a row as missing from the moment of its `expires_at`,
///   even if the row is not deleted yet. One clock tells the time, and the documentation of the store says which
///   clock.
/// - **A save is atomic.** It compares the row and writes it in one step. No other save, touch or destroy of the
///   same key comes between.
/// - **A row that is gone stays gone.** Only [`Write::Create`] makes a row. [`Write::Update`] and
///   [`touch`](Self::touch) never make one.
/// - **A repeated write is one write.** If the row already has the version of the record, the answer is
///   [`SaveOutcome::Saved`] and the row stays as it is: an earlier try took effect, and only its answer was lost.
/// - **A record comes back as it was saved**, in every field and to the millisecond, from [`load`](Self::load) and
///   in a [`SaveOutcome::Conflict`]. Keys, owners and payloads are bytes, so no text conversion, collation or
///   padding may change them.
/// - **An answer is final.** After `Saved`, or after the `Ok` of a destroy, the next load on every node sees the
///   result.
/// - **Cancellation.** A caller may drop the future of any method at any point. The row is then either wholly old
///   or wholly new.
/// - **An unreadable row stays.** The store returns the error of [`Record::from_bytes`] and keeps the row.
/// - **No panic.** A store returns a [`StoreError`] instead.
///
/// # Writing a store
///
/// The methods are async by the `async-trait` crate, so that a store can be a trait object. A row is made of:
///
/// | part | size | from |
/// |---|---|---|
/// | key | 32 bytes | [`StoreKey::as_bytes`] |
/// | version | 16 bytes | [`Record::version`] |
/// | expiry | Unix milliseconds | [`Record::expires_at`] |
/// | record | any length | [`Record::to_bytes`]; [`Record::from_bytes`] reads it |
/// | owner, if the store indexes owners | 32 bytes or none | [`Record::owner`] |
///
/// The result of a save depends on the row that it finds:
///
/// | row under the key | [`Write::Create`] | [`Write::Update`] |
/// |---|---|---|
/// | none, or an expired row | write, `Saved` | `Gone` |
/// | at the version of the record | `Saved` | `Saved` |
/// | at the version of `loaded` | `Conflict` with that row | write, `Saved` |
/// | at any other version | `Conflict` with that row | `Conflict` with that row |
///
/// A write replaces the whole row, including expiry and owner. The new expiry may be earlier than the old expiry. A
/// *tombstone* is a row without data that marks an id which was replaced or ended. A store treats it like any other
/// row.
///
/// A store that wraps another store uses [`delegate_session_store!`](crate::delegate_session_store). The `testing`
/// feature checks every rule on this page with one line in the tests of the store:
///
/// ```
/// mod tests {
///     use axum_typed_session::{MemoryStore, session_store_conformance};
///
///     session_store_conformance!(my_store, MemoryStore::new());
/// }
/// ```
#[doc(alias("backend", "Session store", "ExternalStore", "SessionBackend"))]
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Returns the row under `key`, also if it is a tombstone. Returns `None` if there is no row, or if it has
    /// expired.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unavailable`] if the engine fails. `None` would be wrong then, because it means that the
    ///   session ended.
    /// - [`StoreError::Corrupt`] or [`StoreError::Newer`] from [`Record::from_bytes`].
    /// - [`StoreError::Expired`], instead of `None`, if the row has expired and is still there. The event of the
    ///   session is then [`Expired`](crate::SessionEventKind::Expired) and not
    ///   [`Missed`](crate::SessionEventKind::Missed); everything else is as for `None`.
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError>;

    /// Writes `record` under `key` if the row is as `write` expects.
    ///
    /// The table on the page of this trait lists the results.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unavailable`] if the engine fails. It may be unknown whether the write took effect.
    /// - [`StoreError::Full`] if the store has no room for the row.
    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError>;

    /// Removes the row under `key`. If there is no row, the result is `Ok` too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it is not certain that the row is gone.
    #[doc(alias("delete", "remove"))]
    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// Moves the expiry of the row at `version` to `expires_at`, and keeps everything else.
    ///
    /// It never moves the expiry to an earlier time: if the row already ends later, the result is
    /// [`SaveOutcome::Saved`]. Otherwise the result is as for [`save`](Self::save) with [`Write::Update`].
    ///
    /// The default loads the row and saves it under a new version, so that concurrent requests have to merge. An
    /// engine that can move the expiry alone should do so and keep the version.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`save`](Self::save).
    #[doc(alias("extend", "renew"))]
    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let Some(record) = none_if_expired(self.load(key).await)? else {
            return Ok(SaveOutcome::Gone);
        };
        if record.version() != version {
            return Ok(SaveOutcome::Conflict(record.into()));
        }
        if record.expires_at() >= expires_at {
            return Ok(SaveOutcome::Saved);
        }
        let mut touched = record.clone().with_expires_at(expires_at);
        // With the same version the save would answer "already saved", so the record needs a new one.
        touched.version = Version::unique();
        self.save(key, &touched, Write::Update { loaded: &record }).await
    }

    /// Removes the row under `key` if it is at `version`.
    ///
    /// Signing out uses it, so that it never removes a tombstone that another request wrote. The result is
    /// [`SaveOutcome::Saved`] when the row is removed. Otherwise it is as for [`save`](Self::save) with
    /// [`Write::Update`].
    ///
    /// The default calls [`load`](Self::load) and then [`destroy`](Self::destroy), so another write can come
    /// between. An engine that can compare and remove in one step should do so.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`destroy`](Self::destroy).
    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        match none_if_expired(self.load(key).await)? {
            None => Ok(SaveOutcome::Gone),
            Some(record) if record.version() != version => Ok(SaveOutcome::Conflict(record.into())),
            Some(_) => {
                self.destroy(key).await?;
                Ok(SaveOutcome::Saved)
            }
        }
    }

    /// Deletes at most `limit` expired rows and returns how many it deleted.
    ///
    /// [`Cleanup`] calls it from time to time. The default deletes nothing and returns 0, for engines that delete
    /// expired rows by themselves.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the engine fails.
    #[doc(alias("cleanup", "purge", "ExpiredDeletion"))]
    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let _ = limit;
        Ok(0)
    }

    /// Deletes at most `limit` expired rows and returns them, tombstones too. Default: unsupported.
    ///
    /// A row that [`Record::from_bytes`] cannot read is deleted and left out. The result is empty only if no expired row
    /// is left.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, rows may be deleted that nobody gets.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unsupported`] if [`returns_expired`](Self::returns_expired) is `false`, which is the default.
    /// - [`StoreError::Unavailable`] if the engine fails.
    async fn take_expired(&self, limit: u32) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let _ = limit;
        Err(StoreError::Unsupported { operation: "take_expired" })
    }

    /// Returns `true` if [`take_expired`](Self::take_expired) is supported. Default: `false`.
    fn returns_expired(&self) -> bool {
        false
    }

    /// Returns the keys of live rows in pages of about `limit` keys. Default: unsupported.
    ///
    /// `after` is the [`next`](KeyPage::next) of the page before; `None` begins with the first page. The engine
    /// chooses the order.
    ///
    /// - A row that is stored from the first page to the last page is listed at least once, while other rows come
    ///   and go. An engine may list a row twice.
    /// - A page may have fewer keys than `limit`, even none, and still have a next page.
    /// - The memory that a page needs depends on `limit`, not on the number of rows.
    /// - Tombstones may be listed.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unsupported`] if [`lists_sessions`](Self::lists_sessions) is `false`, which is the default.
    /// - [`StoreError::Unavailable`] if the engine fails.
    #[doc(alias("scan", "iterate", "all", "keys"))]
    async fn list(&self, after: Option<&Cursor>, limit: u32) -> Result<KeyPage, StoreError> {
        let _ = (after, limit);
        Err(StoreError::Unsupported { operation: "list" })
    }

    /// Returns `true` if [`list`](Self::list) is supported. Default: `false`.
    fn lists_sessions(&self) -> bool {
        false
    }

    /// Returns `true` if the store can find sessions by their owner. Default: `false`.
    ///
    /// [`SessionManager::sessions_of`](crate::SessionManager::sessions_of) needs it.
    fn indexes_owners(&self) -> bool {
        false
    }

    /// Returns `true` if rows survive a restart of this process. Default: `true`.
    ///
    /// A cache returns `false`, because it may delete rows that have not expired.
    fn survives_restart(&self) -> bool {
        true
    }

    /// Returns the keys of all live rows of the owner, each key once and in any order.
    ///
    /// - A row is listed from the answer to its save until the answer to its destroy, even if the future of either
    ///   was dropped.
    /// - An update that changes the owner moves the row to the new owner. A tombstone has no owner.
    /// - A session may get a new id during the call. Its new row is created first, and then its old row becomes a
    ///   tombstone. The call must list the session under one of the two keys if the session was saved before the
    ///   call. A store that reads an index and then the rows therefore reads the index again when it meets a new
    ///   tombstone.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unsupported`] if [`indexes_owners`](Self::indexes_owners) is `false`, which is the default.
    /// - [`StoreError::Unavailable`] if the engine fails.
    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let _ = owner;
        Err(StoreError::Unsupported { operation: "find_by_owner" })
    }

    /// Removes every row of the owner that was saved before the call, except the row under `keep`. Returns how many
    /// live rows it removed.
    ///
    /// If a session gets a new id during the call, either its new row is removed, or its old row is removed before
    /// it can become a tombstone. The default lists the rows and destroys them until the list is empty, in at most
    /// 64 rounds.
    ///
    /// # Errors
    ///
    /// As [`find_by_owner`](Self::find_by_owner) and [`destroy`](Self::destroy). Rows that were removed before the
    /// error stay removed.
    async fn destroy_by_owner(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let mut destroyed = 0;
        for _ in 0..64 {
            let mut keys = self.find_by_owner(owner).await?;
            keys.retain(|key| Some(key) != keep);
            if keys.is_empty() {
                return Ok(destroyed);
            }
            for key in &keys {
                self.destroy(key).await?;
                destroyed += 1;
            }
        }
        let problem = "the owner index still lists sessions after 64 rounds of destroying them";
        Err(StoreError::unavailable(problem))
    }
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    delegate_session_store!(all => |self| &**self);
}

/// Treats a row that has expired as absent.
pub(crate) fn none_if_expired(
    loaded: Result<Option<Record>, StoreError>,
) -> Result<Option<Record>, StoreError> {
    match loaded {
        Err(StoreError::Expired) => Ok(None),
        other => other,
    }
}

/// How much longer an entry of a revocation list lives than the last token of its session, at least. The mark of a
/// replaced id in a store lives for a shorter time, unless the store may take minutes to answer.
pub(crate) const REVOCATIONS_OUTLIVE: Duration = Duration::from_secs(10 * 60);

/// Draws a random duration up to `longest`, so that nodes do not act at the same moment after a common start or
/// failure.
fn random_part(longest: Duration) -> Duration {
    // Without a random source every node waits for the longest time, which does no harm.
    let share = random().map_or(u16::MAX, u16::from_be_bytes);
    longest / u32::from(u16::MAX) * u32::from(share)
}
