//! Cookies of the jars of axum-extra.

use axum::response::IntoResponse;
use axum_extra::extract::{PrivateCookieJar, SignedCookieJar};
use axum_typed_session::{
    cookie::{Cookie, Key},
    import::JarCookies,
};
use http::{HeaderMap, header};
use serde_json::Value;

use crate::{
    random_json::sessions,
    seal,
    site::{Moved, Site, expect_all_move, expect_end_at_the_date, expect_no_edits, expect_once},
};

fn take(text: &str) -> Option<Moved> {
    serde_json::from_str(text).ok().map(|data| Moved(Some(data)))
}

fn old(data: &Value) -> Cookie<'static> {
    Cookie::build(("old", data.to_string())).path("/").into()
}

/// Returns the `Cookie` header after a response with this jar.
fn header_of(jar: impl IntoResponse) -> String {
    let cookie = jar.into_response().headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    cookie.split(';').next().unwrap().to_owned()
}

/// Two spellings of one percent-encoded value.
fn decodes_to(cookies: &str) -> impl Fn(&str) -> bool {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<_>>();
    let honest = decoded(cookies);
    move |edited| decoded(edited) == honest
}

#[tokio::test]
async fn private_cookies_move() {
    let (key, data) = (Key::generate(), sessions(1000));
    let jar = || PrivateCookieJar::from_headers(&HeaderMap::new(), key.clone());
    let headers: Vec<_> = data.iter().map(|data| header_of(jar().add(old(data)))).collect();
    let reader = |key: &Key| JarCookies::private(key.clone(), Cookie::new("old", ""), take);
    expect_all_move(&Site::new(reader(&key)), &headers, &data).await;
    assert_eq!(Site::new(reader(&Key::generate())).moved(&*headers[0]).await, None);
    expect_no_edits(&Site::new(reader(&key)), &headers[0], decodes_to(&headers[0])).await;
    expect_once(&Site::new(reader(&key)), &headers[1]).await;
    expect_end_at_the_date(&Site::new(reader(&key)), &headers[1]).await;
    // The same data in another cookie is another session.
    let site = Site::new(reader(&key));
    expect_once(&site, &header_of(jar().add(old(&data[0])))).await;
    assert!(site.moved(&*headers[0]).await.is_some());
}

#[tokio::test]
async fn signed_cookies_move() {
    let (key, data) = (Key::generate(), sessions(1000));
    let jar = || SignedCookieJar::from_headers(&HeaderMap::new(), key.clone());
    let headers: Vec<_> = data.iter().map(|data| header_of(jar().add(old(data)))).collect();
    let reader = |key: &Key| JarCookies::signed(key.clone(), Cookie::new("old", ""), take);
    expect_all_move(&Site::new(reader(&key)), &headers, &data).await;
    assert_eq!(Site::new(reader(&Key::generate())).moved(&*headers[0]).await, None);
    expect_no_edits(&Site::new(reader(&key)), &headers[0], decodes_to(&headers[0])).await;
    expect_once(&Site::new(reader(&key).unique(true)), &headers[1]).await;
    expect_end_at_the_date(&Site::new(reader(&key)), &headers[1]).await;
    let site = Site::new(reader(&key));
    assert!(site.moved(&*headers[0]).await.is_some());
    site.clock.advance(std::time::Duration::from_secs(60));
    assert!(site.moved(&*headers[0]).await.is_some(), "it may be that of another visitor");
}

#[tokio::test]
async fn the_jars_read_what_these_tests_write() {
    let (key, data) = (Key::generate(), sessions(1000));
    for data in &data {
        let text = data.to_string();
        let headers = |value: String| {
            let pair = format!("old={}", seal::encoded(&value));
            HeaderMap::from_iter([(header::COOKIE, pair.parse().unwrap())])
        };
        let private = headers(seal::encrypted_by_jar(&key, "old", &text));
        let jar = PrivateCookieJar::<Key>::from_headers(&private, key.clone());
        assert_eq!(jar.get("old").unwrap().value(), text);
        let signed = headers(seal::signed_by_jar(&key, &text));
        let jar = SignedCookieJar::<Key>::from_headers(&signed, key.clone());
        assert_eq!(jar.get("old").unwrap().value(), text);
    }
}

#[tokio::test]
async fn a_value_that_the_key_signed_for_another_cookie_is_read_and_an_encrypted_one_is_not() {
    let key = Key::generate();
    let text = r#"{"user":1}"#;
    let signed = format!("old={}", seal::encoded(&seal::signed_by_jar(&key, text)));
    let reader = JarCookies::signed(key.clone(), Cookie::new("old", ""), take);
    assert!(
        Site::new(reader).moved(signed).await.is_some(),
        "its name is no part of the signature"
    );
    let private = seal::encrypted_by_jar(&key, "other", text);
    let reader = JarCookies::private(key, Cookie::new("old", ""), take);
    assert_eq!(Site::new(reader).moved(format!("old={}", seal::encoded(&private))).await, None);
}

/// A jar of the crate `cookie` without percent-encoding writes the value as it is.
#[tokio::test]
async fn a_value_with_a_percent_sign_moves_encoded_or_not() {
    let (key, text) = (Key::generate(), r#"{"discount":"50%25"}"#);
    let value = seal::signed_by_jar(&key, text);
    for value in [seal::encoded(&value), value] {
        let reader = JarCookies::signed(key.clone(), Cookie::new("old", ""), take);
        let moved = Site::new(reader).moved(format!("old={value}")).await;
        assert!(moved.is_some(), "{value}");
    }
}
