//! Real logout in cookie mode.

use axum::Router;
use axum_typed_session::{
    MemoryStore, Session, SessionStore, StoreError, delegate_session_store,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::{Request, StatusCode};

use crate::support::{Answer, Browser, COOKIE, Change, DAY, SECOND, Visits, changing, cookie_mode};

type Wish = fn(&mut Session<Visits>);

struct World {
    clock: ManualClock,
    list: FaultyStore<MemoryStore>,
    /// Two nodes that share the list.
    nodes: [Router; 2],
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let list = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
        let node = || changing(cookie_mode(&clock).revocations(list.clone()).build().unwrap());
        let nodes = [node(), node()];
        Self { clock, list, nodes }
    }
}

async fn run(browser: &mut Browser, wish: Wish) -> Answer {
    browser.send_with(Request::post("/"), Change::new(wish)).await
}

/// What the session counts for whoever sends the browser's cookie to the other node.
async fn count(world: &World, browser: &Browser) -> u32 {
    let answer = browser.at(&world.nodes[1]).get("/").await.expect_status(StatusCode::OK);
    serde_json::from_str::<Visits>(&answer.body).unwrap().count
}

async fn logged_in(world: &World) -> Browser {
    let mut browser = Browser::new(world.nodes[0].clone());
    run(&mut browser, |session| session.count = 5).await.expect_status(StatusCode::OK);
    browser
}

/// Lets a slow request load the session, runs `quick` to its end, and lets the slow one act after it.
async fn overlap(browser: &mut Browser, slow: Wish, quick: Wish) -> Answer {
    let gate = Gate::new();
    let (mut slow_browser, slow) = (browser.clone(), Change::behind(gate.clone(), slow));
    let request =
        tokio::spawn(async move { slow_browser.send_with(Request::post("/"), slow).await });
    gate.reached(1).await;
    run(browser, quick).await.expect_status(StatusCode::OK);
    gate.open();
    request.await.unwrap()
}

#[tokio::test]
async fn a_replayed_cookie_is_anonymous_on_every_node_after_destroy_and_regenerate() {
    for wish in [Session::destroy as Wish, Session::regenerate] {
        let world = World::new();
        let mut browser = logged_in(&world).await;
        let stolen = browser.clone();
        assert_eq!(count(&world, &stolen).await, 5);
        assert_eq!(run(&mut browser, wish).await.status, StatusCode::OK);
        assert_eq!(count(&world, &stolen).await, 0);
        // Until the last token of that id has expired.
        world.clock.advance(DAY.checked_sub(SECOND).unwrap());
        assert_eq!(count(&world, &stolen).await, 0);
    }
}

#[tokio::test]
async fn regenerate_keeps_the_session_under_its_new_id() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    run(&mut browser, Session::regenerate).await;
    assert_eq!(count(&world, &browser).await, 5);
}

#[tokio::test]
async fn a_request_in_flight_that_seals_the_cookie_again_does_not_revive_it() {
    let world = World::new();
    let browser = logged_in(&world).await;
    let gate = Gate::new();
    let mut slow = browser.clone();
    let add = Change::behind(gate.clone(), |session: &mut Session<Visits>| session.count += 1);
    let request = tokio::spawn(async move {
        let answer = slow.send_with(Request::post("/"), add).await;
        (answer, slow)
    });
    gate.reached(1).await;
    // The list tells the slow request that all is well, just before the logout.
    let asked = Gate::new();
    world.list.inject_next(1, Operation::Load, Fault::HoldAnswer(asked.clone()));
    gate.open();
    asked.reached(1).await;
    run(&mut browser.clone(), Session::destroy).await;
    asked.open();
    let (answer, slow) = request.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(slow.token(), browser.token());
    assert_eq!(count(&world, &slow).await, 0);
}

#[tokio::test]
async fn a_request_that_commits_after_the_logout_is_gone() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let late = overlap(&mut browser, |session| session.count += 1, Session::destroy).await;
    late.expect_status(StatusCode::CONFLICT).expect_no_cookie();
}

