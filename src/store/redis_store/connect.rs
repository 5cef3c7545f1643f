//! Making connections to one server, to a cluster, or to the primary that sentinels name.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisError, RedisResult, ServerErrorKind,
    cluster::{ClusterClient, ClusterClientBuilder},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::timeout;

use super::{credentials::Credentials, line::Line, sentinel::Sentinels};
use crate::{error::BoxError, store::connect_error::debug_is_text};

/// How long a server may take to answer. It is half of the default `store_timeout`, so that the log shows the
/// store's own error.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one attempt to connect to one server may take, login included, and a sentinel's answer.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long `connect` may take, name resolution and all nodes of a cluster included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel closes a connection after this time without a packet, if the platform allows to set it. Otherwise
/// every command to a host that vanished would fail until TCP gives up, after 15 minutes.
const SILENCE: Duration = Duration::from_secs(5);

/// The error of connecting a [`RedisStore`](super::RedisStore).
///
/// No text of it shows a password.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RedisConnectError {
    /// The text is not the URL of a Redis server.
    #[error(
        "this is not the URL of a Redis server; write redis://[user:password@]host[:port][/database], rediss:// for TLS, \
         or unix:///path, and percent-encode `%`, `/`, `?`, `#` and `@` in user and password, such as `%23` for `#`"
    )]
    Url(#[source] BoxError),

    /// The URL begins with `rediss://`, and this build has no TLS. Enable the feature `redis-rustls`.
    #[error("a rediss:// URL needs TLS; enable the feature `redis-rustls` of axum-typed-session")]
    Tls,

    /// The server refused the connection, or nothing listens there.
    #[error("cannot connect to Redis at {address}")]
    Refused {
        /// Host and port, or the path of a socket.
        address: String,
        /// The driver's error.
        source: BoxError,
    },

    /// The server did not answer in time.
    #[error("Redis at {address} did not answer within {after:?}")]
    Timeout {
        /// Host and port, or the path of a socket.
        address: String,
        /// The time that was exceeded.
        after: Duration,
    },
}

debug_is_text!(RedisConnectError);

impl RedisConnectError {
    /// Returns `true` if the server refused user and password, or there were none.
    pub(super) fn is_unauthenticated(&self) -> bool {
        match self {
            Self::Refused { source, .. } => source.downcast_ref().is_some_and(is_unauthenticated),
            Self::Url(_) | Self::Tls | Self::Timeout { .. } => false,
        }
    }
}

