//! How long the browser's copy lives, and when it is sent again.

use std::time::Duration;

use axum::{Router, routing::get};
use axum_typed_session::{
    AutoCommitLayer, IdleTimeout, Key, KeyRing, Rolling, Session, SessionManager,
    SessionManagerBuilder, testing::ManualClock,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Overlapped, change, overlap, seen, visited},
    support::{
        Answer, Browser, COOKIE, DAY, HOUR, MILLISECOND, Mode, ProbeStore, SECOND, Visits, key,
        scripted,
    },
};

/// What a cookie says that lives for thirty days.
const ABSOLUTE: u64 = 30 * 24 * 60 * 60;

/// A browser without a session, and the clock of its sessions in a store.
fn stored(
    options: impl FnOnce(SessionManagerBuilder<Visits>) -> SessionManagerBuilder<Visits>,
) -> (Browser, ManualClock) {
    let clock = ManualClock::new();
    let sessions = options(Mode::Store.builder(&clock)).build().unwrap();
    (Browser::new(scripted(sessions)), clock)
}

#[tokio::test]
async fn the_cookie_of_a_stored_session_lives_up_to_the_absolute_end() {
    let week = 7 * DAY;
    let (mut browser, clock) = stored(|builder| builder);
    assert_eq!(browser.get("/add").await.max_age(), Some(ABSOLUTE));
    // The row decides when the session ends.
    clock.advance(DAY);
    browser.get("/read").await.expect(StatusCode::OK, "0");
    let (mut browser, _) = stored(|builder| builder.absolute_timeout(week));
    assert_eq!(browser.get("/add").await.max_age(), Some(week.as_secs()));
    let (mut browser, _) = stored(|builder| builder.idle_timeout(HOUR));
    assert_eq!(browser.get("/save").await.max_age(), Some(ABSOLUTE));
}

#[tokio::test]
async fn the_cookie_of_a_stored_session_goes_out_once() {
    let extending: [fn(SessionManagerBuilder<Visits>) -> SessionManagerBuilder<Visits>; 4] = [
        |builder| builder,
        |builder| builder.rolling(true),
        |builder| builder.rolling(Rolling::BelowHalf),
        |builder| builder.keys(key()).rolling(true),
    ];
    for options in extending {
        let (mut browser, clock) = stored(options);
        assert_eq!(browser.get("/add").await.told(), "set");
        for script in ["/add", "/read", "/save", "/longer", "/reset", "/add/commit/add", "/read"] {
            clock.advance(10 * HOUR);
            let answer = browser.get(script).await;
            assert_eq!((answer.status, answer.told()), (StatusCode::OK, "nothing"), "{script}");
            // No token is in it, so the browser may keep it.
            assert_ne!(answer.header("cache-control").as_deref(), Some("no-store"), "{script}");
        }
        // All those days later it is still the same session.
        browser.get("/read").await.expect(StatusCode::OK, "2").expect_no_cookie();
    }
}

#[tokio::test]
async fn under_the_layer_it_goes_out_once_too() {
    let clock = ManualClock::new();
    let sessions = Mode::Store.builder::<Visits>(&clock).rolling(true).build().unwrap();
    let add = async |mut session: Session<Visits>| {
        session.count += 1;
        session.count.to_string()
    };
    let read = async |session: Session<Visits>| session.count.to_string();
    let app = Router::new().route("/add", get(add)).route("/read", get(read));
    let app = app.layer(AutoCommitLayer::new()).with_state(sessions);
    let mut browser = Browser::new(app);
    assert_eq!(browser.get("/add").await.max_age(), Some(ABSOLUTE));
    for (path, body) in [("/read", "1"), ("/add", "2"), ("/read", "2")] {
        clock.advance(20 * HOUR);
        browser.get(path).await.expect(StatusCode::OK, body).expect_no_cookie();
    }
}

#[tokio::test]
async fn a_new_id_gets_a_cookie_with_what_is_left_up_to_the_absolute_end() {
    let (mut browser, clock) = stored(|builder| builder.rolling(true));
    browser.get("/add").await;
    for _ in 0..10 {
        clock.advance(DAY - SECOND);
        browser.get("/read").await;
    }
    let spent = 10 * (DAY.as_secs() - 1);
    assert_eq!(browser.get("/regenerate").await.max_age(), Some(ABSOLUTE - spent));
    clock.advance(HOUR);
    browser.get("/add").await.expect(StatusCode::OK, "2").expect_no_cookie();
}

#[tokio::test]
async fn a_session_that_outlives_its_cookie_sends_it_again() {
    // A browser keeps a cookie for at most 400 days.
    let (mut browser, clock) = stored(|builder| {
        builder.idle_timeout(300 * DAY).absolute_timeout(1000 * DAY).rolling(true)
    });
    assert_eq!(browser.get("/add").await.max_age(), Some((1000 * DAY).as_secs()));
    clock.advance(90 * DAY);
    assert_eq!(browser.get("/read").await.told(), "nothing");
    clock.advance(90 * DAY);
    assert_eq!(browser.get("/read").await.max_age(), Some((820 * DAY).as_secs()));
}

