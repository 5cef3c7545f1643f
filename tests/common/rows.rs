//! Rows of a store, and what its methods answer.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;

use axum_typed_session::{
    SessionStore, StoreError, StoreKey,
    store::{Record, SaveOutcome, Write},
    testing::{RecordBuilder, conformance::StoreUnderTest},
};

use crate::common::{assert_matches, proxy::Proxy};

/// Takes what a server was started for, or ends the test, which has said that it is skipped.
macro_rules! or_skip {
    ($started:expr) => {
        match $started {
            Some(started) => started,
            None => return,
        }
    };
}
pub(crate) use or_skip;

pub fn random() -> [u8; 32] {
    // Two versions of two records are 32 random bytes.
    let version = || *RecordBuilder::new().build().version().as_bytes();
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&version());
    bytes[16..].copy_from_slice(&version());
    bytes
}

pub fn any_key() -> StoreKey {
    StoreKey::from_bytes(random())
}

/// A record of a session that lives for a day.
pub fn record() -> RecordBuilder {
    RecordBuilder::new()
}

pub fn update(from: &Record) -> Write<'_> {
    Write::Update { loaded: from }
}

#[track_caller]
pub fn saved(outcome: Result<SaveOutcome, StoreError>) {
    assert_eq!(outcome.expect("an outcome"), SaveOutcome::Saved);
}

#[track_caller]
pub fn gone(outcome: Result<SaveOutcome, StoreError>) {
    assert_eq!(outcome.expect("an outcome"), SaveOutcome::Gone);
}

#[track_caller]
pub fn unavailable<R>(answer: Result<R, StoreError>) {
    assert_matches!(answer.err(), Some(StoreError::Unavailable(_)));
}

/// Creates a row under a key of its own.
pub async fn created(store: &dyn SessionStore, row: &Record) -> StoreKey {
    let key = any_key();
    saved(store.save(&key, row, Write::Create).await);
    key
}

/// A store whose wire the checks of the conformance suite cut.
pub fn breakable((proxy, store): (Proxy, impl SessionStore)) -> StoreUnderTest {
    let proxy = Arc::new(proxy);
    let (broken, repaired) = (proxy.clone(), proxy);
    let go_down = move || {
        broken.go_down();
        async {}
    };
    let go_up = move || {
        repaired.go_up();
        async {}
    };
    StoreUnderTest::new(store).engine_deletes_expired().break_with(go_down, go_up)
}
