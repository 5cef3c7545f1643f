//! The store in the memory of one process.

mod common;
mod parts;
mod queues;
mod row;
mod rows;
mod slab;

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, OnceLock, Weak, atomic::Ordering, mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use async_trait::async_trait;

use self::{
    common::PARTS,
    parts::{Parts, STEPS_AT_ONCE},
    row::Row,
    rows::Page,
};
use super::{Cursor, KeyPage, SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, Timestamp},
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, Version},
};

/// Keeps sessions in the memory of this process. A restart loses them, and other nodes do not see them.
///
/// Use it for tests, for development and for one small node. [`stores`](crate::guide::stores) compares all stores.
/// Cloning is cheap, and clones share their sessions.
///
/// # Example
///
/// ```
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use axum_typed_session::{MemoryStore, SessionManager};
///
/// let store = MemoryStore::builder().max_bytes(64 * 1024 * 1024).build();
/// let sessions = SessionManager::<Visits>::builder().store(store).build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
///
/// # Capacity
///
/// The store is bounded, by default to 256 MiB. A full store makes room in this order:
///
/// 1. expired sessions;
/// 2. *marks* of ids that were replaced moments ago, while all marks take more than a sixteenth of the bound;
/// 3. sessions without an owner that were saved once and never loaded, the oldest first;
/// 4. the other sessions without an owner. The session that was used longest ago goes first. The store notes the use
///    of a session at most once a minute;
/// 5. the other marks.
///
/// If that is not enough, a save is [`StoreError::Full`], and no session is lost. The store never deletes a live
/// session that has an owner, or an entry of a [revocation list](crate::SessionManagerBuilder::revocations). A load
/// outside a request, such as by [`SessionManager::load`](crate::SessionManager::load), is a use too.
///
/// A mark lives for at least ten seconds. It tells requests that were sent with the old id, before the new cookie
/// arrived, from requests with an unknown id. If a full store deletes it early, the old id stays invalid. But such a
/// request then begins a session of its own, whose cookie replaces the new cookie in the browser. A sign-out with the
/// old id then does not end the session that has the new id.
///
/// What clients can do to the sessions of others, for each MiB of the bound and with 11 bytes of data in a session:
///
/// | a client sends | where the oldest session always goes first | in this store |
/// |---|---|---|
/// | requests without a cookie | the oldest login ends after 2,716 | any number ends no session that came back; one that did not come back ends after 2,716 |
/// | two requests for each new session | the oldest login ends after 5,432 | the session that was used longest ago ends after 5,430 |
/// | changes of its id, with [`owner`](crate::SessionManagerBuilder::owner) | every login is a 503 after about 2,750 within ten seconds | any number ends no session and refuses no login |
///
/// The tests in `tests/api/memory_attacks.rs` have these numbers.
///
/// Measured with a million sessions of 243 bytes (64-bit Linux, glibc): the process grew by 506 bytes for each
/// session, and by 595 bytes for each session with an owner. The bound counts 352 bytes and the [`Record::to_bytes`] of
/// each session, so the default holds about 430,000 of these sessions. The memory of a session that ended is used for
/// another one. To measure it again, run `cargo bench --manifest-path benches/Cargo.toml --bench memory`.
///
/// # Speed
///
/// A load is one search in a hash table. It also takes a lock of one of 32 parts of the store, so requests on several
/// cores seldom wait for each other. Only a save in a full store takes the locks of all parts. The hash has a random
/// key, so chosen session ids cannot make the table slow.
///
/// # Expiry
///
/// The clock of this process decides when a session expires. An expired session is deleted when another session of the
/// same part is saved, when a full store needs its room, or by a thread that runs once a minute. The first save starts
/// this thread, and the thread ends with the store. No [`Cleanup`](crate::store::Cleanup) is needed, except for
/// [`on_end`](crate::SessionManagerBuilder::on_end).
///
/// From the first [`take_expired`](SessionStore::take_expired) on, even with the limit 0, the store leaves expired
/// sessions to that method, except where it needs their room. It then deletes by itself only sessions that expired an
/// hour ago.
///
/// # Pages
///
/// A page of [`list`](SessionStore::list) looks at 1,000 places of sessions. Places of ended sessions count too, so a
/// page may have few keys or none before the last page. A page of `take_expired` has at most 128 sessions. While a page
/// is read, other calls to one part of the store wait. With a million sessions, a page of keys took 0.01 ms and a page of
/// expired sessions took up to 0.2 ms, in the median of the benchmark above.
///
/// # Cancellation
///
/// Every operation except [`delete_expired`](SessionStore::delete_expired) and `take_expired` completes the first time
/// that it is polled. If the future of `take_expired` is dropped, the sessions that it removed are lost.
#[doc(alias("in-memory", "moka", "HashMap"))]
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// The options of a [`MemoryStore`]. [`MemoryStore::builder`] starts it, and [`MemoryStore`] shows an example.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryStoreBuilder {
    max_bytes: usize,
    /// The clock of the operating system, if there is none.
    clock: Option<Arc<dyn Clock>>,
    sweep_every: Duration,
}

struct Shared {
    parts: Parts,
    clock: Option<Arc<dyn Clock>>,
    sweep_every: Duration,
    /// Dropped with the store, which ends the sweeping thread.
    stop: OnceLock<mpsc::Sender<()>>,
}

/// A save sweeps this many expired rows: enough to keep up with saving, and too few to delay a save for long.
const SWEPT_PER_SAVE: usize = 4;

