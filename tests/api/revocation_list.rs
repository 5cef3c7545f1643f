//! What a revocation list keeps and for how long; a full one revokes loudly or not at all.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::response::IntoResponse as _;
use axum_typed_session::{
    Key, KeyRing, MemoryStore, Session, SessionError, SessionManagerBuilder, SessionStore,
    StoreKey, delegate_session_store,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation, TestSession},
};
use http::{Request, StatusCode};

use crate::{
    logins::{FRESH, Login, app, logins, router},
    requests::{Visit, run, visited},
    support::{
        Browser, Change, DAY, HOUR, Log, MILLISECOND, MINUTE, Visits, changing, cookie_mode, key,
        scripted, send,
    },
};

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

/// Logins over a list on a manual clock: whoever is not logged in lives for ten minutes.
struct World {
    clock: ManualClock,
    list: MemoryStore,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let list = MemoryStore::builder().clock(clock.clone()).build();
        Self { clock, list }
    }

    fn manager(&self) -> SessionManagerBuilder<Login> {
        logins(&self.clock)
            .owner(|login: &Login| login.user.clone())
            .anonymous_idle_timeout(10 * MINUTE)
            .revocations(self.list.clone())
    }

    async fn key_of(&self, browser: &mut Browser) -> StoreKey {
        let ids = browser.get("/id").await.body;
        ids.split_once(' ').unwrap().0.parse().unwrap()
    }

    async fn holds(&self, key: &StoreKey) -> bool {
        matches!(self.list.load(key).await, Ok(Some(_)))
    }
}

#[tokio::test]
async fn an_entry_lives_ten_minutes_longer_than_the_last_token_of_its_session() {
    for (user, idle_timeout) in [(None, 10 * MINUTE), (Some("ada"), DAY)] {
        let world = World::new();
        let mut browser = Browser::new(app(world.manager()));
        browser.post("/note?mine").await;
        if let Some(user) = user {
            browser.post(&format!("/user?{user}")).await.set_cookie();
        }
        let key = world.key_of(&mut browser).await;
        let mut replay = browser.clone();
        browser.post("/destroy").await.expect_status(StatusCode::OK);
        world.clock.advance(idle_timeout - MILLISECOND);
        replay.get("/").await.expect(StatusCode::OK, FRESH);
        world.clock.advance(10 * MINUTE);
        assert!(world.holds(&key).await, "{user:?}");
        world.clock.advance(MILLISECOND);
        assert!(!world.holds(&key).await, "{user:?}");
        replay.get("/").await.expect(StatusCode::OK, FRESH);
    }
}

#[tokio::test]
async fn a_list_that_visitors_filled_takes_logouts_again_within_their_idle_timeout_and_ten_minutes()
{
    let clock = ManualClock::new();
    let list = MemoryStore::builder().max_bytes(2000).clock(clock.clone()).build();
    let world = World { clock: clock.clone(), list };
    let app = app(world.manager());
    // First the larger entries of new ids, then those of logouts, so that no room is left for either.
    let mut browser = Browser::new(app.clone());
    for path in ["/regenerate", "/destroy"] {
        loop {
            browser.post("/note?mine").await;
            if browser.post(path).await.status == StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
        }
    }
    let mut other = Browser::new(app);
    clock.advance(20 * MINUTE);
    other.post("/user?ada").await;
    other.post("/regenerate").await.expect_status(StatusCode::OK);
    other.post("/destroy").await.expect_status(StatusCode::OK);
}

/// The list forgets an id by the life of the token that logged out. No copy may live longer under that id.
#[tokio::test]
async fn a_copy_that_was_given_a_longer_life_got_another_id_and_ends_with_the_session_it_left() {
    let world = World::new();
    let app = app(world.manager());
    for (login, action) in [
        ("/user?ada", "/max-age?2000000"),
        ("/user?ada", "/browser?2000000"),
        ("/user?ada", "/max-age?60"),
        ("/note?mine", "/user?ada"),
        ("/note?mine", "/max-age?60"),
    ] {
        let mut browser = Browser::new(app.clone());
        browser.post(login).await.set_cookie();
        let (key, mut copy) = (world.key_of(&mut browser).await, browser.clone());
        copy.post(action).await.set_cookie();
        assert_ne!(world.key_of(&mut copy).await, key, "{action}");
        browser.get("/").await.expect(StatusCode::OK, FRESH);
        browser.post("/destroy").await.expect_status(StatusCode::OK);
        copy.get("/").await.expect(StatusCode::OK, FRESH);
        for _ in 0..40 {
            world.clock.advance(DAY);
            copy.get("/").await.expect(StatusCode::OK, FRESH);
        }
    }
}

