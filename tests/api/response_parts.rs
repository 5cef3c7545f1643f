//! The guard among the parts of a response: where it may stand, and how it holds wherever it stands.

use axum::{
    Router,
    extract::Path,
    response::{AppendHeaders, IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionCommit, SessionError, SessionManager, testing::ManualClock,
};
use http::{HeaderName, StatusCode, header};

use crate::support::{Answer, Browser, COOKIE, Mode, Visits, in_both_modes};

in_both_modes! {
    the_guard_holds_as_the_last_part_before_the_body,
    a_part_after_the_guard_undoes_it,
    wrap_holds_in_any_order,
    the_layer_repairs_every_order,
    wrap_keeps_the_status_and_body_of_a_response,
    wrap_removes_the_cookie_of_an_ended_session_too,
}

const THEME: [(HeaderName, &str); 1] = [(header::SET_COOKIE, "theme=dark")];
const PUBLIC: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=600")];

/// The head of a response, which axum applies after all parts.
fn template() -> Response<()> {
    let response = Response::builder().header(header::SET_COOKIE, "theme=dark");
    response.header(header::CACHE_CONTROL, "public, max-age=600").body(()).unwrap()
}

const GOOD: [&str; 4] =
    ["last", "last-with-status", "last-with-appended", "before-a-whole-response"];
const BAD: [&str; 5] =
    ["before-a-cookie", "before-caching", "before-both", "after-a-template", "as-the-body"];
const WRAPPED: [&str; 3] = ["wrapped", "wrapped-the-other-way", "wrapped-template"];

fn respond(order: &str, commit: SessionCommit) -> Response {
    match order {
        "last" => (THEME, PUBLIC, commit, "page").into_response(),
        "last-with-status" => (StatusCode::OK, THEME, PUBLIC, commit, "page").into_response(),
        "last-with-appended" => (AppendHeaders(THEME), PUBLIC, commit, "page").into_response(),
        "before-a-whole-response" => (commit, (THEME, PUBLIC, "page")).into_response(),
        "before-a-cookie" => (PUBLIC, commit, THEME, "page").into_response(),
        "before-caching" => (THEME, commit, PUBLIC, "page").into_response(),
        "before-both" => (commit, THEME, PUBLIC, "page").into_response(),
        "after-a-template" => (template(), commit, "page").into_response(),
        "as-the-body" => (THEME, PUBLIC, commit).into_response(),
        "wrapped" => commit.wrap((THEME, PUBLIC, "page")),
        "wrapped-the-other-way" => commit.wrap((PUBLIC, THEME, "page")),
        "wrapped-template" => commit.wrap((template(), "page")),
        other => panic!("no such order: {other}"),
    }
}

async fn add(
    mut session: Session<Visits>,
    Path(order): Path<String>,
) -> Result<Response, SessionError> {
    session.count += 1;
    Ok(respond(&order, session.commit().await?))
}

fn app() -> Router<SessionManager<Visits>> {
    Router::new().route("/{order}", get(add))
}

fn browser(mode: Mode, app: Router<SessionManager<Visits>>) -> Browser {
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    Browser::new(app.with_state(sessions))
}

/// The names of the cookies that an answer sets, and what it says to caches.
fn told(answer: &Answer) -> (Vec<&str>, Option<String>, Option<String>) {
    let mut names: Vec<_> =
        answer.set_cookies().iter().map(|cookie| cookie.split('=').next().unwrap()).collect();
    names.sort_unstable();
    (names, answer.header("cache-control"), answer.header("vary"))
}

fn both_cookies(cache_control: &str) -> (Vec<&'static str>, Option<String>, Option<String>) {
    (vec![COOKIE, "theme"], Some(cache_control.to_owned()), Some("cookie".to_owned()))
}

async fn expect_repaired(mode: Mode, app: Router<SessionManager<Visits>>, order: &str) {
    let answer = browser(mode, app).get(&format!("/{order}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{order}");
    assert_eq!(told(&answer), both_cookies("no-store"), "{order}");
}

async fn the_guard_holds_as_the_last_part_before_the_body(mode: Mode) {
    for order in GOOD {
        expect_repaired(mode, app(), order).await;
    }
}

/// The faults that the docs of `SessionCommit` tell of. They are axum's way with parts.
async fn a_part_after_the_guard_undoes_it(mode: Mode) {
    let lost =
        |answer: &Answer| !answer.set_cookies().iter().any(|cookie| cookie.starts_with(COOKIE));
    let is_public = |answer: &Answer| told(answer).1.unwrap().starts_with("public");
    for (order, loses, publishes) in [
        ("before-a-cookie", true, false),
        ("before-caching", false, true),
        ("before-both", true, true),
        ("after-a-template", true, true),
        ("as-the-body", true, true),
    ] {
        let answer = browser(mode, app()).get(&format!("/{order}")).await;
        assert_eq!((lost(&answer), is_public(&answer)), (loses, publishes), "{order}");
    }
}

async fn wrap_holds_in_any_order(mode: Mode) {
    for order in WRAPPED {
        expect_repaired(mode, app(), order).await;
    }
}

async fn the_layer_repairs_every_order(mode: Mode) {
    for order in [&GOOD[..], &BAD, &WRAPPED].concat() {
        expect_repaired(mode, app().layer(AutoCommitLayer::new()), order).await;
    }
}

async fn wrap_keeps_the_status_and_body_of_a_response(mode: Mode) {
    async fn created(mut session: Session<Visits>) -> Result<Response, SessionError> {
        session.count += 1;
        Ok(session.commit().await?.wrap((StatusCode::CREATED, "made")))
    }
    let mut browser = browser(mode, Router::new().route("/", get(created)));
    let answer = browser.get("/").await.expect(StatusCode::CREATED, "made");
    assert_eq!(answer.told(), "set");
}

async fn wrap_removes_the_cookie_of_an_ended_session_too(mode: Mode) {
    async fn logout(mut session: Session<Visits>) -> Result<Response, SessionError> {
        session.destroy();
        Ok(session.commit().await?.wrap((PUBLIC, "bye")))
    }
    let mut browser = browser(mode, app().route("/logout/now", get(logout)));
    browser.get("/last").await;
    let answer = browser.get("/logout/now").await.expect(StatusCode::OK, "bye");
    assert_eq!(
        (answer.told(), answer.header("cache-control").as_deref()),
        ("removed", Some("no-store"))
    );
}
