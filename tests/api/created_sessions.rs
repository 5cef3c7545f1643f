//! Sessions made outside a request: the token that comes with them logs a client in.

use std::{sync::Arc, time::Duration};

use axum_typed_session::{
    CreatedSession, MemoryStore, SessionError, SessionManager, SessionManagerBuilder, SessionStore,
    StoredSession, Transport,
    cookie::{Cookie, SameSite},
    testing::ManualClock,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header, request::Parts};

use crate::{
    common::assert_matches,
    logins::{FRESH, Login, issue, router},
    support::{COOKIE, EventLog, HOUR, MINUTE, Mode, ProbeStore, in_both_modes, send},
};

in_both_modes! {
    the_token_logs_a_client_in_over_every_transport,
    the_headers_are_those_of_a_commit,
    a_session_of_the_default_is_one_too,
    it_ends_as_a_session_that_a_request_began,
    it_is_what_was_saved,
    it_is_an_event_as_in_a_request,
    the_rules_of_a_commit_hold,
    an_id_generator_is_not_asked,
    a_tenant_of_its_own_is_named_by_a_request,
    former_cookies_are_removed_with_the_first_of_todays,
    debug_shows_no_token_and_no_data,
}

fn ada() -> Login {
    Login { user: Some("ada".to_owned()), note: "hello".to_owned() }
}

fn builder(mode: Mode) -> SessionManagerBuilder<Login> {
    mode.builder(&ManualClock::new())
}

/// What `GET /` shows to whoever sends this header.
async fn read(sessions: &SessionManager<Login>, name: impl Into<String>, value: String) -> String {
    let request = Request::get("/").header(name.into(), value);
    send(&router(sessions.clone()), request).await.expect_status(StatusCode::OK).body
}

async fn read_cookie(sessions: &SessionManager<Login>, created: &CreatedSession<Login>) -> String {
    read(sessions, "cookie", format!("{COOKIE}={}", created.token())).await
}

fn custom() -> Transport {
    Transport::custom(
        |parts| Some(parts.headers.get("x-own")?.to_str().ok()?.to_owned()),
        |headers: &mut HeaderMap, token| {
            let token = HeaderValue::from_str(token.unwrap_or_default()).unwrap();
            headers.insert("x-own", token);
            headers.insert("x-own-too", HeaderValue::from_static("yes"));
        },
    )
}

async fn the_token_logs_a_client_in_over_every_transport(mode: Mode) {
    let cases = [
        (Transport::cookie(), "cookie", "__Host-session="),
        (Transport::bearer(), "authorization", "Bearer "),
        (Transport::header(HeaderName::from_static("x-login")), "x-login", ""),
        (custom(), "x-own", ""),
    ];
    for (transport, name, start) in cases {
        let case = format!("{transport:?}");
        for builder in [builder(mode), builder(mode).signed(true).keys(crate::support::key())] {
            let sessions = builder.transport(transport.clone()).build().unwrap();
            let created = sessions.create(ada()).await.unwrap();
            let value = format!("{start}{}", created.token());
            assert_eq!(read(&sessions, name, value.clone()).await, "hello", "{case}");
            // It is a session like any other: it changes, and ends.
            let app = router(sessions.clone());
            let post = |path: &str| Request::post(path).header(name, &value);
            send(&app, post("/note?changed")).await.expect(StatusCode::OK, "changed");
            let gone = send(&app, post("/destroy")).await.expect_status(StatusCode::OK);
            if mode == Mode::Store {
                assert_eq!(read(&sessions, name, value.clone()).await, FRESH, "{case}");
            }
            assert!(!gone.headers.is_empty());
        }
    }
}

/// Everything of a `Set-Cookie` but the token.
fn attributes(headers: &HeaderMap) -> String {
    let mut cookies = headers.get_all(header::SET_COOKIE).iter();
    let cookie = cookies.next().unwrap();
    assert!(cookies.next().is_none() && cookie.is_sensitive());
    cookie.to_str().unwrap().split_once(';').unwrap().1.to_owned()
}

