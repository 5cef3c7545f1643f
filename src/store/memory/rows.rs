//! The rows of a part of a memory store, and their indices.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    common::{Common, MOST_SLOTS, place},
    queues::Queues,
    row::{Class, Row},
    slab::Slab,
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, SaveOutcome, Version, Write},
};

#[derive(Debug)]
pub(super) struct Rows {
    part: usize,
    pub(super) common: Arc<Common>,
    /// The slots of the rows by their keys. The hash has a random key of its own, so that nobody can choose session
    /// ids whose hashes collide.
    pub(super) by_key: HashMap<StoreKey, u32>,
    pub(super) slab: Slab,
    /// The slot of each row once, at the time [`Row::indexed_at`], which is never later than the expiry of the row.
    pub(super) by_expiry: BTreeSet<(Timestamp, u32)>,
    pub(super) queues: Queues,
}

impl Rows {
    pub(super) fn new(part: usize, common: Arc<Common>) -> Self {
        Self {
            part,
            common,
            by_key: HashMap::new(),
            slab: Slab::new(MOST_SLOTS),
            by_expiry: BTreeSet::new(),
            queues: Queues::default(),
        }
    }

    pub(super) fn get(&self, key: &StoreKey) -> Option<(u32, &Row)> {
        let slot = *self.by_key.get(key)?;
        Some((slot, self.slab.get(slot)?))
    }

    fn live(&self, key: &StoreKey, now: Timestamp) -> Option<(u32, &Row)> {
        self.get(key).filter(|(_, row)| row.is_live(now))
    }

    /// Returns the record of a live row, and notes its use.
    pub(super) fn load(
        &mut self,
        key: &StoreKey,
        now: Timestamp,
    ) -> Result<Option<Record>, StoreError> {
        let Some((slot, row)) = self.get(key) else {
            return Ok(None);
        };
        if !row.is_live(now) {
            return Err(StoreError::Expired);
        }
        let record = row.record();
        if row.moves_when_used(now) {
            self.move_to(Class::Returned, slot, now);
        }
        record.map(Some)
    }

    /// Moves a row to the end of the queue of a class.
    fn move_to(&mut self, class: Class, slot: u32, now: Timestamp) {
        self.queues.remove(&mut self.slab, slot);
        if let Some(row) = self.slab.get_mut(slot) {
            (row.class, row.used_at) = (class, now);
        }
        self.queues.add(&mut self.slab, slot);
    }

    /// Writes a row if the stored row is as `write` expects. [`StoreError::Full`] means that nothing was written,
    /// because there is no room for the row.
    pub(super) fn save(
        &mut self,
        row: Row,
        write: Write<'_>,
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let Some((slot, held)) = self.live(&row.key, now) else {
            if write.expected().is_some() {
                return Ok(SaveOutcome::Gone);
            }
            return self.insert(row);
        };
        if held.version == row.version {
            return Ok(SaveOutcome::Saved);
        }
        if Some(held.version) != write.expected() {
            return held.conflict();
        }
        self.replace(slot, row, now)
    }

    /// Returns how many bytes more the store needs for this write.
    pub(super) fn needed(&self, row: &Row, write: Write<'_>, now: Timestamp) -> usize {
        match (self.live(&row.key, now), write.expected()) {
            (None, None) => row.size(),
            (Some((_, held)), Some(expected)) if held.version == expected => {
                row.size().saturating_sub(held.size())
            }
            // Nothing is written.
            _ => 0,
        }
    }

    /// Adds a row in the place of none or of an expired one.
    fn insert(&mut self, row: Row) -> Result<SaveOutcome, StoreError> {
        let (key, expires_at, owner) = (row.key, row.expires_at, row.owner());
        self.destroy(&key);
        if self.slab.is_full() || !self.common.recount(0, row.size()) {
            return Err(StoreError::Full);
        }
        let slot = self.slab.insert(row).ok_or(StoreError::Full)?;
        self.by_key.insert(key, slot);
        self.by_expiry.insert((expires_at, slot));
        self.queues.add(&mut self.slab, slot);
        self.common.change_owner(place(self.part, slot), None, owner);
        Ok(SaveOutcome::Saved)
    }

