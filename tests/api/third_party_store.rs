//! A store written from the trait's page alone, with the three required methods.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    SessionStore, StoreError, StoreKey, session_store_conformance,
    store::{Record, SaveOutcome, Timestamp, Version, Write},
    testing::{RecordBuilder, conformance::StoreUnderTest},
};

/// A table as an engine would have it: columns to compare and move, and a blob.
#[derive(Default)]
struct Table(Mutex<HashMap<[u8; 32], Row>>);

#[derive(Clone)]
struct Row {
    version: [u8; 16],
    expires_at: u64,
    rest: Vec<u8>,
}

impl Row {
    fn of(record: &Record) -> Self {
        Self {
            version: *record.version().as_bytes(),
            expires_at: record.expires_at().as_unix_millis(),
            rest: record.to_bytes(),
        }
    }

    fn is_live(&self) -> bool {
        Timestamp::from_unix_millis(self.expires_at) > OffsetDateTime::now_utc().into()
    }

    fn record(&self) -> Result<Record, StoreError> {
        let expires_at = Timestamp::from_unix_millis(self.expires_at);
        Record::from_bytes(Version::from_bytes(self.version), expires_at, self.rest.clone())
    }
}

impl Table {
    fn rows(&self) -> Result<MutexGuard<'_, HashMap<[u8; 32], Row>>, StoreError> {
        self.0.lock().map_err(|_| StoreError::unavailable("a writer panicked"))
    }
}

#[async_trait]
impl SessionStore for Table {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let row = self.rows()?.get(key.as_bytes()).cloned();
        row.filter(Row::is_live).map(|row| row.record()).transpose()
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let mut rows = self.rows()?;
        let current = rows.get(key.as_bytes()).filter(|row| row.is_live());
        match (current, write) {
            (Some(row), _) if row.version == *record.version().as_bytes() => {
                return Ok(SaveOutcome::Saved);
            }
            (Some(row), Write::Update { loaded })
                if row.version == *loaded.version().as_bytes() => {}
            (Some(row), _) => return Ok(SaveOutcome::Conflict(row.record()?.into())),
            (None, Write::Update { .. }) => return Ok(SaveOutcome::Gone),
            (None, Write::Create) => {}
        }
        rows.insert(*key.as_bytes(), Row::of(record));
        Ok(SaveOutcome::Saved)
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.rows()?.remove(key.as_bytes());
        Ok(())
    }
}

// An engine would delete expired rows by itself.
session_store_conformance!({
    let table = Arc::new(Table::default());
    let rows = table.clone();
    StoreUnderTest::new(table).engine_deletes_expired().damage_with(move |key| {
        if let Some(row) = rows.rows().unwrap().get_mut(key.as_bytes()) {
            row.rest = vec![0xff];
        }
        async {}
    })
});

#[test]
fn a_record_tells_its_schema_and_its_codec() {
    let record = RecordBuilder::new().schema(3).codec_tag(200).build();
    assert_eq!((record.schema(), record.codec_tag()), (3, 200));
}

#[test]
fn a_store_outlives_its_process_unless_it_says_otherwise() {
    assert!(Table::default().survives_restart());
}
