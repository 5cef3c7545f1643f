//! What a commit does, wherever the data lives.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, State},
    response::{AppendHeaders, IntoResponse},
    routing::get,
};
use axum_typed_session::{KeyRing, Session, SessionError, SessionManager, testing::ManualClock};
use http::{Request, StatusCode, header};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

use crate::support::{
    Answer, Browser, COOKIE, DAY, EventLog, HOUR, MILLISECOND, Mode, ProbeStore, SECOND, Visits,
    cookie_mode, get_with_cookies, in_both_modes, key, scripted, send,
};

in_both_modes! {
    a_new_session_left_at_its_default_sends_nothing,
    a_loaded_session_left_as_it_was_sends_nothing,
    a_reordered_map_is_no_change,
    another_order_of_a_map_that_keeps_its_order_is_saved,
    a_random_default_left_alone_sends_nothing,
    a_change_is_saved,
    force_save_and_set_idle_timeout_save_even_if_equal_and_even_if_new,
    destroy_beats_every_other_intent,
    of_every_pair_of_intents_both_take_effect,
    the_removal_cookie_goes_out_whenever_a_cookie_of_the_name_arrived,
    nothing_goes_out_on_destroy_when_no_cookie_arrived,
    reset_keeps_the_session_and_regenerate_keeps_the_data,
    a_new_id_leaves_the_old_one_without_the_data,
    a_handler_that_fails_before_its_commit_has_changed_nothing,
    one_set_cookie_however_many_guards_and_in_whatever_order,
    a_guard_replaces_an_earlier_cookie_of_its_name_and_no_other,
    vary_and_cache_control_are_as_stated,
    an_optional_session_is_none_until_one_is_valid,
    a_guard_alone_is_a_response,
    destroy_after_a_commit_in_the_same_request,
    create_after_destroy_in_the_same_request_is_a_new_session,
    expiry_is_enforced_to_the_millisecond,
}

/// A browser that has a session of count 1, and what its manager reports.
async fn signed_in(mode: Mode) -> (Browser, EventLog, ManualClock) {
    let (clock, events) = (ManualClock::new(), EventLog::default());
    let sessions = mode.builder(&clock).on_event(events.hook()).build();
    let mut browser = Browser::new(scripted(sessions.unwrap()));
    browser.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(events.take(), ["created"]);
    (browser, events, clock)
}

/// What a save of a session that exists tells the browser, which with a store has the id already.
fn told_by_a_save(mode: Mode) -> &'static str {
    if mode == Mode::Cookie { "set" } else { "nothing" }
}

/// Asserts that the session of such a count lives for exactly so long from now.
async fn expect_life(browser: &mut Browser, clock: &ManualClock, count: &str, life: Duration) {
    clock.advance(life - MILLISECOND);
    browser.get("/read").await.expect(StatusCode::OK, count);
    clock.advance(MILLISECOND);
    browser.get("/new").await.expect(StatusCode::OK, "true");
}

fn newcomer(mode: Mode) -> (Browser, EventLog) {
    let events = EventLog::default();
    let sessions = mode.builder(&ManualClock::new()).on_event(events.hook());
    (Browser::new(scripted(sessions.build().unwrap())), events)
}

async fn a_new_session_left_at_its_default_sends_nothing(mode: Mode) {
    let (mut browser, events) = newcomer(mode);
    let scripts = [
        "/read",
        "/borrow",
        "/add/undo",
        "/regenerate",
        "/reset",
        "/reset/regenerate",
        "/add/reset",
        "/read/commit/borrow/commit",
    ];
    for script in scripts {
        let answer = browser.get(script).await.expect(StatusCode::OK, "0");
        assert_eq!((answer.told(), events.take()), ("nothing", vec![]), "{script}");
    }
}

async fn a_loaded_session_left_as_it_was_sends_nothing(mode: Mode) {
    let (mut browser, events, clock) = signed_in(mode).await;
    for script in ["/read", "/borrow", "/add/undo", "/read/commit/add/undo"] {
        clock.advance(HOUR);
        let answer = browser.get(script).await.expect(StatusCode::OK, "1");
        assert_eq!((answer.told(), events.take()), ("nothing", vec![]), "{script}");
    }
    browser.get("/reset").await.expect(StatusCode::OK, "0");
    assert_eq!(events.take(), ["saved"]);
    // In a store, the changes that other requests made meanwhile are removed too.
    let saved = if mode == Mode::Cookie { vec![] } else { vec!["saved"] };
    let answer = browser.get("/reset").await;
    assert_eq!((answer.told(), events.take()), ("nothing", saved), "/reset at the default");
}

