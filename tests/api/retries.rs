//! A retry inside `AutoCommitLayer` begins with the session as it was before the failed attempt.

use std::{
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::Body,
    error_handling::HandleError,
    extract::{FromRef, FromRequestParts as _, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager,
    cookie::Cookie,
    testing::{Fault, FaultyStore, ManualClock, Operation},
};
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use tower::{
    Layer as _,
    retry::{Policy, RetryLayer},
    service_fn,
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Answer, Browser, Log, Mode, Visits, cookie_mode, in_both_modes, traced};

in_both_modes! {
    what_a_failed_attempt_left_uncommitted_is_forgotten,
    an_update_of_a_failed_attempt_stays_where_it_is_stored_at_once,
    a_new_id_of_a_failed_attempt_is_forgotten,
    guards_of_a_failed_attempt_that_exclude_each_other_are_forgotten,
    an_attempt_that_ends_in_an_error_is_forgotten,
    an_attempt_with_a_layer_of_its_own_is_forgotten_too,
    a_retry_may_be_retried_as_a_whole,
    sessions_of_all_types_begin_anew,
    what_came_before_the_retry_is_committed_once,
    a_guard_held_around_the_retry_is_committed_once,
    a_guard_of_before_the_retry_that_a_failed_attempt_drops_is_committed,
    a_retry_around_the_layer_and_below_a_session_commits_each_attempt_for_itself,
    a_panic_before_the_retry_still_commits_nothing,
    a_copy_of_a_copy_whose_original_lives_is_no_attempt,
    copies_that_are_no_attempts_lose_nothing,
    requests_that_are_hedged_lose_nothing,
}

#[derive(Default, Serialize, Deserialize)]
struct Page {
    count: u32,
    seen: u32,
}

/// Sends a request again while its answer is a server error or a conflict, but not more often than this.
#[derive(Clone)]
struct Again(u32);

impl<E> Policy<Request, Response, E> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, E>) -> Option<Ready<()>> {
        let fails = result.as_ref().map_or(true, |response| {
            response.status().is_server_error() || response.status() == StatusCode::CONFLICT
        });
        self.0 = self.0.checked_sub(u32::from(fails))?;
        fails.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(copy(request))
    }
}

