//! One store over three SQL engines.

pub(super) mod engine;
#[cfg(feature = "mysql")]
pub(super) mod mysql;
#[cfg(feature = "postgres")]
pub(super) mod postgres;
#[cfg(feature = "sqlite")]
pub(super) mod sqlite;
mod statements;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::Pool;

use self::{
    engine::{SqlEngine, Value},
    statements::{Statement, Statements, TableName},
};
use super::{SaveOutcome, SessionStore, Write, random_part};
use crate::{
    clock::{Clock, Timestamp},
    error::{ConfigError, StoreError},
    id::{OwnerKey, StoreKey},
    store::{Record, Version},
};

/// Sessions in a table of the application's own database, through its own pool.
///
/// The `sqlx` of the pool must be the one this crate uses, which is re-exported as
/// [`sqlx`](crate::store::sqlx); TLS and other options are features of the application's own `sqlx` dependency.
///
/// Its three names are [`SqliteStore`](crate::SqliteStore), [`PostgresStore`](crate::PostgresStore) and
/// [`MySqlStore`](crate::MySqlStore), where each engine's setup, SQL and sizes stand. Cheap to clone.
///
/// # One row, one statement
///
/// | operation | statements |
/// |---|---|
/// | load | 1 `SELECT` by primary key |
/// | save, touch, `destroy_at` | 1, and 1 `SELECT` where another writer came first |
/// | save of a new session | as above, and on MySQL 1 more where an expired row is replaced |
/// | destroy, `find_by_owner`, a batch of `delete_expired` | 1 |
/// | `destroy_by_owner` | 1 for each 50,000 sessions, then 1 `SELECT` that there are no more; again where there are |
///
/// Every statement is a transaction of its own, so a future dropped at any point leaves the row wholly
/// old or wholly new. All isolation levels do: a statement that ends in a serialization failure, a
/// deadlock or a lock that was not had in time is repeated, at most eight times with growing pauses, and
/// then finds the other writer's row. The exception is MySQL's `READ UNCOMMITTED`, at which
/// `destroy_by_owner` can miss a session that is just getting a new id. Connections must be in autocommit
/// mode, which is every engine's default.
///
/// # Whose clock
///
/// The database's: every statement compares `expires_at` with the server's own time, so nodes whose
/// clocks differ agree on which rows there are, and none deletes what another still uses. A row's
/// `expires_at` is what the saving node wrote, so a clock that is off by some seconds makes its sessions
/// that much longer or shorter. Later than a signed 64-bit integer holds is as late as it holds. Only integers and UTC are compared: no time zone or collation matters.
/// [`clock`](Self::clock) is for tests.
///
/// # Use the primary
///
/// A pool of read replicas answers with yesterday's rows: a logout would be seen late, and a new session
/// not found. The pool must reach the primary. After a fail-over the old primary refuses to write; a
/// connection to it is closed at the first refusal, and the next leads to where the name points by then.
///
/// # Security
///
/// Rows hold hashes of ids and owners, and the payload as the codec wrote it: who reads the table logs in
/// as nobody, but reads what the application keeps in its sessions.
pub struct SqlStore<E: SqlEngine> {
    pool: Pool<E>,
    statements: Arc<Statements>,
    clock: Option<Arc<dyn Clock>>,
}

/// How often a statement is repeated that had no effect.
const REPEATS: u32 = 8;

/// How many of an owner's sessions one statement ends, so that a time-out leaves what earlier ones did
/// and SQLite's other writers get a turn. Smaller batches take longer in all, since each begins with
/// the entries that the others left in the index for dead.
const OWNER_BATCH: u32 = 50_000;

/// How often an owner's sessions are ended again because new ones came meanwhile.
const OWNER_ROUNDS: u32 = 64;

impl<E: SqlEngine> SqlStore<E> {
    /// Makes a store of the table `typed_sessions`. Does not connect.
    pub fn new(pool: Pool<E>) -> Self {
        Self {
            pool,
            statements: Arc::new(Statements::new::<E>(&TableName::default())),
            clock: None,
        }
    }