/// A page of expired rows has no more, since rows take longer to be handed out than to be deleted.
const TAKEN_AT_ONCE: usize = 128;

/// A page of keys looks at this many slots, so it has no more keys.
const LISTED_AT_ONCE: usize = 1000;

impl MemoryStore {
    /// Makes an empty store with the default options: at most 256 MiB, by the system's clock.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts the options of a store. [`MemoryStore`] shows an example.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            max_bytes: 256 * 1024 * 1024,
            clock: None,
            sweep_every: Duration::from_secs(60),
        }
    }

    /// Returns the number of stored sessions. The number includes marks of replaced or ended ids, and expired
    /// sessions that are not deleted yet.
    pub fn len(&self) -> usize {
        self.shared.parts.each().map(|rows| rows.by_key.len()).sum()
    }

    /// Returns `true` if [`len`](Self::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes at most `limit` rows that have expired at `now`. It lets other tasks run after a number of steps.
    async fn remove_expired(&self, now: Timestamp, limit: usize, mut each: impl FnMut(Row)) {
        let (mut part, mut removed, mut steps) = (0, 0, STEPS_AT_ONCE);
        while part < PARTS && removed < limit {
            let expired = self.shared.parts.part(part).pop_expired(now, &mut steps);
            match expired {
                Some(row) => {
                    removed += 1;
                    each(row);
                }
                None if steps > 0 => part += 1,
                None => {
                    yield_now().await;
                    steps = STEPS_AT_ONCE;
                }
            }
        }
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
            .field("max_bytes", &self.shared.parts.common.max_bytes)
            .finish_non_exhaustive()
    }
}

impl MemoryStoreBuilder {
    /// Sets how many bytes of memory the store may take. Default: 268,435,456 bytes (256 MiB).
    ///
    /// [`MemoryStore`](MemoryStore#capacity) says how the bytes are counted, and shows an example.
    #[doc(alias("capacity", "limit"))]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the clock by which sessions expire. Default: [`SystemClock`](crate::SystemClock).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{MemoryStore, testing::ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let store = MemoryStore::builder().clock(clock.clone()).build();
    /// ```
    #[doc(alias("mock", "mock time"))]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Makes the store. It needs no async runtime and cannot fail.
    pub fn build(self) -> MemoryStore {
        MemoryStore {
            shared: Arc::new(Shared {
                parts: Parts::new(self.max_bytes),
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
    fn now(&self) -> Timestamp {
        Timestamp::by(self.clock.as_deref())
    }

    /// Starts the thread that deletes expired rows of an idle store. It does no harm if the thread cannot start,
    /// because saves delete expired rows too.
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
        for part in 0..PARTS {
            let mut steps = 0;
            while steps == 0 {
                steps = STEPS_AT_ONCE;
                shared.parts.part(part).sweep(now, &mut steps);
                thread::yield_now();
            }
        }
    }
}

/// Lets other tasks run first, on any runtime.
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

/// Returns the place of a cursor. One that another store made begins somewhere.
fn place_of(cursor: &Cursor) -> u32 {
    cursor.as_bytes().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let now = self.shared.now();
        self.shared.parts.of(key).load(key, now)
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        self.shared.start_sweeping();
        let now = self.shared.now();
        let row = Row::new(key, record, now);
        let saved = {
            let mut rows = self.shared.parts.of(key);
            rows.sweep(now, &mut { SWEPT_PER_SAVE });
            rows.save(row, write, now)
        };
        match saved {
            Err(StoreError::Full) => self.shared.parts.save_in_full(key, record, write, now),
            saved => saved,
        }
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.shared.parts.of(key).destroy(key);
        Ok(())
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let now = self.shared.now();
        self.shared.parts.of(key).touch(key, version, expires_at, now)
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let now = self.shared.now();
        self.shared.parts.of(key).destroy_at(key, version, now)
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let now = self.shared.now();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut deleted = 0;
        self.remove_expired(now, limit, |_| deleted += 1).await;
        Ok(deleted)
    }

    async fn take_expired(&self, limit: u32) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        self.shared.parts.common.are_handed_out.store(true, Ordering::Relaxed);
        let now = self.shared.now();
        let limit = usize::try_from(limit).map_or(TAKEN_AT_ONCE, |limit| limit.min(TAKEN_AT_ONCE));
        let mut taken = Vec::new();
        self.remove_expired(now, limit, |row| {
            taken.extend(row.record().map(|record| (row.key, record)));
        })
        .await;
        Ok(taken)
    }

    fn returns_expired(&self) -> bool {
        true
    }

    async fn list(&self, after: Option<&Cursor>, limit: u32) -> Result<KeyPage, StoreError> {
        let now = self.shared.now();
        let limit =
            usize::try_from(limit).map_or(LISTED_AT_ONCE, |limit| limit.min(LISTED_AT_ONCE));
        let mut page =
            Page { keys: Vec::new(), most_keys: limit.max(1), slots_left: LISTED_AT_ONCE };
        let next = self.shared.parts.list(after.map_or(0, place_of), &mut page, now);
        Ok(KeyPage { keys: page.keys, next: next.map(|place| Cursor::new(place.to_be_bytes())) })
    }

    fn lists_sessions(&self) -> bool {
        true
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    fn survives_restart(&self) -> bool {
        false
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let now = self.shared.now();
        Ok(self.shared.parts.find_by_owner(owner, now))
    }
}

#[cfg(test)]
mod tests;
