//! The promises of every store.

use std::sync::Arc;

use axum_typed_session::{
    SessionStore, session_store_conformance, testing::conformance::StoreUnderTest,
};
use redis::cmd;

use crate::support::{Redis, or_skip, row_key, shared, shared_cluster};

/// The server deletes expired rows by itself.
fn tested(store: impl SessionStore) -> StoreUnderTest {
    StoreUnderTest::new(store).engine_deletes_expired()
}

/// A store whose wire the checks cut, and whose rows they damage.
async fn breakable(server: &'static Redis) -> StoreUnderTest {
    let (proxy, store) = server.proxied_store().await;
    let proxy = Arc::new(proxy);
    let (broken, repaired) = (proxy.clone(), proxy);
    tested(store)
        .break_with(
            move || {
                broken.go_down();
                async {}
            },
            move || {
                repaired.go_up();
                async {}
            },
        )
        .damage_with(move |key| {
            let damaged = b"\xff".as_slice();
            server.ask::<()>(cmd("SET").arg(row_key(&key)).arg(damaged).arg("KEEPTTL"));
            async {}
        })
}

session_store_conformance!(one_server, breakable(or_skip!(shared())).await);
session_store_conformance!(cluster, tested(or_skip!(shared_cluster()).store().await));
session_store_conformance!(
    behind_an_arc,
    tested(Arc::new(or_skip!(shared()).store().await) as Arc<dyn SessionStore>)
);
