//! The row of a session: a string of version, expiry and record.

use crate::store::Record;
pub(super) use crate::store::row::{decode, encode};

/// Returns how many bytes of a record come before its payload. They hold the owner and the absolute end.
pub(super) fn head_len(record: &Record) -> usize {
    record.encoded_len() - record.payload().len()
}

/// Returns `true` if both rows have the same record up to `len` bytes.
pub(super) fn have_same_head(one: &[u8], other: &[u8], len: usize) -> bool {
    one.get(24..24 + len) == other.get(24..24 + len)
}

/// Returns `true` if both rows begin with the same version.
pub(super) fn have_same_version(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<16>().is_some_and(|version| other.starts_with(version))
}

/// The last byte of a row that can come before its payload, which [`decode`] does without.
pub(super) const LAST_OF_HEAD: usize = 24 + Record::LONGEST_HEAD - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdleTimeout, store::OwnerKey, testing::RecordBuilder};

    #[test]
    fn the_longest_head_is_a_row_without_a_payload() {
        let builder = RecordBuilder::new().owner(OwnerKey::from_bytes([7; 32]));
        let mut record =
            builder.idle_timeout(IdleTimeout::Persistent(std::time::Duration::MAX)).build();
        (record.epoch, record.kind, record.is_sealed) = (1, 1, true);
        assert_eq!(encode(&record).len(), LAST_OF_HEAD + 1);
    }
}
