//! The store for one process.

mod rows;

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use self::rows::{Rows, size};
use super::{SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, Version},
};

/// Sessions in this process's memory: fast, gone at a restart, and not shared with other nodes.
///
/// Cheap to clone; clones share their sessions. Expiry is decided by this process's clock. Expired
/// sessions go when they are loaded, as others are saved, and once a minute by a thread that the first
/// save starts and that ends with the store.
///
/// # How much it holds
///
/// It is bounded, by default to 256 MiB: expired sessions go first, then the oldest without owner. A
/// store that is still full refuses with [`StoreError::Full`] and loses nothing: it evicts no session that
/// has an owner, and no tombstone, since an id that was replaced or revoked must not read as one that
/// never was.
///
/// Measured over a million sessions of 243 bytes (64-bit Linux, glibc), the process grew by 631 bytes for
/// each, and by 666 for each with an owner. The bound counts 448 bytes and the payload, so the default
/// holds about 388,000 of these. `cargo run --release --features testing --example memory_per_session`
/// measures it again.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// What [`MemoryStore::builder`] returns.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryStoreBuilder {
    max_bytes: usize,
    clock: Arc<dyn Clock>,
    sweep_every: Duration,
}

struct Shared {
    rows: Mutex<Rows>,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
    sweep_every: Duration,
    /// Dropped with the store, which is how the sweeping thread learns of it.
    stop: OnceLock<mpsc::Sender<()>>,
}

/// A save sweeps this many expired rows, so that sweeping keeps up with saving and never stalls one.
const SWEPT_PER_SAVE: usize = 4;

/// A long sweep gives the lock back after so many rows.
const SWEPT_AT_ONCE: usize = 256;

impl MemoryStore {
    /// Makes an empty store with the default bound.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts a store with options.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            max_bytes: 256 * 1024 * 1024,
            clock: Arc::new(SystemClock),
            sweep_every: Duration::from_secs(60),
        }
    }

    /// Returns how many rows there are, tombstones and rows not yet swept included.
    pub fn len(&self) -> usize {
        self.shared.rows().by_key.len()
    }

    /// Says whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .field("max_bytes", &self.shared.max_bytes)
            .finish_non_exhaustive()
    }
}

impl MemoryStoreBuilder {
    /// Sets how much the store may hold, in bytes of this process's memory. Default: 256 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets where now comes from. Default: the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the store. Needs no runtime.
    pub fn build(self) -> MemoryStore {
        MemoryStore {
            shared: Arc::new(Shared {
                rows: Mutex::default(),
                max_bytes: self.max_bytes,
                clock: self.clock,
                sweep_every: self.sweep_every,
                stop: OnceLock::new(),
            }),
        }
    }
}

impl fmt::Debug for MemoryStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStoreBuilder")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Nothing under this lock runs code that could panic halfway through a change.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Starts the thread that frees what an idle store holds; saves sweep too, so it may fail to start.
    fn start_sweeping(self: &Arc<Self>) {
        self.stop.get_or_init(|| {
            let (stop, stopped) = mpsc::channel();
            let (shared, every) = (Arc::downgrade(self), self.sweep_every);
            let sweep = move || sweep_until(&stopped, every, &shared);
            let _ = thread::Builder::new().name("session-sweep".to_owned()).spawn(sweep);
            stop
        });
    }
}

fn sweep_until(stopped: &mpsc::Receiver<()>, every: Duration, shared: &Weak<Shared>) {
    while stopped.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let now = shared.now();
        while shared.rows().sweep(now, SWEPT_AT_ONCE) == SWEPT_AT_ONCE {
            thread::yield_now();
        }
    }
}

/// Lets whoever else is ready go first, whatever the runtime.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let now = self.shared.now();
        let mut rows = self.shared.rows();
        let row = rows.live(key, now).cloned();
        if row.is_none() {
            rows.remove(key);
        }
        Ok(row)
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        self.shared.start_sweeping();
        let now = self.shared.now();
        let mut rows = self.shared.rows();
        rows.sweep(now, SWEPT_PER_SAVE);
        let held = match (rows.live(key, now), write) {
            (Some(row), _) if row.version() == record.version() => return Ok(SaveOutcome::Saved),
            (Some(row), Write::Update { expected }) if row.version() == expected => size(row),
            (Some(row), Write::Create | Write::Update { .. }) => {
                return Ok(SaveOutcome::Conflict(row.clone()));
            }
            (None, Write::Update { .. }) => return Ok(SaveOutcome::Gone),
            (None, Write::Create) => 0,
        };
        let needed = size(record).saturating_sub(held);
        if !rows.make_room(needed, self.shared.max_bytes, now, key) {
            return Err(StoreError::Full);
        }
        // A copy of its own, so that no larger buffer stays behind it.
        let payload = Bytes::copy_from_slice(record.payload());
        rows.insert(*key, Record { payload, ..record.clone() });
        Ok(SaveOutcome::Saved)
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.shared.rows().remove(key);
        Ok(())
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let now = self.shared.now();
        let mut rows = self.shared.rows();
        match rows.live(key, now) {
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version => Ok(SaveOutcome::Conflict(row.clone())),
            Some(row) => {
                if row.expires_at() < expires_at {
                    let touched = row.clone().with_expires_at(expires_at);
                    rows.insert(*key, touched);
                }
                Ok(SaveOutcome::Saved)
            }
        }
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let now = self.shared.now();
        let mut rows = self.shared.rows();
        match rows.live(key, now) {
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version => Ok(SaveOutcome::Conflict(row.clone())),
            Some(_) => {
                rows.remove(key);
                Ok(SaveOutcome::Saved)
            }
        }
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let now = self.shared.now();
        let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut deleted = 0;
        while left > 0 {
            let batch = left.min(SWEPT_AT_ONCE);
            let swept = self.shared.rows().sweep(now, batch);
            deleted += swept as u64;
            left -= swept;
            if swept < batch {
                break;
            }
            yield_now().await;
        }
        Ok(deleted)
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let now = self.shared.now();
        let (first, last) = (StoreKey::from_bytes([0; 32]), StoreKey::from_bytes([0xff; 32]));
        let rows = self.shared.rows();
        let keys = rows.by_owner.range((*owner, first)..=(*owner, last));
        let keys = keys.map(|(_, key)| *key);
        Ok(keys.filter(|key| rows.live(key, now).is_some()).collect())
    }
}

#[cfg(test)]
mod tests;
