//! Timeouts that one session has for itself: how long they hold, and what gives the configured ones back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_typed_session::{
    Counter, IdleTimeout, MemoryStore, Session, SessionId, SessionManagerBuilder,
    testing::ManualClock,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    logins::since_start,
    requests::{change, overlap, seen, visited},
    support::{Answer, Browser, DAY, HOUR, Log, MILLISECOND, Mode, SECOND, in_both_modes},
};

in_both_modes! {
    a_session_with_its_own_timeouts_lives_to_its_own_end,
    a_shorter_end_of_its_own_ends_a_session_early,
    an_end_that_is_past_already_ends_the_session,
    an_end_that_is_past_already_ends_a_session_that_gets_a_new_id,
    sessions_without_a_timeout_of_their_own_end_as_ever,
    timeouts_are_cut_to_what_the_options_allow,
    a_lowered_bound_ends_sessions_that_were_promised_more,
    a_login_keeps_the_sessions_own_timeouts,
    the_configured_timeouts_come_back,
    a_logout_by_clear_and_regenerate_gives_both_back,
    a_logout_keeps_what_is_set_in_the_same_commit,
    a_logout_of_an_old_session_leaves_its_flash_message,
    clearing_timeouts_begins_no_session,
    expires_at_tells_what_the_commit_will_store,
    a_timeout_that_is_cut_is_warned_of_once,
    a_timeout_that_only_the_rest_of_the_session_cuts_is_no_mistake,
}

const SEASON: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    note: String,
    views: Counter,
}

type LoginSession = Session<Login>;

fn season(mode: Mode, clock: &ManualClock) -> SessionManagerBuilder<Login> {
    let builder = mode.builder(clock).owner(|login: &Login| login.user.clone());
    builder.max_absolute_timeout(SEASON)
}

fn browser(builder: SessionManagerBuilder<Login>) -> Browser {
    Browser::new(visited(builder.build().unwrap()))
}

/// A clock, and a browser of an app that allows a season.
fn new(mode: Mode) -> (ManualClock, Browser) {
    let clock = ManualClock::new();
    let browser = browser(season(mode, &clock));
    (clock, browser)
}

fn log_in(session: &mut LoginSession) {
    session.user = Some("ada".to_owned());
    session.regenerate();
}

fn keep_me_signed_in(session: &mut LoginSession) {
    session.set_absolute_timeout(SEASON);
    session.set_idle_timeout(SEASON);
}

fn log_out(session: &mut LoginSession) {
    session.clear();
    session.regenerate();
    session.note.push_str("bye");
}

fn write(session: &mut LoginSession) {
    session.note.push('x');
}

/// What the session says of its times, in milliseconds from where the clock started.
async fn times(browser: &mut Browser, look: fn(&mut LoginSession)) -> (i128, i128) {
    let seen = Arc::new(Mutex::new(None));
    let told = seen.clone();
    let answer = change(browser, move |session: &mut LoginSession| {
        look(session);
        let times = (since_start(session.created_at()), since_start(session.expires_at()));
        *told.lock().unwrap() = Some(times);
    });
    assert_eq!(answer.await.status, StatusCode::OK);
    seen.lock().unwrap().take().unwrap()
}

fn millis(time: Duration) -> i128 {
    time.as_millis().try_into().unwrap()
}

async fn is_alive(browser: &Browser) -> bool {
    seen::<Login>(browser).await.is_some()
}

/// Asserts that the session lives for exactly so long from now.
async fn expect_end_after(clock: &ManualClock, browser: &Browser, left: Duration) {
    clock.advance(left - MILLISECOND);
    assert!(is_alive(browser).await, "the last millisecond");
    clock.advance(MILLISECOND);
    assert!(!is_alive(browser).await, "it has ended");
}

async fn done(browser: &mut Browser, act: fn(&mut LoginSession)) -> Answer {
    let answer = change(browser, act).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer
}

