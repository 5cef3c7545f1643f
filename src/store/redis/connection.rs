//! Commands to one server or to a cluster, and which of them may be sent twice.

use std::{sync::Arc, time::Duration};

use redis::{
    Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cluster_routing::SingleNodeRoutingInfo,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use crate::error::BoxError;

/// How long a server may take to answer; half of the default `store_timeout`, so that what is logged is
/// the store's own error.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one attempt to connect may take, greeting and login included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long `connect` may take, name resolution and all nodes of a cluster included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command that was turned away is sent again: a slot that moves, a server that loads.
const PATIENCE: Duration = Duration::from_millis(300);
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// How many commands a cluster's connection carries at once; the others wait their turn.
///
/// The driver runs a connection to a cluster as one task, which on a redirection pauses every command to
/// ask where the slots are. A command that tokio's budget of 128 steps stopped while it held the table of
/// slots would never let go of it, and the connection would be dead (redis 1.8.1, tokio 1.54.1). One command
/// takes four steps at most between two pauses of the task.
const CLUSTER_CONCURRENCY: usize = 24;

/// After this long without a sign of life the kernel gives up a connection, where it can be told to.
/// A host that vanished would otherwise fail every command until TCP gives up, after 15 minutes.
const SILENCE: Duration = Duration::from_secs(5);

/// Why [`RedisStore::connect`](super::RedisStore::connect) failed. None of it shows a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConnectError {
    /// The text is not a URL of a Redis server.
    #[error(
        "not a Redis URL; write redis://[user:password@]host[:port][/database], rediss:// for TLS, \
         or unix:///path"
    )]
    Url(#[source] BoxError),

    /// A `rediss://` URL in a build without TLS.
    #[error("a rediss:// URL needs the feature `redis-rustls` of axum-typed-session")]
    Tls,

    /// The server did not accept the connection.
    #[error("cannot connect to Redis at {address}")]
    Refused {
        /// Host and port, or the path of a socket.
        address: String,
        /// The driver's error.
        source: BoxError,
    },

    /// The server did not answer.
    #[error("Redis at {address} did not answer within {after:?}")]
    Timeout {
        /// Host and port, or the path of a socket.
        address: String,
        /// How long it was given.
        after: Duration,
    },
}

/// A connection that renews itself; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Node(ConnectionManager),
    Cluster {
        connection: ClusterConnection,
        turns: Arc<Semaphore>,
    },
}

impl Connection {
    pub(super) async fn node(url: &str) -> Result<Self, RedisConnectError> {
        let server = parse(url)?;
        let address = server.addr().to_string();
        // Without retries of its own a manager fails at once while the server is down; `call` tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let manager = async {
            let client = redis::Client::open(server)?;
            ConnectionManager::new_with_config(client, config).await
        };
        connected(address, manager).await.map(Self::Node)
    }

    pub(super) async fn cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, RedisConnectError> {
        let nodes = urls.into_iter().map(|url| parse(url.as_ref()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        // Its retries would include commands that may have been carried out; `call` tells them apart.
        let builder = ClusterClientBuilder::new(nodes)
            .retries(0)
            .connection_timeout(CONNECTION_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .tcp_settings(tcp_settings());
        let cluster = async { builder.build()?.get_async_connection().await };
        let cluster = connected(addresses.join(", "), cluster).await?;
        Ok(Self::from(cluster))
    }

    /// Sends a command until it is answered, as long as that makes sense.
    ///
    /// A command that was turned away (a slot that moves, no connection yet) is sent again for a while.
    /// One whose connection broke, and which may have been carried out, is sent once more; `lost` tells. One
    /// that timed out is not: the next would time out too.
    pub(super) async fn call(
        &self,
        command: &Cmd,
        lost: &mut Option<RedisError>,
    ) -> RedisResult<Value> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.send(command).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if was_turned_away(&error) && started.elapsed() < PATIENCE {
                sleep(pause).await;
                pause *= 2;
            } else if error.is_connection_dropped() && lost.is_none() {
                *lost = Some(error);
            } else {
                return Err(error);
            }
        }
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Node(manager) => command.query_async(&mut manager.clone()).await,
            Self::Cluster { connection, turns } => {
                // Nobody closes the semaphore.
                let _turn = turns.acquire().await;
                let mut cluster = connection.clone();
                match command.query_async(&mut cluster).await {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {
                        ask(cluster, command, error).await
                    }
                    answer => answer,
                }
            }
        }
    }
}

impl From<ClusterConnection> for Connection {
    fn from(connection: ClusterConnection) -> Self {
        Self::Cluster {
            connection,
            turns: Arc::new(Semaphore::new(CLUSTER_CONCURRENCY)),
        }
    }
}

/// Follows the redirection of a slot that is being moved: the key is there already, or new.
async fn ask(
    mut cluster: ClusterConnection,
    command: &Cmd,
    redirection: RedisError,
) -> RedisResult<Value> {
    let Some(node) = redirection.redirect_node().and_then(|(node, _slot)| {
        let (host, port) = node.rsplit_once(':')?;
        Some(SingleNodeRoutingInfo::ByAddress {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }) else {
        return Err(redirection);
    };
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").add_command(command.clone());
    let mut answers = cluster.route_pipeline(pipeline, 0, 2, node).await?;
    match answers.pop() {
        Some(answer) => answer.extract_error(),
        None => Err(redirection),
    }
}

/// Says whether the server, or the lack of one, certainly kept the command from being carried out.
fn was_turned_away(error: &RedisError) -> bool {
    error.is_connection_refusal()
        || matches!(
            error.kind(),
            ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(
                    ServerErrorKind::Moved
                        | ServerErrorKind::Ask
                        | ServerErrorKind::TryAgain
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                        | ServerErrorKind::BusyLoading
                )
        )
}

async fn connected<C>(
    address: String,
    connecting: impl Future<Output = RedisResult<C>>,
) -> Result<C, RedisConnectError> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(RedisConnectError::Refused {
            address,
            source: error.into(),
        }),
        Err(_elapsed) => Err(RedisConnectError::Timeout {
            address,
            after: CONNECT_TIMEOUT,
        }),
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, RedisConnectError> {
    if ["rediss:", "valkeys:"]
        .iter()
        .any(|tls| url.starts_with(tls))
    {
        prepare_tls()?;
    }
    let server = url
        .into_connection_info()
        .map_err(|error| RedisConnectError::Url(error.into()))?;
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
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}
