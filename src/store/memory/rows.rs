//! The rows of a memory store and their indices.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use super::{
    queues::Queues,
    row::{Class, Row, owner_of, size},
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, SaveOutcome, Version, Write},
};

/// Once expired rows are handed out, the store deletes by itself only those that nobody has taken for so long.
const LEFT_FOR_OTHERS: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(super) struct Rows {
    /// A sorted map, so that a page of keys needs no search and no key can collide with another. The rows are boxed,
    /// which wastes less memory in its nodes.
    pub(super) by_key: BTreeMap<StoreKey, Box<Row>>,
    pub(super) indices: Indices,
    are_handed_out: bool,
}

#[derive(Debug, Default)]
pub(super) struct Indices {
    pub(super) by_expiry: BTreeSet<(Timestamp, StoreKey)>,
    pub(super) by_owner: BTreeSet<(OwnerKey, StoreKey)>,
    pub(super) queues: Queues,
    pub(super) bytes: usize,
}

impl Indices {
    fn add(&mut self, key: &StoreKey, row: &Row, owner: Option<OwnerKey>) {
        self.by_expiry.insert((row.expires_at, *key));
        owner.map(|owner| self.by_owner.insert((owner, *key)));
        self.queues.add(key, row);
        self.bytes += row.size();
    }

    fn remove(&mut self, key: &StoreKey, row: &Row) {
        self.by_expiry.remove(&(row.expires_at, *key));
        row.owner().map(|owner| self.by_owner.remove(&(owner, *key)));
        self.queues.remove(key, row);
        self.bytes -= row.size();
    }

    fn move_expiry(&mut self, key: &StoreKey, row: &mut Row, expires_at: Timestamp) {
        if row.expires_at != expires_at {
            self.by_expiry.remove(&(row.expires_at, *key));
            self.by_expiry.insert((expires_at, *key));
            row.expires_at = expires_at;
        }
    }

    /// Replaces a live row by a record.
    fn replace(&mut self, key: &StoreKey, row: &mut Row, record: &Record, now: Timestamp) {
        let (former, owner) = (row.owner(), owner_of(record));
        if former != owner {
            former.map(|former| self.by_owner.remove(&(former, *key)));
            owner.map(|owner| self.by_owner.insert((owner, *key)));
        }
        self.move_expiry(key, row, record.expires_at());
        let class = Class::of(record, true);
        let moves = class != row.class || row.may_move(now);
        let next = Row::new(record, class, if moves { now } else { row.used_at });
        self.bytes = self.bytes - row.size() + next.size();
        if moves {
            self.queues.remove(key, row);
            self.queues.add(key, &next);
        } else {
            self.queues.resize(row, &next);
        }
        *row = next;
    }
}

impl Rows {
    pub(super) fn live(&self, key: &StoreKey, now: Timestamp) -> Option<&Row> {
        self.by_key.get(key).map(Box::as_ref).filter(|row| row.is_live(now))
    }

    /// Returns the record of a live row, and notes its use.
    pub(super) fn load(
        &mut self,
        key: &StoreKey,
        now: Timestamp,
    ) -> Result<Option<Record>, StoreError> {
        let Some(row) = self.by_key.get_mut(key) else {
            return Ok(None);
        };
        if !row.is_live(now) {
            return Err(StoreError::Expired);
        }
        self.indices.queues.note_use(key, row, now);
        row.record().map(Some)
    }

    pub(super) fn save(
        &mut self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
        now: Timestamp,
        max_bytes: usize,
    ) -> Result<SaveOutcome, StoreError> {
        if self.indices.bytes.saturating_add(size(record)) > max_bytes {
            let needed = match (self.live(key, now), write.expected()) {
                (None, None) => size(record),
                (Some(row), Some(expected)) if row.version() == expected => {
                    size(record).saturating_sub(row.size())
                }
                // Nothing is written.
                _ => 0,
            };
            if !self.make_room(needed, max_bytes, now, key) {
                return Err(StoreError::Full);
            }
        }
        let Some(row) = self.by_key.get_mut(key).filter(|row| row.is_live(now)) else {
            if write.expected().is_some() {
                return Ok(SaveOutcome::Gone);
            }
            self.insert(key, record, now);
            return Ok(SaveOutcome::Saved);
        };
        if row.version() == record.version() {
            return Ok(SaveOutcome::Saved);
        }
        if Some(row.version()) != write.expected() {
            return row.record().map(SaveOutcome::Conflict);
        }
        self.indices.replace(key, row, record, now);
        Ok(SaveOutcome::Saved)
    }

