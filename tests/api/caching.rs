//! No cache serves the page of one visitor to another.

use axum::{
    Router,
    extract::FromRef,
    response::{AppendHeaders, IntoResponse},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionError, SessionManager, Transport, cookie::Cookie,
    testing::ManualClock,
};
use http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::support::{
    Answer, Browser, Mode, ProbeStore, SECOND, Visits, in_both_modes, key, scripted, send,
};

in_both_modes! {
    the_guard_of_an_untouched_session_keeps_the_answer_private,
    the_guard_of_an_untouched_session_keeps_what_the_handler_says,
    a_token_that_is_set_or_removed_is_not_stored,
    no_cache_with_a_header_of_its_own_stores_a_token,
    under_the_layer_a_page_is_private_too,
    a_layer_leaves_answers_without_a_session_alone,
    an_answer_to_a_failed_request_for_a_session_is_private_too,
    two_session_types_make_one_answer_private,
}

/// What caches are told: `Vary` and `Cache-Control`.
fn told(answer: &Answer) -> (Option<String>, Option<String>) {
    (answer.header("vary"), answer.header("cache-control"))
}

fn says(vary: &str, cache_control: &str) -> (Option<String>, Option<String>) {
    (Some(vary.to_owned()), Some(cache_control.to_owned()))
}

async fn the_guard_of_an_untouched_session_keeps_the_answer_private(mode: Mode) {
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    let answer = browser.get("/read").await.expect(StatusCode::OK, "0");
    assert_eq!(told(&answer), says("cookie", "private"), "a stranger");
    browser.get("/add").await;
    for script in ["/read", "/borrow", "/add/undo", "/read/commit/read"] {
        let answer = browser.get(script).await.expect(StatusCode::OK, "1");
        assert_eq!(told(&answer), says("cookie", "private"), "{script}");
        answer.expect_no_cookie();
    }
}

/// A handler that sets headers, a line each, and then commits.
fn with_headers(mode: Mode, headers: &'static str, changes: bool) -> Browser {
    let handler = move |mut session: Session<Visits>| async move {
        if changes {
            session.count += 1;
        }
        let headers: Vec<_> = headers.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let guard = session.commit().await?;
        Ok::<_, SessionError>((AppendHeaders(headers), guard, ()))
    };
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    Browser::new(Router::new().route("/", get(handler)).with_state(sessions))
}

async fn the_guard_of_an_untouched_session_keeps_what_the_handler_says(mode: Mode) {
    for (headers, vary, cache_control) in [
        ("cache-control: public, max-age=60", "cookie", "public, max-age=60"),
        ("cache-control: no-cache", "cookie", "no-cache"),
        ("cache-control: no-store", "cookie", "no-store"),
        ("cache-control: max-age=0\ncache-control: private", "cookie", "max-age=0, private"),
        ("vary: accept", "accept, cookie", "private"),
        ("vary: Cookie", "Cookie", "private"),
        ("vary: *", "*", "private"),
    ] {
        let answer = with_headers(mode, headers, false).get("/").await;
        assert_eq!(told(&answer), says(vary, cache_control), "{headers}");
    }
}

async fn a_token_that_is_set_or_removed_is_not_stored(mode: Mode) {
    for (headers, cache_control) in [
        ("", "no-store"),
        ("cache-control: public, max-age=60", "no-store"),
        ("cache-control: private, max-age=60", "private, max-age=60"),
        ("cache-control: no-store", "no-store"),
    ] {
        let answer = with_headers(mode, headers, true).get("/").await;
        assert_eq!(answer.told(), "set");
        assert_eq!(told(&answer), says("cookie", cache_control), "{headers}");
    }
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.get("/add").await;
    let answer = browser.get("/destroy").await;
    assert_eq!((answer.told(), told(&answer)), ("removed", says("cookie", "no-store")));
}

/// A cache that obeys one of these headers ignores `Cache-Control` (RFC 9213).
async fn no_cache_with_a_header_of_its_own_stores_a_token(mode: Mode) {
    const HEADERS: &str = "cache-control: private\n\
        cdn-cache-control: max-age=60\n\
        Shop-CDN-Cache-Control: max-age=60\n\
        surrogate-control: max-age=60";
    let names = ["cdn-cache-control", "shop-cdn-cache-control", "surrogate-control"];
    let answer = with_headers(mode, HEADERS, true).get("/").await;
    assert_eq!((answer.told(), told(&answer)), ("set", says("cookie", "private")));
    assert_eq!(names.map(|name| answer.header(name)), [None, None, None]);
    // A page without a token is cached as the handler says.
    let answer = with_headers(mode, HEADERS, false).get("/").await;
    assert_eq!(told(&answer), says("cookie", "private"));
    assert_eq!(names.map(|name| answer.header(name).is_some()), [true; 3]);
}

