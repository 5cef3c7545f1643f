//! The order in which a full memory store deletes its rows.

use super::{
    row::{Class, Row},
    slab::{NO_SLOT, Slab},
};
use crate::{clock::Timestamp, id::StoreKey};

/// The rows of a part of the store that may be evicted, by their class.
#[derive(Debug, Default)]
pub(super) struct Queues([Queue; 3]);

/// Rows of one class, each of which names its neighbors. The row that was used longest ago is the first.
#[derive(Debug)]
pub(super) struct Queue {
    first: u32,
    last: u32,
    pub(super) bytes: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: NO_SLOT, last: NO_SLOT, bytes: 0 }
    }
}

impl Queue {
    /// Returns the first row other than `keep`: when it got its place, and its slot.
    pub(super) fn first_but(&self, slab: &Slab, keep: &StoreKey) -> Option<(Timestamp, u32)> {
        let first = slab.get(self.first)?;
        if first.key != *keep {
            return Some((first.used_at, self.first));
        }
        slab.get(first.next).map(|second| (second.used_at, first.next))
    }

    /// Returns the slots from the first to the last.
    #[cfg(test)]
    pub(super) fn slots<'a>(&self, slab: &'a Slab) -> impl Iterator<Item = u32> + 'a {
        let first = Some(self.first).filter(|slot| *slot != NO_SLOT);
        std::iter::successors(first, |slot| {
            slab.get(*slot).map(|row| row.next).filter(|slot| *slot != NO_SLOT)
        })
    }
}

impl Queues {
    pub(super) fn of(&self, class: Class) -> Option<&Queue> {
        self.0.get(class as usize)
    }

    fn of_mut(&mut self, class: Class) -> Option<&mut Queue> {
        self.0.get_mut(class as usize)
    }

    /// Adds the row of a slot at the end of the queue of its class.
    pub(super) fn add(&mut self, slab: &mut Slab, slot: u32) {
        let Some(row) = slab.get_mut(slot) else {
            return;
        };
        let Some(queue) = self.of_mut(row.class) else {
            return;
        };
        row.former = queue.last;
        row.next = NO_SLOT;
        queue.bytes += row.size();
        match slab.get_mut(queue.last) {
            Some(last) => last.next = slot,
            None => queue.first = slot,
        }
        queue.last = slot;
    }

    /// Takes the row of a slot out of its queue.
    pub(super) fn remove(&mut self, slab: &mut Slab, slot: u32) {
        let Some(row) = slab.get(slot) else {
            return;
        };
        let Some(queue) = self.of_mut(row.class) else {
            return;
        };
        queue.bytes -= row.size();
        let (former, next) = (row.former, row.next);
        match slab.get_mut(former) {
            Some(row) => row.next = next,
            None => queue.first = next,
        }
        match slab.get_mut(next) {
            Some(row) => row.former = former,
            None => queue.last = former,
        }
    }

    /// Notes that a row in a queue gets another size.
    pub(super) fn resize(&mut self, row: &Row, size: usize) {
        if let Some(queue) = self.of_mut(row.class) {
            queue.bytes = queue.bytes - row.size() + size;
        }
    }

    /// Returns how many bytes may be evicted.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|queue| queue.bytes).sum()
    }
}
