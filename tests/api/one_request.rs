//! Within one request every `Session<T>` is the same session.

use axum::{
    Router,
    extract::{FromRef, FromRequestParts, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    MemoryStore, Session, SessionCommit, SessionError, SessionManager,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::{StatusCode, Uri, request::Parts};
use serde::{Deserialize, Serialize};

use crate::support::{
    Browser, DAY, Log, MILLISECOND, MINUTE, Mode, ProbeStore, Visits, act, cookie_mode,
    in_both_modes, scripted,
};

in_both_modes! {
    of_two_guards_a_change_is_never_lost,
    of_two_guards_that_count_at_once_one_is_a_conflict,
    a_commit_tells_the_id_it_came_to,
    after_a_commit_that_failed_another_guard_goes_on,
    what_a_part_that_failed_dropped_is_not_committed_by_another,
    a_middlewares_commit_is_seen_by_the_handler,
    a_middlewares_guard_sends_what_the_handler_committed,
    a_destroy_after_the_response_takes_the_new_cookie_back,
}

/// A custom extractor over the session, as applications write them.
struct CurrentCount(u32);

impl<S> FromRequestParts<S> for CurrentCount
where
    SessionManager<Visits>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionError> {
        let session = <Session<Visits> as FromRequestParts<S>>::from_request_parts(parts, state);
        Ok(Self(session.await?.count))
    }
}

fn stored(clock: &ManualClock) -> (ProbeStore, SessionManager<Visits>) {
    let store = ProbeStore::new(clock);
    let builder = SessionManager::builder().store(store.clone());
    (store, builder.clock(clock.clone()).build().unwrap())
}

#[tokio::test]
async fn all_extractions_share_one_load_and_one_session() {
    async fn middleware(session: Session<Visits>, request: Request, next: Next) -> Response {
        drop(session);
        next.run(request).await
    }
    async fn handler(
        one: Session<Visits>,
        CurrentCount(count): CurrentCount,
        other: Option<Session<Visits>>,
        last: Session<Visits>,
    ) -> String {
        format!("{} {count} {:?} {}", one.count, other.map(|other| other.count), last.count)
    }
    let (store, sessions) = stored(&ManualClock::new());
    let layer = from_fn_with_state(sessions.clone(), middleware);
    let app = Router::new().route("/read", get(handler)).layer(layer);
    let app = app.with_state(sessions.clone()).fallback_service(scripted(sessions));
    let mut browser = Browser::new(app);
    browser.get("/read").await.expect(StatusCode::OK, "0 0 None 0");
    assert_eq!(store.take_calls(), <[&str; 0]>::default(), "nothing arrived, nothing to load");
    browser.get("/add").await;
    assert_eq!(store.take_calls(), ["save"]);
    browser.get("/read").await.expect(StatusCode::OK, "1 1 Some(1) 1");
    assert_eq!(store.take_calls(), ["load"]);
}

/// Runs a script over two guards, `/a.add/b.add/a.commit/b.commit`, and answers with the outcomes.
async fn duet(a: Session<Visits>, b: Session<Visits>, uri: Uri) -> Response {
    let (mut a, mut b) = (Some(a), Some(b));
    let mut guards: Vec<SessionCommit> = Vec::new();
    let mut outcomes = Vec::new();
    for step in uri.path().split('/').skip(2) {
        let (name, step) = step.split_once('.').unwrap();
        let slot = if name == "a" { &mut a } else { &mut b };
        match step {
            "drop" => drop(slot.take()),
            "discard" => slot.take().unwrap().discard(),
            "commit" => match slot.take().unwrap().commit().await {
                Ok(guard) => {
                    guards.push(guard);
                    outcomes.push("ok");
                }
                Err(SessionError::Conflict) => outcomes.push("conflict"),
                Err(SessionError::Gone) => outcomes.push("gone"),
                Err(error) => panic!("{error}"),
            },
            step => act(slot.as_mut().unwrap(), step),
        }
    }
    let response = outcomes.join(" ").into_response();
    let join = |response, guard| (guard, response).into_response();
    guards.into_iter().fold(response, join)
}

fn with_duet(sessions: SessionManager<Visits>) -> Router {
    Router::new()
        .route("/duet/{*script}", get(duet))
        .with_state(sessions.clone())
        .fallback_service(scripted(sessions))
}

async fn of_two_guards_a_change_is_never_lost(mode: Mode) {
    // With a store the browser has the id already.
    let saved = if mode == Mode::Cookie { "set" } else { "nothing" };
    for (script, outcomes, told, count) in [
        ("a.add/b.add/a.commit/b.commit", "ok conflict", saved, "2"),
        ("a.add/b.add/b.commit/a.commit", "ok conflict", saved, "2"),
        ("a.add/a.commit/b.commit", "ok ok", saved, "2"),
        ("a.commit/b.add/b.commit", "ok ok", saved, "2"),
        // Lent out but equal is unchanged, on either side.
        ("a.add/a.commit/b.borrow/b.commit", "ok ok", saved, "2"),
        ("a.borrow/a.commit/b.add/b.commit", "ok ok", saved, "2"),
        ("a.add/a.undo/a.commit/b.add/b.commit", "ok ok", saved, "2"),
        ("a.borrow/a.drop/b.add/b.commit", "ok", saved, "2"),
        ("a.borrow/b.add/b.commit/a.commit", "ok ok", saved, "2"),
        // Intents alone act on the session there is now, and a change follows a new id.
        ("a.add/a.commit/b.save/b.commit", "ok ok", saved, "2"),
        ("a.add/a.commit/b.longer/b.commit", "ok ok", saved, "2"),
        ("a.regenerate/a.commit/b.add/b.commit", "ok ok", "set", "2"),
        ("a.add/a.commit/b.regenerate/b.commit", "ok ok", "set", "2"),
        ("a.add/a.commit/b.destroy/b.commit", "ok ok", "removed", "0"),
        ("a.regenerate/a.commit/b.destroy/b.commit", "ok ok", "removed", "0"),
        ("b.add/b.destroy/a.add/a.commit/b.commit", "ok ok", "removed", "0"),
        ("a.destroy/a.commit/b.destroy/b.commit", "ok ok", "removed", "0"),
        // No change crosses a reset, and nothing follows an end.
        ("a.reset/a.commit/b.add/b.commit", "ok conflict", saved, "0"),
        ("a.destroy/a.commit/b.add/b.commit", "ok gone", "removed", "0"),
        ("a.destroy/a.commit/b.save/b.commit", "ok gone", "removed", "0"),
        ("a.destroy/a.commit/b.regenerate/b.commit", "ok gone", "removed", "0"),
        // A change that was dropped is gone, as is one that was discarded.
        ("a.add/a.drop/b.add/b.add/b.commit", "ok", saved, "3"),
        ("a.add/a.drop/b.commit", "ok", "nothing", "1"),
        ("a.add/a.discard/b.add/b.add/b.commit", "ok", saved, "3"),
    ] {
        let sessions = mode.builder(&ManualClock::new()).build().unwrap();
        let mut browser = Browser::new(with_duet(sessions));
        browser.get("/add").await;
        let answer = browser.get(&format!("/duet/{script}")).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, outcomes), "{script}");
        assert_eq!(answer.told(), told, "{script}");
        assert_eq!(browser.get("/read").await.body, count, "{script}");
    }
}