async fn a_session_with_its_own_timeouts_lives_to_its_own_end(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, write).await;
    clock.advance(HOUR);
    assert_eq!(
        done(&mut browser, keep_me_signed_in).await.max_age(),
        Some((SEASON - HOUR).as_secs())
    );
    for _ in 0..3 {
        clock.advance(25 * DAY);
        done(&mut browser, write).await;
    }
    expect_end_after(&clock, &browser, 15 * DAY - HOUR).await;
}

async fn a_shorter_end_of_its_own_ends_a_session_early(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, |session| session.set_absolute_timeout(HOUR)).await;
    clock.advance(HOUR / 2);
    done(&mut browser, write).await;
    expect_end_after(&clock, &browser, HOUR / 2).await;
    let (clock, mut browser) = new(mode);
    done(&mut browser, |session| session.set_absolute_timeout(Duration::ZERO)).await;
    expect_end_after(&clock, &browser, SECOND).await;
}

async fn an_end_that_is_past_already_ends_the_session(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, write).await;
    clock.advance(2 * HOUR);
    done(&mut browser, |session| session.set_absolute_timeout(HOUR)).await;
    assert!(!is_alive(&browser).await);
}

async fn an_end_that_is_past_already_ends_a_session_that_gets_a_new_id(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, write).await;
    clock.advance(2 * HOUR);
    let elevate = |session: &mut LoginSession| {
        session.set_absolute_timeout(HOUR);
        session.regenerate();
    };
    done(&mut browser, elevate).await;
    assert!(!is_alive(&browser).await);
}

async fn sessions_without_a_timeout_of_their_own_end_as_ever(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, |session| session.set_idle_timeout(MONTH)).await;
    clock.advance(15 * DAY);
    done(&mut browser, write).await;
    expect_end_after(&clock, &browser, 15 * DAY).await;
}

async fn timeouts_are_cut_to_what_the_options_allow(mode: Mode) {
    for (bound, timeout) in [(None, MONTH), (Some(SEASON), SEASON)] {
        let clock = ManualClock::new();
        let mut builder = mode.builder(&clock);
        if let Some(bound) = bound {
            builder = builder.max_absolute_timeout(bound);
        }
        let mut browser = browser(builder);
        let forever = |session: &mut LoginSession| {
            session.set_absolute_timeout(Duration::MAX);
            session.set_idle_timeout(Duration::MAX);
        };
        assert_eq!(times(&mut browser, forever).await, (0, millis(timeout)));
        expect_end_after(&clock, &browser, timeout).await;
    }
}

async fn a_lowered_bound_ends_sessions_that_were_promised_more(mode: Mode) {
    for (bound, end) in [(Some(60 * DAY), 60 * DAY), (None, MONTH)] {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let node = |bound: Option<Duration>| {
            let mut builder = mode.builder::<Login>(&clock);
            if mode == Mode::Store {
                builder = builder.store(store.clone());
            }
            if let Some(bound) = bound {
                builder = builder.max_absolute_timeout(bound);
            }
            visited(builder.build().unwrap())
        };
        let mut browser = Browser::new(node(Some(SEASON)));
        done(&mut browser, keep_me_signed_in).await;
        expect_end_after(&clock, &browser.at(&node(bound)), end).await;
        // The session itself was not touched.
        assert!(is_alive(&browser).await);
    }
}

async fn a_login_keeps_the_sessions_own_timeouts(mode: Mode) {
    for login in [log_in, |session: &mut LoginSession| session.user = Some("ada".to_owned())] {
        let (clock, mut browser) = new(mode);
        done(&mut browser, keep_me_signed_in).await;
        clock.advance(20 * DAY);
        assert_eq!(done(&mut browser, login).await.max_age(), Some(SEASON.as_secs()));
        let begun = millis(20 * DAY);
        assert_eq!(times(&mut browser, |_| {}).await, (begun, begun + millis(SEASON)));
        expect_end_after(&clock, &browser, SEASON).await;
    }
}

