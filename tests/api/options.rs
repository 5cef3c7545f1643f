//! The application's own functions: `validate`, `before_save`, `codec`, `migrate`, audience and kind.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::Router;
use axum_typed_session::{
    Codec, MemoryStore, SessionManager, SessionManagerBuilder, cookie::Cookie, testing::ManualClock,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    logins::{FRESH, Login, app, issue, issue_cookie, logins, without_keys},
    support::{Answer, Browser, EventLog, SECOND, get_with_cookies, key, send},
};

async fn get_as(app: &Router, cookie: &str, agent: &str) -> Answer {
    let request = Request::get("/").header(header::COOKIE, cookie);
    send(app, request.header(header::USER_AGENT, agent)).await
}

#[tokio::test]
async fn validate_refuses_a_session_by_request_and_data() {
    let log = EventLog::default();
    let manager = logins(&ManualClock::new()).on_event(log.hook());
    let app = app(manager.validate(|parts, login| {
        let agent = parts.headers.get(header::USER_AGENT);
        agent.is_none_or(|agent| agent.as_bytes() == login.note.as_bytes())
    }));
    let cookie = issue_cookie(&app, "firefox").await;
    log.take();
    get_as(&app, &cookie, "firefox").await.expect(StatusCode::OK, "firefox");
    assert!(log.take().is_empty());
    let refused = get_as(&app, &cookie, "curl").await;
    refused.expect(StatusCode::OK, FRESH).expect_no_cookie();
    assert_eq!(log.take(), ["invalid"]);
}

#[tokio::test]
async fn a_refused_session_is_replaced_by_one_with_a_new_id() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(app(logins(&clock)));
    browser.post("/note?old").await;
    let id = browser.get("/id").await.body;
    let strict = app(logins(&clock).validate_data(|login| login.note != "old"));
    let mut browser = browser.at(&strict);
    let mut refused = browser.clone();
    browser.get("/").await.expect(StatusCode::OK, FRESH);
    browser.post("/note?new").await.set_cookie();
    assert_ne!(browser.get("/id").await.body, id);
    assert_eq!(refused.post("/destroy").await.max_age(), Some(0));
}

/// The request of the sign-out is refused, such as from another browser; the session is signed out all the same.
#[tokio::test]
async fn a_logout_ends_a_session_that_validate_refuses() {
    let clock = ManualClock::new();
    let store = || MemoryStore::builder().clock(clock.clone()).build();
    let strict = |manager: SessionManagerBuilder<Login>| {
        app(manager.validate(|parts, _| !parts.headers.contains_key(header::USER_AGENT)))
    };
    let in_cookies = strict(logins(&clock).revocations(store()));
    for app in [in_cookies, strict(without_keys(&clock).store(store()))] {
        let mut browser = Browser::new(app);
        browser.post("/note?mine").await.set_cookie();
        let copy = browser.clone();
        copy.clone().get("/").await.expect(StatusCode::OK, "mine");
        let logout = Request::post("/destroy").header(header::USER_AGENT, "curl");
        assert_eq!(browser.send(logout).await.max_age(), Some(0));
        copy.clone().get("/").await.expect(StatusCode::OK, FRESH);
    }
}

#[tokio::test]
async fn what_validate_data_refuses_is_not_saved() {
    let strict = logins(&ManualClock::new()).validate_data(|login| login.note != "old");
    let mut browser = Browser::new(app(strict));
    browser.post("/note?new").await.set_cookie();
    let answer = browser.post("/note?old").await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    browser.get("/").await.expect(StatusCode::OK, "new");
}

#[tokio::test]
async fn before_save_runs_before_every_save_and_at_nothing_else() {
    let saves = Arc::new(AtomicUsize::new(0));
    let counter = saves.clone();
    let clock = ManualClock::new();
    let manager = logins(&clock).rolling(true).before_save(move |login| {
        counter.fetch_add(1, Ordering::Relaxed);
        login.user = Some("stamped".to_owned());
    });
    let app = app(manager.owner(|login| login.user.clone()));
    let mut browser = Browser::new(app);
    let steps = [
        ("/commit", 0),
        ("/note", 0), // the default
        ("/note?a", 1),
        ("/note?a", 0),
        ("/commit", 0), // a touch
        ("/note?b", 1),
        ("/save", 1),
        ("/max-age?60", 1),
        ("/regenerate", 1),
        ("/reset", 1),
        ("/destroy", 0),
    ];
    for (action, expected) in steps {
        clock.advance(SECOND);
        browser.post(action).await;
        assert_eq!(saves.swap(0, Ordering::Relaxed), expected, "{action}");
    }
}

