//! Whole requests: what a browser is told while Redis is well, hangs or is gone.

use std::time::Instant;

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use axum_typed_session::{RedisStore, Session, SessionError, SessionManager};
use http::{Request, StatusCode, header};
use redis::cmd;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use crate::support::{Redis, SECOND, or_skip, shared_cluster};

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
    user: Option<String>,
}

async fn write(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = session.count.to_string();
    Ok((session.commit().await?, body))
}

async fn update(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    let count = session.update(|visits| {
        visits.count += 1;
        visits.count
    });
    let body = count.await?.to_string();
    Ok((session.commit().await?, body))
}

async fn login(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.regenerate();
    session.user = Some("ada".to_owned());
    session.commit().await
}

fn app(store: RedisStore) -> (Router, SessionManager<Visits>) {
    let sessions = SessionManager::<Visits>::builder()
        .store(store)
        .owner(|visits| visits.user.clone())
        .build()
        .unwrap();
    let app = Router::new()
        .route("/", get(write))
        .route("/update", get(update))
        .route("/login", get(login))
        .with_state(sessions.clone());
    (app, sessions)
}

/// Sends a request and returns its status and the cookie it sets.
async fn send(app: &Router, path: &str, cookie: Option<&str>) -> (StatusCode, Option<String>) {
    let mut request = Request::get(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let set = response.headers().get(header::SET_COOKIE);
    let cookie = set.map(|set| set.to_str().unwrap().split(';').next().unwrap().to_owned());
    (response.status(), cookie)
}

async fn hundred_updates_lose_none(store: RedisStore) {
    let (app, sessions) = app(store);
    let cookie = send(&app, "/", None).await.1.unwrap();
    let login = send(&app, "/login", Some(&cookie)).await;
    assert_eq!(login.0, StatusCode::OK);
    let cookie = login.1.unwrap();
    let started = Instant::now();
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (app, cookie) = (app.clone(), cookie.clone());
            tokio::spawn(async move { send(&app, "/update", Some(&cookie)).await.0 })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    println!(
        "100 concurrent updates of one session took {:?}",
        started.elapsed()
    );
    let found = sessions.sessions_of("ada").await.unwrap();
    let counts: Vec<_> = found.iter().map(|session| session.count).collect();
    assert_eq!(counts, [101]);
    assert_eq!(sessions.destroy_all_of("ada").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_updates_lose_none() {
    let redis = or_skip!(Redis::start());
    hundred_updates_lose_none(redis.store().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_updates_lose_none_on_a_cluster() {
    let cluster = or_skip!(shared_cluster());
    hundred_updates_lose_none(cluster.store().await).await;
}

#[tokio::test]
async fn a_server_that_is_gone_or_hangs_is_503_without_a_cookie() {
    let mut redis = or_skip!(Redis::start_durable());
    let (app, _sessions) = app(redis.store().await);
    let cookie = send(&app, "/", None).await.1.unwrap();

    redis.kill();
    for cookie in [None, Some(&*cookie)] {
        assert_eq!(
            send(&app, "/", cookie).await,
            (StatusCode::SERVICE_UNAVAILABLE, None)
        );
    }
    redis.resume();
    assert_eq!(send(&app, "/", Some(&cookie)).await.0, StatusCode::OK);

    redis.signal("STOP");
    let started = Instant::now();
    for cookie in [None, Some(&*cookie)] {
        assert_eq!(
            send(&app, "/", cookie).await,
            (StatusCode::SERVICE_UNAVAILABLE, None)
        );
    }
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    redis.signal("CONT");
    assert_eq!(send(&app, "/", Some(&cookie)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_damaged_row_is_a_fresh_session_and_a_newer_one_is_503() {
    let redis = or_skip!(Redis::start());
    let (app, _sessions) = app(redis.store().await);
    let cookie = send(&app, "/", None).await.1.unwrap();
    let row = &redis.keys()[0];
    let whole: Vec<u8> = redis.ask(cmd("GET").arg(row));

    redis.ask::<()>(cmd("SET").arg(row).arg(&whole[..30]));
    let (status, fresh) = send(&app, "/", Some(&cookie)).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(fresh.unwrap(), cookie);
    assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row)), whole[..30]);

    let mut newer = whole.clone();
    newer[24] = 2;
    redis.ask::<()>(cmd("SET").arg(row).arg(&newer));
    assert_eq!(
        send(&app, "/", Some(&cookie)).await,
        (StatusCode::SERVICE_UNAVAILABLE, None)
    );
    assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row)), newer);
}