async fn the_configured_timeouts_come_back(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, keep_me_signed_in).await;
    clock.advance(10 * DAY);
    done(&mut browser, LoginSession::clear_absolute_timeout).await;
    assert_eq!(times(&mut browser, |_| {}).await, (0, millis(MONTH)), "the absolute one");
    done(&mut browser, LoginSession::clear_idle_timeout).await;
    assert_eq!(times(&mut browser, |_| {}).await, (0, millis(11 * DAY)), "the idle one");
    clock.advance(HOUR);
    done(&mut browser, write).await;
    expect_end_after(&clock, &browser, DAY).await;
    // The later of two calls counts.
    let (_, mut browser) = new(mode);
    let both = |session: &mut LoginSession| {
        session.clear_idle_timeout();
        session.set_idle_timeout(HOUR);
        session.set_absolute_timeout(HOUR / 2);
        session.clear_absolute_timeout();
    };
    assert_eq!(times(&mut browser, both).await.1, millis(HOUR));
    assert_eq!(times(&mut browser, |_| {}).await.1, millis(HOUR));
}

async fn a_logout_by_clear_and_regenerate_gives_both_back(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, keep_me_signed_in).await;
    done(&mut browser, log_in).await;
    clock.advance(10 * DAY);
    let now = millis(10 * DAY);
    // Neither alone is a logout.
    done(&mut browser, LoginSession::regenerate).await;
    done(&mut browser, |session| {
        session.clear();
        session.user = Some("ada".to_owned());
    })
    .await;
    assert_eq!(times(&mut browser, |_| {}).await, (0, millis(SEASON)));
    assert_eq!(times(&mut browser, log_out).await.1, now + millis(DAY), "told before the commit");
    assert_eq!(times(&mut browser, |_| {}).await, (now, now + millis(DAY)));
    // The next person to sign in gets what is configured, up to the configured end.
    done(&mut browser, log_in).await;
    done(&mut browser, |session| session.set_idle_timeout(MONTH)).await;
    clock.advance(20 * DAY);
    done(&mut browser, write).await;
    expect_end_after(&clock, &browser, 10 * DAY).await;
}

async fn a_logout_keeps_what_is_set_in_the_same_commit(mode: Mode) {
    let set_first = |session: &mut LoginSession| {
        session.set_idle_timeout(2 * DAY);
        log_out(session);
    };
    let set_last = |session: &mut LoginSession| {
        log_out(session);
        session.set_idle_timeout(2 * DAY);
    };
    for log_out in [set_first, set_last] {
        let (clock, mut browser) = new(mode);
        done(&mut browser, keep_me_signed_in).await;
        clock.advance(DAY);
        done(&mut browser, log_out).await;
        clock.advance(DAY);
        done(&mut browser, write).await;
        expect_end_after(&clock, &browser, 2 * DAY).await;
    }
}

async fn a_logout_of_an_old_session_leaves_its_flash_message(mode: Mode) {
    let (clock, mut browser) = new(mode);
    done(&mut browser, keep_me_signed_in).await;
    clock.advance(60 * DAY);
    done(&mut browser, log_out).await;
    assert_eq!(seen::<Login>(&browser).await.map(|login| login.note).as_deref(), Some("bye"));
}

async fn clearing_timeouts_begins_no_session(mode: Mode) {
    let (_, mut browser) = new(mode);
    let clear = |session: &mut LoginSession| {
        session.clear_idle_timeout();
        session.clear_absolute_timeout();
    };
    done(&mut browser, clear).await.expect_no_cookie();
    let set_and_clear = |session: &mut LoginSession| {
        session.set_idle_timeout(HOUR);
        session.clear_idle_timeout();
    };
    done(&mut browser, set_and_clear).await.expect_no_cookie();
}

