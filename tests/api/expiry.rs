//! When sessions end, to the millisecond, by the server's clock.

use std::time::Duration;

use axum_typed_session::{IdleTimeout, Rolling, SessionManagerBuilder, testing::ManualClock};
use http::StatusCode;

use crate::{
    logins::{FRESH, Login, app, logins},
    support::{Browser, EventLog, HOUR, MILLISECOND, SECOND},
};

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

/// A clock, and a browser of an app whose sessions live for an hour.
fn one_hour(
    with: impl FnOnce(SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login>,
) -> (ManualClock, Browser) {
    let clock = ManualClock::new();
    let browser = Browser::new(app(with(logins(&clock).idle_timeout(HOUR))));
    (clock, browser)
}

async fn expect_times(browser: &mut Browser, created_at: u64, expires_at: u64) {
    let times = format!("{created_at} {expires_at}");
    browser.get("/times").await.expect(StatusCode::OK, &times);
}

/// Asserts that the session lives for exactly so long from now.
async fn expect_end_after(clock: &ManualClock, browser: &mut Browser, left: Duration) {
    clock.advance(left.checked_sub(MILLISECOND).unwrap());
    assert_ne!(browser.get("/").await.body, FRESH, "the last millisecond");
    clock.advance(MILLISECOND);
    browser.get("/").await.expect(StatusCode::OK, FRESH);
}

#[tokio::test]
async fn a_session_lives_for_max_age_after_each_save() {
    let (clock, mut browser) = one_hour(|manager| manager);
    assert_eq!(browser.post("/note?a").await.max_age(), Some(3600));
    expect_times(&mut browser, 0, 3_600_000).await;
    clock.advance(HALF_AN_HOUR);
    assert_eq!(browser.post("/note?b").await.max_age(), Some(3600));
    expect_times(&mut browser, 0, 5_400_000).await;
    expect_end_after(&clock, &mut browser, HOUR).await;
}

#[tokio::test]
async fn an_unchanged_commit_extends_nothing_by_default() {
    let (clock, mut browser) = one_hour(|manager| manager);
    browser.post("/note?a").await;
    clock.advance(HOUR.checked_sub(SECOND).unwrap());
    browser.post("/commit").await.expect_no_cookie();
    browser.post("/note?a").await.expect_no_cookie();
    expect_end_after(&clock, &mut browser, SECOND).await;
}

#[tokio::test]
async fn a_browser_session_has_no_max_age_and_still_ends_on_the_server() {
    let (clock, mut browser) =
        one_hour(|manager| manager.idle_timeout(IdleTimeout::BrowserSession(HALF_AN_HOUR)));
    let answer = browser.post("/note?a").await;
    assert_eq!(answer.max_age(), None);
    assert!(!answer.set_cookie().contains("Expires"));
    clock.advance(SECOND);
    browser.post("/note?b").await.set_cookie();
    expect_end_after(&clock, &mut browser, HALF_AN_HOUR).await;
}

#[tokio::test]
async fn rolling_restarts_the_clock_once_a_twentieth_has_passed_and_at_no_read() {
    let log = EventLog::default();
    let (clock, mut browser) = one_hour(|manager| manager.rolling(true).on_event(log.hook()));
    browser.post("/note?a").await;
    log.take();
    clock.advance(HOUR / 20 - MILLISECOND);
    browser.post("/commit").await.expect_no_cookie();
    clock.advance(MILLISECOND);
    browser.get("/").await.expect_no_cookie();
    assert_eq!(browser.post("/commit").await.max_age(), Some(3600));
    assert_eq!(log.take(), ["touched"]);
    expect_times(&mut browser, 0, 3_780_000).await;
    expect_end_after(&clock, &mut browser, HOUR).await;
}

#[tokio::test]
async fn renew_restarts_the_clock_when_less_than_half_is_left() {
    for with in [
        |manager: SessionManagerBuilder<Login>| manager.rolling(Rolling::BelowHalf),
        |manager: SessionManagerBuilder<Login>| {
            manager.rolling(true).rolling(false).rolling(Rolling::BelowHalf)
        },
    ] {
        let (clock, mut browser) = one_hour(with);
        browser.post("/note?a").await;
        clock.advance(HALF_AN_HOUR);
        browser.post("/commit").await.expect_no_cookie();
        clock.advance(MILLISECOND);
        assert_eq!(browser.post("/commit").await.max_age(), Some(3600));
        expect_times(&mut browser, 0, 5_400_001).await;
        expect_end_after(&clock, &mut browser, HOUR).await;
    }
}

#[tokio::test]
async fn rolling_wins_where_renew_is_set_too() {
    for with in [
        |manager: SessionManagerBuilder<Login>| manager.rolling(true),
        |manager: SessionManagerBuilder<Login>| manager.rolling(Rolling::BelowHalf).rolling(true),
    ] {
        let (clock, mut browser) = one_hour(with);
        browser.post("/note?a").await;
        clock.advance(HOUR / 20);
        browser.post("/commit").await.set_cookie();
    }
}

#[tokio::test]
async fn rolling_and_renew_keep_to_a_max_age_of_the_sessions_own() {
    let (clock, mut browser) = one_hour(|manager| manager.rolling(Rolling::BelowHalf));
    browser.post("/max-age?60").await;
    clock.advance(SECOND * 30);
    browser.post("/commit").await.expect_no_cookie();
    clock.advance(MILLISECOND);
    assert_eq!(browser.post("/commit").await.max_age(), Some(60));
    expect_end_after(&clock, &mut browser, SECOND * 60).await;
}

#[tokio::test]
async fn nothing_extends_a_session_past_the_absolute_timeout() {
    let actions =
        ["commit", "save", "note?b", "max-age?86400", "browser?86400", "regenerate", "reset"];
    for action in actions {
        let absolute = HOUR + HALF_AN_HOUR;
        let (clock, mut browser) =
            one_hour(|manager| manager.rolling(true).absolute_timeout(absolute));
        browser.post("/note?a").await;
        clock.advance(HOUR.checked_sub(SECOND).unwrap());
        let answer = browser.post(&format!("/{action}")).await;
        let left = HALF_AN_HOUR + SECOND;
        let seconds = (action != "browser?86400").then_some(left.as_secs());
        assert_eq!(answer.max_age(), seconds, "{action}");
        expect_times(&mut browser, 0, 5_400_000).await;
        browser.post("/commit").await.expect_no_cookie();
        expect_end_after(&clock, &mut browser, left).await;
    }
}

#[tokio::test]
async fn a_tightened_absolute_timeout_ends_sessions_that_exist_and_a_raised_one_extends_none() {
    let (clock, mut browser) = one_hour(|manager| manager.absolute_timeout(HOUR));
    browser.post("/note?a").await;
    let node = |timeout: Duration| {
        let manager = logins(&clock).idle_timeout(timeout.min(HOUR)).absolute_timeout(timeout);
        app(manager)
    };
    let mut raised = browser.at(&node(HOUR * 24));
    clock.advance(HALF_AN_HOUR);
    assert_eq!(raised.post("/save").await.max_age(), Some(1800));
    let mut tightened = browser.at(&node(HALF_AN_HOUR + SECOND));
    expect_end_after(&clock, &mut tightened, SECOND).await;
}

#[tokio::test]
async fn set_idle_timeout_survives_later_saves() {
    let (clock, mut browser) = one_hour(|manager| manager);
    browser.post("/note?a").await;
    assert_eq!(browser.post("/max-age?7200").await.max_age(), Some(7200));
    for action in ["/note?b", "/save", "/regenerate", "/reset"] {
        clock.advance(SECOND);
        assert_eq!(browser.post(action).await.max_age(), Some(7200), "{action}");
    }
    expect_end_after(&clock, &mut browser, HOUR * 2).await;
}

#[tokio::test]
async fn set_idle_timeout_saves_even_a_new_and_unchanged_session() {
    let (clock, mut browser) = one_hour(|manager| manager);
    assert_eq!(browser.post("/max-age?60").await.max_age(), Some(60));
    clock.advance(SECOND);
    assert_eq!(browser.post("/note?a").await.max_age(), Some(60));
    expect_end_after(&clock, &mut browser, SECOND * 60).await;
}

#[tokio::test]
async fn set_idle_timeout_changes_between_persistent_and_browser_session() {
    let (_, mut browser) = one_hour(|manager| manager);
    assert_eq!(browser.post("/browser?60").await.max_age(), None);
    assert_eq!(browser.post("/note?a").await.max_age(), None);
    assert_eq!(browser.post("/max-age?60").await.max_age(), Some(60));
    assert_eq!(browser.post("/note?b").await.max_age(), Some(60));
}

#[tokio::test]
async fn a_max_age_below_a_second_counts_as_one() {
    let (clock, mut browser) = one_hour(|manager| manager);
    assert_eq!(browser.post("/max-age?0").await.max_age(), Some(1));
    expect_end_after(&clock, &mut browser, SECOND).await;
}

#[tokio::test]
async fn a_session_without_owner_lives_for_the_anonymous_idle_timeout() {
    let owner = |login: &Login| login.user.clone();
    let with = |manager: SessionManagerBuilder<Login>| {
        manager.owner(owner).anonymous_idle_timeout(SECOND * 60).rolling(true)
    };
    let (clock, mut browser) = one_hour(with);
    assert_eq!(browser.post("/note?a").await.max_age(), Some(60));
    clock.advance(SECOND * 3);
    assert_eq!(browser.post("/commit").await.max_age(), Some(60));
    assert_eq!(browser.post("/max-age?600").await.max_age(), Some(60));
    expect_end_after(&clock, &mut browser, SECOND * 60).await;

    let (clock, mut browser) = one_hour(with);
    browser.post("/note?a").await;
    assert_eq!(browser.post("/user?ada").await.max_age(), Some(3600));
    clock.advance(HOUR / 20);
    assert_eq!(browser.post("/commit").await.max_age(), Some(3600));
    assert_eq!(browser.post("/user").await.max_age(), Some(60), "nobody's again");
    expect_end_after(&clock, &mut browser, SECOND * 60).await;
}

#[tokio::test]
async fn created_at_survives_saves_and_regenerate() {
    let (clock, mut browser) = one_hour(|manager| manager.owner(|login| login.user.clone()));
    browser.post("/note?a").await;
    for (seconds, action) in
        (1_u64..).zip(["/note?b", "/save", "/regenerate", "/reset", "/max-age?3600"])
    {
        clock.advance(SECOND);
        browser.post(action).await.set_cookie();
        expect_times(&mut browser, 0, seconds * 1000 + 3_600_000).await;
    }
}

#[tokio::test]
async fn created_at_restarts_when_the_owner_goes_from_none_or_another_to_some() {
    let (clock, mut browser) = one_hour(|manager| {
        let absolute = HOUR + SECOND;
        manager.absolute_timeout(absolute).owner(|login| login.user.clone())
    });
    browser.post("/note?a").await;
    let steps = [
        ("/user?ada", 1000),
        ("/user?ada", 1000),
        ("/note?b", 1000),
        ("/regenerate", 1000),
        ("/user?bob", 5000),
        ("/user", 5000),
        ("/user?bob", 7000),
    ];
    for (now, (action, created_at)) in (1_u64..).zip(steps) {
        clock.advance(SECOND);
        browser.post(action).await;
        let saved_at = if now == 2 { 1 } else { now };
        let end = (saved_at * 1000 + 3_600_000).min(created_at + 3_601_000);
        expect_times(&mut browser, created_at, end).await;
    }
}

#[tokio::test]
async fn without_owner_a_login_does_not_restart_created_at() {
    let (clock, mut browser) = one_hour(|manager| manager);
    browser.post("/note?a").await;
    clock.advance(SECOND);
    browser.post("/user?ada").await;
    expect_times(&mut browser, 0, 3_601_000).await;
}

#[tokio::test]
async fn a_fresh_session_says_when_it_would_begin_and_end() {
    let (clock, mut browser) = one_hour(|manager| manager);
    clock.advance(SECOND);
    expect_times(&mut browser, 1000, 3_601_000).await;
}

#[tokio::test]
async fn max_age_rounds_up_to_whole_seconds_while_the_server_keeps_the_millisecond() {
    let (clock, mut browser) =
        one_hour(|manager| manager.absolute_timeout(HOUR + Duration::from_millis(1500)));
    browser.post("/note?a").await;
    clock.advance(Duration::from_millis(1600));
    assert_eq!(browser.post("/note?b").await.max_age(), Some(3600));
    expect_end_after(&clock, &mut browser, HOUR.checked_sub(Duration::from_millis(100)).unwrap())
        .await;
}
