//! The operations of a store on its rows.

use async_trait::async_trait;

use super::{
    REPEATS, SqlStore,
    engine::{SqlEngine, Value},
    errors::{StillComing, Unsettled},
    statements::Statement,
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Cursor, KeyPage, Record, SaveOutcome, SessionStore, Version, Write, none_if_expired},
};

/// How many sessions of an owner one statement ends. A time-out then keeps the result of earlier statements, and
/// other writers of SQLite get a turn. Smaller batches take longer in total, because each statement begins with the
/// index entries that earlier statements left dead.
const OWNER_BATCH: u32 = 50_000;

/// How often the sessions of an owner are ended again because new sessions came in the meantime.
const OWNER_ROUNDS: u32 = 64;

impl<E: SqlEngine> SqlStore<E> {
    /// Returns the time with which a statement compares `expires_at`; nothing if the database shall use its own
    /// clock.
    fn now(&self) -> Value<'static> {
        match &self.clock {
            Some(clock) => millis(clock.now().into()),
            None => Value::Integer(None),
        }
    }

    /// Deletes a row that `take_expired` only found. Returns `false` if another node has deleted or replaced it.
    async fn delete_found(&self, row: &E::Row) -> Result<bool, StoreError> {
        let Some(delete) = &self.statements.delete_found else {
            return Ok(true);
        };
        let (key, version) = (E::bytes(row, "session_key")?, E::bytes(row, "version")?);
        let deleted = self.execute(delete, &[bytes(&key), bytes(&version), self.now()]).await?;
        Ok(deleted > 0)
    }

    /// Runs conditional statements until one takes effect. If none does, the row tells why.
    ///
    /// The row may appear or disappear between a statement and the `SELECT` after it. Then the statements run
    /// again.
    async fn write(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        own: Option<Version>,
        attempts: &[Statement],
        values: &[Value<'_>],
    ) -> Result<SaveOutcome, StoreError> {
        for _ in 0..=REPEATS {
            for attempt in attempts {
                if self.execute(attempt, values).await? > 0 {
                    return Ok(SaveOutcome::Saved);
                }
            }
            match (none_if_expired(self.load(key).await)?, expected) {
                (Some(row), _) if Some(row.version()) == own => return Ok(SaveOutcome::Saved),
                (Some(row), expected) if Some(row.version()) == expected => {}
                (Some(row), _) => return Ok(SaveOutcome::Conflict(row.into())),
                (None, Some(_)) => return Ok(SaveOutcome::Gone),
                (None, None) => {}
            }
        }
        Err(StoreError::unavailable(Unsettled))
    }
}

