//! The rows of a memory store and their indices.

use std::{collections::BTreeSet, time::Duration};

use super::{
    queues::{Class, Queues},
    table::Table,
};
use crate::{
    clock::Timestamp,
    id::{OwnerKey, StoreKey},
    store::Record,
};

/// The bytes of one session without its payload: the record, and its entries in four indices.
///
/// Measured as the docs of the store say, and rounded up.
const BYTES_PER_SESSION: usize = 448;

/// Once expired rows are handed out, the store deletes those by itself that nobody has taken for so long.
const LEFT_FOR_OTHERS: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) by_key: Table,
    pub(super) by_expiry: BTreeSet<(Timestamp, StoreKey)>,
    pub(super) by_owner: BTreeSet<(OwnerKey, StoreKey)>,
    pub(super) queues: Queues,
    pub(super) bytes: usize,
    are_handed_out: bool,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) record: Record,
    pub(super) class: Class,
    /// When the row got its place in its queue.
    pub(super) used_at: Timestamp,
}

impl Rows {
    pub(super) fn live(&self, key: &StoreKey, now: Timestamp) -> Option<&Record> {
        let row = self.by_key.get(key).map(|row| &row.record);
        row.filter(|row| row.expires_at() > now)
    }

    /// Returns a live row, and notes its use.
    pub(super) fn load(&mut self, key: &StoreKey, now: Timestamp) -> Option<Record> {
        let row = self.by_key.get_mut(key)?;
        if row.record.expires_at() > now {
            self.queues.note_use(key, row, now);
            return Some(row.record.clone());
        }
        if row.record.expires_at() <= self.expired_for_itself(now) {
            self.remove(key);
        }
        None
    }

    /// Adds a row where no live row is.
    pub(super) fn insert(&mut self, key: StoreKey, record: Record, now: Timestamp) {
        let (class, bytes) = (Class::of(&record, false), size(&record));
        let (expires_at, owner) = (record.expires_at(), owner_of(&record));
        if let Some(expired) = self.by_key.insert(key, Row { record, class, used_at: now }) {
            self.forget(&key, &expired);
        }
        self.by_expiry.insert((expires_at, key));
        owner.map(|owner| self.by_owner.insert((owner, key)));
        self.queues.add(&key, class, now, bytes);
        self.bytes += bytes;
    }

    /// Replaces a live row.
    pub(super) fn replace(&mut self, key: &StoreKey, record: Record, now: Timestamp) {
        let Some(row) = self.by_key.get_mut(key) else {
            return;
        };
        if row.record.expires_at() != record.expires_at() {
            self.by_expiry.remove(&(row.record.expires_at(), *key));
            self.by_expiry.insert((record.expires_at(), *key));
        }
        let (former, owner) = (owner_of(&row.record), owner_of(&record));
        if former != owner {
            former.map(|former| self.by_owner.remove(&(former, *key)));
            owner.map(|owner| self.by_owner.insert((owner, *key)));
        }
        self.bytes = self.bytes - size(&row.record) + size(&record);
        self.queues.replace(key, row, record, now);
    }

    pub(super) fn remove(&mut self, key: &StoreKey) -> Option<Record> {
        let row = self.by_key.remove(key)?;
        self.forget(key, &row);
        Some(row.record)
    }

    /// Removes a row from the indices.
    fn forget(&mut self, key: &StoreKey, row: &Row) {
        self.by_expiry.remove(&(row.record.expires_at(), *key));
        if let Some(owner) = owner_of(&row.record) {
            self.by_owner.remove(&(owner, *key));
        }
        self.queues.remove(key, row);
        self.bytes -= size(&row.record);
    }

    /// Removes a row that has expired at `now`.
    fn pop_expired(&mut self, now: Timestamp) -> Option<(StoreKey, Record)> {
        let (_, key) = *self.by_expiry.first().filter(|(expires_at, _)| *expires_at <= now)?;
        self.remove(&key).map(|record| (key, record))
    }

    /// Deletes at most `limit` rows that have expired at `now`. Returns how many it deleted.
    pub(super) fn delete_expired(&mut self, now: Timestamp, limit: usize) -> usize {
        (0..limit).map_while(|_| self.pop_expired(now)).count()
    }

    /// Deletes at most `limit` expired rows, unless they are handed out.
    pub(super) fn sweep(&mut self, now: Timestamp, limit: usize) -> usize {
        self.delete_expired(self.expired_for_itself(now), limit)
    }

    /// Returns the time whose expired rows the store deletes by itself.
    fn expired_for_itself(&self, now: Timestamp) -> Timestamp {
        if !self.are_handed_out {
            return now;
        }
        let millis = u64::try_from(LEFT_FOR_OTHERS.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_millis(now.as_unix_millis().saturating_sub(millis))
    }

    /// Removes at most `limit` expired rows and returns them. From then on, other calls leave expired rows to this one.
    pub(super) fn take_expired(&mut self, now: Timestamp, limit: usize) -> Vec<(StoreKey, Record)> {
        self.are_handed_out = true;
        (0..limit).map_while(|_| self.pop_expired(now)).collect()
    }

    /// Makes room for so many bytes beside the row of `keep`. If that is impossible, it evicts nothing and returns
    /// `false`.
    pub(super) fn make_room(
        &mut self,
        needed: usize,
        max_bytes: usize,
        now: Timestamp,
        keep: &StoreKey,
    ) -> bool {
        let Some(limit) = max_bytes.checked_sub(needed) else {
            return false;
        };
        if self.bytes <= limit {
            return true;
        }
        while self.bytes > limit && self.delete_expired(now, 1) == 1 {}
        let kept = self.by_key.get(keep).filter(|row| row.class != Class::Kept);
        let kept = kept.map_or(0, |row| size(&row.record));
        if self.bytes - self.queues.bytes() + kept > limit {
            return false;
        }
        while self.bytes > limit {
            let Some(key) = self.queues.first_to_go(max_bytes, keep) else {
                return false;
            };
            self.remove(&key);
        }
        true
    }

    /// Returns the keys of live sessions among the first `limit` keys after these bytes, and the last of those keys
    /// if more may follow.
    pub(super) fn list(
        &self,
        after: Option<&[u8]>,
        limit: usize,
        now: Timestamp,
    ) -> (Vec<StoreKey>, Option<StoreKey>) {
        let mut keys = self.by_key.keys_after(after, limit);
        let last = keys.last().copied().filter(|_| keys.len() == limit);
        keys.retain(|key| self.live(key, now).is_some_and(|row| !row.is_tombstone()));
        (keys, last)
    }
}

/// A tombstone belongs to no owner.
fn owner_of(record: &Record) -> Option<OwnerKey> {
    record.owner().filter(|_| !record.is_tombstone())
}

pub(super) fn size(record: &Record) -> usize {
    BYTES_PER_SESSION + record.payload().len()
}
