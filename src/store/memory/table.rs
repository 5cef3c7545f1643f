//! The rows of a memory store by their keys.

use std::collections::{BinaryHeap, HashMap};

use super::rows::Row;
use crate::id::StoreKey;

/// The rows by their keys, in one part for each first byte of a key.
///
/// Rows move only when a part grows, so a save that makes a part grow holds the lock for a short time. The parts are
/// in the order of the keys, so a page of keys looks at few rows.
#[derive(Debug)]
pub(super) struct Table {
    /// Boxed rows, because a part that grows moves its entries under the lock.
    parts: Vec<HashMap<StoreKey, Box<Row>>>,
}

/// The number of different first bytes.
const PARTS: usize = 256;

impl Default for Table {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashMap::new()).collect() }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }

    pub(super) fn get(&self, key: &StoreKey) -> Option<&Row> {
        self.parts.get(part_of(key))?.get(key).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: &StoreKey) -> Option<&mut Row> {
        self.parts.get_mut(part_of(key))?.get_mut(key).map(Box::as_mut)
    }

    /// Returns the row that was there before.
    pub(super) fn insert(&mut self, key: StoreKey, row: Row) -> Option<Box<Row>> {
        self.parts.get_mut(part_of(&key))?.insert(key, Box::new(row))
    }

    pub(super) fn remove(&mut self, key: &StoreKey) -> Option<Box<Row>> {
        self.parts.get_mut(part_of(key))?.remove(key)
    }

    /// Returns the first `limit` keys after these bytes, in their order. It has fewer keys only if no more follow.
    pub(super) fn keys_after(&self, after: Option<&[u8]>, limit: usize) -> Vec<StoreKey> {
        let start = after.and_then(<[u8]>::first).map_or(0, |byte| usize::from(*byte));
        let mut first = BinaryHeap::new();
        for part in self.parts.iter().skip(start) {
            for key in part.keys() {
                if after.is_some_and(|after| key.as_bytes().as_slice() <= after)
                    || (first.len() == limit && first.peek() <= Some(key))
                {
                    continue;
                }
                first.push(*key);
                if first.len() > limit {
                    first.pop();
                }
            }
            if first.len() == limit {
                break;
            }
        }
        first.into_sorted_vec()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&StoreKey, &Row)> {
        self.parts.iter().flatten().map(|(key, row)| (key, row.as_ref()))
    }
}

fn part_of(key: &StoreKey) -> usize {
    let [first, ..] = key.as_bytes();
    usize::from(*first)
}
