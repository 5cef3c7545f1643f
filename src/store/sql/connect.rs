//! Stores with a pool of their own.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, pool::PoolOptions};
use tokio::{runtime::Handle, time::timeout};

use super::{
    SqlStore,
    engine::{ConnectOptions, SqlEngine},
    errors::readable,
};
use crate::{error::BoxError, store::connect_error::debug_is_text};

/// How long `connect` may take, with name resolution and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an operation waits for a connection. It is half of the default `store_timeout`, so that the log shows the
/// store's own error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);

const MOST_CONNECTIONS: u32 = 10;

/// The error of [`SqlStore::connect`] and [`SqlStore::connect_lazy`].
///
/// No text of it shows a password.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SqlConnectError {
    /// The text is not the URL of a database of this engine. The driver's error is left out, since it may show a part
    /// of the URL.
    #[error(
        "this is not the URL of a database of this store; write {form} with options that the driver knows, and \
         percent-encode special characters of a user, a password or a file, such as `%23` for `#`"
    )]
    Url {
        /// How such a URL is written.
        form: &'static str,
    },

    /// The URL or the server asks for TLS, and this build of `sqlx` has no TLS. Add a feature such as `tls-rustls` to
    /// your own `sqlx` dependency.
    #[error(
        "the connection to the database at {address} needs TLS; add a feature such as `tls-rustls` to your own `sqlx` \
         dependency, whose version is that of `store::sqlx`"
    )]
    Tls {
        /// Host and port, or the path of a socket.
        address: String,
        /// The driver's error.
        source: BoxError,
    },

    /// The database refused the connection, or there is none at this address.
    #[error("cannot connect to the database at {address}")]
    Refused {
        /// Host and port, or the path of a socket or a file.
        address: String,
        /// The error of the database or of the driver.
        source: BoxError,
    },

    /// The database did not answer in time.
    #[error("the database at {address} did not answer within {after:?}")]
    Timeout {
        /// Host and port, or the path of a socket or a file.
        address: String,
        /// The time that was exceeded.
        after: Duration,
    },

    /// The method was called outside of a Tokio runtime, which the pool needs.
    #[error("a pool needs a Tokio runtime; call this method within `#[tokio::main]`")]
    NoRuntime,
}

debug_is_text!(SqlConnectError);

impl<E: SqlEngine> SqlStore<E> {
    /// Connects to a database, and makes a pool for the store alone.
    ///
    /// | store | URL |
    /// |---|---|
    /// | [`SqliteStore`](crate::SqliteStore) | `sqlite:sessions.db` or `sqlite::memory:` |
    /// | [`PostgresStore`](crate::PostgresStore) | `postgres://user:password@host:5432/database` |
    /// | [`MySqlStore`](crate::MySqlStore) | `mysql://user:password@host:3306/database` |
    ///
    /// The pool has at most 10 connections, and 4 for SQLite. An operation waits at most one second for a connection.
    /// For other settings, make a pool and use [`new`](Self::new).
    ///
    /// A file of SQLite is created if it is missing, unless the URL has a `mode`. The connections use the write-ahead
    /// log, in which readers do not wait for writers, and a busy time-out of one second. A database in memory has a
    /// single connection, with which it ends.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::SqliteStore;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = SqliteStore::connect("sqlite::memory:").await?;
    /// store.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SqlConnectError`] if the text is not a URL of the engine, if the database refuses, or if it does not answer
    /// within 5 seconds. After this method succeeded, a database that is down is a
    /// [`StoreError`](crate::StoreError) of each operation.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, SqlConnectError> {
        let store = Self::connect_lazy(url)?;
        let options = store.pool.connect_options();
        // Through the pool, a server that refuses would only be a pool that times out.
        match timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                // A database that refuses to say good-bye has said hello.
                let _ = connection.close().await;
                Ok(store)
            }
            Ok(Err(error)) => Err(refused::<E>(&options, error)),
            Err(_elapsed) => Err(SqlConnectError::Timeout {
                address: E::address(&options),
                after: CONNECT_TIMEOUT,
            }),
        }
    }

    /// Makes a store as [`connect`](Self::connect) does, but connects when an operation first needs it.
    ///
    /// So the application starts while the database is down. Until the database is up, each operation is a
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) after at most one second, in which the pool tries
    /// to connect with growing pauses. Then the store works without a restart. With
    /// [`migrate_lazy`](Self::migrate_lazy), it also makes its table then.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::PostgresStore;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::connect_lazy("postgres://localhost/app")?.migrate_lazy();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SqlConnectError`] if the text is not a URL of the engine, or outside of a Tokio runtime.
    #[doc(alias("lazy", "retry", "startup"))]
    pub fn connect_lazy(url: impl AsRef<str>) -> Result<Self, SqlConnectError> {
        let url = url.as_ref();
        let options = parse::<E>(url)?;
        // The pool would panic.
        if Handle::try_current().is_err() {
            return Err(SqlConnectError::NoRuntime);
        }
        let pool =
            PoolOptions::new().max_connections(MOST_CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        let (options, pool) = E::adapt(url, options, pool);
        Ok(Self::new(pool.connect_lazy_with(options)))
    }
}

fn parse<E: SqlEngine>(url: &str) -> Result<ConnectOptions<E>, SqlConnectError> {
    // The drivers ignore the scheme, and SQLite would make a file of the name.
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let options = if E::SCHEMES.contains(&scheme) { url.parse().ok() } else { None };
    options.ok_or(SqlConnectError::Url { form: E::URL })
}

fn refused<E: SqlEngine>(options: &ConnectOptions<E>, error: sqlx::Error) -> SqlConnectError {
    let address = E::address(options);
    if let sqlx::Error::Tls(source) = error {
        return SqlConnectError::Tls { address, source };
    }
    SqlConnectError::Refused { address, source: readable::<E>("", error) }
}
