//! Requests that bring their handler along, alone, side by side and in every order.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{FromRequestParts as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use axum_typed_session::{Session, SessionCommit, SessionError, SessionManager, testing::Gate};
use futures_util::{
    future::{BoxFuture, MaybeDone, join, maybe_done},
    poll,
};
use http::request::Parts;
use serde::Serialize;
use tokio::{pin, task::JoinHandle};

use crate::support::{Answer, Browser};

/// A request in its handler, which may extract as many sessions as it likes.
pub struct Visit<T: Send + Sync + 'static> {
    pub sessions: SessionManager<T>,
    parts: Parts,
}

impl<T: Send + Sync + 'static> Visit<T> {
    pub async fn session(&mut self) -> Result<Session<T>, SessionError> {
        Session::from_request_parts(&mut self.parts, &self.sessions).await
    }
}

type HandlerBody<T> = dyn FnOnce(Visit<T>) -> BoxFuture<'static, Handled> + Send;
type Handled = Result<Response, SessionError>;

/// A handler for one request.
pub struct Handler<T: Send + Sync + 'static>(Arc<Mutex<Option<Box<HandlerBody<T>>>>>);

impl<T: Send + Sync + 'static> Handler<T> {
    pub fn new<F>(body: impl FnOnce(Visit<T>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Handled> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|visit| Box::pin(body(visit)))))))
    }
}

impl<T: Send + Sync + 'static> Clone for Handler<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// An app that does with a `POST` what its [`Handler`] says, and shows the session as JSON.
pub fn visited<T>(sessions: SessionManager<T>) -> Router
where
    T: Serialize + Clone + Send + Sync + 'static,
{
    let handle = |State(sessions): State<SessionManager<T>>, request: Request| async move {
        let (mut parts, _) = request.into_parts();
        let Handler(body) = parts.extensions.remove::<Handler<T>>().expect("a handler");
        let body = body.lock().unwrap().take().expect("a handler for one request");
        body(Visit { sessions, parts }).await
    };
    let show = |session: Option<Session<T>>| async move {
        let data = Json(session.as_deref().cloned());
        let guard = match session {
            Some(session) => Some(session.commit().await?),
            None => None,
        };
        Ok::<_, SessionError>(match guard {
            Some(guard) => (guard, data).into_response(),
            None => data.into_response(),
        })
    };
    Router::new().route("/", post(handle).get(show)).with_state(sessions)
}

/// Sends a request with its handler.
pub async fn run<T, F>(
    browser: &mut Browser,
    body: impl FnOnce(Visit<T>) -> F + Send + 'static,
) -> Answer
where
    T: Send + Sync + 'static,
    F: Future<Output = Handled> + Send + 'static,
{
    browser.send_with(Request::post("/"), Handler::new(body)).await
}

/// Sends a request that changes its session, or says what it wants, and commits.
pub async fn change<T: Send + Sync + 'static>(
    browser: &mut Browser,
    change: impl FnOnce(&mut Session<T>) + Send + 'static,
) -> Answer {
    run(browser, async move |mut visit: Visit<T>| {
        let mut session = visit.session().await?;
        change(&mut session);
        Ok(session.commit().await?.into_response())
    })
    .await
}

/// Sends a request on a task of its own; returns the answer, and the browser that got it.
pub fn spawned<T, F>(
    browser: &Browser,
    body: impl FnOnce(Visit<T>) -> F + Send + 'static,
) -> JoinHandle<(Answer, Browser)>
where
    T: Send + Sync + 'static,
    F: Future<Output = Handled> + Send + 'static,
{
    let mut browser = browser.clone();
    tokio::spawn(async move {
        let answer = run(&mut browser, body).await;
        (answer, browser)
    })
}

