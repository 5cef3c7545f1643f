//! `AutoCommitLayer` commits what handlers leave.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{FromRef, FromRequestParts as _, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use axum_typed_session::{
    AutoCommitLayer, ConflictPolicy, MemoryStore, Rolling, Session, SessionError, SessionManager,
    SessionManagerBuilder,
    cookie::Cookie,
    layer::AutoCommitService,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use bytes::Bytes;
use futures_util::poll;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Full, channel::Channel};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{
    Browser, DAY, EventLog, HOUR, Log, MILLISECOND, Mode, ProbeStore, Visits, cookie_mode,
    in_both_modes,
};

in_both_modes! {
    handlers_need_not_commit,
    all_session_types_of_a_request_are_committed,
    reading_sends_no_token_and_keeps_shared_caches_out,
    a_request_that_touches_no_session_is_left_alone,
    server_errors_commit_only_when_asked,
    a_session_error_of_the_handler_commits_only_an_end,
    an_end_is_committed_although_the_data_after_it_cannot_be_saved,
    an_explicit_commit_and_the_layer_are_one_cookie,
    a_lost_guard_is_sent_all_the_same,
    intents_are_committed_too,
    rolling_works_through_the_layer_without_a_change,
    renew_works_through_the_layer_without_a_change,
    nothing_a_panicking_handler_left_is_committed,
    a_guard_that_outlives_the_handler_is_an_error_that_names_the_handle,
    a_session_first_extracted_after_the_response_is_an_error_too,
    a_failed_commit_replaces_the_response_and_keeps_the_other_cookie,
    changes_that_exclude_each_other_replace_the_response,
    an_update_never_erases_what_a_dropped_guard_left,
    what_several_dropped_sessions_ask_for_is_committed_together,
    an_update_keeps_what_a_dropped_session_asked_for,
    a_change_of_a_session_that_another_one_ended_begins_no_session,
    changes_that_exclude_each_other_leave_a_server_error_as_it_is,
    a_server_error_extends_no_session,
    an_update_goes_on_from_what_another_guard_committed,
    a_middlewares_uncommitted_change_is_seen_and_committed_under_the_layer,
    a_layer_inside_an_outer_extractor_commits_only_what_was_left_under_it,
    a_change_that_is_dropped_after_the_response_is_warned_of,
}

#[derive(Default, Serialize, Deserialize)]
struct Cart {
    items: String,
}

#[derive(Clone, FromRef)]
struct Shop {
    visits: SessionManager<Visits>,
    carts: SessionManager<Cart>,
}

fn shop(mode: Mode) -> Shop {
    let clock = ManualClock::new();
    Shop {
        visits: mode.builder(&clock).build().unwrap(),
        carts: mode
            .builder(&clock)
            .cookie(Cookie::new("__Host-cart", ""))
            .max_payload(100)
            .build()
            .unwrap(),
    }
}

async fn add(mut session: Session<Visits>) -> String {
    session.count += 1;
    session.count.to_string()
}

async fn read(session: Session<Visits>) -> String {
    session.count.to_string()
}

/// Routes that never commit.
fn routes<S>() -> Router<S>
where
    SessionManager<Visits>: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    async fn fail(mut session: Session<Visits>) -> StatusCode {
        session.count += 1;
        StatusCode::INTERNAL_SERVER_ERROR
    }
    async fn refuse(mut session: Session<Visits>) -> StatusCode {
        session.count += 1;
        StatusCode::BAD_REQUEST
    }
    async fn end(mut session: Session<Visits>) {
        session.destroy();
    }
    async fn renew_id(mut session: Session<Visits>) {
        session.regenerate();
    }
    async fn id(session: Session<Visits>) -> String {
        session.id().map_or_else(String::new, |id| id.store_key().to_base64url())
    }
    Router::new()
        .route("/add", get(add))
        .route("/read", get(read))
        .route("/fail", get(fail))
        .route("/refuse", get(refuse))
        .route("/destroy", get(end))
        .route("/regenerate", get(renew_id))
        .route("/id", get(id))
        .route("/none", get(async || "none"))
}

