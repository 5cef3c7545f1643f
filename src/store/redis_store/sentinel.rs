//! The sentinels, and the primary that they name.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult, Role,
    aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};

use super::connect::{self, CONNECTION_TIMEOUT};
use crate::error::BoxError;

/// After this time, a sentinel is asked again whether the primary is still the same.
const DUE: Duration = Duration::from_millis(500);

/// After this time without a word from a sentinel, no command is sent to the primary.
///
/// A primary that hung or was cut off, and was replaced meanwhile, acknowledges writes for some seconds after it is
/// back. Sentinels discard these writes.
const OUTDATED: Duration = Duration::from_millis(1500);

/// So long after a sentinel named a primary, an older answer of the others is ignored.
///
/// One sentinel promotes a replica and tells the others, at the latest after two seconds. An operator who sets up a
/// service anew lets the epochs begin anew.
const MEMORY: Duration = Duration::from_secs(10);

/// The sentinels of one service.
pub(super) struct Sentinels {
    service: String,
    nodes: Vec<Sentinel>,
    /// How to connect to the primary, with the name of the service as its host.
    server: ConnectionInfo,
    /// The latest answer, and the time of it.
    known: Mutex<Option<(Instant, Answer)>>,
}

struct Sentinel {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// Host and port.
type Address = (String, u16);

/// The epoch of a sentinel's configuration, and the primary in it.
type Answer = (u64, Address);

/// A primary of which the sentinels said that it is one.
pub(super) struct Primary {
    address: Address,
    confirmed: Mutex<Instant>,
}

impl Primary {
    /// Returns `true` if it is time to ask the sentinels again.
    pub(super) fn is_due(&self) -> bool {
        lock(&self.confirmed).elapsed() > DUE
    }

    /// Returns `true` if the sentinels may have replaced this primary.
    pub(super) fn is_outdated(&self) -> bool {
        lock(&self.confirmed).elapsed() > OUTDATED
    }
}

impl Sentinels {
    pub(super) fn new(sentinels: Vec<ConnectionInfo>, server: ConnectionInfo) -> RedisResult<Self> {
        let (ConnectionAddr::Tcp(service, _) | ConnectionAddr::TcpTls { host: service, .. }) =
            server.addr()
        else {
            return Err(failure("the URL of the service has no host"));
        };
        let service = service.clone();
        let sentinels = sentinels.into_iter().map(|sentinel| {
            let client = Client::open(sentinel)?;
            Ok(Sentinel { client, connection: Mutex::default() })
        });
        let nodes = sentinels.collect::<RedisResult<_>>()?;
        Ok(Self { service, nodes, server, known: Mutex::default() })
    }

    /// Connects to the primary, and returns an error if the server is none.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, Primary)> {
        let asked = Instant::now();
        let address = self.primary().await?;
        let server = Client::open(self.server_at(&address))?;
        let mut connection = server.get_multiplexed_async_connection_with_config(config).await?;
        let role = redis::cmd("ROLE").query_async(&mut connection).await?;
        if matches!(role, Role::Primary { .. }) {
            return Ok((connection, Primary { address, confirmed: Mutex::new(asked) }));
        }
        let (host, port) = address;
        Err(failure(format!("the sentinels name {host}:{port}, which is a replica")))
    }

    /// Returns `true` if the sentinels still name this primary.
    pub(super) async fn confirm(&self, primary: &Primary) -> bool {
        let asked = Instant::now();
        let is_confirmed = self.primary().await.is_ok_and(|address| address == primary.address);
        if is_confirmed {
            *lock(&primary.confirmed) = asked;
        }
        is_confirmed
    }

    /// Asks the sentinels for the primary until a majority has answered. The latest configuration wins, also one that
    /// is known from before. If none answers, the primary is the last that they named.
    async fn primary(&self) -> RedisResult<Address> {
        let mut answers: FuturesUnordered<_> =
            self.nodes.iter().map(|sentinel| sentinel.primary(&self.service)).collect();
        let (mut latest, mut missing) = (None, self.nodes.len() / 2 + 1);
        let mut failure = failure("there is no sentinel to ask");
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    missing -= 1;
                    latest = latest.max(Some(answer));
                    if missing == 0 {
                        break;
                    }
                }
                Err(error) => failure = error,
            }
        }
        let mut known = lock(&self.known);
        match (latest, &*known) {
            (Some(latest), Some((at, newer))) if *newer > latest && at.elapsed() < MEMORY => {}
            (Some(latest), _) => *known = Some((Instant::now(), latest)),
            (None, _) => {
                tracing::debug!(error = %failure, "no sentinel answers; a failover would go unnoticed");
            }
        }
        let (_at, (_epoch, address)) = known.clone().ok_or(failure)?;
        Ok(address)
    }

    fn server_at(&self, address: &Address) -> ConnectionInfo {
        let (host, port) = address.clone();
        let address =
            if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = self.server.addr() {
                let (insecure, tls_params) = (*insecure, tls_params.clone());
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            } else {
                ConnectionAddr::Tcp(host, port)
            };
        self.server.clone().set_addr(address)
    }
}

impl Sentinel {
    async fn primary(&self, service: &str) -> RedisResult<Answer> {
        match timeout(CONNECTION_TIMEOUT, self.ask(service)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    async fn ask(&self, service: &str) -> RedisResult<Answer> {
        // Taken, so that a connection without an answer is not used again.
        let open = lock(&self.connection).take();
        if let Some(connection) = open
            && let Ok(answer) = self.ask_over(connection, service).await
        {
            return Ok(answer);
        }
        let config = connect::config();
        let new = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.ask_over(new, service).await
    }

    async fn ask_over(
        &self,
        mut connection: MultiplexedConnection,
        service: &str,
    ) -> RedisResult<Answer> {
        // In one step, since during a failover the first answer has the old address beside the new epoch.
        let mut questions = redis::pipe();
        questions.cmd("SENTINEL").arg("MASTER").arg(service);
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let (master, address): (HashMap<String, String>, Address) =
            questions.query_async(&mut connection).await?;
        *lock(&self.connection) = Some(connection);
        let epoch = master.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        Ok((epoch.unwrap_or_default(), address))
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(reason: impl Into<BoxError>) -> RedisError {
    RedisError::from(io::Error::other(reason))
}
