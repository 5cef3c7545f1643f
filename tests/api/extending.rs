//! Requests that extend no session, as `extend_if` has it, whoever commits them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, response::IntoResponse as _, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Clock as _, Counter, Key, KeyRing, Rolling, Session, SessionError,
    SessionManager, SessionManagerBuilder,
    testing::{Gate, ManualClock},
};
use http::{Request, StatusCode, Uri, request::Parts};
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Visit, change, overlap, seen, spawned, visited},
    support::{
        Browser, Change, DAY, HOUR, MILLISECOND, MINUTE, Mode, ProbeStore, SECOND, Visits, act,
        changing, in_both_modes, key, scripted,
    },
};

in_both_modes! {
    a_poll_keeps_no_session_alive,
    what_a_poll_saves_keeps_the_expiry,
    other_requests_extend_as_ever,
    a_poll_begins_a_session_that_lives_as_long_as_any,
    an_idle_timeout_that_a_poll_sets_counts_from_there,
    a_login_in_a_poll_begins_the_session_anew,
    the_question_is_asked_once_in_a_request,
}

/// What a request is that says so in its query.
fn is_no_poll(request: &Parts) -> bool {
    request.uri.query() != Some("poll")
}

/// Who commits.
#[derive(Clone, Copy, Debug)]
enum Commits {
    Handler,
    Layer,
}

impl Commits {
    const ALL: [Self; 2] = [Self::Handler, Self::Layer];

    /// An app that does what the path says.
    fn app(self, sessions: SessionManager<Visits>) -> Router {
        match self {
            Self::Handler => scripted(sessions),
            Self::Layer => Router::new()
                .fallback(async |mut session: Session<Visits>, uri: Uri| {
                    uri.path().split('/').skip(1).for_each(|step| act(&mut session, step));
                    session.count.to_string()
                })
                .layer(AutoCommitLayer::new())
                .with_state(sessions),
        }
    }
}

/// A browser whose session of an hour was just begun.
async fn begun(
    commits: Commits,
    mode: Mode,
    options: impl FnOnce(SessionManagerBuilder<Visits>) -> SessionManagerBuilder<Visits>,
) -> (Browser, ManualClock) {
    let clock = ManualClock::new();
    let builder = mode.builder(&clock).idle_timeout(HOUR).extend_if(is_no_poll);
    let mut browser = Browser::new(commits.app(options(builder).build().unwrap()));
    browser.get("/add").await.set_cookie();
    (browser, clock)
}

/// Asserts that the session lives for exactly so long from now, and holds the count.
async fn expect_end_after(
    browser: &mut Browser,
    clock: &ManualClock,
    left: Duration,
    count: &str,
    at: &str,
) {
    clock.advance(left - MILLISECOND);
    assert_eq!(browser.get("/read?poll").await.body, count, "{at}: the last millisecond");
    clock.advance(MILLISECOND);
    assert_eq!(browser.get("/read?poll").await.body, "0", "{at}");
}

async fn a_poll_keeps_no_session_alive(mode: Mode) {
    for commits in Commits::ALL {
        for rolling in [Rolling::EveryCommit, Rolling::BelowHalf] {
            let (mut browser, clock) =
                begun(commits, mode, |builder| builder.rolling(rolling)).await;
            for _ in 0..5 {
                clock.advance(10 * MINUTE);
                browser.get("/read?poll").await.expect(StatusCode::OK, "1").expect_no_cookie();
            }
            expect_end_after(&mut browser, &clock, 10 * MINUTE, "1", &format!("{commits:?}")).await;
        }
    }
}

async fn what_a_poll_saves_keeps_the_expiry(mode: Mode) {
    for commits in Commits::ALL {
        for (script, count) in [
            ("/add", "3"),
            ("/save", "1"),
            ("/regenerate", "1"),
            ("/reset/add/regenerate/add", "2"),
        ] {
            let (mut browser, clock) = begun(commits, mode, |builder| builder.rolling(true)).await;
            for left in [45, 30] {
                clock.advance(15 * MINUTE);
                let answer = browser.get(&format!("{script}?poll")).await;
                assert_eq!(answer.status, StatusCode::OK);
                if mode == Mode::Cookie && !script.contains("reset") {
                    assert_eq!(answer.max_age(), Some(left * 60), "{script}");
                }
            }
            let at = format!("{commits:?} {script}");
            // A logout begins the session anew.
            let left = if script.contains("reset") { HOUR } else { HOUR / 2 };
            expect_end_after(&mut browser, &clock, left, count, &at).await;
        }
    }
}

