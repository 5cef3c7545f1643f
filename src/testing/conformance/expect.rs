//! What a check expects of an answer; the texts are for the author of a store.

use crate::{error::StoreError, record::Record, store::SaveOutcome};

#[track_caller]
pub(super) fn answered<R>(answer: Result<R, StoreError>, doing: &str) -> R {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{doing}: the store failed with {error:?}"),
    }
}

#[track_caller]
pub(super) fn saved(answer: Result<SaveOutcome, StoreError>, doing: &str) {
    match answered(answer, doing) {
        SaveOutcome::Saved => {}
        other @ (SaveOutcome::Conflict(_) | SaveOutcome::Gone) => {
            panic!("{doing}: expected Saved, got {other:?}")
        }
    }
}

#[track_caller]
pub(super) fn gone(answer: Result<SaveOutcome, StoreError>, doing: &str) {
    match answered(answer, doing) {
        SaveOutcome::Gone => {}
        other @ (SaveOutcome::Conflict(_) | SaveOutcome::Saved) => {
            panic!("{doing}: expected Gone, got {other:?}")
        }
    }
}

/// A conflict must carry what the row holds.
#[track_caller]
pub(super) fn conflict(answer: Result<SaveOutcome, StoreError>, current: &Record, doing: &str) {
    match answered(answer, doing) {
        SaveOutcome::Conflict(found) => same(&found, current, &format!("{doing}: in the Conflict")),
        other @ (SaveOutcome::Gone | SaveOutcome::Saved) => {
            panic!("{doing}: expected Conflict with the current record, got {other:?}")
        }
    }
}

#[track_caller]
pub(super) fn holds(answer: Result<Option<Record>, StoreError>, wanted: &Record, doing: &str) {
    match answered(answer, doing) {
        Some(found) => same(&found, wanted, doing),
        None => panic!("{doing}: expected the row, which load does not find"),
    }
}

#[track_caller]
pub(super) fn absent(answer: Result<Option<Record>, StoreError>, doing: &str) {
    if let Some(found) = answered(answer, doing) {
        panic!("{doing}: expected no row, but load returned {found:?}");
    }
}

/// Compares field by field, to name the one that was lost on the way.
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
        max_age,
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
