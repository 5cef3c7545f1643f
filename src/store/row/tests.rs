use super::*;
use crate::{expiry::Lifetime, id::OwnerKey};

#[test]
fn a_row_has_the_version_then_the_expiry_then_the_record() {
    let record = Record {
        version: Version::from_bytes([7; 16]),
        schema: 7,
        codec: 1,
        owner: Some(OwnerKey::from_bytes([0xad; 32])),
        lifetime: Lifetime {
            created_at: Timestamp::from_unix_millis(10),
            expires_at: Timestamp::from_unix_millis(0x0102),
            absolute_end: Timestamp::from_unix_millis(90),
            has_own_end: false,
            idle_timeout: None,
        },
        epoch: 5,
        kind: 6,
        tombstone: false,
        is_sealed: false,
        payload: Bytes::from_static(b"data"),
        opened_from: None,
    };
    let row = encode(&record);
    assert_eq!(row[..24], [[7; 16].as_slice(), &[0, 0, 0, 0, 0, 0, 1, 2]].concat());
    assert_eq!(row[24..], record.to_bytes());
    assert_eq!(len(&record), row.len());
    assert_eq!(decode(row.clone()).unwrap(), record);
    for cut in 0..24 {
        assert!(matches!(decode(row[..cut].to_vec()), Err(StoreError::Corrupt)));
    }
}