#[tokio::test]
async fn update_sends_no_cookie() {
    let clock = ManualClock::new();
    let sessions = Mode::Store.builder::<Visits>(&clock).build().unwrap();
    let update = async |mut session: Session<Visits>| {
        session.update(|visits| visits.count += 1).await?;
        session.commit().await
    };
    let app = Router::new().route("/update", get(update)).with_state(sessions.clone());
    let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
    browser.get("/add").await;
    clock.advance(HOUR);
    browser.get("/update").await.expect(StatusCode::OK, "").expect_no_cookie();
    browser.get("/read").await.expect(StatusCode::OK, "2");
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Diary {
    user: Option<String>,
    pages: Vec<String>,
}

fn diaries(clock: &ManualClock) -> SessionManagerBuilder<Diary> {
    let builder = SessionManager::builder().store(ProbeStore::new(clock)).clock(clock.clone());
    builder.owner(|diary: &Diary| diary.user.clone())
}

fn log_in(session: &mut Session<Diary>) {
    session.user = Some("ada".to_owned());
}

fn write_page(session: &mut Session<Diary>) {
    session.pages.push("dear diary".to_owned());
}

/// The absolute end counts from the login, so the browser's copy would end before the row.
#[tokio::test]
async fn a_login_that_keeps_the_id_sends_the_cookie_again() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(visited(diaries(&clock).build().unwrap()));
    change(&mut browser, write_page).await;
    let token = browser.token();
    clock.advance(HOUR);
    let answer = change(&mut browser, log_in).await;
    assert_eq!((answer.max_age(), answer.token()), (Some(ABSOLUTE), token));
    clock.advance(HOUR);
    change(&mut browser, write_page).await.expect_no_cookie();
    // The owner leaves: the absolute end stays where it is.
    change(&mut browser, |session: &mut Session<Diary>| session.user = None)
        .await
        .expect_no_cookie();
}

#[tokio::test]
async fn a_change_between_persistent_and_browser_session_sends_the_cookie_again() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(visited(diaries(&clock).build().unwrap()));
    change(&mut browser, write_page).await;
    let token = browser.token();
    let set = |max_age: IdleTimeout| {
        move |session: &mut Session<Diary>| session.set_idle_timeout(max_age)
    };
    clock.advance(HOUR);
    let answer = change(&mut browser, set(IdleTimeout::BrowserSession(DAY))).await;
    assert_eq!((answer.max_age(), answer.token()), (None, token.clone()));
    for _ in 0..2 {
        clock.advance(HOUR);
        change(&mut browser, write_page).await.expect_no_cookie();
        change(&mut browser, set(IdleTimeout::BrowserSession(HOUR * 2))).await.expect_no_cookie();
    }
    clock.advance(HOUR);
    let answer = change(&mut browser, set(IdleTimeout::Persistent(DAY * 2))).await;
    let left = ABSOLUTE - 4 * HOUR.as_secs();
    assert_eq!((answer.max_age(), answer.token()), (Some(left), token));
    // Another number is up to the row.
    change(&mut browser, set(IdleTimeout::Persistent(DAY * 3))).await.expect_no_cookie();
}

#[tokio::test]
async fn the_cookie_of_a_browser_session_has_no_end_and_goes_out_once() {
    let (mut browser, clock) =
        stored(|builder| builder.idle_timeout(IdleTimeout::BrowserSession(DAY)).rolling(true));
    assert_eq!(browser.get("/add").await.max_age(), None);
    for script in ["/add", "/read"] {
        clock.advance(HOUR);
        browser.get(script).await.expect(StatusCode::OK, "2").expect_no_cookie();
    }
}

#[tokio::test]
async fn an_id_that_a_former_key_sealed_is_sent_again_once() {
    for (script, count) in [("/read", "1"), ("/add", "2")] {
        let (former, clock) = (Key::generate(), ManualClock::new());
        let store = ProbeStore::new(&clock);
        let app = |ring: KeyRing| {
            let builder = SessionManager::builder().store(store.clone()).clock(clock.clone());
            scripted(builder.keys(ring).build().unwrap())
        };
        let mut browser = Browser::new(app(former.clone().into()));
        browser.get("/add").await;
        clock.advance(HOUR);
        let mut browser = browser.at(&app(KeyRing::new(key()).accept_former(former)));
        let answer = browser.get(script).await;
        assert_eq!(answer.max_age(), Some(ABSOLUTE - HOUR.as_secs()), "{script}");
        for script in ["/read", "/save"] {
            clock.advance(SECOND);
            browser.get(script).await.expect(StatusCode::OK, count).expect_no_cookie();
        }
    }
}

/// Puts what an answer says into the jar, as when it arrives only now.
fn arrives(browser: &mut Browser, late: &Answer) {
    if late.told() == "set" {
        browser.jar.insert(COOKIE.to_owned(), late.token());
    } else if late.told() == "removed" {
        browser.jar.remove(COOKIE);
    }
}

