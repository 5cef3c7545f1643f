//! Several cookies of one name: garbage hides nothing, and of the valid ones the newest counts.

use axum::Router;
use axum_typed_session::{SessionEventKind, testing::ManualClock};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode, header};

use crate::{
    logins::{FRESH, app, forged, issue_cookie, logins},
    support::{COOKIE, EventLog, SECOND, get_with_cookies, send},
};

struct Fixture {
    clock: ManualClock,
    log: EventLog,
    app: Router,
}

impl Fixture {
    fn new() -> Self {
        let (clock, log) = (ManualClock::new(), EventLog::default());
        let app = app(logins(&clock).on_event(log.hook()));
        Self { clock, log, app }
    }

    /// Issues a session and lets a second pass.
    async fn issue(&self, note: &str) -> String {
        let cookie = issue_cookie(&self.app, note).await;
        self.clock.advance(SECOND);
        self.log.take();
        cookie
    }

    async fn expect(&self, cookies: &[&str], body: &str) {
        let answer = get_with_cookies(&self.app, &cookies.join("; ")).await;
        answer.expect(StatusCode::OK, body).expect_no_cookie();
    }
}

/// The same cookie with one byte of its token changed.
fn flipped(cookie: &str, index: usize) -> String {
    let (name, token) = cookie.split_once('=').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes[index] ^= 2;
    format!("{name}={}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn thousands_of_garbage_cookies_before_or_after_the_valid_one_do_not_hide_it() {
    let fixture = Fixture::new();
    let valid = fixture.issue("mine").await;
    let long = format!("{COOKIE}={}", "A".repeat(200));
    let endless = format!("{COOKIE}={}", "A".repeat(5000));
    let garbage = [
        &*format!("{COOKIE}=x"),
        &format!("{COOKIE}="),
        &format!("{COOKIE}=~~~"),
        &long,
        &flipped(&valid, 0), // the version
        &flipped(&valid, 1), // the key id
        &valid[..valid.len() / 4],
    ];
    for garbage in garbage {
        let before = vec![garbage; 3000].join("; ");
        fixture.expect(&[&before, &valid], "mine").await;
        fixture.expect(&[&valid, &before], "mine").await;
        fixture.expect(&[&before, &valid, &before], "mine").await;
        assert_eq!(fixture.log.take(), Vec::<&str>::new(), "{garbage}");
    }
    fixture.expect(&[&endless, &valid], "mine").await;
    let garbage = vec![garbage[0]; 3000].join("; ");
    fixture.expect(&[&garbage], FRESH).await;
    assert_eq!(fixture.log.take(), ["invalid_token"], "one event however many");
}

#[tokio::test]
async fn of_two_valid_sessions_the_newest_wins_whatever_their_order() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.issue("old").await, fixture.issue("new").await);
    for cookies in [[&*old, &new], [&new, &old]] {
        fixture.expect(&cookies, "new").await;
        let events = fixture.log.take_kinds();
        assert_eq!(events, [(SessionEventKind::Ambiguous { valid: 2 }, None)]);
    }
}

#[tokio::test]
async fn an_expired_session_beside_a_valid_one_is_not_ambiguous() {
    let fixture = Fixture::new();
    let old = fixture.issue("old").await;
    let request = Request::post("/max-age?2").header(header::COOKIE, old);
    let short = format!("{COOKIE}={}", send(&fixture.app, request).await.token());
    let new = fixture.issue("new").await;
    fixture.clock.advance(SECOND);
    fixture.expect(&[&short, &new], "new").await;
    assert_eq!(fixture.log.take(), ["expired"]);
}

#[tokio::test]
async fn at_most_sixteen_sessions_are_looked_up() {
    let fixture = Fixture::new();
    let mut cookies = Vec::new();
    for index in 1..=17 {
        cookies.push(fixture.issue(&index.to_string()).await);
    }
    let cookies: Vec<&str> = cookies.iter().map(String::as_str).collect();
    fixture.expect(&cookies, "16").await;
    let events = fixture.log.take_kinds();
    assert_eq!(events, [(SessionEventKind::Ambiguous { valid: 16 }, None)]);
}

/// No browser keeps more than 180 cookies of one site.
#[tokio::test]
async fn two_hundred_forged_twins_do_not_hide_a_session_wherever_it_stands() {
    let fixture = Fixture::new();
    let valid = fixture.issue("mine").await;
    let twins: Vec<_> = (0..200).map(|index| flipped(&valid, 40 + index % 60)).collect();
    for count in [1, 3, 4, 10, 100, 200] {
        for place in [0, count / 2, count] {
            let mut cookies: Vec<&str> = twins[..count].iter().map(String::as_str).collect();
            cookies.insert(place, &valid);
            fixture.expect(&cookies, "mine").await;
            assert_eq!(fixture.log.take(), Vec::<&str>::new(), "{count} twins, {place}");
        }
    }
}

#[tokio::test]
async fn the_work_for_forged_twins_is_bounded() {
    let fixture = Fixture::new();
    let valid = fixture.issue("mine").await;
    let forged = vec![forged(&valid); 256].join("; ");
    fixture.expect(&[&forged, &valid], FRESH).await;
    assert_eq!(fixture.log.take(), ["invalid_token"]);
}

#[tokio::test]
async fn destroy_ends_every_valid_session_and_removes_the_cookie() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.issue("old").await, fixture.issue("new").await);
    let cookies = format!("{old}; {COOKIE}=garbage; {new}");
    let request = Request::post("/destroy").header(header::COOKIE, cookies);
    let answer = send(&fixture.app, request).await;
    assert_eq!((answer.token(), answer.max_age()), (String::new(), Some(0)));
    let events = fixture.log.take();
    assert_eq!(events, ["ambiguous", "destroyed", "destroyed"]);
}

#[tokio::test]
async fn destroy_removes_whatever_cookie_of_the_name_arrived_and_nothing_if_none_did() {
    let fixture = Fixture::new();
    for cookie in ["garbage", "", "\"\"", "AQAAAAAAAAAA"] {
        let request =
            Request::post("/destroy").header(header::COOKIE, format!("{COOKIE}={cookie}"));
        let answer = send(&fixture.app, request).await;
        assert_eq!(answer.max_age(), Some(0), "{cookie:?}");
    }
    let request = Request::post("/destroy").header(header::COOKIE, "other=garbage");
    send(&fixture.app, request).await.expect_no_cookie();
}

#[tokio::test]
async fn the_same_token_twice_is_one_session() {
    let fixture = Fixture::new();
    let cookie = fixture.issue("mine").await;
    fixture.expect(&[&cookie, &cookie], "mine").await;
    assert_eq!(fixture.log.take(), Vec::<&str>::new());
}
