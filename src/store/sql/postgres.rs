use std::borrow::Cow;

use super::{
    SqlStore,
    engine::{Dialect, engine},
};

/// Sessions in a table of PostgreSQL 12 or later.
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
        // Held until the implicit transaction of one script ends. The number is this crate's own.
        before_schema: "SELECT pg_advisory_xact_lock(7310590843221180259);\n",
        quote: '"',
        has_schemas: true,
        numbers_values: true,
        now: "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
        later: "GREATEST",
        create: &[
            "INSERT INTO {table} AS held (version, expires_at, owner, data, session_key) \
             VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (session_key) DO UPDATE SET version = excluded.version, \
             expires_at = excluded.expires_at, owner = excluded.owner, data = excluded.data \
             WHERE held.expires_at <= {now}"
        ],
        // An array is made once, where a subquery could be run again and exceed its limit. Rows that
        // another node is deleting, or a request replacing, are not waited for.
        delete_expired: "DELETE FROM {table} WHERE session_key = ANY (ARRAY(\
             SELECT session_key FROM {table} WHERE expires_at <= {now} \
             ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED))",
        // serialization_failure, deadlock_detected, lock_not_available
        is_transient: |error| {
            matches!(
                error.code(),
                Some(Cow::Borrowed("40001" | "40P01" | "55P03"))
            )
        },
        is_missing_table: |error| error.code().as_deref() == Some("42P01"),
        is_remote: true,
    }
);
