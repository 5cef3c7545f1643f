//! The order in which a full memory store deletes its rows.

use std::{collections::BTreeSet, time::Duration};

use super::rows::{Row, size};
use crate::{
    clock::Timestamp,
    id::StoreKey,
    store::{REVOCATIONS_OUTLIVE, Record},
};

/// What a full store does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It stays: a session with an owner, or an entry of a revocation list.
    Kept,
    /// The mark of an id that was replaced moments ago.
    Mark,
    /// A session without owner that was written once and never loaded.
    New,
    /// A session without owner that was loaded or written again.
    Returned,
}

impl Class {
    pub(super) fn of(record: &Record, has_returned: bool) -> Self {
        if record.is_tombstone() {
            let life = record.expires_at().saturating_since(record.created_at());
            return if life < REVOCATIONS_OUTLIVE { Self::Mark } else { Self::Kept };
        }
        match (record.owner(), has_returned) {
            (Some(_), _) => Self::Kept,
            (None, false) => Self::New,
            (None, true) => Self::Returned,
        }
    }
}

/// A session moves to the end of its queue at most this often, since every move costs time.
const SHORTEST_BETWEEN_MOVES: Duration = Duration::from_secs(60);

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

    pub(super) fn add(&mut self, key: &StoreKey, class: Class, used_at: Timestamp, bytes: usize) {
        if let Some(queue) = self.of(class) {
            queue.order.insert((used_at, *key));
            queue.bytes += bytes;
        }
    }

    pub(super) fn remove(&mut self, key: &StoreKey, row: &Row) {
        if let Some(queue) = self.of(row.class) {
            queue.order.remove(&(row.used_at, *key));
            queue.bytes -= size(&row.record);
        }
    }

    /// Puts another record into a row, which moves to the queue of its class.
    pub(super) fn replace(
        &mut self,
        key: &StoreKey,
        row: &mut Row,
        record: Record,
        now: Timestamp,
    ) {
        let class = Class::of(&record, true);
        if class == row.class && !row.may_move(now) {
            if let Some(queue) = self.of(class) {
                queue.bytes = queue.bytes - size(&row.record) + size(&record);
            }
            row.record = record;
            return;
        }
        self.remove(key, row);
        self.add(key, class, now, size(&record));
        *row = Row { record, class, used_at: now };
    }

    /// Notes that a session was loaded.
    pub(super) fn note_use(&mut self, key: &StoreKey, row: &mut Row, now: Timestamp) {
        let moves = match row.class {
            Class::Kept | Class::Mark => false,
            Class::New => true,
            Class::Returned => row.may_move(now),
        };
        if moves {
            self.remove(key, row);
            self.add(key, Class::Returned, now, size(&row.record));
            (row.class, row.used_at) = (Class::Returned, now);
        }
    }

    /// Returns how many bytes may be evicted.
    pub(super) fn bytes(&self) -> usize {
        self.marks.bytes + self.new.bytes + self.returned.bytes
    }

    /// Returns the row to evict first from a store of this size, other than `keep`.
    pub(super) fn first_to_go(&self, max_bytes: usize, keep: &StoreKey) -> Option<StoreKey> {
        let mark = || self.marks.first_but(keep);
        let excess = if self.marks.bytes > max_bytes / SHARE_OF_MARKS { mark() } else { None };
        excess
            .or_else(|| self.new.first_but(keep))
            .or_else(|| self.returned.first_but(keep))
            .or_else(mark)
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

impl Row {
    fn may_move(&self, now: Timestamp) -> bool {
        self.used_at.saturating_add(SHORTEST_BETWEEN_MOVES) <= now
    }
}
