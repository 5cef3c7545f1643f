//! Which servers a store connects to, when, and with which credentials.

use std::{error::Error, fmt};

use super::{
    RedisStore,
    connect::{self, RedisConnectError, Servers, Target},
    connection::Connection,
    credentials::Credentials,
};

/// The options of the connection of a [`RedisStore`], for credentials that change and for a start while the server is
/// down.
///
/// For the default options, [`RedisStore::connect`], [`connect_cluster`](RedisStore::connect_cluster) and
/// [`connect_sentinel`](RedisStore::connect_sentinel) are shorter.
///
/// # Example
///
/// ```no_run
/// use axum_typed_session::store::RedisStoreBuilder;
///
/// # async fn token() -> std::io::Result<String> { Ok(String::new()) }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let nodes = ["rediss://10.0.0.1:6379", "rediss://10.0.0.2:6379"];
/// let store = RedisStoreBuilder::cluster(nodes)
///     .credentials(|| async { Ok(("shop".to_owned(), token().await?)) })
///     .connect_lazy()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `connect` or `connect_lazy`"]
pub struct RedisStoreBuilder {
    servers: Result<Servers, RedisConnectError>,
    credentials: Option<Credentials>,
}

impl RedisStoreBuilder {
    /// Starts the options for one server, with the URL of [`RedisStore::connect`]. [`RedisStoreBuilder`] shows an
    /// example.
    pub fn server(url: impl AsRef<str>) -> Self {
        Self::new(connect::parse(url.as_ref()).map(Servers::Node))
    }

    /// Starts the options for a cluster, with the URLs of [`RedisStore::connect_cluster`]. [`RedisStoreBuilder`]
    /// shows an example.
    pub fn cluster<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Self {
        Self::new(connect::parse_all(urls).map(Servers::Cluster))
    }

    /// Starts the options for a service of Redis Sentinel, with the URLs of [`RedisStore::connect_sentinel`].
    /// [`RedisStoreBuilder`] shows an example.
    pub fn sentinel<U: AsRef<str>>(
        sentinels: impl IntoIterator<Item = U>,
        service: impl AsRef<str>,
    ) -> Self {
        let service = connect::parse(service.as_ref());
        Self::new(service.and_then(|service| {
            let sentinels = connect::parse_all(sentinels)?;
            Ok(Servers::Sentinel { sentinels, service })
        }))
    }

    fn new(servers: Result<Servers, RedisConnectError>) -> Self {
        Self { servers, credentials: None }
    }

    /// Sets a function that returns user and password, such as a token that expires. Default: those of the URL.
    ///
    /// The store asks for each connection that it makes, also when it connects again, but at most once a second. So
    /// a changed password needs no restart: when the server ends the old connections, or refuses the old password,
    /// the store connects with the new password. Until the function returns the new password, every operation is a
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable).
    ///
    /// If the server has a password and no users, the user is `default`. With Redis Sentinel, the credentials are
    /// for the servers, and the URLs of the sentinels hold their own. An error of the function stands in the log, so
    /// it must not contain a password. The function has 5 seconds. On a cluster, it should answer within one second.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::store::RedisStoreBuilder;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = RedisStoreBuilder::server("redis://10.0.0.1")
    ///     .credentials(|| async {
    ///         let password = tokio::fs::read_to_string("/run/secrets/redis").await?;
    ///         Ok(("shop".to_owned(), password.trim().to_owned()))
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("IAM", "token", "vault", "password", "rotation", "StreamingCredentialsProvider"))]
    pub fn credentials<F, A>(mut self, provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(String, String), Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.credentials = Some(Credentials::new(provider));
        self
    }

    /// Connects now. [`credentials`](Self::credentials) shows an example.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] as [`RedisStore::connect`] returns it, or if the function of
    /// [`credentials`](Self::credentials) returns an error.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing is stored.
    pub async fn connect(self) -> Result<RedisStore, RedisConnectError> {
        Connection::to(self.target()?).await.map(RedisStore::new)
    }

    /// Makes the store without a connection, and connects when an operation first needs it.
    ///
    /// So the application starts while the server is down. [`RedisStore::connect_lazy`] says more.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError::Url`] or [`RedisConnectError::Tls`], and [`RedisConnectError::Refused`] for a cluster
    /// that has no URL, or URLs with different passwords.
    pub fn connect_lazy(self) -> Result<RedisStore, RedisConnectError> {
        Ok(RedisStore::new(Connection::later_to(self.target()?)))
    }

    fn target(self) -> Result<Target, RedisConnectError> {
        Target::new(self.servers?, self.credentials)
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").finish_non_exhaustive()
    }
}