async fn other_requests_extend_as_ever(mode: Mode) {
    for commits in Commits::ALL {
        for script in ["/add", "/read"] {
            let (mut browser, clock) = begun(commits, mode, |builder| builder.rolling(true)).await;
            clock.advance(HOUR / 2);
            browser.get("/read?poll").await;
            let count = browser.get(script).await.body;
            expect_end_after(&mut browser, &clock, HOUR, &count, script).await;
        }
    }
}

async fn a_poll_begins_a_session_that_lives_as_long_as_any(mode: Mode) {
    for commits in Commits::ALL {
        let (mut browser, clock) = begun(commits, mode, |builder| builder).await;
        browser.jar.clear();
        clock.advance(SECOND);
        browser.get("/add?poll").await.set_cookie();
        expect_end_after(&mut browser, &clock, HOUR, "1", &format!("{commits:?}")).await;
    }
}

async fn an_idle_timeout_that_a_poll_sets_counts_from_there(mode: Mode) {
    for commits in Commits::ALL {
        let (mut browser, clock) = begun(commits, mode, |builder| builder).await;
        clock.advance(HOUR / 2);
        browser.get("/longer?poll").await;
        // And the next poll keeps to it.
        clock.advance(HOUR);
        browser.get("/add?poll").await;
        let left = 2 * DAY - HOUR;
        expect_end_after(&mut browser, &clock, left, "2", &format!("{commits:?}")).await;
    }
}

async fn a_login_in_a_poll_begins_the_session_anew(mode: Mode) {
    for commits in Commits::ALL {
        let owner = |visits: &Visits| (visits.count > 1).then(|| "ada".to_owned());
        let (mut browser, clock) = begun(commits, mode, |builder| builder.owner(owner)).await;
        clock.advance(HOUR / 2);
        browser.get("/add?poll").await;
        expect_end_after(&mut browser, &clock, HOUR, "2", &format!("{commits:?}")).await;
    }
}

async fn the_question_is_asked_once_in_a_request(mode: Mode) {
    for commits in Commits::ALL {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ask = move |_: &Parts| count.fetch_add(1, Ordering::Relaxed) < 100;
        let options = |builder: SessionManagerBuilder<Visits>| builder.rolling(true).extend_if(ask);
        let (mut browser, clock) = begun(commits, mode, options).await;
        clock.advance(HOUR / 2);
        browser.get("/add").await;
        browser.get("/read").await;
        browser.get("/regenerate").await;
        assert_eq!(asked.load(Ordering::Relaxed), 4, "{commits:?}");
    }
}

#[tokio::test]
async fn each_commit_of_a_poll_keeps_the_expiry() {
    for mode in [Mode::Cookie, Mode::Store] {
        let (mut browser, clock) =
            begun(Commits::Handler, mode, |builder| builder.rolling(true)).await;
        clock.advance(HOUR / 2);
        browser.get("/add/commit/regenerate/commit/read/commit/add?poll").await;
        expect_end_after(&mut browser, &clock, HOUR / 2, "3", "the first expiry").await;
    }
}

#[tokio::test]
async fn an_unchanged_poll_makes_no_store_call_but_the_load() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let builder = SessionManager::builder().store(store.clone()).clock(clock.clone());
    let sessions = builder.rolling(true).extend_if(is_no_poll).build().unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.get("/add").await;
    for (script, calls) in [("/read?poll", vec!["load"]), ("/read", vec!["load", "touch"])] {
        clock.advance(HOUR);
        store.take_calls();
        browser.get(script).await;
        assert_eq!(store.take_calls(), calls, "{script}");
    }
}

