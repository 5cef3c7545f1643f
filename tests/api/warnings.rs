//! What an application forgets is warned of where it is seen: by method and route, once a minute.

use axum::{
    Router,
    extract::{RawQuery, Request},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager,
    testing::{Fault, FaultyStore, ManualClock, Operation},
};
use http::StatusCode;

use crate::{
    support::{
        Browser, Change, Log, MILLISECOND, Mode, SECOND, Visits, changing, in_both_modes, scripted,
    },
    world::{Data, World, change},
};

in_both_modes! {
    what_a_handler_forgets_is_warned_of_with_its_method_and_route,
    each_warning_comes_once_a_minute,
    each_method_and_route_and_mistake_is_warned_of_by_itself,
    a_lost_guard_of_an_untouched_session_is_warned_of_too,
    nothing_is_warned_of_that_was_meant,
    nothing_is_warned_of_under_the_layer,
    a_guard_of_a_middleware_is_enough,
    an_update_without_a_guard_is_warned_of,
}

/// Makes the mistake that the query names.
async fn careless(
    mut session: Session<Visits>,
    RawQuery(mistake): RawQuery,
) -> Result<Response, SessionError> {
    let body = session.count.to_string();
    match &*mistake.unwrap() {
        "drops-a-change" => session.count += 1,
        "drops-a-guard" => {
            session.count += 1;
            drop(session.commit().await?);
        }
        "drops-an-empty-guard" => drop(session.commit().await?),
        "only-reads" => {}
        other => panic!("no such mistake: {other}"),
    }
    Ok(body.into_response())
}

const MISTAKES: [&str; 3] = ["drops-a-change", "drops-a-guard", "only-reads"];

fn app(mode: Mode, clock: &ManualClock) -> Browser {
    let sessions: SessionManager<Visits> = mode.builder(clock).build().unwrap();
    let inner = Router::new().route("/of/{id}", get(careless));
    let app = Router::new()
        .route("/users/{id}", get(careless).post(careless))
        .route("/carts/{id}", get(careless))
        .nest("/nested", inner)
        .fallback(careless)
        .with_state(sessions);
    Browser::new(app)
}

/// The one line that was written.
#[track_caller]
fn one_line(log: &Log) -> String {
    match &log.take()[..] {
        [line] => line.clone(),
        lines => panic!("expected one line, got {lines:?}"),
    }
}

#[track_caller]
fn nothing(log: &Log, at: &str) {
    assert_eq!(log.take(), <[&str; 0]>::default(), "{at}");
}

