//! A commit that outlives its handler, is dropped, or never learns what its write did.

use std::sync::{Arc, Mutex};

use axum::{Router, routing::post};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::{Request, StatusCode};
use tokio::sync::oneshot;

use crate::{
    cancellation::{Pausing, Wish, poll, request},
    requests::{change, seen, settle, spawned, visited},
    support::{Answer, Browser, SECOND, key},
    world::{self, Data, Memory, World},
};

const REGENERATE: Wish = Session::regenerate;
const LOG_IN: Wish = |session| {
    session.user = Some("ann".to_owned());
    session.regenerate();
};

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

/// Ann, with something in her list.
fn ann() -> Data {
    Data { list: list(&["tea"]), ..Data::of("ann") }
}

/// A handler under the layer that commits in a task of its own and answers while that is under way.
fn spawning(sessions: &SessionManager<Data>, gate: &Gate, wish: Wish) -> (Router, Outcome) {
    let (sender, outcome) = oneshot::channel();
    let (gate, sender) = (gate.clone(), Arc::new(Mutex::new(Some(sender))));
    let handler = move |mut session: Session<Data>| async move {
        let sender = sender.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            wish(&mut session);
            let outcome = session.commit().await;
            sender.send(outcome.map(drop)).unwrap();
        });
        gate.reached(1).await;
    };
    let app = Router::new().route("/", post(handler)).layer(AutoCommitLayer::new());
    let app = app.with_state(sessions.clone());
    (app, outcome)
}

type Outcome = oneshot::Receiver<Result<(), SessionError>>;

/// Sends a request to such a handler, opens the gate when the answer has left or waits for it, and returns
/// both, with the browser that got the answer.
async fn answered(
    browser: &Browser,
    sessions: &SessionManager<Data>,
    gate: &Gate,
    wish: Wish,
) -> (Answer, Browser, Result<(), SessionError>) {
    let (app, outcome) = spawning(sessions, gate, wish);
    let mut browser = browser.at(&app);
    let request = tokio::spawn(async move {
        let answer = browser.send(Request::post("/")).await;
        (answer, browser)
    });
    gate.reached(1).await;
    settle().await;
    gate.open();
    let outcome = outcome.await.unwrap();
    let (answer, browser) = request.await.unwrap();
    (answer, browser, outcome)
}

/// The layer waits for five seconds. Then the response leaves, and nobody is told what comes after it.
#[tokio::test(start_paused = true)]
async fn a_commit_in_a_task_that_ends_after_the_response_is_no_success() {
    let world = World::with(|builder| builder.store_timeout(30 * SECOND));
    let browser = world.browser_with(ann()).await;
    for held in [Fault::Pause, Fault::HoldAnswer] {
        let gate = Gate::new();
        world.store.inject_next(1, Operation::Save, held(gate.clone()));
        let (app, outcome) = spawning(&world.sessions, &gate, |session| session.count += 1);
        let answer = browser.at(&app).send(Request::post("/")).await;
        answer.expect_no_cookie();
        gate.open();
        let outcome = outcome.await.unwrap();
        assert!(matches!(outcome, Err(SessionError::Closed)), "{outcome:?}");
    }
}