#[tokio::test]
async fn a_poll_that_saves_looks_for_extensions_only_where_requests_give_them() {
    for (rolling, script, calls) in [
        (false, "/add?poll", vec!["load", "save"]),
        (true, "/add?poll", vec!["load", "load", "save"]),
        (true, "/add", vec!["load", "save"]),
    ] {
        let clock = ManualClock::new();
        let store = ProbeStore::new(&clock);
        let builder = SessionManager::builder().store(store.clone()).clock(clock.clone());
        let sessions = builder.rolling(rolling).extend_if(is_no_poll).build().unwrap();
        let mut browser = Browser::new(scripted(sessions));
        browser.get("/add").await;
        clock.advance(HOUR);
        store.take_calls();
        browser.get(script).await;
        assert_eq!(store.take_calls(), calls, "{rolling} {script}");
    }
}

#[tokio::test]
async fn a_poll_seals_again_what_a_former_key_sealed_and_keeps_the_expiry() {
    let (former, clock) = (Key::generate(), ManualClock::new());
    let app = |ring: KeyRing| {
        let builder = SessionManager::builder().clock(clock.clone()).keys(ring);
        scripted(builder.idle_timeout(HOUR).rolling(true).extend_if(is_no_poll).build().unwrap())
    };
    let mut browser = Browser::new(app(former.clone().into()));
    browser.get("/add").await;
    let mut browser = browser.at(&app(KeyRing::new(key()).accept_former(former)));
    clock.advance(HOUR / 2);
    assert_eq!(browser.get("/read?poll").await.max_age(), Some(1800));
    expect_end_after(&mut browser, &clock, HOUR / 2, "1", "sealed again").await;
}

