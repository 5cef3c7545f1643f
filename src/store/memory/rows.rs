//! The rows of a memory store and their indices.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use crate::{
    clock::Timestamp,
    id::{OwnerKey, StoreKey},
    store::Record,
};

/// The bytes of one session without its payload: the record, and its entries in three indices.
///
/// Measured as the docs of the store say, and rounded up.
const BYTES_PER_SESSION: usize = 448;

#[derive(Default)]
pub(super) struct Rows {
    /// Boxed, because a growing table moves its entries under the lock.
    pub(super) by_key: HashMap<StoreKey, Box<Record>, BuildHasherDefault<StartOfKey>>,
    pub(super) by_expiry: BTreeSet<(Timestamp, StoreKey)>,
    /// The rows that may be evicted, the oldest first.
    pub(super) evictable: BTreeSet<(Timestamp, StoreKey)>,
    pub(super) by_owner: BTreeSet<(OwnerKey, StoreKey)>,
    pub(super) bytes: usize,
    pub(super) evictable_bytes: usize,
}

/// Takes the start of a key for its hash.
///
/// A key is an output of SHA-256, so its bytes are as evenly spread as those of a hash. Clients cannot choose keys
/// that collide: this crate makes rows only under ids that the server drew.
#[derive(Default)]
pub(super) struct StartOfKey(u64);

impl Hasher for StartOfKey {
    /// `Hash` writes the length of an array first. The bytes then replace it.
    fn write(&mut self, bytes: &[u8]) {
        if let Some(start) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*start);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Rows {
    pub(super) fn live(&self, key: &StoreKey, now: Timestamp) -> Option<&Record> {
        let row = self.by_key.get(key).map(Box::as_ref);
        row.filter(|row| row.expires_at() > now)
    }

    pub(super) fn insert(&mut self, key: StoreKey, record: Record) {
        if let Some(row) = self.by_key.get_mut(&key)
            && row.owner() == record.owner()
            && row.created_at() == record.created_at()
            && is_evictable(row) == is_evictable(&record)
        {
            // The usual update: only the expiry changes in an index.
            if row.expires_at() != record.expires_at() {
                self.by_expiry.remove(&(row.expires_at(), key));
                self.by_expiry.insert((record.expires_at(), key));
            }
            if is_evictable(&record) {
                self.evictable_bytes = self.evictable_bytes - size(row) + size(&record);
            }
            self.bytes = self.bytes - size(row) + size(&record);
            **row = record;
            return;
        }
        self.remove(&key);
        self.by_expiry.insert((record.expires_at(), key));
        if let Some(owner) = record.owner() {
            self.by_owner.insert((owner, key));
        }
        if is_evictable(&record) {
            self.evictable.insert((record.created_at(), key));
            self.evictable_bytes += size(&record);
        }
        self.bytes += size(&record);
        self.by_key.insert(key, Box::new(record));
    }

    pub(super) fn remove(&mut self, key: &StoreKey) {
        let Some(record) = self.by_key.remove(key) else {
            return;
        };
        self.by_expiry.remove(&(record.expires_at(), *key));
        if let Some(owner) = record.owner() {
            self.by_owner.remove(&(owner, *key));
        }
        if is_evictable(&record) {
            self.evictable.remove(&(record.created_at(), *key));
            self.evictable_bytes -= size(&record);
        }
        self.bytes -= size(&record);
    }

    pub(super) fn sweep(&mut self, now: Timestamp, limit: usize) -> usize {
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
        while self.bytes > limit && self.sweep(now, 1) == 1 {}
        let kept = self.by_key.get(keep).filter(|row| is_evictable(row));
        let kept = kept.map_or(0, |row| size(row));
        if self.bytes - self.evictable_bytes + kept > limit {
            return false;
        }
        while self.bytes > limit {
            let oldest = self.evictable.iter().find(|(_, key)| key != keep);
            let Some(&(_, key)) = oldest else {
                return false;
            };
            self.remove(&key);
        }
        true
    }
}

/// Returns `true` if a full store may remove this session to make room for others.
pub(super) fn is_evictable(record: &Record) -> bool {
    record.owner().is_none() && !record.is_tombstone()
}

pub(super) fn size(record: &Record) -> usize {
    BYTES_PER_SESSION + record.payload().len()
}
