//! `.on_end(..)` tells the application the data of each session that ended, and why.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_typed_session::{
    EndReason, Key, MemoryStore, Session, SessionManager, SessionManagerBuilder, StoreKey,
    store::Cleanup,
    testing::{Fault, Gate, ManualClock, Operation},
};
use http::{Request, StatusCode};

use crate::{
    logins::{Login, app, logins},
    support::{Browser, DAY, SECOND, Visits},
    world::{Data, World, all_at_once, change, key_of},
};

/// The ends that were told.
#[derive(Clone)]
struct Ends<T>(Arc<Mutex<Vec<(T, EndReason)>>>);

impl<T: Send + Sync + 'static> Ends<T> {
    fn of(builder: SessionManagerBuilder<T>) -> (Self, SessionManagerBuilder<T>) {
        let ends = Self(Arc::default());
        let told = ends.0.clone();
        (ends, builder.on_end(move |data, why| told.lock().unwrap().push((data, why))))
    }

    fn take(&self) -> Vec<(T, EndReason)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn world() -> (World, Ends<Data>) {
    let mut ends = None;
    let world = World::with(|builder| {
        let (told, builder) = Ends::of(builder.max_sessions_per_owner(3));
        ends = Some(told);
        builder
    });
    (world, ends.unwrap())
}

fn ann(why: EndReason) -> [(Data, EndReason); 1] {
    [(Data::of("ann"), why)]
}

#[tokio::test]
async fn a_sign_out_is_told_once_with_the_newest_data_and_why() {
    let (world, ends) = world();
    let mut browser = world.browser_with(Data::of("ann")).await;
    world.run(&mut browser, change(Session::regenerate)).await;
    world.run(&mut browser, change(Session::clear)).await;
    world.run(&mut browser, change(|session| **session = Data::of("ann"))).await;
    assert_eq!(ends.take(), []);
    world.run(&mut browser, change(Session::destroy)).await.expect(StatusCode::OK, "");
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
    world.run(&mut browser, change(Session::destroy)).await;
    assert_eq!(ends.take(), []);

    // Another request wrote after this one had loaded the session.
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let key = key_of(&world, &mut browser).await;
    let gate = Gate::new();
    world.store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
    let (mut leaving, at) = (browser.clone(), world.clone());
    let sign_out =
        tokio::spawn(async move { at.run(&mut leaving, change(Session::destroy)).await.status });
    gate.reached(1).await;
    world.sessions.update(key, |data| *data = Data::of("ann")).await.unwrap();
    gate.open();
    assert_eq!(sign_out.await.unwrap(), StatusCode::OK);
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
}

#[tokio::test]
async fn every_other_way_to_end_a_session_is_told() {
    let (world, ends) = world();
    let key = async |world: &World| {
        let mut browser = world.browser_with(Data::of("ann")).await;
        key_of(world, &mut browser).await
    };
    world.sessions.destroy(key(&world).await).await.unwrap();
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
    assert!(world.sessions.destroy_of("ann", key(&world).await).await.unwrap());
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
    let keep = key(&world).await;
    key(&world).await;
    key(&world).await;
    assert_eq!(world.sessions.destroy_others_of("ann", keep).await.unwrap(), 2);
    assert_eq!(ends.take(), [ann(EndReason::Destroyed), ann(EndReason::Destroyed)].concat());
    assert_eq!(world.sessions.destroy_all_of("ann").await.unwrap(), 1);
    assert_eq!(ends.take(), ann(EndReason::Destroyed));

    for _ in 0..4 {
        world.clock.advance(SECOND);
        key(&world).await;
    }
    assert_eq!(ends.take(), ann(EndReason::OverLimit));
}

#[tokio::test]
async fn an_end_in_cookie_mode_is_told_with_and_without_a_list() {
    for has_list in [false, true] {
        let clock = ManualClock::new();
        let list = MemoryStore::builder().clock(clock.clone()).build();
        let builder = logins(&clock);
        let builder = if has_list { builder.revocations(list) } else { builder };
        let (ends, builder) = Ends::<Login>::of(builder);
        let mut browser = Browser::new(app(builder));
        browser.post("/user?ann").await;
        let mut copy = browser.clone();
        browser.post("/destroy").await.expect_status(StatusCode::OK);
        assert_eq!(ends.take().len(), 1, "list: {has_list}");
        copy.send(Request::post("/destroy")).await.expect_status(StatusCode::OK);
        // Without a list nobody knows that the copy has ended before.
        assert_eq!(ends.take().len(), usize::from(!has_list));
    }
}

