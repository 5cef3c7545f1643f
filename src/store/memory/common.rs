//! The bytes, the owners and the flags that all parts of a memory store share.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{clock::Timestamp, id::OwnerKey};

/// The store has this many parts, each behind a lock of its own, so that cores seldom wait for each other. A table of
/// sessions that grows is copied while its lock is held; that is short, because a part is small.
pub(super) const PARTS: usize = 32;

/// A place is the number of a part and a slot in it, and the slot takes this many bits.
const BITS_OF_A_SLOT: u32 = 27;

/// The most slots of a part.
pub(super) const MOST_SLOTS: u32 = 1 << BITS_OF_A_SLOT;

const _: () = assert!(PARTS == 1 << (u32::BITS - BITS_OF_A_SLOT));

/// Once expired rows are handed out, the store deletes by itself only those that nobody has taken for so long.
const LEFT_FOR_OTHERS: Duration = Duration::from_secs(60 * 60);

/// Returns the number of the part of a key or an owner, from its first bits.
pub(super) fn part_of(bytes: &[u8; 32]) -> usize {
    let [first, ..] = *bytes;
    (usize::from(first) * PARTS) >> u8::BITS
}

/// The place of a row, as one number.
pub(super) fn place(part: usize, slot: u32) -> u32 {
    u32::try_from(part).map_or(0, |part| part << BITS_OF_A_SLOT) | slot
}

/// The part and the slot of a place.
pub(super) fn part_and_slot(place: u32) -> (usize, u32) {
    ((place >> BITS_OF_A_SLOT) as usize, place & (MOST_SLOTS - 1))
}

/// The bytes of a store, and its sessions by their owners. Its locks are only ever taken last.
#[derive(Debug)]
pub(super) struct Common {
    bytes: AtomicUsize,
    pub(super) max_bytes: usize,
    pub(super) are_handed_out: AtomicBool,
    /// The owner of a row and the place of the row.
    by_owner: [Mutex<BTreeSet<(OwnerKey, u32)>>; PARTS],
}

impl Common {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            max_bytes,
            are_handed_out: AtomicBool::new(false),
            by_owner: Default::default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes in the place of others. Returns `false` and changes nothing if the store would be too large.
    pub(super) fn recount(&self, former: usize, bytes: usize) -> bool {
        if bytes == former {
            return true;
        }
        let counted = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
            let next = all.saturating_sub(former).saturating_add(bytes);
            (next < all || next <= self.max_bytes).then_some(next)
        });
        counted.is_ok()
    }

    fn owners(&self, owner: &OwnerKey) -> Option<MutexGuard<'_, BTreeSet<(OwnerKey, u32)>>> {
        let part = self.by_owner.get(part_of(owner.as_bytes()))?;
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves a row from one owner to another.
    pub(super) fn change_owner(&self, place: u32, from: Option<OwnerKey>, to: Option<OwnerKey>) {
        if from == to {
            return;
        }
        // The new owner first, so that the row is always found.
        if let Some(owner) = to
            && let Some(mut owners) = self.owners(&owner)
        {
            owners.insert((owner, place));
        }
        if let Some(owner) = from
            && let Some(mut owners) = self.owners(&owner)
        {
            owners.remove(&(owner, place));
        }
    }

    /// Returns the places of the rows of an owner.
    pub(super) fn places_of(&self, owner: &OwnerKey) -> Vec<u32> {
        let places = self.owners(owner).map(|owners| {
            owners.range((*owner, 0)..=(*owner, u32::MAX)).map(|(_, place)| *place).collect()
        });
        places.unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn owned(&self) -> usize {
        self.by_owner.iter().map(|part| part.lock().unwrap().len()).sum()
    }

    /// Returns the time of which the store deletes expired rows by itself.
    pub(super) fn expired_for_itself(&self, now: Timestamp) -> Timestamp {
        if !self.are_handed_out.load(Ordering::Relaxed) {
            return now;
        }
        let millis = u64::try_from(LEFT_FOR_OTHERS.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_millis(now.as_unix_millis().saturating_sub(millis))
    }
}
