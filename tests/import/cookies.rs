//! koa-session, egg-session and cookie-session, whose data is in the cookie.

use std::time::Duration;

use axum_typed_session::import::{CookieSessions, EggSessions, KoaSessions, OldSessions};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac as _, digest::KeyInit};
use serde_json::json;
use sha1::Sha1;

use crate::{
    node::{Options, sessions, sign_in},
    site::{Moved, Site, all, expect_all_move, expect_no_edits, expect_once},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What a format has to pass. `old` makes its reader with these keys.
async fn check<S: OldSessions<Moved>>(format: &str, is_unique: bool, old: fn(&[&str]) -> S) {
    let data = sessions(1000);
    let now = Options { format, keys: &["new", "old"], max_age: "3600000", redis: None };
    let Some(headers) = sign_in(&now, &data) else { return };
    // The application changed its keys since.
    expect_all_move(&Site::new(old(&["newest", "new"])), &headers, &data).await;
    let site = Site::new(old(&["other", ""]));
    for cookies in &headers {
        assert_eq!(site.moved(&**cookies).await, None, "no key of this site");
    }
    expect_no_edits(&Site::new(old(&["new"])), &headers[0], |_| false).await;
    if is_unique {
        expect_once(&Site::new(old(&["new"])), &headers[1]).await;
        let site = Site::new(old(&["new"]));
        site.clock.advance(HOUR);
        assert_eq!(site.moved(&*headers[2]).await, None, "expired");
    }
    // No value without its signature, and none of another session.
    let site = Site::new(old(&["new"]));
    if let (Some((value, _)), Some((_, signature))) =
        (headers[3].split_once("; "), headers[4].split_once("; "))
    {
        assert_eq!(site.moved(value).await, None);
        assert_eq!(site.moved(format!("{value}; {signature}")).await, None);
    }
}

#[tokio::test]
async fn sessions_of_koa_session_move() {
    check("koa", true, |keys| KoaSessions::new(keys.to_vec(), all)).await;
}

#[tokio::test]
async fn encrypted_sessions_of_egg_move() {
    for format in ["egg-3", "egg-4"] {
        check(format, true, |keys| EggSessions::insecure_encrypted(keys.to_vec(), all)).await;
    }
}

#[tokio::test]
async fn signed_sessions_of_egg_move() {
    for format in ["egg-3-signed", "egg-4-signed"] {
        check(format, true, |keys| EggSessions::signed(keys.to_vec(), all)).await;
    }
}

#[tokio::test]
async fn sessions_of_cookie_session_move() {
    check("cookie-session", false, |keys| CookieSessions::new(keys.to_vec(), all)).await;
}

#[tokio::test]
async fn a_session_lives_for_the_rest_of_the_hour_that_koa_gave_it() {
    let options = Options { format: "koa", keys: &["key"], max_age: "3600000", redis: None };
    let Some(headers) = sign_in(&options, &[json!({"user": 1})]) else { return };
    let site = Site::new(KoaSessions::new(["key"], all));
    let answer = site.get(&*headers[0]).await;
    let session = answer.set_cookies().into_iter().find(|cookie| cookie.starts_with("__Host-"));
    let session = session.unwrap().split(';').next().unwrap().to_owned();
    site.clock.advance(HOUR - Duration::from_secs(60));
    assert!(site.get(&*session).await.body.contains("user"));
    site.clock.advance(Duration::from_secs(60));
    assert_eq!(site.get(&*session).await.body, "null");
}

#[tokio::test]
async fn a_koa_session_without_an_end_is_not_shared_by_two_visitors() {
    let options = Options { format: "koa", keys: &["key"], max_age: "session", redis: None };
    let data = [json!({"theme": "dark"}), json!({"theme": "dark"})];
    let Some(headers) = sign_in(&options, &data) else { return };
    assert_eq!(headers[0], headers[1], "the cookies are the same");
    let site = Site::new(KoaSessions::new(["key"], all));
    let (one, two) = (site.get(&*headers[0]).await, site.get(&*headers[1]).await);
    assert_eq!((&*one.body, &*two.body), (r#"{"theme":"dark"}"#, r#"{"theme":"dark"}"#));
    site.clock.advance(HOUR);
    assert!(site.moved(&*headers[0]).await.is_some(), "nor is the second device signed out");
}

#[tokio::test]
async fn a_cookie_session_that_is_unique_moves_once() {
    let options =
        Options { format: "cookie-session", keys: &["key"], max_age: "1000", redis: None };
    let Some(headers) = sign_in(&options, &[json!({"csrf": "random"})]) else { return };
    let site = Site::new(CookieSessions::new(["key"], all).unique(true));
    expect_once(&site, &headers[0]).await;
}

#[tokio::test]
async fn what_the_application_does_not_take_is_not_imported() {
    let options = Options { format: "koa", keys: &["key"], max_age: "60000", redis: None };
    let Some(headers) = sign_in(&options, &[json!({"user": 1})]) else { return };
    let site = Site::new(KoaSessions::new(["key"], |_| None));
    assert_eq!(site.moved(&*headers[0]).await, None);
}

/// Returns the cookies of koa-session for this JSON, as keygrip signs them.
fn signed(key: &str, json: &str) -> String {
    let pair = format!("koa.sess={}", STANDARD.encode(json));
    let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(key.as_bytes()).unwrap();
    let signature = mac.chain_update(&pair).finalize().into_bytes();
    format!("{pair}; koa.sess.sig={}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn an_empty_key_signs_nothing() {
    let site = Site::new(KoaSessions::new(["key", ""], all));
    assert_eq!(site.moved(signed("", "{}")).await, None);
    assert!(site.moved(signed("key", "{}")).await.is_some(), "as keygrip signs");
    let site = Site::new(EggSessions::insecure_encrypted(Vec::<String>::new(), all));
    assert_eq!(site.moved("EGG_SESS=AAAAAAAAAAAAAAAAAAAAAA").await, None);
}

#[tokio::test]
async fn signed_text_that_is_no_session_is_not_read() {
    let site = Site::new(KoaSessions::new(["key"], all));
    let nested = |levels: usize| {
        format!("{{\"field\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
    };
    assert!(site.moved(signed("key", &nested(63))).await.is_some());
    for levels in [64, 65, 127, 128, 1000] {
        assert_eq!(site.moved(signed("key", &nested(levels))).await, None, "{levels}");
    }
    for text in ["", "1", "[]", "null", "{", "{}{}", r#"{"_expire":"soon"}"#, r#"{"_expire":-1}"#] {
        assert_eq!(site.moved(signed("key", text)).await, None, "{text}");
    }
    for end in ["0", "1", "18446744073709551615", "18446744073709551616", "1e300"] {
        let text = format!("{{\"_expire\":{end}}}");
        assert_eq!(site.moved(signed("key", &text)).await, None, "{text}");
    }
}