#[tokio::test]
async fn an_end_with_an_unknown_outcome_is_told() {
    let (world, ends) = world();
    let mut browser = world.browser_with(Data::of("ann")).await;
    world.store.inject_next(1, Operation::Destroy, Fault::LoseAnswer);
    let answer = world.run(&mut browser, change(Session::destroy)).await;
    answer.expect_error(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ends.take(), ann(EndReason::Destroyed));

    let mut browser = world.browser_with(Data::of("ann")).await;
    let gate = Gate::new();
    world.store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
    let at = world.clone();
    let request =
        tokio::spawn(async move { at.run(&mut browser, change(Session::destroy)).await.status });
    gate.reached(1).await;
    request.abort();
    assert!(request.await.is_err());
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
}

#[tokio::test]
async fn of_requests_that_sign_out_at_once_one_is_told() {
    let (world, ends) = world();
    let browser = world.browser_with(Data::of("ann")).await;
    let statuses = all_at_once(10, |_| {
        let (world, mut browser) = (world.clone(), browser.clone());
        async move { world.run(&mut browser, change(Session::destroy)).await.status }
    });
    assert_eq!(statuses.await, [StatusCode::OK; 10]);
    assert_eq!(ends.take(), ann(EndReason::Destroyed));
}

#[tokio::test]
async fn what_ends_no_session_is_not_told() {
    let (world, ends) = world();
    world.sessions.destroy(StoreKey::from_bytes([7; 32])).await.unwrap();
    assert_eq!(world.sessions.destroy_all_of("nobody").await.unwrap(), 0);
    let mut browser = world.browser_with(Data::of("bob")).await;
    let key = key_of(&world, &mut browser).await;
    assert!(!world.sessions.destroy_of("ann", key).await.unwrap());
    assert_eq!(ends.take(), []);
}

fn ann_expired() -> [(Data, EndReason); 1] {
    ann(EndReason::Expired)
}

#[tokio::test]
async fn an_expired_session_is_told_when_it_is_deleted() {
    let (world, ends) = world();
    let mut browser = world.browser_with(Data::of("ann")).await;
    // The mark of the old id ends too, and is no session.
    world.run(&mut browser, change(Session::regenerate)).await;
    world.clock.advance(DAY + SECOND);
    assert_eq!(world.read(&mut browser).await, None);
    assert_eq!(ends.take(), []);
    world.sessions.delete_expired(100).await.unwrap();
    assert_eq!(ends.take(), ann_expired());
    world.sessions.delete_expired(100).await.unwrap();
    assert_eq!(ends.take(), []);
}

/// A store may return fewer rows at once than it is asked for.
#[tokio::test]
async fn every_expired_session_of_a_batch_is_told() {
    let (world, ends) = world();
    for number in 0..300 {
        let _ = world.sessions.create(Data::count_of(number)).await.unwrap();
    }
    world.clock.advance(DAY + SECOND);
    assert_eq!(world.sessions.delete_expired(290).await.unwrap(), 290);
    assert_eq!(world.sessions.delete_expired(290).await.unwrap(), 10);
    let mut told: Vec<_> = ends.take().into_iter().map(|(data, _)| data.count).collect();
    told.sort_unstable();
    assert!(told.into_iter().eq(0..300));
}

