//! Real logout in cookie mode.

use axum::{Extension, Router, response::IntoResponse, routing::post};
use axum_typed_session::{
    MemoryStore, Session, SessionError,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::{Request, StatusCode};

use crate::support::{Answer, Browser, COOKIE, DAY, SECOND, Visits, cookie_mode};

/// What the handler is to do: wait at a gate, then act.
#[derive(Clone)]
struct Act(Gate, fn(&mut Session<Visits>));

async fn act(
    mut session: Session<Visits>,
    Extension(Act(gate, wish)): Extension<Act>,
) -> Result<impl IntoResponse, SessionError> {
    gate.pass().await;
    wish(&mut session);
    let count = session.count.to_string();
    Ok((session.commit().await?, count))
}

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
        let node = || {
            let sessions = cookie_mode(&clock).revocations(list.clone()).build().unwrap();
            Router::new().route("/", post(act)).with_state(sessions)
        };
        let nodes = [node(), node()];
        Self { clock, list, nodes }
    }
}

fn open() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

async fn run(browser: &mut Browser, wish: fn(&mut Session<Visits>)) -> Answer {
    browser.send_with(Request::post("/"), Act(open(), wish)).await
}

async fn logged_in(world: &World) -> Browser {
    let mut browser = Browser::new(world.nodes[0].clone());
    run(&mut browser, |session| session.count = 5).await.expect(StatusCode::OK, "5");
    browser
}

/// Sends the browser's cookie to the other node.
async fn replay(world: &World, browser: &Browser) -> String {
    let mut other = Browser::new(world.nodes[1].clone());
    other.jar = browser.jar.clone();
    run(&mut other, |_| {}).await.body
}

#[tokio::test]
async fn a_replayed_cookie_is_anonymous_on_every_node_after_destroy_and_regenerate() {
    let wishes: [fn(&mut Session<Visits>); 2] =
        [|session| session.destroy(), |session| session.regenerate()];
    for wish in wishes {
        let world = World::new();
        let mut browser = logged_in(&world).await;
        let stolen = browser.clone();
        assert_eq!(replay(&world, &stolen).await, "5");
        assert_eq!(run(&mut browser, wish).await.status, StatusCode::OK);
        assert_eq!(replay(&world, &stolen).await, "0");
        // Until the last token of that id has expired.
        world.clock.advance(DAY.checked_sub(SECOND).unwrap());
        assert_eq!(replay(&world, &stolen).await, "0");
    }
}

#[tokio::test]
async fn regenerate_keeps_the_session_under_its_new_id() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    run(&mut browser, Session::regenerate).await;
    assert_eq!(replay(&world, &browser).await, "5");
}

#[tokio::test]
async fn a_request_in_flight_that_seals_the_cookie_again_does_not_revive_it() {
    let world = World::new();
    let browser = logged_in(&world).await;
    let gate = Gate::new();
    let mut slow = browser.clone();
    let act = Act(gate.clone(), |session| session.count += 1);
    let request = tokio::spawn(async move {
        let answer = slow.send_with(Request::post("/"), act).await;
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
    assert_eq!(replay(&world, &slow).await, "0");
}

#[tokio::test]
async fn a_request_that_commits_after_the_logout_is_gone() {
    let world = World::new();
    let browser = logged_in(&world).await;
    let gate = Gate::new();
    let mut slow = browser.clone();
    let act = Act(gate.clone(), |session| session.count += 1);
    let request = tokio::spawn(async move { slow.send_with(Request::post("/"), act).await });
    gate.reached(1).await;
    run(&mut browser.clone(), Session::destroy).await;
    gate.open();
    let answer = request.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    answer.expect_no_cookie();
}

#[tokio::test]
async fn a_logout_that_races_a_regenerate_ends_the_session_under_its_new_id() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let gate = Gate::new();
    let mut slow = browser.clone();
    let act = Act(gate.clone(), Session::destroy);
    let request = tokio::spawn(async move { slow.send_with(Request::post("/"), act).await });
    gate.reached(1).await;
    run(&mut browser, Session::regenerate).await;
    gate.open();
    let answer = request.await.unwrap();
    assert_eq!((answer.status, answer.told()), (StatusCode::OK, "removed"));
    assert_eq!(replay(&world, &browser).await, "0");
}

#[tokio::test]
async fn an_expired_cookie_of_a_former_id_is_removed_by_a_logout() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let mut old = browser.clone();
    run(&mut browser, Session::regenerate).await;
    world.clock.advance(DAY);
    let answer = run(&mut old, Session::destroy).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!old.has_session());
}

#[tokio::test]
async fn neither_of_two_regenerates_undoes_the_other() {
    let world = World::new();
    let browser = logged_in(&world).await;
    let gate = Gate::new();
    let (mut slow, mut quick) = (browser.clone(), browser.clone());
    let act = Act(gate.clone(), Session::regenerate);
    let request = tokio::spawn(async move {
        let answer = slow.send_with(Request::post("/"), act).await;
        (answer, slow)
    });
    gate.reached(1).await;
    run(&mut quick, Session::regenerate).await;
    gate.open();
    let (answer, slow) = request.await.unwrap();
    assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"));
    // Whichever answer arrives last, its session is there.
    assert_ne!(slow.token(), quick.token());
    for (browser, count) in [(&slow, "5"), (&quick, "5"), (&browser, "0")] {
        assert_eq!(replay(&world, browser).await, count);
    }
}

#[tokio::test]
async fn a_regenerate_beside_a_logout_is_gone() {
    let world = World::new();
    let browser = logged_in(&world).await;
    let gate = Gate::new();
    let mut slow = browser.clone();
    let act = Act(gate.clone(), Session::regenerate);
    let request = tokio::spawn(async move { slow.send_with(Request::post("/"), act).await });
    gate.reached(1).await;
    run(&mut browser.clone(), Session::destroy).await;
    gate.open();
    request.await.unwrap().expect_error(StatusCode::CONFLICT).expect_no_cookie();
}

#[tokio::test]
async fn the_old_cookie_cannot_overwrite_a_fresh_login_but_may_log_in_again_after_a_logout() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    let old = browser.clone();
    run(&mut browser, Session::regenerate).await;
    let answer = run(&mut old.clone(), |session| session.count = 1).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    answer.expect_no_cookie();

    let mut browser = logged_in(&world).await;
    let old = browser.clone();
    run(&mut browser, Session::destroy).await;
    run(&mut old.clone(), |session| session.count = 1).await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn a_list_that_cannot_be_reached_is_503_and_keeps_the_cookie() {
    let world = World::new();
    let mut browser = logged_in(&world).await;
    world.list.inject(Operation::all(), Fault::Fail);
    let answer = run(&mut browser, |session| session.count = 6).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    answer.expect_no_cookie();
    world.list.heal();
    world.list.inject(Operation::Save, Fault::Fail);
    let answer = run(&mut browser, Session::destroy).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    answer.expect_no_cookie();
    world.list.heal();
    assert_eq!(replay(&world, &browser).await, "5");
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
