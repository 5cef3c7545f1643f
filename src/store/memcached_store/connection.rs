//! Commands to the server, over a bounded number of connections.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_memcached::{Client, Error, ErrorKind, MetaProtocol as _, MetaValue, Status};
use tokio::{sync::Semaphore, time::timeout};

use super::connect::{MemcachedConnectError, Server};
use crate::error::{BoxError, StoreError};

/// How long the server may take to answer, with the wait for a connection. It is half of the default
/// `store_timeout`, so that the log shows the store's own error.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long `connect` may take, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection carries one command at a time. A server allows 1,024 connections unless told otherwise.
const CONNECTIONS: usize = 32;

/// The key that `connect` asks for, to see that the server knows the command.
const ANY_KEY: &str = "axum-typed-session";

pub(super) enum Command {
    Get,
    Set { row: Vec<u8>, ttl: i32, condition: Condition },
    Delete { token: Option<u64> },
}

/// What a write expects of the row.
pub(super) enum Condition {
    Absent,
    Token(u64),
}

/// What the server says of a command that it carried out.
pub(super) struct Answer {
    /// The row that was read; empty after a write.
    pub(super) row: Vec<u8>,
    /// The compare-and-swap token of the row. Zero after a delete.
    pub(super) token: u64,
}

pub(super) enum Failure {
    /// The connection broke. It is unknown whether the command took effect.
    Lost(StoreError),
    Other(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(error) | Failure::Other(error) => error,
        }
    }
}

/// Connections to one server, made when they are needed.
pub(super) struct Connections {
    server: Server,
    idle: Mutex<Vec<Client>>,
    turns: Semaphore,
}

impl Connections {
    pub(super) fn new(server: Server) -> Self {
        Self { server, idle: Mutex::default(), turns: Semaphore::new(CONNECTIONS) }
    }

    /// Connects and asks for a key, so that a server that cannot be used is noticed.
    pub(super) async fn check(&self) -> Result<(), MemcachedConnectError> {
        let address = || self.server.address().to_owned();
        match timeout(CONNECT_TIMEOUT, self.exchange(ANY_KEY, &Command::Get)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                Err(MemcachedConnectError::Refused { address: address(), source: explain(error) })
            }
            Err(_elapsed) => {
                Err(MemcachedConnectError::Timeout { address: address(), after: CONNECT_TIMEOUT })
            }
        }
    }

    /// Sends a command. Returns `None` if there is no row, or if the row is not as the command expects.
    ///
    /// # Cancellation
    ///
    /// Dropping the future closes its connection, so that its answer cannot be taken for that of another command.
    pub(super) async fn call(
        &self,
        key: &str,
        command: &Command,
    ) -> Result<Option<Answer>, Failure> {
        match timeout(RESPONSE_TIMEOUT, self.exchange(key, command)).await {
            Ok(Ok(value)) => value.map(|value| answer(command, value)).transpose(),
            Ok(Err(error)) if matches!(error, Error::Io(_) | Error::ConnectionClosed) => {
                self.forget_idle();
                Err(Failure::Lost(StoreError::unavailable(error)))
            }
            Ok(Err(error)) => Err(Failure::Other(store_error(error))),
            Err(_elapsed) => {
                self.forget_idle();
                let problem = format!("memcached did not answer within {RESPONSE_TIMEOUT:?}");
                Err(Failure::Other(StoreError::unavailable(problem)))
            }
        }
    }

    /// Sends a command that may be carried out twice, again if its connection broke.
    pub(super) async fn repeat(
        &self,
        key: &str,
        command: &Command,
    ) -> Result<Option<Answer>, StoreError> {
        let answer = match self.call(key, command).await {
            Err(Failure::Lost(_)) => self.call(key, command).await,
            answer => answer,
        };
        answer.map_err(StoreError::from)
    }

    async fn exchange(&self, key: &str, command: &Command) -> Result<Option<MetaValue>, Error> {
        // Nothing closes the semaphore.
        let _turn = self.turns.acquire().await.map_err(|_closed| Error::ConnectionClosed)?;
        let idle = self.idle().pop();
        let mut client = match idle {
            Some(client) => client,
            None => self.server.connect().await?,
        };
        let answer = command.send(&mut client, key).await;
        if !client.is_closed() {
            self.idle().push(client);
        }
        answer
    }

    /// Closes the idle connections. If one connection is dead, the others probably are too.
    fn forget_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Command {
    /// Returns `None` if there is no row, or if the row is not as the command expects.
    async fn send(&self, client: &mut Client, key: &str) -> Result<Option<MetaValue>, Error> {
        let token = |token| format!("C{token}");
        let answer = match self {
            Self::Get => return client.meta_get(key, false, None, Some(&["v", "c"])).await,
            Self::Set { row, ttl, condition } => {
                let ttl = format!("T{ttl}");
                let condition = match condition {
                    Condition::Absent => "ME".to_owned(),
                    Condition::Token(expected) => token(expected),
                };
                let flags = [&*ttl, &*condition, "c"];
                client.meta_set(key, &**row, false, None, Some(&flags)).await
            }
            Self::Delete { token: None } => client.meta_delete(key, false, None, None).await,
            Self::Delete { token: Some(expected) } => {
                client.meta_delete(key, false, None, Some(&[&token(expected)])).await
            }
        };
        match answer {
            // Servers send a token with a refusal too, and the driver then returns a value.
            Ok(Some(MetaValue { status: Some(status), .. })) if is_refusal(&status) => Ok(None),
            Err(Error::Protocol(status)) if is_refusal(&status) => Ok(None),
            Ok(value) => Ok(Some(value.unwrap_or_default())),
            Err(error) => Err(error),
        }
    }
}

/// Returns `true` if the row is not as the command expects.
fn is_refusal(status: &Status) -> bool {
    matches!(status, Status::NotStored | Status::Exists | Status::NotFound)
}

fn answer(command: &Command, value: MetaValue) -> Result<Answer, Failure> {
    let token = value.cas.unwrap_or_default();
    if token == 0 && !matches!(command, Command::Delete { .. }) {
        let problem = "memcached compares no versions; start it without `-C` (`--disable-cas`)";
        return Err(Failure::Other(StoreError::unavailable(problem)));
    }
    Ok(Answer { row: value.data.unwrap_or_default(), token })
}

fn store_error(error: Error) -> StoreError {
    if let Error::Protocol(Status::Error(ErrorKind::Server(text))) = &error {
        if text.starts_with("out of memory") {
            return StoreError::Full;
        }
        if text.starts_with("object too large") {
            let problem = "memcached refused the session as too large, and ended it; keep less data in it, lower \
                           `.max_payload(..)`, or start the server with at least `-I 1m`";
            return StoreError::unavailable(problem);
        }
    }
    StoreError::unavailable(explain(error))
}

/// Returns the error of the driver, or a better text.
fn explain(error: Error) -> BoxError {
    if let Error::Protocol(Status::Error(ErrorKind::NonexistentCommand)) = error {
        return "the server does not know the meta commands; memcached 1.6 or later is needed"
            .into();
    }
    error.into()
}
