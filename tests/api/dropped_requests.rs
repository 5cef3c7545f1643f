//! A request that is dropped halfway, as when its client goes away, leaves nothing half done.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, routing::get};
use axum_typed_session::{AutoCommitLayer, Session, testing::ManualClock};
use http::{Request, StatusCode, header};
use tower::ServiceExt as _;

use crate::support::{Browser, COOKIE, Log, ProbeStore, SECOND, Visits, cookie_mode, scripted};

/// Polls a request so often and then drops it; says whether it was answered before that.
fn answered_within(polls: u32, app: &Router, path: &str, token: &str) -> bool {
    let request = Request::get(path).header(header::COOKIE, format!("{COOKIE}={token}"));
    let request = request.body(Body::empty()).unwrap();
    let mut answer = pin!(app.clone().oneshot(request));
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).any(|_| matches!(answer.as_mut().poll(&mut context), Poll::Ready(_)))
}

/// Drops a request at each of its await points, with a fresh session of count 1 each time, and hands
/// what is left to `check`; returns at how many points.
async fn drop_everywhere(
    path: &str,
    make: impl Fn() -> Router,
    mut check: impl AsyncFnMut(Browser),
) -> u32 {
    for polls in 1.. {
        let app = make();
        let mut browser = Browser::new(app.clone());
        browser.get("/add").await.expect(StatusCode::OK, "1");
        if answered_within(polls, &app, path, &browser.token()) {
            return polls - 1;
        }
        check(browser).await;
    }
    unreachable!("a request that is never answered")
}

const SCRIPTS: [&str; 5] = [
    "/yield/add/yield/commit/yield/add/yield",
    "/yield/destroy/yield/commit/yield",
    "/yield/regenerate/commit/yield",
    "/yield/reset/regenerate/commit/yield",
    "/yield/longer/commit/yield",
];

#[tokio::test]
async fn in_cookie_mode_the_session_is_as_it_was() {
    let app = || scripted(cookie_mode(&ManualClock::new()).build().unwrap());
    for script in SCRIPTS {
        let points = drop_everywhere(script, app, async |mut browser| {
            browser.get("/read").await.expect(StatusCode::OK, "1");
            browser.get("/add").await.expect(StatusCode::OK, "2");
        });
        assert!(points.await >= 2, "{script}");
    }
}

#[tokio::test]
async fn with_revocations_the_session_is_as_it_was_or_wholly_ended() {
    for script in SCRIPTS {
        let clock = ManualClock::new();
        let list = ProbeStore::new(&clock);
        let app = || {
            let sessions = cookie_mode(&clock).revocations(list.clone());
            scripted(sessions.build().unwrap())
        };
        // Another idle timeout means a new id.
        let ends = ["destroy", "regenerate", "longer"].iter().any(|step| script.contains(step));
        let mut ended = 0;
        let points = drop_everywhere(script, app, async |mut browser| {
            let count = browser.get("/read").await.body;
            if count == "0" && ends {
                ended += 1;
                // Past the minute in which a replaced id is refused, the client starts anew.
                clock.advance(60 * SECOND);
                browser.get("/add").await.expect(StatusCode::OK, "1");
            } else {
                assert_eq!(count, "1", "{script}");
                browser.get("/add").await.expect(StatusCode::OK, "2");
            }
        })
        .await;
        assert!(points >= 4 && (ended > 0) == ends, "{script}: {ended} of {points}");
    }
}

#[tokio::test]
async fn under_the_layer_nothing_is_committed_and_nothing_warns() {
    async fn add(mut session: Session<Visits>) -> String {
        session.count += 1;
        let body = session.count.to_string();
        tokio::task::yield_now().await;
        drop(session);
        tokio::task::yield_now().await;
        body
    }
    let clock = ManualClock::new();
    let list = ProbeStore::new(&clock);
    let app = || {
        let sessions = cookie_mode(&clock).revocations(list.clone()).build();
        let routes = Router::new().route("/add", get(add));
        routes.layer(AutoCommitLayer::new()).with_state(sessions.unwrap())
    };
    let log = Log::start();
    let points = drop_everywhere("/add", app, async |mut browser| {
        browser.get("/add").await.expect(StatusCode::OK, "2");
    });
    assert!(points.await >= 4);
    assert_eq!(log.take(), <[&str; 0]>::default());
}
