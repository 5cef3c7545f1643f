//! The task that deletes expired rows for engines that do not delete them.

use std::{
    convert::Infallible, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{SessionStore, random_part};
use crate::error::StoreError;

/// Deletes expired sessions from time to time in small batches, for stores whose engine does not delete them.
///
/// Every node may run one. Rounds begin at random times, and a round ends once a batch is not full, so several nodes
/// together do the work only once.
///
/// An error of the store is logged and never ends the task. After each error the wait until the next round doubles,
/// up to sixteen times the usual wait.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use axum_typed_session::{MemoryStore, store::Cleanup};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let store = MemoryStore::new();
/// let cleanup = Cleanup::new(store.clone()).every(Duration::from_secs(5 * 60)).spawn();
/// // serve until shutdown
/// cleanup.stop().await;
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is deleted until `run` or `spawn`"]
pub struct Cleanup {
    store: Arc<dyn SessionStore>,
    every: Duration,
    batch: u32,
}

/// The shortest pause between two batches. The pause is as long as the batch took, so that requests get their turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A batch that takes longer has failed, since the store counts as down.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);

const BATCH_TOOK_TOO_LONG: &str =
    "a batch took longer than 30 seconds; if the store is up, choose a smaller `.batch(..)`";

const LONGEST_BACKOFF: u32 = 16;

impl Cleanup {
    /// Makes a cleanup of `store`, by default once a minute in batches of 1,000 rows.
    pub fn new(store: impl SessionStore) -> Self {
        Self { store: Arc::new(store), every: Duration::from_secs(60), batch: 1000 }
    }

    /// Sets the mean time between two rounds. Default: one minute.
    ///
    /// Each wait is a random time between half and one and a half of it.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how many rows one statement deletes at most. Default: 1,000.
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows;
        self
    }

    /// Runs until `shutdown` completes.
    ///
    /// # Cancellation
    ///
    /// Safe to drop at any point. `shutdown` drops a running batch, too.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut rounds = pin!(self.rounds());
        poll_fn(|cx| match shutdown.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => rounds.as_mut().poll(cx).map(|never| match never {}),
        })
        .await;
    }

    /// Runs in a new task until the returned handle is stopped or dropped.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    pub fn spawn(self) -> CleanupTask {
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let run = self.run(async {
            // Nothing is ever sent; this ends when the sender is dropped.
            let _ = stopped.await;
        });
        CleanupTask { stop, task: tokio::spawn(run) }
    }

    async fn rounds(self) -> Infallible {
        let mut backoff = 1;
        loop {
            let wait = (self.every / 2).saturating_add(random_part(self.every));
            sleep(wait.saturating_mul(backoff).max(SHORTEST_PAUSE)).await;
            backoff = match self.round().await {
                Ok(deleted) => {
                    tracing::debug!(deleted, "expired sessions deleted");
                    1
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(%error, source, "expired sessions not deleted, trying again later");
                    (backoff * 2).min(LONGEST_BACKOFF)
                }
            };
        }
    }

    /// Deletes batches until one is not full.
    async fn round(&self) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let started = Instant::now();
            let batch = timeout(BATCH_TIMEOUT, self.store.delete_expired(self.batch)).await;
            let batch =
                batch.map_err(|_elapsed| StoreError::unavailable(BATCH_TOOK_TOO_LONG))??;
            deleted += batch;
            if batch < u64::from(self.batch) || batch == 0 {
                return Ok(deleted);
            }
            sleep(started.elapsed().max(SHORTEST_PAUSE)).await;
        }
    }
}

impl fmt::Debug for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleanup")
            .field("every", &self.every)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

/// A running [`Cleanup`]. It ends when this handle is dropped.
#[derive(Debug)]
#[must_use = "the cleanup ends when its handle is dropped"]
pub struct CleanupTask {
    stop: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

impl CleanupTask {
    /// Ends the cleanup and waits until it has ended.
    pub async fn stop(self) {
        drop(self.stop);
        // A task that panicked has ended too.
        let _ = self.task.await;
    }
}
