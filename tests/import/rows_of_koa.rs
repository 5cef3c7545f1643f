//! koa-session and egg-session with a store in Redis, whose cookie holds the key of a row.

use std::time::Duration;

use axum_typed_session::import::{EggSessions, KoaSessions, OldSessions};
use serde_json::{Value, json};

use crate::{
    node::{KEYS, Options, exchange, sign_in},
    random_json::sessions,
    redis_server::Redis,
    seal::{self, OfEgg, OfKoa},
    site::{
        Moved, Site, all, expect_all_move, expect_end_at_the_date, expect_found, expect_no_edits,
        expect_once,
    },
};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn koa(redis: &Redis, keys: &[&str]) -> KoaSessions<Moved> {
    KoaSessions::new(keys.to_vec(), all).store(redis.store())
}

fn egg(redis: &Redis, keys: &[&str]) -> EggSessions<Moved> {
    EggSessions::insecure_encrypted(keys.to_vec(), all).store(redis.store())
}

fn signed_egg(redis: &Redis, keys: &[&str]) -> EggSessions<Moved> {
    EggSessions::signed(keys.to_vec(), all).store(redis.store())
}

/// What a format has to pass. `old` makes its reader with these keys, and `seal` a cookie with the key of a row.
async fn check<S: OldSessions<Moved>>(
    format: &str,
    old: fn(&Redis, &[&str]) -> S,
    seal: fn(&str, &str) -> String,
) {
    let Some(redis) = Redis::start() else { return };
    let (data, url) = (sessions(1000), redis.url());
    let options = Options { format, keys: &KEYS, max_age: "3600000", redis: Some(&url) };
    let mut rows = redis::pipe();
    let mut sealed = Vec::new();
    for ((number, data), key) in data.iter().enumerate().zip(KEYS.iter().cycle()) {
        let row = format!("row-{number}");
        sealed.push(seal(key, &row));
        rows.set(row, seal::koa_json(data));
    }
    redis.ask_all(&rows);
    let Some((headers, found)) = exchange(&options, &data, &sealed) else { return };
    // egg takes the first key that decrypts a text to whole blocks, and so loses one session in 256 of an older key.
    let most_lost = if headers[0].contains(".sig=") { 0 } else { 20 };
    expect_found(&found, &data, most_lost);
    let site = |keys: &[&str]| Site::new(old(&redis, keys));
    expect_all_move(&site(&["newest", "new"]), &headers, &data).await;
    expect_all_move(&site(&KEYS), &sealed[..100], &data).await;
    assert_eq!(site(&["other", ""]).moved(&*headers[0]).await, None, "no key of this site");
    expect_no_edits(&site(&["new"]), &headers[0], |_| false).await;
    expect_once(&site(&["new"]), &headers[1]).await;
    expect_end_at_the_date(&site(&["new"]), &headers[1]).await;
    let late = site(&["new"]);
    late.clock.advance(HOUR);
    assert_eq!(late.moved(&*headers[2]).await, None, "expired");

    // A row that is gone, or that is no session.
    for row in ["1", "[]", "null", "{", "{\"_expire\":1}"] {
        redis.ask::<()>(redis::cmd("SET").arg("row-0").arg(row));
        assert_eq!(site(&["new"]).moved(seal("new", "row-0")).await, None, "{row}");
    }
    redis.ask::<()>(redis::cmd("DEL").arg("row-0"));
    assert_eq!(site(&["new"]).moved(seal("new", "row-0")).await, None);
}

#[tokio::test]
async fn rows_of_koa_session_move() {
    check("koa-store", koa, |key, row| seal::signed::<OfKoa>("koa.sess", key, row)).await;
}

#[tokio::test]
async fn rows_of_egg_under_an_encrypted_key_move() {
    check("egg-3-store", egg, seal::encrypted_by_egg).await;
}

#[tokio::test]
async fn rows_of_egg_under_a_signed_key_move() {
    let seal = |key: &str, row: &str| seal::signed::<OfEgg>("EGG_SESS", key, row);
    check("egg-4-signed-store", signed_egg, seal).await;
}

#[tokio::test]
async fn rows_of_two_visitors_with_the_same_data_move_once_each() {
    let Some(redis) = Redis::start() else { return };
    let url = redis.url();
    let format = "koa-store";
    let options = Options { format, keys: &["key"], max_age: "session", redis: Some(&url) };
    let data: [Value; 2] = [json!({"theme": "dark"}), json!({"theme": "dark"})];
    let Some(headers) = sign_in(&options, &data) else { return };
    let site = Site::new(koa(&redis, &["key"]));
    for cookies in &headers {
        expect_once(&site, cookies).await;
    }
}

#[tokio::test]
async fn a_row_lives_for_as_long_as_redis_says() {
    let Some(redis) = Redis::start() else { return };
    redis.ask::<()>(redis::cmd("SET").arg("row").arg("{}").arg("EX").arg(60));
    let cookies = seal::signed::<OfKoa>("koa.sess", "key", "row");
    let site = Site::new(koa(&redis, &["key"]));
    let answer = site.get(&*cookies).await;
    let session = answer.set_cookies().into_iter().find(|cookie| cookie.starts_with("__Host-"));
    let session = session.unwrap().split(';').next().unwrap().to_owned();
    site.clock.advance(Duration::from_secs(50));
    assert_eq!(site.get(&*session).await.body, "{}");
    site.clock.advance(Duration::from_secs(10));
    assert_eq!(site.get(&*session).await.body, "null");
}

#[tokio::test]
async fn a_redis_that_is_down_signs_no_user_of_koa_out() {
    let Some(redis) = Redis::start() else { return };
    let cookies = seal::signed::<OfKoa>("koa.sess", "key", "row");
    let site = Site::new(koa(&redis, &["key"]));
    drop(redis);
    let answer = site.get(&*cookies).await;
    assert_eq!(answer.status, http::StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.set_cookies().is_empty());
}
