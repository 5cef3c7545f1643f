//! Stored sessions outside a request: jobs, admin pages, sockets.

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{
    Session, SessionCommit, SessionError, SessionHandle, StoreKey, StoredSession,
    testing::{Fault, Gate, ManualClock, Operation},
};
use http::StatusCode;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    common::assert_matches,
    support::{Browser, EventLog, HOUR, SECOND, Visits, cookie_mode},
    world::{Data, World, all_at_once, change, key_of, script},
};

/// A handle that the browser's session gave away.
async fn handle_of(world: &World, browser: &mut Browser) -> SessionHandle<Data> {
    let slot = Arc::new(Mutex::new(None));
    let keep = slot.clone();
    let give = script(move |session| {
        *keep.lock().unwrap() = Some(session.handle());
        async { Ok(().into_response()) }
    });
    world.run(browser, give).await;
    let handle = slot.lock().unwrap().take();
    handle.unwrap().unwrap()
}

#[tokio::test]
async fn load_update_and_destroy_work_by_key_and_keep_the_expiry() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let key = key_of(&world, &mut browser).await;
    let before = world.sessions.load(key).await.unwrap().unwrap();
    assert_eq!((&*before, before.key()), (&Data::of("ann"), key));

    world.clock.advance(HOUR);
    let count = world.sessions.update(key, |data| {
        data.count += 1;
        data.count
    });
    assert_eq!(count.await.unwrap(), 1);
    let after = world.sessions.load(&key).await.unwrap().unwrap();
    assert_eq!(after.expires_at(), before.expires_at());
    assert_eq!(after.created_at(), before.created_at());
    assert_eq!(world.read(&mut browser).await.unwrap().count, 1);

    world.sessions.destroy(key).await.unwrap();
    assert_eq!(world.read(&mut browser).await, None);
    assert!(world.sessions.load(key).await.unwrap().is_none());
    assert_matches!(world.sessions.update(key, |_| ()).await, Err(SessionError::Gone));
    world.sessions.destroy(key).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_down_is_told_from_a_session_that_ended() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let handle = handle_of(&world, &mut browser).await;
    world.store.inject(Operation::all(), Fault::Fail);
    for down in [
        world.sessions.load(handle.key()).await.map(drop),
        world.sessions.update(handle.key(), |_| ()).await,
        world.sessions.destroy(handle.key()).await,
        handle.load().await.map(drop),
        handle.update(|_| ()).await,
        handle.destroy().await,
    ] {
        assert_matches!(down, Err(SessionError::Store(_)));
    }
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let world = World::new();
    let key = key_of(&world, &mut world.browser_with(Data::of("ann")).await).await;
    world.store.reset_calls();
    world.sessions.update(key, |data| data.count = 0).await.unwrap();
    assert_eq!(world.store.calls(Operation::Save), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_updates_outside_and_inside_requests_are_exact() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let handle = handle_of(&world, &mut browser).await;
    let results = all_at_once(60, |number| {
        let (world, handle, mut browser) = (world.clone(), handle.clone(), browser.clone());
        async move {
            if number % 2 == 0 {
                return handle.update(|data| data.count += 1).await.is_ok();
            }
            let count = script(async |mut session| {
                session.update(|data| data.count += 1).await?;
                Ok(session.commit().await?.into_response())
            });
            world.run(&mut browser, count).await.status == StatusCode::OK
        }
    });
    assert!(results.await.into_iter().all(|ok| ok));
    assert_eq!(world.read(&mut browser).await.unwrap().count, 60);
}

#[tokio::test]
async fn a_key_whose_session_just_got_a_new_id_ends_nothing_and_is_gone() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let old = key_of(&world, &mut browser).await;
    let handle = handle_of(&world, &mut browser).await;
    let regenerate = script(async |mut session| {
        session.regenerate();
        Ok(session.commit().await?.into_response())
    });
    world.run(&mut browser, regenerate).await;
    for _ in 0..2 {
        for ended in [
            world.sessions.destroy_of("ann", old).await.map(drop),
            world.sessions.destroy(old).await,
            handle.destroy().await,
        ] {
            assert_matches!(ended, Err(SessionError::Gone));
        }
    }
    assert_eq!(world.read(&mut browser).await, Some(Data::of("ann")));
}

