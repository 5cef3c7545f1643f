//! The head of a row, which its save script compares.

use crate::store::Record;
pub(super) use crate::store::row::{decode, encode};

/// Returns `true` if both rows begin with the same version.
pub(super) fn is_same_version(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<16>().is_some_and(|version| other.starts_with(version))
}

/// The last byte of a row that can come before its payload, which [`decode`] does without.
pub(super) const LAST_OF_HEAD: usize = 24 + 23 + 8 + 32 - 1;