fn layered(mode: Mode) -> Browser {
    layered_with(mode, MethodRouter::new())
}

/// One more route beside the others, under the layer.
fn layered_with(mode: Mode, route: MethodRouter<SessionManager<Visits>>) -> Browser {
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let app = routes().route("/", route).layer(AutoCommitLayer::new());
    Browser::new(app.with_state(sessions))
}

async fn handlers_need_not_commit(mode: Mode) {
    let mut browser = layered(mode);
    for count in ["1", "2", "3"] {
        let answer = browser.get("/add").await.expect(StatusCode::OK, count);
        assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
        if answer.told() == "set" {
            assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        }
    }
    browser.get("/read").await.expect(StatusCode::OK, "3");
}

async fn all_session_types_of_a_request_are_committed(mode: Mode) {
    async fn handler(mut visits: Session<Visits>, mut cart: Session<Cart>) -> String {
        visits.count += 1;
        cart.items.push('x');
        format!("{} {}", visits.count, cart.items)
    }
    let app = Router::new().route("/", get(handler)).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(shop(mode)));
    let answer = browser.get("/").await.expect(StatusCode::OK, "1 x");
    assert_eq!(answer.set_cookies().len(), 2);
    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
    browser.get("/").await.expect(StatusCode::OK, "2 xx");
}

async fn reading_sends_no_token_and_keeps_shared_caches_out(mode: Mode) {
    let mut browser = layered(mode);
    for body in ["0", "1"] {
        let answer = browser.get("/read").await.expect(StatusCode::OK, body);
        assert_eq!(answer.told(), "nothing");
        assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
        assert_eq!(answer.header("vary").as_deref(), Some("cookie"), "the body depends on it");
        browser.get("/add").await;
    }
}

async fn a_request_that_touches_no_session_is_left_alone(mode: Mode) {
    let mut browser = layered(mode);
    browser.get("/add").await;
    for path in ["/none", "/missing"] {
        let answer = browser.get(path).await;
        for name in ["vary", "cache-control", "set-cookie"] {
            assert_eq!(answer.header(name), None, "{path}");
        }
    }
}

async fn server_errors_commit_only_when_asked(mode: Mode) {
    let log = Log::start();
    let committing = AutoCommitLayer::new().commit_on_server_error(true);
    for (layer, after_failure, after_refusal) in [
        (AutoCommitLayer::new(), "1", "2"),
        (committing, "2", "3"),
        (committing.commit_on_server_error(false), "1", "2"),
    ] {
        let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
        let mut browser = Browser::new(routes().layer(layer).with_state(sessions));
        browser.get("/add").await;
        browser.get("/fail").await.expect(StatusCode::INTERNAL_SERVER_ERROR, "");
        browser.get("/read").await.expect(StatusCode::OK, after_failure);
        // Client errors are answers like any other.
        browser.get("/refuse").await.expect(StatusCode::BAD_REQUEST, "");
        browser.get("/read").await.expect(StatusCode::OK, after_refusal);
    }
    assert_eq!(log.take(), <[&str; 0]>::default(), "not committing on purpose is no accident");
}

#[tokio::test]
async fn every_commit_happens_exactly_once_however_layers_nest() {
    let auto = AutoCommitLayer::new();
    let nested = |sessions: SessionManager<Visits>| -> [(&str, Router); 4] {
        let plain = || routes().with_state(sessions.clone());
        [
            ("one layer", plain().layer(auto)),
            ("three layers", plain().layer(auto).layer(auto).layer(auto)),
            ("a route layer too", plain().route_layer(auto).layer(auto)),
            ("a nested router", Router::new().nest("/inner", plain().layer(auto)).layer(auto)),
        ]
    };
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let builder = SessionManager::builder().store(store.clone());
    for (what, app) in nested(builder.clock(clock.clone()).build().unwrap()) {
        let prefix = if what == "a nested router" { "/inner" } else { "" };
        let mut browser = Browser::new(app);
        for (path, calls) in [
            ("/add", &["save"][..]),
            ("/add", &["load", "save"]),
            ("/read", &["load"]),
            ("/fail", &["load"]),
            ("/destroy", &["load", "destroy"]),
            ("/none", &[]),
        ] {
            let answer = browser.get(&format!("{prefix}{path}")).await;
            assert_eq!(store.take_calls(), calls, "{what}, {path}");
            assert!(answer.set_cookies().len() <= 1, "{what}, {path}");
        }
    }
}

