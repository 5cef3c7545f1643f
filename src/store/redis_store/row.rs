//! The head of a row, which its save script compares.

use crate::store::Record;
pub(super) use crate::store::row::{decode, encode};

/// Returns how many bytes of a record come before its payload. They hold the owner and the absolute end.
pub(super) fn head_len(record: &Record) -> usize {
    record.encoded_len() - record.payload().len()
}

/// The last byte of a row that can come before its payload, which [`decode`] does without.
pub(super) const LAST_OF_HEAD: usize = 24 + 23 + 8 + 32 - 1;
