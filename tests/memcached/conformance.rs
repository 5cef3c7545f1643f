//! The promises of every store.

use std::sync::Arc;

use axum_typed_session::{
    SessionStore, session_store_conformance,
    testing::{ManualClock, conformance::StoreUnderTest},
    time::OffsetDateTime,
};

use crate::support::{Memcached, or_skip, shared};

/// A store whose clock the checks move. The server still counts its own seconds.
async fn moving(memcached: &Memcached) -> StoreUnderTest {
    let clock = ManualClock::at(OffsetDateTime::now_utc());
    let store = memcached.store().await.clock(clock.clone());
    StoreUnderTest::new(store).advance_with(move |duration| {
        clock.advance(duration);
        async {}
    })
}

session_store_conformance!(by_the_wall_clock, or_skip!(shared()).store().await);
session_store_conformance!(by_a_clock_of_the_test, moving(or_skip!(shared())).await);
session_store_conformance!(
    behind_an_arc,
    Arc::new(or_skip!(shared()).store().await) as Arc<dyn SessionStore>
);