#[tokio::test]
async fn of_nested_layers_the_outermost_decides_on_server_errors() {
    let asked = AutoCommitLayer::new().commit_on_server_error(true);
    for (inner, outer, told) in
        [(AutoCommitLayer::new(), asked, "set"), (asked, AutoCommitLayer::new(), "nothing")]
    {
        let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
        let app = routes().layer(inner).layer(outer).with_state(sessions);
        assert_eq!(Browser::new(app).get("/fail").await.told(), told);
    }
}

/// As after a forged form, or after a changed row of another handler.
async fn a_session_error_of_the_handler_commits_only_an_end(mode: Mode) {
    async fn renames(mut session: Session<Visits>) -> Result<(), SessionError> {
        session.count = 99;
        session.regenerate();
        session.verify_csrf("forged")
    }
    async fn leaves(mut session: Session<Visits>) -> Result<(), SessionError> {
        session.count = 99;
        session.destroy();
        Err(SessionError::Csrf)
    }
    for on_server_error in [false, true] {
        let layer = AutoCommitLayer::new().commit_on_server_error(on_server_error);
        let app = routes().route("/renames", get(renames)).route("/leaves", get(leaves));
        let sessions = mode.builder(&ManualClock::new()).build().unwrap();
        let mut browser = Browser::new(app.layer(layer).with_state(sessions));
        browser.get("/add").await;
        let answer = browser.get("/renames").await.expect_error(StatusCode::FORBIDDEN);
        assert_eq!(answer.told(), "nothing");
        browser.get("/read").await.expect(StatusCode::OK, "1");
        let answer = browser.get("/leaves").await.expect_error(StatusCode::FORBIDDEN);
        assert_eq!(answer.told(), "removed");
        browser.get("/read").await.expect(StatusCode::OK, "0");
    }
}

async fn an_end_is_committed_although_the_data_after_it_cannot_be_saved(mode: Mode) {
    async fn leaves_and_begins(
        State(sessions): State<SessionManager<Visits>>,
        request: Request,
    ) -> &'static str {
        let (mut parts, _) = request.into_parts();
        let mut take = async || Session::<Visits>::from_request_parts(&mut parts, &sessions).await;
        take().await.unwrap().destroy();
        let mut next = take().await.unwrap();
        next.count = 1_000;
        ""
    }
    let sessions = mode.builder::<Visits>(&ManualClock::new());
    let sessions = sessions.validate_data(|visits| visits.count < 1_000).build().unwrap();
    let app = routes().route("/leaves", get(leaves_and_begins)).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/add").await.expect(StatusCode::OK, "1");
    let mut copy = browser.clone();
    let answer = browser.get("/leaves").await.expect_status(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.told(), "removed");
    browser.get("/read").await.expect(StatusCode::OK, "0");
    if mode == Mode::Store {
        copy.get("/read").await.expect(StatusCode::OK, "0");
    }
}

/// The policy is for other requests. Here, a middleware changes a copy of before the sign-in.
#[tokio::test]
async fn no_policy_lets_a_middleware_undo_the_sign_in_of_its_handler() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Login {
        user: Option<String>,
        page: String,
    }
    async fn notes_the_page(session: Session<Login>, request: Request, next: Next) -> Response {
        let mut session = session;
        let page = request.uri().path().to_owned();
        let response = next.run(request).await;
        session.page = page;
        session.commit().await.unwrap().wrap(response)
    }
    async fn signs_in(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
        session.user = Some("ann".to_owned());
        session.regenerate();
        session.commit().await
    }
    for policy in [ConflictPolicy::Merge, ConflictPolicy::Reject, ConflictPolicy::Overwrite] {
        let sessions = SessionManager::<Login>::builder().store(MemoryStore::new());
        let sessions = sessions.on_conflict(policy).build().unwrap();
        let app = Router::new()
            .route("/sign-in", get(signs_in))
            .route(
                "/",
                get(async |session: Session<Login>| session.user.clone().unwrap_or_default()),
            )
            .layer(from_fn_with_state(sessions.clone(), notes_the_page))
            .layer(AutoCommitLayer::new());
        let mut browser = Browser::new(app.with_state(sessions));
        browser.get("/").await.expect(StatusCode::OK, "");
        browser.get("/sign-in").await.expect(StatusCode::OK, "");
        browser.get("/").await.expect(StatusCode::OK, "ann");
    }
}

