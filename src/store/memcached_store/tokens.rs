//! The compare-and-swap tokens of the rows that this node met last.

use std::sync::{Mutex, PoisonError};

use crate::{
    clock::Timestamp,
    store::{Record, Version},
};

/// How many tokens are kept, in 128 KiB. A token is used within the request that brought it.
const SLOTS: usize = 4_096;

/// The token of a row is found by the version of the row, since a save names no more.
///
/// A token that is missing or too old costs a read, and never lets a write through: the server compares it.
pub(super) struct Tokens(Mutex<Box<[Option<Known>]>>);

#[derive(Clone, Copy)]
struct Known {
    version: Version,
    expires_at: Timestamp,
    token: u64,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Mutex::new(vec![None; SLOTS].into()))
    }

    pub(super) fn insert(&self, version: Version, expires_at: Timestamp, token: u64) {
        self.with_slot(version, |slot| *slot = Some(Known { version, expires_at, token }));
    }

    pub(super) fn insert_row(&self, row: &Record, token: u64) {
        self.insert(row.version(), row.expires_at(), token);
    }

    /// Returns the token of the row at `version`, if it is known and the row is not expired `now`.
    pub(super) fn live(&self, version: Version, now: Timestamp) -> Option<u64> {
        let known = self.with_slot(version, |slot| *slot).flatten()?;
        (known.version == version && known.expires_at > now).then_some(known.token)
    }

    /// Versions are random, so their first bytes choose the slot.
    fn with_slot<R>(
        &self,
        version: Version,
        use_it: impl FnOnce(&mut Option<Known>) -> R,
    ) -> Option<R> {
        let [first, second, ..] = *version.as_bytes();
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get_mut(usize::from(u16::from_be_bytes([first, second])) % SLOTS).map(use_it)
    }
}
