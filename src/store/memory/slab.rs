//! The rows of a memory store, by their slots.

use super::row::Row;

/// Stands for no slot. No row has it.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// A chunk holds this many rows. A chunk never moves, so a store that grows copies no rows.
const CHUNK: usize = 1024;

/// Rows that are named by numbers. A row keeps its slot while it is stored.
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Entry>>,
    /// The slots that were ever used, which are those below it.
    used: u32,
    /// The first of the free slots.
    free: u32,
    /// The most slots.
    most: u32,
}

#[derive(Debug)]
enum Entry {
    Row(Row),
    /// The slot is free. The number is the next free slot.
    Free(u32),
}

impl Slab {
    pub(super) fn new(most: u32) -> Self {
        Self { chunks: Vec::new(), used: 0, free: NO_SLOT, most }
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Row> {
        let slot = slot as usize;
        match self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)? {
            Entry::Row(row) => Some(row),
            Entry::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Row> {
        match self.entry(slot)? {
            Entry::Row(row) => Some(row),
            Entry::Free(_) => None,
        }
    }

    /// Returns the number of slots, free ones too.
    pub(super) fn slots(&self) -> u32 {
        self.used
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NO_SLOT && self.used == self.most
    }

    /// Adds a row in a free slot. Returns `None` if the slab is full.
    pub(super) fn insert(&mut self, row: Row) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let slot = self.free;
        if let Some(entry) = self.entry(slot)
            && let Entry::Free(next) = *entry
        {
            *entry = Entry::Row(row);
            self.free = next;
            return Some(slot);
        }
        let slot = self.used;
        if (slot as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut()?.push(Entry::Row(row));
        self.used += 1;
        Some(slot)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Row> {
        let next = self.free;
        let entry = self.entry(slot).filter(|entry| matches!(entry, Entry::Row(_)))?;
        let Entry::Row(row) = std::mem::replace(entry, Entry::Free(next)) else {
            return None;
        };
        self.free = slot;
        Some(row)
    }
}