/// With a store, an answer to a write holds no token, so the browser may keep it.
#[tokio::test]
async fn an_answer_to_a_write_without_a_token_is_private() {
    let clock = ManualClock::new();
    let sessions = Mode::Store.builder(&clock).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.get("/add").await;
    clock.advance(SECOND);
    let answer = browser.get("/add").await.expect(StatusCode::OK, "2");
    assert_eq!(told(&answer), says("cookie", "private"));
}

#[tokio::test]
async fn the_guard_of_an_untouched_session_costs_no_store_call() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let sessions = SessionManager::builder().store(store.clone()).clock(clock.clone());
    let mut browser = Browser::new(scripted(sessions.build().unwrap()));
    browser.get("/read").await;
    assert_eq!(store.take_calls(), <[&str; 0]>::default(), "a stranger");
    browser.get("/add").await;
    store.take_calls();
    clock.advance(SECOND);
    for script in ["/read", "/borrow", "/add/undo", "/read/commit/read"] {
        browser.get(script).await.expect(StatusCode::OK, "1");
        assert_eq!(store.take_calls(), ["load"], "{script}");
    }
}

async fn read(session: Session<Visits>) -> String {
    session.count.to_string()
}

async fn add(mut session: Session<Visits>) -> String {
    session.count += 1;
    session.count.to_string()
}

async fn read_optional(session: Option<Session<Visits>>) -> String {
    session.map_or("none".to_owned(), |session| session.count.to_string())
}

fn layered(mode: Mode) -> Browser {
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let public = async || ([(header::CACHE_CONTROL, "public")], "logo");
    let app = Router::new()
        .route("/read", get(read))
        .route("/add", get(add))
        .route("/optional", get(read_optional))
        .route("/missing", get(async |_: Session<Visits>| StatusCode::NOT_FOUND))
        .route("/broken", get(async |_: Session<Visits>| StatusCode::INTERNAL_SERVER_ERROR))
        .route("/none", get(async || "none"))
        .route("/logo", get(public))
        .layer(AutoCommitLayer::new());
    Browser::new(app.with_state(sessions))
}

async fn under_the_layer_a_page_is_private_too(mode: Mode) {
    let mut browser = layered(mode);
    for (path, body) in [("/read", "0"), ("/optional", "none")] {
        let answer = browser.get(path).await.expect(StatusCode::OK, body);
        assert_eq!(told(&answer), says("cookie", "private"), "{path}, a stranger");
    }
    let answer = browser.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(told(&answer), says("cookie", "no-store"));
    for path in ["/read", "/optional"] {
        let answer = browser.get(path).await.expect(StatusCode::OK, "1");
        assert_eq!(told(&answer), says("cookie", "private"), "{path}");
    }
}

async fn a_layer_leaves_answers_without_a_session_alone(mode: Mode) {
    let mut browser = layered(mode);
    browser.get("/add").await;
    let answer = browser.get("/none").await.expect(StatusCode::OK, "none");
    assert_eq!(told(&answer), (None, None));
    let answer = browser.get("/logo").await.expect(StatusCode::OK, "logo");
    assert_eq!(told(&answer), (None, Some("public".to_owned())));
}

