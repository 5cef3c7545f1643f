//! Within one request, too, a logout is final, and nobody is told otherwise than it is.

use axum::{
    Router,
    extract::{FromRequestParts as _, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Visit, change, meanwhile, run, seen, visited, with_guards},
    support::{Browser, COOKIE, Mode, Visits, in_both_modes, key, scripted},
};

in_both_modes! {
    a_logout_left_to_the_layer_is_undone_by_no_discard,
    a_logout_left_to_the_layer_is_undone_by_no_status,
    after_a_logout_left_to_the_layer_the_session_is_fresh,
    a_logout_that_a_middleware_leaves_after_the_handler_is_committed_at_every_status,
    a_logout_by_the_manager_is_undone_by_no_session_of_the_request,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Seat {
    user: Option<String>,
    count: u32,
}

/// A store that fails on demand, and a manager of sessions in it.
fn seats() -> (FaultyStore<MemoryStore>, SessionManager<Seat>) {
    let clock = ManualClock::new();
    let store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let builder = SessionManager::builder().store(store.clone()).clock(clock);
    let sessions = builder.owner(|seat: &Seat| seat.user.clone()).build().unwrap();
    (store, sessions)
}

/// A browser that is signed in as ada.
async fn ada(sessions: &SessionManager<Seat>) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    change(&mut browser, |session: &mut Session<Seat>| {
        session.user = Some("ada".to_owned());
    })
    .await;
    assert!(browser.has_session());
    browser
}

type MakeFault = fn(Gate) -> Fault;

/// What can keep a call under way: after it has reached the store, and before.
const HELD: [MakeFault; 2] = [Fault::HoldAnswer, Fault::Pause];

#[tokio::test]
async fn a_change_after_a_logout_that_came_during_an_update_is_gone() {
    for held in HELD {
        let (store, sessions) = seats();
        let mut browser = ada(&sessions).await;
        let control = store.clone();
        let answer = run(&mut browser, async move |mut visit: Visit<Seat>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            let gate = Gate::new();
            control.inject_next(1, Operation::Save, held(gate.clone()));
            other.destroy();
            let update = one.update(|seat| seat.count += 1);
            let (_, logout) = meanwhile(&gate, update, other.commit()).await;
            let logout = logout?;
            one.count += 10;
            let late = one.commit().await;
            assert!(matches!(late, Err(SessionError::Gone)), "{late:?}");
            Ok(logout.into_response())
        })
        .await;
        assert_eq!((answer.status, answer.told()), (StatusCode::OK, "removed"));
        assert!(sessions.sessions_of("ada").await.unwrap().is_empty());
        assert!(store.inner().is_empty(), "no session came of the late commit");
    }
}

/// Regenerates in one guard, and during its n-th save ends the session in another, which fails if
/// `destroy_fails`; then what the client knows has to agree with what there is.
async fn logout_during_a_rotation(held: MakeFault, save: usize, destroy_fails: bool) {
    let at = format!("save {save}, {:?}, {destroy_fails}", held(Gate::new()));
    let (store, sessions) = seats();
    let mut browser = ada(&sessions).await;
    let control = store.clone();
    let answer = run(&mut browser, async move |mut visit: Visit<Seat>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        let gate = Gate::new();
        control.inject_next(save - 1, Operation::Save, Fault::Pass);
        control.inject_next(1, Operation::Save, held(gate.clone()));
        if destroy_fails {
            control.inject_next(1, Operation::Destroy, Fault::Fail);
        }
        one.regenerate();
        other.destroy();
        let (rotation, logout) = meanwhile(&gate, one.commit(), other.commit()).await;
        let status = match &logout {
            Ok(_) => StatusCode::OK,
            Err(error) => error.status(),
        };
        let guards = [rotation, logout].into_iter().filter_map(Result::ok);
        Ok((status, with_guards(guards)).into_response())
    })
    .await;
    let left = sessions.sessions_of("ada").await.unwrap().len();
    if answer.status == StatusCode::OK {
        assert_eq!((left, browser.has_session()), (0, false), "{at}: {answer:?}");
    } else {
        let user = seen::<Seat>(&browser).await.and_then(|seat| seat.user);
        assert_eq!((left, user.as_deref()), (1, Some("ada")), "{at}: {answer:?}");
    }
    if destroy_fails {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{at}");
    }
}