#[tokio::test]
async fn what_before_save_changes_is_saved_and_causes_no_save_by_itself() {
    let saves = AtomicUsize::new(0);
    let manager = logins(&ManualClock::new()).before_save(move |login| {
        let count = saves.fetch_add(1, Ordering::Relaxed) + 1;
        login.note = format!("save {count}");
    });
    let mut browser = Browser::new(app(manager));
    browser.post("/save").await.set_cookie();
    browser.get("/").await.expect(StatusCode::OK, "save 1");
    browser.post("/commit").await.expect_no_cookie();
    browser.post("/note?save%201").await.set_cookie();
    browser.get("/").await.expect(StatusCode::OK, "save 2");
}

/// `user|note`, which is no JSON.
pub struct Bar;

impl Codec<Login> for Bar {
    fn tag(&self) -> u8 {
        200
    }

    fn encode(&self, login: &Login) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        if login.note.contains('|') {
            return Err("a note must not hold the secret bar".into());
        }
        let user = login.user.as_deref().unwrap_or_default();
        Ok(format!("{user}|{}", login.note).into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Login, Box<dyn Error + Send + Sync>> {
        let (user, note) = std::str::from_utf8(bytes)?.split_once('|').ok_or("no bar")?;
        Ok(Login { user: (!user.is_empty()).then(|| user.to_owned()), note: note.to_owned() })
    }
}

#[tokio::test]
async fn a_codec_writes_and_reads_the_data() {
    let log = EventLog::default();
    let clock = ManualClock::new();
    let other = app(logins(&clock).codec(Bar).signed(true).on_event(log.hook()));
    let mut browser = Browser::new(other.clone());
    browser.post("/user?ada").await;
    browser.post("/note?mine").await;
    browser.get("/").await.expect(StatusCode::OK, "mine");
    browser.post("/note?mine").await.expect_no_cookie();
    let bytes = URL_SAFE_NO_PAD.decode(browser.token()).unwrap();
    assert!(bytes.ends_with(b"ada|mine"), "{bytes:?}");
    log.take();

    let answer = browser.post("/note?a|b").await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    browser.get("/").await.expect(StatusCode::OK, "mine");

    let json = issue_cookie(&app(logins(&clock).signed(true)), "json").await;
    get_with_cookies(&other, &json).await.expect(StatusCode::OK, FRESH);
    assert_eq!(log.take(), ["corrupt"], "JSON is not this codec's");
}

/// Version 1 of the data was a map of texts.
async fn version_1(clock: &ManualClock, note: &str) -> String {
    type Old = BTreeMap<String, String>;
    async fn save(
        axum::extract::RawQuery(note): axum::extract::RawQuery,
        mut session: axum_typed_session::Session<Old>,
    ) -> Result<axum_typed_session::SessionCommit, axum_typed_session::SessionError> {
        session.insert("text".to_owned(), note.unwrap());
        session.commit().await
    }
    let manager = SessionManager::<Old>::builder().keys(key()).kind("Login").clock(clock.clone());
    let app = Router::new()
        .route("/{action}", axum::routing::post(save))
        .with_state(manager.build().unwrap());
    let answer = send(&app, Request::post(format!("/save?{note}"))).await;
    format!("{}={}", crate::support::COOKIE, answer.token())
}

/// A migration between versions that differ in number only.
pub fn same_shape(from: u32, value: Value) -> Result<Value, String> {
    let known = (1..9).contains(&from);
    known.then_some(value).ok_or_else(|| format!("from {from}"))
}

fn migrate(from: u32, mut value: Value) -> Result<Value, String> {
    match (from, value["text"].take()) {
        (1, Value::String(text)) if text == "refuse" => Err(format!("a secret: {text}")),
        (1, text) if text == "break" => Ok(json!({"user": 7})),
        (1, text) => Ok(json!({"user": null, "note": text})),
        _ => Err(format!("from {from}")),
    }
}

#[tokio::test]
async fn an_older_session_is_migrated_and_sent_again_only_when_it_changes() {
    let log = EventLog::default();
    let clock = ManualClock::new();
    let manager = logins(&clock).schema_version(2).migrate(migrate);
    let app = app(manager.on_event(log.hook()));
    let cookie = version_1(&clock, "kept").await;
    let post =
        |action: &'static str| send(&app, Request::post(action).header(header::COOKIE, &cookie));
    get_with_cookies(&app, &cookie).await.expect(StatusCode::OK, "kept");
    post("/commit").await.expect(StatusCode::OK, "kept").expect_no_cookie();
    post("/note?kept").await.expect_no_cookie();
    assert!(log.take().is_empty());

    let saved = post("/note?changed").await;
    assert_eq!(log.take(), ["saved"]);
    let cookie = format!("{}={}", crate::support::COOKIE, saved.token());
    get_with_cookies(&app, &cookie).await.expect(StatusCode::OK, "changed");
}

#[tokio::test]
async fn a_session_that_does_not_migrate_is_a_fresh_one() {
    let log = EventLog::default();
    let clock = ManualClock::new();
    let manager = logins(&clock).schema_version(2).migrate(migrate);
    let app = app(manager.on_event(log.hook()));
    for (note, event) in [("refuse", "invalid"), ("break", "corrupt")] {
        let cookie = version_1(&clock, note).await;
        let answer = get_with_cookies(&app, &cookie).await;
        answer.expect(StatusCode::OK, FRESH).expect_no_cookie();
        assert_eq!(log.take(), [event]);
    }
}

#[tokio::test]
async fn a_newer_session_is_503_and_keeps_its_cookie() {
    let log = EventLog::default();
    let clock = ManualClock::new();
    let newer = app(logins(&clock).schema_version(2).migrate(migrate));
    let mut browser = Browser::new(newer.clone());
    browser.post("/note?new").await;
    let mut behind = browser.at(&app(logins(&clock).on_event(log.hook())));
    for path in ["/note?lost", "/commit", "/destroy"] {
        let answer = behind.post(path).await;
        answer.expect_error(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
        assert_eq!(log.take(), ["newer"]);
    }
    behind.at(&newer).get("/").await.expect(StatusCode::OK, "new");
}

#[tokio::test]
async fn accept_schema_reads_the_next_version_before_it_is_written() {
    let clock = ManualClock::new();
    let newer = app(logins(&clock).schema_version(2).migrate(same_shape));
    let mut browser = Browser::new(newer.clone());
    browser.post("/note?new").await;
    let mut accepting = browser.at(&app(logins(&clock).accept_schema(2)));
    accepting.get("/").await.expect(StatusCode::OK, "new");
    accepting.post("/commit").await.expect_no_cookie();
    accepting.post("/note?edited").await.set_cookie();
    accepting.at(&newer).get("/").await.expect(StatusCode::OK, "edited");
    let third = logins(&clock).schema_version(3).migrate(same_shape);
    let cookie = issue_cookie(&app(third), "third").await;
    let answer = get_with_cookies(&app(logins(&clock).accept_schema(2)), &cookie).await;
    answer.expect_error(StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn audience_and_kind_default_to_the_crate_and_the_name_of_the_type() {
    let clock = ManualClock::new();
    let cookie = issue_cookie(&app(logins(&clock)), "mine").await;
    let named = logins(&clock).audience("axum-typed-session").kind("Login");
    get_with_cookies(&app(named), &cookie).await.expect(StatusCode::OK, "mine");
}

type Make<'a> = &'a dyn Fn() -> SessionManagerBuilder<Login>;

#[tokio::test]
async fn a_plain_id_outlives_a_renamed_cookie_and_nothing_sealed_does() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let cases: [(&str, Make<'_>, &str); 3] = [
        ("plain id", &|| without_keys(&clock).store(store.clone()), "mine"),
        ("sealed id", &|| logins(&clock).store(store.clone()), FRESH),
        ("sealed data", &|| logins(&clock), FRESH),
    ];
    for (what, make, seen) in cases {
        let under = |name: &'static str| app(make().cookie(Cookie::new(name, "")));
        let token = issue(&under("__Host-old"), "mine").await.token();
        let cookie = format!("__Host-new={token}");
        let answer = get_with_cookies(&under("__Host-new"), &cookie).await;
        assert_eq!(answer.body, seen, "{what}");
    }
}
