//! The row of a session in engines that keep it as one string: version, expiry and record.

use bytes::{BufMut, Bytes};

use crate::{
    clock::Timestamp,
    error::StoreError,
    store::{Record, Version, take},
};

#[cfg(test)]
mod tests;

/// Returns the value of a record's row: version `[u8; 16]`, expiry in Unix milliseconds `u64`, big-endian,
/// then [`Record::to_bytes`].
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut row = Vec::with_capacity(len(record));
    row.extend_from_slice(record.version().as_bytes());
    row.put_u64(record.expires_at().as_unix_millis());
    record.write_to(&mut row);
    row
}

/// Returns the length of the row of a record.
pub(super) fn len(record: &Record) -> usize {
    24 + record.encoded_len()
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(row: Vec<u8>) -> Result<Record, StoreError> {
    let mut rest = Bytes::from(row);
    let version = take(&mut rest).ok_or(StoreError::Corrupt)?;
    let expires_at = take(&mut rest).ok_or(StoreError::Corrupt)?;
    Record::from_bytes(
        Version::from_bytes(version),
        Timestamp::from_unix_millis(u64::from_be_bytes(expires_at)),
        rest,
    )
}