#[tokio::test]
async fn a_logout_that_races_a_regenerate_ends_the_session_under_its_new_id() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let logout = overlap(&mut browser, Session::destroy, Session::regenerate).await;
    assert_eq!((logout.status, logout.told()), (StatusCode::OK, "removed"));
    assert_eq!(count(&world, &browser).await, 0);
}

#[tokio::test]
async fn an_expired_cookie_of_a_former_id_is_removed_by_a_logout() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let mut old = browser.clone();
    run(&mut browser, Session::regenerate).await;
    world.clock.advance(DAY);
    run(&mut old, Session::destroy).await.expect_status(StatusCode::OK);
    assert!(!old.has_session());
}

#[tokio::test]
async fn neither_of_two_regenerates_undoes_the_other() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let (old, mut other) = (browser.clone(), browser.clone());
    let second = overlap(&mut browser, Session::regenerate, Session::regenerate).await;
    other.jar.insert(COOKIE.to_owned(), second.expect_status(StatusCode::OK).token());
    // Whichever answer arrives last, its session is there.
    assert_ne!(other.token(), browser.token());
    for (browser, expected) in [(&browser, 5), (&other, 5), (&old, 0)] {
        assert_eq!(count(&world, browser).await, expected);
    }
}

#[tokio::test]
async fn a_regenerate_beside_a_logout_is_gone() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let late = overlap(&mut browser, Session::regenerate, Session::destroy).await;
    late.expect_error(StatusCode::CONFLICT).expect_no_cookie();
}

#[tokio::test]
async fn the_old_cookie_cannot_overwrite_a_fresh_login_but_may_log_in_again_after_a_logout() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let old = browser.clone();
    run(&mut browser, Session::regenerate).await;
    let answer = run(&mut old.clone(), |session| session.count = 1).await;
    answer.expect_status(StatusCode::CONFLICT).expect_no_cookie();

    let mut browser = logged_in(&world).await;
    let old = browser.clone();
    run(&mut browser, Session::destroy).await;
    run(&mut old.clone(), |session| session.count = 1).await.expect_status(StatusCode::OK);
}

#[tokio::test]
async fn a_list_that_cannot_be_reached_is_503_and_keeps_the_cookie() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    world.list.inject(Operation::all(), Fault::Fail);
    let answer = run(&mut browser, |session| session.count = 6).await;
    answer.expect_status(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    world.list.heal();
    world.list.inject(Operation::Save, Fault::Fail);
    let answer = run(&mut browser, Session::destroy).await;
    answer.expect_status(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    world.list.heal();
    assert_eq!(count(&world, &browser).await, 5);
}

/// A list none of whose entries can be read.
struct Damaged(MemoryStore);

impl SessionStore for Damaged {
    delegate_session_store!(all except load => self.0, async |_, call| call.await);
    delegate_session_store!(load => self.0, async |_, call| match call.await? {
        Some(_entry) => Err(StoreError::Corrupt),
        None => Ok(None),
    });
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_revokes_all_the_same() {
    let clock = ManualClock::new();
    let list = Damaged(MemoryStore::builder().clock(clock.clone()).build());
    let node = changing(cookie_mode(&clock).revocations(list).build().unwrap());
    let world = World { nodes: [node.clone(), node], ..World::new() };
    let mut browser = logged_in(&world).await;
    let stolen = browser.clone();
    assert_eq!(count(&world, &stolen).await, 5);
    run(&mut browser, Session::destroy).await.expect_status(StatusCode::OK);
    assert_eq!(count(&world, &stolen).await, 0);
}

#[tokio::test]
async fn a_visitor_without_a_session_costs_the_list_nothing() {
    let world = World::new();
    let mut browser = Browser::new(world.nodes[0].clone());
    run(&mut browser, |session| session.count = 1).await;
    assert_eq!(world.list.calls(Operation::all()), 0);
    browser.jar.insert(COOKIE.into(), "garbage".into());
    run(&mut browser, |_| {}).await;
    assert_eq!(world.list.calls(Operation::all()), 0);
}
