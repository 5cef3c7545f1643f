//! Rows of every format so far, as earlier versions left them in the server.

use crate::{
    common::formats::{all_rows, goes_on, then},
    support::{Memcached, or_skip, row_key},
};

#[tokio::test]
async fn rows_of_every_format_go_on() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await.clock(then());
    for row in all_rows() {
        memcached.put(&row_key(&row.key), &row.value);
        goes_on(&store, &row).await;
    }
}
