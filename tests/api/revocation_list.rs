//! A revocation list that is full revokes loudly or not at all.

use axum_typed_session::{
    MemoryStore,
    testing::{ManualClock, TestSession},
};
use http::{Request, StatusCode};

use crate::support::{Visits, cookie_mode, scripted, send};

#[tokio::test]
async fn a_full_memory_store_forgets_no_revocation() {
    let clock = ManualClock::new();
    let list = MemoryStore::builder().max_bytes(2000).clock(clock.clone());
    let sessions = cookie_mode(&clock).revocations(list.build()).build().unwrap();
    let app = scripted(sessions.clone());
    let (mut ended, mut refused) = (Vec::new(), None);
    // More than fit.
    for _ in 0..10 {
        let session = TestSession::start(&sessions, Visits { count: 1 }).await.unwrap();
        let (name, value) = session.header();
        let answer = send(&app, Request::post("/destroy").header(name, value)).await;
        if answer.status == StatusCode::OK {
            ended.push(session);
        } else {
            refused = Some((session, answer));
        }
    }
    assert!(ended.len() > 1, "the list holds some");
    for session in &ended {
        assert_eq!(session.data().await.unwrap(), None, "a revoked cookie came back");
    }
    let (session, answer) = refused.expect("a logout that the full list refused");
    answer.expect_status(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    // Nobody was told that it is logged out, and it is not.
    assert_eq!(session.data().await.unwrap(), Some(Visits { count: 1 }));
}
