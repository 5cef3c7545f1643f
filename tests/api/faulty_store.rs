//! The failing store fails as told, and only then.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

use axum_typed_session::{
    MemoryStore, SessionStore, StoreError, StoreKey,
    store::{OwnerKey, Record, SaveOutcome, Timestamp, Version, Write},
    testing::{Fault, FaultyStore, Gate, Operation},
};

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

fn store() -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::new())
}

/// A row with nothing in it that ends in the year 9999, by the bytes the record's docs describe.
fn record(version: u8) -> Record {
    let end = Timestamp::from_unix_millis(253_402_300_799_000);
    let mut bytes = vec![1, 0, 1, 0, 0, 0, 1];
    bytes.extend(0_u64.to_be_bytes());
    bytes.extend(end.as_unix_millis().to_be_bytes());
    Record::from_bytes(Version::from_bytes([version; 16]), end, bytes).unwrap()
}

fn is_pending(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[track_caller]
fn assert_unavailable<R>(answer: Result<R, StoreError>) {
    let error = answer.err();
    assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
}

#[tokio::test]
async fn without_a_fault_it_is_the_store_it_wraps() {
    let store = store();
    let saved = store.save(&KEY, &record(1), Write::Create).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    assert_eq!(store.load(&KEY).await.unwrap(), Some(record(1)));
    assert!(store.indexes_owners());
    assert_eq!(store.inner().len(), 1);
}

#[tokio::test]
async fn the_next_calls_fail_and_the_one_after_does_not() {
    let store = store();
    store.inject_next(2, Operation::Load, Fault::Fail);
    assert_unavailable(store.load(&KEY).await);
    store.destroy(&KEY).await.unwrap();
    assert_unavailable(store.load(&KEY).await);
    assert_eq!(store.load(&KEY).await.unwrap(), None);
}

#[tokio::test]
async fn a_lasting_fault_lasts_until_it_is_healed() {
    let store = store();
    store.inject(Operation::all(), Fault::Fail);
    for _ in 0..3 {
        assert_unavailable(store.load(&KEY).await);
        assert_unavailable(store.save(&KEY, &record(1), Write::Create).await);
        assert_unavailable(store.destroy(&KEY).await);
        assert_unavailable(store.touch(&KEY, record(1).version(), record(1).expires_at()).await);
        assert_unavailable(store.delete_expired(1).await);
    }
    store.heal();
    assert_eq!(store.load(&KEY).await.unwrap(), None);
}

#[tokio::test]
async fn planned_faults_come_in_their_order_and_before_a_lasting_one() {
    let store = store();
    store.inject(Operation::Load, Fault::Hang);
    store.inject_next(1, Operation::Load, Fault::Pass);
    store.inject_next(1, Operation::Load, Fault::Fail);
    assert_eq!(store.load(&KEY).await.unwrap(), None);
    assert_unavailable(store.load(&KEY).await);
    assert!(is_pending(store.load(&KEY)));
    assert!(is_pending(store.load(&KEY)));
}

#[tokio::test]
async fn a_lost_answer_is_a_write_that_happened() {
    let store = store();
    store.inject_next(1, [Operation::Save, Operation::Destroy], Fault::LoseAnswer);
    assert_unavailable(store.save(&KEY, &record(1), Write::Create).await);
    assert_eq!(store.load(&KEY).await.unwrap(), Some(record(1)));
    assert_unavailable(store.destroy(&KEY).await);
    assert_eq!(store.load(&KEY).await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_or_hanging_write_did_not_happen() {
    let store = store();
    store.inject_next(1, Operation::Save, Fault::Fail);
    store.inject_next(1, Operation::Save, Fault::Hang);
    assert_unavailable(store.save(&KEY, &record(1), Write::Create).await);
    assert!(is_pending(store.save(&KEY, &record(1), Write::Create)));
    assert_eq!(store.load(&KEY).await.unwrap(), None);
}

#[tokio::test]
async fn a_paused_call_asks_only_when_the_gate_opens() {
    let (store, gate) = (store(), Gate::new());
    store.inject(Operation::Save, Fault::Pause(gate.clone()));
    let save = |version| {
        let store = store.clone();
        tokio::spawn(async move { store.save(&KEY, &record(version), Write::Create).await })
    };
    let saves = [save(1), save(2)];
    gate.reached(2).await;
    assert_eq!(store.load(&KEY).await.unwrap(), None);
    gate.open();
    let mut winners = 0;
    for save in saves {
        winners += usize::from(save.await.unwrap().unwrap() == SaveOutcome::Saved);
    }
    assert_eq!(winners, 1);
    let late = store.save(&KEY, &record(3), Write::Create).await.unwrap();
    assert!(matches!(late, SaveOutcome::Conflict(_)), "an open gate holds nobody");
}

#[tokio::test]
async fn a_held_answer_belongs_to_a_write_that_happened() {
    let (store, gate) = (store(), Gate::new());
    store.inject_next(1, Operation::Save, Fault::HoldAnswer(gate.clone()));
    let save = tokio::spawn({
        let store = store.clone();
        async move { store.save(&KEY, &record(1), Write::Create).await }
    });
    gate.reached(1).await;
    assert!(!save.is_finished());
    assert_eq!(store.load(&KEY).await.unwrap(), Some(record(1)));
    gate.open();
    assert_eq!(save.await.unwrap().unwrap(), SaveOutcome::Saved);
}

#[tokio::test]
async fn calls_are_counted_by_operation_whatever_became_of_them() {
    let store = store();
    let clone = store.clone();
    clone.inject_next(1, Operation::Load, Fault::Hang);
    assert!(is_pending(store.load(&KEY)));
    store.load(&KEY).await.unwrap();
    store.destroy(&KEY).await.unwrap();
    assert_eq!(clone.calls(Operation::Load), 2);
    assert_eq!(clone.calls([Operation::Load, Operation::Destroy]), 3);
    assert_eq!(clone.calls(Operation::all()), 3);
    assert_eq!(clone.calls(Operation::Save), 0);
    clone.reset_calls();
    assert_eq!(store.calls(Operation::all()), 0);
}

#[tokio::test]
async fn an_optional_method_is_one_call_however_the_store_does_it() {
    let store = store();
    let owner = OwnerKey::from_bytes([1; 32]);
    store.destroy_by_owner(&owner, None).await.unwrap();
    assert_eq!(store.calls(Operation::DestroyByOwner), 1);
    assert_eq!(store.calls(Operation::all()), 1);
}