async fn what_a_handler_forgets_is_warned_of_with_its_method_and_route(mode: Mode) {
    for mistake in MISTAKES {
        for (path, route) in
            [("/users/ada-lovelace", "/users/{id}"), ("/nested/of/ada-lovelace", "/nested/of/{id}")]
        {
            let mut browser = app(mode, &ManualClock::new());
            let log = Log::start();
            let answer = browser.get(&format!("{path}?{mistake}")).await;
            assert_eq!(answer.status, StatusCode::OK);
            let line = one_line(&log);
            assert!(line.contains("WARN") && line.contains("GET"), "{line}");
            assert!(line.contains(route), "{line}");
            assert!(!line.contains("lovelace") && !line.contains(mistake), "{line}");
            assert!(line.contains("commit"), "it names the way out: {line}");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_route_is_warned_of_without_its_path() {
    for mistake in MISTAKES {
        let mut browser = app(Mode::Cookie, &ManualClock::new());
        let log = Log::start();
        browser.get(&format!("/whatever/ada-lovelace?{mistake}")).await;
        let line = one_line(&log);
        assert!(line.contains("GET"), "{line}");
        for secret in ["whatever", "lovelace", mistake] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

async fn each_warning_comes_once_a_minute(mode: Mode) {
    for mistake in MISTAKES {
        let clock = ManualClock::new();
        let mut browser = app(mode, &clock);
        let log = Log::start();
        for round in 0..3 {
            browser.get(&format!("/users/ada?{mistake}")).await;
            let line = one_line(&log);
            assert!(line.contains("/users/{id}"), "{round}: {line}");
            for path in ["/users/ada", "/users/bob"] {
                browser.get(&format!("{path}?{mistake}")).await;
                nothing(&log, mistake);
            }
            clock.advance(60 * SECOND - MILLISECOND);
            browser.get(&format!("/users/ada?{mistake}")).await;
            nothing(&log, mistake);
            clock.advance(MILLISECOND);
        }
    }
}

async fn each_method_and_route_and_mistake_is_warned_of_by_itself(mode: Mode) {
    let mut browser = app(mode, &ManualClock::new());
    let log = Log::start();
    let mut lines = Vec::new();
    for mistake in MISTAKES {
        browser.get(&format!("/users/ada?{mistake}")).await;
        lines.push(one_line(&log));
        browser.post(&format!("/users/ada?{mistake}")).await;
        let line = one_line(&log);
        assert!(line.contains("POST"), "{line}");
        lines.push(line);
        browser.get(&format!("/carts/ada?{mistake}")).await;
        let line = one_line(&log);
        assert!(line.contains("/carts/{id}"), "{line}");
        lines.push(line);
    }
    // What follows the level, since the time differs anyway.
    let texts: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line.split_once("WARN").unwrap().1).collect();
    assert_eq!(texts.len(), 9, "{lines:#?}");
}

/// Its answer says nothing to caches.
async fn a_lost_guard_of_an_untouched_session_is_warned_of_too(mode: Mode) {
    let mut browser = app(mode, &ManualClock::new());
    let log = Log::start();
    browser.get("/users/ada?drops-an-empty-guard").await;
    assert!(one_line(&log).contains("/users/{id}"));
}

async fn nothing_is_warned_of_that_was_meant(mode: Mode) {
    async fn discards(mut session: Session<Visits>) {
        session.count += 1;
        session.discard();
    }
    async fn discards_untouched(session: Session<Visits>) {
        session.discard();
    }
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new()
        .route("/discards", get(discards))
        .route("/discards-untouched", get(discards_untouched))
        .route("/none", get(async || "none"))
        .with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    let log = Log::start();
    for path in [
        "/discards",
        "/discards-untouched",
        "/none",
        "/read",
        "/add",
        "/discards",
        "/discards-untouched",
        "/read",
        "/borrow",
        "/add/commit/add/commit/read",
        "/regenerate",
        "/destroy",
    ] {
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}");
        nothing(&log, path);
    }
}

async fn nothing_is_warned_of_under_the_layer(mode: Mode) {
    async fn fails(mut session: Session<Visits>) -> StatusCode {
        session.count += 1;
        StatusCode::INTERNAL_SERVER_ERROR
    }
    async fn refuses(mut session: Session<Visits>) -> StatusCode {
        session.count += 1;
        StatusCode::NOT_FOUND
    }
    async fn fails_after_reading(session: Session<Visits>) -> StatusCode {
        drop(session);
        StatusCode::SERVICE_UNAVAILABLE
    }
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new()
        .route("/users/{id}", get(careless))
        .route("/fails", get(fails))
        .route("/refuses", get(refuses))
        .route("/fails-after-reading", get(fails_after_reading))
        .layer(AutoCommitLayer::new())
        .with_state(sessions);
    let mut browser = Browser::new(app);
    let log = Log::start();
    for path in ["/fails", "/refuses", "/fails-after-reading", "/fails"] {
        browser.get(path).await;
        nothing(&log, path);
    }
    for mistake in MISTAKES {
        browser.get(&format!("/users/ada?{mistake}")).await;
        nothing(&log, mistake);
    }
}

/// The error is the message.
#[tokio::test]
async fn nothing_is_warned_of_beside_a_commit_that_failed() {
    async fn fails(
        mut one: Session<Visits>,
        mut other: Session<Visits>,
    ) -> Result<Response, SessionError> {
        other.count += 10;
        one.count += 1;
        Ok(one.commit().await?.into_response())
    }
    async fn fails_beside_a_reader(
        mut one: Session<Visits>,
        _other: Session<Visits>,
    ) -> Result<Response, SessionError> {
        one.count += 1;
        Ok(one.commit().await?.into_response())
    }
    let store = FaultyStore::new(MemoryStore::new());
    let sessions = SessionManager::<Visits>::builder().store(store.clone()).build().unwrap();
    let app = Router::new()
        .route("/fails/{id}", get(fails))
        .route("/fails-beside-a-reader/{id}", get(fails_beside_a_reader))
        .with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    browser.get("/add").await;
    let log = Log::start();
    for path in ["/fails/ada", "/fails-beside-a-reader/ada"] {
        store.inject_next(1, Operation::Save, Fault::Fail);
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let lines = log.take();
        assert!(!lines.is_empty(), "the failed store is reported");
        assert!(lines.iter().all(|line| !line.contains("{id}")), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("discard")), "{lines:?}");
    }
}

async fn a_guard_of_a_middleware_is_enough(mode: Mode) {
    async fn commits(
        session: Session<Visits>,
        request: Request,
        next: Next,
    ) -> Result<impl IntoResponse, SessionError> {
        let response = next.run(request).await;
        Ok((session.commit().await?, response))
    }
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new()
        .route("/users/{id}", get(careless))
        .layer(from_fn_with_state(sessions.clone(), commits))
        .with_state(sessions);
    let mut browser = Browser::new(app);
    let log = Log::start();
    for _ in 0..2 {
        browser.get("/users/ada?only-reads").await.expect(StatusCode::OK, "0");
        nothing(&log, "a reader");
        // The middleware's guard tells the client what the handler committed.
        assert_eq!(browser.get("/users/ada?drops-a-guard").await.status, StatusCode::OK);
        nothing(&log, "a dropped guard");
        browser.jar.clear();
    }
}

/// Somebody else may have planted the id. In a cookie the copy that he keeps is not signed in.
async fn an_update_without_a_guard_is_warned_of(mode: Mode) {
    async fn updates(mut session: Session<Visits>) -> Result<String, SessionError> {
        let count = session.update(|visits| {
            visits.count += 1;
            visits.count
        });
        Ok(count.await?.to_string())
    }
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let app = Router::new().route("/update", get(updates)).with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    browser.get("/add").await;
    let log = Log::start();
    browser.get("/update").await.expect(StatusCode::OK, "2");
    let line = one_line(&log);
    assert!(line.contains("WARN") && line.contains("GET /update"), "{line}");
}

#[tokio::test]
async fn a_login_that_keeps_its_id_in_a_store_is_warned_of_once() {
    let login = |session: &mut Session<Data>| session.user = Some("ada-lovelace".to_owned());
    let log = Log::start();
    let world = World::new();
    for warns in [true, false] {
        let mut browser = world.browser_with(Data::count_of(1)).await;
        nothing(&log, "a visitor");
        world.run(&mut browser, change(login)).await.expect_status(StatusCode::OK);
        if warns {
            let line = one_line(&log);
            assert!(line.contains("`session.regenerate()` at every sign-in"), "{line}");
            assert!(!line.contains("lovelace"), "{line}");
        } else {
            nothing(&log, "once");
        }
    }
    // With a new id, in a new session, and for a session that begins in this request.
    let world = World::new();
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let regenerate = change(move |session| {
        login(session);
        session.regenerate();
    });
    world.run(&mut browser, regenerate).await.expect_status(StatusCode::OK);
    world.run(&mut world.browser(), change(login)).await.expect_status(StatusCode::OK);
    nothing(&log, "a new id");
    let sessions = Mode::Cookie.builder::<Data>(&ManualClock::new());
    let sessions = sessions.owner(|data| data.user.clone()).build().unwrap();
    let mut browser = Browser::new(changing(sessions));
    let visit = Change::new(|session: &mut Session<Data>| session.count = 1);
    browser.send_with(http::Request::post("/"), visit).await.expect_status(StatusCode::OK);
    browser
        .send_with(http::Request::post("/"), Change::new(login))
        .await
        .expect_status(StatusCode::OK);
    nothing(&log, "in a cookie");
}
