//! express-session, whose data is in Redis.

use std::time::Duration;

use axum_typed_session::import::ExpressSessions;

use crate::{
    node::{KEYS, Options, exchange},
    random_json::sessions,
    redis_server::Redis,
    seal,
    site::{
        Site, all, expect_all_move, expect_end_at_the_date, expect_found, expect_no_edits,
        expect_once,
    },
};

fn express(redis: &Redis, secret: &str) -> ExpressSessions<crate::site::Moved> {
    ExpressSessions::new(redis.store(), ["newest", secret], all)
}

#[tokio::test]
async fn sessions_of_express_session_move() {
    let Some(redis) = Redis::start() else { return };
    let (data, url) = (sessions(1000), redis.url());
    let options = Options { format: "express", keys: &KEYS, max_age: "3600000", redis: Some(&url) };
    let mut rows = redis::pipe();
    let mut sealed = Vec::new();
    for ((number, data), secret) in data.iter().enumerate().zip(KEYS.iter().cycle()) {
        let id = format!("id.of-{number}_");
        sealed.push(seal::signed_by_express(secret, &id));
        rows.set_ex(format!("sess:{id}"), seal::row_of_express(data), 3600);
    }
    redis.ask_all(&rows);
    let Some((headers, found)) = exchange(&options, &data, &sealed) else { return };
    expect_found(&found, &data, 0);
    expect_all_move(&Site::new(express(&redis, "new")), &headers, &data).await;
    for secret in ["other", ""] {
        let site = Site::new(express(&redis, secret));
        assert_eq!(site.moved(&*headers[0]).await, None);
    }
    let decoded =
        |text: &str| text.replace("%3a", "%3A").replace("%2b", "%2B").replace("%2f", "%2F");
    let is_same = |edited: &str| decoded(edited) == headers[0];
    expect_no_edits(&Site::new(express(&redis, "new")), &headers[0], is_same).await;
    expect_once(&Site::new(express(&redis, "new")), &headers[1]).await;
    expect_end_at_the_date(&Site::new(express(&redis, "new")), &headers[1]).await;

    // Its row has ended, or has an hour left.
    let row = |header: &str| {
        let id = header.strip_prefix("connect.sid=s%3A").unwrap().split('.').next().unwrap();
        format!("sess:{id}")
    };
    let site = Site::new(express(&redis, "new"));
    site.clock.advance(Duration::from_secs(2 * 60 * 60));
    redis.ask::<()>(redis::cmd("DEL").arg(row(&headers[2])));
    assert_eq!(site.moved(&*headers[2]).await, None);
    // A row without an end of its own ends at the date in it.
    redis.ask::<()>(redis::cmd("PERSIST").arg(row(&headers[3])));
    assert_eq!(site.moved(&*headers[3]).await, None);
    let site = Site::new(express(&redis, "new"));
    assert!(site.moved(&*headers[3]).await.is_some());
    // Not signed, or not with an id.
    for cookies in ["connect.sid=s%3A.", "connect.sid=s%3Aid", "connect.sid=id", "connect.sid=s:"] {
        assert_eq!(site.moved(cookies).await, None, "{cookies}");
    }
}