#[tokio::test]
async fn an_owners_sessions_are_listed_newest_first_and_ended_one_or_all() {
    let world = World::new();
    let mut anns = Vec::new();
    for _ in 0..3 {
        anns.push(world.browser_with(Data::of("ann")).await);
        world.clock.advance(SECOND);
    }
    let mut bob = world.browser_with(Data::of("bob")).await;
    let mut nobody = world.browser_with(Data::count_of(1)).await;
    let sessions = world.sessions.sessions_of("ann").await.unwrap();
    assert_eq!(sessions.len(), 3);
    let newest_first: Vec<_> = sessions.iter().map(StoredSession::created_at).collect();
    assert!(newest_first.is_sorted_by(|one, other| one > other));

    // Somebody else's key in the form ends nothing.
    let bobs = key_of(&world, &mut bob).await;
    assert!(!world.sessions.destroy_of("ann", bobs).await.unwrap());
    assert!(world.sessions.destroy_of("ann", sessions[0].key()).await.unwrap());
    assert!(!world.sessions.destroy_of("ann", sessions[0].key()).await.unwrap());
    assert_eq!(world.read(&mut anns[2]).await, None);

    let keep = key_of(&world, &mut anns[0]).await;
    assert_eq!(world.sessions.destroy_others_of("ann", keep).await.unwrap(), 1);
    assert_eq!(world.read(&mut anns[1]).await, None);
    assert!(world.read(&mut anns[0]).await.is_some());

    assert_eq!(world.sessions.destroy_all_of("ann").await.unwrap(), 1);
    assert_eq!(world.sessions.destroy_all_of("ann").await.unwrap(), 0);
    assert_eq!(world.read(&mut anns[0]).await, None);
    assert!(world.read(&mut bob).await.is_some());
    assert!(world.read(&mut nobody).await.is_some());
}

