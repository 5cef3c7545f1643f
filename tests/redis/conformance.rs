//! The promises of every store.

use std::sync::Arc;

use axum_typed_session::{SessionStore, session_store_conformance};

use crate::support::{or_skip, shared, shared_cluster};

session_store_conformance!(one_server, or_skip!(shared()).store().await);
session_store_conformance!(cluster, or_skip!(shared_cluster()).store().await);
session_store_conformance!(
    behind_an_arc,
    Arc::new(or_skip!(shared()).store().await) as Arc<dyn SessionStore>
);
