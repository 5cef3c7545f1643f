//! The expectations of the checks. Their texts are for the author of a store.

use std::time::Duration;

use super::{StoreUnderTest, any_key};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::StoreKey,
    store::{Record, SaveOutcome, Write, none_if_expired},
};

impl StoreUnderTest {
    /// Creates a row under a key of its own.
    pub(super) async fn created(&self, record: &Record) -> StoreKey {
        let key = any_key();
        saved(self.save(&key, record, Write::Create).await, "creating where no row is");
        key
    }

    /// Creates a row and lets it expire.
    pub(super) async fn expired(&self, record: &Record) -> StoreKey {
        let key = self.created(record).await;
        self.pass_soon().await;
        key
    }

    pub(super) async fn found(&self, key: &StoreKey, doing: &str) -> Record {
        let found = answered(self.load(key).await, doing);
        found.unwrap_or_else(|| panic!("{doing}: expected the row, which load does not find"))
    }

    pub(super) async fn holds(&self, key: &StoreKey, wanted: &Record, doing: &str) {
        same(&self.found(key, doing).await, wanted, doing);
    }

    pub(super) async fn absent(&self, key: &StoreKey, doing: &str) {
        if let Some(found) = answered(none_if_expired(self.load(key).await), doing) {
            panic!("{doing}: expected no row, but load returned {found:?}");
        }
    }
}

/// Makes an update of the row as it is now.
pub(super) fn update(current: &Record) -> Write<'_> {
    Write::Update { loaded: current }
}

pub(super) fn an_hour_after(record: &Record) -> Timestamp {
    record.expires_at().saturating_add(Duration::from_secs(60 * 60))
}

#[track_caller]
pub(super) fn answered<R>(answer: Result<R, StoreError>, doing: &str) -> R {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{doing}: the store failed with {error:?}"),
    }
}

#[track_caller]
pub(super) fn saved(answer: Result<SaveOutcome, StoreError>, doing: &str) {
    let outcome = answered(answer, doing);
    assert!(outcome == SaveOutcome::Saved, "{doing}: expected Saved, got {outcome:?}");
}

#[track_caller]
pub(super) fn gone(answer: Result<SaveOutcome, StoreError>, doing: &str) {
    let outcome = answered(answer, doing);
    assert!(outcome == SaveOutcome::Gone, "{doing}: expected Gone, got {outcome:?}");
}

/// A conflict must carry the record of the row.
#[track_caller]
pub(super) fn conflict(answer: Result<SaveOutcome, StoreError>, current: &Record, doing: &str) {
    match answered(answer, doing) {
        SaveOutcome::Conflict(found) => same(&found, current, &format!("{doing}: in the Conflict")),
        other @ (SaveOutcome::Gone | SaveOutcome::Saved) => {
            panic!("{doing}: expected Conflict with the current record, got {other:?}")
        }
    }
}

/// Compares field by field, to name the field that differs.
#[track_caller]
pub(super) fn same(found: &Record, wanted: &Record, doing: &str) {
    macro_rules! compare {
        ($($field:ident),+) => { $({
            let (found, wanted) = (found.$field(), wanted.$field());
            assert!(
                found == wanted,
                "{doing}: `{}` came back as {found:?} instead of {wanted:?}",
                stringify!($field),
            );
        })+ };
    }
    compare!(
        version,
        owner,
        created_at,
        expires_at,
        absolute_end,
        idle_timeout,
        schema,
        codec_tag,
        is_tombstone
    );
    let (found, wanted) = (found.payload(), wanted.payload());
    let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "{doing}: the payload came back with {} bytes instead of {}, differing from byte {}",
        found.len(),
        wanted.len(),
        differs.unwrap_or(found.len().min(wanted.len())),
    );
}
