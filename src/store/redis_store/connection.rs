//! Commands to one server or to a cluster, and which of them may be sent twice.

use std::{io, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    connect::{self, RESPONSE_TIMEOUT, RedisConnectError, Target},
    line::{Address, Line, Primaries},
};
use crate::store::connect_error::one_line;

/// How long a command is sent again if no server carried it out, because a slot moves or a server still loads its
/// data. Also how long a command waits for a connection while the server is down.
const PATIENCE: Duration = Duration::from_millis(300);
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between two attempts to connect. It is well below [`PATIENCE`], so that the first command after
/// the server is back finds it.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// How long after one attempt to replace a line that still works the next may follow, or after a password was refused.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// A connection that renews itself; clones share it.
#[derive(Clone)]
pub(super) struct Connection(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    /// Makes a new line; `None` for a connection that the application made.
    target: Option<Target>,
    /// Held while a line is made, and for a pause after it.
    renewal: Arc<Semaphore>,
}

struct State {
    /// `None` until the first connection is made.
    line: Option<Arc<Line>>,
    /// The time of the last attempt to replace a line that still worked.
    replaced: Option<Instant>,
    /// The pause after the last attempt.
    pause: Duration,
    /// The error of the last attempt.
    failure: Option<RedisError>,
}

impl Connection {
    /// Connects now.
    pub(super) async fn to(target: Target) -> Result<Self, RedisConnectError> {
        let line = target.connect().await?;
        Ok(Self::new(Some(line), Some(target)))
    }

    /// Connects when a command needs it.
    pub(super) fn later_to(target: Target) -> Self {
        Self::new(None, Some(target))
    }

    /// Uses a connection that the application made.
    pub(super) fn over(line: Line) -> Self {
        Self::new(Some(line), None)
    }

    fn new(line: Option<Line>, target: Option<Target>) -> Self {
        let state =
            State { line: line.map(Arc::new), replaced: None, pause: FIRST_PAUSE, failure: None };
        Self(Arc::new(Shared {
            state: watch::Sender::new(state),
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
        self.call_at(command, None, lost).await
    }

    /// Does the same. On a cluster, the command goes to the node instead of the primary of its key.
    pub(super) async fn call_at(
        &self,
        command: &Cmd,
        node: Option<&Address>,
        lost: &mut Option<RedisError>,
    ) -> RedisResult<Value> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        // What few calls await is boxed, so that the future of each call stays small.
        loop {
            let line = self.line(started).await?;
            // The caller of an earlier command may have dropped it.
            self.look_after(&line);
            let Some(answer) = line.send(command, node).await else {
                continue;
            };
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.look_after(&line);
            let was_turned_away = was_turned_away(&error) || connect::is_unauthenticated(&error);
            if was_turned_away && started.elapsed() < PATIENCE {
                Box::pin(sleep(pause)).await;
                pause *= 2;
            } else if error.is_connection_dropped() && lost.is_none() {
                *lost = Some(error);
            } else {
                return Err(error);
            }
        }
    }

    /// Returns the primaries that together have all keys.
    pub(super) async fn primaries(&self) -> RedisResult<Primaries> {
        self.line(Instant::now()).await?.primaries().await
    }

    /// Returns a line over which a command may be sent, and waits for it if there is none.
    async fn line(&self, started: Instant) -> RedisResult<Arc<Line>> {
        let usable = self.0.state.borrow().usable_line();
        match usable {
            Some(line) => Ok(line),
            None => Box::pin(self.wait_for_line(started)).await,
        }
    }

    async fn wait_for_line(&self, started: Instant) -> RedisResult<Arc<Line>> {
        let mut state = self.0.state.subscribe();
        loop {
            let failure = {
                let state = state.borrow_and_update();
                if let Some(line) = state.usable_line() {
                    return Ok(line);
                }
                state.failure.clone()
            };
            self.renew();
            let patience = if failure.is_some() { PATIENCE } else { RESPONSE_TIMEOUT };
            if timeout_at(started + patience, state.changed()).await.is_err() {
                return Err(
                    failure.unwrap_or_else(|| io::Error::from(io::ErrorKind::TimedOut).into())
                );
            }
        }
    }

    /// Replaces a line that seems dead or out of date, in the background. Until then all commands use the old line.
    fn look_after(&self, line: &Arc<Line>) {
        let may_be_replaced = || {
            let state = self.0.state.borrow();
            let is_present = state.line.as_ref().is_some_and(|present| Arc::ptr_eq(present, line));
            is_present && state.replaced.is_none_or(|at| at.elapsed() >= RENEWAL_PAUSE)
        };
        if line.is_due() || (line.is_doubtful() && may_be_replaced()) {
            self.renew();
        }
    }

    /// Makes a new line in the background, unless that is under way.
    fn renew(&self) {
        let shared = &self.0;
        if shared.target.is_none() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Ok(turn) = shared.renewal.clone().try_acquire_owned() else {
            return;
        };
        let shared = shared.clone();
        runtime.spawn(async move {
            let pause = shared.renew().await;
            let weak = Arc::downgrade(&shared);
            drop(shared);
            sleep(pause).await;
            drop(turn);
            if let Some(shared) = weak.upgrade() {
                // Wakes the commands that wait, so that one of them begins the next attempt.
                shared.state.send_modify(|_| ());
            }
        });
    }
}

impl Shared {
    /// Makes a new line unless the present one is as good, and returns the pause after it.
    async fn renew(&self) -> Duration {
        let Some(target) = &self.target else { return Duration::ZERO };
        let old = self.state.borrow().line.clone();
        if let Some(old) = &old
            && target.keeps(old).await
        {
            self.state.send_modify(|state| {
                // The sentinels were asked only whether the line is up to date, not whether it works.
                if old.primary().is_none() {
                    state.replaced = Some(Instant::now());
                }
            });
            return Duration::ZERO;
        }
        let address = target.address();
        let attempt = target.connect().await;
        match &attempt {
            Ok(_) => tracing::info!(address, "connected to Redis"),
            Err(error) => tracing::debug!(
                error = one_line(error),
                "could not connect to Redis; the next command tries again"
            ),
        }
        self.state.send_modify(|state| state.end_attempt(attempt));
        self.state.borrow().pause
    }
}

impl State {
    fn usable_line(&self) -> Option<Arc<Line>> {
        self.line.as_ref().filter(|line| line.is_usable()).cloned()
    }

    /// Takes the new line, if there is one and it is better than the present one.
    fn end_attempt(&mut self, attempt: Result<Line, RedisConnectError>) {
        if self.usable_line().is_some() {
            self.replaced = Some(Instant::now());
        }
        match attempt {
            Ok(new) => {
                self.pause = FIRST_PAUSE;
                self.failure = None;
                let old = self.line.as_ref();
                if old.is_none_or(|old| !old.is_usable() || new.improves(old))
                    && let Some(old) = self.line.replace(Arc::new(new))
                {
                    old.close();
                }
            }
            Err(error) => {
                self.pause = if error.is_unauthenticated() {
                    RENEWAL_PAUSE
                } else {
                    LONGEST_PAUSE.min(self.pause * 2)
                };
                // A text, since the driver's error cannot be cloned out of this one.
                let error = io::Error::other(one_line(&error));
                self.failure = Some(error.into());
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