#[tokio::test]
async fn a_logout_that_fails_swallows_no_new_id() {
    for held in HELD {
        for save in [1, 2] {
            logout_during_a_rotation(held, save, true).await;
        }
    }
}

#[tokio::test]
async fn a_logout_beside_a_new_id_ends_the_session_or_is_an_error() {
    for held in HELD {
        for save in [1, 2] {
            logout_during_a_rotation(held, save, false).await;
        }
    }
}

#[tokio::test]
async fn with_revocations_a_logout_that_fails_swallows_no_new_id() {
    for held in HELD {
        let clock = ManualClock::new();
        let list = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
        let builder = SessionManager::<Seat>::builder().keys(key()).revocations(list.clone());
        let sessions = builder.clock(clock).build().unwrap();
        let mut browser = ada(&sessions).await;
        let answer = run(&mut browser, async move |mut visit: Visit<Seat>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            let gate = Gate::new();
            list.inject_next(1, Operation::Save, held(gate.clone()));
            // A logout asks twice before it gives up.
            list.inject_next(2, Operation::Save, Fault::Fail);
            one.regenerate();
            other.destroy();
            let (rotation, logout) = meanwhile(&gate, one.commit(), other.commit()).await;
            assert!(matches!(logout, Err(SessionError::Store(_))), "{logout:?}");
            Ok(rotation?.into_response())
        })
        .await;
        assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"));
        assert_eq!(seen::<Seat>(&browser).await.unwrap().user.as_deref(), Some("ada"));
    }
}

#[tokio::test]
async fn a_logout_with_nothing_to_do_swallows_no_new_session() {
    for held in HELD {
        let (store, sessions) = seats();
        let mut browser = Browser::new(visited(sessions));
        let control = store.clone();
        let answer = run(&mut browser, async move |mut visit: Visit<Seat>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            let gate = Gate::new();
            control.inject_next(1, Operation::Save, held(gate.clone()));
            one.count += 1;
            other.destroy();
            let (created, logout) = meanwhile(&gate, one.commit(), other.commit()).await;
            Ok(with_guards([created?, logout?]))
        })
        .await;
        assert_eq!(answer.status, StatusCode::OK);
        // Which of the two was first is not told; that the browser has what the store has is.
        assert_eq!(browser.has_session(), !store.inner().is_empty());
        let count = seen::<Seat>(&browser).await.map(|seat| seat.count);
        assert_eq!(count.is_some(), browser.has_session());
    }
}

/// Routes behind a middleware that ends the session and leaves that to the layer, in front of the
/// handler or behind it.
fn ending(mode: Mode, before: bool) -> Browser {
    let sessions: SessionManager<Visits> = mode.builder(&ManualClock::new()).build().unwrap();
    let before_handler = async |mut session: Session<Visits>, request: Request, next: Next| {
        session.destroy();
        drop(session);
        next.run(request).await
    };
    let behind_handler = async |mut session: Session<Visits>, request: Request, next: Next| {
        let response = next.run(request).await;
        session.destroy();
        drop(session);
        response
    };
    let routes = handlers();
    let routes = if before {
        routes.layer(from_fn_with_state(sessions.clone(), before_handler))
    } else {
        routes.layer(from_fn_with_state(sessions.clone(), behind_handler))
    };
    let app = routes.layer(AutoCommitLayer::new()).with_state(sessions.clone());
    Browser::new(app.fallback_service(scripted(sessions)))
}

