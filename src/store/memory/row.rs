//! A row of a memory store.

use std::time::Duration;

use bytes::Bytes;

use super::slab::NO_SLOT;
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{REVOCATIONS_OUTLIVE, Record, SaveOutcome, Version},
};

/// The bytes of a row beside its record: what the row has in memory, and its entries in the indices.
///
/// Measured as the docs of the store say, and rounded up.
const BYTES_BESIDE_THE_RECORD: usize = 352;

/// A session moves to the end of its queue at most this often, since a move takes time.
const SHORTEST_BETWEEN_MOVES: Duration = Duration::from_secs(60);

/// What a full store does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The mark of an id that was replaced moments ago.
    Mark,
    /// A session without owner that was saved once and never loaded.
    New,
    /// A session without owner that was loaded or saved again.
    Returned,
    /// It stays: a session with an owner, or an entry of a revocation list.
    Kept,
}

impl Class {
    /// Returns the class of a record that is saved for the first time.
    fn of(record: &Record) -> Self {
        if record.is_tombstone() {
            let life = record.expires_at().saturating_since(record.created_at());
            return if life < REVOCATIONS_OUTLIVE { Self::Mark } else { Self::Kept };
        }
        if record.owner().is_some() { Self::Kept } else { Self::New }
    }

    /// Returns the class of a row after it was saved again.
    pub(super) fn saved_again(self) -> Self {
        if self == Self::New { Self::Returned } else { self }
    }
}

/// A row. The fields that a load reads are together, from `version` on, so they are in few cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Row {
    pub(super) key: StoreKey,
    /// The time of the row in the index of expiries. It is never later than the expiry, so that a later expiry leaves
    /// the index as it is.
    pub(super) indexed_at: Timestamp,
    /// The slots of the rows before and after this one in its queue.
    pub(super) former: u32,
    pub(super) next: u32,
    pub(super) version: Version,
    pub(super) expires_at: Timestamp,
    /// When the row got its place in its queue.
    pub(super) used_at: Timestamp,
    pub(super) class: Class,
    /// The bytes of [`Record::to_bytes`].
    pub(super) data: Box<[u8]>,
}

impl Row {
    /// Makes the row of a record that is not stored yet.
    pub(super) fn new(key: &StoreKey, record: &Record, now: Timestamp) -> Self {
        Self {
            key: *key,
            version: record.version(),
            expires_at: record.expires_at(),
            indexed_at: record.expires_at(),
            used_at: now,
            former: NO_SLOT,
            next: NO_SLOT,
            class: Class::of(record),
            data: record.to_bytes().into_boxed_slice(),
        }
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at > now
    }

    /// Copies the record. Shared bytes would need a counter, whose cache line a load of many sessions would wait for.
    pub(super) fn record(&self) -> Result<Record, StoreError> {
        Record::from_bytes(self.version, self.expires_at, Bytes::copy_from_slice(&self.data))
    }

    /// Returns the outcome of a write that expects another row.
    pub(super) fn conflict(&self) -> Result<SaveOutcome, StoreError> {
        self.record().map(|record| SaveOutcome::Conflict(record.into()))
    }

    /// Returns the owner that finds the row. A tombstone belongs to no owner.
    pub(super) fn owner(&self) -> Option<OwnerKey> {
        Record::owner_in(&self.data)
    }

    pub(super) fn size(&self) -> usize {
        BYTES_BESIDE_THE_RECORD + self.data.len()
    }

    /// Returns `true` if a use of the row changes its place in its queue.
    pub(super) fn moves_when_used(&self, now: Timestamp) -> bool {
        match self.class {
            Class::Kept | Class::Mark => false,
            Class::New => true,
            Class::Returned => self.may_move(now),
        }
    }

    /// Returns `true` if the row did not move in its queue for a while.
    pub(super) fn may_move(&self, now: Timestamp) -> bool {
        self.used_at.saturating_add(SHORTEST_BETWEEN_MOVES) <= now
    }
}
