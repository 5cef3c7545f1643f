//! The store for one process keeps the promises of every store.

use std::sync::Arc;

use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    MemoryStore, SessionStore, session_store_conformance,
    testing::{FaultyStore, ManualClock, conformance::StoreUnderTest},
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

session_store_conformance!(conformance_of_a_failing_store_at_rest, {
    let (store, clock) = store();
    tested(FaultyStore::new(store), clock)
});
