//! Making connections to one server or to a cluster.

use std::time::Duration;

use redis::{
    ConnectionInfo, IntoConnectionInfo, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterClientBuilder},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::timeout;

use super::line::Line;
use crate::error::BoxError;

/// How long a server may take to answer. It is half of the default `store_timeout`, so that the log shows the
/// store's own error.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one attempt to connect may take, greeting and login included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long `connect` may take, name resolution and all nodes of a cluster included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel closes a connection after this time without a packet, if the platform allows to set it. Otherwise
/// every command to a host that vanished would fail until TCP gives up, after 15 minutes.
const SILENCE: Duration = Duration::from_secs(5);

/// The error of [`RedisStore::connect`](super::RedisStore::connect) and
/// [`RedisStore::connect_cluster`](super::RedisStore::connect_cluster).
///
/// No text of it shows a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConnectError {
    /// The text is not the URL of a Redis server.
    #[error(
        "this is not the URL of a Redis server; write redis://[user:password@]host[:port][/database], rediss:// for TLS, \
         or unix:///path"
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

/// The server or the cluster to connect to, as often as needed.
pub(super) struct Target {
    /// Host and port, or the path of a socket; those of a cluster's nodes with commas between.
    address: String,
    client: Client,
}

enum Client {
    Node(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
}

impl Target {
    pub(super) fn node(url: &str) -> Result<Self, RedisConnectError> {
        let server = parse(url)?;
        let address = server.addr().to_string();
        match redis::Client::open(server) {
            Ok(client) => Ok(Self { address, client: Client::Node(Box::new(client)) }),
            Err(error) => Err(refused(&address, error)),
        }
    }

    pub(super) fn cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, RedisConnectError> {
        let nodes = urls.into_iter().map(|url| parse(url.as_ref()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        let address = addresses.join(", ");
        // Its retries would include commands that may have been carried out; `call` tells them apart.
        let builder = ClusterClientBuilder::new(nodes)
            .retries(0)
            .connection_timeout(CONNECTION_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .tcp_settings(tcp_settings());
        match builder.build() {
            Ok(client) => Ok(Self { address, client: Client::Cluster(Box::new(client)) }),
            Err(error) => Err(refused(&address, error)),
        }
    }

    /// Connects once.
    pub(super) async fn connect(&self) -> Result<Line, RedisConnectError> {
        match timeout(CONNECT_TIMEOUT, self.client.connect()).await {
            Ok(line) => line.map_err(|error| refused(&self.address, error)),
            Err(_elapsed) => Err(RedisConnectError::Timeout {
                address: self.address.clone(),
                after: CONNECT_TIMEOUT,
            }),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Client {
    async fn connect(&self) -> RedisResult<Line> {
        match self {
            Self::Node(client) => {
                // Without retries of its own a manager fails at once while the server is down; `call`
                // tries again.
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(CONNECTION_TIMEOUT))
                    .set_response_timeout(Some(RESPONSE_TIMEOUT));
                let manager =
                    ConnectionManager::new_with_config((**client).clone(), config).await?;
                Ok(Line::node(manager))
            }
            Self::Cluster(client) => {
                let cluster = client.get_async_connection().await?;
                Line::replaceable_cluster(cluster).await
            }
        }
    }
}

fn refused(address: &str, error: redis::RedisError) -> RedisConnectError {
    RedisConnectError::Refused { address: address.to_owned(), source: error.into() }
}

fn parse(url: &str) -> Result<ConnectionInfo, RedisConnectError> {
    if ["rediss:", "valkeys:"].iter().any(|tls| url.starts_with(tls)) {
        prepare_tls()?;
    }
    let server =
        url.into_connection_info().map_err(|error| RedisConnectError::Url(error.into()))?;
    Ok(server.set_tcp_settings(tcp_settings()))
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