/// Lets `slow` load its session, sends `quick` meanwhile, and then lets `slow` go on and commit.
pub async fn overlap<T: Send + Sync + 'static>(
    browser: &Browser,
    slow: impl FnOnce(&mut Session<T>) + Send + 'static,
    quick: impl AsyncFnOnce(&mut Browser),
) -> Overlapped {
    let gate = Gate::new();
    let waiting = gate.clone();
    let slow = spawned(browser, async move |mut visit: Visit<T>| {
        let mut session = visit.session().await?;
        waiting.pass().await;
        slow(&mut session);
        Ok(session.commit().await?.into_response())
    });
    gate.reached(1).await;
    let mut quick_browser = browser.clone();
    quick(&mut quick_browser).await;
    gate.open();
    let (slow, slow_browser) = slow.await.unwrap();
    Overlapped { slow, slow_browser, quick_browser }
}

/// What came of two requests, the one within the other.
pub struct Overlapped {
    pub slow: Answer,
    pub slow_browser: Browser,
    pub quick_browser: Browser,
}

/// What the browser's session holds; `None` for a stranger.
pub async fn seen<T: serde::de::DeserializeOwned>(browser: &Browser) -> Option<T> {
    let answer = browser.clone().get("/").await;
    assert!(answer.status.is_success(), "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// A response that carries these guards, in this order.
pub fn with_guards(guards: impl IntoIterator<Item = SessionCommit>) -> Response {
    let join = |response, guard| (guard, response).into_response();
    guards.into_iter().fold(().into_response(), join)
}

/// Waits until whoever can go on has gone on.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Starts `other` once `held` has come to the gate, and opens that when `other` can get no further.
pub async fn meanwhile<A, B>(
    gate: &Gate,
    held: impl Future<Output = A>,
    other: impl Future<Output = B>,
) -> (A, B) {
    let other = async {
        gate.reached(1).await;
        other.await
    };
    let open = async {
        gate.reached(1).await;
        settle().await;
        gate.open();
    };
    let (held, other, ()) = tokio::join!(held, other, open);
    (held, other)
}

/// An order in which two futures take turns; clones are the same order.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<Order>>);

#[derive(Default)]
struct Order {
    /// For each turn whether it is the second future's.
    turns: Vec<bool>,
    next: usize,
}

/// After so many turns the two run side by side.
const MOST_TURNS: usize = 14;

impl Turns {
    /// Lets two futures take turns, a poll each, and returns what both came to.
    pub async fn race<A, B>(
        &self,
        one: impl Future<Output = A>,
        other: impl Future<Output = B>,
    ) -> (A, B) {
        let (one, other) = (maybe_done(one), maybe_done(other));
        pin!(one, other);
        while matches!((&*one, &*other), (MaybeDone::Future(_), MaybeDone::Future(_))) {
            let Some(is_others) = self.turn() else {
                break;
            };
            let _ = if is_others { poll!(&mut other) } else { poll!(&mut one) };
            tokio::task::yield_now().await;
        }
        join(&mut one, &mut other).await;
        (one.take_output().unwrap(), other.take_output().unwrap())
    }

    fn turn(&self) -> Option<bool> {
        let mut order = self.0.lock().unwrap();
        if order.next == MOST_TURNS {
            return None;
        }
        let next = order.next;
        order.next += 1;
        if next == order.turns.len() {
            order.turns.push(false);
        }
        Some(order.turns[next])
    }

    /// Goes on to the next order; `false` if this was the last.
    fn advance(&self) -> bool {
        let mut order = self.0.lock().unwrap();
        order.next = 0;
        while order.turns.pop_if(|is_others| *is_others).is_some() {}
        match order.turns.last_mut() {
            Some(is_others) => {
                *is_others = true;
                true
            }
            None => false,
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = self.0.lock().unwrap();
        order.turns.iter().try_for_each(|is_others| f.write_str(if *is_others { "B" } else { "A" }))
    }
}

/// Runs a case once for every order in which the two futures it races can take turns.
pub async fn in_every_order(mut case: impl AsyncFnMut(&Turns)) {
    let turns = Turns::default();
    let mut orders = 0;
    loop {
        case(&turns).await;
        orders += 1;
        if !turns.advance() {
            break;
        }
    }
    assert!(orders > 2, "the futures never waited");
}