#[derive(Default, Serialize, Deserialize)]
struct Cart(HashMap<String, u32>);

async fn a_reordered_map_is_no_change(mode: Mode) {
    async fn fill(mut cart: Session<Cart>) -> Result<impl IntoResponse, SessionError> {
        cart.0.extend((0..50).map(|item| (item.to_string(), item)));
        cart.commit().await
    }
    async fn reorder(mut cart: Session<Cart>) -> Result<impl IntoResponse, SessionError> {
        let before = serde_json::to_string(&*cart).unwrap();
        let items = std::mem::take(&mut cart.0);
        cart.0 = items.into_iter().collect();
        let after = serde_json::to_string(&*cart).unwrap();
        Ok((cart.commit().await?, (before != after).to_string()))
    }
    async fn edit(mut cart: Session<Cart>) -> Result<impl IntoResponse, SessionError> {
        cart.0.insert("7".into(), 8);
        cart.commit().await
    }
    let events = EventLog::default();
    let sessions = mode.builder::<Cart>(&ManualClock::new());
    let app = Router::new()
        .route("/fill", get(fill))
        .route("/reorder", get(reorder))
        .route("/edit", get(edit))
        .with_state(sessions.on_event(events.hook()).build().unwrap());
    let mut browser = Browser::new(app);
    browser.get("/fill").await;
    events.take();
    let answer = browser.get("/reorder").await.expect(StatusCode::OK, "true");
    assert_eq!((answer.told(), events.take()), ("nothing", vec![]));
    browser.get("/edit").await;
    assert_eq!(events.take(), ["saved"]);
}