#[tokio::test]
async fn of_a_commit_in_a_task_the_client_is_told_or_nothing_came() {
    for (name, start, wish, operation, call, told) in [
        ("a new id", Some(ann()), REGENERATE, Operation::Save, 1, "set"),
        ("a new id", Some(ann()), REGENERATE, Operation::Save, 2, "set"),
        ("a new session", None, LOG_IN, Operation::Save, 1, "set"),
        ("a logout", Some(ann()), Session::destroy, Operation::Destroy, 1, "removed"),
        ("a change", Some(ann()), |session| session.count = 5, Operation::Save, 1, "nothing"),
    ] {
        for held in [Fault::Pause, Fault::HoldAnswer] {
            let world = World::new();
            let browser = match start.clone() {
                Some(data) => world.browser_with(data).await,
                None => world.browser(),
            };
            let gate = Gate::new();
            world.store.inject_next(call - 1, operation, Fault::Pass);
            world.store.inject_next(1, operation, held(gate.clone()));
            let (answer, after, outcome) = answered(&browser, &world.sessions, &gate, wish).await;
            let at = format!("{name}, call {call}: {outcome:?}, {answer:?}");
            let left = seen::<Data>(&after.at(&visited(world.sessions.clone()))).await;
            match outcome {
                Ok(()) => {
                    assert_eq!((answer.status, answer.told()), (StatusCode::OK, told), "{at}");
                    let count = u32::from(name == "a change") * 5;
                    let expected = (name != "a logout").then_some(count);
                    assert_eq!(left.as_ref().map(|data| data.count), expected, "{at}");
                    let user = left.and_then(|data| data.user);
                    assert_eq!(user.is_some(), name != "a logout", "{at}");
                }
                Err(SessionError::Closed) => {
                    answer.expect_no_cookie();
                    assert_eq!(left, start, "{at}");
                }
                Err(error) => panic!("{at}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn with_revocations_a_commit_in_a_task_is_told_or_nothing_came() {
    for (wish, told) in [(REGENERATE, "set"), (Session::destroy as Wish, "removed")] {
        for held in [Fault::Pause, Fault::HoldAnswer] {
            let (list, sessions, _) = revocable();
            let browser = signed_in(&sessions, ann()).await;
            let gate = Gate::new();
            list.inject_next(1, Operation::Save, held(gate.clone()));
            let (answer, after, outcome) = answered(&browser, &sessions, &gate, wish).await;
            let left = seen::<Data>(&after.at(&visited(sessions))).await;
            match outcome {
                Ok(()) => {
                    assert_eq!((answer.status, answer.told()), (StatusCode::OK, told));
                    assert_eq!(left.is_some(), told == "set");
                }
                Err(SessionError::Closed) => {
                    answer.expect_no_cookie();
                    assert_eq!(left, Some(ann()));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A cookie-mode manager whose list of ended sessions fails on demand.
fn revocable() -> (FaultyStore<MemoryStore>, SessionManager<Data>, ManualClock) {
    let clock = ManualClock::new();
    let list = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let builder = SessionManager::builder().keys(key()).revocations(list.clone());
    let builder = builder.owner(|data: &Data| data.user.clone());
    (list, builder.clock(clock.clone()).build().unwrap(), clock)
}

async fn signed_in(sessions: &SessionManager<Data>, data: Data) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    change(&mut browser, |session: &mut Session<Data>| **session = data).await;
    assert!(browser.has_session());
    browser
}

const ROTATIONS: [(&str, Wish); 3] = [
    ("a new id", REGENERATE),
    ("a change and a new id", |session| {
        session.count = 5;
        session.regenerate();
    }),
    ("clear and a new id", |session| {
        session.clear();
        session.regenerate();
    }),
];

/// Asserts what is left soon after a rotation was dropped: one session at most, and if the old cookie still
/// opens it, that one alone. Soon is a minute for clocks that differ, and the time the writes may take.
async fn expect_one_session(world: &World, browser: &Browser, at: &str) {
    world.clock.advance(81 * SECOND);
    world.sessions.delete_expired(100).await.unwrap();
    let (listed, rows) = (world.sessions.sessions_of("ann").await.unwrap(), world.rows().await);
    let left = world.read(&mut browser.clone()).await;
    assert!(rows <= 1 && listed.len() <= rows, "{at}: {rows} rows, {} listed", listed.len());
    let Some(left) = left else {
        return;
    };
    assert_eq!((listed.len(), left.user.as_deref()), (1, Some("ann")), "{at}");
    let logout: Wish = Session::destroy;
    let answer = world.run(&mut browser.clone(), world::change(logout)).await;
    assert_eq!(answer.status, StatusCode::OK, "{at}");
    assert_eq!(world.rows().await, 0, "{at}: a row outlives the logout");
}

#[tokio::test]
async fn a_new_id_that_is_dropped_leaves_one_session() {
    for (name, wish) in ROTATIONS {
        for polls in 0.. {
            let world = World::over_with(&Pausing(&Memory), |builder| builder).await;
            let browser = world.browser_with(ann()).await;
            let mut slow = request(&world, &browser, wish);
            let is_finished = poll(&mut slow, polls).await;
            drop(slow);
            expect_one_session(&world, &browser, &format!("{name} at {polls}")).await;
            if is_finished {
                assert!(polls > 3, "{name} was left at {polls} points");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_new_id_that_is_dropped_beside_another_write_leaves_one_session() {
    for (name, wish) in ROTATIONS {
        'before: for before in 0.. {
            for after in 0.. {
                let world = World::over_with(&Pausing(&Memory), |builder| builder).await;
                let browser = world.browser_with(ann()).await;
                let mut slow = request(&world, &browser, wish);
                if poll(&mut slow, before).await {
                    break 'before;
                }
                let write =
                    request(&world, &browser, |session| session.list.push("jam".to_owned())).await;
                let is_finished = poll(&mut slow, after).await;
                drop(slow);
                let at = format!("{name} at {before}, {after}");
                if write.status == StatusCode::OK
                    && let Some(data) = world.read(&mut browser.clone()).await
                {
                    assert_eq!(data.list, ["tea", "jam"], "{at}");
                }
                expect_one_session(&world, &browser, &at).await;
                if is_finished {
                    break;
                }
            }
        }
    }
}

type MakeFault = fn() -> Fault;

/// A call that did not arrive or whose answer was lost, told at once or by the time it takes.
const FAULTS: [(&str, MakeFault); 4] = [
    ("it fails", || Fault::Fail),
    ("its answer is lost", || Fault::LoseAnswer),
    ("it hangs", || Fault::Hang),
    ("its answer hangs", || Fault::HoldAnswer(Gate::new())),
];

/// The calls of which one goes wrong.
fn calls() -> impl Iterator<Item = (Operation, usize)> {
    let calls = [(Operation::Load, 3), (Operation::Save, 5), (Operation::Touch, 2)];
    let calls = calls.into_iter().chain([(Operation::Destroy, 2)]);
    calls.flat_map(|(operation, most)| (1..=most).map(move |call| (operation, call)))
}

/// What a session has to be before a rotation and after it.
fn logins() -> [(&'static str, Data, Wish); 2] {
    let visitor = Data { list: list(&["tea"]), ..Data::default() };
    [("a new id", ann(), REGENERATE), ("a login", visitor, LOG_IN)]
}

/// Asserts that an acknowledged rotation is usable by its new cookie, and any other by the old one.
async fn expect_usable(
    answer: &Answer,
    old: (&Browser, &Data),
    new: (&Browser, &Data),
    clock: &ManualClock,
    at: &str,
) {
    let is_acknowledged = answer.status == StatusCode::OK;
    if !is_acknowledged {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{at}");
        assert_eq!(answer.set_cookies(), Vec::<&str>::new(), "{at}");
    }
    let (browser, data) = if is_acknowledged { new } else { old };
    for wait in [0, 11, 3600] {
        clock.advance(wait * SECOND);
        assert_eq!(seen(browser).await.as_ref(), Some(data), "{at}, after {wait} seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_write_of_unknown_outcome_the_old_or_the_new_id_is_usable() {
    for (name, before, wish) in logins() {
        for (operation, call) in calls() {
            for (fault, make_fault) in FAULTS {
                let at = format!("{name}, {operation:?} {call}, {fault}");
                let world = World::new();
                let old = world.browser_with(before.clone()).await;
                world.store.inject_next(call - 1, operation, Fault::Pass);
                world.store.inject_next(1, operation, make_fault());
                let mut new = old.clone();
                let answer = world.run(&mut new, world::change(wish)).await;
                world.store.heal();
                let old = (&old, &before);
                expect_usable(&answer, old, (&new, &ann()), &world.clock, &at).await;
                // Ann has one session, or none if she could not log in.
                let listed = world.sessions.sessions_of("ann").await.unwrap().len();
                let is_ann = answer.status == StatusCode::OK || before.user.is_some();
                assert_eq!(listed, usize::from(is_ann), "{at}");
            }
        }
    }
}

/// Another request adds to the list between the load and the rotation.
#[tokio::test(start_paused = true)]
async fn beside_another_write_the_old_or_the_new_id_is_usable_too() {
    for (name, start, wish) in logins() {
        for (operation, call) in calls() {
            for (fault, make_fault) in FAULTS {
                let at = format!("{name}, {operation:?} {call}, {fault}");
                let world = World::new();
                let store = world.store.clone();
                let browser = signed_in(&world.sessions, start.clone()).await;
                let gate = Gate::new();
                let waiting = gate.clone();
                let slow = spawned(&browser, async move |mut visit| {
                    let mut session: Session<Data> = visit.session().await?;
                    waiting.pass().await;
                    wish(&mut session);
                    let guard = session.commit().await?;
                    Ok(axum::response::IntoResponse::into_response(guard))
                });
                gate.reached(1).await;
                let add = |session: &mut Session<Data>| session.list.push("jam".to_owned());
                assert_eq!(change(&mut browser.clone(), add).await.status, StatusCode::OK);
                store.inject_next(call - 1, operation, Fault::Pass);
                store.inject_next(1, operation, make_fault());
                gate.open();
                let (answer, new) = slow.await.unwrap();
                store.heal();
                let before = Data { list: list(&["tea", "jam"]), ..start.clone() };
                let after = Data { list: list(&["tea", "jam"]), ..ann() };
                let (old, new) = ((&browser, &before), (&new, &after));
                expect_usable(&answer, old, new, &world.clock, &at).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_revocations_the_old_or_the_new_cookie_is_usable() {
    for (name, before, wish) in logins() {
        for (operation, call) in calls() {
            for (fault, make_fault) in FAULTS {
                let at = format!("{name}, {operation:?} {call}, {fault}");
                let (list, sessions, clock) = revocable();
                let old = signed_in(&sessions, before.clone()).await;
                list.inject_next(call - 1, operation, Fault::Pass);
                list.inject_next(1, operation, make_fault());
                let mut new = old.clone();
                let answer = change(&mut new, wish).await;
                list.heal();
                expect_usable(&answer, (&old, &before), (&new, &ann()), &clock, &at).await;
            }
        }
    }
}
