//! The differences between the three engines, and how a statement runs on each of them.
#![expect(unnameable_types, reason = "what cannot be named seals `SqlEngine`")]

use std::{fmt, time::Duration};

use sqlx::{
    Connection, Database, Pool, SqlStr,
    error::DatabaseError,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{runtime::Handle, time::timeout};

use crate::error::StoreError;

/// A database engine that [`SqlStore`](super::SqlStore) supports.
///
/// The engines are `sqlx::Sqlite` with the feature `sqlite`, `sqlx::Postgres` with `postgres`, and `sqlx::MySql`
/// with `mysql`. The trait is sealed: other crates cannot implement it.
pub trait SqlEngine: Database + Run + Connect {}

/// The differences between the dialects.
///
/// In all statements, `{table}` is the quoted table, `{schema}` and `{name}` are its bare parts, and `{now}` is the
/// clock. Each `?` is the next value.
pub struct Dialect {
    /// The statements that make the table and its indices, under the default name.
    pub(super) schema: &'static str,
    /// Counts which of the columns `expires_at` and `owner` come first in an index of the table.
    pub(super) count_indices: &'static str,
    /// Finds a row if the database is in memory, where it ends with its connection.
    pub(super) in_memory: Option<&'static str>,
    /// Runs before the schema in the same transaction, so that nodes that start together take turns.
    pub(super) before_schema: &'static str,
    pub(super) quote: char,
    /// A table name may begin with the name of a schema or database.
    pub(super) has_schemas: bool,
    /// Values are written `$1`, `$2` instead of `?`.
    pub(super) numbers_values: bool,
    /// Milliseconds since the Unix epoch. The value is constant within a statement and independent of the time
    /// zone.
    pub(super) now: &'static str,
    /// The later of two integers.
    pub(super) later: &'static str,
    /// Makes the row or replaces an expired row. The statements are tried in order until one takes effect.
    pub(super) create: &'static [&'static str],
    pub(super) delete_expired: &'static str,
    /// A `DELETE` can return the rows that it deletes.
    pub(super) returns_deleted: bool,
    /// Removes at most so many rows of an owner, except one key.
    pub(super) destroy_by_owner: &'static str,
    /// Tells why a statement failed.
    pub(super) reason: fn(&dyn DatabaseError) -> Reason,
    /// The engine runs on another machine, so a connection can go silent.
    pub(super) is_remote: bool,
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").finish_non_exhaustive()
    }
}

/// Why the database refused a statement, as far as the store handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no engine has all of them, and each engine stands behind its feature")]
pub(super) enum Reason {
    /// The statement had no effect and may succeed when it is repeated: after a deadlock, a serialization failure or a
    /// lock time-out.
    Transient,
    /// The server refuses to write, such as a former primary after a fail-over.
    ReadOnly,
    MissingTable,
    /// A column or a constraint refuses a value. The text of the engine may show the value.
    Value,
    /// The server knows no prepared statement of this name, or knows another one. Behind a pooler, the connection to
    /// the server is not the one on which the statement was prepared.
    Statement,
    /// A file cannot be opened.
    File,
    Other,
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl Reason {
    /// Knows the classes of `SQLSTATE` for a value that a column or a constraint refuses.
    pub(super) fn of_class(error: &dyn DatabaseError) -> Self {
        let code = error.code().unwrap_or_default();
        if code.starts_with("22") || code.starts_with("23") { Self::Value } else { Self::Other }
    }
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// For a binary column.
    Bytes(Option<&'a [u8]>),
    /// For an integer column.
    Integer(Option<i64>),
}

/// A statement with its values, as a connection runs it.
#[derive(Debug)]
pub struct Query<'a> {
    pub(super) sql: SqlStr,
    /// Nothing for a script: statements whose text is complete, which the connection does not prepare.
    pub(super) values: Option<&'a [Value<'a>]>,
}

/// Runs statements; `sqlx` wants a concrete database for that.
pub trait Run: Database {
    /// Where this engine differs from the others.
    const DIALECT: Dialect;

