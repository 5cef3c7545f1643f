use std::time::Duration;

use sqlx::{
    pool::PoolOptions,
    sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use super::{
    SqlStore,
    engine::{Connect, ConnectOptions, Dialect, Reason, engine},
};

/// Keeps sessions in a table of SQLite 3.37 or later, for applications on one machine.
///
/// [`SqlStore`] documents the methods and the rules for all engines. The feature `sqlite` compiles a current SQLite
/// into the program.
///
/// # Example
///
/// ```no_run
/// use axum_typed_session::{SqliteStore, store::Cleanup};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = SqliteStore::connect("sqlite:sessions.db").await?;
/// store.migrate().await?;
/// let cleanup = Cleanup::new(store.clone()).spawn();
/// # Ok(())
/// # }
/// ```
///
/// [`connect`](SqlStore::connect) creates the file if it is missing. If you make a pool yourself, use the write-ahead
/// log, in which readers do not wait for writers. Set a busy time-out below
/// [`store_timeout`](crate::SessionManagerBuilder::store_timeout); the default of the driver is above it:
///
/// ```no_run
/// use std::time::Duration;
/// use axum_typed_session::{SqliteStore, store::sqlx::sqlite};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let options = sqlite::SqliteConnectOptions::new()
///     .filename("sessions.db")
///     .create_if_missing(true)
///     .journal_mode(sqlite::SqliteJournalMode::Wal)
///     .synchronous(sqlite::SqliteSynchronous::Normal)
///     .busy_timeout(Duration::from_secs(1));
/// let store = SqliteStore::new(sqlite::SqlitePool::connect_with(options).await?);
/// # Ok(())
/// # }
/// ```
///
/// A database in memory ends with its connection. `SqliteStore::connect("sqlite::memory:")` keeps the connection. A
/// pool of your own needs `max_connections(1)`, `test_before_acquire(false)`, `idle_timeout(None)` and
/// `max_lifetime(None)`; with other settings, [`migrate`](SqlStore::migrate) is an error.
///
/// # Size and upkeep
///
/// A session of 243 bytes with an owner takes 518 bytes with its indices, measured with 100,000 sessions. A
/// [`Cleanup`](crate::store::Cleanup) must delete expired sessions. SQLite runs one writing statement at a time, so
/// a save waits while a batch of the cleanup runs. The default batch of 1,000 sessions takes some ten milliseconds.
/// Deleted sessions leave room for new sessions; only `VACUUM` makes the file smaller.
///
/// # The table
///
/// ```sql
#[doc = include_str!("sqlite.sql")]
/// ```
#[doc(alias("sqlite", "file", "database"))]
pub type SqliteStore = SqlStore<sqlx::Sqlite>;

engine!(
    sqlx::Sqlite,
    Dialect {
        schema: include_str!("sqlite.sql"),
        count_indices: "SELECT COUNT(DISTINCT led.name) AS found \
             FROM pragma_index_list('{name}') AS list, pragma_index_info(list.name) AS led \
             WHERE led.seqno = 0 AND led.name IN ('expires_at', 'owner')",
        in_memory: Some("SELECT 1 FROM pragma_database_list WHERE name = 'main' AND file = ''"),
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
        returns_deleted: true,
        destroy_by_owner: "DELETE FROM {table} WHERE rowid IN (\
             SELECT rowid FROM {table} \
             WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT ?)",
        // An extended code keeps the primary code in its low byte.
        reason: |error| match error.code().and_then(|code| code.parse::<u32>().ok()) {
            Some(code) => match code & 0xff {
                // SQLITE_BUSY, SQLITE_LOCKED
                5 | 6 => Reason::Transient,
                // SQLITE_CANTOPEN
                14 => Reason::File,
                // SQLITE_CONSTRAINT, SQLITE_MISMATCH
                19 | 20 => Reason::Value,
                _ if error.message().starts_with("no such table") => Reason::MissingTable,
                // Also a file that is read-only, which it is for the next connection too.
                _ => Reason::Other,
            },
            None => Reason::Other,
        },
        is_remote: false,
    }
);

/// Only one connection writes at a time, and more threads than cores read no faster.
const MOST_CONNECTIONS: u32 = 4;

/// Half of the default `store_timeout`, so that the log shows the store's own error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

impl Connect for sqlx::Sqlite {
    const SCHEMES: &[&str] = &["sqlite"];
    const URL: &str = "sqlite:file.db";

    fn adapt(
        url: &str,
        options: ConnectOptions<Self>,
        pool: PoolOptions<Self>,
    ) -> (ConnectOptions<Self>, PoolOptions<Self>) {
        let pool = pool.test_before_acquire(false);
        let mut parameters = url.split(['?', '&']);
        let file = parameters.next().unwrap_or_default();
        let modes: Vec<_> = parameters.filter_map(|option| option.strip_prefix("mode=")).collect();
        if file.ends_with(":memory:") || modes.contains(&"memory") {
            let pool = pool.max_connections(1).idle_timeout(None).max_lifetime(None);
            return (options, pool);
        }
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT);
        // The driver's default mode opens a file that is there.
        let options = if modes.is_empty() { options.create_if_missing(true) } else { options };
        (options, pool.max_connections(MOST_CONNECTIONS))
    }

    fn address(options: &ConnectOptions<Self>) -> String {
        options.get_filename().display().to_string()
    }
}
