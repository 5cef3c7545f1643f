//! Tasks of one request that share its session, in random orders of all that they do with locks and atomic numbers.
//!
//! Each task has a session that the handler extracted. They run on as many threads as shuttle likes, under the layer.

mod orders;

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, Request, State},
    http::{StatusCode, header},
    response::Response,
    routing::{get, post},
};
use axum_typed_session::{AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use shuttle::future::{self, JoinHandle, block_on};
use tower::ServiceExt as _;

use self::orders::{Still, in_random_orders};

const COOKIE: &str = "__Host-session";

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Page {
    /// The session is the one that arrived, under whatever id.
    arrived: bool,
    one: bool,
    two: bool,
    three: bool,
}

impl Page {
    fn field(&mut self, number: usize) -> &mut bool {
        [&mut self.one, &mut self.two, &mut self.three][number]
    }
}

/// What a task does with its session. Each task has a field of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Read,
    Commit,
    /// The layer commits.
    Drop,
    Update,
    Regenerate,
    Destroy,
    DropDestroy,
}

async fn act(mut session: Session<Page>, act: Act, number: usize) -> Result<(), SessionError> {
    match act {
        Act::Read => {}
        Act::Commit | Act::Drop => *session.field(number) = true,
        Act::Regenerate => {
            *session.field(number) = true;
            session.regenerate();
        }
        Act::Update => return session.update(|page| *page.field(number) = true).await,
        Act::Destroy | Act::DropDestroy => session.destroy(),
    }
    if !matches!(act, Act::Drop | Act::DropDestroy) {
        let _guard = session.commit().await?;
    }
    Ok(())
}

/// What came of an act, and whether its session began after the end of the one that arrived.
#[derive(Debug)]
struct Outcome {
    is_fresh: bool,
    result: Result<(), SessionError>,
}

type Outcomes = Arc<Mutex<Vec<Option<Outcome>>>>;

/// A node whose `POST` runs the acts, each in a task, and waits for so many of them.
struct Node {
    app: Router,
    sessions: SessionManager<Page>,
    store: MemoryStore,
    acts: Vec<Act>,
    outcomes: Outcomes,
}

impl Node {
    fn new(acts: &[Act], awaited: usize) -> Self {
        let store = MemoryStore::builder().clock(Still).build();
        let sessions = SessionManager::builder().store(store.clone()).clock(Still);
        let sessions = sessions.build().unwrap();
        let outcomes = Outcomes::default();
        outcomes.lock().unwrap().resize_with(acts.len(), || None);
        let (acts, told) = (acts.to_vec(), outcomes.clone());
        let handler = {
            let acts = acts.clone();
            move |State(sessions): State<SessionManager<Page>>, request: Request| {
                handle(sessions, request, acts.clone(), told.clone(), awaited)
            }
        };
        let begin = async |mut session: Session<Page>| session.arrived = true;
        let app = Router::new()
            .route("/", post(handler))
            .route("/begin", get(begin))
            .layer(AutoCommitLayer::new())
            .with_state(sessions.clone());
        Self { app, sessions, store, acts, outcomes }
    }

    async fn send(&self, request: axum::http::request::Builder) -> Response {
        let response = self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.unwrap().into_parts();
        Response::from_parts(parts, Body::from(body.collect().await.unwrap().to_bytes()))
    }

    /// Returns what a request with the cookie sees; `None` if its session has ended.
    async fn seen(&self, cookie: &str) -> Option<Page> {
        let request = Request::get("/").header(header::COOKIE, cookie).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let session = Session::from_request_parts(&mut parts, &self.sessions).await.unwrap();
        let page = (!session.is_new()).then(|| Page::clone(&session));
        session.discard();
        page
    }
}

async fn handle(
    sessions: SessionManager<Page>,
    request: Request,
    acts: Vec<Act>,
    outcomes: Outcomes,
    awaited: usize,
) {
    let (mut parts, _) = request.into_parts();
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    for (number, task) in acts.into_iter().enumerate() {
        // While the tasks before are under way, so some see what these did.
        let Ok(session) = Session::from_request_parts(&mut parts, &sessions).await else {
            panic!("the store is in memory");
        };
        let outcomes = outcomes.clone();
        tasks.push(future::spawn(async move {
            let is_fresh = !session.arrived;
            let result = act(session, task, number).await;
            outcomes.lock().unwrap()[number] = Some(Outcome { is_fresh, result });
        }));
    }
    for task in tasks.into_iter().take(awaited) {
        task.await.unwrap();
    }
}

fn set_cookie(response: &Response) -> Option<String> {
    let cookies: Vec<_> = response.headers().get_all(header::SET_COOKIE).iter().collect();
    assert!(cookies.len() <= 1, "{cookies:?}");
    let cookie = cookies.first()?.to_str().unwrap();
    assert!(cookie.starts_with(COOKIE));
    Some(cookie.to_owned())
}