    /// Runs a statement and returns how many rows it took effect on.
    fn execute(
        pool: &Pool<Self>,
        query: Query<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a query.
    fn rows(
        pool: &Pool<Self>,
        query: Query<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Reads a binary column; a column of another type is a damaged row.
    fn bytes(row: &Self::Row, column: &str) -> Result<Vec<u8>, StoreError>;

    /// Reads an integer column.
    fn integer(row: &Self::Row, column: &str) -> Result<i64, StoreError>;
}

/// Makes pools for applications that have none.
pub trait Connect: Database {
    /// The schemes of URLs of this engine.
    const SCHEMES: &[&str];

    /// How a URL is written, for errors.
    const URL: &str;

    /// Adapts what a URL says to a table of sessions.
    fn adapt(
        url: &str,
        options: ConnectOptions<Self>,
        pool: PoolOptions<Self>,
    ) -> (ConnectOptions<Self>, PoolOptions<Self>) {
        let _ = url;
        (options, pool)
    }

    /// Returns the server or the file, without user and password.
    fn address(options: &ConnectOptions<Self>) -> String;
}

/// What a connection is made from.
pub(super) type ConnectOptions<E> = <<E as Database>::Connection as Connection>::Options;

macro_rules! engine {
    ($Database:ty, $dialect:expr) => {
        impl $crate::store::sql::engine::SqlEngine for $Database {}

        impl $crate::store::sql::engine::Run for $Database {
            const DIALECT: $crate::store::sql::engine::Dialect = $dialect;

            async fn execute(
                pool: &sqlx::Pool<Self>,
                query: $crate::store::sql::engine::Query<'_>,
            ) -> Result<u64, sqlx::Error> {
                let done = $crate::store::sql::engine::run!(execute, pool, query);
                Ok(done?.rows_affected())
            }

            async fn rows(
                pool: &sqlx::Pool<Self>,
                query: $crate::store::sql::engine::Query<'_>,
            ) -> Result<Vec<Self::Row>, sqlx::Error> {
                $crate::store::sql::engine::run!(fetch_all, pool, query)
            }

            fn bytes(row: &Self::Row, column: &str) -> Result<Vec<u8>, $crate::StoreError> {
                sqlx::Row::try_get(row, column).map_err(|_| $crate::StoreError::Corrupt)
            }

            fn integer(row: &Self::Row, column: &str) -> Result<i64, $crate::StoreError> {
                sqlx::Row::try_get(row, column).map_err(|_| $crate::StoreError::Corrupt)
            }
        }
    };
}

macro_rules! run {
    ($method:ident, $pool:ident, $query:ident) => {{
        let mut lease = $crate::store::sql::engine::Lease::new($pool).await?;
        let connection = lease.connection();
        let result = match $query.values {
            None => sqlx::raw_sql($query.sql).$method(connection).await,
            Some(values) => {
                let statement = sqlx::query::<Self>($query.sql);
                $crate::store::sql::engine::bind!(statement, values).$method(connection).await
            }
        };
        lease.judged_by(result)
    }};
}

macro_rules! bind {
    ($query:expr, $values:expr) => {
        $values.iter().fold($query, |query, value| match *value {
            $crate::store::sql::engine::Value::Bytes(bytes) => query.bind(bytes),
            $crate::store::sql::engine::Value::Integer(integer) => query.bind(integer),
        })
    };
}

pub(super) use {bind, engine, run};

/// A pooled connection whose return to the pool is bounded in time.
///
/// Before a pool takes a connection back, it pings the connection without a time limit (transact-rs/sqlx#4349). If
/// the server went silent, that would occupy a place in the pool forever. `store_timeout` drops futures at exactly
/// such a time.
///
/// A connection whose server refuses to write does not go back. After a fail-over, the next connection resolves the
/// name again and reaches the new primary.
pub(super) struct Lease<E: SqlEngine> {
    connection: PoolConnection<E>,
    is_read_only: bool,
}

/// The time that the pool itself waits for a connection to close.
const BACK_WITHIN: Duration = Duration::from_secs(5);

impl<E: SqlEngine> Lease<E> {
    pub(super) async fn new(pool: &Pool<E>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, is_read_only: false })
    }

    /// Notes from the result of a statement whether the connection can be used again.
    pub(super) fn judged_by<R>(
        &mut self,
        result: Result<R, sqlx::Error>,
    ) -> Result<R, sqlx::Error> {
        let error = result.as_ref().err().and_then(sqlx::Error::as_database_error);
        let reason = error.map(E::DIALECT.reason);
        self.is_read_only |= reason == Some(Reason::ReadOnly);
        result
    }

    pub(super) fn connection(&mut self) -> &mut E::Connection {
        &mut self.connection
    }
}

impl<E: SqlEngine> Drop for Lease<E> {
    fn drop(&mut self) {
        // SQLite runs in this process, so it cannot go silent. A database in memory ends with its connection.
        if !E::DIALECT.is_remote {
            return;
        }
        let back = self.connection.return_to_pool();
        // Not run, or not to its end, this closes the connection and frees its place.
        if !self.is_read_only
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { timeout(BACK_WITHIN, back).await });
        }
    }
}
