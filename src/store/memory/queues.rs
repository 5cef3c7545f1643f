//! The order in which a full memory store deletes its rows.

use std::collections::BTreeSet;

use super::row::{Class, Row};
use crate::{clock::Timestamp, id::StoreKey};

/// Marks may take this share of the store before they make room for sessions.
const SHARE_OF_MARKS: usize = 16;

/// The rows that may be evicted.
#[derive(Debug, Default)]
pub(super) struct Queues {
    marks: Queue,
    new: Queue,
    returned: Queue,
}

/// Rows of one class. The row that was used longest ago is the first.
#[derive(Debug, Default)]
struct Queue {
    order: BTreeSet<(Timestamp, StoreKey)>,
    bytes: usize,
}

impl Queue {
    fn first_but(&self, keep: &StoreKey) -> Option<StoreKey> {
        self.order.iter().map(|(_, key)| *key).find(|key| key != keep)
    }
}

impl Queues {
    fn of(&mut self, class: Class) -> Option<&mut Queue> {
        match class {
            Class::Kept => None,
            Class::Mark => Some(&mut self.marks),
            Class::New => Some(&mut self.new),
            Class::Returned => Some(&mut self.returned),
        }
    }

    pub(super) fn add(&mut self, key: &StoreKey, row: &Row) {
        if let Some(queue) = self.of(row.class) {
            queue.order.insert((row.used_at, *key));
            queue.bytes += row.size();
        }
    }

    pub(super) fn remove(&mut self, key: &StoreKey, row: &Row) {
        if let Some(queue) = self.of(row.class) {
            queue.order.remove(&(row.used_at, *key));
            queue.bytes -= row.size();
        }
    }

    /// Replaces a row by one with the same place.
    pub(super) fn resize(&mut self, former: &Row, row: &Row) {
        if let Some(queue) = self.of(row.class) {
            queue.bytes = queue.bytes - former.size() + row.size();
        }
    }

    /// Notes that a row was loaded.
    pub(super) fn note_use(&mut self, key: &StoreKey, row: &mut Row, now: Timestamp) {
        let moves = match row.class {
            Class::Kept | Class::Mark => false,
            Class::New => true,
            Class::Returned => row.may_move(now),
        };
        if moves {
            self.remove(key, row);
            (row.class, row.used_at) = (Class::Returned, now);
            self.add(key, row);
        }
    }

    /// Returns how many bytes may be evicted.
    pub(super) fn bytes(&self) -> usize {
        self.marks.bytes + self.new.bytes + self.returned.bytes
    }

    /// Returns the row to evict first from a store of this size, other than `keep`.
    pub(super) fn first_to_go(&self, max_bytes: usize, keep: &StoreKey) -> Option<StoreKey> {
        let mark = || self.marks.first_but(keep);
        let too_many = self.marks.bytes > max_bytes / SHARE_OF_MARKS;
        let excess = if too_many { mark() } else { None };
        let session = || self.new.first_but(keep).or_else(|| self.returned.first_but(keep));
        excess.or_else(session).or_else(mark)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, key: &StoreKey, row: &Row) -> bool {
        let queues = [(Class::Mark, &self.marks), (Class::New, &self.new)];
        let queues = queues.into_iter().chain([(Class::Returned, &self.returned)]);
        let mut queues = queues.filter(|(_, queue)| queue.order.contains(&(row.used_at, *key)));
        queues.next().is_some_and(|(class, _)| class == row.class) && queues.next().is_none()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.marks.order.len() + self.new.order.len() + self.returned.order.len()
    }
}