async fn an_explicit_commit_and_the_layer_are_one_cookie(mode: Mode) {
    async fn handler(
        State(sessions): State<SessionManager<Visits>>,
        request: Request,
    ) -> Result<Response, SessionError> {
        let (mut parts, _) = request.into_parts();
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        session.count += 1;
        let guard = session.commit().await?;
        // And more, which is left to the layer.
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        session.count += 10;
        Ok((guard, session.count.to_string()).into_response())
    }
    let mut browser = layered_with(mode, get(handler));
    let answer = browser.get("/").await.expect(StatusCode::OK, "11");
    assert_eq!(answer.told(), "set");
    browser.get("/read").await.expect(StatusCode::OK, "11");
}

async fn a_lost_guard_is_sent_all_the_same(mode: Mode) {
    async fn handler(mut session: Session<Visits>) -> Result<StatusCode, SessionError> {
        session.count += 1;
        let _ = session.commit().await?;
        // What was committed is stored, so the browser must learn of it on any status.
        Ok(StatusCode::INTERNAL_SERVER_ERROR)
    }
    let log = Log::start();
    let mut browser = layered_with(mode, get(handler));
    assert_eq!(browser.get("/").await.told(), "set");
    browser.get("/read").await.expect(StatusCode::OK, "1");
    let lines = log.take();
    assert!(lines.iter().all(|line| !line.contains("dropped")), "{lines:?}");
}

async fn intents_are_committed_too(mode: Mode) {
    let mut browser = layered(mode);
    browser.get("/add").await;
    let id = browser.get("/id").await.body;
    assert_eq!(browser.get("/regenerate").await.told(), "set");
    assert_ne!(browser.get("/id").await.body, id);
    assert_eq!(browser.get("/destroy").await.told(), "removed");
    browser.get("/read").await.expect(StatusCode::OK, "0");
}

async fn rolling_works_through_the_layer_without_a_change(mode: Mode) {
    // A token that holds the data is sealed again only once a twentieth of its life has passed.
    let due = if mode == Mode::Cookie { DAY / 20 } else { MILLISECOND };
    extends_at(mode, due, |builder| builder.rolling(true)).await;
}

async fn renew_works_through_the_layer_without_a_change(mode: Mode) {
    extends_at(mode, 12 * HOUR + MILLISECOND, |builder| builder.rolling(Rolling::BelowHalf)).await;
}

type Builder = SessionManagerBuilder<Visits>;

/// Reads a millisecond before `due` and then at it; the second read extends the session by a day.
async fn extends_at(mode: Mode, due: Duration, option: fn(Builder) -> Builder) {
    let (clock, events) = (ManualClock::new(), EventLog::default());
    let sessions = option(mode.builder(&clock)).on_event(events.hook()).build();
    let app = routes().layer(AutoCommitLayer::new()).with_state(sessions.unwrap());
    let mut browser = Browser::new(app);
    browser.get("/add").await;
    events.take();
    clock.advance(due.saturating_sub(MILLISECOND));
    assert_eq!(browser.get("/read").await.told(), "nothing");
    clock.advance(MILLISECOND);
    let answer = browser.get("/read").await.expect(StatusCode::OK, "1");
    match mode {
        Mode::Cookie => assert_eq!(answer.max_age(), Some(DAY.as_secs())),
        Mode::Store => assert_eq!(answer.told(), "nothing"),
    }
    assert_eq!(events.take(), ["touched"]);
    clock.advance(DAY.saturating_sub(MILLISECOND));
    browser.get("/read").await.expect(StatusCode::OK, "1");
}

