//! Rows of other libraries in a store of theirs.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;

/// A store of another library, of which rows are only read. [`RedisStore`](crate::RedisStore) is one for
/// [`ExpressSessions`](super::ExpressSessions) and [`TowerSessions`](super::TowerSessions), whatever its prefix is.
///
/// # Example
///
/// The table of connect-pg-simple, another store of express-session:
///
/// ```
/// use axum_typed_session::{StoreError, import::{OldRow, OldRows}};
/// # #[cfg(feature = "postgres")]
/// use axum_typed_session::store::sqlx::{self, PgPool, Row as _};
///
/// # #[cfg(feature = "postgres")]
/// struct ConnectPgSimple(PgPool);
///
/// # #[cfg(feature = "postgres")]
/// #[async_trait::async_trait]
/// impl OldRows for ConnectPgSimple {
///     async fn row(&self, key: &str) -> Result<Option<OldRow>, StoreError> {
///         let sql = r#"select sess::text from "session" where sid = $1 and expire > now()"#;
///         let row = sqlx::query(sql).bind(key).fetch_optional(&self.0).await;
///         let row = row.map_err(StoreError::unavailable)?;
///         Ok(row.map(|row| OldRow::new(row.get::<String, _>(0))))
///     }
/// }
/// ```
#[async_trait]
pub trait OldRows: Send + Sync + 'static {
    /// Returns the row under `key`. Returns `None` if there is none, or if it has expired.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the store could not be asked.
    async fn row(&self, key: &str) -> Result<Option<OldRow>, StoreError>;
}

/// A row of a store of another library. [`OldRows`] has an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OldRow {
    /// The bytes that the library wrote.
    pub bytes: Vec<u8>,
    /// How long the row has left; `None` if the store does not say.
    pub expires_in: Option<Duration>,
}

impl OldRow {
    /// Makes a row whose end is not known.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), expires_in: None }
    }
}

/// A longer row is not read. It is as much as a session of this crate may hold by default.
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// Loads a row that is not too long.
pub(super) async fn load(rows: &dyn OldRows, key: &str) -> Result<Option<OldRow>, StoreError> {
    Ok(rows.row(key).await?.filter(|row| row.bytes.len() <= MOST_BYTES))
}

#[cfg(feature = "redis")]
#[async_trait]
impl OldRows for crate::store::RedisStore {
    async fn row(&self, key: &str) -> Result<Option<OldRow>, StoreError> {
        let command = |name: &str| {
            let mut command = redis::cmd(name);
            command.arg(key);
            command
        };
        let bytes: Option<Vec<u8>> = self.call(&command("GET")).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        // Negative for a row without an end, and for one that has ended between the commands.
        let left: i64 = self.call(&command("PTTL")).await?;
        let expires_in = match left {
            -1 => None,
            left => Some(Duration::from_millis(left.try_into().unwrap_or(0))),
        };
        Ok(Some(OldRow { bytes, expires_in }))
    }
}

/// The table of tower-sessions in SQLite or PostgreSQL, for [`TowerSessions`](super::TowerSessions).
///
/// # Example
///
/// ```
/// use axum_typed_session::import::{TowerSessions, TowerTable};
/// # #[cfg(feature = "sqlite")]
/// use axum_typed_session::store::sqlx::SqlitePool;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u64 }
///
/// # #[cfg(feature = "sqlite")]
/// fn old(pool: SqlitePool) -> TowerSessions<Visits> {
///     TowerSessions::new(TowerTable::sqlite(pool), |data| {
///         Some(Visits { count: data["count"].as_u64()? })
///     })
/// }
/// ```
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
pub struct TowerTable<DB: sqlx::Database> {
    pool: sqlx::Pool<DB>,
    sql: sqlx::SqlStr,
    parameter: &'static str,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl<DB: sqlx::Database> TowerTable<DB> {
    fn new(pool: sqlx::Pool<DB>, table: &str, parameter: &'static str) -> Self {
        let sql = format!("select data from {table} where id = {parameter}");
        let sql = sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(sql));
        Self { pool, sql, parameter }
    }

    /// Reads a table of another name, which is put into the SQL as it is.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # fn old(pool: axum_typed_session::store::sqlx::SqlitePool) {
    /// use axum_typed_session::import::TowerTable;
    ///
    /// let rows = TowerTable::sqlite(pool).named("shop_sessions");
    /// # }
    /// ```
    ///
    /// # Security
    ///
    /// The name must not come from a request.
    #[must_use]
    pub fn named(self, table: &str) -> Self {
        Self::new(self.pool, table, self.parameter)
    }
}

/// Reads the tables of one engine; the SQL differs in its parameter.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
macro_rules! reads_table_of {
    ($engine:ty, $new:ident, $table:literal, $parameter:literal) => {
        impl TowerTable<$engine> {
            #[doc = concat!("Reads the table `", $table, "`, which is the default of tower-sessions.")]
            /// The type has an example.
            pub fn $new(pool: sqlx::Pool<$engine>) -> Self {
                Self::new(pool, $table, $parameter)
            }
        }

        #[async_trait]
        impl OldRows for TowerTable<$engine> {
            async fn row(&self, key: &str) -> Result<Option<OldRow>, StoreError> {
                let found = sqlx::query_scalar::<_, Vec<u8>>(self.sql.clone());
                let found = found.bind(key).fetch_optional(&self.pool).await;
                Ok(found.map_err(StoreError::unavailable)?.map(OldRow::new))
            }
        }
    };
}

#[cfg(feature = "postgres")]
reads_table_of!(sqlx::Postgres, postgres, "tower_sessions.session", "$1");
#[cfg(feature = "sqlite")]
reads_table_of!(sqlx::Sqlite, sqlite, "tower_sessions", "?");