/// A map that keeps the order of its keys, as `indexmap::IndexMap` does.
#[derive(Default)]
struct Columns(Vec<(String, u32)>);

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Columns(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

async fn another_order_of_a_map_that_keeps_its_order_is_saved(mode: Mode) {
    async fn fill(mut columns: Session<Columns>) -> Result<impl IntoResponse, SessionError> {
        columns.0 = vec![("name".to_owned(), 1), ("age".to_owned(), 2)];
        columns.commit().await
    }
    async fn swap(mut columns: Session<Columns>) -> Result<impl IntoResponse, SessionError> {
        columns.0.swap(0, 1);
        let first = columns.0[0].0.clone();
        Ok((columns.commit().await?, first))
    }
    let sessions = mode.builder::<Columns>(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/fill", get(fill)).route("/swap", get(swap));
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/fill").await;
    for first in ["age", "name", "age"] {
        browser.get("/swap").await.expect(StatusCode::OK, first);
    }
}

#[derive(Serialize, Deserialize)]
struct Nonce(u64);

impl Default for Nonce {
    /// As good as random: never twice the same.
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

async fn a_random_default_left_alone_sends_nothing(mode: Mode) {
    async fn read(nonce: Session<Nonce>) -> Result<impl IntoResponse, SessionError> {
        nonce.commit().await
    }
    async fn borrow(mut nonce: Session<Nonce>) -> Result<impl IntoResponse, SessionError> {
        nonce.0 += 0;
        nonce.commit().await
    }
    async fn reset(mut nonce: Session<Nonce>) -> Result<impl IntoResponse, SessionError> {
        nonce.clear();
        nonce.commit().await
    }
    async fn change(mut nonce: Session<Nonce>) -> Result<impl IntoResponse, SessionError> {
        nonce.0 += 1;
        nonce.commit().await
    }
    let sessions = mode.builder::<Nonce>(&ManualClock::new()).build().unwrap();
    let app = Router::new()
        .route("/read", get(read))
        .route("/borrow", get(borrow))
        .route("/reset", get(reset))
        .route("/change", get(change))
        .with_state(sessions);
    let mut browser = Browser::new(app);
    for (path, expected) in
        [("/read", "nothing"), ("/borrow", "nothing"), ("/reset", "nothing"), ("/change", "set")]
    {
        assert_eq!(browser.get(path).await.told(), expected, "{path}");
    }
}

async fn a_change_is_saved(mode: Mode) {
    let (mut browser, events, clock) = signed_in(mode).await;
    clock.advance(SECOND);
    let answer = browser.get("/add").await.expect(StatusCode::OK, "2");
    assert_eq!((answer.told(), events.take()), (told_by_a_save(mode), vec!["saved"]));
    browser.get("/read").await.expect(StatusCode::OK, "2");
}

async fn force_save_and_set_idle_timeout_save_even_if_equal_and_even_if_new(mode: Mode) {
    for (script, life) in [("/save", DAY), ("/longer", 2 * DAY)] {
        let (mut browser, events) = newcomer(mode);
        let answer = browser.get(script).await.expect(StatusCode::OK, "0");
        let max_age = if mode == Mode::Cookie { life } else { 30 * DAY };
        assert_eq!(answer.max_age(), Some(max_age.as_secs()), "{script}");
        assert_eq!(events.take(), ["created"], "{script}");

        let (mut browser, events, clock) = signed_in(mode).await;
        clock.advance(SECOND);
        let answer = browser.get(script).await.expect(StatusCode::OK, "1");
        assert_eq!(answer.told(), told_by_a_save(mode), "{script}");
        assert_eq!(events.take(), ["saved"], "{script}");
        expect_life(&mut browser, &clock, "1", life).await;
    }
}

async fn destroy_beats_every_other_intent(mode: Mode) {
    for other in ["add", "regenerate", "reset", "save", "longer"] {
        for script in [format!("/destroy/{other}"), format!("/{other}/destroy")] {
            let (mut browser, events, _) = signed_in(mode).await;
            let answer = browser.get(&script).await;
            let seen = (answer.status, answer.told(), events.take());
            assert_eq!(seen, (StatusCode::OK, "removed", vec!["destroyed"]), "{script}");
            browser.get("/read").await.expect(StatusCode::OK, "0");
        }
    }
}

async fn of_every_pair_of_intents_both_take_effect(mode: Mode) {
    let intents = ["add", "regenerate", "reset", "save", "longer"];
    for one in intents {
        for other in intents.into_iter().filter(|other| *other != one) {
            let script = format!("/{one}/{other}");
            let (mut browser, events, clock) = signed_in(mode).await;
            browser.get("/add").await;
            assert_eq!(events.take(), ["saved"]);
            clock.advance(SECOND);
            let old_id = browser.get("/id").await.body;
            let answer = browser.get(&script).await;
            let rotates = script.contains("regenerate");
            let done = if rotates { "regenerated" } else { "saved" };
            assert_eq!(events.take(), [done], "{script}");
            let told = if rotates { "set" } else { told_by_a_save(mode) };
            assert_eq!(answer.told(), told, "{script}");
            assert_eq!(browser.get("/id").await.body != old_id, rotates, "{script}");
            let count = match &*script {
                "/reset/add" => "1",
                script if script.contains("reset") => "0",
                script if script.contains("add") => "3",
                _ => "2",
            };
            let life = if script.contains("longer") { 2 * DAY } else { DAY };
            expect_life(&mut browser, &clock, count, life).await;
        }
    }
}

async fn the_removal_cookie_goes_out_whenever_a_cookie_of_the_name_arrived(mode: Mode) {
    let (browser, _, clock) = signed_in(mode).await;
    let valid = browser.token();
    for (what, token, wait) in [
        ("valid", &*valid, SECOND),
        ("garbage", "garbage", SECOND),
        ("truncated", &valid[..valid.len() - 1], SECOND),
        ("empty", "", SECOND),
        ("expired", &*valid, 2 * DAY),
    ] {
        clock.advance(wait);
        let mut browser = browser.clone();
        browser.jar.insert(COOKIE.to_owned(), token.to_owned());
        let answer = browser.get("/destroy").await;
        assert_eq!(answer.told(), "removed", "{what}");
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"), "{what}");
        let attributes = "=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; \
                          Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(answer.set_cookie(), format!("{COOKIE}{attributes}"), "{what}");
        if what == "valid" && mode == Mode::Store {
            // It is gone now, and an unknown id is removed all the same.
            browser.jar.insert(COOKIE.to_owned(), valid.clone());
            assert_eq!(browser.get("/destroy").await.told(), "removed");
        }
    }
}

async fn nothing_goes_out_on_destroy_when_no_cookie_arrived(mode: Mode) {
    let (mut browser, events) = newcomer(mode);
    for (name, value) in [("theme", "dark"), ("host-session", "x"), ("__Host-session2", "x")] {
        browser.jar.insert(name.to_owned(), value.to_owned());
    }
    for script in ["/destroy", "/add/destroy", "/regenerate/destroy"] {
        let answer = browser.get(script).await;
        let seen = (answer.status, answer.told(), events.take());
        assert_eq!(seen, (StatusCode::OK, "nothing", vec![]), "{script}");
    }
}

async fn reset_keeps_the_session_and_regenerate_keeps_the_data(mode: Mode) {
    for (script, same_id, count) in [
        ("/reset", true, "0"),
        ("/regenerate", false, "1"),
        ("/reset/regenerate", false, "0"),
        ("/regenerate/reset", false, "0"),
        ("/reset/add", true, "1"),
        ("/regenerate/reset/add/add", false, "2"),
    ] {
        let (mut browser, _, _) = signed_in(mode).await;
        let old_id = browser.get("/id").await.body;
        browser.get(script).await.expect(StatusCode::OK, count);
        browser.get("/read").await.expect(StatusCode::OK, count);
        assert_eq!(browser.get("/id").await.body == old_id, same_id, "{script}");
    }
}

async fn a_new_id_leaves_the_old_one_without_the_data(mode: Mode) {
    let (clock, events) = (ManualClock::new(), EventLog::default());
    let mut builder = mode.builder(&clock).on_event(events.hook());
    if mode == Mode::Cookie {
        builder = builder.revocations(ProbeStore::new(&clock));
    }
    let mut browser = Browser::new(scripted(builder.build().unwrap()));
    browser.get("/add").await;
    let mut left_behind = browser.clone();
    browser.get("/regenerate").await.expect(StatusCode::OK, "1");
    // A request of another tab that was on its way: anonymous, and cannot overwrite the new cookie.
    left_behind.get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
    for script in ["/add", "/save"] {
        let answer = left_behind.get(script).await;
        assert_eq!((answer.status, answer.told()), (StatusCode::CONFLICT, "nothing"), "{script}");
    }
    // A repeated login is the exception.
    let answer = left_behind.clone().get("/add/regenerate").await;
    assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"));
    // A logout is another: it ends what the old id has become.
    let answer = left_behind.clone().get("/destroy").await;
    assert_eq!((answer.status, answer.told()), (StatusCode::OK, "removed"));
    browser.get("/new").await.expect(StatusCode::OK, "true");
    // Ten seconds later the old id is as unknown as any.
    clock.advance(10 * SECOND);
    let answer = left_behind.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(answer.told(), "set");
}

async fn a_handler_that_fails_before_its_commit_has_changed_nothing(mode: Mode) {
    let (mut browser, events, clock) = signed_in(mode).await;
    let token = browser.token();
    for intent in ["add", "destroy", "regenerate", "reset", "save", "longer"] {
        let answer = browser.get(&format!("/{intent}/fail")).await;
        let seen = (answer.status, answer.told(), events.take());
        assert_eq!(seen, (StatusCode::IM_A_TEAPOT, "nothing", vec![]), "{intent}");
        browser.get("/read").await.expect(StatusCode::OK, "1");
        assert_eq!(browser.token(), token);
    }
    clock.advance(DAY);
    browser.get("/read").await.expect(StatusCode::OK, "0");
}

async fn one_set_cookie_however_many_guards_and_in_whatever_order(mode: Mode) {
    for script in [
        "/add/commit/add/commit/add",
        "/add/commit/add/commit/add/reverse",
        "/add/commit/read/commit/read",
        "/read/commit/add/commit/regenerate/add/add",
        "/add/commit/destroy/commit/add/add/add/reverse",
    ] {
        let (mut browser, _) = newcomer(mode);
        let answer = browser.get(script).await;
        assert_eq!(answer.told(), "set", "{script}");
        assert_eq!(answer.header("vary").as_deref(), Some("cookie"), "{script}");
        // The one that went out is the latest.
        browser.get("/read").await.expect(StatusCode::OK, &answer.body);
    }
}

async fn a_guard_replaces_an_earlier_cookie_of_its_name_and_no_other(mode: Mode) {
    async fn handler(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
        session.count += 1;
        let own = [
            (header::SET_COOKIE, "theme=dark"),
            (header::SET_COOKIE, "__Host-session=earlier; Secure; Path=/"),
            (header::SET_COOKIE, "__Host-session2=other"),
            (header::SET_COOKIE, "x=__Host-session=1"),
        ];
        Ok((AppendHeaders(own), session.commit().await?, ()))
    }
    let sessions = mode.builder::<Visits>(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(handler)).with_state(sessions);
    let answer = Browser::new(app).get("/").await;
    let cookies = answer.set_cookies();
    assert_eq!(cookies.len(), 4, "{cookies:?}");
    assert_eq!(cookies[..3], ["theme=dark", "__Host-session2=other", "x=__Host-session=1"]);
    assert!(cookies[3].starts_with("__Host-session=") && cookies[3].contains("HttpOnly"));
}

async fn vary_and_cache_control_are_as_stated(mode: Mode) {
    // What the handler sets, a header a line; whether it changes the session; what comes out.
    for (set, change, vary, cache_control) in [
        ("", false, "cookie", Some("private")),
        ("", true, "cookie", Some("no-store")),
        ("cache-control: public, max-age=60", false, "cookie", Some("public, max-age=60")),
        ("cache-control: public, max-age=60", true, "cookie", Some("no-store")),
        ("cache-control: Private, max-age=60", true, "cookie", Some("Private, max-age=60")),
        ("cache-control: max-age=0,No-Store", true, "cookie", Some("max-age=0,No-Store")),
        (
            "cache-control: max-age=0\ncache-control: private",
            true,
            "cookie",
            Some("max-age=0, private"),
        ),
        ("cache-control: private=\"x-user\"", true, "cookie", Some("no-store")),
        ("vary: accept", false, "accept, cookie", Some("private")),
        ("vary: Accept, Cookie", true, "Accept, Cookie", Some("no-store")),
        ("vary: accept\nvary: COOKIE", false, "accept, COOKIE", Some("private")),
        ("vary: *", false, "*", Some("private")),
        ("vary: cookie2", false, "cookie2, cookie", Some("private")),
    ] {
        let headers: Vec<_> = set.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let handler = move |mut session: Session<Visits>| async move {
            if change {
                session.count += 1;
            }
            let guard = session.commit().await?;
            Ok::<_, SessionError>((guard, AppendHeaders(headers)))
        };
        let sessions = mode.builder::<Visits>(&ManualClock::new()).build().unwrap();
        let app = Router::new().route("/", get(handler)).with_state(sessions);
        let answer = Browser::new(app).get("/").await;
        assert_eq!(answer.header("vary").as_deref(), Some(vary), "{set:?}");
        assert_eq!(answer.header("cache-control").as_deref(), cache_control, "{set:?}");
    }
}

/// The optional extractors, beside the script.
fn optional(sessions: SessionManager<Visits>) -> Router {
    async fn option(session: Option<Session<Visits>>) -> String {
        session.map_or("none".to_owned(), |session| session.count.to_string())
    }
    async fn result(session: Result<Session<Visits>, SessionError>) -> String {
        match session {
            Ok(session) => session.count.to_string(),
            Err(rejection) => rejection.status().to_string(),
        }
    }
    async fn committed_before(
        State(sessions): State<SessionManager<Visits>>,
        request: Request<Body>,
    ) -> Result<impl IntoResponse, SessionError> {
        let (mut parts, _) = request.into_parts();
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        session.count += 5;
        let guard = session.commit().await?;
        let session = Option::<Session<Visits>>::from_request_parts(&mut parts, &sessions).await?;
        Ok((guard, option(session).await))
    }
    Router::new()
        .route("/option", get(option))
        .route("/result", get(result))
        .route("/committed", get(committed_before))
        .with_state(sessions.clone())
        .fallback_service(scripted(sessions))
}

async fn an_optional_session_is_none_until_one_is_valid(mode: Mode) {
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let app = optional(sessions);
    get_with_cookies_at(&app, "/option", "").await.expect(StatusCode::OK, "none");
    get_with_cookies_at(&app, "/result", "").await.expect(StatusCode::OK, "0");
    let garbage = format!("{COOKIE}=garbage");
    get_with_cookies_at(&app, "/option", &garbage).await.expect(StatusCode::OK, "none");
    get_with_cookies_at(&app, "/result", &garbage).await.expect(StatusCode::OK, "0");
    get_with_cookies_at(&app, "/committed", "").await.expect(StatusCode::OK, "5");
    let mut browser = Browser::new(app);
    browser.get("/add").await;
    browser.get("/option").await.expect(StatusCode::OK, "1");
    browser.get("/result").await.expect(StatusCode::OK, "1");
    browser.get("/destroy").await;
    browser.get("/option").await.expect(StatusCode::OK, "none");
}

async fn get_with_cookies_at(app: &Router, path: &str, cookies: &str) -> Answer {
    send(app, Request::get(path).header(header::COOKIE, cookies)).await
}

async fn a_guard_alone_is_a_response(mode: Mode) {
    async fn handler(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
        session.count += 1;
        session.commit().await
    }
    let sessions = mode.builder::<Visits>(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(handler)).with_state(sessions);
    let answer = Browser::new(app).get("/").await.expect(StatusCode::OK, "");
    assert_eq!(answer.told(), "set");
    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
}

async fn destroy_after_a_commit_in_the_same_request(mode: Mode) {
    let (mut browser, events) = newcomer(mode);
    for script in ["/add/commit/destroy", "/add/commit/destroy/reverse"] {
        // Nothing arrived, so there is nothing to remove.
        let answer = browser.get(script).await.expect(StatusCode::OK, "1");
        assert_eq!(
            (answer.told(), events.take()),
            ("nothing", vec!["created", "destroyed"]),
            "{script}"
        );
    }
    let (mut browser, events, _) = signed_in(mode).await;
    let answer = browser.get("/add/commit/destroy").await;
    assert_eq!((answer.told(), events.take()), ("removed", vec!["saved", "destroyed"]));
    browser.get("/read").await.expect(StatusCode::OK, "0");
}

async fn create_after_destroy_in_the_same_request_is_a_new_session(mode: Mode) {
    let (mut browser, events, _) = signed_in(mode).await;
    let old = (browser.get("/id").await.body, browser.token());
    browser.get("/destroy/commit/new").await.expect(StatusCode::OK, "true");
    browser.jar.insert(COOKIE.to_owned(), old.1.clone());
    if mode == Mode::Store {
        browser.get("/read").await.expect(StatusCode::OK, "0");
        browser.get("/add").await;
    }
    events.take();
    let answer = browser.get("/destroy/commit/add/add").await.expect(StatusCode::OK, "2");
    assert_eq!((answer.told(), events.take()), ("set", vec!["destroyed", "created"]));
    browser.get("/read").await.expect(StatusCode::OK, "2");
    assert_ne!(browser.get("/id").await.body, old.0);
}

async fn expiry_is_enforced_to_the_millisecond(mode: Mode) {
    let (mut browser, events, clock) = signed_in(mode).await;
    clock.advance(DAY.saturating_sub(MILLISECOND));
    browser.get("/read").await.expect(StatusCode::OK, "1");
    clock.advance(MILLISECOND);
    browser.get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
    assert_eq!(events.take(), ["expired"]);
}

#[tokio::test]
async fn a_failed_destroy_is_unavailable_and_keeps_the_cookie() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let sessions = SessionManager::<Visits>::builder().store(store.clone()).clock(clock);
    let mut browser = Browser::new(scripted(sessions.build().unwrap()));
    browser.get("/add").await;
    store.fail("destroy");
    browser.get("/destroy").await.expect_error(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    browser.get("/read").await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn a_store_that_is_down_is_no_empty_session() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let sessions = SessionManager::<Visits>::builder().store(store.clone()).clock(clock);
    let mut browser = Browser::new(optional(sessions.build().unwrap()));
    browser.get("/add").await;
    store.fail("load");
    for path in ["/read", "/option", "/add", "/destroy"] {
        let answer = browser.get(path).await.expect_error(StatusCode::SERVICE_UNAVAILABLE);
        answer.expect_no_cookie();
    }
    browser.get("/result").await.expect(StatusCode::OK, "503 Service Unavailable");
}

#[tokio::test]
async fn a_retired_key_seals_again_at_the_next_commit_and_keeps_the_expiry() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(scripted(cookie_mode(&clock).build().unwrap()));
    browser.get("/add").await;
    clock.advance(HOUR);
    let ring = KeyRing::new(axum_typed_session::Key::generate()).accept_former(key());
    let sessions = cookie_mode(&clock).keys(ring).build().unwrap();
    let app = scripted(sessions);
    let resealed = get_with_cookies(&app, &format!("{COOKIE}={}", browser.token())).await;
    assert!(resealed.set_cookie().ends_with("Max-Age=82800"), "{}", resealed.set_cookie());
    let cookie = format!("{COOKIE}={}", resealed.token());
    get_with_cookies(&app, &cookie).await.expect(StatusCode::OK, "1").expect_no_cookie();
}