#[tokio::test]
async fn an_update_of_a_poll_keeps_the_expiry() {
    let update = async |mut session: Session<Visits>| {
        session.update(|visits| visits.count += 1).await?;
        session.commit().await
    };
    for (query, left) in [("?poll", HOUR / 2), ("", HOUR)] {
        let clock = ManualClock::new();
        let builder = Mode::Store.builder(&clock).idle_timeout(HOUR).rolling(true);
        let sessions = builder.extend_if(is_no_poll).build().unwrap();
        let app = Router::new().route("/update", get(update)).with_state(sessions.clone());
        let mut browser = Browser::new(app.fallback_service(scripted(sessions)));
        browser.get("/add").await;
        clock.advance(HOUR / 2);
        let answer = browser.get(&format!("/update{query}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        expect_end_after(&mut browser, &clock, left, "2", query).await;
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Page {
    views: Counter,
}

/// A store's row moves on between the load of a request and its commit.
#[tokio::test]
async fn a_poll_that_merges_keeps_the_expiry_that_the_other_request_gave() {
    // Whether the slow request and the quick one extend; when they ran last, in minutes.
    for (slow_extends, quick_extends, expires) in
        [(false, true, 30 + 60), (true, false, 40 + 60), (false, false, 60), (true, true, 40 + 60)]
    {
        let (clock, extends) = (ManualClock::new(), Arc::new(AtomicBool::new(true)));
        let asked = extends.clone();
        let builder = Mode::Store.builder::<Page>(&clock).idle_timeout(HOUR);
        let builder = builder.extend_if(move |_| asked.load(Ordering::Relaxed));
        let mut browser = Browser::new(visited(builder.build().unwrap()));
        let view = |session: &mut Session<Page>| session.views += 1;
        change(&mut browser, view).await;
        clock.advance(20 * MINUTE);
        extends.store(slow_extends, Ordering::Relaxed);
        let overlapped = overlap(&browser, view, async |browser| {
            clock.advance(10 * MINUTE);
            extends.store(quick_extends, Ordering::Relaxed);
            assert_eq!(change(browser, view).await.status, StatusCode::OK);
            clock.advance(10 * MINUTE);
        });
        assert_eq!(overlapped.await.slow.status, StatusCode::OK);
        clock.advance((expires - 40) * MINUTE - MILLISECOND);
        extends.store(false, Ordering::Relaxed);
        assert!(seen::<Page>(&browser).await.is_some_and(|page| page.views == 3));
        clock.advance(MILLISECOND);
        assert!(seen::<Page>(&browser).await.is_none(), "{slow_extends} {quick_extends}");
    }
}

/// Most stores keep a row's version where only its expiry moves, so no conflict tells.
#[tokio::test]
async fn what_a_poll_saves_takes_back_no_extension_that_another_request_gave_meanwhile() {
    for regenerates in [false, true] {
        let clock = ManualClock::new();
        let builder = Mode::Store.builder(&clock).idle_timeout(HOUR).extend_if(is_no_poll);
        let sessions = builder.rolling(true).build().unwrap();
        let mut browser = Browser::new(changing::<Visits>(sessions.clone()));
        let add = |session: &mut Session<Visits>| session.count += 1;
        browser.send_with(Request::post("/"), Change::new(add)).await.set_cookie();
        let gate = Gate::new();
        let poll = {
            let mut browser = browser.clone();
            let save = Change::behind(gate.clone(), move |session: &mut Session<Visits>| {
                add(session);
                if regenerates {
                    session.regenerate();
                }
            });
            tokio::spawn(async move {
                let answer = browser.send_with(Request::post("/?poll"), save).await;
                answer.expect_status(StatusCode::OK);
                browser
            })
        };
        gate.reached(1).await;
        clock.advance(HOUR / 2);
        browser.at(&scripted(sessions.clone())).get("/read").await.expect_no_cookie();
        gate.open();
        let mut browser = poll.await.unwrap().at(&scripted(sessions));
        expect_end_after(&mut browser, &clock, HOUR, "2", "extended").await;
    }
}

#[tokio::test]
async fn an_update_of_a_poll_takes_back_no_extension_that_another_request_gave_meanwhile() {
    let (clock, extends) = (ManualClock::new(), Arc::new(AtomicBool::new(true)));
    let asked = extends.clone();
    let builder = Mode::Store.builder::<Page>(&clock).idle_timeout(HOUR).rolling(true);
    let sessions = builder.extend_if(move |_| asked.load(Ordering::Relaxed)).build().unwrap();
    let mut browser = Browser::new(visited(sessions));
    let view = |session: &mut Session<Page>| session.views += 1;
    change(&mut browser, view).await;
    let gate = Gate::new();
    extends.store(false, Ordering::Relaxed);
    let waiting = gate.clone();
    let poll = spawned(&browser, async move |mut visit: Visit<Page>| {
        let mut session = visit.session().await?;
        waiting.pass().await;
        session.update(|page| page.views += 1).await?;
        Ok(session.commit().await?.into_response())
    });
    gate.reached(1).await;
    clock.advance(HOUR / 2);
    extends.store(true, Ordering::Relaxed);
    let reads = |_: &mut Session<Page>| ();
    assert_eq!(change(&mut browser, reads).await.status, StatusCode::OK);
    gate.open();
    assert_eq!(poll.await.unwrap().0.status, StatusCode::OK);
    extends.store(false, Ordering::Relaxed);
    clock.advance(HOUR - MILLISECOND);
    assert!(seen::<Page>(&browser).await.is_some_and(|page| page.views == 2));
    clock.advance(MILLISECOND);
    assert!(seen::<Page>(&browser).await.is_none());
}

#[tokio::test]
async fn a_guard_tells_the_end_that_its_commit_has_given() {
    let commit = async |mut session: Session<Visits>, uri: Uri| -> Result<_, SessionError> {
        act(&mut session, uri.path().trim_start_matches('/'));
        let guard = session.commit().await?;
        let ends = guard.expires_at().map(|time| time.unix_timestamp().to_string());
        Ok((guard, ends.unwrap_or_else(|| "-".to_owned())))
    };
    for mode in [Mode::Cookie, Mode::Store] {
        let clock = ManualClock::new();
        let builder = mode.builder::<Visits>(&clock).idle_timeout(HOUR).rolling(true);
        let app = Router::new().fallback(commit).with_state(builder.build().unwrap());
        let mut browser = Browser::new(app);
        let in_an_hour = || (clock.now() + HOUR).unix_timestamp().to_string();
        browser.get("/read").await.expect(StatusCode::OK, "-");
        browser.get("/add").await.expect(StatusCode::OK, &in_an_hour());
        clock.advance(HOUR / 2);
        browser.get("/read").await.expect(StatusCode::OK, &in_an_hour());
        browser.get("/destroy").await.expect(StatusCode::OK, "-");
    }
}
