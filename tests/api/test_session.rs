//! A test of an application logs in with one line, whatever the configuration.

use axum::Router;
use axum_typed_session::{
    MemoryStore, SessionManager, SessionManagerBuilder, Transport,
    cookie::Cookie,
    testing::{Fault, FaultyStore, ManualClock, Operation, TestSession},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};

use crate::support::{Browser, DAY, Visits, cookie_mode, key, scripted};

async fn send(app: &Router, path: &str, header: (HeaderName, HeaderValue)) -> HeaderMap {
    let request = Request::post(path).header(header.0, header.1);
    crate::support::send(app, request).await.expect_status(StatusCode::OK).headers
}

fn transports() -> [Transport; 4] {
    let name = HeaderName::from_static("x-login");
    let custom = Transport::custom(
        |parts| Some(parts.headers.get("x-own")?.to_str().ok()?.to_owned()),
        |headers, token| {
            let token = token.unwrap_or_default();
            headers.insert("x-own", HeaderValue::from_str(token).unwrap());
        },
    );
    [Transport::cookie(), Transport::bearer(), Transport::header(name), custom]
}

/// Cookie mode, sealed ids and plain ids, each over every transport.
fn managers(clock: &ManualClock) -> Vec<(String, SessionManager<Visits>)> {
    let builder = SessionManager::<Visits>::builder;
    let store = || MemoryStore::builder().clock(clock.clone()).build();
    let mut managers = Vec::new();
    for transport in transports() {
        let modes: [(&str, SessionManagerBuilder<Visits>); 4] = [
            ("encrypted", builder().keys(key())),
            ("signed", builder().keys(key()).signed(true)),
            ("sealed id", builder().keys(key()).store(store())),
            ("plain id", builder().store(store())),
        ];
        for (mode, builder) in modes {
            let manager = builder.clock(clock.clone()).transport(transport.clone());
            managers.push((format!("{transport:?}, {mode}"), manager.build().unwrap()));
        }
    }
    managers
}

#[tokio::test]
async fn the_application_sees_the_data_and_the_test_sees_what_became_of_it() {
    let clock = ManualClock::new();
    for (case, sessions) in managers(&clock) {
        let app = scripted(sessions.clone());
        let mut ada = TestSession::start(&sessions, Visits { count: 41 }).await.unwrap();
        let response = send(&app, "/add", ada.header()).await;
        let data = ada.after(&response).await.unwrap();
        assert_eq!(data, Some(Visits { count: 42 }), "{case}");

        let former = ada.clone();
        let response = send(&app, "/regenerate", ada.header()).await;
        let data = ada.after(&response).await.unwrap();
        assert_eq!(data, Some(Visits { count: 42 }), "{case}");
        assert_ne!(ada.header().1, former.header().1, "{case}");

        let response = send(&app, "/destroy", ada.header()).await;
        assert_eq!(ada.after(&response).await.unwrap(), None, "{case}");
        assert_eq!(ada.header().1, "", "{case}");

        // What a logged-out client does next is what a stranger does.
        let response = send(&app, "/add", ada.header()).await;
        let data = ada.after(&response).await.unwrap();
        assert_eq!(data, Some(Visits { count: 1 }), "{case}");
    }
}

#[tokio::test]
async fn a_session_that_holds_the_default_is_a_session() {
    for (case, sessions) in managers(&ManualClock::new()) {
        let session = TestSession::start(&sessions, Visits::default()).await.unwrap();
        assert_eq!(session.data().await.unwrap(), Some(Visits::default()), "{case}");
    }
}

#[tokio::test]
async fn the_header_is_the_one_the_transport_reads() {
    for transport in transports() {
        let name = match &*format!("{transport:?}") {
            "Transport::cookie()" => header::COOKIE,
            "Transport::bearer()" => header::AUTHORIZATION,
            "Transport::custom(..)" => HeaderName::from_static("x-own"),
            _ => HeaderName::from_static("x-login"),
        };
        let sessions =
            SessionManager::<Visits>::builder().keys(key()).transport(transport).build().unwrap();
        let session = TestSession::start(&sessions, Visits::default()).await.unwrap();
        let (carried_in, value) = session.header();
        assert_eq!(carried_in, name);
        assert!(value.is_sensitive() || name == "x-own");
    }
}

#[tokio::test]
async fn an_expired_session_is_none() {
    let clock = ManualClock::new();
    for (case, sessions) in managers(&clock) {
        let session = TestSession::start(&sessions, Visits { count: 1 }).await.unwrap();
        clock.advance(DAY);
        assert_eq!(session.data().await.unwrap(), None, "{case}");
    }
}

#[tokio::test]
async fn cookies_of_the_application_are_left_alone() {
    let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
    let mut ada = TestSession::start(&sessions, Visits { count: 1 }).await.unwrap();
    let mut response = HeaderMap::new();
    response.append(header::SET_COOKIE, HeaderValue::from_static("theme=; Max-Age=0"));
    assert_eq!(ada.after(&response).await.unwrap(), Some(Visits { count: 1 }));
}

#[tokio::test]
async fn the_removal_of_a_former_cookie_is_no_logout() {
    let sessions = cookie_mode(&ManualClock::new())
        .cookie(Cookie::build("__Host-session").partitioned(true))
        .remove_unpartitioned(true)
        .build()
        .unwrap();
    let mut ada = TestSession::start(&sessions, Visits { count: 1 }).await.unwrap();
    let nobody = (header::COOKIE, HeaderValue::from_static(""));
    let response = send(&scripted(sessions), "/add", nobody).await;
    assert_eq!(response.get_all(header::SET_COOKIE).iter().count(), 2);
    assert_eq!(ada.after(&response).await.unwrap(), Some(Visits { count: 1 }));
}

#[tokio::test]
async fn a_store_that_is_down_is_an_error_and_no_missing_session() {
    let store = FaultyStore::new(MemoryStore::new());
    let sessions = SessionManager::<Visits>::builder().store(store.clone());
    let sessions = sessions.build().unwrap();
    let session = TestSession::start(&sessions, Visits { count: 1 }).await.unwrap();
    store.inject(Operation::all(), Fault::Fail);
    assert!(session.data().await.is_err());
    assert!(TestSession::start(&sessions, Visits { count: 1 }).await.is_err());
}

#[tokio::test]
async fn a_manual_clock_goes_with_a_store_by_the_systems_clock() {
    let clock = ManualClock::new();
    let builder = SessionManager::<Visits>::builder().clock(clock.clone());
    let sessions = builder.store(MemoryStore::new()).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.post("/add").await.expect(StatusCode::OK, "1");
    browser.post("/add").await.expect(StatusCode::OK, "2");
    clock.advance(DAY);
    browser.post("/add").await.expect(StatusCode::OK, "1");
}
