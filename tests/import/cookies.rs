//! koa-session, egg-session and cookie-session, whose data is in the cookie.

use std::time::Duration;

use axum_typed_session::{
    cookie::{Cookie, SameSite},
    import::{CookieSessions, EggSessions, KoaSessions, OldSessions},
};
use serde_json::{Value, json};

use crate::{
    node::{KEYS, Options, exchange, sign_in},
    random_json::sessions,
    seal::{self, OfEgg, OfKoa},
    site::{
        Moved, Site, all, expect_all_move, expect_end_at_the_date, expect_found, expect_no_edits,
        expect_once,
    },
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What a format has to pass. `old` makes its reader with these keys, and `seal` a cookie with this key.
async fn check<S: OldSessions<Moved>>(
    format: &str,
    is_unique: bool,
    old: fn(&[&str]) -> S,
    seal: fn(&str, &Value) -> String,
) {
    let data = sessions(1000);
    let now = Options { format, keys: &KEYS, max_age: "3600000", redis: None };
    let sealed: Vec<_> =
        data.iter().zip(KEYS.iter().cycle()).map(|(data, key)| seal(key, data)).collect();
    let Some((headers, found)) = exchange(&now, &data, &sealed) else { return };
    // egg takes the first key that decrypts a text to whole blocks, and so loses one session in 256 of an older key.
    let most_lost = if headers[0].contains(".sig=") { 0 } else { 20 };
    expect_found(&found, &data, most_lost);
    // The application changed its keys since.
    expect_all_move(&Site::new(old(&["newest", "new"])), &headers, &data).await;
    expect_all_move(&Site::new(old(&KEYS)), &sealed[..100], &data).await;
    let site = Site::new(old(&["other", ""]));
    for cookies in &headers[..100] {
        assert_eq!(site.moved(&**cookies).await, None, "no key of this site");
    }
    expect_no_edits(&Site::new(old(&["new"])), &headers[0], |_| false).await;
    expect_end_at_the_date(&Site::new(old(&["new"])), &headers[1]).await;
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
    let old = |keys: &[&str]| KoaSessions::new(keys.to_vec(), all);
    let seal = |key: &str, data: &Value| {
        seal::signed::<OfKoa>("koa.sess", key, &seal::in_base64(&seal::koa_json(data)))
    };
    check("koa", true, old, seal).await;
}

#[tokio::test]
async fn encrypted_sessions_of_egg_move() {
    let old = |keys: &[&str]| EggSessions::insecure_encrypted(keys.to_vec(), all);
    let seal = |key: &str, data: &Value| {
        seal::encrypted_by_egg(key, &seal::in_base64(&seal::koa_json(data)))
    };
    for format in ["egg-3", "egg-4"] {
        check(format, true, old, seal).await;
    }
}

#[tokio::test]
async fn signed_sessions_of_egg_move() {
    let old = |keys: &[&str]| EggSessions::signed(keys.to_vec(), all);
    let seal = |key: &str, data: &Value| {
        seal::signed::<OfEgg>("EGG_SESS", key, &seal::in_base64(&seal::koa_json(data)))
    };
    for format in ["egg-3-signed", "egg-4-signed"] {
        check(format, true, old, seal).await;
    }
}

#[tokio::test]
async fn sessions_of_cookie_session_move() {
    let old = |keys: &[&str]| CookieSessions::new(keys.to_vec(), all);
    let seal = |key: &str, data: &Value| {
        seal::signed::<OfKoa>("session", key, &seal::in_base64(&data.to_string()))
    };
    check("cookie-session", false, old, seal).await;
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

/// egg's option `autoChips` sets the session in a second cookie for pages inside other sites.
#[tokio::test]
async fn the_partitioned_cookie_of_egg_moves_and_is_removed() {
    let text = seal::in_base64(&seal::koa_json(&json!({"user": 1})));
    let cookies = seal::encrypted_by_egg("key", &text).replace("EGG_SESS", "_CHIPS-EGG_SESS");
    let chips = Cookie::build("_CHIPS-EGG_SESS").same_site(SameSite::None);
    let chips = chips.secure(true).partitioned(true);
    let site = Site::new(EggSessions::insecure_encrypted(["key"], all).cookie(chips));
    let answer = site.get(&*cookies).await;
    assert_eq!(answer.body, r#"{"user":1}"#);
    let removal = "_CHIPS-EGG_SESS=; SameSite=None; Partitioned; Secure; Path=/; Max-Age=0;";
    let removed = answer.set_cookies().into_iter().find(|cookie| cookie.starts_with("_CHIPS"));
    assert!(removed.unwrap().starts_with(removal), "{answer:?}");
}

#[tokio::test]
async fn what_the_application_does_not_take_is_not_imported() {
    let options = Options { format: "koa", keys: &["key"], max_age: "60000", redis: None };
    let Some(headers) = sign_in(&options, &[json!({"user": 1})]) else { return };
    let site = Site::new(KoaSessions::new(["key"], |_| None));
    assert_eq!(site.moved(&*headers[0]).await, None);
}

/// Returns the cookies of koa-session for this JSON.
fn signed(key: &str, json: &str) -> String {
    seal::signed::<OfKoa>("koa.sess", key, &seal::in_base64(json))
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

#[tokio::test]
async fn an_end_with_a_fraction_of_a_millisecond_is_read() {
    let site = Site::new(KoaSessions::new(["key"], all));
    for end in ["9999999999999", "9999999999999.5"] {
        let text = format!("{{\"_expire\":{end}}}");
        assert!(site.moved(signed("key", &text)).await.is_some(), "{text}");
    }
}
