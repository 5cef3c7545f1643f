//! Rows of a store: what decodes is encoded the same, and only whole rows of this kind become sessions.

use std::time::Duration;

use axum_typed_session::{
    IdleTimeout, SessionError, SessionManager, StoreError, StoreKey,
    store::{OwnerKey, Record, Timestamp, Version},
    testing::RecordBuilder,
};

use super::{
    Login, NOW, block_on, builder,
    input::Input,
    row::{Row, RowBytes},
};

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

/// Rows have times of 48 bits.
const LAST_MILLI: u64 = (1 << 48) - 1;

pub fn run(data: &[u8]) {
    thread_local! {
        static NODE: (SessionManager<Login>, Row) = {
            let row = Row::default();
            (builder().store(row.clone()).build().unwrap(), row)
        };
    }
    let mut input = Input::new(data);
    let bytes = if input.byte().is_multiple_of(2) {
        let version = Version::from_bytes(input.array());
        let expires_at = Timestamp::from_unix_millis(u64::from_be_bytes(input.array()));
        check_bytes(version, expires_at, input.rest());
        RowBytes { version, expires_at, record: data.get(25..).unwrap_or_default().to_vec() }
    } else {
        let record = chosen(&mut input);
        let bytes = RowBytes::of(&record);
        assert_eq!(bytes.record().unwrap(), record);
        bytes
    };
    NODE.with(|(sessions, row)| block_on(check_session(sessions, row, bytes)));
}

/// Makes the record that the input chooses.
fn chosen(input: &mut Input<'_>) -> Record {
    let choices = input.byte();
    let mut time = || {
        let millis = u64::from_be_bytes(input.array());
        // Half of them are near the present.
        let millis =
            if millis.is_multiple_of(2) { NOW - 60_000 + millis % 120_000 } else { millis };
        Timestamp::from_unix_millis(millis.min(LAST_MILLI))
    };
    let times = [time(), time(), time()];
    let mut record = RecordBuilder::new()
        .version(Version::from_bytes(input.array()))
        .created_at(times[0])
        .expires_at(times[1])
        .absolute_end(times[2])
        .schema(u32::from(input.byte()))
        .codec_tag(1 + choices / 128);
    if choices & 1 != 0 {
        record = record.owner(OwnerKey::from_bytes(input.array()));
    }
    let timeout = Duration::from_millis(u64::from_be_bytes(input.array()));
    match choices >> 1 & 3 {
        1 => record = record.idle_timeout(IdleTimeout::Persistent(timeout)),
        2 => record = record.idle_timeout(IdleTimeout::BrowserSession(timeout)),
        _ => {}
    }
    if choices & 8 != 0 {
        return record.tombstone().build();
    }
    record.payload(input.rest()).build()
}

fn check_bytes(version: Version, expires_at: Timestamp, bytes: &[u8]) {
    let is_newer = bytes.first().is_some_and(|format| (5..=31).contains(format));
    let record = match Record::from_bytes(version, expires_at, bytes.to_vec()) {
        Ok(record) => record,
        Err(StoreError::Newer) => return assert!(is_newer),
        Err(error) => return assert!(matches!(error, StoreError::Corrupt) && !is_newer, "{error}"),
    };
    assert!((1..=4).contains(&bytes[0]));
    assert!(bytes.ends_with(record.payload()));
    assert_eq!((record.version(), record.expires_at()), (version, expires_at));
    let written = record.to_bytes();
    let again = Record::from_bytes(version, expires_at, written.clone()).unwrap();
    // Formats before the fourth have times of 64 bits.
    if record.created_at().max(record.absolute_end()).as_unix_millis() <= LAST_MILLI {
        assert_eq!(again, record);
    }
    assert_eq!(again.to_bytes(), written);
    assert_eq!(again.payload(), record.payload());
}

async fn check_session(sessions: &SessionManager<Login>, row: &Row, bytes: RowBytes) {
    row.set(bytes.clone());
    let record = bytes.record();
    let session = match sessions.load(KEY).await {
        Ok(Some(session)) => session,
        Ok(None) => return,
        Err(SessionError::Newer) => {
            let is_newer = record.map_or(true, |record| record.schema() > 1);
            return assert!(is_newer);
        }
        Err(error) => panic!("{error}"),
    };
    let record = record.unwrap();
    let expected: Login = serde_json::from_slice(record.payload()).unwrap();
    assert_eq!(*session, expected);
    assert!(!record.is_tombstone());
    assert!(record.codec_tag() == 1 && record.schema() <= 1);
    let end = record.expires_at().min(record.absolute_end());
    assert!(Timestamp::from_unix_millis(NOW) < end && Timestamp::from(session.expires_at()) <= end);

    let change = |login: &mut Login| login.visits ^= 1;
    sessions.update(KEY, change).await.unwrap();
    let changed = sessions.load(KEY).await.unwrap().unwrap();
    assert_eq!(changed.visits, expected.visits ^ 1);
    assert_eq!(changed.user, expected.user);
    assert_eq!(changed.expires_at(), session.expires_at());
}
