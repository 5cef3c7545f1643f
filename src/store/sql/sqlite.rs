use super::{
    SqlStore,
    engine::{Dialect, engine},
};

/// Sessions in a table of SQLite 3.37 or later, for one machine.
///
/// What holds for all engines stands at [`SqlStore`]. The feature `sqlite` compiles a current SQLite in.
///
/// # Example
///
/// A file wants the write-ahead log, in which readers wait for nobody and commits need not wait for the
/// disk, and a busy time-out below `store_timeout`; the driver's default is above it.
///
/// ```no_run
/// use std::time::Duration;
/// use axum_typed_session::SqliteStore;
/// use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = SqliteConnectOptions::new()
///     .filename("sessions.db")
///     .create_if_missing(true)
///     .journal_mode(SqliteJournalMode::Wal)
///     .synchronous(SqliteSynchronous::Normal)
///     .busy_timeout(Duration::from_secs(1));
/// let store = SqliteStore::new(SqlitePool::connect_with(options).await?);
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
///
/// A database in memory lives in one connection and ends with it: give its pool `max_connections(1)`,
/// `test_before_acquire(false)` and neither `idle_timeout` nor `max_lifetime`.
///
/// # Size and upkeep
///
/// A session of an owner with 243 bytes of data takes 518 bytes with its indices, measured over 100,000
/// rows. One statement writes at a time, so a batch of a [`Cleanup`](crate::store::Cleanup) delays the saves
/// that meet it; the default of 1,000 rows takes some ten milliseconds. Deleted rows leave room for new
/// ones, and only `VACUUM` makes the file smaller.
///
/// # The table
///
/// ```sql
#[doc = include_str!("sqlite.sql")]
/// ```
pub type SqliteStore = SqlStore<sqlx::Sqlite>;

engine!(
    sqlx::Sqlite,
    Dialect {
        schema: include_str!("sqlite.sql"),
        count_indices: "SELECT COUNT(DISTINCT led.name) AS found \
             FROM pragma_index_list('{name}') AS list, pragma_index_info(list.name) AS led \
             WHERE led.seqno = 0 AND led.name IN ('expires_at', 'owner')",
        before_schema: "",
        quote: '"',
        // Attached databases belong to one connection, not to a pool.
        has_schemas: false,
        numbers_values: false,
        // `unixepoch('subsec')` would need 3.42; the Julian day of 1970 is 2440587.5.
        now: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        later: "MAX",
        create: &["INSERT INTO {table} AS held (version, expires_at, owner, data, session_key) \
             VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (session_key) DO UPDATE SET version = excluded.version, \
             expires_at = excluded.expires_at, owner = excluded.owner, data = excluded.data \
             WHERE held.expires_at <= {now}"],
        delete_expired: "DELETE FROM {table} WHERE rowid IN (\
             SELECT rowid FROM {table} WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?)",
        destroy_by_owner: "DELETE FROM {table} WHERE rowid IN (\
             SELECT rowid FROM {table} \
             WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT ?)",
        // SQLITE_BUSY and SQLITE_LOCKED, whose extended codes keep the primary one in the low byte.
        is_transient: |error| {
            let code = error.code().and_then(|code| code.parse::<i32>().ok());
            code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
        },
        // A file that is read-only stays so for the next connection.
        is_read_only: |_| false,
        is_missing_table: |error| error.message().starts_with("no such table"),
        is_remote: false,
    }
);
