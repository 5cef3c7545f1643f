use std::borrow::Cow;

use super::{
    SqlStore,
    engine::{Dialect, engine},
};

/// Sessions in a table of PostgreSQL 12 or later.
///
/// What holds for all engines stands at [`SqlStore`].
///
/// # Example
///
/// ```no_run
/// use axum_typed_session::{PostgresStore, SessionManager, store::Cleanup};
/// use sqlx::PgPool;
///
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::new(PgPool::connect("postgres://localhost/app").await?);
/// store.migrate().await?;
/// let cleanup = Cleanup::new(store.clone()).spawn();
/// let sessions = SessionManager::<Visits>::builder().store(store).build()?;
/// # cleanup.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// # Size and upkeep
///
/// A session of an owner with 243 bytes of data takes 620 bytes with its indices, measured over 100,000
/// rows of PostgreSQL 15.
///
/// Every save and touch leaves a dead row, since the expiry is indexed. Autovacuum's defaults let a fifth
/// of the table be dead; a busy one does better with
/// `ALTER TABLE typed_sessions SET (autovacuum_vacuum_scale_factor = 0.02)`.
///
/// `ALTER TABLE typed_sessions SET UNLOGGED` saves the write-ahead log, and a crash or fail-over then
/// logs everyone out, which some sessions bear.
///
/// Statements are prepared once for each connection, by name. A pooler in transaction mode must keep track
/// of them, as `PgBouncer` does from 1.21 with `max_prepared_statements` above 0; an older one wants session
/// mode. The pool option `statement_cache_capacity(0)` is no help: the driver then names and prepares a
/// statement for every query, and never closes it.
///
/// # The table
///
/// ```sql
#[doc = include_str!("postgres.sql")]
/// ```
pub type PostgresStore = SqlStore<sqlx::Postgres>;

engine!(
    sqlx::Postgres,
    Dialect {
        schema: include_str!("postgres.sql"),
        count_indices: "SELECT COUNT(DISTINCT attname) AS found FROM pg_catalog.pg_index \
             JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = indkey[0] \
             WHERE indrelid = to_regclass('{table}') AND attname IN ('expires_at', 'owner')",
        // Both end with the implicit transaction of one script. The lock's number is this crate's own.
        // An index made late waits for writers, and later writers wait for it: not for long, and not
        // after whoever asked for it has given up.
        before_schema: "SELECT pg_advisory_xact_lock(7310590843221180259);\n\
             SET LOCAL lock_timeout = '1s';\n",
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
        // A row that was waited for is judged anew by its owner: what became a tombstone stays.
        destroy_by_owner: "DELETE FROM {table} WHERE session_key = ANY (ARRAY(\
             SELECT session_key FROM {table} \
             WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT ?)) AND owner = ?",
        // serialization_failure, deadlock_detected, lock_not_available
        is_transient: |error| {
            matches!(error.code(), Some(Cow::Borrowed("40001" | "40P01" | "55P03")))
        },
        // read_only_sql_transaction
        is_read_only: |error| error.code().as_deref() == Some("25006"),
        is_missing_table: |error| error.code().as_deref() == Some("42P01"),
        is_remote: true,
    }
);
