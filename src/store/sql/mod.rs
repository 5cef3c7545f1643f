//! One store over three SQL engines.

pub(super) mod connect;
pub(super) mod engine;
mod errors;
#[cfg(feature = "mysql")]
pub(super) mod mysql;
#[cfg(feature = "postgres")]
pub(super) mod postgres;
mod rows;
#[cfg(feature = "sqlite")]
pub(super) mod sqlite;
mod statements;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::Pool;
use tokio::sync::OnceCell;

use self::{
    engine::{Query, Reason, SqlEngine, Value},
    errors::{Forgetful, MissingIndex, unavailable},
    statements::{Statement, Statements, TableName},
};
use super::random_part;
use crate::{
    clock::Clock,
    error::{ConfigError, StoreError},
};

/// Keeps sessions in a table of a SQL database.
///
/// Use it under one of its three names, which also document the setup, the table and the size for each engine:
/// [`SqliteStore`](crate::SqliteStore), [`PostgresStore`](crate::PostgresStore) and
/// [`MySqlStore`](crate::MySqlStore). Cloning is cheap. [`stores`](crate::guide::stores) compares all stores.
///
/// # The pool and the table
///
/// | method | pool | if the database is down at the start |
/// |---|---|---|
/// | [`connect`](Self::connect) | one of the store's own | an error |
/// | [`connect_lazy`](Self::connect_lazy) | one of the store's own | the store connects later |
/// | [`new`](Self::new) | the application's | as the application made it |
///
/// The pool of an application must come from [`store::sqlx`](crate::store#reexports), the version of `sqlx` that this
/// crate uses. For TLS, set a feature of your own `sqlx` dependency.
///
/// [`migrate`](Self::migrate) makes the table at the start. [`migrate_lazy`](Self::migrate_lazy) makes it before the
/// first operation.
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
/// | destroy, `find_by_owner`, a batch of `delete_expired`, a page of `list` | 1 |
/// | a batch of `take_expired` | 1; on MySQL, 1 `SELECT` and 1 `DELETE` for each row |
/// | `destroy_by_owner` | 1 for each 50,000 sessions, then 1 `SELECT`; all of it again if sessions are left |
///
/// Every statement is a transaction of its own, so you may drop a future at any point: the row is then either
/// wholly old or wholly new. If a statement ends in a deadlock, a serialization failure or a lock time-out, the
/// store repeats it, at most eight times with growing pauses, and for about one second.
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
    /// Whether connections prepare statements and keep them.
    prepares: bool,
    /// Set when the table is known to be there, if `migrate_lazy` makes it.
    migrated: Option<Arc<OnceCell<()>>>,
}

/// How often a statement without effect is repeated.
const REPEATS: u32 = 8;

/// How long a statement without effect is repeated. It is half of the default `store_timeout`, so that the log shows
/// the store's own error.
const REPEAT_WITHIN: Duration = Duration::from_secs(1);

impl<E: SqlEngine> SqlStore<E> {
    /// Makes a store that uses the table `typed_sessions`, through a pool of the application. It does not connect.
    ///
    /// Call [`migrate`](Self::migrate) at the start of the application. [`SqliteStore`](crate::SqliteStore) shows
    /// an example. Without a pool of your own, use [`connect`](Self::connect).
    pub fn new(pool: Pool<E>) -> Self {
        Self {
            pool,
            statements: Arc::new(Statements::new::<E>(&TableName::default())),
            clock: None,
            prepares: true,
            migrated: None,
        }
    }