async fn expires_at_tells_what_the_commit_will_store(mode: Mode) {
    let acts: [fn(&mut LoginSession); 10] = [
        write,
        keep_me_signed_in,
        |session| session.set_idle_timeout(400 * DAY),
        |session| session.set_idle_timeout(IdleTimeout::BrowserSession(HOUR)),
        |session| session.set_absolute_timeout(12 * DAY),
        |session| session.set_absolute_timeout(400 * DAY),
        LoginSession::clear_idle_timeout,
        LoginSession::clear_absolute_timeout,
        log_out,
        |session| {
            log_in(session);
            session.set_idle_timeout(400 * DAY);
        },
    ];
    for before in [None, Some(write as fn(&mut LoginSession)), Some(keep_me_signed_in)] {
        for act in acts.into_iter().skip(1) {
            let clock = ManualClock::new();
            let anonymous = season(mode, &clock).anonymous_idle_timeout(20 * HOUR);
            let mut browser = browser(anonymous);
            if let Some(before) = before {
                done(&mut browser, before).await;
            }
            clock.advance(10 * HOUR + MILLISECOND);
            let told = times(&mut browser, act).await.1;
            if browser.has_session() {
                assert_eq!(times(&mut browser, |_| {}).await.1, told);
            }
        }
    }
}

/// The lines about timeouts since the last call.
fn warned(log: &Log) -> Vec<String> {
    log.take().into_iter().filter(|line| line.contains("_timeout(..)`")).collect()
}

async fn a_timeout_that_is_cut_is_warned_of_once(mode: Mode) {
    let idle: fn(&mut LoginSession) = |session| session.set_idle_timeout(MONTH + MILLISECOND);
    let absolute: fn(&mut LoginSession) =
        |session| session.set_absolute_timeout(SEASON + MILLISECOND);
    let log = Log::start();
    let (clock, mut browser) = new(mode);
    for (act, names) in [
        (
            idle,
            [
                "`session.set_idle_timeout(..)`",
                "`session.set_absolute_timeout(..)`",
                "`.absolute_timeout(..)`",
            ],
        ),
        (
            absolute,
            [
                "`session.set_absolute_timeout(..)`",
                "`.max_absolute_timeout(..)`",
                "`.absolute_timeout(..)`",
            ],
        ),
    ] {
        done(&mut browser, act).await;
        let [line] = &warned(&log)[..] else { panic!("expected one line") };
        assert!(line.contains("WARN") && line.contains("Login"), "{line}");
        assert!(names.iter().all(|name| line.contains(name)), "{line}");
        clock.advance(HOUR);
        done(&mut browser, act).await;
        let mut other = browser.clone();
        other.jar.clear();
        done(&mut other, act).await;
        assert_eq!(warned(&log), <[&str; 0]>::default(), "once");
        done(&mut browser, LoginSession::clear_absolute_timeout).await;
    }
}

async fn a_timeout_that_only_the_rest_of_the_session_cuts_is_no_mistake(mode: Mode) {
    let log = Log::start();
    let (clock, mut browser) = new(mode);
    let daily = |session: &mut LoginSession| session.set_idle_timeout(2 * DAY);
    for _ in 0..30 {
        done(&mut browser, daily).await;
        clock.advance(DAY);
    }
    assert!(!is_alive(&browser).await);
    done(&mut browser, keep_me_signed_in).await;
    done(&mut browser, |session| session.set_idle_timeout(Duration::ZERO)).await;
    done(&mut browser, |session| session.set_absolute_timeout(Duration::from_micros(1_500_500)))
        .await;
    assert_eq!(warned(&log), <[&str; 0]>::default());
}

#[tokio::test]
async fn the_cookie_of_a_stored_session_is_sent_again_where_its_end_moves_later() {
    let (clock, mut browser) = new(Mode::Store);
    assert_eq!(done(&mut browser, write).await.max_age(), Some(MONTH.as_secs()));
    let token = browser.token();
    clock.advance(HOUR);
    done(&mut browser, |session| session.set_absolute_timeout(10 * DAY)).await.expect_no_cookie();
    let answer = done(&mut browser, |session| session.set_absolute_timeout(40 * DAY)).await;
    assert_eq!((answer.max_age(), answer.token()), (Some((40 * DAY - HOUR).as_secs()), token));
    done(&mut browser, |session| session.set_absolute_timeout(40 * DAY)).await.expect_no_cookie();
    done(&mut browser, write).await.expect_no_cookie();
    done(&mut browser, LoginSession::clear_absolute_timeout).await.expect_no_cookie();
    let kept = |session: &mut LoginSession| {
        session.set_idle_timeout(IdleTimeout::BrowserSession(DAY));
        session.set_absolute_timeout(SEASON);
    };
    assert_eq!(done(&mut browser, kept).await.max_age(), None);
}