#[tokio::test]
async fn an_older_answer_that_arrives_late_takes_no_login_away() {
    for rolling in [false, true] {
        let clock = ManualClock::new();
        let sessions = diaries(&clock).rolling(rolling).build().unwrap();
        let mut browser = Browser::new(visited(sessions));
        change(&mut browser, write_page).await;
        clock.advance(HOUR);
        for autosave in [write_page, |_: &mut Session<Diary>| {}] {
            // The autosave commits first, and its answer is the last to arrive.
            let late = change(&mut browser.clone(), autosave).await;
            assert_eq!(late.status, StatusCode::OK);
            clock.advance(SECOND);
            let login = |session: &mut Session<Diary>| {
                log_in(session);
                session.regenerate();
            };
            let mut signed_in = browser.clone();
            assert_eq!(change(&mut signed_in, login).await.told(), "set");
            arrives(&mut signed_in, &late);
            let diary = seen::<Diary>(&signed_in).await.unwrap_or_default();
            assert_eq!(diary.user.as_deref(), Some("ada"), "rolling: {rolling}");
            browser = signed_in;
            change(&mut browser, |session: &mut Session<Diary>| session.user = None).await;
            clock.advance(SECOND);
        }
    }
}

#[tokio::test]
async fn a_save_that_a_login_overtakes_takes_no_login_away() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(visited(diaries(&clock).build().unwrap()));
    change(&mut browser, write_page).await;
    clock.advance(HOUR);
    let login = |session: &mut Session<Diary>| {
        log_in(session);
        session.regenerate();
    };
    let Overlapped { slow, mut slow_browser, quick_browser } =
        overlap(&browser, login, async |browser| {
            let autosave = change(browser, write_page).await;
            assert_eq!(autosave.told(), "nothing");
        })
        .await;
    assert_eq!(slow.told(), "set");
    assert_eq!(quick_browser.token(), browser.token());
    let diary = seen::<Diary>(&slow_browser).await.unwrap();
    assert_eq!(diary.pages.len(), 2);
    // From here on the new cookie is settled too.
    clock.advance(HOUR);
    change(&mut slow_browser, write_page).await.expect_no_cookie();
}

const A_TWENTIETH: Duration = Duration::from_secs(72 * 60);

/// A browser with a cookie of its data, which was sealed just now and rolls.
async fn rolling(
    options: impl FnOnce(SessionManagerBuilder<Visits>) -> SessionManagerBuilder<Visits>,
) -> (Browser, ManualClock) {
    let clock = ManualClock::new();
    let sessions = options(Mode::Cookie.builder(&clock).rolling(true)).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.get("/add").await;
    (browser, clock)
}

#[tokio::test]
async fn a_rolling_cookie_is_sealed_again_when_a_twentieth_of_its_life_has_passed() {
    let (mut browser, clock) = rolling(|builder| builder).await;
    for _ in 0..3 {
        for script in ["/read", "/read"] {
            clock.advance(A_TWENTIETH / 2 - MILLISECOND);
            browser.get(script).await.expect(StatusCode::OK, "1").expect_no_cookie();
        }
        clock.advance(2 * MILLISECOND);
        assert_eq!(browser.get("/read").await.max_age(), Some(DAY.as_secs()));
    }
    clock.advance(DAY - MILLISECOND);
    browser.get("/read").await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn the_twentieth_is_of_the_life_the_session_asked_for() {
    let (mut browser, clock) = rolling(|builder| builder).await;
    browser.get("/longer").await;
    clock.advance(2 * A_TWENTIETH - MILLISECOND);
    browser.get("/read").await.expect_no_cookie();
    clock.advance(MILLISECOND);
    assert_eq!(browser.get("/read").await.max_age(), Some(2 * DAY.as_secs()));
    let (mut browser, clock) = rolling(|builder| builder.idle_timeout(20 * SECOND)).await;
    clock.advance(SECOND - MILLISECOND);
    browser.get("/read").await.expect_no_cookie();
    clock.advance(MILLISECOND);
    assert_eq!(browser.get("/read").await.max_age(), Some(20));
}

#[tokio::test]
async fn a_write_seals_a_rolling_cookie_at_once() {
    let (mut browser, clock) = rolling(|builder| builder).await;
    clock.advance(MILLISECOND);
    assert_eq!(browser.get("/add").await.max_age(), Some(DAY.as_secs()));
    // And the twentieth counts from there.
    clock.advance(A_TWENTIETH - MILLISECOND);
    browser.get("/read").await.expect(StatusCode::OK, "2").expect_no_cookie();
}

/// A reader's answer that is under way puts no old cookie back.
#[tokio::test]
async fn a_reader_takes_no_logout_and_no_write_away() {
    for act in ["/destroy", "/add", "/regenerate"] {
        let (mut browser, clock) = rolling(|builder| builder).await;
        clock.advance(HOUR);
        let late = browser.clone().get("/read").await;
        browser.get(act).await;
        let before = browser.jar.clone();
        arrives(&mut browser, &late);
        assert_eq!(browser.jar, before, "{act}");
    }
}

#[tokio::test]
async fn a_reader_who_comes_every_hour_stays() {
    let (mut browser, clock) = rolling(|builder| builder).await;
    for _ in 0..60 {
        clock.advance(HOUR);
        browser.get("/read").await.expect(StatusCode::OK, "1");
    }
}
