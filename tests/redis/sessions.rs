//! Whole requests: what a browser is told while Redis is well, hangs or is gone.

use std::time::Instant;

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{RedisStore, Session, SessionError, SessionManager};
use http::{Request, StatusCode, header};
use redis::cmd;
use serde::{Deserialize, Serialize};

use crate::{
    browser,
    support::{Redis, SECOND, or_skip},
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

fn app(store: RedisStore) -> Router {
    let sessions = SessionManager::<Visits>::builder().store(store).build().unwrap();
    Router::new().route("/", get(write)).with_state(sessions)
}

/// Sends a request and returns its status and the cookie it sets.
async fn send(app: &Router, cookie: Option<&str>) -> (StatusCode, Option<String>) {
    let mut request = Request::get("/");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let answer = browser::send(app, request).await;
    (answer.status, answer.pair())
}

#[tokio::test]
async fn a_server_that_is_gone_or_hangs_is_503_without_a_cookie() {
    let mut redis = or_skip!(Redis::start_durable());
    let app = app(redis.store().await);
    let cookie = send(&app, None).await.1.unwrap();

    redis.kill();
    for cookie in [None, Some(&*cookie)] {
        assert_eq!(send(&app, cookie).await, (StatusCode::SERVICE_UNAVAILABLE, None));
    }
    redis.resume();
    assert_eq!(send(&app, Some(&cookie)).await.0, StatusCode::OK);

    redis.signal("STOP");
    let started = Instant::now();
    for cookie in [None, Some(&*cookie)] {
        assert_eq!(send(&app, cookie).await, (StatusCode::SERVICE_UNAVAILABLE, None));
    }
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    redis.signal("CONT");
    assert_eq!(send(&app, Some(&cookie)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_damaged_row_is_a_fresh_session_and_a_newer_one_is_503() {
    let redis = or_skip!(Redis::start());
    let app = app(redis.store().await);
    let cookie = send(&app, None).await.1.unwrap();
    let row = &redis.keys()[0];
    let whole: Vec<u8> = redis.ask(cmd("GET").arg(row));

    redis.ask::<()>(cmd("SET").arg(row).arg(&whole[..30]));
    let (status, fresh) = send(&app, Some(&cookie)).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(fresh.unwrap(), cookie);
    assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row)), whole[..30]);

    let mut newer = whole.clone();
    newer[24] += 1;
    redis.ask::<()>(cmd("SET").arg(row).arg(&newer));
    assert_eq!(send(&app, Some(&cookie)).await, (StatusCode::SERVICE_UNAVAILABLE, None));
    assert_eq!(redis.ask::<Vec<u8>>(cmd("GET").arg(row)), newer);
}
