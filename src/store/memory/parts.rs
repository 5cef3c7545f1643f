//! The parts of a memory store, one by one or all at once.

use std::{
    array,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    common::{Common, PARTS, part_and_slot, part_of, place},
    row::{Class, Row},
    rows::{Page, Rows},
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, SaveOutcome, Write},
};

/// Marks may take this share of the store before they make room for sessions.
const SHARE_OF_MARKS: usize = 16;

/// Entries of the indices of expiries that are looked at before other calls get their turn.
pub(super) const STEPS_AT_ONCE: usize = 256;

/// All rows of a store. Only [`all`](Self::all) takes the lock of a second part, and it takes them in their order.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) common: Arc<Common>,
    parts: [Part; PARTS],
}

/// The rows of a part and their lock. It begins a cache line of its own, since cores that share a line wait for each
/// other.
#[derive(Debug)]
#[repr(align(128))]
struct Part(Mutex<Rows>);

/// No code under this lock can panic halfway through a change, so a poisoned lock is usable.
fn lock(part: &Part) -> MutexGuard<'_, Rows> {
    part.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parts {
    pub(super) fn new(max_bytes: usize) -> Self {
        let common = Arc::new(Common::new(max_bytes));
        let parts = array::from_fn(|part| Part(Mutex::new(Rows::new(part, Arc::clone(&common)))));
        Self { common, parts }
    }

    /// Locks the part of this number.
    pub(super) fn part(&self, number: usize) -> MutexGuard<'_, Rows> {
        let [first, ..] = &self.parts;
        lock(self.parts.get(number).unwrap_or(first))
    }

    /// Locks the part of a key.
    pub(super) fn of(&self, key: &StoreKey) -> MutexGuard<'_, Rows> {
        self.part(part_of(key.as_bytes()))
    }

    /// Locks one part after the other.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Rows>> {
        self.parts.iter().map(lock)
    }

    /// Locks all parts. No other call changes the store meanwhile.
    pub(super) fn all(&self) -> All<'_> {
        All { common: &self.common, parts: self.each().collect() }
    }

    /// Saves a record in a store without room for it.
    pub(super) fn save_in_full(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        loop {
            let row = Row::new(key, record, now);
            if let Some(outcome) = self.all().save(row, write, now) {
                return outcome;
            }
            std::thread::yield_now();
        }
    }

    pub(super) fn find_by_owner(&self, owner: &OwnerKey, now: Timestamp) -> Vec<StoreKey> {
        // A row may leave its owner after the index was read, such as when its session gets a new id. The index is
        // then read again, since it may not have had the new row yet.
        loop {
            let mut keys = Vec::new();
            let is_current = self.common.places_of(owner).into_iter().all(|place| {
                let (part, slot) = part_and_slot(place);
                self.part(part).add_key_of(owner, slot, now, &mut keys)
            });
            if is_current {
                return keys;
            }
        }
    }

    /// Fills a page from this place on. Returns the place at which the next page begins, or `None` at the end.
    pub(super) fn list(&self, from: u32, page: &mut Page, now: Timestamp) -> Option<u32> {
        let (first, mut slot) = part_and_slot(from);
        for (number, part) in self.parts.iter().enumerate().skip(first) {
            if let Some(slot) = lock(part).list(slot, page, now) {
                return Some(place(number, slot));
            }
            slot = 0;
        }
        None
    }
}

/// All parts of a store, locked.
pub(super) struct All<'a> {
    common: &'a Common,
    pub(super) parts: Vec<MutexGuard<'a, Rows>>,
}

impl All<'_> {
    /// Makes room and saves a row. Returns `None` if other calls should get their turn first.
    fn save(
        mut self,
        row: Row,
        write: Write<'_>,
        now: Timestamp,
    ) -> Option<Result<SaveOutcome, StoreError>> {
        let part = part_of(row.key.as_bytes());
        let needed = self.parts.get(part)?.needed(&row, write, now);
        if !self.make_room(needed, now, &row.key)? {
            return Some(Err(StoreError::Full));
        }
        Some(self.parts.get_mut(part)?.save(row, write, now))
    }

    /// Makes room for so many bytes beside the row of `keep`. If that is impossible, it evicts nothing and returns
    /// `false`. Returns `None` if that takes too long at once.
    fn make_room(&mut self, needed: usize, now: Timestamp, keep: &StoreKey) -> Option<bool> {
        let Some(limit) = self.common.max_bytes.checked_sub(needed) else {
            return Some(false);
        };
        let mut steps = STEPS_AT_ONCE;
        for rows in &mut self.parts {
            while self.common.bytes() > limit && rows.pop_expired(now, &mut steps).is_some() {}
        }
        if steps == 0 {
            return None;
        }
        let kept = self.parts.get(part_of(keep.as_bytes())).and_then(|rows| rows.get(keep));
        let kept =
            kept.filter(|(_, row)| row.class != Class::Kept).map_or(0, |(_, row)| row.size());
        let evictable = self.parts.iter().map(|rows| rows.queues.bytes()).sum::<usize>() - kept;
        if self.common.bytes() - evictable > limit {
            return Some(false);
        }
        while self.common.bytes() > limit {
            let Some((part, slot)) = self.first_to_go(keep) else {
                return Some(false);
            };
            self.parts.get_mut(part)?.remove(slot)?;
        }
        Some(true)
    }

    /// Returns the row to evict first, other than `keep`.
    fn first_to_go(&self, keep: &StoreKey) -> Option<(usize, u32)> {
        let mark = || self.first_of(Class::Mark, keep);
        let marks = self.parts.iter().filter_map(|rows| rows.queues.of(Class::Mark));
        let marks = marks.map(|queue| queue.bytes).sum::<usize>();
        let too_many = marks > self.common.max_bytes / SHARE_OF_MARKS;
        let excess = if too_many { mark() } else { None };
        let session =
            || self.first_of(Class::New, keep).or_else(|| self.first_of(Class::Returned, keep));
        excess.or_else(session).or_else(mark)
    }

    /// Returns the row of a class that was used longest ago, other than `keep`.
    fn first_of(&self, class: Class, keep: &StoreKey) -> Option<(usize, u32)> {
        let parts = self.parts.iter().enumerate();
        let firsts = parts.filter_map(|(part, rows)| {
            let (used_at, slot) = rows.queues.of(class)?.first_but(&rows.slab, keep)?;
            Some((used_at, part, slot))
        });
        firsts.min().map(|(_, part, slot)| (part, slot))
    }
}