/// A copy as retries make it, since a body cannot be cloned.
fn copy(request: &Request) -> Request {
    let mut copy = Request::new(Body::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

/// How many attempts a request has had; all its copies share it.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicUsize>);

/// A `Session` that a middleware extracted, for an attempt to drop.
#[derive(Clone)]
struct Lent(Arc<Mutex<Option<Session<Page>>>>);

/// Does what the query says for this attempt, as in `?add.500,add`, and commits only where it says so.
///
/// It answers with what the attempt saw last, the count if it says nothing else.
async fn attempt(
    State(sessions): State<SessionManager<Page>>,
    Extension(attempts): Extension<Attempts>,
    lent: Option<Extension<Lent>>,
    request: Request,
) -> Result<Response, SessionError> {
    let (mut parts, _) = request.into_parts();
    let attempt = attempts.0.fetch_add(1, Ordering::Relaxed);
    let query = parts.uri.query().unwrap().to_owned();
    let script = query.split(',').nth(attempt).expect("no further attempt");
    let (mut status, mut shown) = (StatusCode::OK, None);
    if script.starts_with("early") {
        return Ok(StatusCode::BAD_GATEWAY.into_response());
    }
    let mut session = Session::<Page>::from_request_parts(&mut parts, &sessions).await?;
    for step in script.split('.') {
        match step {
            "read" => {}
            "add" => session.count += 1,
            "see" => session.seen += 1,
            "seen" => shown = Some(session.seen.to_string()),
            "id" => shown = session.id().map(|id| id.store_key().to_base64url()),
            "clear" => session.clear(),
            "destroy" => session.destroy(),
            "regenerate" => session.regenerate(),
            "save" => session.force_save(),
            "update" => session.update(|page| page.count += 1).await?,
            "clash" => {
                let mut other = Session::<Page>::from_request_parts(&mut parts, &sessions).await?;
                (session.count, other.count) = (77, 78);
            }
            "drop" | "commit" => {
                if step == "commit" {
                    let _ = session.commit().await?;
                } else {
                    drop(session);
                }
                session = Session::from_request_parts(&mut parts, &sessions).await?;
            }
            "lent" => drop(lent.as_ref().unwrap().0.0.lock().unwrap().take()),
            "panic" => panic!("as the test wants it"),
            code => status = code.parse().unwrap(),
        }
    }
    Ok((status, shown.unwrap_or(session.count.to_string())).into_response())
}

type Routes = Router<SessionManager<Page>>;

fn sessions(mode: Mode) -> SessionManager<Page> {
    mode.builder(&ManualClock::new()).build().unwrap()
}

/// The layer around a retry, of up to two further attempts, around what the query scripts.
fn retried(sessions: SessionManager<Page>) -> Browser {
    retried_below(sessions, |routes| routes)
}

/// The same with something between the layer and the retry.
fn retried_below(
    sessions: SessionManager<Page>,
    between: impl FnOnce(Routes) -> Routes,
) -> Browser {
    layered(sessions, |routes| {
        between(routes.layer(CatchPanicLayer::new()).layer(RetryLayer::new(Again(2))))
    })
}

fn layered(sessions: SessionManager<Page>, below: impl FnOnce(Routes) -> Routes) -> Browser {
    let app = below(Router::new().route("/", get(attempt))).layer(AutoCommitLayer::new());
    Browser::new(app.with_state(sessions))
}

async fn run(browser: &mut Browser, script: &str) -> Answer {
    browser.send_with(http::Request::get(format!("/?{script}")), Attempts::default()).await
}

async fn what_a_failed_attempt_left_uncommitted_is_forgotten(mode: Mode) {
    let log = Log::start();
    for (script, seen, stored) in [
        ("add", "2", "2"),
        ("add.500,add", "2", "2"),
        ("add.409,add", "2", "2"),
        ("add.500,add.500,add", "2", "2"),
        ("add.500,read.500,add", "2", "2"),
        ("add.500,early,add", "2", "2"),
        ("early,add.500,add", "2", "2"),
        ("add.drop.500,add", "2", "2"),
        ("add.drop.add.500,add", "2", "2"),
        ("save.500,add", "2", "2"),
        ("clear.500,add", "2", "2"),
        ("clear.add.drop.add.500,add", "2", "2"),
        ("add.500,read", "1", "1"),
        // The last attempt is an answer like any other.
        ("add.500,add.400", "2", "2"),
        ("add.500,add.500,add.409", "2", "2"),
        ("add.500,add.500,add.500", "2", "1"),
        // What was committed stays.
        ("add.commit.500,add", "3", "3"),
        ("add.commit.add.500,add", "3", "3"),
        ("add.drop.add.commit.add.500,add", "4", "4"),
        ("add.500,add.commit.500,add", "3", "3"),
        ("add.commit.500,add.500,add.500", "3", "2"),
        // So does the end of a session.
        ("destroy.500,read", "0", "0"),
        ("destroy.500,add", "1", "1"),
        ("add.drop.destroy.500,add", "1", "1"),
        ("destroy.drop.add.500,add", "1", "1"),
        ("destroy.500,read.500,read.500", "0", "0"),
        // A panic is one more way to fail.
        ("panic,add", "2", "2"),
        ("add.panic,add", "2", "2"),
        ("add.drop.add.panic,add", "2", "2"),
        ("add.panic,add.panic,add", "2", "2"),
        ("add.500,add.panic,add", "2", "2"),
        ("add.panic,early,add", "2", "2"),
        ("destroy.drop.panic,add", "1", "1"),
    ] {
        let mut browser = retried(sessions(mode));
        run(&mut browser, "add").await.expect(StatusCode::OK, "1");
        assert_eq!(run(&mut browser, script).await.body, seen, "{script}");
        run(&mut browser, "read").await.expect(StatusCode::OK, stored);
    }
    assert_eq!(log.take(), <[&str; 0]>::default());
}

async fn an_update_of_a_failed_attempt_stays_where_it_is_stored_at_once(mode: Mode) {
    let mut browser = retried(sessions(mode));
    run(&mut browser, "add").await.expect(StatusCode::OK, "1");
    // In a cookie the commit saves it, so that it is a change like any other.
    let count = if mode == Mode::Store { "3" } else { "2" };
    run(&mut browser, "update.500,add").await.expect(StatusCode::OK, count);
    run(&mut browser, "read").await.expect(StatusCode::OK, count);
}

async fn a_new_id_of_a_failed_attempt_is_forgotten(mode: Mode) {
    let mut browser = retried(sessions(mode));
    run(&mut browser, "add").await;
    let id = run(&mut browser, "id").await.body;
    assert_eq!(run(&mut browser, "regenerate.500,add").await.body, "2");
    run(&mut browser, "id").await.expect(StatusCode::OK, &id);
    run(&mut browser, "add.500,regenerate").await;
    assert_ne!(run(&mut browser, "id").await.body, id);
}

async fn guards_of_a_failed_attempt_that_exclude_each_other_are_forgotten(mode: Mode) {
    let mut browser = retried(sessions(mode));
    run(&mut browser, "add").await;
    run(&mut browser, "clash").await.expect_error(StatusCode::CONFLICT);
    run(&mut browser, "clash.500,add").await.expect(StatusCode::OK, "2");
    run(&mut browser, "clash.500,destroy").await;
    run(&mut browser, "read").await.expect(StatusCode::OK, "0");
}

/// What a store kept of a commit that failed is not known, so that nothing of it is committed again.
#[tokio::test]
async fn of_a_commit_with_unknown_outcome_only_the_failed_attempts_part_is_forgotten() {
    for (before, after, stored) in [
        ("", (StatusCode::OK, "2"), "2"),
        ("see.drop.", (StatusCode::OK, "2"), "2"),
        ("outer", (StatusCode::CONFLICT, ""), "1"),
    ] {
        let store = FaultyStore::new(MemoryStore::new());
        let sessions = SessionManager::builder().store(store.clone()).build().unwrap();
        let mut browser = if before == "outer" {
            let middleware = from_fn_with_state(sessions.clone(), sees);
            retried_below(sessions, |routes| routes.layer(middleware))
        } else {
            retried(sessions)
        };
        run(&mut browser, "add").await;
        store.inject_next(1, Operation::Save, Fault::Fail);
        let script = format!("{}add.drop.add.commit,add", before.trim_start_matches("outer"));
        let answer = run(&mut browser, &script).await.expect_status(after.0);
        assert!(after.0 == StatusCode::CONFLICT || answer.body == after.1, "{answer:?}");
        run(&mut browser, "read").await.expect(StatusCode::OK, stored);
    }
}

async fn an_attempt_that_ends_in_an_error_is_forgotten(mode: Mode) {
    let sessions = sessions(mode);
    let routes = Router::new().route("/", get(attempt)).with_state(sessions);
    let fallible = service_fn(move |request: Request| {
        let answer = tower::ServiceExt::oneshot(routes.clone(), request);
        async move {
            let answer = answer.await.unwrap();
            if answer.status().is_server_error() { Err("failed") } else { Ok(answer) }
        }
    });
    let service = AutoCommitLayer::new().layer(RetryLayer::new(Again(2)).layer(fallible));
    let answers = HandleError::new(service, async |_| StatusCode::BAD_GATEWAY);
    let mut browser = Browser::new(Router::new().fallback_service(answers));
    run(&mut browser, "add.500,add").await.expect(StatusCode::OK, "1");
    run(&mut browser, "add.500,add.500,add").await.expect(StatusCode::OK, "2");
    run(&mut browser, "add.500,add.500,add.500").await.expect(StatusCode::BAD_GATEWAY, "");
    run(&mut browser, "read").await.expect(StatusCode::OK, "2");
}

async fn an_attempt_with_a_layer_of_its_own_is_forgotten_too(mode: Mode) {
    let mut browser = layered(sessions(mode), |routes| {
        routes.layer(AutoCommitLayer::new()).layer(RetryLayer::new(Again(2)))
    });
    run(&mut browser, "add.500,add").await.expect(StatusCode::OK, "1");
    // The layer takes note of an attempt that extracts no session.
    run(&mut browser, "add.500,early,add").await.expect(StatusCode::OK, "2");
    run(&mut browser, "read").await.expect(StatusCode::OK, "2");
}

/// Counts what it sees and leaves it at that.
async fn sees(mut session: Session<Page>, request: Request, next: Next) -> Response {
    session.seen += 1;
    drop(session);
    next.run(request).await
}

/// The same, but it counts afterwards.
async fn saw(mut session: Session<Page>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    session.seen += 1;
    answer
}

async fn a_retry_may_be_retried_as_a_whole(mode: Mode) {
    let sessions = sessions(mode);
    let middleware = from_fn_with_state(sessions.clone(), sees);
    let mut browser = layered(sessions, |routes| {
        let inner = routes.layer(RetryLayer::new(Again(1)));
        inner.layer(middleware).layer(RetryLayer::new(Again(2)))
    });
    for (script, count, seen) in [
        ("add", "1", "2"),
        ("add.500,add", "2", "4"),
        ("add.500,add.500,add", "3", "6"),
        ("add.500,add.500,add.500,add", "4", "8"),
        ("add.500,early,early,early,add.500,add", "5", "10"),
    ] {
        run(&mut browser, script).await.expect(StatusCode::OK, count);
        run(&mut browser, "seen").await.expect(StatusCode::OK, seen);
    }
}

async fn sessions_of_all_types_begin_anew(mode: Mode) {
    #[derive(Clone, FromRef)]
    struct Site {
        pages: SessionManager<Page>,
        visits: SessionManager<Visits>,
    }
    async fn handler(
        Extension(attempts): Extension<Attempts>,
        mut page: Session<Page>,
        mut visits: Session<Visits>,
    ) -> (StatusCode, String) {
        page.count += 1;
        visits.count += 1;
        let is_first = attempts.0.fetch_add(1, Ordering::Relaxed) == 0;
        let status = if is_first { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
        (status, format!("{} {}", page.count, visits.count))
    }
    let cookie = Cookie::new("__Host-visits", "");
    let visits = mode.builder(&ManualClock::new()).cookie(cookie).build().unwrap();
    let site = Site { pages: sessions(mode), visits };
    let routes = Router::new().route("/", get(handler)).layer(RetryLayer::new(Again(2)));
    let mut browser = Browser::new(routes.layer(AutoCommitLayer::new()).with_state(site));
    for body in ["1 1", "2 2", "3 3"] {
        run(&mut browser, "").await.expect(StatusCode::OK, body);
    }
}

const FAILING: [&str; 8] = [
    "add",
    "add.500,add",
    "add.409,add.500,add",
    "add.drop.add.panic,add",
    "early,add.500,add",
    "clear.add.500,add",
    "regenerate.drop.add.500,add",
    "clash.500,add",
];

async fn what_came_before_the_retry_is_committed_once(mode: Mode) {
    for script in FAILING {
        let sessions = sessions(mode);
        let middleware = from_fn_with_state(sessions.clone(), sees);
        let mut browser = retried_below(sessions, |routes| routes.layer(middleware));
        run(&mut browser, "add").await.expect(StatusCode::OK, "1");
        assert_eq!(run(&mut browser, script).await.body, "2", "{script}");
        assert_eq!(run(&mut browser, "seen").await.body, "3", "{script}");
        // A commit takes along what was left before it.
        run(&mut browser, "add.commit.500,add").await.expect(StatusCode::OK, "4");
        assert_eq!(run(&mut browser, "seen").await.body, "5", "{script}");
        // A middleware's change is of the request, and its last answer decides.
        run(&mut browser, "500,500,500").await;
        run(&mut browser, "seen").await.expect(StatusCode::OK, "6");
    }
}

async fn a_guard_held_around_the_retry_is_committed_once(mode: Mode) {
    for script in FAILING {
        let sessions = sessions(mode);
        let middleware = from_fn_with_state(sessions.clone(), saw);
        let mut browser = retried_below(sessions, |routes| routes.layer(middleware));
        run(&mut browser, "add").await.expect(StatusCode::OK, "1");
        assert_eq!(run(&mut browser, script).await.body, "2", "{script}");
        assert_eq!(run(&mut browser, "seen").await.body, "2", "{script}");
        run(&mut browser, "add.commit.500,add").await.expect(StatusCode::OK, "4");
        assert_eq!(run(&mut browser, "seen").await.body, "4", "{script}");
    }
}

async fn a_guard_of_before_the_retry_that_a_failed_attempt_drops_is_committed(mode: Mode) {
    async fn lends(mut session: Session<Page>, mut request: Request, next: Next) -> Response {
        session.seen += u32::from(request.uri().query() != Some("seen"));
        request.extensions_mut().insert(Lent(Arc::new(Mutex::new(Some(session)))));
        next.run(request).await
    }
    let sessions = sessions(mode);
    let middleware = from_fn_with_state(sessions.clone(), lends);
    let mut browser = retried_below(sessions, |routes| routes.layer(middleware));
    for (script, seen) in [("lent", "1"), ("lent.500,read", "2"), ("add.drop.lent.500,read", "3")] {
        run(&mut browser, script).await.expect_status(StatusCode::OK);
        run(&mut browser, "seen").await.expect(StatusCode::OK, seen);
    }
}

async fn a_retry_around_the_layer_and_below_a_session_commits_each_attempt_for_itself(mode: Mode) {
    async fn reads(session: Session<Page>, request: Request, next: Next) -> Response {
        drop(session);
        next.run(request).await
    }
    for script in ["add.500,add", "add.500,add.commit.read", "add.500,add.500,add"] {
        let sessions = sessions(mode);
        let app = Router::new()
            .route("/", get(attempt))
            .layer(AutoCommitLayer::new())
            .layer(RetryLayer::new(Again(2)))
            .layer(from_fn_with_state(sessions.clone(), reads));
        let mut browser = Browser::new(app.with_state(sessions));
        run(&mut browser, "add").await.expect(StatusCode::OK, "1");
        run(&mut browser, script).await.expect(StatusCode::OK, "2");
        run(&mut browser, "read").await.expect(StatusCode::OK, "2");
    }
}

/// Each type has a page of its own for errors.
#[tokio::test]
async fn the_error_of_the_last_attempt_is_rendered_by_its_own_manager() {
    #[derive(Clone, FromRef)]
    struct Managers {
        numbers: SessionManager<u32>,
        texts: SessionManager<String>,
    }
    async fn fails(
        State(managers): State<Managers>,
        Extension(attempts): Extension<Attempts>,
        request: Request,
    ) -> Result<(), SessionError> {
        let mut parts = request.into_parts().0;
        if attempts.0.fetch_add(1, Ordering::Relaxed) == 0 {
            let numbers = Session::<u32>::from_request_parts(&mut parts, &managers).await?;
            return numbers.verify_csrf("").map(|()| numbers.discard());
        }
        let texts = Session::<String>::from_request_parts(&mut parts, &managers).await?;
        texts.verify_csrf("").map(|()| texts.discard())
    }
    fn manager<T>(page: &'static str, name: &'static str) -> SessionManager<T>
    where
        T: Default + Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let builder = Mode::Cookie.builder(&ManualClock::new()).cookie(Cookie::new(name, ""));
        builder.error_response(move |_| (status, page).into_response()).build().unwrap()
    }
    let managers = Managers { numbers: manager("numbers", "n"), texts: manager("texts", "t") };
    let app = Router::new()
        .route("/", get(fails))
        .layer(RetryLayer::new(AtFirst(true)))
        .layer(AutoCommitLayer::new());
    let mut browser = Browser::new(app.with_state(managers));
    let answer = browser.send_with(http::Request::get("/"), Attempts::default()).await;
    answer.expect(StatusCode::INTERNAL_SERVER_ERROR, "texts");
}

/// Sends a request twice, whatever it answers.
#[derive(Clone)]
struct AtFirst(bool);

impl<E> Policy<Request, Response, E> for AtFirst {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, _: &mut Result<Response, E>) -> Option<Ready<()>> {
        std::mem::take(&mut self.0).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(copy(request))
    }
}

async fn a_panic_before_the_retry_still_commits_nothing(mode: Mode) {
    async fn panics(session: Session<Page>, request: Request, next: Next) -> Response {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _session = session;
            panic!("as the test wants it");
        }));
        assert!(caught.is_err());
        next.run(request).await
    }
    let sessions = sessions(mode);
    let middleware = from_fn_with_state(sessions.clone(), panics);
    let mut browser = retried_below(sessions, |routes| routes.layer(middleware));
    run(&mut browser, "add").await.expect(StatusCode::OK, "1").expect_no_cookie();
    run(&mut browser, "add.500,add").await.expect(StatusCode::OK, "1").expect_no_cookie();
}

