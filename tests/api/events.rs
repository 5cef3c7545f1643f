//! What the operator learns: events and log lines that follow a session and give nothing away.

use std::collections::HashSet;

use axum::Router;
use axum_typed_session::{
    Fingerprint, Key, MemoryStore, SessionEventKind, SessionManager, SessionManagerBuilder,
    StoreKey, cookie::Cookie, testing::ManualClock,
};
use http::StatusCode;

use crate::{
    logins::{Login, app, logins},
    options::same_shape,
    support::{Browser, COOKIE, DAY, EventLog, Visits, traced},
};

fn listening(
    with: impl FnOnce(SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login>,
) -> (ManualClock, EventLog, Router) {
    let (clock, log) = (ManualClock::new(), EventLog::default());
    let app = app(with(logins(&clock).on_event(log.hook())));
    (clock, log, app)
}

/// The fingerprint of the browser's session, as the application can tell it from the id.
async fn fingerprint(browser: &mut Browser) -> Fingerprint {
    let body = browser.get("/id").await.body;
    let key: StoreKey = body.split(' ').next().unwrap().parse().unwrap();
    key.fingerprint()
}

#[tokio::test]
async fn the_events_of_a_session_share_its_fingerprint() {
    let (clock, log, app) = listening(|manager| manager.rolling(true));
    let mut browser = Browser::new(app);
    browser.get("/").await;
    browser.post("/commit").await;
    assert!(log.take().is_empty(), "a visitor is no event");

    browser.post("/note?a").await;
    let session = fingerprint(&mut browser).await;
    assert_eq!(log.take_kinds(), [(SessionEventKind::Created, Some(session))]);
    browser.post("/note?b").await;
    assert_eq!(log.take_kinds(), [(SessionEventKind::Saved, Some(session))]);
    clock.advance(DAY / 20);
    browser.post("/commit").await;
    assert_eq!(log.take_kinds(), [(SessionEventKind::Touched, Some(session))]);
    browser.get("/").await;
    assert!(log.take().is_empty(), "a read is no event");

    browser.post("/regenerate").await;
    let (former, session) = (session, fingerprint(&mut browser).await);
    assert_ne!(session, former);
    assert_eq!(log.take_kinds(), [(SessionEventKind::Regenerated { former }, Some(session))]);
    let expired = browser.clone();
    browser.post("/destroy").await;
    assert_eq!(log.take_kinds(), [(SessionEventKind::Destroyed, Some(session))]);

    clock.advance(DAY);
    expired.clone().get("/").await;
    assert_eq!(log.take_kinds(), [(SessionEventKind::Expired, Some(session))]);
}

/// What changes between the response that set the cookie and the request that brings it back.
type Change = fn(SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login>;

/// The guide lists these for a cookie that the browser sends and the application does not accept.
const REFUSALS: [(&str, Change, Change, &str); 8] = [
    ("another key", |is| is, |is| is.keys(Key::generate()), "unknown_key"),
    ("another audience", |is| is, |is| is.audience("shop"), "invalid_token"),
    ("another kind", |is| is, |is| is.kind("SignedIn"), "invalid_token"),
    ("another path", |is| is.cookie(at("/")), |is| is.cookie(at("/shop")), "invalid_token"),
    ("a rule", |is| is, |is| is.validate_data(|_| false), "invalid"),
    ("a store that was emptied", in_memory, in_memory, "missed"),
    ("another key, a store", stored_and_sealed, stored_and_sealed, "unknown_key"),
    ("another kind, a store", in_memory, |is| in_memory(is.kind("SignedIn")), "invalid_token"),
];

fn at(path: &'static str) -> Cookie<'static> {
    Cookie::build("session").path(path).build()
}

fn in_memory(manager: SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login> {
    manager.store(MemoryStore::new())
}

fn stored_and_sealed(manager: SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login> {
    in_memory(manager.keys(Key::generate()))
}

#[tokio::test]
async fn the_event_says_why_a_cookie_that_came_back_is_no_session() {
    for (name, before, after, event) in REFUSALS {
        let mut browser = Browser::new(app(before(logins(&ManualClock::new()))));
        browser.post("/note?a").await;
        let (log, clock) = (EventLog::default(), ManualClock::new());
        let mut browser = browser.at(&app(after(logins(&clock).on_event(log.hook()))));
        browser.get("/").await;
        assert_eq!(log.take(), [event], "{name}");
    }
}

/// Browsers keep cookies for all ports of a host.
#[tokio::test]
async fn two_applications_under_one_cookie_name_replace_each_others_sessions() {
    let [(_, _, one), (_, log, other), (_, own_log, own)] =
        ["__Host-session", "__Host-session", "__Host-shop"].map(|name| {
            listening(|manager| manager.keys(Key::generate()).cookie(Cookie::new(name, "")))
        });
    let mut browser = Browser::new(one);
    browser.post("/note?a").await;
    let mut browser = browser.at(&other);
    browser.post("/note?b").await;
    assert_eq!(log.take(), ["unknown_key", "created"]);
    let mut browser = browser.at(&own);
    browser.post("/note?c").await;
    assert_eq!(own_log.take(), ["created"], "a name of its own");
    let names: Vec<_> = browser.jar.keys().collect();
    assert_eq!(names, ["__Host-session", "__Host-shop"]);
}

#[tokio::test]
async fn fingerprints_of_different_sessions_and_kinds_differ() {
    let (_, log, app) = listening(|manager| manager.id_generator(|_| [7; 32]).kind("one"));
    let (_, other_log, other) =
        listening(|manager| manager.id_generator(|_| [7; 32]).kind("other"));
    let (_, audience_log, audience) =
        listening(|manager| manager.id_generator(|_| [7; 32]).kind("one").audience("other"));
    let (_, random_log, random) = listening(|manager| manager);
    for app in [app, other, audience, random.clone(), random] {
        Browser::new(app).post("/note?a").await;
    }
    let logs = [log, other_log, audience_log, random_log];
    let events = logs.iter().flat_map(EventLog::take_events);
    let fingerprints: HashSet<_> = events.map(|event| event.session.unwrap()).collect();
    assert_eq!(fingerprints.len(), 5);
}

#[test]
fn every_kind_of_event_has_a_name() {
    use SessionEventKind as Kind;

    let former = StoreKey::from_bytes([0xab; 32]).fingerprint();
    for (kind, name) in [
        (Kind::Missed, "missed"),
        (Kind::Expired, "expired"),
        (Kind::Invalid, "invalid"),
        (Kind::Corrupt, "corrupt"),
        (Kind::Newer, "newer"),
        (Kind::Revoked, "revoked"),
        (Kind::InvalidToken, "invalid_token"),
        (Kind::UnknownKey, "unknown_key"),
        (Kind::Ambiguous { valid: 2 }, "ambiguous"),
        (Kind::Created, "created"),
        (Kind::Saved, "saved"),
        (Kind::Touched, "touched"),
        (Kind::Regenerated { former }, "regenerated"),
        (Kind::Destroyed, "destroyed"),
        (Kind::Conflict { field: None }, "conflict"),
        (Kind::Gone, "gone"),
        (Kind::TooLarge { actual: 2, limit: 1 }, "too_large"),
        (Kind::StoreError { operation: "load" }, "store_error"),
    ] {
        assert_eq!(kind.name(), name);
    }
    assert_eq!(former.to_string(), "ab".repeat(8));
}

#[test]
fn every_event_is_logged_and_no_log_line_gives_anything_away() {
    let (clock, _, app) = listening(|manager| manager.rolling(true));
    let ((session, secrets), log) = traced(async {
        let mut browser = Browser::new(app);
        browser.post("/user?ada-lovelace").await;
        let session = fingerprint(&mut browser).await;
        let (mut tokens, mut ids) = (vec![browser.token()], vec![browser.get("/id").await.body]);
        for action in ["/note?open-sesame", "/regenerate", "/note?open-sesame-again"] {
            browser.post(action).await;
            tokens.push(browser.token());
            ids.push(browser.get("/id").await.body);
        }
        clock.advance(DAY / 20);
        browser.post("/commit").await;
        let answer = browser.post(&format!("/note?{}", "open-sesame".repeat(400))).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        let mut twice = browser.clone();
        twice.jar.insert(COOKIE.to_owned(), format!("{}; {COOKIE}={}", browser.token(), tokens[0]));
        twice.get("/").await;
        for garbage in
            ["open-sesame".to_owned(), format!("{}AAAA", &tokens[0][..tokens[0].len() - 4])]
        {
            let mut browser = browser.clone();
            browser.jar.insert(COOKIE.to_owned(), garbage);
            browser.get("/").await;
        }
        browser.post("/destroy").await;
        let ids = ids.iter().flat_map(|id| id.split(' ').map(str::to_owned));
        (session, tokens.into_iter().chain(ids).collect::<Vec<_>>())
    });
    let names = [
        "created",
        "saved",
        "touched",
        "regenerated",
        "destroyed",
        "ambiguous",
        "invalid_token",
        "too_large",
    ];
    for name in names {
        let field = format!("axum_typed_session::event: event=\"{name}\" kind=\"Login\"");
        assert!(log.contains(&field), "{name} is missing in:\n{log}");
    }
    assert!(log.contains(&format!("session={session}")), "{log}");
    assert!(log.contains("ERROR axum_typed_session::event"), "{log}");
    assert!(!log.contains("WARN"), "what clients cause at will is no warning:\n{log}");
    for secret in secrets.iter().map(String::as_str).chain(["open-sesame", "lovelace"]) {
        assert!(!log.contains(secret), "{secret} is in:\n{log}");
    }
}

#[test]
fn a_session_of_a_newer_version_is_a_warning_in_the_log() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let newer = logins(&clock).store(store.clone()).schema_version(2).migrate(same_shape);
    let (newer, older) = (app(newer), app(logins(&clock).store(store)));
    let ((), log) = traced(async {
        let mut browser = Browser::new(newer);
        browser.post("/user?ann").await;
        browser.at(&older).get("/").await;
    });
    let line = "WARN axum_typed_session::event: event=\"newer\"";
    assert!(log.contains(line), "{log}");
}

/// `missed` says that a store has lost a session, so it must not come from a list of what the store has.
#[tokio::test]
async fn a_list_of_sessions_in_a_store_of_several_types_reports_nothing() {
    let (store, events) = (MemoryStore::new(), EventLog::default());
    let others = SessionManager::<Visits>::builder().store(store.clone()).build().unwrap();
    for count in 1..4 {
        let _ = others.create(Visits { count }).await.unwrap();
    }
    let sessions = SessionManager::<Login>::builder().store(store).on_event(events.hook());
    let sessions = sessions.build().unwrap();
    let _ = sessions.create(Login::default()).await.unwrap();
    events.take();
    assert_eq!(sessions.sessions(None, 10).await.unwrap().len(), 1);
    assert_eq!(events.take(), <[&str; 0]>::default());
}

/// An alarm may hang on `missed`, and each socket of a session that was signed out asks for it.
#[tokio::test]
async fn a_handle_of_a_session_that_has_ended_reports_that_it_is_gone_and_not_missed() {
    let events = EventLog::default();
    let sessions = SessionManager::<Login>::builder().store(MemoryStore::new());
    let sessions = sessions.on_event(events.hook()).build().unwrap();
    let key = sessions.create(Login::default()).await.unwrap().key();
    sessions.destroy(key).await.unwrap();
    events.take();
    assert!(sessions.load(key).await.unwrap().is_none());
    sessions.update(key, |_| ()).await.unwrap_err();
    assert_eq!(events.take(), ["gone"]);
}