    /// Sets the table. Default: `typed_sessions`.
    ///
    /// The name is taken literally, upper and lower case included, and may begin with a schema (on MySQL
    /// a database) and a point.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless each part begins with an ASCII letter or `_`, goes on with ASCII
    /// letters, digits and `_`, and has at most 48 characters.
    pub fn table_name(mut self, name: &str) -> Result<Self, ConfigError> {
        let name = TableName::parse::<E>(name)?;
        self.statements = Arc::new(Statements::new::<E>(&name));
        Ok(self)
    }

    /// Sets another clock than the database's, such as the manual clock of a test.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Returns the SQL that [`migrate`](Self::migrate) runs where something is missing, for those who run
    /// their own migrations.
    pub fn schema_sql(&self) -> &str {
        &self.statements.schema
    }

    /// Makes the table and its indices where they are missing.
    ///
    /// Safe to call at every start, also by several nodes at once: where all is there it only looks, which
    /// takes no right but to read and waits for no writer.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the engine refuses, such as for want of rights, or when an index
    /// is missing whose name something else has.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if self.is_migrated().await? {
            return Ok(());
        }
        let sql = &self.statements.migration;
        self.repeating(|| E::script(&self.pool, sql.clone())).await?;
        if self.is_migrated().await? {
            return Ok(());
        }
        Err(StoreError::unavailable(MissingIndex { table: self.statements.table.clone() }))
    }

    /// Whether the table is there with its indices, whatever their names.
    async fn is_migrated(&self) -> Result<bool, StoreError> {
        let rows = self.rows(&self.statements.count_indices, &[]).await?;
        let found = rows.first().map(|row| E::integer(row, "found"));
        Ok(found.transpose()? == Some(2))
    }

    async fn execute(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let values = statement.takes(values);
        self.repeating(|| async {
            match E::execute(&self.pool, statement.sql(), values).await {
                // An insert that found a row, where the dialect has no better way to say so.
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(0),
                result => result,
            }
        })
        .await
    }

    async fn rows(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<E::Row>, StoreError> {
        let values = statement.takes(values);
        self.repeating(|| E::rows(&self.pool, statement.sql(), values)).await
    }

    /// Repeats what had no effect and may do better the next time.
    async fn repeating<R, F>(&self, run: impl Fn() -> F + Send) -> Result<R, StoreError>
    where
        F: Future<Output = Result<R, sqlx::Error>> + Send,
    {
        let mut repeats = 0;
        loop {
            let error = match run().await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let reason = error.as_database_error();
            if repeats == REPEATS || !reason.is_some_and(E::DIALECT.is_transient) {
                return Err(self.unavailable(error));
            }
            tokio::time::sleep(random_part(Duration::from_millis(1 << repeats))).await;
            repeats += 1;
        }
    }

    fn unavailable(&self, error: sqlx::Error) -> StoreError {
        let reason = error.as_database_error();
        if reason.is_some_and(E::DIALECT.is_missing_table) {
            return StoreError::unavailable(MissingTable {
                table: self.statements.table.clone(),
                source: error,
            });
        }
        StoreError::unavailable(error)
    }

    /// What a statement compares `expires_at` with; nothing where the database shall use its own clock.
    fn now(&self) -> Value<'static> {
        match &self.clock {
            Some(clock) => millis(clock.now().into()),
            None => Value::Integer(None),
        }
    }

    /// Runs conditional statements until one takes effect, or else tells from the row why none did.
    ///
    /// The row may come or go between a statement and the look at it; then they run again.
    async fn write(
        &self,
        key: &StoreKey,
        write: Write,
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
            match (self.load(key).await?, write) {
                (Some(row), _) if Some(row.version()) == own => return Ok(SaveOutcome::Saved),
                (Some(row), Write::Update { expected }) if row.version() == expected => {}
                (Some(row), Write::Create | Write::Update { .. }) => {
                    return Ok(SaveOutcome::Conflict(row));
                }
                (None, Write::Update { .. }) => return Ok(SaveOutcome::Gone),
                (None, Write::Create) => {}
            }
        }
        Err(StoreError::unavailable(Unsettled))
    }
}