#[async_trait]
impl<E: SqlEngine> SessionStore for SqlStore<E> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let values = [self.now(), bytes(key.as_bytes())];
        let rows = self.rows(&self.statements.load, &values).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        if E::integer(row, "expires_at")? <= E::integer(row, "now_millis")? {
            return Err(StoreError::Expired);
        }
        record::<E>(row).map(Some)
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let version = record.version();
        // A tombstone belongs to no owner.
        let owner = record.owner().filter(|_| !record.is_tombstone());
        let data = record.to_bytes();
        let mut values = vec![
            bytes(version.as_bytes()),
            millis(record.expires_at()),
            Value::Bytes(owner.as_ref().map(|owner| owner.as_bytes().as_slice())),
            bytes(&data),
            bytes(key.as_bytes()),
        ];
        let expected = write.expected();
        values.extend(expected.as_ref().map(|expected| bytes(expected.as_bytes())));
        let attempts = match expected {
            None => &self.statements.create,
            Some(_) => &self.statements.update,
        };
        values.push(self.now());
        self.write(key, expected, Some(version), attempts, &values).await
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        let values = [bytes(key.as_bytes())];
        let destroy = self.execute(&self.statements.destroy, &values);
        destroy.await.map(drop)
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let values =
            [millis(expires_at), bytes(key.as_bytes()), bytes(version.as_bytes()), self.now()];
        self.write(key, Some(version), None, &self.statements.touch, &values).await
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let values = [bytes(key.as_bytes()), bytes(version.as_bytes()), self.now()];
        self.write(key, Some(version), None, &self.statements.destroy_at, &values).await
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let values = [self.now(), Value::Integer(Some(limit.into()))];
        self.execute(&self.statements.delete_expired, &values).await
    }

    async fn take_expired(&self, limit: u32) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        let values = [self.now(), Value::Integer(Some(limit.into()))];
        loop {
            let rows = self.rows(&self.statements.take_expired, &values).await?;
            let mut taken = Vec::with_capacity(rows.len());
            for row in &rows {
                match self.delete_found(row).await {
                    Ok(true) => taken.extend(key_and_record::<E>(row)),
                    Ok(false) => {}
                    // The rows before are deleted, so nobody else will return them.
                    Err(_) if !taken.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            // Rows that cannot be read, or that another node deleted, say nothing of the next rows.
            if rows.is_empty() || !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn returns_expired(&self) -> bool {
        true
    }

    async fn list(&self, after: Option<&Cursor>, limit: u32) -> Result<KeyPage, StoreError> {
        // No key is so short, so all keys come after it. MariaDB can be told to read an empty value as NULL.
        let after = after.map_or(&[0][..], Cursor::as_bytes);
        let limit = limit.max(1);
        let values = [bytes(after), self.now(), Value::Integer(Some(limit.into()))];
        let rows = self.rows(&self.statements.list, &values).await?;
        let keys = rows.iter().map(key::<E>).collect::<Result<Vec<_>, _>>()?;
        let is_full = usize::try_from(limit).is_ok_and(|limit| keys.len() >= limit);
        let last = keys.last().filter(|_| is_full);
        let next = last.map(|key| Cursor::new(*key.as_bytes()));
        Ok(KeyPage { keys, next })
    }

    fn lists_sessions(&self) -> bool {
        true
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let values = [bytes(owner.as_bytes()), self.now()];
        let rows = self.rows(&self.statements.find_by_owner, &values).await?;
        rows.iter().map(key::<E>).collect()
    }

    async fn destroy_by_owner(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        // No key is so short, so it keeps no row.
        let keep = keep.map_or(&[0][..], |key| key.as_bytes());
        let values = [
            bytes(owner.as_bytes()),
            bytes(keep),
            self.now(),
            Value::Integer(Some(OWNER_BATCH.into())),
            bytes(owner.as_bytes()),
        ];
        let mut destroyed = 0;
        for _ in 0..OWNER_ROUNDS {
            loop {
                let destroy = self.execute(&self.statements.destroy_by_owner, &values);
                let count = destroy.await?;
                destroyed += count;
                if count < OWNER_BATCH.into() {
                    break;
                }
            }
            // A session that gets a new id has its new row first, and then its old row becomes a tombstone. A
            // deletion at READ COMMITTED can miss both rows: the snapshot of PostgreSQL lacks the new row, or MySQL
            // has passed its place, and the deletion waits for the old row until it is a tombstone. So a separate
            // query decides. In autocommit it waits for nothing and sees one moment after the deletion, at every
            // level from READ COMMITTED to SERIALIZABLE, and a live session has a row at every moment. At the
            // higher levels the deletion misses no row: PostgreSQL refuses a deletion that waited for a changed
            // row, so it runs again, MySQL locks the places that it passed, and SQLite locks the whole file.
            let left = self.rows(&self.statements.is_owner_left, &values).await?;
            if left.is_empty() {
                return Ok(destroyed);
            }
        }
        Err(StoreError::unavailable(StillComing))
    }
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(Some(bytes))
}

/// An instant beyond a signed 64-bit integer becomes its maximum, which is 292 million years from now.
fn millis(instant: Timestamp) -> Value<'static> {
    let millis = i64::try_from(instant.as_unix_millis());
    Value::Integer(Some(millis.unwrap_or(i64::MAX)))
}

fn key<E: SqlEngine>(row: &E::Row) -> Result<StoreKey, StoreError> {
    exact(&E::bytes(row, "session_key")?).map(StoreKey::from_bytes)
}

fn record<E: SqlEngine>(row: &E::Row) -> Result<Record, StoreError> {
    let version = exact(&E::bytes(row, "version")?)?;
    let expires_at = u64::try_from(E::integer(row, "expires_at")?);
    Record::from_bytes(
        Version::from_bytes(version),
        Timestamp::from_unix_millis(expires_at.map_err(|_| StoreError::Corrupt)?),
        E::bytes(row, "data")?,
    )
}

fn key_and_record<E: SqlEngine>(row: &E::Row) -> Result<(StoreKey, Record), StoreError> {
    Ok((key::<E>(row)?, record::<E>(row)?))
}

/// A binary column of another length is a damaged row.
fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt)
}