    /// Replaces a live row. The row moves in its queue only if it would for another use.
    fn replace(&mut self, slot: u32, row: Row, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        let Some(held) = self.slab.get_mut(slot) else {
            return Ok(SaveOutcome::Gone);
        };
        if !self.common.recount(held.size(), row.size()) {
            return Err(StoreError::Full);
        }
        self.common.change_owner(place(self.part, slot), held.owner(), row.owner());
        self.queues.resize(held, row.size());
        if row.expires_at < held.indexed_at {
            self.by_expiry.remove(&(held.indexed_at, slot));
            self.by_expiry.insert((row.expires_at, slot));
            held.indexed_at = row.expires_at;
        }
        (held.version, held.expires_at, held.data) = (row.version, row.expires_at, row.data);
        let class = row.class.saved_again();
        if class != held.class || held.may_move(now) {
            self.move_to(class, slot, now);
        }
        Ok(SaveOutcome::Saved)
    }

    pub(super) fn touch(
        &mut self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let (slot, moves) = match self.live(key, now) {
            None => return Ok(SaveOutcome::Gone),
            Some((_, row)) if row.version != version => {
                return row.conflict();
            }
            Some((slot, row)) => (slot, row.moves_when_used(now)),
        };
        if let Some(row) = self.slab.get_mut(slot) {
            row.expires_at = row.expires_at.max(expires_at);
        }
        if moves {
            self.move_to(Class::Returned, slot, now);
        }
        Ok(SaveOutcome::Saved)
    }

    pub(super) fn destroy(&mut self, key: &StoreKey) {
        if let Some((slot, _)) = self.get(key) {
            self.remove(slot);
        }
    }

    /// Removes a live row if it is at this version.
    pub(super) fn destroy_at(
        &mut self,
        key: &StoreKey,
        version: Version,
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        match self.live(key, now) {
            None => Ok(SaveOutcome::Gone),
            Some((_, row)) if row.version != version => row.conflict(),
            Some((slot, _)) => {
                self.remove(slot);
                Ok(SaveOutcome::Saved)
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Row> {
        self.queues.remove(&mut self.slab, slot);
        let row = self.slab.remove(slot)?;
        self.by_key.remove(&row.key);
        self.by_expiry.remove(&(row.indexed_at, slot));
        self.common.change_owner(place(self.part, slot), row.owner(), None);
        self.common.recount(row.size(), 0);
        Some(row)
    }

    /// Removes a row that has expired at `now`. Returns `None` if there is none, or after so many steps. Each step
    /// looks at one entry of the index: it removes the row, or moves the entry to the time at which the row expires.
    pub(super) fn pop_expired(&mut self, now: Timestamp, steps: &mut usize) -> Option<Row> {
        while *steps > 0 {
            let (indexed_at, slot) = *self.by_expiry.first()?;
            if indexed_at > now {
                return None;
            }
            *steps -= 1;
            let row = self.slab.get_mut(slot)?;
            if !row.is_live(now) {
                return self.remove(slot);
            }
            row.indexed_at = row.expires_at;
            self.by_expiry.pop_first();
            self.by_expiry.insert((row.indexed_at, slot));
        }
        None
    }

    /// Deletes expired rows in so many steps, unless they are handed out.
    pub(super) fn sweep(&mut self, now: Timestamp, steps: &mut usize) {
        let expired = self.common.expired_for_itself(now);
        while self.pop_expired(expired, steps).is_some() {}
    }

    /// Adds the key of a row to those of its owner if it is live. Returns `false` if the row is no longer this owner's.
    pub(super) fn add_key_of(
        &self,
        owner: &OwnerKey,
        slot: u32,
        now: Timestamp,
        keys: &mut Vec<StoreKey>,
    ) -> bool {
        let row = self.slab.get(slot).filter(|row| row.owner() == Some(*owner));
        keys.extend(row.filter(|row| row.is_live(now)).map(|row| row.key));
        row.is_some()
    }

    /// Looks at the slots from this one on, and adds the keys of live sessions to a page. Returns the slot at which the
    /// next page begins if this page is full.
    pub(super) fn list(&self, from: u32, page: &mut Page, now: Timestamp) -> Option<u32> {
        for slot in from..self.slab.slots() {
            if page.keys.len() == page.most_keys || page.slots_left == 0 {
                return Some(slot);
            }
            page.slots_left -= 1;
            let row = self.slab.get(slot).filter(|row| row.is_live(now));
            page.keys.extend(row.filter(|row| row.class != Class::Mark).map(|row| row.key));
        }
        None
    }
}

/// A page of keys that is being filled.
pub(super) struct Page {
    pub(super) keys: Vec<StoreKey>,
    pub(super) most_keys: usize,
    /// How many slots may still be looked at, since many may be free.
    pub(super) slots_left: usize,
}
