//! Whole requests: what a browser is told while memcached is well, hangs, forgets or is gone.

use std::time::Instant;

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{
    Key, MemcachedStore, Session, SessionError, SessionManager, testing::Gate,
};
use http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    browser,
    common::logs::Log,
    support::{Memcached, SECOND, created, or_skip, record},
};

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
}

async fn write(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = session.count.to_string();
    Ok((session.commit().await?, body))
}

fn app(store: MemcachedStore, gate: &Gate) -> Router {
    let sessions = SessionManager::<Visits>::builder().store(store).build().unwrap();
    let gate = gate.clone();
    let slow = async move |mut session: Session<Visits>| {
        gate.pass().await;
        session.count += 1;
        Ok::<_, SessionError>((session.commit().await?, ""))
    };
    Router::new().route("/", get(write)).route("/slow", get(slow)).with_state(sessions)
}

/// Sends a request and returns its status, the cookie it sets and the body.
async fn send(
    app: &Router,
    path: &str,
    cookie: Option<&str>,
) -> (StatusCode, Option<String>, String) {
    let mut request = Request::get(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let answer = browser::send(app, request).await;
    let pair = answer.pair();
    (answer.status, pair, answer.body)
}

#[test]
fn build_warns_of_a_list_of_ended_ids_that_may_be_evicted() {
    let list = MemcachedStore::connect_lazy("memcached://127.0.0.1").unwrap();
    let builder = SessionManager::<Visits>::builder().keys(Key::generate()).revocations(list);
    let log = Log::start();
    builder.build().unwrap();
    let lines = log.take().concat();
    assert!(lines.contains("a restart loses the list"), "{lines}");
}

const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn a_restart_ends_all_sessions_and_new_ones_begin() {
    let mut memcached = or_skip!(Memcached::start());
    let app = app(memcached.store().await, &Gate::new());
    for _ in 0..3 {
        let old = send(&app, "/", None).await.1.unwrap();
        assert_eq!(send(&app, "/", Some(&old)).await.2, "2");
        memcached.kill();
        for cookie in [None, Some(&*old)] {
            let (status, cookie, _) = send(&app, "/", cookie).await;
            assert_eq!((status, cookie), (DOWN, None));
        }
        memcached.resume();
        let (status, fresh, body) = send(&app, "/", Some(&old)).await;
        assert_eq!((status, &*body), (StatusCode::OK, "1"));
        let fresh = fresh.unwrap();
        assert_ne!(fresh, old);
        assert_eq!(send(&app, "/", Some(&fresh)).await.2, "2");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_503_in_time_and_the_session_is_there_afterwards() {
    let memcached = or_skip!(Memcached::start());
    let app = app(memcached.store().await, &Gate::new());
    let cookie = send(&app, "/", None).await.1.unwrap();
    memcached.hang();
    for cookie in [None, Some(&*cookie)] {
        let started = Instant::now();
        let (status, cookie, _) = send(&app, "/", cookie).await;
        assert_eq!((status, cookie), (DOWN, None));
        assert!(started.elapsed() < 3 * SECOND, "{:?}", started.elapsed());
    }
    memcached.go_on();
    let (status, _, body) = send(&app, "/", Some(&cookie)).await;
    assert_eq!((status, &*body), (StatusCode::OK, "2"));
}

#[tokio::test]
async fn a_session_that_is_evicted_during_a_request_is_not_brought_back() {
    let memcached = or_skip!(Memcached::start_with(&["-m", "2", "-I", "512k"]));
    let (store, gate) = (memcached.store().await, Gate::new());
    let app = app(store.clone(), &gate);
    let cookie = send(&app, "/", None).await.1.unwrap();
    let request = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { send(&app, "/slow", Some(&cookie)).await }
    });
    gate.reached(1).await;
    // Rows of the same size class push the session out.
    let evictions = || memcached.stat("", "evictions");
    while evictions() == 0 {
        for _ in 0..1_000 {
            let row = record().payload([b'x'; 11]).build();
            created(&store, &row).await;
        }
    }
    gate.open();
    let (status, told, _) = request.await.unwrap();
    assert_eq!((status, told), (StatusCode::CONFLICT, None));
    let (status, fresh, body) = send(&app, "/", Some(&cookie)).await;
    assert_eq!((status, &*body), (StatusCode::OK, "1"));
    assert_ne!(fresh.unwrap(), cookie);
}