async fn of_two_guards_that_count_at_once_one_is_a_conflict(mode: Mode) {
    async fn handler(mut a: Session<Visits>, mut b: Session<Visits>) -> Response {
        a.count += 1;
        b.count += 1;
        let (a, b) = tokio::join!(a.commit(), b.commit());
        assert!(matches!(b, Err(SessionError::Conflict)));
        a.into_response()
    }
    let sessions = mode.builder::<Visits>(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/both", get(handler)).with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    browser.get("/both").await.expect(StatusCode::OK, "");
    browser.get("/read").await.expect(StatusCode::OK, "1");
    browser.get("/both").await;
    browser.get("/read").await.expect(StatusCode::OK, "2");
}

#[tokio::test]
async fn a_guard_extracted_while_another_commits_waits_until_that_is_through() {
    #[derive(Clone, FromRef)]
    struct App {
        sessions: SessionManager<Visits>,
        gate: Gate,
    }
    async fn handler(
        State(App { sessions, gate }): State<App>,
        request: Request,
    ) -> Result<Response, SessionError> {
        let (mut parts, _) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let mut one = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        one.count += 1;
        let meanwhile = async {
            gate.reached(1).await;
            let mut other = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
            let commit = async {
                match &*path {
                    "/add" => other.count += 10,
                    "/update" => other.update(|visits| visits.count += 10).await?,
                    _ => other.destroy(),
                }
                other.commit().await
            };
            tokio::pin!(commit);
            assert!(futures_util::poll!(&mut commit).is_pending());
            gate.open();
            commit.await
        };
        let (one, other) = tokio::join!(one.commit(), meanwhile);
        let word = |result: &Result<SessionCommit, SessionError>| match result {
            Ok(_) => "ok",
            Err(SessionError::Conflict) => "conflict",
            Err(error) => panic!("{error}"),
        };
        let words = format!("{} {}", word(&one), word(&other));
        Ok((one.or(other)?, words).into_response())
    }
    for (path, outcome, count) in
        [("/add", "ok conflict", "2"), ("/update", "ok ok", "12"), ("/destroy", "ok ok", "0")]
    {
        let store = FaultyStore::new(MemoryStore::new());
        let builder = SessionManager::<Visits>::builder().store(store.clone());
        let (sessions, gate) = (builder.build().unwrap(), Gate::new());
        let app = App { sessions: sessions.clone(), gate: gate.clone() };
        let start = scripted(sessions);
        let app = Router::new().route(path, get(handler)).with_state(app);
        let mut browser = Browser::new(start.clone());
        browser.get("/add").await;
        store.inject_next(1, Operation::Save, Fault::Pause(gate));
        let answer = browser.at(&app).get(path).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, outcome));
        browser.get("/read").await.expect(StatusCode::OK, count);
        assert!(store.inner().len() <= 1);
    }
}

