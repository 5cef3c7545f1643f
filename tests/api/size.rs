//! What does not fit fails before anything is sent.

use axum_typed_session::{SessionEventKind, testing::ManualClock};
use http::{Request, StatusCode, header};

use crate::{
    logins::{app, issue_cookie, logins},
    support::{Browser, COOKIE, EventLog, send},
};

/// The bytes that JSON puts around a note.
const AROUND: usize = r#"{"user":null,"note":""}"#.len();

async fn post_note(browser: &mut Browser, length: usize) -> crate::support::Answer {
    browser.post(&format!("/note?{}", "n".repeat(length))).await
}

#[tokio::test]
async fn the_largest_payload_that_fits_is_sent_and_one_byte_more_is_refused() {
    for signed in [false, true] {
        let (log, manager) = (EventLog::default(), logins(&ManualClock::new()));
        let manager = manager.on_event(log.hook());
        let mut browser = Browser::new(app(if signed { manager.signed(true) } else { manager }));
        let mut length = 2800;
        let refused = loop {
            let answer = post_note(&mut browser, length).await;
            if answer.status != StatusCode::OK {
                break answer;
            }
            assert!(COOKIE.len() + answer.token().len() <= 4096);
            length += 1;
        };
        assert_eq!(COOKIE.len() + browser.token().len(), 4096, "no byte is wasted");
        refused.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
        let events = log.take_kinds();
        let too_large = (SessionEventKind::TooLarge { actual: 4097, limit: 4096 }, None);
        assert_eq!(events.last(), Some(&too_large));
        let kept = browser.get("/").await;
        assert_eq!(kept.body.len(), length - 1, "the old cookie stays valid");

        post_note(&mut browser, length + 300).await.expect_no_cookie();
        // 300 bytes more are 400 characters more.
        let too_large = (SessionEventKind::TooLarge { actual: 4497, limit: 4096 }, None);
        assert_eq!(log.take_kinds(), [too_large]);
    }
}

#[tokio::test]
async fn an_oversize_new_session_sends_nothing() {
    let mut browser = Browser::new(app(logins(&ManualClock::new())));
    let answer = post_note(&mut browser, 4000).await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
}

#[tokio::test]
async fn an_oversize_session_keeps_its_id_when_it_regenerates() {
    let log = EventLog::default();
    let grow = |login: &mut crate::logins::Login| login.note = "n".repeat(4000);
    let clock = ManualClock::new();
    let cookie = issue_cookie(&app(logins(&clock)), "small").await;
    let app = app(logins(&clock).before_save(grow).on_event(log.hook()));
    let request = Request::post("/regenerate").header(header::COOKIE, cookie);
    let answer = send(&app, request).await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    assert_eq!(log.take(), ["too_large"]);
}

#[tokio::test]
async fn max_payload_bounds_the_encoded_data() {
    let log = EventLog::default();
    let manager = logins(&ManualClock::new()).max_payload(AROUND + 10);
    let mut browser = Browser::new(app(manager.on_event(log.hook())));
    post_note(&mut browser, 10).await.expect(StatusCode::OK, "nnnnnnnnnn");
    log.take();
    let answer = post_note(&mut browser, 11).await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    let (actual, limit) = (AROUND + 11, AROUND + 10);
    assert_eq!(log.take_kinds(), [(SessionEventKind::TooLarge { actual, limit }, None)]);
    browser.get("/").await.expect(StatusCode::OK, "nnnnnnnnnn");
}