/// Panics with so much of the request still in hand, as the query says.
async fn panics(
    State(sessions): State<SessionManager<Visits>>,
    request: Request,
) -> Result<(), SessionError> {
    let (mut parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap().to_owned();
    let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
    match &*query {
        "a-clean-session" => {}
        "a-changed-session" => session.count += 1,
        "an-ended-session" => session.destroy(),
        "the-request" => {
            session.count += 1;
            drop(session);
            panic!("as the test wants it: {query}");
        }
        "a-guard" => {
            let other = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
            let _guard = other.commit().await?;
            session.count += 1;
            drop(session);
            drop(parts);
            panic!("as the test wants it: {query}");
        }
        _ => unreachable!(),
    }
    drop(parts);
    panic!("as the test wants it: {query}");
}

async fn nothing_a_panicking_handler_left_is_committed(mode: Mode) {
    let auto = AutoCommitLayer::new().commit_on_server_error(true);
    let catch = CatchPanicLayer::new();
    let answers_ok = CatchPanicLayer::custom(|_| StatusCode::OK.into_response());
    for held in
        ["a-clean-session", "a-changed-session", "an-ended-session", "the-request", "a-guard"]
    {
        for place in ["inside", "outside", "both", "inside, and answers 200"] {
            let sessions: SessionManager<Visits> =
                mode.builder(&ManualClock::new()).build().unwrap();
            let routes = routes().route("/panic", get(panics)).with_state(sessions);
            let app = match place {
                "inside" => routes.layer(catch).layer(auto),
                "outside" => routes.layer(auto).layer(catch),
                "both" => routes.layer(catch).layer(auto).layer(catch),
                _ => routes.layer(answers_ok).layer(auto),
            };
            let log = Log::start();
            let mut browser = Browser::new(app);
            browser.get("/add").await;
            let answer = browser.get(&format!("/panic?{held}")).await;
            assert_eq!(answer.told(), "nothing", "{held}, {place}");
            browser.get("/read").await.expect(StatusCode::OK, "1");
            assert_eq!(
                log.take(),
                <[&str; 0]>::default(),
                "{held}, {place}: a panic is its own message"
            );
        }
    }
}

async fn a_guard_that_outlives_the_handler_is_an_error_that_names_the_handle(mode: Mode) {
    let (result, mut results) = mpsc::unbounded_channel();
    let go: Arc<Mutex<Vec<oneshot::Sender<()>>>> = Arc::default();
    let goes = go.clone();
    let handler = move |mut session: Session<Visits>| async move {
        let (go, wait) = oneshot::channel();
        goes.lock().unwrap().push(go);
        tokio::spawn(async move {
            wait.await.unwrap();
            session.count += 1;
            result.send(session.commit().await.map(|_| ())).unwrap();
        });
    };
    let mut browser = layered_with(mode, get(handler));
    browser.get("/").await.expect(StatusCode::OK, "").expect_no_cookie();
    for go in go.lock().unwrap().drain(..) {
        go.send(()).unwrap();
    }
    let error = results.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Closed), "{error:?}");
    assert!(error.to_string().contains("SessionHandle"), "{error}");
}

async fn a_session_first_extracted_after_the_response_is_an_error_too(mode: Mode) {
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    for fails in [false, true] {
        let late = Arc::new(Mutex::new(None));
        let keep = late.clone();
        let inner = service_fn(move |request: Request| {
            *keep.lock().unwrap() = Some(request.into_parts().0);
            async move { if fails { Err("failed") } else { Ok("ok") } }
        });
        let service = AutoCommitLayer::new().layer(inner);
        let answer = service.oneshot(Request::new(Body::empty())).await;
        assert_eq!(answer.is_err(), fails);
        let mut parts = late.lock().unwrap().take().unwrap();
        let mut session =
            async || Session::<Visits>::from_request_parts(&mut parts, &sessions).await.unwrap();
        // One that is borrowed and stays as it was has nothing to lose.
        let mut unchanged = session().await;
        unchanged.count += 0;
        drop(unchanged.commit().await.unwrap());
        let mut changed = session().await;
        changed.count += 1;
        let error = changed.commit().await.unwrap_err();
        assert!(matches!(error, SessionError::Closed), "{error}");
    }
}