async fn the_headers_are_those_of_a_commit(mode: Mode) {
    let cookie = Cookie::build("__Host-session").same_site(SameSite::Strict);
    let sessions = builder(mode).cookie(cookie).build().unwrap();
    let created = sessions.create(ada()).await.unwrap();
    let headers = created.headers();
    let committed = issue(&router(sessions.clone()), "hello").await.headers;
    assert!(attributes(headers).contains("SameSite=Strict"));
    assert_eq!(attributes(headers), attributes(&committed));
    let cookie = headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with(&format!("{COOKIE}={};", created.token())));
    for name in [header::CACHE_CONTROL, header::VARY] {
        assert_eq!(headers[&name], committed[&name]);
    }

    for (transport, name) in [
        (Transport::bearer(), "x-session-token"),
        (Transport::header("x-login"), "x-login"),
        (custom(), "x-own"),
    ] {
        let sessions = builder(mode).transport(transport).build().unwrap();
        let created = sessions.create(ada()).await.unwrap();
        let headers = created.headers();
        assert_eq!(headers[name], created.token());
        assert!(!headers.contains_key(header::SET_COOKIE));
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(headers.contains_key("x-own-too"), name == "x-own");
    }
}

async fn a_session_of_the_default_is_one_too(mode: Mode) {
    let sessions = builder(mode).build().unwrap();
    let created = sessions.create(Login::default()).await.unwrap();
    assert_eq!(read_cookie(&sessions, &created).await, "");
}

async fn it_ends_as_a_session_that_a_request_began(mode: Mode) {
    let clock = ManualClock::new();
    let sessions = mode
        .builder(&clock)
        .owner(|login: &Login| login.user.clone())
        .idle_timeout(2 * HOUR)
        .anonymous_idle_timeout(HOUR)
        .build()
        .unwrap();
    let anonymous = sessions.create(Login::default()).await.unwrap();
    let named = sessions.create(ada()).await.unwrap();
    assert_eq!(named.expires_at() - named.created_at(), 2 * HOUR);
    assert_eq!(anonymous.expires_at() - anonymous.created_at(), HOUR);
    clock.advance(HOUR);
    assert_eq!(read_cookie(&sessions, &anonymous).await, FRESH);
    clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(read_cookie(&sessions, &named).await, "hello");
    clock.advance(Duration::from_millis(1));
    assert_eq!(read_cookie(&sessions, &named).await, FRESH);
}

async fn it_is_what_was_saved(mode: Mode) {
    let sessions = builder(mode).before_save(|login| login.note.push('!')).build().unwrap();
    let created = sessions.create(ada()).await.unwrap();
    assert_eq!(created.note, "hello!");
    assert_eq!(read_cookie(&sessions, &created).await, "hello!");
    if mode == Mode::Store {
        let stored = sessions.load(created.key()).await.unwrap().unwrap();
        let of = |session: &StoredSession<Login>| {
            (Login::clone(session), session.key(), session.created_at(), session.expires_at())
        };
        assert_eq!(of(&stored), of(&created));
    }
}

async fn it_is_an_event_as_in_a_request(mode: Mode) {
    let log = EventLog::default();
    let sessions = builder(mode).on_event(log.hook()).build().unwrap();
    let created = sessions.create(ada()).await.unwrap();
    let events = log.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind.name(), "created");
    assert_eq!(events[0].session, Some(created.key().fingerprint()));
}

async fn the_rules_of_a_commit_hold(mode: Mode) {
    let log = EventLog::default();
    let of = |builder: SessionManagerBuilder<Login>| builder.on_event(log.hook()).build().unwrap();
    let sessions = of(builder(mode).validate_data(|login| login.note != "bad"));
    let bad = Login { note: "bad".to_owned(), ..ada() };
    assert_matches!(sessions.create(bad).await, Err(SessionError::Invalid));

    let large = Login { note: "x".repeat(5_000), ..ada() };
    let sessions = of(builder(mode).max_payload(1_000));
    let error = sessions.create(large.clone()).await;
    assert_matches!(error, Err(SessionError::TooLarge { limit: 1_000, .. }));
    let created = of(builder(mode)).create(large).await;
    match mode {
        Mode::Cookie => assert_matches!(created, Err(SessionError::TooLarge { limit: 4096, .. })),
        Mode::Store => assert!(created.is_ok()),
    }
}

async fn an_id_generator_is_not_asked(mode: Mode) {
    let sessions = builder(mode).id_generator(|_| panic!("there is no request")).build().unwrap();
    let one = sessions.create(ada()).await.unwrap();
    let other = sessions.create(ada()).await.unwrap();
    assert_ne!(one.key(), other.key());
}

fn host(parts: &Parts) -> String {
    parts.headers["host"].to_str().unwrap().to_owned()
}