#[tokio::test]
async fn a_session_moves_to_its_new_owner_and_id_in_the_index() {
    let world = World::new();
    let mut browser = world.browser_with(Data::count_of(1)).await;
    for name in ["ann", "bob"] {
        let login = change(move |session| {
            session.user = Some(name.to_owned());
            session.regenerate();
        });
        world.run(&mut browser, login).await.expect(StatusCode::OK, "");
        let key = key_of(&world, &mut browser).await;
        let listed = world.sessions.sessions_of(name).await.unwrap();
        assert_eq!(listed.iter().map(StoredSession::key).collect::<Vec<_>>(), [key]);
    }
    assert!(world.sessions.sessions_of("ann").await.unwrap().is_empty());
    world.run(&mut browser, change(Session::destroy)).await;
    assert!(world.sessions.sessions_of("bob").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_out_everywhere_beats_requests_in_flight() {
    for _ in 0..10 {
        let world = World::new();
        let browser = world.browser_with(Data::of("ann")).await;
        let answers = all_at_once(6, |number| {
            let (world, mut browser) = (world.clone(), browser.clone());
            async move {
                if number == 3 {
                    world.sessions.destroy_all_of("ann").await.unwrap();
                } else {
                    let act = change(move |session| {
                        session.list.push(number.to_string());
                        if number % 2 == 0 {
                            session.regenerate();
                        }
                    });
                    world.run(&mut browser, act).await;
                }
                browser
            }
        });
        let browsers = answers.await;
        // A login that was acknowledged after the call may live, one session at most.
        world.sessions.destroy_all_of("ann").await.unwrap();
        for mut browser in browsers {
            // Who came after the call may have begun anew, as nobody.
            let data = world.read(&mut browser).await;
            assert_eq!(data.and_then(|data| data.user), None);
        }
        assert!(world.sessions.sessions_of("ann").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_partial_failure_to_end_everything_is_an_error_and_can_be_repeated() {
    let world = World::new();
    for _ in 0..3 {
        world.browser_with(Data::of("ann")).await;
    }
    world.store.inject_next(1, Operation::DestroyByOwner, Fault::LoseAnswer);
    let error = world.sessions.destroy_all_of("ann").await.unwrap_err();
    assert!(matches!(error, SessionError::Store(_)));
    world.sessions.destroy_all_of("ann").await.unwrap();
    assert_eq!(world.rows().await, 0);
}

#[tokio::test]
async fn a_handle_outlives_the_response_and_is_gone_after_logout_or_a_new_id() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let handle = handle_of(&world, &mut browser).await;
    handle.update(|data| data.count = 4).await.unwrap();
    assert_eq!(handle.load().await.unwrap().count, 4);

    world.run(&mut browser, change(Session::regenerate)).await;
    for result in [
        handle.load().await.map(drop),
        handle.update(|data| data.count = 5).await,
        handle.destroy().await,
    ] {
        assert_matches!(result, Err(SessionError::Gone));
    }
    assert_eq!(world.read(&mut browser).await.unwrap().count, 4);

    let handle = handle_of(&world, &mut browser).await;
    world.run(&mut browser, change(Session::destroy)).await;
    assert_matches!(handle.load().await, Err(SessionError::Gone));
    assert_matches!(handle.update(|_| ()).await, Err(SessionError::Gone));
    handle.destroy().await.unwrap();
}

#[tokio::test]
async fn a_fresh_session_has_no_handle_until_it_is_committed() {
    let world = World::new();
    let handles = script(async |session| {
        let error = session.handle().unwrap_err();
        assert!(matches!(error, SessionError::NotSaved), "{error}");
        assert_eq!(session.key(), None);
        Ok(session.commit().await?.into_response())
    });
    world.run(&mut world.browser(), handles).await.expect_status(StatusCode::OK);
}

type Act = fn(&mut Session<Data>);

/// Commits what `act` does, and returns what `tell` finds at the guard.
async fn at_the_guard<R: Send + 'static>(
    world: &World,
    browser: &mut Browser,
    act: Act,
    tell: fn(&SessionCommit) -> R,
) -> R {
    let slot = Arc::new(Mutex::new(None));
    let keep = slot.clone();
    let script = script(move |mut session| {
        let keep = keep.clone();
        async move {
            act(&mut session);
            let guard = session.commit().await?;
            *keep.lock().unwrap() = Some(tell(&guard));
            Ok(guard.into_response())
        }
    });
    world.run(browser, script).await.expect_status(StatusCode::OK);
    let told = slot.lock().unwrap().take();
    told.unwrap()
}

#[tokio::test]
async fn the_handle_of_a_commit_goes_on_with_a_fresh_visitors_session() {
    let world = World::new();
    let mut browser = world.browser();
    let count = |session: &mut Session<Data>| session.count += 1;
    let handle = at_the_guard(&world, &mut browser, count, SessionCommit::handle::<Data>).await;
    let handle = handle.unwrap();
    let key = key_of(&world, &mut browser).await;
    assert_eq!(handle.key(), key);

    // The socket is open, and the visitor goes on.
    handle.update(|data| data.count += 1).await.unwrap();
    world.run(&mut browser, change(count)).await.expect_status(StatusCode::OK);
    assert_eq!(handle.load().await.unwrap().count, 3);
    world.run(&mut browser, change(Session::destroy)).await;
    assert_matches!(handle.load().await, Err(SessionError::Gone));
}

#[tokio::test]
async fn a_commit_tells_the_key_of_what_it_came_to() {
    let world = World::new();
    let mut browser = world.browser();
    let acts: [(Act, bool); 5] = [
        (|_| (), false),
        (|session| session.count += 1, true),
        (|_| (), true),
        (Session::regenerate, true),
        (Session::destroy, false),
    ];
    for (number, (act, is_saved)) in acts.into_iter().enumerate() {
        let told = |guard: &SessionCommit| (guard.key(), guard.id(), guard.handle::<Data>());
        let (key, id, handle) = at_the_guard(&world, &mut browser, act, told).await;
        assert_eq!(key.is_some(), is_saved, "{number}");
        assert_eq!(key, id.map(|id| id.store_key()), "{number}");
        if is_saved {
            assert_eq!(key, Some(key_of(&world, &mut browser).await), "{number}");
            assert_eq!(key, Some(handle.unwrap().key()), "{number}");
        } else {
            assert_matches!(handle, Err(SessionError::NotSaved));
        }
    }
}

#[tokio::test]
async fn a_handle_of_another_type_is_an_error_that_names_both() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let other = SessionCommit::handle::<Visits>;
    let error = at_the_guard(&world, &mut browser, |_| (), other).await.unwrap_err();
    assert_matches!(error, SessionError::OtherType { .. });
    let text = error.to_string();
    for name in ["support::Visits", "world::Data"] {
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn in_cookie_mode_a_commit_has_a_key_and_no_handle() {
    let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
    let count = async |mut visits: Session<Visits>| {
        visits.count += 1;
        let guard = visits.commit().await?;
        assert_matches!(
            guard.handle::<Visits>(),
            Err(SessionError::NoStore { operation: "handle" })
        );
        assert!(guard.key().is_some());
        Ok::<_, SessionError>(guard)
    };
    let app = Router::new().route("/", get(count)).with_state(sessions.clone());
    Browser::new(app).get("/").await.expect_status(StatusCode::OK);
    assert_matches!(sessions.no_session().key(), None);
}

#[tokio::test]
async fn after_a_regenerate_the_commits_key_keeps_this_session_alone() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let _other = world.browser_with(Data::of("ann")).await;
    let sessions = world.sessions.clone();
    let password_changed = script(move |mut session| {
        let sessions = sessions.clone();
        async move {
            session.regenerate();
            let commit = session.commit().await?;
            sessions.destroy_others_of("ann", commit.key().unwrap()).await?;
            Ok(commit.into_response())
        }
    });
    world.run(&mut browser, password_changed).await.expect(StatusCode::OK, "");
    assert_eq!(world.read(&mut browser).await, Some(Data::of("ann")));
    assert_eq!(world.sessions.sessions_of("ann").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_handle_ends_the_session_it_came_from() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    handle_of(&world, &mut browser).await.destroy().await.unwrap();
    assert_eq!(world.read(&mut browser).await, None);
}

#[tokio::test]
async fn in_cookie_mode_every_operation_outside_a_request_says_what_it_needs() {
    let sessions = cookie_mode(&ManualClock::default()).build().unwrap();
    let key = StoreKey::from_bytes([1; 32]);
    let errors = [
        sessions.load(key).await.map(drop),
        sessions.update(key, |visits: &mut Visits| visits.count += 1).await,
        sessions.destroy(key).await,
        sessions.sessions_of("ann").await.map(drop),
        sessions.destroy_all_of("ann").await.map(drop),
        sessions.destroy_others_of("ann", key).await.map(drop),
        sessions.delete_expired(1).await.map(drop),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert!(matches!(error, SessionError::NoStore { .. }));
        assert!(error.to_string().contains(".store("));
    }
}

#[tokio::test]
async fn delete_expired_deletes_in_batches_what_has_ended() {
    let world = World::new();
    for _ in 0..5 {
        world.browser_with(Data::of("ann")).await;
    }
    world.clock.advance(HOUR * 25);
    assert_eq!(world.sessions.delete_expired(3).await.unwrap(), 3);
    assert_eq!(world.sessions.delete_expired(3).await.unwrap(), 2);
    assert_eq!(world.sessions.delete_expired(3).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn ending_everything_on_a_store_that_hangs_is_an_error_in_time() {
    let world = World::new();
    world.browser_with(Data::of("ann")).await;
    world.store.inject(Operation::all(), Fault::Hang);
    let end = world.sessions.destroy_all_of("ann");
    let end = tokio::time::timeout(SECOND * 31, end).await;
    assert_matches!(end, Ok(Err(SessionError::Store(_))));

    // A store that only takes longer than for one session gets the time.
    world.store.heal();
    let slow = Gate::new();
    world.store.inject_next(1, Operation::DestroyByOwner, Fault::Pause(slow.clone()));
    let later = async {
        tokio::time::sleep(SECOND * 29).await;
        slow.open();
    };
    let (ended, ()) = tokio::join!(world.sessions.destroy_all_of("ann"), later);
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(world.rows().await, 0);
}

/// The longest time from the end of a session until `ended` returns.
const NOTICED: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_handle_notices_the_end_of_its_session_within_five_seconds() {
    for end in ["destroy", "a new id", "another owner", "expiry", "every session of the owner"] {
        let world = World::new();
        let mut browser = world.browser_with(Data::of("ann")).await;
        let handle = handle_of(&world, &mut browser).await;
        let ended = tokio::time::timeout(HOUR, handle.ended());
        let act = async {
            // Between two looks at the store.
            tokio::time::sleep(NOTICED * 10 + SECOND).await;
            match end {
                "destroy" => world.sessions.destroy(handle.key()).await.unwrap(),
                "a new id" => drop(world.run(&mut browser, change(Session::regenerate)).await),
                "another owner" => {
                    let login = |data: &mut Data| data.user = Some("bob".to_owned());
                    world.sessions.update(handle.key(), login).await.unwrap();
                }
                "expiry" => world.clock.advance(HOUR * 24),
                _ => drop(world.sessions.destroy_all_of("ann").await.unwrap()),
            }
            tokio::time::Instant::now()
        };
        let (ended, at) = tokio::join!(ended, act);
        ended.unwrap_or_else(|_| panic!("not noticed: {end}"));
        assert!(at.elapsed() <= NOTICED, "{end}: after {:?}", at.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_no_end_for_a_handle_that_waits() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let handle = handle_of(&world, &mut browser).await;
    world.store.inject(Operation::all(), Fault::Fail);
    tokio::time::timeout(HOUR, handle.ended()).await.unwrap_err();
    world.store.heal();
    tokio::time::timeout(HOUR, handle.ended()).await.unwrap_err();
    world.sessions.destroy(handle.key()).await.unwrap();
    tokio::time::timeout(NOTICED, handle.ended()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_waits_asks_the_store_every_five_seconds() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let handle = handle_of(&world, &mut browser).await;
    world.store.reset_calls();
    tokio::time::timeout(NOTICED * 10 - SECOND, handle.ended()).await.unwrap_err();
    assert_eq!(world.store.calls(Operation::all()), 10);
}

#[tokio::test]
async fn an_update_is_reported_if_it_saves() {
    let events = EventLog::default();
    let world = World::with(|builder| builder.on_event(events.hook()));
    let mut browser = world.browser_with(Data::of("ann")).await;
    let key = key_of(&world, &mut browser).await;
    events.take();
    world.sessions.update(key, |_| ()).await.unwrap();
    assert_eq!(events.take(), <[&str; 0]>::default());
    world.sessions.update(key, |data| data.count += 1).await.unwrap();
    assert_eq!(events.take(), ["saved"]);
}

#[tokio::test]
async fn a_page_of_sessions_is_iterated_by_reference_and_by_value() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let key = key_of(&world, &mut browser).await;
    let page = world.sessions.sessions_of("ann").await.unwrap();
    let keys: Vec<_> = (&page).into_iter().map(StoredSession::key).collect();
    assert_eq!(keys, [key]);
    let data: Vec<_> = page.into_iter().map(StoredSession::into_inner).collect();
    assert_eq!(data, [Data::of("ann")]);
}

#[tokio::test]
async fn an_update_that_signs_another_user_in_begins_the_session_again() {
    let world = World::new();
    let mut browser = world.browser_with(Data::of("ann")).await;
    let key = key_of(&world, &mut browser).await;
    let before = world.sessions.load(key).await.unwrap().unwrap();
    world.clock.advance(HOUR);
    world.sessions.update(key, |data| *data = Data::of("bob")).await.unwrap();
    let after = world.sessions.load(key).await.unwrap().unwrap();
    assert_eq!(after.created_at(), before.created_at() + HOUR);
    assert_eq!(after.expires_at(), before.expires_at());
}

#[tokio::test]
async fn ids_are_equal_if_they_are_of_one_session() {
    let world = World::new();
    let ids = Arc::new(Mutex::new(Vec::new()));
    let keep = ids.clone();
    let note = script(move |session| {
        let id = session.id().cloned();
        keep.lock().unwrap().extend(id);
        async { Ok(().into_response()) }
    });
    let mut ann = world.browser_with(Data::of("ann")).await;
    let mut bob = world.browser_with(Data::of("bob")).await;
    for browser in [&mut ann, &mut bob] {
        world.run(browser, note.clone()).await;
    }
    world.run(&mut ann, note).await;
    let [ann, bob, again] = &ids.lock().unwrap()[..] else { panic!("three ids") };
    assert_eq!(ann, again);
    assert_ne!(ann, bob);
}
