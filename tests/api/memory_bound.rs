//! A full memory store makes room in one order, and refuses rather than end somebody's session.

use axum_typed_session::{
    Clock as _, MemoryStore, SessionStore, StoreError, StoreKey,
    store::{OwnerKey, Record, SaveOutcome, Timestamp, Write},
    testing::{ManualClock, RecordBuilder},
};

use crate::{
    common::assert_matches,
    support::{HOUR, MINUTE, SECOND},
};

const ADA: OwnerKey = OwnerKey::from_bytes([0xad; 32]);

/// Large beside what the store reckons for a session itself, which these tests need not know.
const PAYLOAD: usize = 100_000;

/// A store with room for so many of these sessions.
struct Bounded {
    store: MemoryStore,
    clock: ManualClock,
}

impl Bounded {
    fn to(sessions: usize) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder()
            .max_bytes(sessions * (PAYLOAD + PAYLOAD / 10))
            .clock(clock.clone());
        Self { store: store.build(), clock }
    }

    /// A session that begins now and lives for an hour.
    fn session(&self) -> RecordBuilder {
        let now = Timestamp::from(self.clock.now());
        RecordBuilder::new()
            .created_at(now)
            .expires_at(now.saturating_add(HOUR))
            .payload(vec![b'x'; PAYLOAD])
    }

    async fn create(&self, number: u8, record: &RecordBuilder) -> Result<Record, StoreError> {
        let record = record.build();
        let outcome = self.store.save(&key(number), &record, Write::Create).await?;
        assert_eq!(outcome, SaveOutcome::Saved);
        self.clock.advance(SECOND);
        Ok(record)
    }

    /// The keys that are there, in their order. A load would be a use of the session.
    async fn keys(&self) -> Vec<u8> {
        let page = self.store.list(None, 1000).await.unwrap();
        let mut keys: Vec<_> = page.keys.iter().map(|key| key.as_bytes()[0]).collect();
        keys.sort_unstable();
        keys
    }

    async fn load(&self, number: u8) {
        assert!(self.store.load(&key(number)).await.unwrap().is_some());
    }
}

fn key(number: u8) -> StoreKey {
    StoreKey::from_bytes([number; 32])
}

#[track_caller]
fn assert_full<R>(answer: Result<R, StoreError>) {
    assert_matches!(answer.err(), Some(StoreError::Full));
}

#[test]
fn making_a_store_needs_no_runtime() {
    assert!(MemoryStore::new().is_empty());
}

#[tokio::test]
async fn the_oldest_session_without_owner_makes_room() {
    let bounded = Bounded::to(3);
    for number in 0..5 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    assert_eq!(bounded.keys().await, [2, 3, 4]);
}

#[tokio::test]
async fn expired_sessions_make_room_first_whoever_owns_them() {
    let bounded = Bounded::to(3);
    let soon = Timestamp::from(bounded.clock.now()).saturating_add(10 * SECOND);
    bounded.create(0, &bounded.session()).await.unwrap();
    let brief = bounded.session().expires_at(soon).owner(ADA);
    bounded.create(1, &brief).await.unwrap();
    bounded.create(2, &bounded.session()).await.unwrap();
    bounded.clock.advance(10 * SECOND);
    bounded.create(3, &bounded.session()).await.unwrap();
    assert_eq!(bounded.keys().await, [0, 2, 3]);
}

/// Also where expired sessions are kept for a while for whoever asks for them, and are more than a save sweeps.
#[tokio::test]
async fn many_expired_sessions_make_room_before_one_that_lives() {
    let bounded = Bounded::to(10);
    assert!(bounded.store.take_expired(0).await.unwrap().is_empty());
    bounded
        .create(0, &bounded.session().expires_at(Timestamp::from_unix_millis(u64::MAX)))
        .await
        .unwrap();
    for number in 1..10 {
        bounded.create(number, &bounded.session().owner(ADA)).await.unwrap();
    }
    bounded.clock.advance(HOUR);
    let large = bounded.session().payload(vec![b'x'; 8 * PAYLOAD]);
    bounded.create(10, &large).await.unwrap();
    assert_eq!(bounded.keys().await, [0, 10]);
}

#[tokio::test]
async fn sessions_with_an_owner_stay_however_old_they_are() {
    let bounded = Bounded::to(3);
    bounded.create(0, &bounded.session().owner(ADA)).await.unwrap();
    for number in 1..6 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    assert_eq!(bounded.keys().await, [0, 4, 5]);
}

