//! `Session` beside axum-extra's `CookieJar`, `PrivateCookieJar` and `TypedHeader`, in one request and one
//! response.

use axum::{
    Router,
    extract::{FromRef, Path},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use axum_extra::{
    TypedHeader,
    extract::cookie::{Cookie, CookieJar, Key, PrivateCookieJar},
    headers::{CacheControl, ETag, UserAgent},
};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionError, SessionManager, testing::ManualClock,
};
use http::{Request, StatusCode, header};

use crate::support::{Answer, Browser, COOKIE, Mode, Visits, in_both_modes, key};

/// One key for the session and the private jar.
#[derive(Clone, FromRef)]
struct AppState {
    sessions: SessionManager<Visits>,
    key: Key,
}

fn app(mode: Mode) -> Router {
    let sessions = mode.builder(&ManualClock::new()).keys(key()).build().unwrap();
    Router::new()
        .route("/visit/{place}", post(visit))
        .route("/look", get(look))
        .route("/logout/{place}", post(logout))
        .route("/imitate", post(imitate))
        .route("/private", get(private))
        .with_state(AppState { sessions, key: Key::from(key().as_bytes()) })
}

/// The places of the guard in a response: in front of the jars, between them, behind them.
const PLACES: [&str; 3] = ["first", "between", "last"];

/// The app without and with the layer, for each place of the guard. Under the layer the guard may be missing.
fn apps(mode: Mode) -> impl Iterator<Item = (Router, &'static str)> {
    let bare = PLACES.map(|place| (app(mode), place));
    let layered = ["first", "between", "last", "nowhere"];
    bare.into_iter().chain(layered.map(|place| (app(mode).layer(AutoCommitLayer::new()), place)))
}

type Cookies = (CookieJar, PrivateCookieJar);

/// Puts the guard of a session and two jars into a response.
async fn respond(
    session: Session<Visits>,
    (plain, private): Cookies,
    place: &str,
    body: String,
) -> Result<Response, SessionError> {
    let etag = TypedHeader("\"one\"".parse::<ETag>().unwrap());
    if place == "nowhere" {
        return Ok((private, etag, plain, body).into_response());
    }
    let guard = session.commit().await?;
    Ok(match place {
        "first" => (guard, plain, private, etag, body).into_response(),
        "between" => (private, etag, guard, plain, body).into_response(),
        "last" => (etag, private, plain, guard, body).into_response(),
        other => panic!("no such place: {other}"),
    })
}

async fn visit(
    mut session: Session<Visits>,
    plain: CookieJar,
    private: PrivateCookieJar,
    TypedHeader(agent): TypedHeader<UserAgent>,
    Path(place): Path<String>,
) -> Result<Response, SessionError> {
    session.count += 1;
    let theme = plain.get("theme").map_or("none".to_owned(), |cookie| cookie.value().to_owned());
    let note = private.get("note").map_or("none".to_owned(), |cookie| cookie.value().to_owned());
    let body = format!("{agent}: {}, {theme}, {note}", session.count);
    let cookies = (plain.add(("theme", "dark")), private.add(("note", "a secret")));
    respond(session, cookies, &place, body).await
}

async fn look(
    session: Session<Visits>,
    plain: CookieJar,
    private: PrivateCookieJar,
) -> Result<Response, SessionError> {
    respond(session, (plain, private), "between", String::new()).await
}

/// Ends the session, and sets one more cookie in the same response.
async fn logout(
    mut session: Session<Visits>,
    plain: CookieJar,
    private: PrivateCookieJar,
    Path(place): Path<String>,
) -> Result<Response, SessionError> {
    session.destroy();
    let cookies = (plain.add(("farewell", "true")), private);
    respond(session, cookies, &place, String::new()).await
}

