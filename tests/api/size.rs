//! What does not fit fails before anything is sent.

use axum::{
    Router,
    extract::FromRef,
    response::{AppendHeaders, IntoResponse as _, Response},
    routing::post,
};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionError, SessionEventKind, SessionManager,
    SessionManagerBuilder, Transport, cookie::Cookie, testing::ManualClock,
};
use http::{Request, StatusCode, header};

use crate::{
    logins::{Login, app, issue, issue_cookie, logins},
    support::{Browser, COOKIE, EventLog, Log, Mode, send},
};

/// The bytes that JSON puts around a note.
const AROUND: usize = r#"{"user":null,"note":""}"#.len();

/// The length of a note that makes so many bytes of JSON.
const fn note_of(bytes: usize) -> usize {
    bytes - AROUND
}

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
    let grow = |login: &mut Login| login.note = "n".repeat(4000);
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

#[tokio::test]
async fn max_cookie_bytes_bounds_name_and_value() {
    let log = EventLog::default();
    let manager = logins(&ManualClock::new()).max_cookie_bytes(1000);
    let mut browser = Browser::new(app(manager.on_event(log.hook())));
    let answer = post_note(&mut browser, note_of(647)).await;
    assert_eq!(COOKIE.len() + answer.token().len(), 1000);
    log.take();
    let answer = post_note(&mut browser, note_of(648)).await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    let too_large = SessionEventKind::TooLarge { actual: 1001, limit: 1000 };
    assert_eq!(log.take_kinds(), [(too_large, None)]);
    assert_eq!(browser.get("/").await.body.len(), note_of(647), "the old cookie stays valid");
}

#[tokio::test]
async fn the_smallest_limit_that_build_accepts_holds_an_empty_session() {
    let mut browser = Browser::new(app(logins(&ManualClock::new()).max_cookie_bytes(168)));
    assert_eq!(COOKIE.len() + browser.post("/save").await.token().len(), 168);
    let answer = post_note(&mut browser, 1).await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
}

#[tokio::test]
async fn a_lower_limit_refuses_no_cookie_that_is_out_already() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(app(logins(&clock)));
    post_note(&mut browser, 2000).await.expect_status(StatusCode::OK);
    let mut browser = browser.at(&app(logins(&clock).max_cookie_bytes(1000)));
    assert_eq!(browser.get("/").await.body.len(), 2000);
    let answer = browser.post("/save").await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    post_note(&mut browser, 10).await.expect_status(StatusCode::OK);
}

#[tokio::test]
async fn max_cookie_bytes_counts_the_name_and_value_of_a_header_too() {
    let manager = logins(&ManualClock::new()).transport(Transport::header("x-session"));
    let app = app(manager.max_cookie_bytes(1000));
    let token = issue(&app, &"n".repeat(600)).await.header("x-session").unwrap();
    assert!("x-session".len() + token.len() <= 1000);
    let answer = send(&app, Request::post(format!("/note?{}", "n".repeat(700)))).await;
    let answer = answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("x-session"), None);
}

/// The one line that was written, which names the ways out.
#[track_caller]
fn expect_warning(log: &Log, bytes: usize) {
    let lines = log.take();
    let [line] = &lines[..] else { panic!("expected one line, got {lines:?}") };
    for part in [
        "WARN",
        "proxy_buffer_size",
        "less data in the session",
        "`.store(..)`",
        "`.max_cookie_bytes(..)`",
        &format!("take {bytes} bytes"),
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(!line.contains("nnn"), "{line}");
}

#[track_caller]
fn expect_silence(log: &Log, when: &str) {
    assert_eq!(log.take(), <[&str; 0]>::default(), "{when}");
}

#[tokio::test]
async fn cookies_that_nearly_fill_nginx_s_buffer_are_warned_of_once_for_each_manager() {
    for _ in 0..2 {
        let mut browser = Browser::new(app(logins(&ManualClock::new())));
        let log = Log::start();
        post_note(&mut browser, note_of(2_723)).await.expect_status(StatusCode::OK);
        expect_silence(&log, "below");
        let answer = post_note(&mut browser, note_of(2_724)).await;
        expect_warning(&log, "set-cookie: \r\n".len() + answer.set_cookie().len());
        for bytes in [2_724, 2_900] {
            post_note(&mut browser, note_of(bytes)).await.expect_status(StatusCode::OK);
            expect_silence(&log, "again");
        }
    }
}

#[tokio::test]
async fn a_token_in_a_header_takes_its_share_of_the_buffer_too() {
    let app = app(logins(&ManualClock::new()).transport(Transport::bearer()));
    let log = Log::start();
    issue(&app, &"n".repeat(note_of(2_724))).await;
    expect_silence(&log, "a header has no attributes");
    let token = issue(&app, &"n".repeat(note_of(2_800))).await.header("x-session-token").unwrap();
    expect_warning(&log, "x-session-token: \r\n".len() + token.len());
}

#[tokio::test]
async fn with_a_store_no_session_fills_the_buffer() {
    let manager: SessionManagerBuilder<Login> = Mode::Store.builder(&ManualClock::new());
    let mut browser = Browser::new(app(manager));
    let log = Log::start();
    post_note(&mut browser, 10_000).await.set_cookie();
    expect_silence(&log, "an id");
}

#[tokio::test]
async fn all_cookies_of_one_response_add_up() {
    #[derive(Clone, FromRef)]
    struct Site {
        notes: SessionManager<String>,
        logins: SessionManager<Login>,
    }
    async fn both(
        mut note: Session<String>,
        mut login: Session<Login>,
    ) -> Result<Response, SessionError> {
        (*note, login.note) = ("n".repeat(1_600), "n".repeat(1_000));
        Ok((note.commit().await?, login.commit().await?).into_response())
    }
    async fn left_to_the_layer(mut note: Session<String>, mut login: Session<Login>) {
        (*note, login.note) = ("n".repeat(1_600), "n".repeat(1_000));
    }
    async fn beside_another_cookie(mut note: Session<String>) -> Result<Response, SessionError> {
        *note = "n".repeat(1_600);
        let own = AppendHeaders([(header::SET_COOKIE, format!("theme={}", "n".repeat(1_700)))]);
        Ok((own, note.commit().await?, ()).into_response())
    }
    async fn alone(mut note: Session<String>) -> Result<Response, SessionError> {
        *note = "n".repeat(1_600);
        Ok(note.commit().await?.into_response())
    }
    for (path, warns) in [("/alone", false), ("/both", true), ("/layer", true), ("/other", true)] {
        let clock = ManualClock::new();
        let notes = Mode::Cookie.builder(&clock).cookie(Cookie::new("note", ""));
        let site = Site { notes: notes.build().unwrap(), logins: logins(&clock).build().unwrap() };
        let app = Router::new()
            .route("/layer", post(left_to_the_layer))
            .layer(AutoCommitLayer::new())
            .route("/alone", post(alone))
            .route("/both", post(both))
            .route("/other", post(beside_another_cookie))
            .with_state(site);
        let log = Log::start();
        let answer = send(&app, Request::post(path)).await.expect(StatusCode::OK, "");
        let bytes = |cookie: &&str| "set-cookie: \r\n".len() + cookie.len();
        let bytes = answer.set_cookies().iter().map(bytes).sum();
        if warns { expect_warning(&log, bytes) } else { expect_silence(&log, path) }
    }
}
