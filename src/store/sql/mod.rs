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

/// Keeps sessions in a table of the application's database, through the application's own pool.
///
/// Use it under one of its three names, which also document the setup, the table and the size for each engine:
/// [`SqliteStore`](crate::SqliteStore), [`PostgresStore`](crate::PostgresStore) and
/// [`MySqlStore`](crate::MySqlStore). Cloning is cheap. [`stores`](crate::guide::stores) compares all stores.
///
/// The pool must come from [`store::sqlx`](crate::store#reexports), the version of `sqlx` that this crate uses.
/// For TLS and other options, set the features of your own `sqlx` dependency.
///
/// # Which clock decides
///
/// The clock of the database. Every statement compares `expires_at` with the time of the database, so all nodes
/// agree on which sessions are live, even if their clocks differ. The `expires_at` of a session comes from the node
/// that saved it: if the clock of that node is wrong by some seconds, its sessions live that much longer or
/// shorter. All times are UTC.
///
/// # Use the primary
///
/// The pool must connect to the primary. A read replica lags behind: it would still show a session after the user
/// signed out, and would not find a new session. After a fail-over, the former primary refuses to write. The store
/// closes a connection at the first refusal, and the next connection resolves the host name again.
///
/// # How it works
///
/// | operation | statements |
/// |---|---|
/// | load | 1 `SELECT` by primary key |
/// | save, touch, `destroy_at` | 1, and 1 `SELECT` if another writer came first |
/// | save of a new session | as above, and on MySQL 1 more if it replaces an expired row |
/// | destroy, `find_by_owner`, a batch of `delete_expired` | 1 |
/// | `destroy_by_owner` | 1 for each 50,000 sessions, then 1 `SELECT`; all of it again if sessions are left |
///
/// Every statement is a transaction of its own, so you may drop a future at any point: the row is then either
/// wholly old or wholly new. If a statement ends in a deadlock, a serialization failure or a lock time-out, the
/// store repeats it, at most eight times with growing pauses.
///
/// All isolation levels work, with one exception: at `READ UNCOMMITTED` of MySQL, `destroy_by_owner` can miss a
/// session that gets a new id at the same time. Connections must be in autocommit mode, which is the default of
/// every engine.
///
/// # Security
///
/// The table holds hashes of ids and owners, and the session data as the [`Codec`](crate::Codec) encoded it. Nobody
/// can sign in with a copy of the table, but a reader of the copy sees the session data.
#[doc(alias("database", "sqlx", "sqlx_store", "table"))]
pub struct SqlStore<E: SqlEngine> {
    pool: Pool<E>,
    statements: Arc<Statements>,
    clock: Option<Arc<dyn Clock>>,
}

/// How often a statement without effect is repeated.
const REPEATS: u32 = 8;

/// How many sessions of an owner one statement ends. A time-out then keeps the result of earlier statements, and
/// other writers of SQLite get a turn. Smaller batches take longer in total, because each statement begins with the
/// index entries that earlier statements left dead.
const OWNER_BATCH: u32 = 50_000;

/// How often the sessions of an owner are ended again because new sessions came in the meantime.
const OWNER_ROUNDS: u32 = 64;

impl<E: SqlEngine> SqlStore<E> {
    /// Makes a store that uses the table `typed_sessions`. It does not connect.
    ///
    /// Call [`migrate`](Self::migrate) at the start of the application. [`SqliteStore`](crate::SqliteStore) shows
    /// an example.
    pub fn new(pool: Pool<E>) -> Self {
        Self {
            pool,
            statements: Arc::new(Statements::new::<E>(&TableName::default())),
            clock: None,
        }
    }

    /// Sets the name of the table. Default: `typed_sessions`.
    ///
    /// The name is case-sensitive. It may begin with a schema and a dot, such as `app.sessions`; on MySQL with a
    /// database and a dot. SQLite allows neither. [`MySqlStore`](crate::MySqlStore) shows an example.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless each part has only ASCII letters, digits and `_`, does not begin with a digit, and
    /// has at most 48 characters.
    #[doc(alias("prefix", "schema_name"))]
    pub fn table_name(mut self, name: &str) -> Result<Self, ConfigError> {
        let name = TableName::parse::<E>(name)?;
        self.statements = Arc::new(Statements::new::<E>(&name));
        Ok(self)
    }

    /// Sets a clock instead of the clock of the database, for tests. Default: the clock of the database.
    #[doc(alias("mock", "mock time"))]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Returns the SQL that makes the table and its indices, for an application that runs its own migrations.
    ///
    /// [`migrate`](Self::migrate) runs the same SQL.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use axum_typed_session::{PostgresStore, store::sqlx::PgPool};
    ///
    /// let store = PostgresStore::new(PgPool::connect("postgres://localhost/app").await?);
    /// println!("{}", store.schema_sql());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("ddl", "create table", "migration"))]
    pub fn schema_sql(&self) -> &str {
        &self.statements.schema
    }

    /// Makes the table and its indices if they are missing.
    ///
    /// Call it at every start. Several nodes may call it at the same time. If the table and its indices exist, it
    /// only reads, so it needs no other rights and waits for no writer. [`SqliteStore`](crate::SqliteStore) shows
    /// an example.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the engine refuses, such as because of missing rights, or if an index is
    /// missing and another index or table has its name.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point and call the method again.
    #[doc(alias("create_table", "setup", "init"))]
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

    /// Returns `true` if the table exists and has both indices, whatever their names.
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
                // An insert found a row, and this dialect reports it only as an error.
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

    /// Repeats a statement that had no effect and may succeed the next time.
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

    /// Returns the time with which a statement compares `expires_at`; nothing if the database shall use its own
    /// clock.
    fn now(&self) -> Value<'static> {
        match &self.clock {
            Some(clock) => millis(clock.now().into()),
            None => Value::Integer(None),
        }
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
            match (self.load(key).await?, expected) {
                (Some(row), _) if Some(row.version()) == own => return Ok(SaveOutcome::Saved),
                (Some(row), expected) if Some(row.version()) == expected => {}
                (Some(row), _) => return Ok(SaveOutcome::Conflict(row)),
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
        let values = [bytes(key.as_bytes()), self.now()];
        let rows = self.rows(&self.statements.load, &values).await?;
        rows.first().map(record::<E>).transpose()
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
        // No key is empty, so an empty key keeps no row.
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

/// The source of the error for which `migrate` is the way out.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} does not exist; call `migrate()` at the start, or run the SQL of `schema_sql()`"
)]
struct MissingTable {
    table: String,
    source: sqlx::Error,
}

/// The case that `IF NOT EXISTS` accepts silently.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} lacks its index on `expires_at` or on `owner`; make the table with `schema_sql()`, and \
     give no other table or index the name of that index"
)]
struct MissingIndex {
    table: String,
}

#[derive(Debug, thiserror::Error)]
#[error("other writers created and removed the row again and again while it was written")]
struct Unsettled;

#[derive(Debug, thiserror::Error)]
#[error(
    "the owner still has sessions after 64 rounds of ending them, because new sessions keep beginning"
)]
struct StillComing;
