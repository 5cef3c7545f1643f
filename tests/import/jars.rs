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
    node::sessions,
    site::{Moved, Site, expect_all_move, expect_no_edits, expect_once},
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
    let site = Site::new(reader(&key));
    assert!(site.moved(&*headers[0]).await.is_some());
    site.clock.advance(std::time::Duration::from_secs(60));
    assert!(site.moved(&*headers[0]).await.is_some(), "it may be that of another visitor");
}