async fn after_a_commit_that_failed_another_guard_goes_on(mode: Mode) {
    #[derive(Default, Serialize, Deserialize)]
    struct Text(String);
    async fn handler(
        mut one: Session<Text>,
        mut other: Session<Text>,
    ) -> Result<SessionCommit, SessionError> {
        one.0 = "x".repeat(200);
        let error = one.commit().await.unwrap_err();
        assert!(matches!(error, SessionError::TooLarge { .. }), "{error}");
        other.0.push('y');
        other.commit().await
    }
    let sessions = mode.builder::<Text>(&ManualClock::new()).max_payload(100).build();
    let app = Router::new()
        .route("/", get(handler))
        .route("/read", get(async |session: Session<Text>| session.0.clone()));
    let mut browser = Browser::new(app.with_state(sessions.unwrap()));
    browser.get("/").await.expect(StatusCode::OK, "");
    browser.get("/").await.expect(StatusCode::OK, "");
    browser.get("/read").await.expect(StatusCode::OK, "yy");
}

/// The scripted app behind a middleware.
fn behind<F, Fut>(mode: Mode, middleware: F) -> Browser
where
    F: Fn(State<SessionManager<Visits>>, Request, Next) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, SessionError>> + Send + 'static,
{
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let layer = from_fn_with_state(sessions.clone(), middleware);
    Browser::new(scripted(sessions).layer(layer))
}

/// Extracts the session of a request in a middleware, and leaves the request whole.
async fn extract(
    request: Request,
    sessions: &SessionManager<Visits>,
) -> Result<(Session<Visits>, Request), SessionError> {
    let (mut parts, body) = request.into_parts();
    let session = <Session<_> as FromRequestParts<_>>::from_request_parts(&mut parts, sessions);
    Ok((session.await?, Request::from_parts(parts, body)))
}

