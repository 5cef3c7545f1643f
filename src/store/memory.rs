//! The store for one process.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use async_trait::async_trait;

use super::{SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    error::StoreError,
    id::{OwnerKey, StoreKey},
    record::{Record, Version},
};

/// Sessions in this process's memory: fast, gone at a restart, and not shared with other nodes.
///
/// Cheap to clone; clones share their sessions. It is bounded, by default to 256 MiB: expired sessions go
/// first, then the oldest without owner, and a store full of owned ones refuses new ones with
/// [`StoreError::Full`]. Expired sessions are swept as others are saved, and once a minute by a thread
/// that ends with the store.
///
/// Expiry is decided by this process's clock.
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
}

struct Shared {
    rows: Mutex<Rows>,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
    sweeping: Once,
    /// Dropped with the store, which is how the sweeping thread learns of it.
    stop: Mutex<Option<mpsc::Sender<()>>>,
}

/// What one session takes beside its payload: the entry in each of the three or four indices.
///
/// Measured with `cargo run --release --example memory_per_session`, rounded up.
const BYTES_PER_SESSION: usize = 640;

const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A save sweeps this many expired rows, so that sweeping keeps up with saving and never stalls one.
const SWEPT_PER_SAVE: usize = 4;

#[derive(Default)]
struct Rows {
    by_key: HashMap<StoreKey, Record>,
    by_expiry: BTreeSet<(Timestamp, StoreKey)>,
    /// Rows without owner, the oldest first: who makes room.
    anonymous: BTreeSet<(Timestamp, StoreKey)>,
    by_owner: HashMap<OwnerKey, HashSet<StoreKey>>,
    bytes: usize,
}

impl MemoryStore {
    /// Makes an empty store with the default bound.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts a store with options.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            max_bytes: 256 * 1024 * 1024,
            clock: Arc::new(SystemClock),
        }
    }

    /// Returns how many rows there are, tombstones and rows not yet swept included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.rows().by_key.len()
    }

    /// Says whether there is no row.
    #[must_use]
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
    /// Sets how much the store may hold, in bytes. Default: 256 MiB.
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
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore {
            shared: Arc::new(Shared {
                rows: Mutex::default(),
                max_bytes: self.max_bytes,
                clock: self.clock,
                sweeping: Once::new(),
                stop: Mutex::new(None),
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
        self.sweeping.call_once(|| {
            let (stop, stopped) = mpsc::channel();
            *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
            let shared = Arc::downgrade(self);
            let sweep = move || sweep_until(&stopped, &shared);
            let _ = thread::Builder::new()
                .name("session-sweep".to_owned())
                .spawn(sweep);
        });
    }
}

fn sweep_until(stopped: &mpsc::Receiver<()>, shared: &Weak<Shared>) {
    while stopped.recv_timeout(SWEEP_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let now = shared.now();
        // In batches, so that no request waits for a long sweep.
        while shared.rows().sweep(now, 256) == 256 {}
    }
}

impl Rows {
    fn live(&self, key: &StoreKey, now: Timestamp) -> Option<&Record> {
        self.by_key.get(key).filter(|row| row.expires_at() > now)
    }

    fn insert(&mut self, key: StoreKey, record: Record) {
        self.remove(&key);
        self.by_expiry.insert((record.expires_at(), key));
        match record.owner() {
            Some(owner) => {
                self.by_owner.entry(owner).or_default().insert(key);
            }
            None => {
                self.anonymous.insert((record.created_at(), key));
            }
        }
        self.bytes = self.bytes.saturating_add(size(&record));
        self.by_key.insert(key, record);
    }

    fn remove(&mut self, key: &StoreKey) -> Option<Record> {
        let record = self.by_key.remove(key)?;
        self.by_expiry.remove(&(record.expires_at(), *key));
        match record.owner() {
            Some(owner) => {
                if let Some(keys) = self.by_owner.get_mut(&owner) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_owner.remove(&owner);
                    }
                }
            }
            None => {
                self.anonymous.remove(&(record.created_at(), *key));
            }
        }
        self.bytes = self.bytes.saturating_sub(size(&record));
        Some(record)
    }

    fn sweep(&mut self, now: Timestamp, limit: usize) -> usize {
        let mut swept = 0;
        while swept < limit {
            match self.by_expiry.first() {
                Some(&(expires_at, key)) if expires_at <= now => {
                    self.remove(&key);
                    swept += 1;
                }
                _ => break,
            }
        }
        swept
    }

    /// Makes room for so many bytes beside `keep`'s row; false if owned sessions take it all.
    fn make_room(
        &mut self,
        needed: usize,
        max_bytes: usize,
        now: Timestamp,
        keep: &StoreKey,
    ) -> bool {
        while self.bytes.saturating_add(needed) > max_bytes {
            if self.sweep(now, 1) == 1 {
                continue;
            }
            let oldest = self.anonymous.iter().find(|(_, key)| key != keep);
            let Some(&(_, key)) = oldest else {
                return false;
            };
            self.remove(&key);
        }
        true
    }
}

fn size(record: &Record) -> usize {
    BYTES_PER_SESSION + record.payload().len()
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
        rows.insert(*key, record.clone());
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
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let swept = self.shared.rows().sweep(now, limit);
        Ok(u64::try_from(swept).unwrap_or(u64::MAX))
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let now = self.shared.now();
        let rows = self.shared.rows();
        let keys = rows.by_owner.get(owner).into_iter().flatten();
        Ok(keys
            .filter(|key| rows.live(key, now).is_some())
            .copied()
            .collect())
    }
}