/// Runs a request with these acts, and checks what is left.
async fn check(acts: &[Act], awaited: usize) {
    let node = Node::new(acts, awaited);
    let begun = node.send(Request::get("/begin")).await;
    let old = set_cookie(&begun).unwrap().split(';').next().unwrap().to_owned();
    let response = node.send(Request::post("/").header(header::COOKIE, &old)).await;
    let status = response.status();
    // Tasks that outlive the response end too.
    while node.outcomes.lock().unwrap().iter().any(Option::is_none) {
        future::yield_now().await;
    }
    let outcomes = std::mem::take(&mut *node.outcomes.lock().unwrap());
    let at = format!("{:?}: {outcomes:?}, {status}", node.acts);

    let told = set_cookie(&response);
    let is_removed = told.as_ref().is_some_and(|cookie| cookie.contains("Max-Age=0;"));
    let new = told.as_deref().and_then(|cookie| cookie.split(';').next()).unwrap_or(&old);
    let page = if is_removed { None } else { node.seen(new).await };
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    let has_landed = |act: Act| {
        let mut acted = acts.iter().zip(&outcomes).filter(|(done, _)| **done == act);
        acted.any(|(_, outcome)| outcome.result.is_ok() && !outcome.is_fresh)
    };
    // What a dropped session asks of the layer comes in time if the handler waits for the task.
    let waits = awaited == acts.len();
    let is_ended = has_landed(Act::Destroy) || (waits && has_landed(Act::DropDestroy));
    if is_ended {
        assert_eq!(node.seen(&old).await, None, "{at}");
        assert!(told.is_some(), "{at}");
    }
    for (number, (act, Outcome { is_fresh, result })) in acts.iter().zip(&outcomes).enumerate() {
        let changes = !matches!(act, Act::Read | Act::Destroy | Act::DropDestroy);
        let has_it = page.clone().is_some_and(|mut page| *page.field(number));
        match result {
            Ok(()) if *act == Act::Drop && !waits => {}
            Ok(()) => assert_eq!(has_it, changes && (*is_fresh || !is_ended), "{at}"),
            // Refused, since it belongs to a session that ended.
            Err(SessionError::Gone | SessionError::Conflict) => {
                let may_end = acts.contains(&Act::Destroy) || acts.contains(&Act::DropDestroy);
                assert!(changes && may_end && !has_it, "{at}");
            }
            Err(SessionError::Closed) => assert!(!waits && !has_it, "{at}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    if waits && !is_ended {
        assert_eq!(status, StatusCode::OK, "{at}");
    }
    if has_landed(Act::Regenerate) && !is_ended {
        assert!(told.is_some() && !is_removed, "{at}");
        assert_eq!(node.seen(&old).await, None, "{at}");
    }
    // Replaced ids are remembered beside the session.
    let replaced = acts.iter().filter(|act| **act == Act::Regenerate).count();
    assert!(node.store.len() <= 1 + replaced, "{at}");
}

fn in_random_orders_of(acts: &'static [Act], awaited: usize) {
    in_random_orders(move || block_on(check(acts, awaited)));
}

#[test]
fn all_changes_of_a_request_land() {
    in_random_orders_of(&[Act::Commit, Act::Drop, Act::Commit], 3);
    in_random_orders_of(&[Act::Drop, Act::Commit, Act::Drop], 3);
    in_random_orders_of(&[Act::Drop, Act::Drop, Act::Read], 3);
}

#[test]
fn an_update_lands_beside_other_changes() {
    in_random_orders_of(&[Act::Update, Act::Commit, Act::Drop], 3);
    in_random_orders_of(&[Act::Drop, Act::Update, Act::Update], 3);
}

#[test]
fn a_new_id_keeps_the_changes_of_the_request() {
    in_random_orders_of(&[Act::Regenerate, Act::Commit, Act::Drop], 3);
    in_random_orders_of(&[Act::Drop, Act::Regenerate, Act::Regenerate], 3);
}

#[test]
fn the_end_of_a_session_is_final() {
    in_random_orders_of(&[Act::Commit, Act::Destroy, Act::Drop], 3);
    in_random_orders_of(&[Act::DropDestroy, Act::Commit, Act::Drop], 3);
    in_random_orders_of(&[Act::Regenerate, Act::Destroy, Act::Update], 3);
    in_random_orders_of(&[Act::Commit, Act::DropDestroy, Act::Regenerate], 3);
}

#[test]
fn a_task_that_outlives_the_response_lands_and_is_told_or_does_nothing() {
    in_random_orders_of(&[Act::Commit, Act::Commit, Act::Read], 1);
    in_random_orders_of(&[Act::Commit, Act::Regenerate, Act::Drop], 1);
    in_random_orders_of(&[Act::Read, Act::Destroy, Act::Commit], 1);
}