async fn what_a_part_that_failed_dropped_is_not_committed_by_another(mode: Mode) {
    let log = Log::start();
    let mut browser = behind(mode, async |State(sessions), request, next: Next| {
        let (mut session, request) = extract(request, &sessions).await?;
        session.count += 10;
        drop(session);
        Ok(next.run(request).await)
    });
    browser.get("/add").await.expect(StatusCode::OK, "1");
    browser.get("/add").await.expect(StatusCode::OK, "2");
    browser.get("/read").await.expect(StatusCode::OK, "2");
    let lines = log.take();
    assert!(matches!(&lines[..], [line] if line.contains(DIRTY)), "{lines:?}");
}

async fn a_middlewares_commit_is_seen_by_the_handler(mode: Mode) {
    let mut browser = behind(mode, async |State(sessions), request, next: Next| {
        let (mut session, request) = extract(request, &sessions).await?;
        session.count += 10;
        let guard = session.commit().await?;
        Ok((guard, next.run(request).await).into_response())
    });
    let answer = browser.get("/new").await.expect(StatusCode::OK, "false");
    assert_eq!(answer.told(), "set");
    browser.get("/add").await.expect(StatusCode::OK, "21");
    browser.get("/read").await.expect(StatusCode::OK, "31");
}

async fn a_middlewares_guard_sends_what_the_handler_committed(mode: Mode) {
    let mut browser = behind(mode, async |State(sessions), request, next: Next| {
        let (session, request) = extract(request, &sessions).await?;
        let guard = session.commit().await?;
        let response = next.run(request).await;
        // The handler's own cookie is lost on the way.
        Ok((guard, response.into_body()).into_response())
    });
    let answer = browser.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(answer.told(), "set");
    browser.get("/read").await.expect(StatusCode::OK, "1");
    let answer = browser.get("/destroy").await;
    assert_eq!(answer.told(), "removed");
}

async fn a_destroy_after_the_response_takes_the_new_cookie_back(mode: Mode) {
    let mut browser = behind(mode, async |State(sessions), request, next: Next| {
        let (mut session, request) = extract(request, &sessions).await?;
        let response = next.run(request).await;
        session.destroy();
        Ok((session.commit().await?, response).into_response())
    });
    let answer = browser.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(answer.told(), "nothing", "the session of this cookie has ended");
}

/// What the two ways of losing something say.
const DIRTY: &str =
    "`session.commit().await`, add `AutoCommitLayer` after the route, or call `session.discard()`";
const LOST: &str = "a `SessionCommit` was dropped";

async fn forgets(mut session: Session<Visits>) {
    session.count += 1;
}

async fn loses(mut session: Session<Visits>) -> Result<(), SessionError> {
    session.count += 1;
    let _ = session.commit().await?;
    Ok(())
}

async fn discards(mut session: Session<Visits>) {
    session.count += 1;
    session.discard();
}

async fn borrows(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
    session.count += 0;
    session.commit().await
}

fn careless(clock: &ManualClock) -> Browser {
    let sessions = cookie_mode(clock).build().unwrap();
    let app = Router::new()
        .route("/forgets", get(forgets))
        .route("/loses", get(loses))
        .route("/discards", get(discards))
        .route("/borrows", get(borrows))
        .with_state(sessions.clone());
    Browser::new(app.merge(with_duet(sessions.clone())).fallback_service(scripted(sessions)))
}

#[tokio::test]
async fn a_dropped_change_and_a_lost_guard_warn_once_a_minute_and_name_the_fix() {
    let (log, clock) = (Log::start(), ManualClock::new());
    let mut browser = careless(&clock);
    for (path, says) in [("/forgets", DIRTY), ("/loses", LOST)] {
        let answer = browser.get(path).await.expect(StatusCode::OK, "");
        answer.expect_no_cookie();
        let lines = log.take();
        let [line] = &lines[..] else {
            panic!("expected one line, got {lines:?}");
        };
        assert!(line.contains(says) && line.contains("Visits"), "{line}");
        assert!(line.contains(&format!("GET {path}")), "{line}");
        clock.advance(MINUTE - MILLISECOND);
        browser.get(path).await;
        assert_eq!(log.take(), <[&str; 0]>::default(), "{path} again");
        clock.advance(MILLISECOND);
        browser.get(path).await;
        assert_eq!(log.take().len(), 1, "{path} a minute later");
    }
}

