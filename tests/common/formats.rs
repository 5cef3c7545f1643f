//! The tokens and rows of `formats.txt`, of every format so far.

use std::time::Duration;

use axum_typed_session::{
    SessionStore, StoreKey,
    store::{Record, SaveOutcome, Timestamp, Version, Write},
    testing::ManualClock,
    time::OffsetDateTime,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// When all of them were made, in Unix milliseconds.
pub const MADE_AT: u64 = 1_767_225_600_000;

pub fn then() -> ManualClock {
    ManualClock::at(OffsetDateTime::UNIX_EPOCH + Duration::from_millis(MADE_AT))
}

/// A row of the file.
#[derive(Clone, Debug)]
pub struct Row {
    /// Such as `row 4 plain`.
    pub name: &'static str,
    pub key: StoreKey,
    /// As engines keep it that keep a row as one string: version, expiry and record.
    pub value: Vec<u8>,
}

impl Row {
    pub fn version(&self) -> Version {
        Version::from_bytes(*self.value.first_chunk().unwrap())
    }

    pub fn expires_at(&self) -> Timestamp {
        let bytes = self.value[16..].first_chunk().unwrap();
        Timestamp::from_unix_millis(u64::from_be_bytes(*bytes))
    }

    /// The bytes of the record.
    pub fn data(&self) -> &[u8] {
        &self.value[24..]
    }

    pub fn format(&self) -> u8 {
        self.data()[0]
    }

    pub fn record(&self) -> Record {
        let read = Record::from_bytes(self.version(), self.expires_at(), self.data().to_vec());
        read.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// The line that a row has in the file.
pub fn line_of(what: &str, key: &StoreKey, record: &Record) -> String {
    let expires_at = record.expires_at().as_unix_millis().to_be_bytes();
    let value = [record.version().as_bytes(), &expires_at[..], &record.to_bytes()].concat();
    let format = record.to_bytes()[0];
    format!("row {format} {what}: {} {}", key.to_base64url(), URL_SAFE_NO_PAD.encode(value))
}

/// Every name in the file and what follows it.
pub fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("formats.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no name: {line}")))
}

/// The entries of all formats with this end, such as ` encrypted data`, without those of 0.1.
pub fn tokens(end: &str) -> Vec<&'static str> {
    let of_0_1 = |name: &str| name.starts_with("token 1 ");
    let tokens: Vec<_> = entries()
        .filter(|(name, _)| name.starts_with("token ") && name.ends_with(end) && !of_0_1(name))
        .map(|(_, token)| token)
        .collect();
    assert!(!tokens.is_empty(), "no token{end}");
    tokens
}

pub fn entry(name: &str) -> &'static str {
    let found = entries().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no entry `{name}`")).1
}

/// The rows of all formats with this end, such as ` plain`.
pub fn rows(end: &str) -> Vec<Row> {
    let rows: Vec<_> = entries()
        .filter(|(name, _)| name.starts_with("row ") && name.ends_with(end))
        .map(|(name, row)| {
            let (key, value) = row.split_once(' ').unwrap();
            Row { name, key: key.parse().unwrap(), value: URL_SAFE_NO_PAD.decode(value).unwrap() }
        })
        .collect();
    assert!(!rows.is_empty(), "no row{end}");
    rows
}

/// Every row, of every format.
pub fn all_rows() -> Vec<Row> {
    rows("")
}

/// Reads a row that a test put into the engine as an earlier version did, finds it by its owner, replaces it with
/// today's row, and ends it. The clock of the store is [`then`].
pub async fn goes_on(store: &dyn SessionStore, row: &Row) {
    let name = row.name;
    let loaded = store.load(&row.key).await.unwrap().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(loaded, row.record(), "{name}");
    if let Some(owner) = loaded.owner().filter(|_| store.indexes_owners()) {
        assert_eq!(store.find_by_owner(&owner).await.unwrap(), [row.key], "{name}");
    }
    let version = Version::from_bytes([9; 16]);
    let bytes = loaded.to_bytes();
    let newer = Record::from_bytes(version, row.expires_at(), bytes).unwrap();
    let saved = store.save(&row.key, &newer, Write::Update { loaded: &loaded }).await;
    assert_eq!(saved.unwrap(), SaveOutcome::Saved, "{name}");
    let later = row.expires_at().saturating_add(Duration::from_secs(1));
    let touched = store.touch(&row.key, version, later).await;
    assert_eq!(touched.unwrap(), SaveOutcome::Saved, "{name}");
    assert_eq!(store.load(&row.key).await.unwrap(), Some(newer.with_expires_at(later)), "{name}");
    assert_eq!(store.destroy_at(&row.key, version).await.unwrap(), SaveOutcome::Saved, "{name}");
}
