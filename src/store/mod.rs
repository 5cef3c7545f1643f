//! Stores: where sessions live when they do not live in the cookie, and the words of their authors.

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
pub(crate) use self::record::take;
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

/// What a write expects to find.
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

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum SaveOutcome {
    /// The row now holds the record.
    Saved,
    /// The row holds something else, which this is; nothing was written.
    Conflict(Record),
    /// An update found no row; nothing was written.
    Gone,
}

/// A place for sessions: three methods on one key each, and a few that may be overridden.
///
/// A store sees a [`StoreKey`], never an id, and keeps a [`Record`] as opaque bytes beside its version
/// and expiry. Handlers never call it; the session does.
///
/// # What every store must hold
///
/// - **Expired is absent.** A row whose `expires_at` is not after now is treated as missing by every
///   method, whether or not it was deleted yet. Now is one clock, the store's documented choice.
/// - **A save is atomic.** Comparing what is there and writing is one step that no other save, touch or
///   destroy of the same key can come between: a script on one key in Redis, one
///   `UPDATE .. WHERE version = ..` in SQL.
/// - **Gone stays gone.** [`Write::Update`] never makes a row, nor does `touch`. Only [`Write::Create`]
///   does.
/// - **A repeated write is one write.** If the row already holds the record's own version, the answer is
///   [`SaveOutcome::Saved`] and the row stays as it is: an earlier try arrived and only its answer was
///   lost.
/// - **What comes back is what was saved**, in every field and to the millisecond, from `load` and in a
///   [`SaveOutcome::Conflict`]. Keys, owners and payloads are bytes: no text, no collation, no padding.
/// - **Answers are durable.** What was answered `Saved`, or `Ok` to a destroy, is what the next load sees,
///   on every node.
/// - **A dropped future leaves the row wholly old or wholly new.**
/// - A row that [`Record::from_bytes`] refuses is passed on as its error, and never deleted for it.
///
/// # Writing a store
///
/// The methods are those of the `async-trait` crate, so that a store can be a trait object. A row is the
/// key (32 bytes), the version (16 bytes), `expires_at` in Unix milliseconds, and the rest as
/// [`Record::to_bytes`] gives it; [`Record::from_bytes`] puts them together again. A store that indexes
/// owners keeps [`Record::owner`] (32 bytes or none) beside them. The bytes are not to be read: tombstones
/// are rows like any other, and `load` returns them. What a save finds decides what it does:
///
/// | the row there | [`Write::Create`] | [`Write::Update`] |
/// |---|---|---|
/// | none, or an expired one | write, `Saved` | `Gone` |
/// | at the record's own version | `Saved` | `Saved` |
/// | at `expected` | `Conflict` with the row | write, `Saved` |
/// | at any other version | `Conflict` with the row | `Conflict` with the row |
///
/// A write replaces the whole row, its expiry and owner included, and the new expiry may be the earlier
/// one. With `load`, `save` and `destroy` a store is complete; the other methods have defaults. A store
/// around another one delegates with [`delegate_session_store!`](crate::delegate_session_store). The
/// `testing` feature checks everything on this page, from one line in the store's own tests:
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
    /// [`StoreError::Unavailable`] when the engine fails, which is never answered as `None`;
    /// [`StoreError::Corrupt`] or [`StoreError::Newer`] from [`Record::from_bytes`].
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError>;

    /// Writes `record` under `key` if what is there is what `write` expects.
    ///
    /// With [`Write::Create`], any live row of another version is a [`SaveOutcome::Conflict`]. With
    /// [`Write::Update`], a live row of another version than `expected` is a conflict and no live row is
    /// [`SaveOutcome::Gone`]. A row at the record's own version is [`SaveOutcome::Saved`] with either.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the engine fails; whether the write arrived may be unknown.
    /// [`StoreError::Full`] when a new row would not fit.
    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError>;

    /// Removes the row under `key`; removing none is a success.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] unless it is certain that the row is gone.
    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// Moves the expiry of the row at `version` to `expires_at`, never to an earlier one, and keeps
    /// everything else.
    ///
    /// Answers like [`save`](Self::save) with [`Write::Update`]; a later expiry already there is
    /// [`SaveOutcome::Saved`]. The default loads and saves under a new version, which makes requests under
    /// way merge for nothing; engines that can move an expiry alone do so and keep the version.
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
        // The same version would read as "already saved", so this way of touching needs a new one.
        touched.version = Version::random().map_err(StoreError::unavailable)?;
        self.save(key, &touched, Write::Update { expected: version }).await
    }

    /// Removes the row if it is at `version`, so that a logout cannot take a tombstone for the session.
    ///
    /// Answers [`SaveOutcome::Saved`] once the row is removed, and otherwise like
    /// [`save`](Self::save) with [`Write::Update`]. The default loads and destroys, between which another
    /// write can come; engines that can compare and remove in one step do so.
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

    /// Deletes at most `limit` expired rows and returns how many; 0 for engines that expire by themselves.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the engine fails.
    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let _ = limit;
        Ok(0)
    }

    /// Says whether the store finds sessions by owner.
    fn indexes_owners(&self) -> bool {
        false
    }

    /// Returns the keys of the owner's live rows, each once and in any order.
    ///
    /// An update that changes the owner moves the row; a tombstone has none. A row is listed from the
    /// moment its save is answered until its destroy is, also where one of them was dropped halfway.
    ///
    /// A session that was acknowledged before the call and gets a new id meanwhile is found under one of
    /// them: its new row is created first, then the old one becomes a tombstone. A store that reads an
    /// index and then the rows reads the index again when it meets a tombstone it did not know.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] unless [`indexes_owners`](Self::indexes_owners).
    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let _ = owner;
        Err(StoreError::Unsupported { operation: "find_by_owner" })
    }

    /// Removes every row of the owner that was saved before the call, except `keep`, and returns how many
    /// live ones that were.
    ///
    /// A session that gets a new id meanwhile is removed under whichever it has, or its second row finds
    /// the first one gone. The default lists and destroys until the list is empty.
    ///
    /// # Errors
    ///
    /// As [`find_by_owner`](Self::find_by_owner) and [`destroy`](Self::destroy); rows removed before an
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

/// Draws a duration up to `longest`, so that nodes which fail or start together do not stay together.
fn random_part(longest: Duration) -> Duration {
    // Without a random source there is no spread, and no harm.
    let share = random().map_or(u16::MAX, u16::from_be_bytes);
    longest / u32::from(u16::MAX) * u32::from(share)
}