#[tokio::test]
async fn a_request_kept_for_the_id_generator_does_not_keep_itself() {
    let log = Log::start();
    let sessions = cookie_mode(&ManualClock::new()).id_generator(|parts| {
        assert_eq!(parts.uri.path(), "/forgets");
        [7; 32]
    });
    let app = Router::new().route("/forgets", get(forgets));
    let mut browser = Browser::new(app.with_state(sessions.build().unwrap()));
    browser.get("/forgets").await.expect(StatusCode::OK, "");
    assert_eq!(log.take().len(), 1, "the end of the request was not noticed");
}

#[tokio::test]
async fn a_change_that_another_guard_overtook_warns() {
    let log = Log::start();
    let mut browser = careless(&ManualClock::new());
    browser.get("/duet/a.add/b.add/a.commit/b.drop").await;
    let lines = log.take();
    assert!(matches!(&lines[..], [line] if line.contains(DIRTY)), "{lines:?}");
}

#[tokio::test]
async fn nothing_warns_in_the_normal_cases() {
    let log = Log::start();
    let mut browser = careless(&ManualClock::new());
    for path in [
        "/read",
        "/add",
        "/read",
        "/add/commit/add/commit/read",
        "/regenerate",
        "/discards",
        "/borrows",
        "/duet/a.add/a.commit/b.commit",
        "/duet/a.borrow/b.add/b.commit",
        "/add/undo",
        "/destroy",
        "/destroy",
        "/discards",
        "/borrows",
    ] {
        browser.get(path).await;
        assert_eq!(log.take(), <[&str; 0]>::default(), "{path}");
    }
}

#[tokio::test]
async fn expires_at_tells_what_a_commit_makes_of_a_session() {
    async fn handler(
        State(sessions): State<SessionManager<Visits>>,
        request: Request,
    ) -> Result<Response, SessionError> {
        let (mut parts, _) = request.into_parts();
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        let lives = |session: &Session<Visits>| {
            (session.expires_at() - session.created_at()).unsigned_abs()
        };
        assert_eq!(lives(&session), DAY);
        session.set_idle_timeout(2 * DAY);
        assert_eq!(lives(&session), 2 * DAY);
        let guard = session.commit().await?;
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        assert_eq!(lives(&session), 2 * DAY);
        session.set_idle_timeout(3 * DAY);
        assert_eq!(lives(&session), 3 * DAY, "as it would be stored");
        session.discard();
        Ok(guard.into_response())
    }
    let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(handler)).with_state(sessions);
    let answer = Browser::new(app).get("/").await.expect(StatusCode::OK, "");
    assert!(answer.set_cookie().ends_with("Max-Age=172800"));
}

async fn a_commit_tells_the_id_it_came_to(mode: Mode) {
    async fn handler(
        State(sessions): State<SessionManager<Visits>>,
        request: Request,
    ) -> Result<Response, SessionError> {
        let (mut parts, _) = request.into_parts();
        let key = |guard: &SessionCommit| guard.id().map(|id| id.store_key());
        let mut guards = Vec::new();
        let mut before = None;
        for (step, has_id, is_same) in [
            ("read", false, true),
            ("save", true, false),
            ("add", true, true),
            ("regenerate", true, false),
            ("destroy", false, false),
        ] {
            let mut session = Session::from_request_parts(&mut parts, &sessions).await?;
            act(&mut session, step);
            guards.push(session.commit().await?);
            let after = guards.last().and_then(key);
            assert_eq!((after.is_some(), after == before), (has_id, is_same), "{step}");
            before = after;
        }
        Ok((guards.pop().unwrap(), ()).into_response())
    }
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/", get(handler)).with_state(sessions);
    let answer = Browser::new(app).get("/").await;
    assert_eq!(answer.status, StatusCode::OK);
}
