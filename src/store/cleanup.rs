//! The task that deletes expired sessions in engines that do not delete them.

use std::{
    convert::Infallible, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Record, SessionStore, random_part};
use crate::{error::StoreError, id::StoreKey};

/// Deletes expired sessions from time to time, for a store whose engine does not delete them.
///
/// [`SqliteStore`](crate::SqliteStore), [`PostgresStore`](crate::PostgresStore) and
/// [`MySqlStore`](crate::MySqlStore) need it. [`MemoryStore`](crate::MemoryStore) and
/// [`RedisStore`](crate::RedisStore) delete expired sessions by themselves.
///
/// A round deletes full batches until a batch is not full. Every node may run a cleanup: rounds begin at random
/// times, so several nodes share the work.
///
/// An error of the store is logged as a WARN and never ends the task. After each error, the wait until the next
/// round doubles, up to sixteen times the usual wait.
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
/// // Serve requests until the shutdown.
/// cleanup.stop().await;
/// # }
/// ```
#[doc(alias("deletion task", "continuously_delete_expired", "ExpiredDeletion", "purge", "sweep"))]
#[derive(Clone)]
#[must_use = "call `run` or `spawn`; until then nothing is deleted"]
pub struct Cleanup {
    store: Arc<dyn SessionStore>,
    every: Duration,
    batch: u32,
    observers: Vec<Arc<Observer>>,
}

/// Sees each expired row that the cleanup has deleted.
type Observer = dyn Fn(&StoreKey, &Record) + Send + Sync;

/// The shortest pause between two batches. The pause is as long as the batch took, so that requests get their turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A batch that takes longer has failed, since the store counts as down.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);

const BATCH_TOOK_TOO_LONG: &str =
    "a batch took longer than 30 seconds; if the store is up, set a smaller `.batch(..)`";

const LONGEST_BACKOFF: u32 = 16;

impl Cleanup {
    /// Makes a cleanup of `store`: one round a minute, in batches of 1,000 sessions. Nothing runs yet; see the
    /// example of [`Cleanup`].
    pub fn new(store: impl SessionStore) -> Self {
        let (every, observers) = (Duration::from_secs(60), Vec::new());
        Self { store: Arc::new(store), every, batch: 1000, observers }
    }

    pub(crate) fn observed(
        mut self,
        observer: impl Fn(&StoreKey, &Record) + Send + Sync + 'static,
    ) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Sets the mean time between two rounds. Default: 1 minute.
    ///
    /// Each wait is a random time between half of it and one and a half times of it. See the example of
    /// [`Cleanup`].
    #[doc(alias("interval", "period"))]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how many sessions one call of the store deletes at most. Default: 1,000.
    ///
    /// A smaller batch blocks other writers of the database for a shorter time. A batch that takes more than 30
    /// seconds counts as an error of the store.
    ///
    /// # Example
    ///
    /// ```
    /// # use axum_typed_session::MemoryStore;
    /// use axum_typed_session::store::Cleanup;
    ///
    /// # let store = MemoryStore::new();
    /// let cleanup = Cleanup::new(store).batch(200);
    /// ```
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows;
        self
    }

    /// Runs the cleanup until `shutdown` completes. [`spawn`](Self::spawn) runs it in a task of its own instead.
    ///
    /// It needs the timer of a Tokio runtime.
    ///
    /// # Example
    ///
    /// ```
    /// # use axum_typed_session::MemoryStore;
    /// use axum_typed_session::store::Cleanup;
    ///
    /// async fn clean(store: MemoryStore) {
    ///     let stop = async { let _ = tokio::signal::ctrl_c().await; };
    ///     Cleanup::new(store).run(stop).await;
    /// }
    /// ```
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. When `shutdown` completes, a running batch is dropped too. With
    /// [`report_to`](Self::report_to) the batch goes on, and `run` waits for it, for at most 30 seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let telling = Arc::default();
        {
            let mut shutdown = pin!(shutdown);
            // Dropped before the wait below: a round that waits for its turn would get the lock and never let it go.
            let mut rounds = pin!(self.rounds(Arc::clone(&telling)));
            poll_fn(|cx| match shutdown.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => rounds.as_mut().poll(cx).map(|never| match never {}),
            })
            .await;
        }
        // The rows of a running batch may be deleted already, and nobody else would tell of them.
        let _ = timeout(BATCH_TIMEOUT, telling.lock()).await;
    }

    /// Runs the cleanup in a new task, until the returned [`CleanupTask`] is stopped or dropped.
    ///
    /// See the example of [`Cleanup`].
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

    async fn rounds(self, telling: Arc<Mutex<()>>) -> Infallible {
        let mut backoff = 1;
        if self.tells() {
            // From the first call on, a store in memory leaves expired rows to its callers.
            let _ = timeout(BATCH_TIMEOUT, self.store.take_expired(0)).await;
        } else if !self.observers.is_empty() {
            tracing::warn!(
                "this store does not return expired sessions, so `.on_end(..)` is not called when a session expires"
            );
        }
        loop {
            let wait = (self.every / 2).saturating_add(random_part(self.every));
            sleep(wait.saturating_mul(backoff).max(SHORTEST_PAUSE)).await;
            backoff = match self.round(&telling).await {
                Ok(deleted) => {
                    tracing::debug!(deleted, "expired sessions were deleted");
                    1
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(%error, source, "expired sessions were not deleted; the next round tries again");
                    (backoff * 2).min(LONGEST_BACKOFF)
                }
            };
        }
    }

    /// Deletes batches until one is not full.
    async fn round(&self, telling: &Arc<Mutex<()>>) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let started = Instant::now();
            let batch = timeout(BATCH_TIMEOUT, self.delete_batch(telling)).await;
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

impl Cleanup {
    fn tells(&self) -> bool {
        !self.observers.is_empty() && self.store.returns_expired()
    }

    /// Deletes a batch. If observers see its rows, it holds `telling`, and goes on if the future is dropped.
    pub(crate) async fn delete_batch(&self, telling: &Arc<Mutex<()>>) -> Result<u64, StoreError> {
        if !self.tells() {
            return self.store.delete_expired(self.batch).await;
        }
        let (this, telling) = (self.clone(), Arc::clone(telling).lock_owned().await);
        let batch = tokio::spawn(async move {
            let _telling = telling;
            this.tell_batch().await
        });
        batch.await.unwrap_or_else(|failed| Err(StoreError::unavailable(failed)))
    }

    /// A store may return fewer rows than it is asked for although more are left.
    async fn tell_batch(&self) -> Result<u64, StoreError> {
        let mut left = self.batch;
        loop {
            let expired = self.store.take_expired(left).await?;
            for (key, record) in &expired {
                self.observers.iter().for_each(|observe| observe(key, record));
            }
            left = left.saturating_sub(u32::try_from(expired.len()).unwrap_or(u32::MAX));
            if expired.is_empty() || left == 0 {
                return Ok(u64::from(self.batch - left));
            }
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
///
/// Keep the handle as long as the server runs. [`Cleanup`] shows an example.
#[derive(Debug)]
#[must_use = "the cleanup ends when this handle is dropped; keep it as long as the server runs"]
pub struct CleanupTask {
    stop: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

impl CleanupTask {
    /// Ends the cleanup and waits until its task has ended. A running batch is dropped, except with
    /// [`report_to`](Cleanup::report_to).
    ///
    /// # Cancellation
    ///
    /// If you drop the future, the cleanup ends too, but nothing waits for it.
    pub async fn stop(self) {
        drop(self.stop);
        // A task that panicked has ended too.
        let _ = self.task.await;
    }
}
