//! `.max_sessions_per_owner(..)` ends the oldest sessions of an owner who signs in.

use std::{sync::Arc, time::Duration};

use axum_typed_session::{
    Clock as _, MemoryStore, Session, SessionEventKind, SessionManager,
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use http::{Request, StatusCode};

use crate::{
    logins::{Login, app, expect_refusal, logins, without_keys},
    support::{Browser, EventLog, MINUTE, SECOND},
    world::{Data, World, change, key_of},
};

fn login(user: &str) -> Login {
    Login { user: Some(user.to_owned()), ..Login::default() }
}

#[tokio::test]
async fn a_login_ends_the_oldest_session_and_no_other_owners() {
    let world = World::with(|builder| builder.max_sessions_per_owner(2));
    let mut bob = world.browser_with(Data::of("bob")).await;
    let mut anns = Vec::new();
    for _ in 0..4 {
        world.clock.advance(SECOND);
        anns.push(world.browser_with(Data::of("ann")).await);
    }
    let mut left = Vec::new();
    for ann in &mut anns {
        left.push(world.read(ann).await.is_some());
    }
    assert_eq!(left, [false, false, true, true]);
    assert!(world.read(&mut bob).await.is_some());
}

#[tokio::test]
async fn a_login_of_a_session_that_exists_counts_too_and_a_new_id_does_not() {
    let world = World::with(|builder| builder.max_sessions_per_owner(1));
    let mut first = world.browser_with(Data::of("ann")).await;
    world.clock.advance(SECOND);
    let mut second = world.browser_with(Data::count_of(1)).await;
    let key = key_of(&world, &mut second).await;
    world.run(&mut first, change(Session::regenerate)).await;
    assert!(world.read(&mut first).await.is_some());

    world.sessions.update(key, |data| data.user = Some("ann".to_owned())).await.unwrap();
    assert_eq!(world.read(&mut first).await, None);
    assert!(world.read(&mut second).await.is_some());

    world.clock.advance(SECOND);
    let created = world.sessions.create(Data::of("ann")).await.unwrap();
    assert_eq!(world.read(&mut second).await, None);
    assert!(world.sessions.load(created.key()).await.unwrap().is_some());
}

/// Between its first and its second write, it has two rows.
#[tokio::test]
async fn a_session_that_gets_a_new_id_counts_once_beside_a_login() {
    for (limit, others) in [(2, 0), (3, 1)] {
        let world = World::with(|builder| builder.max_sessions_per_owner(limit));
        let mut first = world.browser_with(Data::of("ann")).await;
        for _ in 0..others {
            world.clock.advance(SECOND);
            world.browser_with(Data::of("ann")).await;
        }
        world.clock.advance(SECOND);
        let gate = Gate::new();
        world.store.inject_next(1, Operation::Save, Fault::Pass);
        world.store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
        let (at, mut browser) = (world.clone(), first.clone());
        let renewed = tokio::spawn(async move {
            let answer = at.run(&mut browser, change(Session::regenerate)).await;
            (answer.status, browser)
        });
        gate.reached(1).await;
        let login = world.sessions.create(Data::of("ann")).await.unwrap();
        gate.open();
        let (status, mut renewed) = renewed.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(world.read(&mut renewed).await.is_some());
        assert_eq!(world.read(&mut first).await, None);
        let sessions = world.sessions.sessions_of("ann").await.unwrap();
        assert_eq!(sessions.len(), limit as usize);
        assert!(sessions.iter().any(|session| session.key() == login.key()));
    }
}

#[tokio::test]
async fn a_limit_holds_for_sessions_that_end_before_a_new_id_could_be_complete() {
    let hour = Duration::from_secs(60 * 60);
    for (skew, idle) in [(MINUTE, MINUTE), (hour, hour / 2)] {
        let world = World::with(|builder| {
            builder.max_sessions_per_owner(1).clock_skew(skew).idle_timeout(idle)
        });
        for _ in 0..5 {
            world.browser_with(Data::of("ann")).await;
            world.clock.advance(SECOND);
        }
        assert_eq!(world.sessions.sessions_of("ann").await.unwrap().len(), 1, "{skew:?} {idle:?}");
    }
}

#[tokio::test]
async fn a_login_that_ends_another_began_when_it_came() {
    let world = World::with(|builder| builder.max_sessions_per_owner(1));
    for _ in 0..3 {
        let created = world.sessions.create(Data::of("ann")).await.unwrap();
        assert_eq!(created.created_at(), world.clock.now());
        world.clock.advance(SECOND);
    }
}

#[tokio::test]
async fn a_login_on_a_node_whose_clock_is_behind_is_the_latest_all_the_same() {
    let (clock, ahead) = (ManualClock::new(), ManualClock::new());
    ahead.advance(Duration::from_secs(30));
    let store = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
    let node = |clock: &ManualClock| {
        let builder = without_keys(clock).store(store.clone());
        builder.owner(|login| login.user.clone()).max_sessions_per_owner(1).build().unwrap()
    };
    let (node, node_ahead) = (node(&clock), node(&ahead));
    let earlier = node_ahead.create(login("ann")).await.unwrap();
    let later = node.create(login("ann")).await.unwrap();
    assert!(node.load(earlier.key()).await.unwrap().is_none());
    let stored = node_ahead.load(later.key()).await.unwrap().unwrap();
    assert!(stored.created_at() > earlier.created_at());
    assert_eq!(stored.created_at(), later.created_at());
}

#[tokio::test]
async fn one_account_cannot_keep_everybody_else_from_signing_in() {
    let store = MemoryStore::builder().max_bytes(300 * 1024).build();
    let sessions = without_keys(&ManualClock::new())
        .clock(axum_typed_session::SystemClock)
        .store(store)
        .owner(|login: &Login| login.user.clone())
        .build()
        .unwrap();
    for _ in 0..3_000 {
        let _ = sessions.create(login("mallory")).await.unwrap();
    }
    assert_eq!(sessions.sessions_of("mallory").await.unwrap().len(), 100);
    let _ = sessions.create(login("ann")).await.unwrap();
}

#[tokio::test]
async fn a_login_succeeds_if_the_store_cannot_list_the_sessions() {
    let (clock, log) = (ManualClock::new(), EventLog::default());
    let store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let sessions = without_keys(&clock)
        .store(store.clone())
        .owner(|login| login.user.clone())
        .max_sessions_per_owner(1)
        .on_event(log.hook())
        .build()
        .unwrap();
    let first = sessions.create(login("ann")).await.unwrap();
    clock.advance(SECOND);
    store.inject(Operation::FindByOwner, Fault::Fail);
    let _ = sessions.create(login("ann")).await.unwrap();
    store.heal();
    assert!(sessions.load(first.key()).await.unwrap().is_some());
    let failed =
        |(kind, _): &(SessionEventKind, _)| matches!(kind, SessionEventKind::StoreError { .. });
    assert_eq!(log.take_kinds().iter().filter(|event| failed(event)).count(), 1);

    clock.advance(SECOND);
    let _ = sessions.create(login("ann")).await.unwrap();
    assert_eq!(sessions.sessions_of("ann").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_limit_that_cannot_hold_is_refused() {
    let clock = ManualClock::new();
    let needs =
        "`.max_sessions_per_owner(..)` needs `.owner(..)`, and a `.store(..)` that indexes owners";
    let store = MemoryStore::new;
    expect_refusal(
        logins(&clock).owner(|login| login.user.clone()).max_sessions_per_owner(1),
        needs,
    );
    expect_refusal(without_keys(&clock).store(store()).max_sessions_per_owner(1), needs);
    let owned = || without_keys(&clock).store(store()).owner(|login: &Login| login.user.clone());
    let text = "`.max_sessions_per_owner(..)` must be at least 1";
    expect_refusal(owned().max_sessions_per_owner(0), text);
    owned().max_sessions_per_owner(u32::MAX).build().unwrap();
}

#[tokio::test]
async fn in_a_cookie_there_is_no_limit() {
    let clock = ManualClock::new();
    let app = app(logins(&clock).owner(|login| login.user.clone()));
    for _ in 0..3 {
        let mut browser = Browser::new(app.clone());
        let answer = browser.send(Request::post("/user?ann")).await;
        answer.expect_status(StatusCode::OK);
        clock.advance(MINUTE);
    }
    let _: SessionManager<Login> = logins(&clock).build().unwrap();
}
