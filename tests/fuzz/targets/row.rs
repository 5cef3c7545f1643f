//! A store of one row, which it keeps as the bytes of an engine.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum_typed_session::{
    SessionStore, StoreError, StoreKey,
    store::{Record, SaveOutcome, Timestamp, Version, Write},
};

/// The parts of a record that an engine keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct RowBytes {
    pub version: Version,
    pub expires_at: Timestamp,
    pub record: Vec<u8>,
}

impl RowBytes {
    pub fn of(record: &Record) -> Self {
        let (version, expires_at) = (record.version(), record.expires_at());
        Self { version, expires_at, record: record.to_bytes() }
    }

    pub fn record(&self) -> Result<Record, StoreError> {
        Record::from_bytes(self.version, self.expires_at, self.record.clone())
    }
}

/// The store. Every key finds its row.
#[derive(Clone, Default)]
pub struct Row(Arc<Mutex<Option<RowBytes>>>);

impl Row {
    pub fn set(&self, row: RowBytes) {
        *self.0.lock().unwrap() = Some(row);
    }

    pub fn get(&self) -> Option<RowBytes> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl SessionStore for Row {
    async fn load(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.get().as_ref().map(RowBytes::record).transpose()
    }

    async fn save(
        &self,
        _: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let held = self.get();
        if held.as_ref().map(|row| row.version) == write.expected() {
            self.set(RowBytes::of(record));
            return Ok(SaveOutcome::Saved);
        }
        held.map_or(Ok(SaveOutcome::Gone), |row| {
            row.record().map(|row| SaveOutcome::Conflict(row.into()))
        })
    }

    async fn destroy(&self, _: &StoreKey) -> Result<(), StoreError> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }

    fn survives_restart(&self) -> bool {
        true
    }
}
