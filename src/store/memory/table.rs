//! The table of the sessions of a memory store.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher},
};

use crate::id::StoreKey;

/// Finds the slot of a key by a hash of the key. The row in that slot has the key itself, so the table is small, and a
/// table that grows hashes no key again.
///
/// The hash is made with a random key, so that nobody can choose session ids whose hashes collide. Two of a million
/// sessions have the same hash with a probability of 1 in 37 million.
#[derive(Debug, Default)]
pub(super) struct Table {
    random: RandomState,
    slots: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
}

impl Table {
    fn hash(&self, key: &StoreKey) -> u64 {
        self.random.hash_one(key.as_bytes())
    }

    /// Returns the slot of the only row that can have this key.
    pub(super) fn get(&self, key: &StoreKey) -> Option<u32> {
        self.slots.get(&self.hash(key)).copied()
    }

    pub(super) fn insert(&mut self, key: &StoreKey, slot: u32) {
        self.slots.insert(self.hash(key), slot);
    }

    pub(super) fn remove(&mut self, key: &StoreKey) {
        self.slots.remove(&self.hash(key));
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// A number that is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
