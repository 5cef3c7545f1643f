//! The rows of a memory store, by their slots.

use super::row::Row;

/// Stands for no slot. No row has it.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// A chunk holds this many rows. A chunk never moves, so a store that grows copies no rows.
const CHUNK: usize = 1024;

/// Rows that are named by numbers. A row keeps its slot while it is stored.
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Option<Row>>>,
    /// The slots that were ever used, which are those below it.
    used: u32,
    free: Vec<u32>,
    /// The most slots.
    most: u32,
}

impl Slab {
    pub(super) fn new(most: u32) -> Self {
        Self { chunks: Vec::new(), used: 0, free: Vec::new(), most }
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Option<Row>> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Row> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Row> {
        self.entry(slot)?.as_mut()
    }

    /// Returns the number of slots, free ones too.
    pub(super) fn slots(&self) -> u32 {
        self.used
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.used == self.most
    }

    /// Adds a row in a free slot. Returns `None` if the slab is full.
    pub(super) fn insert(&mut self, row: Row) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        if let Some(slot) = self.free.pop() {
            *self.entry(slot)? = Some(row);
            return Some(slot);
        }
        let slot = self.used;
        if (slot as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut()?.push(Some(row));
        self.used += 1;
        Some(slot)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Row> {
        let row = self.entry(slot)?.take()?;
        self.free.push(slot);
        Some(row)
    }
}