async fn a_failed_commit_replaces_the_response_and_keeps_the_other_cookie(mode: Mode) {
    async fn visits_first(mut visits: Session<Visits>, mut cart: Session<Cart>) -> &'static str {
        visits.count += 1;
        cart.items = "x".repeat(200);
        "not to be seen"
    }
    async fn cart_first(cart: Session<Cart>, visits: Session<Visits>) -> &'static str {
        visits_first(visits, cart).await
    }
    for handler in [get(visits_first), get(cart_first)] {
        let app = Router::new().route("/", handler).layer(AutoCommitLayer::new());
        let app = app.merge(routes());
        let mut browser = Browser::new(app.with_state(shop(mode)));
        let answer = browser.get("/").await.expect_error(StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.set_cookie().starts_with("__Host-session="));
        browser.get("/read").await.expect(StatusCode::OK, "1");
    }
}

async fn changes_that_exclude_each_other_replace_the_response(mode: Mode) {
    async fn handler(mut one: Session<Visits>, mut other: Session<Visits>) {
        one.count += 1;
        other.count += 10;
    }
    let log = Log::start();
    let mut browser = layered_with(mode, get(handler));
    browser.get("/").await.expect_error(StatusCode::CONFLICT).expect_no_cookie();
    let lines = log.take();
    assert!(
        matches!(&lines[..], [line] if line.contains("two `Session`s of one request")),
        "{lines:?}"
    );
}

async fn an_update_never_erases_what_a_dropped_guard_left(mode: Mode) {
    async fn handler(
        mut one: Session<Visits>,
        mut other: Session<Visits>,
    ) -> Result<(), SessionError> {
        one.count += 1;
        drop(one);
        other.update(|visits| visits.count += 10).await
    }
    let mut browser = layered_with(mode, get(handler));
    browser.get("/add").await;
    let answer = browser.get("/").await;
    if mode == Mode::Store {
        answer.expect(StatusCode::OK, "");
        browser.get("/read").await.expect(StatusCode::OK, "12");
    } else {
        // Here `update` changes only its own copy, so that both guards changed one number.
        answer.expect_error(StatusCode::CONFLICT);
        browser.get("/read").await.expect(StatusCode::OK, "1");
    }
}

async fn an_update_goes_on_from_what_another_guard_committed(mode: Mode) {
    async fn handler(
        mut one: Session<Visits>,
        mut other: Session<Visits>,
    ) -> Result<Response, SessionError> {
        one.count += 1;
        let guard = one.commit().await?;
        if other.handle().is_ok() {
            other.update(|visits| visits.count += 10).await?;
        }
        Ok((guard, other.commit().await?).into_response())
    }
    let mut browser = layered_with(mode, get(handler));
    browser.get("/add").await;
    browser.get("/").await.expect(StatusCode::OK, "");
    let count = if mode == Mode::Store { "12" } else { "2" };
    browser.get("/read").await.expect(StatusCode::OK, count);
}

/// Adds ten to a session and leaves it at that.
async fn adds_ten(mut session: Session<Visits>, request: Request, next: Next) -> Response {
    session.count += 10;
    drop(session);
    next.run(request).await
}

async fn a_middlewares_uncommitted_change_is_seen_and_committed_under_the_layer(mode: Mode) {
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let middleware = from_fn_with_state(sessions.clone(), adds_ten);
    let app = routes().layer(middleware).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/add").await.expect(StatusCode::OK, "11");
    browser.get("/none").await.expect(StatusCode::OK, "none");
    browser.get("/read").await.expect(StatusCode::OK, "31");
}