/// Returns `true` if the server wants another user or password.
pub(super) fn is_unauthenticated(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// The servers that the URLs name.
pub(super) enum Servers {
    Node(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        /// The name of the service is the host.
        service: ConnectionInfo,
    },
}

impl Servers {
    /// Host and port, or the path of a socket; those of several nodes with commas between.
    fn address(&self) -> String {
        match self {
            Self::Node(node) => node.addr().to_string(),
            Self::Cluster(nodes) | Self::Sentinel { sentinels: nodes, .. } => {
                let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
                addresses.join(", ")
            }
        }
    }
}

/// The server, the cluster or the service to connect to, as often as needed.
pub(super) struct Target {
    address: String,
    client: Client,
    credentials: Option<Credentials>,
}

enum Client {
    Node(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Sentinels>),
}

impl Target {
    pub(super) fn new(
        servers: Servers,
        credentials: Option<Credentials>,
    ) -> Result<Self, RedisConnectError> {
        let address = servers.address();
        match Client::new(servers, credentials.as_ref()) {
            Ok(client) => Ok(Self { address, client, credentials }),
            Err(error) => Err(RedisConnectError::Refused { address, source: error.into() }),
        }
    }

    /// Connects once.
    pub(super) async fn connect(&self) -> Result<Line, RedisConnectError> {
        let connect = self.client.connect(self.credentials.as_ref());
        let address = || self.address.clone();
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(line) => line.map_err(|error| RedisConnectError::Refused {
                address: address(),
                source: error.into(),
            }),
            Err(_elapsed) => {
                Err(RedisConnectError::Timeout { address: address(), after: CONNECT_TIMEOUT })
            }
        }
    }

    /// Returns `true` if a new connection would be no better than this one.
    pub(super) async fn keeps(&self, line: &Line) -> bool {
        if line.is_broken() {
            return false;
        }
        match &self.client {
            Client::Node(_) => false,
            Client::Cluster(_) => line.is_up_to_date().await,
            Client::Sentinel(sentinels) => match line.primary() {
                Some(primary) if !line.is_doubtful() => sentinels.confirm(primary).await,
                _ => false,
            },
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Client {
    fn new(servers: Servers, credentials: Option<&Credentials>) -> RedisResult<Self> {
        Ok(match servers {
            Servers::Node(node) => Self::Node(Box::new(redis::Client::open(node)?)),
            Servers::Cluster(nodes) => {
                // Its retries would include commands that may have been carried out; `call` tells them apart.
                let mut builder = ClusterClientBuilder::new(nodes)
                    .retries(0)
                    .connection_timeout(CONNECTION_TIMEOUT)
                    .response_timeout(RESPONSE_TIMEOUT)
                    .tcp_settings(tcp_settings());
                if let Some(credentials) = credentials {
                    builder = builder.set_credentials_provider(credentials.clone());
                }
                Self::Cluster(Box::new(builder.build()?))
            }
            Servers::Sentinel { sentinels, service } => {
                Self::Sentinel(Box::new(Sentinels::new(sentinels, service)?))
            }
        })
    }

    async fn connect(&self, credentials: Option<&Credentials>) -> RedisResult<Line> {
        let mut config = config();
        if let Some(credentials) = credentials {
            config = config.set_credentials_provider(credentials.clone());
        }
        match self {
            Self::Node(client) => {
                let mut connection =
                    client.get_multiplexed_async_connection_with_config(&config).await?;
                // A server that wants a password refuses only commands. Without the right to `PING`, the user is known.
                match redis::cmd("PING").exec_async(&mut connection).await {
                    Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::NoPerm) => {
                        Err(error)
                    }
                    _ => Ok(Line::node(connection)),
                }
            }
            Self::Cluster(client) => {
                let cluster = client.get_async_connection().await?;
                Line::replaceable_cluster(cluster).await
            }
            Self::Sentinel(sentinels) => {
                let (connection, primary) = sentinels.connect(&config).await?;
                Ok(Line::primary_of_sentinels(connection, primary))
            }
        }
    }
}

/// Returns the settings of every connection to one server.
pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

/// Reads the URL of a server.
pub(super) fn parse(url: &str) -> Result<ConnectionInfo, RedisConnectError> {
    if ["rediss:", "valkeys:"].iter().any(|tls| url.starts_with(tls)) {
        prepare_tls()?;
    }
    let server =
        url.into_connection_info().map_err(|error| RedisConnectError::Url(error.into()))?;
    // The user and the password would end at the `/`, `?` or `#`, and their first part would be host and port.
    let is_path = matches!(server.addr(), ConnectionAddr::Unix(_));
    if !is_path && after_authority(url).contains('@') {
        return Err(RedisConnectError::Url("there is an `@` after the host".into()));
    }
    Ok(server.set_tcp_settings(tcp_settings()))
}

/// Reads the URLs of several servers.
pub(super) fn parse_all<U: AsRef<str>>(
    urls: impl IntoIterator<Item = U>,
) -> Result<Vec<ConnectionInfo>, RedisConnectError> {
    urls.into_iter().map(|url| parse(url.as_ref())).collect()
}

/// Returns path, query and fragment.
fn after_authority(url: &str) -> &str {
    let (_scheme, rest) = url.split_once("//").unwrap_or_default();
    rest.find(['/', '?', '#']).map_or("", |end| rest.get(end..).unwrap_or_default())
}

#[cfg(feature = "redis-rustls")]
#[expect(clippy::unnecessary_wraps, reason = "its twin without TLS fails")]
fn prepare_tls() -> Result<(), RedisConnectError> {
    use rustls::crypto::{CryptoProvider, ring};
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = ring::default_provider().install_default();
    }
    Ok(())
}

#[cfg(not(feature = "redis-rustls"))]
fn prepare_tls() -> Result<(), RedisConnectError> {
    Err(RedisConnectError::Tls)
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(SILENCE);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}