/// Caches keep some answers that are no 200.
async fn an_answer_to_a_failed_request_for_a_session_is_private_too(mode: Mode) {
    let mut browser = layered(mode);
    for path in ["/missing", "/broken"] {
        let answer = browser.get(path).await;
        assert_eq!(told(&answer), says("cookie", "private"), "{path}");
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Basket {
    items: u32,
}

async fn two_session_types_make_one_answer_private(mode: Mode) {
    #[derive(Clone, FromRef)]
    struct Shop {
        visits: SessionManager<Visits>,
        baskets: SessionManager<Basket>,
    }
    async fn both(
        visits: Session<Visits>,
        basket: Session<Basket>,
    ) -> Result<impl IntoResponse, SessionError> {
        Ok((visits.commit().await?, basket.commit().await?, "both"))
    }
    let clock = ManualClock::new();
    let cookie = Cookie::new("__Host-basket", "");
    let shop = Shop {
        visits: mode.builder(&clock).build().unwrap(),
        baskets: mode.builder(&clock).cookie(cookie).build().unwrap(),
    };
    let app = Router::new().route("/", get(both)).with_state(shop);
    let answer = Browser::new(app).get("/").await.expect(StatusCode::OK, "both");
    assert_eq!(told(&answer), says("cookie", "private"));
}

/// Whichever header carries the token is what the answer varies with.
#[tokio::test]
async fn a_session_in_a_header_keeps_the_answer_private() {
    for (transport, vary) in
        [(Transport::bearer(), "authorization"), (Transport::header("x-session"), "x-session")]
    {
        let sessions = SessionManager::<Visits>::builder().keys(key()).transport(transport);
        let app = scripted(sessions.build().unwrap());
        let answer = send(&app, Request::get("/read")).await;
        assert_eq!(told(&answer), says(vary, "private"));
    }
}

/// The README's page that only reads: a stranger and a visitor each get an answer of their own.
#[tokio::test]
async fn a_page_for_whoever_is_signed_in_is_nobody_elses() {
    async fn me(session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
        let body = format!("visits: {}", session.count);
        Ok((session.commit().await?, body))
    }
    let sessions: SessionManager<Visits> =
        Mode::Cookie.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/me", get(me)).with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    for body in ["visits: 0", "visits: 1"] {
        let answer = browser.get("/me").await.expect(StatusCode::OK, body);
        assert_eq!(told(&answer), says("cookie", "private"));
        browser.get("/add").await;
    }
}

// Needs `SessionManager::no_session`.
mod without_a_session {
    use axum::{extract::State, response::Response};

    use super::*;

    crate::support::in_both_modes! {
        an_answer_to_a_stranger_is_private,
        an_answer_to_a_stranger_keeps_what_the_handler_says,
    }

    async fn page(
        State(sessions): State<SessionManager<Visits>>,
        session: Option<Session<Visits>>,
    ) -> Result<Response, SessionError> {
        let Some(session) = session else {
            return Ok((sessions.no_session(), "stranger").into_response());
        };
        let body = session.count.to_string();
        Ok((session.commit().await?, body).into_response())
    }

    fn app(mode: Mode, store: Option<&ProbeStore>) -> Browser {
        let clock = ManualClock::new();
        let builder = match store {
            Some(store) => SessionManager::builder().store(store.clone()).clock(clock),
            None => mode.builder::<Visits>(&clock),
        };
        let sessions = builder.build().unwrap();
        let app = Router::new().route("/page", get(page)).with_state(sessions.clone());
        Browser::new(app.fallback_service(scripted(sessions)))
    }

    async fn an_answer_to_a_stranger_is_private(mode: Mode) {
        let mut browser = app(mode, None);
        let answer = browser.get("/page").await.expect(StatusCode::OK, "stranger");
        assert_eq!(told(&answer), says("cookie", "private"));
        answer.expect_no_cookie();
        browser.get("/add").await;
        let answer = browser.get("/page").await.expect(StatusCode::OK, "1");
        assert_eq!(told(&answer), says("cookie", "private"));
        // A cookie that is no session stays where it is, and the answer is private.
        browser.jar.insert(crate::support::COOKIE.to_owned(), "garbage".to_owned());
        let answer = browser.get("/page").await.expect(StatusCode::OK, "stranger");
        assert_eq!(told(&answer), says("cookie", "private"));
        answer.expect_no_cookie();
    }

    async fn an_answer_to_a_stranger_keeps_what_the_handler_says(mode: Mode) {
        let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
        let guard = sessions.no_session();
        let answer = ([(header::CACHE_CONTROL, "public, max-age=5")], guard, "stranger");
        let headers = answer.into_response().headers().clone();
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=5");
        assert_eq!(headers[header::VARY], "cookie");
        assert!(sessions.no_session().id().is_none());
    }

    #[tokio::test]
    async fn the_guard_for_a_stranger_costs_no_store_call_and_warns_of_nothing() {
        let log = crate::support::Log::start();
        let store = ProbeStore::new(&ManualClock::new());
        let mut browser = app(Mode::Store, Some(&store));
        browser.get("/page").await.expect(StatusCode::OK, "stranger");
        assert_eq!(store.take_calls(), <[&str; 0]>::default());
        assert_eq!(log.take(), <[&str; 0]>::default());
    }
}