/// Puts a cookie of the private jar where the session's belongs.
async fn imitate(private: PrivateCookieJar) -> PrivateCookieJar {
    private.add((COOKIE, r#"{"count":7}"#))
}

/// Lists what the private jar opens.
async fn private(private: PrivateCookieJar) -> String {
    let names: Vec<_> = private.iter().map(|cookie| cookie.name().to_owned()).collect();
    names.join(", ")
}

async fn post_to(browser: &mut Browser, path: &str) -> Answer {
    browser.send(Request::post(path).header(header::USER_AGENT, "agent")).await
}

/// The names of the cookies that an answer sets or removes, in alphabetical order.
fn names(answer: &Answer) -> Vec<String> {
    let cookies = answer.set_cookies().into_iter();
    let mut names: Vec<_> =
        cookies.map(|cookie| Cookie::parse(cookie).unwrap().name().to_owned()).collect();
    names.sort();
    names
}

in_both_modes! {
    the_cookies_of_all_three_arrive_wherever_the_guard_stands,
    a_later_save_replaces_no_cookie_of_a_jar,
    a_response_to_a_look_sets_nothing_and_is_private,
    a_logout_removes_the_cookie_of_the_session_alone,
    one_key_seals_both_and_neither_opens_what_the_other_sealed,
}

async fn the_cookies_of_all_three_arrive_wherever_the_guard_stands(mode: Mode) {
    for (app, place) in apps(mode) {
        let mut browser = Browser::new(app);
        let path = format!("/visit/{place}");
        let first = post_to(&mut browser, &path).await;
        let first = first.expect(StatusCode::OK, "agent: 1, none, none");
        assert_eq!(names(&first), [COOKIE, "note", "theme"], "{place}");
        assert_eq!(first.header("etag").as_deref(), Some("\"one\""));
        assert_eq!(browser.jar["theme"], "dark");
        let second = post_to(&mut browser, &path).await;
        second.expect(StatusCode::OK, "agent: 2, dark, a secret");
    }
}

async fn a_later_save_replaces_no_cookie_of_a_jar(mode: Mode) {
    for (app, place) in apps(mode) {
        let mut browser = Browser::new(app);
        let path = format!("/visit/{place}");
        for count in 1..=3 {
            let answer = post_to(&mut browser, &path).await.expect_status(StatusCode::OK);
            let names = names(&answer);
            // With a store the cookie goes out once per id.
            let sends_session = mode == Mode::Cookie || count == 1;
            let expected = [COOKIE, "note", "theme"];
            assert_eq!(names, expected[usize::from(!sends_session)..], "{place}, visit {count}");
            assert_eq!(browser.jar.len(), 3);
        }
    }
}

async fn a_response_to_a_look_sets_nothing_and_is_private(mode: Mode) {
    let mut browser = Browser::new(app(mode));
    post_to(&mut browser, "/visit/first").await.expect_status(StatusCode::OK);
    let answer = browser.get("/look").await.expect_status(StatusCode::OK).expect_no_cookie();
    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
    assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
}

async fn a_logout_removes_the_cookie_of_the_session_alone(mode: Mode) {
    for (app, place) in apps(mode) {
        let mut browser = Browser::new(app);
        post_to(&mut browser, &format!("/visit/{place}")).await.expect_status(StatusCode::OK);
        let answer = post_to(&mut browser, &format!("/logout/{place}")).await;
        assert_eq!(names(&answer), [COOKIE, "farewell"], "{place}");
        let kept: Vec<_> = browser.jar.keys().map(String::as_str).collect();
        assert_eq!(kept, ["farewell", "note", "theme"], "{place}");
        let next = post_to(&mut browser, &format!("/visit/{place}")).await;
        next.expect(StatusCode::OK, "agent: 1, dark, a secret");
    }
}

async fn one_key_seals_both_and_neither_opens_what_the_other_sealed(mode: Mode) {
    let mut browser = Browser::new(app(mode));
    post_to(&mut browser, "/visit/first").await.expect_status(StatusCode::OK);
    browser.get("/private").await.expect(StatusCode::OK, "note");
    browser.post("/imitate").await.expect_status(StatusCode::OK);
    let answer = post_to(&mut browser, "/visit/first").await;
    answer.expect(StatusCode::OK, "agent: 1, dark, a secret");
}

/// A typed header that says how to cache comes before the guard, which respects it.
#[tokio::test]
async fn a_typed_cache_control_before_the_guard_stays() {
    async fn page(mut session: Session<Visits>) -> Result<Response, SessionError> {
        session.count += 1;
        let caching = TypedHeader(CacheControl::new().with_private());
        Ok((caching, session.commit().await?, ()).into_response())
    }
    let sessions = Mode::Cookie.builder::<Visits>(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(page)).with_state(sessions);
    let answer = Browser::new(app).get("/").await;
    assert_eq!(answer.told(), "set");
    assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
}
