//! The rows of a memory store by their keys.

use std::{
    array,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
};

use super::row::Row;
use crate::id::StoreKey;

/// The rows by their keys, in one part for each first byte of a key.
///
/// A part that grows moves its entries under the lock, and a page of keys looks at all keys of a part. Small parts
/// keep both short. The parts are in the order of the keys.
#[derive(Debug)]
pub(super) struct Table(Box<[Part; 256]>);

/// Boxed rows, so that the entries are small.
type Part = HashMap<StoreKey, Box<Row>>;

impl Default for Table {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Part::default())))
    }
}

#[allow(clippy::indexing_slicing, reason = "there is a part for every byte")]
impl Table {
    fn part(&self, key: &StoreKey) -> &Part {
        &self.0[first_byte(key)]
    }

    fn part_mut(&mut self, key: &StoreKey) -> &mut Part {
        &mut self.0[first_byte(key)]
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }

    pub(super) fn get(&self, key: &StoreKey) -> Option<&Row> {
        self.part(key).get(key).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: &StoreKey) -> Option<&mut Row> {
        self.part_mut(key).get_mut(key).map(Box::as_mut)
    }

    pub(super) fn entry(&mut self, key: StoreKey) -> Entry<'_, StoreKey, Box<Row>> {
        self.part_mut(&key).entry(key)
    }

    pub(super) fn remove(&mut self, key: &StoreKey) -> Option<Box<Row>> {
        self.part_mut(key).remove(key)
    }

    /// Returns the first `limit` keys after these bytes, in their order. It has fewer keys only if no more follow.
    pub(super) fn keys_after(&self, after: Option<&[u8]>, limit: usize) -> Vec<StoreKey> {
        let start = after.and_then(<[u8]>::first).map_or(0, |byte| usize::from(*byte));
        let mut first = BinaryHeap::new();
        for part in self.0.iter().skip(start) {
            for key in part.keys() {
                let is_before = after.is_some_and(|after| key.as_bytes().as_slice() <= after);
                if is_before || (first.len() == limit && first.peek() <= Some(key)) {
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
        self.0.iter().flatten().map(|(key, row)| (key, row.as_ref()))
    }
}

fn first_byte(key: &StoreKey) -> usize {
    let [first, ..] = key.as_bytes();
    usize::from(*first)
}