async fn a_tenant_of_its_own_is_named_by_a_request(mode: Mode) {
    let sessions = builder(mode)
        .audience_for(host)
        .cookie_for(|parts| Cookie::build(format!("__Host-{}", &host(parts)[..1])).build())
        .build()
        .unwrap();
    let at = |host: &str| Request::get("/").header("host", host);
    let (parts, ()) = at("a.example").body(()).unwrap().into_parts();
    let created = sessions.for_request(&parts).unwrap().create(ada()).await.unwrap();
    assert!(created.headers()[header::SET_COOKIE].to_str().unwrap().starts_with("__Host-a="));
    let app = router(sessions);
    for (host, cookie, body) in
        [("a.example", "a", "hello"), ("b.example", "b", FRESH), ("ab.example", "a", FRESH)]
    {
        let cookie = format!("__Host-{cookie}={}", created.token());
        send(&app, at(host).header("cookie", cookie)).await.expect(StatusCode::OK, body);
    }
}

async fn former_cookies_are_removed_with_the_first_of_todays(mode: Mode) {
    let sessions = builder(mode).former_cookie(Cookie::build("sid").path("/shop"));
    let created = sessions.build().unwrap().create(ada()).await.unwrap();
    let cookies = created.headers().get_all(header::SET_COOKIE).iter();
    let cookies: Vec<_> = cookies.map(|cookie| cookie.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies[0].starts_with("sid=;") && cookies[0].contains("Path=/shop"), "{cookies:?}");
    assert!(cookies[1].starts_with(&format!("{COOKIE}={}", created.token())));
}

async fn debug_shows_no_token_and_no_data(mode: Mode) {
    let created = builder(mode).build().unwrap().create(ada()).await.unwrap();
    let shown = format!("{created:?} {created:#?}");
    assert!(shown.contains("CreatedSession"));
    for secret in [&created.token()[..20], "\"ada\"", "hello", &created.key().to_base64url()] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    assert!(!format!("{:?}", created.headers()).contains(created.token()));
}

#[tokio::test]
async fn it_belongs_to_its_owner() {
    let sessions = builder(Mode::Store).owner(|login| login.user.clone()).build().unwrap();
    let created = sessions.create(ada()).await.unwrap();
    let found = sessions.sessions_of("ada").await.unwrap();
    let keys: Vec<_> = found.iter().map(StoredSession::key).collect();
    assert_eq!(keys, [created.key()]);
    assert_eq!(sessions.destroy_all_of("ada").await.unwrap(), 1);
    assert_eq!(read_cookie(&sessions, &created).await, FRESH);
}

#[tokio::test]
async fn a_store_that_is_down_is_an_error() {
    let store = ProbeStore::new(&ManualClock::new());
    let sessions = SessionManager::<Login>::builder().store(store.clone()).build().unwrap();
    store.fail("save");
    assert_matches!(sessions.create(ada()).await, Err(SessionError::Store(_)));
    assert_eq!(store.take_calls(), ["save"]);
}

#[tokio::test]
async fn without_a_request_a_store_per_request_is_missing_and_with_one_it_is_found() {
    let (red, blue) = (MemoryStore::new(), MemoryStore::new());
    let stores = (red.clone(), blue.clone());
    let sessions = SessionManager::<Login>::builder().store_for(move |parts| {
        let (red, blue) = stores.clone();
        let store = if host(parts) == "red" { red } else { blue };
        Ok(Arc::new(store) as Arc<dyn SessionStore>)
    });
    let sessions = sessions.build().unwrap();
    let error = sessions.create(ada()).await.unwrap_err();
    assert_matches!(error, SessionError::NoStore { operation: "create" });
    assert!(error.to_string().contains("for_request"));

    let (parts, ()) = Request::get("/").header("host", "red").body(()).unwrap().into_parts();
    let created = sessions.for_request(&parts).unwrap().create(ada()).await.unwrap();
    assert_eq!((red.len(), blue.len()), (1, 0));
    let cookie = format!("{COOKIE}={}", created.token());
    let request = Request::get("/").header("host", "red").header("cookie", cookie);
    send(&router(sessions), request).await.expect(StatusCode::OK, "hello");
}

/// The token of cookie mode is the session: it opens on every node that has the key.
#[tokio::test]
async fn a_revocation_list_ends_a_created_session_too() {
    let clock = ManualClock::new();
    let list = MemoryStore::builder().clock(clock.clone()).build();
    let sessions = Mode::Cookie.builder::<Login>(&clock).revocations(list).build().unwrap();
    let created = sessions.create(ada()).await.unwrap();
    let cookie = format!("{COOKIE}={}", created.token());
    let destroy = Request::post("/destroy").header("cookie", cookie);
    send(&router(sessions.clone()), destroy).await.expect_status(StatusCode::OK);
    clock.advance(MINUTE);
    assert_eq!(read_cookie(&sessions, &created).await, FRESH);
}
