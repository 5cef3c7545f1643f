//! The promises of every store.

use std::sync::Arc;

use axum_typed_session::{
    SessionStore, session_store_conformance, testing::conformance::StoreUnderTest,
};
use redis::cmd;

use crate::support::{Redis, breakable, or_skip, row_key, shared, shared_cluster};

/// The server deletes expired rows by itself.
fn tested(store: impl SessionStore) -> StoreUnderTest {
    StoreUnderTest::new(store).engine_deletes_expired()
}

/// A store whose wire the checks cut, and whose rows they damage.
async fn breaking(server: &'static Redis) -> StoreUnderTest {
    breakable(server.proxied_store().await).damage_with(move |key| {
        let damaged = b"\xff".as_slice();
        server.ask::<()>(cmd("SET").arg(row_key(&key)).arg(damaged).arg("KEEPTTL"));
        async {}
    })
}

session_store_conformance!(one_server, breaking(or_skip!(shared())).await);
session_store_conformance!(cluster, tested(or_skip!(shared_cluster()).store().await));
session_store_conformance!(
    behind_an_arc,
    tested(Arc::new(or_skip!(shared()).store().await) as Arc<dyn SessionStore>)
);