#[tokio::test]
async fn a_store_full_of_owned_sessions_refuses_new_ones_until_one_ends() {
    let bounded = Bounded::to(2);
    for number in 0..2 {
        bounded.create(number, &bounded.session().owner(ADA)).await.unwrap();
    }
    assert_full(bounded.create(2, &bounded.session()).await);
    assert_full(bounded.create(2, &bounded.session().owner(ADA)).await);
    assert_eq!(bounded.keys().await, [0, 1]);
    bounded.store.destroy(&key(0)).await.unwrap();
    bounded.create(2, &bounded.session()).await.unwrap();
    assert_eq!(bounded.keys().await, [1, 2]);
}

#[tokio::test]
async fn a_save_that_is_refused_ends_no_session() {
    let bounded = Bounded::to(3);
    bounded.create(0, &bounded.session().owner(ADA)).await.unwrap();
    bounded.create(1, &bounded.session()).await.unwrap();
    // The one without owner would not make room enough.
    let large = bounded.session().payload(vec![0; 3 * PAYLOAD]);
    assert_full(bounded.create(2, &large).await);
    let larger_than_the_store = bounded.session().payload(vec![0; 30 * PAYLOAD]);
    assert_full(bounded.create(2, &larger_than_the_store).await);
    assert_eq!(bounded.keys().await, [0, 1]);
}

#[tokio::test]
async fn a_session_that_grows_ends_others_and_never_itself() {
    let bounded = Bounded::to(3);
    let grows = bounded.create(0, &bounded.session()).await.unwrap();
    for number in 1..3 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    let larger = bounded.session().payload(vec![0; 2 * PAYLOAD]).build();
    let write = Write::Update { loaded: &grows };
    let saved = bounded.store.save(&key(0), &larger, write).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    assert_eq!(bounded.keys().await, [0, 2]);

    let write = Write::Update { loaded: &larger };
    let too_large = bounded.session().payload(vec![0; 4 * PAYLOAD]).build();
    assert_full(bounded.store.save(&key(0), &too_large, write).await);
    assert_eq!(bounded.keys().await, [0, 2]);
    assert_eq!(bounded.store.load(&key(0)).await.unwrap(), Some(larger));
}

#[tokio::test]
async fn a_full_store_still_takes_updates_that_do_not_grow() {
    let bounded = Bounded::to(2);
    let mut last = bounded.create(0, &bounded.session().owner(ADA)).await.unwrap();
    bounded.create(1, &bounded.session().owner(ADA)).await.unwrap();
    for _ in 0..3 {
        let next = bounded.session().owner(ADA).build();
        let write = Write::Update { loaded: &last };
        let saved = bounded.store.save(&key(0), &next, write).await.unwrap();
        assert_eq!(saved, SaveOutcome::Saved);
        last = next;
    }
}

#[tokio::test]
async fn sessions_that_came_back_make_room_after_all_others() {
    let bounded = Bounded::to(4);
    for number in 0..4 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    // One was loaded, another was saved again.
    bounded.load(0).await;
    let loaded = bounded.session().build();
    let second = bounded.create(4, &bounded.session()).await.unwrap();
    assert_eq!(bounded.keys().await, [0, 2, 3, 4]);
    let write = Write::Update { loaded: &second };
    let saved = bounded.store.save(&key(4), &loaded, write).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    for number in 5..9 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    assert_eq!(bounded.keys().await, [0, 4, 7, 8]);
    // Where no others are left, the one that was used longest ago makes room.
    for number in 7..9 {
        bounded.load(number).await;
    }
    bounded.create(9, &bounded.session()).await.unwrap();
    assert_eq!(bounded.keys().await, [4, 7, 8, 9]);
}

#[tokio::test]
async fn a_session_in_use_makes_room_after_one_that_is_not() {
    let bounded = Bounded::to(3);
    for number in 0..3 {
        bounded.create(number, &bounded.session()).await.unwrap();
        bounded.load(number).await;
    }
    bounded.clock.advance(MINUTE);
    bounded.load(0).await;
    bounded.create(3, &bounded.session()).await.unwrap();
    assert_eq!(bounded.keys().await, [0, 2, 3]);
}

