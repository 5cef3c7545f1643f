//! The store for one process keeps the promises of every store.

use std::sync::Arc;

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    MemoryStore, SessionStore, session_store_conformance,
    testing::{Fault, FaultyStore, ManualClock, Operation, conformance::StoreUnderTest},
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