/// Browsers keep no cookie longer than 400 days, so a session that lives longer is sent again.
#[tokio::test]
async fn the_cookie_of_a_session_of_years_is_sent_again() {
    let year = 365 * DAY;
    let clock = ManualClock::new();
    let mut browser = browser(Mode::Store.builder(&clock).max_absolute_timeout(3 * year));
    let years = move |session: &mut LoginSession| {
        session.set_absolute_timeout(3 * year);
        session.set_idle_timeout(100 * DAY);
    };
    change(&mut browser, years).await.set_cookie();
    let mut sent_at = 0;
    for day in (90..=1080).step_by(90) {
        clock.advance(90 * DAY);
        assert!(day - sent_at <= 400, "the browser has lost it by day {day}");
        if done(&mut browser, write).await.told() == "set" {
            sent_at = day;
        }
    }
    assert!(is_alive(&browser).await);
}

#[tokio::test]
async fn a_request_that_merges_keeps_the_timeouts_that_another_set_meanwhile() {
    let (clock, mut browser) = new(Mode::Store);
    done(&mut browser, write).await;
    let view = |session: &mut LoginSession| session.views += 1;
    let overlapped = overlap(&browser, view, async |browser| {
        done(browser, |session| {
            keep_me_signed_in(session);
            session.views += 1;
        })
        .await;
        clock.advance(HOUR);
    });
    assert_eq!(overlapped.await.slow.status, StatusCode::OK);
    assert_eq!(seen::<Login>(&browser).await.map(|login| login.views == 2), Some(true));
    expect_end_after(&clock, &browser, SEASON - HOUR).await;
}

#[tokio::test]
async fn a_request_that_merges_sets_its_timeouts_beside_what_another_wrote() {
    let (clock, mut browser) = new(Mode::Store);
    done(&mut browser, write).await;
    let view = |session: &mut LoginSession| {
        keep_me_signed_in(session);
        session.views += 1;
    };
    let overlapped = overlap(&browser, view, async |browser| {
        done(browser, |session| session.views += 1).await;
        clock.advance(HOUR);
    });
    assert_eq!(overlapped.await.slow.max_age(), Some((SEASON - HOUR).as_secs()));
    expect_end_after(&clock, &browser, SEASON - HOUR).await;
}

#[tokio::test]
async fn operations_outside_a_request_keep_the_sessions_own_timeouts() {
    let clock = ManualClock::new();
    let sessions = season(Mode::Store, &clock).build().unwrap();
    let mut browser = Browser::new(visited(sessions.clone()));
    let key = Arc::new(Mutex::new(None));
    let told = key.clone();
    done(&mut browser, keep_me_signed_in).await;
    change(&mut browser, move |session: &mut LoginSession| {
        *told.lock().unwrap() = session.id().map(SessionId::store_key);
    })
    .await;
    let key = key.lock().unwrap().unwrap();
    clock.advance(DAY);
    sessions.update(key, |login| login.note.push('y')).await.unwrap();
    let stored = sessions.load(key).await.unwrap().unwrap();
    assert_eq!(since_start(stored.expires_at()), millis(SEASON));
    expect_end_after(&clock, &browser, SEASON - DAY).await;
}

/// An older copy of the cookie may live longer than the one that the logout came with.
#[tokio::test]
async fn a_revoked_session_stays_revoked_as_long_as_a_copy_of_its_cookie_lives() {
    let clock = ManualClock::new();
    let list = MemoryStore::builder().clock(clock.clone()).build();
    let mut browser = browser(season(Mode::Cookie, &clock).revocations(list));
    done(&mut browser, keep_me_signed_in).await;
    let copy = browser.clone();
    done(&mut browser, LoginSession::clear_absolute_timeout).await;
    done(&mut browser, LoginSession::destroy).await;
    clock.advance(SEASON - MILLISECOND);
    assert!(!is_alive(&copy).await);
}