async fn a_layer_inside_an_outer_extractor_commits_only_what_was_left_under_it(mode: Mode) {
    let log = Log::start();
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let outer = from_fn_with_state(sessions.clone(), adds_ten);
    let app = routes().layer(AutoCommitLayer::new()).layer(outer);
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/add").await.expect(StatusCode::OK, "1");
    browser.get("/none").await.expect(StatusCode::OK, "none");
    browser.get("/read").await.expect(StatusCode::OK, "1");
    let lines = log.take();
    for (line, route) in lines.iter().zip(["/add", "/none", "/read"]) {
        let says = "changes to a session were dropped";
        assert!(line.contains(says) && line.contains(&format!("GET {route}")), "{line}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[tokio::test]
async fn the_layer_works_in_a_service_builder_and_over_bodies_that_are_not_axums() {
    let sessions: SessionManager<Visits> = cookie_mode(&ManualClock::new()).build().unwrap();
    let inner = service_fn(move |request: http::Request<Full<Bytes>>| {
        let sessions = sessions.clone();
        async move {
            let (mut parts, _) = request.into_parts();
            let session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await;
            session.unwrap().count += 1;
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from("full"))))
        }
    });
    let service = ServiceBuilder::new().layer(AutoCommitLayer::new()).service(inner);
    let request = http::Request::new(Full::default());
    let response = service.oneshot(request).await.unwrap();
    assert!(response.headers().contains_key(header::SET_COOKIE));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "full");
}

#[tokio::test]
async fn a_streaming_body_is_committed_before_its_first_chunk() {
    let (mut chunks, body) = Channel::<Bytes>::new(2);
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = move |mut session: Session<Visits>| async move {
        session.count += 1;
        Body::new(body.lock().unwrap().take().unwrap())
    };
    let sessions: SessionManager<Visits> = cookie_mode(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(handler)).layer(AutoCommitLayer::new());
    let request = http::Request::get("/").body(Body::empty()).unwrap();
    let response = app.with_state(sessions).oneshot(request).await.unwrap();
    assert!(response.headers().contains_key(header::SET_COOKIE));
    chunks.send_data("one".into()).await.unwrap();
    chunks.send_data("two".into()).await.unwrap();
    drop(chunks);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "onetwo");
}

#[test]
fn the_layer_its_service_and_its_future_cross_threads() {
    fn is<T: Clone + Copy + Send + Sync + std::fmt::Debug + 'static>() {}
    fn is_sent<T: Send + 'static>() {}
    is::<AutoCommitLayer>();
    is::<AutoCommitService<()>>();
    is_sent::<<AutoCommitService<Router> as Service<Request>>::Future>();
    let _service: AutoCommitService<()> = AutoCommitLayer::default().layer(());
}

async fn a_change_that_is_dropped_after_the_response_is_warned_of(mode: Mode) {
    let kept: Arc<Mutex<Option<Session<Visits>>>> = Arc::default();
    let slot = kept.clone();
    let handler = async move |mut session: Session<Visits>| {
        session.count += 1;
        *slot.lock().unwrap() = Some(session);
    };
    let mut browser = layered_with(mode, get(handler));
    let log = Log::start();
    browser.get("/").await.expect(StatusCode::OK, "").expect_no_cookie();
    drop(kept.lock().unwrap().take());
    let lines = log.take();
    assert!(lines.len() == 1 && lines[0].contains("were dropped"), "{lines:?}");
}

async fn what_several_dropped_sessions_ask_for_is_committed_together(mode: Mode) {
    async fn handler(mut one: Session<Visits>, mut other: Session<Visits>) {
        one.regenerate();
        drop(one);
        other.count += 1;
    }
    let mut browser = layered_with(mode, get(handler));
    browser.get("/add").await;
    let id = browser.get("/id").await.body;
    browser.get("/").await.expect(StatusCode::OK, "");
    assert_ne!(browser.get("/id").await.body, id);
    browser.get("/read").await.expect(StatusCode::OK, "2");
}

async fn an_update_keeps_what_a_dropped_session_asked_for(mode: Mode) {
    async fn handler(
        mut one: Session<Visits>,
        mut other: Session<Visits>,
    ) -> Result<(), SessionError> {
        one.regenerate();
        drop(one);
        other.update(|visits| visits.count += 10).await
    }
    let mut browser = layered_with(mode, get(handler));
    browser.get("/add").await;
    let id = browser.get("/id").await.body;
    browser.get("/").await.expect(StatusCode::OK, "");
    assert_ne!(browser.get("/id").await.body, id);
    browser.get("/read").await.expect(StatusCode::OK, "11");
}