    /// Adds a row in the place of none or of an expired one.
    fn insert(&mut self, key: &StoreKey, record: &Record, now: Timestamp) {
        self.remove(key);
        let row = Row::new(record, Class::of(record, false), now);
        self.indices.add(key, &row, owner_of(record));
        self.by_key.insert(*key, Box::new(row));
    }

    pub(super) fn touch(
        &mut self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        match self.by_key.get_mut(key).filter(|row| row.is_live(now)) {
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version => row.record().map(SaveOutcome::Conflict),
            Some(row) => {
                if row.expires_at < expires_at {
                    self.indices.move_expiry(key, row, expires_at);
                }
                self.indices.queues.note_use(key, row, now);
                Ok(SaveOutcome::Saved)
            }
        }
    }

    pub(super) fn remove(&mut self, key: &StoreKey) -> Option<Box<Row>> {
        let row = self.by_key.remove(key)?;
        self.indices.remove(key, &row);
        Some(row)
    }

    /// Removes a row that has expired at `now`.
    fn pop_expired(&mut self, now: Timestamp) -> Option<(StoreKey, Box<Row>)> {
        let (expires_at, key) = *self.indices.by_expiry.first()?;
        if expires_at > now {
            return None;
        }
        self.remove(&key).map(|row| (key, row))
    }

    /// Deletes at most `limit` rows that have expired at `now`. Returns how many it deleted.
    pub(super) fn delete_expired(&mut self, now: Timestamp, limit: usize) -> usize {
        (0..limit).map_while(|_| self.pop_expired(now)).count()
    }

    /// Deletes at most `limit` expired rows, unless they are handed out.
    pub(super) fn sweep(&mut self, now: Timestamp, limit: usize) -> usize {
        self.delete_expired(self.expired_for_itself(now), limit)
    }

    /// Returns the time of which the store deletes expired rows by itself.
    fn expired_for_itself(&self, now: Timestamp) -> Timestamp {
        if !self.are_handed_out {
            return now;
        }
        let millis = u64::try_from(LEFT_FOR_OTHERS.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_millis(now.as_unix_millis().saturating_sub(millis))
    }

    /// Removes at most `limit` expired rows and returns them. From then on, the store leaves expired rows to this
    /// method.
    pub(super) fn take_expired(&mut self, now: Timestamp, limit: usize) -> Vec<(StoreKey, Record)> {
        self.are_handed_out = true;
        let expired = (0..limit).map_while(|_| self.pop_expired(now));
        expired.filter_map(|(key, row)| Some((key, row.record().ok()?))).collect()
    }

    /// Makes room for so many bytes beside the row of `keep`. If that is impossible, it evicts nothing and returns
    /// `false`.
    fn make_room(
        &mut self,
        needed: usize,
        max_bytes: usize,
        now: Timestamp,
        keep: &StoreKey,
    ) -> bool {
        let Some(limit) = max_bytes.checked_sub(needed) else {
            return false;
        };
        while self.indices.bytes > limit && self.delete_expired(now, 1) == 1 {}
        let kept = self.by_key.get(keep).filter(|row| row.class != Class::Kept);
        let evictable = self.indices.queues.bytes() - kept.map_or(0, |row| row.size());
        if self.indices.bytes - evictable > limit {
            return false;
        }
        while self.indices.bytes > limit {
            let Some(key) = self.indices.queues.first_to_go(max_bytes, keep) else {
                return false;
            };
            self.remove(&key);
        }
        true
    }

    pub(super) fn find_by_owner(&self, owner: &OwnerKey, now: Timestamp) -> Vec<StoreKey> {
        let (first, last) = (StoreKey::from_bytes([0; 32]), StoreKey::from_bytes([0xff; 32]));
        let keys = self.indices.by_owner.range((*owner, first)..=(*owner, last));
        let keys = keys.map(|(_, key)| *key);
        keys.filter(|key| self.live(key, now).is_some()).collect()
    }

    /// Returns the keys of live sessions among the first `limit` keys after this one, and the last of those keys if
    /// more may follow.
    pub(super) fn list(
        &self,
        after: Option<StoreKey>,
        limit: usize,
        now: Timestamp,
    ) -> (Vec<StoreKey>, Option<StoreKey>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = || self.by_key.range((start, Bound::Unbounded)).take(limit);
        let live = rows().filter(|(_, row)| row.is_live(now) && row.class != Class::Mark);
        let last = rows().nth(limit - 1).map(|(key, _)| *key);
        (live.map(|(key, _)| *key).collect(), last)
    }
}