/// The middleware goes on with the original, and something behind it copies the copy before it takes the session.
async fn a_copy_of_a_copy_whose_original_lives_is_no_attempt(mode: Mode) {
    async fn passes_a_copy_on(
        State(sessions): State<SessionManager<Page>>,
        request: Request,
        next: Next,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        let onward = Request::from_parts(parts.clone(), body);
        Session::<Page>::from_request_parts(&mut parts, &sessions).await.unwrap().seen += 1;
        let answer = next.run(onward).await;
        assert_eq!(parts.method, "GET");
        answer
    }
    async fn takes_the_parts(_: Parts, page: Session<Page>) -> String {
        page.seen.to_string()
    }
    let sessions = mode.builder::<Page>(&ManualClock::new()).build().unwrap();
    let app = Router::new()
        .route("/", get(takes_the_parts))
        .layer(from_fn_with_state(sessions.clone(), passes_a_copy_on))
        .layer(AutoCommitLayer::new())
        .with_state(sessions);
    let mut browser = Browser::new(app);
    for seen in ["1", "2", "3"] {
        browser.get("/").await.expect(StatusCode::OK, seen);
    }
}

async fn copies_that_are_no_attempts_lose_nothing(mode: Mode) {
    type Sessions = State<SessionManager<Page>>;
    async fn see(parts: &mut Parts, sessions: &SessionManager<Page>) {
        Session::<Page>::from_request_parts(parts, sessions).await.unwrap().seen += 1;
    }
    async fn passes_a_copy_on(State(sessions): Sessions, request: Request, next: Next) -> Response {
        let answer = next.run(copy(&request)).await;
        see(&mut request.into_parts().0, &sessions).await;
        answer
    }
    async fn keeps_a_copy(State(sessions): Sessions, request: Request, next: Next) -> Response {
        let kept = copy(&request);
        let answer = next.run(request).await;
        see(&mut kept.into_parts().0, &sessions).await;
        answer
    }
    async fn copies_a_copy(State(sessions): Sessions, request: Request, next: Next) -> Response {
        let kept = copy(&request);
        let answer = next.run(request).await;
        see(&mut copy(&kept).into_parts().0, &sessions).await;
        answer
    }
    async fn looks_in_a_copy(State(sessions): Sessions, request: Request, next: Next) -> Response {
        see(&mut copy(&request).into_parts().0, &sessions).await;
        next.run(request).await
    }
    async fn takes_parts(
        mut parts: Parts,
        State(sessions): Sessions,
        session: Session<Page>,
        request: Request,
        next: Next,
    ) -> Response {
        drop(session);
        see(&mut parts, &sessions).await;
        next.run(request).await
    }
    let log = Log::start();
    for retries in [0, 2] {
        let sessions = sessions(mode);
        let state = || sessions.clone();
        let mut browser = layered(state(), |routes| {
            routes
                .layer(RetryLayer::new(Again(retries)))
                .layer(from_fn_with_state(state(), passes_a_copy_on))
                .layer(from_fn_with_state(state(), keeps_a_copy))
                .layer(from_fn_with_state(state(), copies_a_copy))
                .layer(from_fn_with_state(state(), looks_in_a_copy))
                .layer(from_fn_with_state(state(), takes_parts))
        });
        run(&mut browser, "add").await.expect(StatusCode::OK, "1");
        run(&mut browser, "add.drop.add").await.expect(StatusCode::OK, "3");
        if retries > 0 {
            run(&mut browser, "add.500,add").await.expect(StatusCode::OK, "4");
            run(&mut browser, "seen").await.expect(StatusCode::OK, "17");
        } else {
            run(&mut browser, "seen").await.expect(StatusCode::OK, "12");
        }
    }
    assert_eq!(log.take(), <[&str; 0]>::default());
}

