//! Commands to one server or to a cluster, and which of them may be sent twice.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    connect::{RedisConnectError, Target},
    line::Line,
};

/// How long a command is sent again if no server carried it out, because a slot moves or a server still loads its
/// data.
const PATIENCE: Duration = Duration::from_millis(300);
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// How long after one attempt to replace a line the next may follow.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// A connection that renews itself; clones share it.
#[derive(Clone)]
pub(super) struct Connection(Arc<Shared>);

struct Shared {
    line: RwLock<Arc<Line>>,
    /// Makes a new line; `None` for a connection that the application made.
    target: Option<Target>,
    /// Held while the line is replaced, and for a pause after it.
    renewal: Arc<Semaphore>,
}

impl Connection {
    pub(super) async fn to(target: Target) -> Result<Self, RedisConnectError> {
        let line = target.connect().await?;
        Ok(Self::new(line, Some(target)))
    }

    pub(super) fn new(line: Line, target: Option<Target>) -> Self {
        Self(Arc::new(Shared {
            line: RwLock::new(Arc::new(line)),
            target,
            renewal: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Sends a command until it is answered, as long as that makes sense.
    ///
    /// A command that no server carried out, because a slot moves or there is no connection yet, is sent again for
    /// a while. A command whose connection broke may have been carried out; it is sent once more, and `lost` holds
    /// the error of the first try. A command that timed out is not sent again, because the next one would time out
    /// too.
    pub(super) async fn call(
        &self,
        command: &Cmd,
        lost: &mut Option<RedisError>,
    ) -> RedisResult<Value> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let line = self.0.line();
            // The caller of an earlier command may have dropped it.
            self.look_after(&line);
            let Some(answer) = line.send(command).await else {
                continue;
            };
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.look_after(&line);
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

    /// Replaces a line that seems dead, in the background. Until then all commands use the old line.
    fn look_after(&self, line: &Arc<Line>) {
        let shared = &self.0;
        if !line.is_doubtful() || shared.target.is_none() || !Arc::ptr_eq(line, &shared.line()) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Ok(turn) = shared.renewal.clone().try_acquire_owned() else {
            return;
        };
        let (shared, line) = (shared.clone(), line.clone());
        runtime.spawn(async move {
            shared.renew(&line).await;
            drop((shared, line));
            sleep(RENEWAL_PAUSE).await;
            drop(turn);
        });
    }
}

impl Shared {
    fn line(&self) -> Arc<Line> {
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }

    async fn renew(&self, old: &Line) {
        let Some(target) = &self.target else { return };
        if old.is_up_to_date().await {
            return;
        }
        let address = target.address();
        match target.connect().await {
            Ok(new) if new.improves(old) => {
                let mut line = self.line.write().unwrap_or_else(PoisonError::into_inner);
                *line = Arc::new(new);
                drop(line);
                old.close();
                tracing::info!(address, "reconnected to Redis");
            }
            Ok(_) => {}
            Err(error) => {
                let source = std::error::Error::source(&error).map(tracing::field::display);
                tracing::debug!(%error, source, "could not reconnect to Redis; the next command tries again");
            }
        }
    }
}

/// Returns `true` if the command was certainly not carried out: no server was reached, or the server refused it.
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
