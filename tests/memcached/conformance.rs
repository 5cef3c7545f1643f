//! The promises of every store.

use std::sync::Arc;

use axum_typed_session::{
    SessionStore, session_store_conformance,
    testing::{ManualClock, conformance::StoreUnderTest},
    time::OffsetDateTime,
};

use crate::support::{Memcached, breakable, or_skip, row_key, shared};

/// The server deletes expired rows by itself.
fn tested(store: impl SessionStore) -> StoreUnderTest {
    StoreUnderTest::new(store).engine_deletes_expired()
}

/// A store whose clock the checks move. The server still counts its own seconds.
async fn moving(memcached: &Memcached) -> StoreUnderTest {
    let clock = ManualClock::at(OffsetDateTime::now_utc());
    let store = memcached.store().await.clock(clock.clone());
    tested(store).advance_with(move |duration| {
        clock.advance(duration);
        async {}
    })
}

/// A store whose wire the checks cut, and whose rows they damage.
async fn breaking(memcached: &'static Memcached) -> StoreUnderTest {
    breakable(memcached.proxied_store().await).damage_with(move |key| {
        memcached.put(&row_key(&key), "damaged");
        async {}
    })
}

session_store_conformance!(by_the_wall_clock, breaking(or_skip!(shared())).await);
session_store_conformance!(by_a_clock_of_the_test, moving(or_skip!(shared())).await);
session_store_conformance!(
    behind_an_arc,
    tested(Arc::new(or_skip!(shared()).store().await) as Arc<dyn SessionStore>)
);