async fn a_change_of_a_session_that_another_one_ended_begins_no_session(mode: Mode) {
    async fn handler(mut one: Session<Visits>, mut other: Session<Visits>) {
        other.count += 1;
        one.destroy();
        drop(one);
    }
    async fn save(mut session: Session<Visits>) {
        session.force_save();
    }
    // The data is the default of a new session, so that the change would merge with that.
    let mut browser = layered_with(mode, get(handler).post(save));
    browser.post("/").await.expect(StatusCode::OK, "");
    browser.get("/").await.expect_error(StatusCode::CONFLICT);
    browser.get("/read").await.expect(StatusCode::OK, "0");
}

async fn changes_that_exclude_each_other_leave_a_server_error_as_it_is(mode: Mode) {
    async fn handler(mut one: Session<Visits>, mut other: Session<Visits>) -> impl IntoResponse {
        one.count += 1;
        other.count += 2;
        (StatusCode::INTERNAL_SERVER_ERROR, "of the handler")
    }
    let mut browser = layered_with(mode, get(handler));
    browser.get("/add").await;
    browser.get("/").await.expect(StatusCode::INTERNAL_SERVER_ERROR, "of the handler");
    browser.get("/read").await.expect(StatusCode::OK, "1");
}

async fn a_server_error_extends_no_session(mode: Mode) {
    async fn handler(session: Session<Visits>) -> StatusCode {
        drop(session);
        StatusCode::INTERNAL_SERVER_ERROR
    }
    let (clock, events) = (ManualClock::new(), EventLog::default());
    let sessions = mode.builder(&clock).rolling(true).on_event(events.hook()).build().unwrap();
    let app = routes().route("/", get(handler)).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/add").await;
    clock.advance(HOUR * 6);
    events.take();
    assert_eq!(browser.get("/").await.told(), "nothing");
    assert_eq!(events.take(), <[&str; 0]>::default());
    browser.get("/read").await.expect(StatusCode::OK, "1");
    assert_eq!(events.take(), ["touched"]);
}

#[tokio::test]
async fn it_is_ready_when_the_service_under_it_is() {
    struct Busy;

    impl Service<Request> for Busy {
        type Response = Response;
        type Error = Infallible;
        type Future = Ready<Result<Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Pending
        }

        fn call(&mut self, _: Request) -> Self::Future {
            ready(Ok(().into_response()))
        }
    }

    let mut layered = AutoCommitLayer::new().layer(Busy);
    assert!(poll!(layered.ready()).is_pending());
}

/// A spawned task changes a session that it did not load before the response.
#[tokio::test(start_paused = true)]
async fn a_session_that_a_task_still_loads_delays_no_response_and_is_too_late() {
    let clock = ManualClock::new();
    let store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let sessions = SessionManager::builder().store(store.clone()).clock(clock).build().unwrap();
    let (gate, tasks) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let (loading, spawned) = (gate.clone(), tasks.clone());
    let handler = async move |State(sessions): State<SessionManager<Visits>>, request: Request| {
        let (mut parts, _) = request.into_parts();
        let task = tokio::spawn(async move {
            let session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await;
            session.unwrap().count += 1;
        });
        spawned.lock().unwrap().push(task);
        loading.reached(1).await;
    };
    let app = routes().route("/", get(handler)).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(sessions));
    browser.get("/add").await;
    let log = Log::start();
    store.inject_next(1, Operation::Load, Fault::Pause(gate.clone()));
    let began = Instant::now();
    browser.get("/").await.expect(StatusCode::OK, "");
    assert_eq!(began.elapsed(), Duration::ZERO);
    gate.open();
    let task = tasks.lock().unwrap().pop().unwrap();
    task.await.unwrap();
    let lines = log.take();
    assert!(lines.len() == 1 && lines[0].contains("were dropped"), "{lines:?}");
    browser.get("/read").await.expect(StatusCode::OK, "1");
}