/// Both attempts run at once, and each answers for itself: their changes merge, as those of guards do.
async fn requests_that_are_hedged_lose_nothing(mode: Mode) {
    async fn hedge(request: Request, next: Next) -> Response {
        let second = next.clone().run(copy(&request));
        let (answer, _) = tokio::join!(next.run(request), second);
        answer
    }
    let mut browser = layered(sessions(mode), |routes| routes.layer(from_fn(hedge)));
    run(&mut browser, "add,see").await.expect(StatusCode::OK, "1");
    run(&mut browser, "add.commit,see").await.expect(StatusCode::OK, "2");
    run(&mut browser, "add.500,see").await;
    run(&mut browser, "read,seen").await.expect(StatusCode::OK, "2");
    run(&mut browser, "seen,read").await.expect(StatusCode::OK, "2");
}

#[test]
fn what_is_forgotten_is_logged_for_those_who_look() {
    let app = || {
        let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
        let handler = async |Extension(attempts): Extension<Attempts>,
                             mut session: Session<Visits>| {
            session.count += 1;
            let is_first = attempts.0.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
        };
        let routes = Router::new().route("/", get(handler)).layer(RetryLayer::new(Again(2)));
        Browser::new(routes.layer(AutoCommitLayer::new()).with_state(sessions))
    };
    let (_, log) = traced(async {
        let mut browser = app();
        run(&mut browser, "").await.expect(StatusCode::OK, "")
    });
    let lines: Vec<_> = log.lines().filter(|line| line.contains("retried")).collect();
    assert!(matches!(lines[..], [line] if line.contains("DEBUG")), "{log}");
}
