//! The row of a session: a string of version, expiry and record.

use crate::store::Record;
pub(super) use crate::store::row::{decode, encode};

/// Returns `true` if both rows begin with the same version.
pub(super) fn have_same_version(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<16>().is_some_and(|version| other.starts_with(version))
}

/// The last byte of a row that can come before its payload, which [`decode`] does without.
pub(super) const LAST_OF_HEAD: usize = 24 + Record::MOST_BYTES_OF_HEAD - 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{
        clock::Timestamp,
        expiry::{IdleTimeout, Lifetime},
        id::OwnerKey,
        store::Version,
    };

    #[test]
    fn the_head_of_every_record_is_read_without_its_payload() {
        let time = Timestamp::from_unix_millis(1);
        let record = Record {
            version: Version::from_bytes([1; 16]),
            schema: 1,
            codec: 1,
            owner: Some(OwnerKey::from_bytes([2; 32])),
            lifetime: Lifetime {
                created_at: time,
                expires_at: time,
                absolute_end: time,
                has_own_end: true,
                idle_timeout: Some(IdleTimeout::Persistent(Duration::from_secs(1))),
            },
            epoch: 3,
            kind: 4,
            tombstone: false,
            is_sealed: true,
            payload: Bytes::from_static(b"payload"),
            opened_from: None,
        };
        let row = encode(&record);
        // The two times of earlier formats have two bytes more each.
        assert_eq!(row.len() + 4, LAST_OF_HEAD + 1 + record.payload().len());
        let head = decode(row[..=LAST_OF_HEAD].to_vec()).unwrap();
        assert_eq!((head.owner(), head.is_tombstone()), (record.owner(), false));
    }
}