fn handlers() -> Router<SessionManager<Visits>> {
    Router::new()
        .route("/end/discard", get(async |session: Session<Visits>| session.discard()))
        .route(
            "/end/change-and-discard",
            get(async |mut session: Session<Visits>| {
                session.count += 1;
                session.discard();
            }),
        )
        .route("/end/untouched", get(async || StatusCode::OK))
        .route("/end/missing", get(async || StatusCode::NOT_FOUND))
        .route("/end/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route(
            "/end/broken-with-session",
            get(async |session: Session<Visits>| {
                drop(session);
                StatusCode::SERVICE_UNAVAILABLE
            }),
        )
        .route(
            "/end/broken-with-discard",
            get(async |session: Session<Visits>| {
                session.discard();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .route(
            "/end/option",
            get(async |session: Option<Session<Visits>>| {
                session.map_or("none".to_owned(), |session| session.count.to_string())
            }),
        )
        .route(
            "/end/session",
            get(async |session: Session<Visits>| {
                let id = if session.id().is_some() { "an id" } else { "no id" };
                format!("{} {} {id}", session.is_new(), session.count)
            }),
        )
}

/// Asserts that a request to `path` ends the session of count 1, whatever its status.
async fn expect_end(mut browser: Browser, mode: Mode, path: &str, status: StatusCode) {
    browser.get("/add").await.expect(StatusCode::OK, "1");
    let token = browser.token();
    let answer = browser.get(path).await;
    assert_eq!((answer.status, answer.told()), (status, "removed"), "{path}");
    if mode == Mode::Store {
        browser.jar.insert(COOKIE.to_owned(), token);
        browser.get("/read").await.expect(StatusCode::OK, "0");
    }
}

async fn a_logout_left_to_the_layer_is_undone_by_no_discard(mode: Mode) {
    for path in ["/end/discard", "/end/change-and-discard"] {
        expect_end(ending(mode, true), mode, path, StatusCode::OK).await;
    }
}

async fn a_logout_left_to_the_layer_is_undone_by_no_status(mode: Mode) {
    for (path, status) in [
        ("/end/untouched", StatusCode::OK),
        ("/end/missing", StatusCode::NOT_FOUND),
        ("/end/broken", StatusCode::INTERNAL_SERVER_ERROR),
        ("/end/broken-with-session", StatusCode::SERVICE_UNAVAILABLE),
        ("/end/broken-with-discard", StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        expect_end(ending(mode, true), mode, path, status).await;
    }
}

async fn a_logout_that_a_middleware_leaves_after_the_handler_is_committed_at_every_status(
    mode: Mode,
) {
    for (path, status) in [
        ("/end/untouched", StatusCode::OK),
        ("/end/missing", StatusCode::NOT_FOUND),
        ("/end/broken", StatusCode::INTERNAL_SERVER_ERROR),
        ("/end/broken-with-discard", StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        expect_end(ending(mode, false), mode, path, status).await;
    }
}

async fn after_a_logout_left_to_the_layer_the_session_is_fresh(mode: Mode) {
    for (path, body) in [("/end/option", "none"), ("/end/session", "true 0 no id")] {
        let mut browser = ending(mode, true);
        browser.get("/add").await.expect(StatusCode::OK, "1");
        browser.get(path).await.expect(StatusCode::OK, body);
        assert!(!browser.has_session(), "{path}");
    }
}

#[tokio::test]
async fn a_logout_left_to_the_layer_that_fails_is_an_error() {
    async fn ends(mut session: Session<Seat>, request: Request, next: Next) -> Response {
        session.destroy();
        drop(session);
        next.run(request).await
    }
    for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
        let (store, sessions) = seats();
        let mut browser = ada(&sessions).await;
        let app = Router::new()
            .route("/", get(async move || status))
            .layer(from_fn_with_state(sessions.clone(), ends))
            .layer(AutoCommitLayer::new())
            .with_state(sessions.clone());
        store.inject(Operation::Destroy, Fault::Fail);
        let answer = browser.at(&app).get("/").await;
        assert!(answer.status.is_server_error(), "{status}: {answer:?}");
        answer.expect_no_cookie();
        assert!(store.calls(Operation::Destroy) > 0, "{status}");
        store.heal();
        change(&mut browser, |session: &mut Session<Seat>| session.count += 1).await;
        assert_eq!(seen::<Seat>(&browser).await.unwrap().user.as_deref(), Some("ada"));
    }
}

async fn a_logout_by_the_manager_is_undone_by_no_session_of_the_request(mode: Mode) {
    async fn sign_out(
        State(sessions): State<SessionManager<Visits>>,
        request: Request,
    ) -> Result<Response, SessionError> {
        let (mut parts, _) = request.into_parts();
        let mut session = Session::<Visits>::from_request_parts(&mut parts, &sessions).await?;
        session.count += 1;
        let guard = sessions.destroy_in(&parts).await?;
        drop(session);
        Ok((guard, "signed out").into_response())
    }
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let out = Router::new().route("/out", get(sign_out)).layer(AutoCommitLayer::new());
    let mut browser = Browser::new(scripted(sessions.clone()).merge(out.with_state(sessions)));
    browser.get("/add").await;
    assert!(browser.has_session());
    browser.get("/out").await;
    assert!(!browser.has_session());
}