#[tokio::test]
async fn a_save_that_changes_no_life_keeps_the_id() {
    let world = World::new();
    let mut browser = Browser::new(app(world.manager()));
    browser.post("/note?mine").await;
    let key = world.key_of(&mut browser).await;
    for action in ["/note?later", "/max-age?600", "/max-age?600", "/reset"] {
        browser.post(action).await.set_cookie();
        assert_eq!(world.key_of(&mut browser).await, key, "{action}");
    }
}

#[tokio::test]
async fn a_token_lives_no_longer_than_todays_idle_timeout() {
    let clock = ManualClock::new();
    let mut browser = Browser::new(app(logins(&clock).idle_timeout(7 * DAY)));
    browser.post("/note?mine").await;
    let mut elsewhere = browser.at(&app(logins(&clock).idle_timeout(HOUR)));
    elsewhere.get("/").await.expect(StatusCode::OK, "mine");
    elsewhere.get("/times").await.expect(StatusCode::OK, "0 3600000");
    clock.advance(HOUR);
    elsewhere.get("/").await.expect(StatusCode::OK, FRESH);
    browser.get("/").await.expect(StatusCode::OK, "mine");
}

/// A slow page must not bring the cookie of an ended session back into the browser.
#[tokio::test]
async fn an_answer_that_arrives_after_the_logout_sends_no_dead_cookie() {
    let (world, former) = (World::new(), Key::generate());
    let ring = KeyRing::new(key()).accept_former(former.clone());
    let cases =
        [(world.manager().rolling(true), HOUR), (world.manager().keys(ring), Duration::ZERO)];
    for (manager, later) in cases {
        let mut browser = Browser::new(app(world.manager().keys(former.clone())));
        if later > Duration::ZERO {
            browser = Browser::new(app(world.manager()));
        }
        browser.post("/user?ada").await;
        world.clock.advance(later);
        let sessions = manager.build().unwrap();
        let gate = Gate::new();
        let slow_page = {
            let (app, gate) = (changing(sessions.clone()), gate.clone());
            let mut slow = browser.at(&app);
            let read = Change::behind(gate, |session: &mut Session<Login>| _ = session.is_new());
            tokio::spawn(async move { slow.send_with(Request::post("/"), read).await })
        };
        gate.reached(1).await;
        browser.at(&router(sessions)).post("/destroy").await.expect_status(StatusCode::OK);
        gate.open();
        slow_page.await.unwrap().expect_status(StatusCode::OK).expect_no_cookie();
    }
}

/// The logout carries the old cookie, whose life is not that of the session which replaced it.
#[tokio::test]
async fn a_logout_that_meets_a_new_id_ends_it_for_as_long_as_that_session_can_live() {
    for (login, action, later) in
        [("/user?ada", "/max-age?2000000", 2 * DAY), ("/note?mine", "/user?ada", HOUR)]
    {
        let world = World::new();
        let sessions = world.manager().build().unwrap();
        let mut browser = Browser::new(router(sessions.clone()));
        browser.post(login).await.set_cookie();
        let gate = Gate::new();
        let logout = {
            let mut slow = browser.at(&changing(sessions));
            let destroy = Change::behind(gate.clone(), Session::<Login>::destroy);
            tokio::spawn(async move { slow.send_with(Request::post("/"), destroy).await })
        };
        gate.reached(1).await;
        browser.post(action).await.set_cookie();
        gate.open();
        logout.await.unwrap().expect_status(StatusCode::OK);
        browser.get("/").await.expect(StatusCode::OK, FRESH);
        world.clock.advance(later);
        browser.get("/").await.expect(StatusCode::OK, FRESH);
    }
}

#[tokio::test]
async fn an_entry_lives_no_longer_than_the_absolute_timeout_lets_a_session_live() {
    let world = World::new();
    for timeout in [20 * 365 * DAY, Duration::MAX] {
        let mut browser = Browser::new(changing(world.manager().build().unwrap()));
        let login = Change::new(move |session: &mut Session<Login>| {
            session.user = Some("ada".to_owned());
            session.set_idle_timeout(timeout);
        });
        browser.send_with(Request::post("/"), login).await.set_cookie();
        let key = Arc::new(OnceLock::new());
        let logout = {
            let key = key.clone();
            Change::new(move |session: &mut Session<Login>| {
                key.set(session.id().unwrap().store_key()).unwrap();
                session.destroy();
            })
        };
        browser.send_with(Request::post("/"), logout).await.expect_status(StatusCode::OK);
        let key = key.get().unwrap();
        world.clock.advance(30 * DAY + 10 * MINUTE - MILLISECOND);
        assert!(world.holds(key).await, "{timeout:?}");
        world.clock.advance(MILLISECOND);
        assert!(!world.holds(key).await, "{timeout:?}");
    }
}

