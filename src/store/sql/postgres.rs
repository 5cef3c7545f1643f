use sqlx::{ConnectOptions as _, pool::PoolOptions};

use super::{
    SqlStore,
    engine::{Connect, ConnectOptions, Dialect, Reason, engine},
};

/// Keeps sessions in a table of PostgreSQL 12 or later.
///
/// [`SqlStore`] documents the methods and the rules for all engines.
///
/// # Example
///
/// ```no_run
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use axum_typed_session::{PostgresStore, SessionManager, store::Cleanup};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://localhost/app").await?;
/// store.migrate().await?;
/// let cleanup = Cleanup::new(store.clone()).spawn();
/// let sessions = SessionManager::<Visits>::builder().store(store).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Size and upkeep
///
/// A session of 243 bytes with an owner takes 620 bytes with its indices, measured with 100,000 sessions in
/// PostgreSQL
/// 15. A [`Cleanup`](crate::store::Cleanup) must delete expired sessions.
///
/// Every save and every touch leaves a dead row, because the expiry is indexed. By default, autovacuum lets a fifth
/// of the table be dead. For a busy table, run `ALTER TABLE typed_sessions SET (autovacuum_vacuum_scale_factor =
/// 0.02)`.
///
/// `ALTER TABLE typed_sessions SET UNLOGGED` saves the write-ahead log. After a crash or a fail-over, all sessions
/// are gone then.
///
/// # Connection poolers
///
/// The driver prepares each statement once for each connection, by name. A pooler in transaction mode must support
/// this: PgBouncer does so from version 1.21 with `max_prepared_statements` above 0. With an older PgBouncer, use
/// session mode, or [`without_prepared_statements`](Self::without_prepared_statements). Without either, 96 of 100
/// requests at once were 503 behind PgBouncer 1.18, and 0 of 100 with it. The pool option
/// `statement_cache_capacity(0)` does not help, because the driver then prepares a new named statement for every query
/// and never closes it.
///
/// # The table
///
/// ```sql
#[doc = include_str!("postgres.sql")]
/// ```
#[doc(alias("postgresql", "pg", "database"))]
pub type PostgresStore = SqlStore<sqlx::Postgres>;

engine!(
    sqlx::Postgres,
    Dialect {
        schema: include_str!("postgres.sql"),
        count_indices: "SELECT COUNT(DISTINCT attname) AS found FROM pg_catalog.pg_index \
             JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = indkey[0] \
             WHERE indrelid = to_regclass('{table}') AND attname IN ('expires_at', 'owner')",
        // Lock and setting end with the implicit transaction of the script. The number of the lock is arbitrary.
        // An index that is added to a used table waits for writers, and later writers wait for it; the time-out
        // bounds both.
        before_schema: "SELECT pg_advisory_xact_lock(7310590843221180259);\n\
             SET LOCAL lock_timeout = '1s';\n",
        in_memory: None,
        quote: '"',
        has_schemas: true,
        numbers_values: true,
        now: "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
        later: "GREATEST",
        create: &["INSERT INTO {table} AS held (version, expires_at, owner, data, session_key) \
             VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (session_key) DO UPDATE SET version = excluded.version, \
             expires_at = excluded.expires_at, owner = excluded.owner, data = excluded.data \
             WHERE held.expires_at <= {now}"],
        // An array is made once, where a subquery could be run again and exceed its limit. Rows that
        // another node is deleting, or a request replacing, are not waited for.
        delete_expired: "DELETE FROM {table} WHERE session_key = ANY (ARRAY(\
             SELECT session_key FROM {table} WHERE expires_at <= {now} \
             ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED))",
        returns_deleted: true,
        // After a wait for a row, its owner is compared again: a row that became a tombstone stays.
        destroy_by_owner: "DELETE FROM {table} WHERE session_key = ANY (ARRAY(\
             SELECT session_key FROM {table} \
             WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT ?)) AND owner = ?",
        reason: |error| match error.code().as_deref() {
            // serialization_failure, deadlock_detected, lock_not_available
            Some("40001" | "40P01" | "55P03") => Reason::Transient,
            // read_only_sql_transaction
            Some("25006") => Reason::ReadOnly,
            // undefined_table
            Some("42P01") => Reason::MissingTable,
            // invalid_sql_statement_name, duplicate_prepared_statement
            Some("26000" | "42P05") => Reason::Statement,
            // protocol_violation, with which poolers report much else
            Some("08P01") if error.message().starts_with("bind message") => Reason::Statement,
            _ => Reason::of_class(error),
        },
        is_remote: true,
    }
);

impl Connect for sqlx::Postgres {
    const SCHEMES: &[&str] = &["postgres", "postgresql"];
    const URL: &str = "postgres://[user[:password]@]host[:port]/database";

    fn adapt(
        _: &str,
        options: ConnectOptions<Self>,
        pool: PoolOptions<Self>,
    ) -> (ConnectOptions<Self>, PoolOptions<Self>) {
        // PgBouncer refuses a connection that sets the digits, and no column is a float. Statements of
        // `without_prepared_statements` hold session data, which does not belong into a log.
        (options.extra_float_digits(None).disable_statement_logging(), pool)
    }

    fn address(options: &ConnectOptions<Self>) -> String {
        match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }
}

impl PostgresStore {
    /// Prepares no statements, for a pooler in transaction mode such as PgBouncer before 1.21.
    ///
    /// A pooler in this mode may send each transaction to another connection of the server. A statement that was
    /// prepared on one connection is missing on the other connection. With this option, the store prepares nothing and
    /// writes its values into the SQL, as base64. Each statement still takes one round trip. The server parses each statement again: in
    /// `tests/sql/pgbouncer.rs`, a load takes 0.26 ms with prepared statements, 0.43 ms without, and 0.52 ms through
    /// PgBouncer.
    ///
    /// # Security
    ///
    /// The SQL of a save holds the data of the session. The server shows it in `pg_stat_activity`, and in its log if it
    /// logs the statement. The driver logs statements at the level `debug`, and slow ones as warnings. The pool of
    /// [`connect`](SqlStore::connect) does not; for a pool of the application, call
    /// `ConnectOptions::disable_statement_logging()`.
    ///
    /// A pool of the application must also leave out a setting that PgBouncer refuses, with
    /// `PgConnectOptions::extra_float_digits(None)`.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::PostgresStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::connect("postgres://pgbouncer:6432/app").await?;
    /// let store = store.without_prepared_statements();
    /// store.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("pgbouncer", "pooler", "persistent", "supavisor", "statement_cache_capacity"))]
    pub fn without_prepared_statements(mut self) -> Self {
        self.prepares = false;
        self
    }
}
