//! Rows of every format so far, as earlier versions left them in the server.

use redis::cmd;

use crate::{
    common::formats::{all_rows, goes_on, then},
    support::{Redis, index_key, or_skip, row_key},
};

#[tokio::test]
async fn rows_of_every_format_go_on() {
    let redis = or_skip!(Redis::start());
    let store = redis.store().await.clock(then());
    for row in all_rows() {
        let _: () = redis.ask(cmd("SET").arg(row_key(&row.key)).arg(&row.value));
        let record = row.record();
        if let Some(owner) = record.owner() {
            let end = record.absolute_end().as_unix_millis();
            let index = index_key(&owner);
            let _: () = redis.ask(cmd("ZADD").arg(index).arg(end).arg(row.key.as_bytes()));
        }
        goes_on(&store, &row).await;
    }
}
