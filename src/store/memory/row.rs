//! A row of a memory store.

use std::time::Duration;

use bytes::Bytes;

use super::slab::NO_SLOT;
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{REVOCATIONS_OUTLIVE, Record, Version},
};

/// The bytes of a row beside its record: what the row has in memory, and its entries in the table and the indices.
///
/// Measured as the docs of the store say, and rounded up.
const BYTES_BESIDE_THE_RECORD: usize = 288;

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

/// A row is one block of memory, so that a load of one of a million sessions waits for memory as seldom as possible:
/// the fields below, and then the bytes of [`Record::to_bytes`].
#[derive(Debug)]
pub(super) struct Row(Box<[u8]>);

/// Where the fields begin.
const KEY: usize = 0;
const VERSION: usize = KEY + 32;
const EXPIRES_AT: usize = VERSION + 16;
/// The fields from here on are the place of the row in the indices.
const PLACE: usize = EXPIRES_AT + 8;
const INDEXED_AT: usize = PLACE;
const USED_AT: usize = INDEXED_AT + 8;
const FORMER: usize = USED_AT + 8;
const NEXT: usize = FORMER + 4;
const CLASS: usize = NEXT + 4;
const RECORD: usize = CLASS + 1;

impl Row {
    /// Makes the row of a record that is not stored yet.
    pub(super) fn new(key: &StoreKey, record: &Record, now: Timestamp) -> Self {
        let mut bytes = Vec::with_capacity(RECORD + record.encoded_len());
        bytes.resize(RECORD, 0);
        record.write_to(&mut bytes);
        let mut row = Self(bytes.into_boxed_slice());
        row.set(KEY, *key.as_bytes());
        row.set(VERSION, *record.version().as_bytes());
        row.set_time(EXPIRES_AT, record.expires_at());
        row.set_indexed_at(record.expires_at());
        row.set_used(Class::of(record), now);
        row.set_former(NO_SLOT);
        row.set_next(NO_SLOT);
        row
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(field) = self.0.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *field = value;
        }
    }

    fn time(&self, at: usize) -> Timestamp {
        Timestamp::from_unix_millis(u64::from_ne_bytes(self.field(at)))
    }

    fn set_time(&mut self, at: usize, time: Timestamp) {
        self.set(at, time.as_unix_millis().to_ne_bytes());
    }

    pub(super) fn key(&self) -> StoreKey {
        StoreKey::from_bytes(self.field(KEY))
    }

    pub(super) fn version(&self) -> Version {
        Version::from_bytes(self.field(VERSION))
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.time(EXPIRES_AT)
    }

    /// Moves the expiry to a later time. The place in the indices may stay.
    pub(super) fn extend(&mut self, expires_at: Timestamp) {
        self.set_time(EXPIRES_AT, self.expires_at().max(expires_at));
    }

    /// Returns the time of the row in the index of expiries. It is never later than the expiry, so that a later expiry
    /// leaves the index as it is.
    pub(super) fn indexed_at(&self) -> Timestamp {
        self.time(INDEXED_AT)
    }

    pub(super) fn set_indexed_at(&mut self, time: Timestamp) {
        self.set_time(INDEXED_AT, time);
    }

    pub(super) fn class(&self) -> Class {
        match self.field(CLASS) {
            [0] => Class::Kept,
            [1] => Class::Mark,
            [2] => Class::New,
            _ => Class::Returned,
        }
    }

    /// Returns when the row got its place in its queue.
    pub(super) fn used_at(&self) -> Timestamp {
        self.time(USED_AT)
    }

    pub(super) fn set_used(&mut self, class: Class, now: Timestamp) {
        self.set(CLASS, [class as u8]);
        self.set_time(USED_AT, now);
    }

    /// Returns the slot of the row before this one in its queue.
    pub(super) fn former(&self) -> u32 {
        u32::from_ne_bytes(self.field(FORMER))
    }

    /// Returns the slot of the row after this one in its queue.
    pub(super) fn next(&self) -> u32 {
        u32::from_ne_bytes(self.field(NEXT))
    }

    pub(super) fn set_former(&mut self, slot: u32) {
        self.set(FORMER, slot.to_ne_bytes());
    }

    pub(super) fn set_next(&mut self, slot: u32) {
        self.set(NEXT, slot.to_ne_bytes());
    }

    /// Takes the place of another row in the indices.
    pub(super) fn take_place_of(&mut self, row: &Self) {
        self.set(PLACE, row.field::<{ RECORD - PLACE }>(PLACE));
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at() > now
    }

    /// Copies the record, so that nobody holds memory of a row that was replaced or deleted.
    pub(super) fn record(&self) -> Result<Record, StoreError> {
        let bytes = Bytes::copy_from_slice(self.bytes_of_record());
        Record::from_bytes(self.version(), self.expires_at(), bytes)
    }

    fn bytes_of_record(&self) -> &[u8] {
        self.0.get(RECORD..).unwrap_or_default()
    }

    /// Returns the owner that finds the row. A tombstone belongs to no owner.
    pub(super) fn owner(&self) -> Option<OwnerKey> {
        if self.class() == Class::Kept { Record::owner_in(self.bytes_of_record()) } else { None }
    }

    pub(super) fn size(&self) -> usize {
        BYTES_BESIDE_THE_RECORD + self.bytes_of_record().len()
    }

    /// Returns `true` if a use of the row changes its place in its queue.
    pub(super) fn moves_when_used(&self, now: Timestamp) -> bool {
        match self.class() {
            Class::Kept | Class::Mark => false,
            Class::New => true,
            Class::Returned => self.may_move(now),
        }
    }

    /// Returns `true` if the row did not move in its queue for a while.
    pub(super) fn may_move(&self, now: Timestamp) -> bool {
        self.used_at().saturating_add(SHORTEST_BETWEEN_MOVES) <= now
    }
}
