use super::{
    SqlStore,
    engine::{Dialect, engine},
};

/// Sessions in a table of SQLite 3.37 or later, for one machine.
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
        before_schema: "",
        quote: '"',
        // Attached databases belong to one connection, not to a pool.
        has_schemas: false,
        numbers_values: false,
        // `unixepoch('subsec')` would need 3.42; the Julian day of 1970 is 2440587.5.
        now: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        later: "MAX",
        create: &[
            "INSERT INTO {table} AS held (version, expires_at, owner, data, session_key) \
             VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (session_key) DO UPDATE SET version = excluded.version, \
             expires_at = excluded.expires_at, owner = excluded.owner, data = excluded.data \
             WHERE held.expires_at <= {now}"
        ],
        delete_expired: "DELETE FROM {table} WHERE rowid IN (\
             SELECT rowid FROM {table} WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?)",
        // SQLITE_BUSY and SQLITE_LOCKED, whose extended codes keep the primary one in the low byte.
        is_transient: |error| {
            let code = error.code().and_then(|code| code.parse::<i32>().ok());
            code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
        },
        is_missing_table: |error| error.message().starts_with("no such table"),
        is_remote: false,
    }
);