#[tokio::test(start_paused = true)]
async fn expired_sessions_are_told_although_nobody_waits_for_their_deletion() {
    for is_dropped in [false, true] {
        let (world, ends) = world();
        world.browser_with(Data::of("ann")).await;
        world.clock.advance(DAY + SECOND);
        let gate = Gate::new();
        world.store.inject_next(1, Operation::DeleteExpired, Fault::HoldAnswer(gate.clone()));
        let sessions = world.sessions.clone();
        let delete = tokio::spawn(async move { sessions.delete_expired(10).await });
        gate.reached(1).await;
        if is_dropped {
            delete.abort();
        } else {
            // The store took longer than `store_timeout`.
            delete.await.unwrap().unwrap_err();
        }
        assert_eq!(ends.take(), []);
        gate.open();
        tokio::time::sleep(SECOND).await;
        assert_eq!(ends.take(), ann_expired());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_is_stopped_tells_what_it_has_deleted() {
    let (world, ends) = world();
    world.browser_with(Data::of("ann")).await;
    world.clock.advance(DAY + SECOND);
    let cleanup = Cleanup::new(world.store.clone()).every(SECOND).report_to(&world.sessions);
    let cleanup = cleanup.spawn();
    // The first call asks for no rows.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let gate = Gate::new();
    world.store.inject_next(1, Operation::DeleteExpired, Fault::HoldAnswer(gate.clone()));
    gate.reached(1).await;
    let stopping = tokio::spawn(cleanup.stop());
    tokio::time::sleep(SECOND).await;
    assert!(!stopping.is_finished());
    gate.open();
    stopping.await.unwrap();
    assert_eq!(ends.take(), ann_expired());
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_is_stopped_waits_no_longer_than_its_batch_takes() {
    let (world, _ends) = world();
    world.browser_with(Data::of("ann")).await;
    world.clock.advance(DAY + SECOND);
    let cleanup = Cleanup::new(world.store.clone()).every(SECOND).report_to(&world.sessions);
    let cleanup = cleanup.spawn();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let gate = Gate::new();
    world.store.inject_next(1, Operation::DeleteExpired, Fault::HoldAnswer(gate.clone()));
    gate.reached(1).await;
    // The batch is given up after 30 seconds and goes on, and the next round waits for it.
    tokio::time::sleep(40 * SECOND).await;
    let stopping = tokio::spawn(cleanup.stop());
    tokio::time::sleep(SECOND).await;
    assert!(!stopping.is_finished());
    gate.open();
    tokio::time::timeout(SECOND, stopping).await.expect("it has ended").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_whose_first_call_gets_no_answer_goes_on() {
    let (world, ends) = world();
    world.browser_with(Data::of("ann")).await;
    world.clock.advance(DAY + SECOND);
    let gate = Gate::new();
    world.store.inject_next(1, Operation::DeleteExpired, Fault::Pause(gate.clone()));
    let cleanup = Cleanup::new(world.store.clone()).every(SECOND).report_to(&world.sessions);
    let _cleanup = cleanup.spawn();
    gate.reached(1).await;
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(ends.take(), ann_expired());
}

/// A sign-out with a cookie that has expired ends nothing.
#[tokio::test]
async fn an_expired_cookie_is_told_by_no_sign_out() {
    let clock = ManualClock::new();
    let (ends, builder) = Ends::<Login>::of(logins(&clock));
    let mut browser = Browser::new(app(builder));
    browser.post("/user?ann").await;
    clock.advance(DAY + SECOND);
    browser.post("/destroy").await.expect_status(StatusCode::OK);
    assert_eq!(ends.take(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_tells_each_manager_of_its_own_sessions() {
    let clock = ManualClock::new();
    let store = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
    let visits = SessionManager::<Visits>::builder().store(store.clone()).clock(clock.clone());
    let (visits_ends, visits) = Ends::of(visits);
    // The store holds no data of these that it could read.
    let data = SessionManager::<Data>::builder().store(store.clone()).clock(clock.clone());
    let (data_ends, data) = Ends::of(data.keys(Key::generate()).encrypt_rows(true));
    let (visits, data) = (visits.build().unwrap(), data.build().unwrap());
    let _ = visits.create(Visits { count: 5 }).await.unwrap();
    let _ = data.create(Data::of("ann")).await.unwrap();
    let cleanup = Cleanup::new(store.clone()).every(SECOND).report_to(&visits).report_to(&data);
    let cleanup = cleanup.spawn();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((visits_ends.take().len(), data_ends.take().len()), (0, 0));
    clock.advance(DAY + SECOND);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let [(Visits { count: 5 }, EndReason::Expired)] = visits_ends.take()[..] else {
        panic!("one visit");
    };
    assert_eq!(data_ends.take(), ann_expired());
    assert!(store.is_empty());
    cleanup.stop().await;
}

/// Runs what ends the session of the browser, which sets the count to 7 between the look at its row and the end.
async fn change_meanwhile<R>(
    world: &World,
    browser: &mut Browser,
    end: impl Future<Output = R>,
) -> R {
    let gate = Gate::new();
    world.store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
    let changes = async {
        gate.reached(1).await;
        let change = world.run(browser, change(|session| session.count = 7)).await;
        change.expect(StatusCode::OK, "");
        gate.open();
    };
    tokio::join!(end, changes).0
}

#[tokio::test]
async fn a_sign_out_everywhere_ends_a_session_that_changes_meanwhile() {
    let (world, ends) = world();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let all = world.sessions.destroy_all_of("ann");
    assert_eq!(change_meanwhile(&world, &mut browser, all).await.unwrap(), 1);
    let ann = Data { count: 7, ..Data::of("ann") };
    assert_eq!(ends.take(), [(ann, EndReason::Destroyed)]);
    assert_eq!(world.read(&mut browser).await, None);
}

#[tokio::test]
async fn a_session_over_the_limit_ends_although_it_changes_meanwhile() {
    let (world, ends) = world();
    let mut oldest = world.browser_with(Data::of("ann")).await;
    for _ in 0..2 {
        world.clock.advance(SECOND);
        world.browser_with(Data::of("ann")).await;
    }
    world.clock.advance(SECOND);
    change_meanwhile(&world, &mut oldest, world.browser_with(Data::of("ann"))).await;
    let ann = Data { count: 7, ..Data::of("ann") };
    assert_eq!(ends.take(), [(ann, EndReason::OverLimit)]);
    assert_eq!(world.read(&mut oldest).await, None);
}
