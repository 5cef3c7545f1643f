//! The store for one process keeps the promises of every store.

use std::{sync::Arc, time::Duration};

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    Clock as _, MemoryStore, SessionStore, session_store_conformance,
    testing::{
        Fault, FaultyStore, ManualClock, Operation, RecordBuilder, conformance::StoreUnderTest,
    },
};

fn store() -> (MemoryStore, ManualClock) {
    let clock = ManualClock::at(OffsetDateTime::now_utc());
    let store = MemoryStore::builder().clock(clock.clone()).build();
    (store, clock)
}

fn tested(store: impl SessionStore, clock: ManualClock) -> StoreUnderTest {
    StoreUnderTest::new(store).advance_with(move |duration| {
        clock.advance(duration);
        async {}
    })
}

session_store_conformance!(conformance, {
    let (store, clock) = store();
    tested(store, clock)
});

session_store_conformance!(conformance_behind_an_arc, {
    let (store, clock) = store();
    tested(Arc::new(store) as Arc<dyn SessionStore>, clock)
});

session_store_conformance!(conformance_of_a_store_that_fails_and_recovers, {
    let (store, clock) = store();
    let store = FaultyStore::new(store);
    let (broken, repaired) = (store.clone(), store.clone());
    tested(store, clock).break_with(
        move || {
            broken.inject(Operation::all(), Fault::Fail);
            async {}
        },
        move || {
            repaired.heal();
            async {}
        },
    )
});

#[test]
fn a_manual_clock_never_goes_back_by_advancing() {
    let clock = ManualClock::new();
    let began = clock.now();
    clock.advance(Duration::from_secs(60));
    assert_eq!(clock.now(), began + Duration::from_secs(60));
    for _ in 0..2 {
        clock.advance(Duration::MAX);
        assert_eq!(clock.now().year(), 9999);
    }
    clock.set(began);
    assert_eq!(clock.now(), began);
}

#[test]
fn a_record_ends_after_a_day_or_with_its_expiry_if_that_is_later() {
    let (hour, day) = (Duration::from_secs(60 * 60), Duration::from_secs(24 * 60 * 60));
    let builder = RecordBuilder::new();
    let began = builder.build().created_at();
    for (life, end) in [(hour, day), (2 * day, 2 * day)] {
        let record = builder.clone().expires_at(began.saturating_add(life)).build();
        assert_eq!(record.expires_at(), began.saturating_add(life));
        assert_eq!(record.absolute_end(), began.saturating_add(end));
    }
}