#[async_trait]
impl<E: SqlEngine> SessionStore for SqlStore<E> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let values = [bytes(key.as_bytes()), self.now()];
        let rows = self.rows(&self.statements.load, &values).await?;
        rows.first().map(record::<E>).transpose()
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        let version = record.version();
        // A tombstone is nobody's session.
        let owner = record.owner().filter(|_| !record.is_tombstone());
        let data = record.to_bytes();
        let mut values = vec![
            bytes(version.as_bytes()),
            millis(record.expires_at()),
            Value::Bytes(owner.as_ref().map(|owner| owner.as_bytes().as_slice())),
            bytes(&data),
            bytes(key.as_bytes()),
        ];
        let attempts = match &write {
            Write::Create => &self.statements.create,
            Write::Update { expected } => {
                values.push(bytes(expected.as_bytes()));
                &self.statements.update
            }
        };
        values.push(self.now());
        self.write(key, write, Some(version), attempts, &values).await
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
        let write = Write::Update { expected: version };
        self.write(key, write, None, &self.statements.touch, &values).await
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let values = [bytes(key.as_bytes()), bytes(version.as_bytes()), self.now()];
        let write = Write::Update { expected: version };
        self.write(key, write, None, &self.statements.destroy_at, &values).await
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let values = [self.now(), Value::Integer(Some(limit.into()))];
        self.execute(&self.statements.delete_expired, &values).await
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let values = [bytes(owner.as_bytes()), self.now()];
        let rows = self.rows(&self.statements.find_by_owner, &values).await?;
        let key = |row: &E::Row| exact(&E::bytes(row, "session_key")?).map(StoreKey::from_bytes);
        rows.iter().map(key).collect()
    }

    async fn destroy_by_owner(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        // No key is empty, so an empty one keeps none.
        let keep = keep.map_or(&[][..], |key| key.as_bytes());
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
            // A session that gets a new id has the new row first, then no longer the old one, and a
            // deletion at READ COMMITTED can miss both: PostgreSQL's snapshot lacks the new row, or MySQL
            // was past its place, and the old row, which had to be waited for, is a tombstone by then.
            // So a query of its own decides. In autocommit it waits for nothing and sees one moment after
            // the deletion, at every level from READ COMMITTED to SERIALIZABLE, and in every moment a
            // session that lives on has a row. At the higher levels the deletion misses none: PostgreSQL
            // refuses one that waited for a changed row, which then runs anew, and MySQL locks the places
            // it passed, as SQLite locks the whole file.
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

/// Instants that no signed integer holds become the latest it does, 292 million years from now.
fn millis(instant: Timestamp) -> Value<'static> {
    let millis = i64::try_from(instant.as_unix_millis());
    Value::Integer(Some(millis.unwrap_or(i64::MAX)))
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

/// A binary column of another length is a damaged row.
fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt)
}

impl<E: SqlEngine> Clone for SqlStore<E> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            statements: self.statements.clone(),
            clock: self.clock.clone(),
        }
    }
}

impl<E: SqlEngine> fmt::Debug for SqlStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("engine", &E::NAME)
            .field("table", &self.statements.table)
            .finish_non_exhaustive()
    }
}

/// The source of an error that has one remedy.
#[derive(Debug, thiserror::Error)]
#[error("there is no table {table}; call `migrate()` at start, or run what `schema_sql()` returns")]
struct MissingTable {
    table: String,
    source: sqlx::Error,
}

/// What `IF NOT EXISTS` passes over in silence.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} has no index on `expires_at` or none on `owner`, because it was not made by \
     `schema_sql()`, or because a table or an index of another table has that index's name"
)]
struct MissingIndex {
    table: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the row kept coming and going while it was written")]
struct Unsettled;

#[derive(Debug, thiserror::Error)]
#[error("new sessions of the owner kept coming while all were ended")]
struct StillComing;
