//! A row of a memory store.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    error::StoreError,
    id::OwnerKey,
    store::{REVOCATIONS_OUTLIVE, Record, Version},
};

/// The bytes of a row beside its record: what the row has in memory, and its entries in the table and the indices.
///
/// Measured as the docs of the store say, and rounded up.
const BYTES_BESIDE_THE_RECORD: usize = 384;

/// A session moves to the end of its queue at most this often, since a move takes time.
const SHORTEST_BETWEEN_MOVES: Duration = Duration::from_secs(60);

/// What a full store does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It stays: a session with an owner, or an entry of a revocation list.
    Kept,
    /// The mark of an id that was replaced moments ago.
    Mark,
    /// A session without owner that was saved once and never loaded.
    New,
    /// A session without owner that was loaded or saved again.
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

#[derive(Debug)]
pub(super) struct Row {
    version: Version,
    pub(super) expires_at: Timestamp,
    /// The bytes of [`Record::to_bytes`], which take less memory than a record.
    data: Bytes,
    pub(super) class: Class,
    /// When the row got its place in its queue.
    pub(super) used_at: Timestamp,
}

impl Row {
    pub(super) fn new(record: &Record, class: Class, used_at: Timestamp) -> Self {
        Self {
            version: record.version(),
            expires_at: record.expires_at(),
            data: record.to_bytes().into(),
            class,
            used_at,
        }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at > now
    }

    pub(super) fn record(&self) -> Result<Record, StoreError> {
        Record::from_bytes(self.version, self.expires_at, self.data.clone())
    }

    /// Returns the owner that finds the row.
    pub(super) fn owner(&self) -> Option<OwnerKey> {
        let is_kept = self.class == Class::Kept;
        is_kept.then(|| self.record().ok().as_ref().and_then(owner_of)).flatten()
    }

    pub(super) fn size(&self) -> usize {
        BYTES_BESIDE_THE_RECORD + self.data.len()
    }

    /// Returns `true` if the row did not move in its queue for a while.
    pub(super) fn may_move(&self, now: Timestamp) -> bool {
        self.used_at.saturating_add(SHORTEST_BETWEEN_MOVES) <= now
    }
}

/// A tombstone belongs to no owner.
pub(super) fn owner_of(record: &Record) -> Option<OwnerKey> {
    record.owner().filter(|_| !record.is_tombstone())
}

/// Returns the size of the row of a record.
pub(super) fn size(record: &Record) -> usize {
    BYTES_BESIDE_THE_RECORD + record.encoded_len()
}