    /// Sets the name of the table. Default: `typed_sessions`.
    ///
    /// PostgreSQL tells upper from lower case in it. SQLite does not, nor does MySQL on some systems, so do not choose two
    /// names that differ only in that. It may begin with a schema and a dot, such as `app.sessions`; on MySQL with a
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
        self.migrated = self.migrated.map(|_| Arc::default());
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
    /// use axum_typed_session::PostgresStore;
    ///
    /// let store = PostgresStore::connect("postgres://localhost/app").await?;
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
    /// missing and another index or table has its name. With SQLite also if the database is in memory and the pool
    /// would lose it.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point and call the method again.
    #[doc(alias("create_table", "setup", "init"))]
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.check_memory().await?;
        if self.is_migrated().await? {
            return Ok(());
        }
        let sql = &self.statements.migration;
        let script = || Query { sql: sql.clone(), values: None };
        self.repeating(|| E::execute(&self.pool, script())).await?;
        if self.is_migrated().await? {
            return Ok(());
        }
        Err(StoreError::unavailable(MissingIndex { table: self.statements.table.clone() }))
    }

    /// Calls [`migrate`](Self::migrate) before the first operation, instead of at the start of the application.
    ///
    /// So the application starts while the database is down. Until a call succeeds, each operation is the error of
    /// that call, and the next operation tries again. [`connect_lazy`](Self::connect_lazy) shows an example.
    #[doc(alias("lazy", "startup"))]
    pub fn migrate_lazy(mut self) -> Self {
        self.migrated = Some(Arc::default());
        self
    }

    /// Refuses a pool that would lose a database in memory.
    async fn check_memory(&self) -> Result<(), StoreError> {
        let pool = self.pool.options();
        let keeps_its_connection = pool.get_max_connections() == 1
            && !pool.get_test_before_acquire()
            && pool.get_idle_timeout().is_none()
            && pool.get_max_lifetime().is_none();
        if let Some(in_memory) = &self.statements.in_memory
            && !keeps_its_connection
            && !self.run(in_memory, &[]).await?.is_empty()
        {
            return Err(StoreError::unavailable(Forgetful));
        }
        Ok(())
    }

    /// Returns `true` if the table exists and has both indices, whatever their names.
    async fn is_migrated(&self) -> Result<bool, StoreError> {
        let rows = self.run(&self.statements.count_indices, &[]).await?;
        let found = rows.first().map(|row| E::integer(row, "found"));
        Ok(found.transpose()? == Some(2))
    }

    async fn execute(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.make_table().await?;
        self.repeating(|| async {
            match E::execute(&self.pool, self.query(statement, values)).await {
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
        self.make_table().await?;
        self.run(statement, values).await
    }

    /// Runs a query, whether or not there is a table.
    async fn run(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<E::Row>, StoreError> {
        self.repeating(|| E::rows(&self.pool, self.query(statement, values))).await
    }

    fn query<'a>(&self, statement: &Statement, values: &'a [Value<'a>]) -> Query<'a> {
        if self.prepares { statement.with(values) } else { statement.script_with(values) }
    }

    async fn make_table(&self) -> Result<(), StoreError> {
        match &self.migrated {
            Some(migrated) => migrated.get_or_try_init(|| self.migrate()).await.copied(),
            None => Ok(()),
        }
    }

    /// Repeats a statement that had no effect and may succeed the next time.
    async fn repeating<R, F>(&self, run: impl Fn() -> F + Send) -> Result<R, StoreError>
    where
        F: Future<Output = Result<R, sqlx::Error>> + Send,
    {
        let started = Instant::now();
        let mut repeats = 0;
        loop {
            let error = match run().await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let reason = error.as_database_error().map(E::DIALECT.reason);
            let may_succeed = reason == Some(Reason::Transient);
            if !may_succeed || repeats == REPEATS || started.elapsed() > REPEAT_WITHIN {
                return Err(unavailable::<E>(&self.statements.table, error));
            }
            tokio::time::sleep(random_part(Duration::from_millis(1 << repeats))).await;
            repeats += 1;
        }
    }
}

impl<E: SqlEngine> Clone for SqlStore<E> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            statements: self.statements.clone(),
            clock: self.clock.clone(),
            prepares: self.prepares,
            migrated: self.migrated.clone(),
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