#[tokio::test]
async fn a_session_of_the_longest_timeout_can_be_ended_in_the_request_that_set_it() {
    let world = World::new();
    let mut browser = Browser::new(visited(world.manager().build().unwrap()));
    let answer = run(&mut browser, async move |mut visit: Visit<Login>| {
        let mut session = visit.session().await?;
        session.user = Some("ada".to_owned());
        session.set_idle_timeout(Duration::MAX);
        let login = session.commit().await?;
        let mut session = visit.session().await?;
        session.destroy();
        Ok((login, session.commit().await?).into_response())
    });
    answer.await.expect_status(StatusCode::OK);
}

/// Tokens count milliseconds.
#[tokio::test]
async fn an_idle_timeout_with_a_fraction_of_a_millisecond_is_the_same_at_the_next_commit() {
    let world = World::new();
    let mut browser = Browser::new(changing(world.manager().build().unwrap()));
    let login = Change::new(|session: &mut Session<Login>| {
        session.user = Some("ada".to_owned());
        session.set_idle_timeout(DAY / 7);
    });
    browser.send_with(Request::post("/"), login.clone()).await.set_cookie();
    let mut copy = browser.clone();
    browser.send_with(Request::post("/"), login).await.set_cookie();
    assert_eq!(copy.get("/").await.body, browser.get("/").await.body, "it got another id");
}

/// The list has no entry yet while the logout waits for it, so a copy is sealed once more.
#[tokio::test]
async fn a_logout_over_a_slow_list_outlives_the_tokens_that_were_sealed_meanwhile() {
    let world = World::new();
    let list = FaultyStore::new(world.list.clone());
    let manager = world.manager().rolling(true).store_timeout(DAY);
    let mut browser = Browser::new(app(manager.revocations(list.clone())));
    browser.post("/note?mine").await;
    let gate = Gate::new();
    list.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let logout = {
        let mut browser = browser.clone();
        tokio::spawn(async move { browser.post("/destroy").await })
    };
    gate.reached(1).await;
    for _ in 0..4 {
        world.clock.advance(5 * MINUTE);
        browser.post("/commit").await.set_cookie();
    }
    gate.open();
    logout.await.unwrap().expect_status(StatusCode::OK);
    browser.get("/").await.expect(StatusCode::OK, FRESH);
}

#[tokio::test]
async fn an_operator_ends_a_session_of_cookie_mode_by_its_key() {
    let world = World::new();
    let sessions = world.manager().build().unwrap();
    let mut browser = Browser::new(router(sessions.clone()));
    browser.post("/user?ada").await;
    let key = world.key_of(&mut browser).await;
    sessions.destroy(key).await.unwrap();
    browser.get("/").await.expect(StatusCode::OK, FRESH);
    sessions.destroy(key).await.expect("it has ended already");

    browser.post("/user?ada").await;
    let key = world.key_of(&mut browser).await;
    browser.post("/regenerate").await.expect_status(StatusCode::OK);
    let error = sessions.destroy(key).await.unwrap_err();
    assert!(matches!(error, SessionError::Gone), "it goes on under a new id");
    let key = world.key_of(&mut browser).await;
    sessions.destroy(key).await.unwrap();
    browser.get("/").await.expect(StatusCode::OK, FRESH);

    let without_list = logins(&world.clock).build().unwrap();
    let error = without_list.destroy(key).await.unwrap_err();
    assert!(matches!(error, SessionError::NoStore { operation: "destroy" }));
}

/// A list that outlives the process, as far as a test can tell.
struct Durable(MemoryStore);

impl SessionStore for Durable {
    delegate_session_store!(all except survives_restart => self.0);

    fn survives_restart(&self) -> bool {
        true
    }
}

#[test]
fn a_list_in_this_process_is_warned_of() {
    let world = World::new();
    for (manager, warns) in [
        (world.manager(), true),
        (world.manager().revocations(Arc::new(world.list.clone())), true),
        (world.manager().revocations(Durable(world.list.clone())), false),
    ] {
        let log = Log::start();
        assert!(manager.build().is_ok());
        let lines = log.take().concat();
        assert_eq!(lines.contains("a restart loses the list"), warns, "{lines}");
    }
}