/// A mark of a replaced id, which lives for some seconds.
fn mark(bounded: &Bounded) -> RecordBuilder {
    let now = Timestamp::from(bounded.clock.now());
    bounded.session().tombstone().expires_at(now.saturating_add(30 * SECOND))
}

/// A store that is far smaller, for rows without data.
fn small() -> Bounded {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().max_bytes(16 * 1024).clock(clock.clone()).build();
    Bounded { store, clock }
}

#[tokio::test]
async fn marks_of_replaced_ids_make_room_before_sessions_where_they_are_many() {
    let bounded = small();
    let empty = bounded.session().payload("");
    bounded.create(0, &empty).await.unwrap();
    // They fill the store several times over.
    for number in 1..=200 {
        let mark = mark(&bounded).build();
        let saved = bounded.store.save(&key(number), &mark, Write::Create).await.unwrap();
        assert_eq!(saved, SaveOutcome::Saved);
    }
    assert_eq!(bounded.keys().await, [0]);
    assert!(bounded.store.load(&key(1)).await.unwrap().is_none());
    assert!(bounded.store.load(&key(200)).await.unwrap().is_some());
}

#[tokio::test]
async fn few_marks_of_replaced_ids_make_room_last() {
    let bounded = small();
    let saved = bounded.store.save(&key(0), &mark(&bounded).build(), Write::Create).await;
    assert_eq!(saved.unwrap(), SaveOutcome::Saved);
    let empty = bounded.session().payload("").build();
    for number in 1..=200 {
        let _ = bounded.store.save(&key(number), &empty, Write::Create).await.unwrap();
        let _ = bounded.store.load(&key(number)).await.unwrap();
    }
    assert!(bounded.store.load(&key(0)).await.unwrap().is_some());
    // Sessions with an owner take the place of all others, until the store is full of them.
    let owned = bounded.session().payload("").owner(ADA).build();
    let mut full = None;
    for number in 201..=u8::MAX {
        full = full.or(bounded.store.save(&key(number), &owned, Write::Create).await.err());
    }
    assert_matches!(full, Some(StoreError::Full));
    assert!(bounded.store.load(&key(0)).await.unwrap().is_none());
    let found = bounded.store.find_by_owner(&ADA).await.unwrap();
    assert_eq!(found.len(), bounded.store.len());
}

#[tokio::test]
async fn an_entry_of_a_revocation_list_makes_no_room_before_it_expires() {
    let bounded = small();
    let entry = bounded.session().tombstone().build();
    let saved = bounded.store.save(&key(0), &entry, Write::Create).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    let mut full = None;
    for number in 1..=u8::MAX {
        let row = if number % 2 == 0 { mark(&bounded) } else { bounded.session().owner(ADA) };
        let row = row.payload("").build();
        full = full.or(bounded.store.save(&key(number), &row, Write::Create).await.err());
    }
    assert_matches!(full, Some(StoreError::Full));
    assert!(bounded.store.load(&key(0)).await.unwrap().is_some());
    bounded.clock.advance(HOUR);
    assert_matches!(bounded.store.load(&key(0)).await, Err(StoreError::Expired));
}

#[tokio::test]
async fn a_session_that_gets_an_owner_no_longer_makes_room() {
    let bounded = Bounded::to(2);
    let anonymous = bounded.create(0, &bounded.session()).await.unwrap();
    let login = bounded.session().owner(ADA).build();
    let write = Write::Update { loaded: &anonymous };
    let saved = bounded.store.save(&key(0), &login, write).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    for number in 1..4 {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    assert_eq!(bounded.keys().await, [0, 3]);
}

/// A save frees some of those whose keys begin with the same bits.
#[tokio::test]
async fn saving_frees_expired_sessions_as_it_goes() {
    let bounded = Bounded::to(600);
    for number in 0..=u8::MAX {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    bounded.clock.advance(2 * HOUR);
    for number in (0..=u8::MAX).step_by(2) {
        bounded.create(number, &bounded.session()).await.unwrap();
    }
    assert_eq!(bounded.store.len(), 128);
}

#[tokio::test]
async fn clones_share_their_sessions() {
    let bounded = Bounded::to(2);
    let clone = bounded.store.clone();
    let record = bounded.create(0, &bounded.session()).await.unwrap();
    assert_eq!(clone.load(&key(0)).await.unwrap(), Some(record));
    clone.destroy(&key(0)).await.unwrap();
    assert!(bounded.store.is_empty());
}
