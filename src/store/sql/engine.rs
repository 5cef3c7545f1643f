//! What the three engines differ in, and how a statement runs on any of them.
#![expect(unnameable_types, reason = "what cannot be named seals `SqlEngine`")]

use std::{fmt, time::Duration};

use sqlx::{Connection as _, Database, Pool, SqlStr, error::DatabaseError, pool::PoolConnection};

use crate::error::StoreError;

/// A database that [`SqlStore`](super::SqlStore) speaks to: `sqlx::Sqlite`, `sqlx::Postgres` or
/// `sqlx::MySql`, with the feature of that name.
///
/// Sealed.
pub trait SqlEngine: Database + Run {}

/// Where the dialects differ.
///
/// In all statements `{table}` is the quoted table and `{now}` the clock; `?` are the values in order.
pub struct Dialect {
    /// The table and its indices, under the default name.
    pub(super) schema: &'static str,
    /// Runs in one transaction with the schema, so that nodes starting together take turns.
    pub(super) before_schema: &'static str,
    pub(super) quote: char,
    /// Whether a table name may begin with the name of a schema or database.
    pub(super) has_schemas: bool,
    /// Whether values are `$1`, `$2` instead of `?`.
    pub(super) numbers_values: bool,
    /// Milliseconds since the Unix epoch, constant within a statement, whatever the time zone.
    pub(super) now: &'static str,
    /// The later of two integers.
    pub(super) later: &'static str,
    /// Makes the row or replaces an expired one: tried in order until one takes effect.
    pub(super) create: &'static [&'static str],
    pub(super) delete_expired: &'static str,
    /// Whether the statement had no effect and may do better when repeated: a deadlock, a serialization
    /// failure, a lock that was not had in time.
    pub(super) is_transient: fn(&dyn DatabaseError) -> bool,
    pub(super) is_missing_table: fn(&dyn DatabaseError) -> bool,
    /// Whether a peer can go silent.
    pub(super) is_remote: bool,
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").finish_non_exhaustive()
    }
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// For a binary column.
    Bytes(Option<&'a [u8]>),
    /// For an integer column.
    Integer(Option<i64>),
}

/// Runs statements; `sqlx` wants a concrete database for that.
pub trait Run: Database {
    /// Where this engine differs from the others.
    const DIALECT: Dialect;

    /// Runs a statement and returns how many rows it took effect on.
    fn execute(
        pool: &Pool<Self>,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a query.
    fn rows(
        pool: &Pool<Self>,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Runs statements without values.
    fn script(
        pool: &Pool<Self>,
        sql: SqlStr,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Reads a binary column; a column of another type is a damaged row.
    fn bytes(row: &Self::Row, column: &str) -> Result<Vec<u8>, StoreError>;

    /// Reads an integer column.
    fn integer(row: &Self::Row, column: &str) -> Result<i64, StoreError>;
}

macro_rules! engine {
    ($Database:ty, $dialect:expr) => {
        impl $crate::store::sql::engine::SqlEngine for $Database {}

        impl $crate::store::sql::engine::Run for $Database {
            const DIALECT: $crate::store::sql::engine::Dialect = $dialect;

            async fn execute(
                pool: &sqlx::Pool<Self>,
                sql: sqlx::SqlStr,
                values: &[$crate::store::sql::engine::Value<'_>],
            ) -> Result<u64, sqlx::Error> {
                let mut lease = $crate::store::sql::engine::Lease::new(pool).await?;
                let query = $crate::store::sql::engine::bind!(sqlx::query::<Self>(sql), values);
                let result = query.execute(lease.connection()?).await;
                lease.end();
                Ok(result?.rows_affected())
            }

            async fn rows(
                pool: &sqlx::Pool<Self>,
                sql: sqlx::SqlStr,
                values: &[$crate::store::sql::engine::Value<'_>],
            ) -> Result<Vec<Self::Row>, sqlx::Error> {
                let mut lease = $crate::store::sql::engine::Lease::new(pool).await?;
                let query = $crate::store::sql::engine::bind!(sqlx::query::<Self>(sql), values);
                let rows = query.fetch_all(lease.connection()?).await;
                lease.end();
                rows
            }

            async fn script(pool: &sqlx::Pool<Self>, sql: sqlx::SqlStr) -> Result<(), sqlx::Error> {
                let mut lease = $crate::store::sql::engine::Lease::new(pool).await?;
                let result = sqlx::raw_sql(sql).execute(lease.connection()?).await;
                lease.end();
                result.map(drop)
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

macro_rules! bind {
    ($query:expr, $values:expr) => {
        $values.iter().fold($query, |query, value| match *value {
            $crate::store::sql::engine::Value::Bytes(bytes) => query.bind(bytes),
            $crate::store::sql::engine::Value::Integer(integer) => query.bind(integer),
        })
    };
}

pub(super) use {bind, engine};

/// A pooled connection that a dropped future cannot strand.
///
/// A pool takes a connection back only after a ping, which it does not bound, so a silent peer would
/// keep the place in the pool for good; and `store_timeout` drops futures just when a peer is silent.
pub(super) struct Lease<E: SqlEngine>(Option<PoolConnection<E>>);

/// How long an interrupted connection has to show that it is alive; the pool's own bound on closing one.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);

impl<E: SqlEngine> Lease<E> {
    pub(super) async fn new(pool: &Pool<E>) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// There is one until the end.
    pub(super) fn connection(&mut self) -> Result<&mut E::Connection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Gives the connection back after a statement that ran to its end.
    pub(super) fn end(mut self) {
        self.0 = None;
    }
}

impl<E: SqlEngine> Drop for Lease<E> {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take().filter(|_| E::DIALECT.is_remote) else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                let ping = tokio::time::timeout(ALIVE_WITHIN, connection.ping());
                if !matches!(ping.await, Ok(Ok(()))) {
                    drop(connection.detach());
                }
            })),
            Err(_ended) => drop(connection.detach()),
        }
    }
}
