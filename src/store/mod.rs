//! Stores, which hold sessions on the server, and the types that authors of stores need.

mod cleanup;
mod delegate;
mod memory;
mod record;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub(crate) use self::delegate::delegate_session_store;
pub(crate) use self::record::{take, take_timestamp};
#[cfg(feature = "redis")]
pub use self::redis::{RedisConnectError, RedisStore};
#[cfg(feature = "mysql")]
pub use self::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use self::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use self::sql::sqlite::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::sql::{SqlStore, engine::SqlEngine};
pub use self::{
    cleanup::{Cleanup, CleanupTask},
    memory::{MemoryStore, MemoryStoreBuilder},
    record::{Record, Version},
};
use crate::id::random;
pub use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, ParseStoreKeyError, StoreKey},
};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use sqlx;

/// The row that a write expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// No row under this key.
    Create,
    /// A row at exactly this version.
    Update {
        /// The version that was loaded.
        expected: Version,
    },
}

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum SaveOutcome {
    /// The row now holds the record.
    Saved,
    /// The row holds another record, which is here. Nothing was written.
    Conflict(Record),
    /// An update found no row. Nothing was written.
    Gone,
}

/// A store of sessions. Three methods are required and work on one key each; the others have defaults.
///
/// A store sees a [`StoreKey`], never an id. It keeps a [`Record`] as opaque bytes beside its version and expiry.
/// Handlers never call it; the session does.
///
/// # Rules for every store
///
/// - **Expired is absent.** Every method treats a row as missing once its `expires_at` is not after the current
///   time, even if it is not deleted yet. One clock tells the time; the docs of the store say which.
/// - **A save is atomic.** It compares the row and writes in one step. No other save, touch or destroy of the same
///   key comes between: it is a script on one key in Redis, and one `UPDATE .. WHERE version = ..` in SQL.
/// - **Gone stays gone.** Only [`Write::Create`] makes a row. [`Write::Update`] and `touch` never do.
/// - **A repeated write is one write.** If the row already holds the record's own version, the answer is
///   [`SaveOutcome::Saved`] and the row stays as it is. An earlier try arrived, and only its answer was lost.
/// - **A record comes back as it was saved**, in every field and to the millisecond, from `load` and in a
///   [`SaveOutcome::Conflict`]. Keys, owners and payloads are bytes: no text, no collation, no padding.
/// - **Answers are durable.** After the answer `Saved`, or `Ok` to a destroy, the next load on every node sees the
///   result.
/// - **A dropped future leaves the row wholly old or wholly new.**
/// - **An unreadable row stays.** The store passes the error of [`Record::from_bytes`] on and keeps the row.
///
/// # Writing a store
///
/// The async methods come from the `async-trait` crate, so that a store can be a trait object. A row is the key
/// (32 bytes), the version (16 bytes), `expires_at` in Unix milliseconds, and the bytes of [`Record::to_bytes`].
/// [`Record::from_bytes`] makes a record of them again. A store that indexes owners keeps [`Record::owner`]
/// (32 bytes or none) beside them. A store never reads the bytes: a tombstone, which marks an id that was replaced
/// or ended, is a row like any other, and `load` returns it. The answer of a save depends on the row it finds:
///
/// | the row there | [`Write::Create`] | [`Write::Update`] |
/// |---|---|---|
/// | none, or an expired one | write, `Saved` | `Gone` |
/// | at the record's own version | `Saved` | `Saved` |
/// | at `expected` | `Conflict` with the row | write, `Saved` |
/// | at any other version | `Conflict` with the row | `Conflict` with the row |
///
/// A write replaces the whole row, expiry and owner included. The new expiry may be earlier than the old one. A
/// store with `load`, `save` and `destroy` is complete. A store around another store uses
/// [`delegate_session_store!`](crate::delegate_session_store). The `testing` feature checks every rule on this page
/// with one line in the store's tests:
///
/// ```
/// # #[cfg(feature = "testing")]
/// mod tests {
///     use axum_typed_session::{MemoryStore, session_store_conformance};
///
///     session_store_conformance!(my_store, MemoryStore::new());
/// }
/// ```
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Returns the live row under `key`, a tombstone included.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unavailable`] if the engine fails. It must not answer `None` then.
    /// - [`StoreError::Corrupt`] or [`StoreError::Newer`] from [`Record::from_bytes`].
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError>;

    /// Writes `record` under `key` if the row is as `write` expects.
    ///
    /// With [`Write::Create`], any live row of another version is a [`SaveOutcome::Conflict`]. With
    /// [`Write::Update`], a live row of another version than `expected` is a conflict, and no live row is
    /// [`SaveOutcome::Gone`]. With both, a row at the record's own version is [`SaveOutcome::Saved`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unavailable`] if the engine fails. Whether the write arrived may be unknown.
    /// - [`StoreError::Full`] if a new row does not fit.
    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError>;

    /// Removes the row under `key`. If there is no row, this is a success.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] unless it is certain that the row is gone.
    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// Moves the expiry of the row at `version` to `expires_at`, never to an earlier time, and keeps everything
    /// else.
    ///
    /// Answers like [`save`](Self::save) with [`Write::Update`]. If the expiry is already later, the answer is
    /// [`SaveOutcome::Saved`]. The default loads and saves under a new version, so that concurrent requests have to
    /// merge. An engine that can move only the expiry should do so and keep the version.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let Some(record) = self.load(key).await? else {
            return Ok(SaveOutcome::Gone);
        };
        if record.version() != version {
            return Ok(SaveOutcome::Conflict(record));
        }
        if record.expires_at() >= expires_at {
            return Ok(SaveOutcome::Saved);
        }
        let mut touched = record.with_expires_at(expires_at);
        // With the same version the save would answer "already saved", so the record needs a new one.
        touched.version = Version::random().map_err(StoreError::unavailable)?;
        self.save(key, &touched, Write::Update { expected: version }).await
    }

    /// Removes the row if it is at `version`. A logout uses it, so that it does not remove a tombstone in place of
    /// the session.
    ///
    /// Answers [`SaveOutcome::Saved`] once the row is removed, and otherwise like [`save`](Self::save) with
    /// [`Write::Update`]. The default loads and then destroys; another write can come between. An engine that can
    /// compare and remove in one step should do so.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`destroy`](Self::destroy).
    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        match self.load(key).await? {
            None => Ok(SaveOutcome::Gone),
            Some(record) if record.version() != version => Ok(SaveOutcome::Conflict(record)),
            Some(_) => {
                self.destroy(key).await?;
                Ok(SaveOutcome::Saved)
            }
        }
    }

    /// Deletes at most `limit` expired rows and returns how many it deleted. Default: 0, for engines that delete
    /// expired rows by themselves.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the engine fails.
    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let _ = limit;
        Ok(0)
    }

    /// Returns `true` if the store finds sessions by owner. Default: `false`.
    fn indexes_owners(&self) -> bool {
        false
    }

    /// Returns `true` if rows survive a restart of this process. Default: `true`.
    fn survives_restart(&self) -> bool {
        true
    }

    /// Returns the keys of the owner's live rows, each once and in any order.
    ///
    /// An update that changes the owner moves the row to that owner. A tombstone has no owner. A row is listed from
    /// the answer to its save until the answer to its destroy, even if the future of either was dropped.
    ///
    /// A session may get a new id during the call: its new row is created first, then the old row becomes a
    /// tombstone. The call must find it under one of the two ids if it was saved before the call. A store that reads
    /// an index and then the rows therefore reads the index again when it meets a tombstone for the first time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] unless [`indexes_owners`](Self::indexes_owners).
    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let _ = owner;
        Err(StoreError::Unsupported { operation: "find_by_owner" })
    }

    /// Removes every row of the owner that was saved before the call, except `keep`, and returns how many live rows
    /// it removed.
    ///
    /// If a session gets a new id during the call, either the new row is removed, or the old row is removed before
    /// it can become a tombstone. The default lists and destroys until the list is empty.
    ///
    /// # Errors
    ///
    /// As [`find_by_owner`](Self::find_by_owner) and [`destroy`](Self::destroy). Rows that were removed before an
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

/// Draws a random duration up to `longest`, so that nodes that start or fail at once do not go on in step.
fn random_part(longest: Duration) -> Duration {
    // Without a random source every node waits for the longest time, which does no harm.
    let share = random().map_or(u16::MAX, u16::from_be_bytes);
    longest / u32::from(u16::MAX) * u32::from(share)
}
