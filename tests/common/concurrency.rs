//! With a store, whichever it is, concurrent requests lose nothing and undo no logout.

use std::{collections::BTreeSet, sync::Arc};

use axum::response::IntoResponse;
use axum_typed_session::{
    ConflictPolicy, Rolling, Session, SessionError, SessionManager, SessionStore as _, StoreError,
    StoredSession,
    testing::{Fault, Gate, Operation},
};
use http::StatusCode;

use crate::{
    browser::{Answer, Browser, DAY, HOUR, MILLISECOND, SECOND},
    world::{Backend, Data, World, all_at_once, change, key_of, script},
};

/// Makes a module of these tests over a backend.
macro_rules! concurrency_over {
    ($name:ident, $backend:expr) => {
        crate::world::suite_over! { $name, $backend, concurrency:
            a_hundred_concurrent_updates_are_exactly_a_hundred
            a_hundred_changes_to_different_keys_and_appends_all_survive
            plain_increments_are_counted_or_refused_but_never_lost
            no_request_in_flight_undoes_a_logout
            neither_rolling_nor_renew_undoes_a_logout
            a_login_is_not_overwritten_by_requests_that_carry_the_old_id
            a_logout_with_the_old_id_ends_the_session_under_its_new_one
            regenerate_loses_no_acknowledged_write_of_another_request
            reset_with_regenerate_leaves_nothing_of_what_others_wrote_meanwhile
            five_parallel_requests_around_a_login_end_logged_in
            a_slow_reader_writes_nothing
            reject_and_overwrite_do_what_they_say_and_absence_is_still_gone
            merging_refuses_two_owners_removed_roles_and_invalid_results
            update_refuses_uncommitted_changes_and_is_local_on_a_fresh_session
            after_an_update_that_failed_or_was_dropped_its_guard_goes_on
            update_and_commit_write_once_and_move_the_expiry
            a_write_whose_answer_was_lost_is_not_applied_twice
            a_merge_names_no_owner_that_neither_side_named
            no_policy_replaces_a_row_of_a_newer_schema
            a_touch_is_no_conflict
            a_logout_and_a_login_get_through_to_a_session_that_others_keep_writing
            a_logout_everywhere_misses_no_session_that_gets_a_new_id
            after_logins_at_once_exactly_the_allowed_number_of_sessions_is_left
            every_session_is_listed_while_others_come_and_go
        }
    };
}
pub(crate) use concurrency_over;

/// Runs a body repeatedly: a race that is lost once in a while is lost.
const ROUNDS: usize = 5;

pub async fn a_hundred_concurrent_updates_are_exactly_a_hundred(backend: &impl Backend) {
    for _ in 0..ROUNDS {
        let world = World::over(backend).await;
        let mut browser = world.browser_with(Data::of("ann")).await;
        let answers = all_at_once(100, |_| {
            let (world, mut browser) = (world.clone(), browser.clone());
            async move {
                let count = script(async |mut session| {
                    session.update(|data| data.count += 1).await?;
                    Ok(session.commit().await?.into_response())
                });
                world.run(&mut browser, count).await.status
            }
        });
        assert_eq!(answers.await, vec![StatusCode::OK; 100]);
        assert_eq!(world.read(&mut browser).await.unwrap().count, 100);
    }
}

pub async fn a_hundred_changes_to_different_keys_and_appends_all_survive(backend: &impl Backend) {
    for _ in 0..ROUNDS {
        let world = World::over(backend).await;
        let mut browser = world.browser_with(Data::of("ann")).await;
        let answers = all_at_once(100, |number| {
            let (world, mut browser) = (world.clone(), browser.clone());
            let change = change(move |session| {
                session.map.insert(format!("key {number}"), number);
                session.list.push(number.to_string());
            });
            async move { world.run(&mut browser, change).await.status }
        });
        assert_eq!(answers.await, vec![StatusCode::OK; 100]);
        let mut data = world.read(&mut browser).await.unwrap();
        assert_eq!(data.map.len(), 100);
        data.list.sort_unstable_by_key(|item| item.parse::<u32>().unwrap());
        assert_eq!(data.list, (0..100).map(|item| item.to_string()).collect::<Vec<_>>());
    }
}

pub async fn plain_increments_are_counted_or_refused_but_never_lost(backend: &impl Backend) {
    let world = World::over(backend).await;
    let mut browser = world.browser_with(Data::of("ann")).await;
    let answers = all_at_once(40, |_| {
        let (world, mut browser) = (world.clone(), browser.clone());
        async move { world.run(&mut browser, change(|session| session.count += 1)).await.status }
    });
    let answers = answers.await;
    let counted = answers.iter().filter(|status| **status == StatusCode::OK).count();
    let refused = answers.iter().filter(|status| **status == StatusCode::CONFLICT).count();
    assert_eq!(counted + refused, 40);
    assert_eq!(world.read(&mut browser).await.unwrap().count as usize, counted);
}

/// Lets `slow` load, runs `quick` to its end, and then lets `slow` go on.
async fn overlap(
    world: &World,
    browser: &Browser,
    slow: impl Fn(&mut Session<Data>) + Send + Sync + 'static,
    quick: impl Fn(&mut Session<Data>) + Send + Sync + 'static,
) -> (Answer, Browser, Answer, Browser) {
    let loaded = Gate::new();
    let waiting = loaded.clone();
    let slow = Arc::new(slow);
    let slow = script(move |mut session| {
        let (waiting, slow) = (waiting.clone(), slow.clone());
        async move {
            waiting.pass().await;
            slow(&mut session);
            Ok(session.commit().await?.into_response())
        }
    });
    let (slow_world, mut slow_browser) = (world.clone(), browser.clone());
    let slow_request = tokio::spawn(async move {
        let answer = slow_world.run(&mut slow_browser, slow).await;
        (answer, slow_browser)
    });
    loaded.reached(1).await;
    let mut quick_browser = browser.clone();
    let quick_answer = world.run(&mut quick_browser, change(quick)).await;
    loaded.open();
    let (slow_answer, slow_browser) = slow_request.await.unwrap();
    (slow_answer, slow_browser, quick_answer, quick_browser)
}

pub async fn no_request_in_flight_undoes_a_logout(backend: &impl Backend) {
    type Wish = fn(&mut Session<Data>);
    let wishes: [(&str, Wish); 6] = [
        ("modify", |session| session.count += 1),
        ("regenerate", |session| session.regenerate()),
        ("modify and regenerate", |session| {
            session.count += 1;
            session.regenerate();
        }),
        ("reset and regenerate", |session| {
            session.clear();
            session.regenerate();
        }),
        ("force_save", |session| session.force_save()),
        ("set_idle_timeout", |session| {
            session.set_idle_timeout(HOUR);
        }),
    ];
    for (name, wish) in wishes {
        let world = World::over(backend).await;
        let browser = world.browser_with(Data::of("ann")).await;
        let (slow, _, quick, _) = overlap(&world, &browser, wish, Session::destroy).await;
        assert_eq!(quick.status, StatusCode::OK, "{name}");
        assert_eq!(slow.status, StatusCode::CONFLICT, "{name}");
        assert_eq!(slow.set_cookies(), Vec::<&str>::new(), "{name}");
        assert_eq!(world.rows().await, 0, "{name}");
        assert_eq!(world.read(&mut browser.clone()).await, None, "{name}");
    }
}

pub async fn neither_rolling_nor_renew_undoes_a_logout(backend: &impl Backend) {
    for renew in [false, true] {
        let world = World::over_with(backend, |builder| {
            builder.rolling(if renew { Rolling::BelowHalf } else { Rolling::EveryCommit })
        })
        .await;
        let browser = world.browser_with(Data::of("ann")).await;
        world.clock.advance(HOUR * 13);
        let (slow, _, quick, _) = overlap(&world, &browser, |_| {}, Session::destroy).await;
        assert_eq!(quick.status, StatusCode::OK);
        slow.expect(StatusCode::OK, "").expect_no_cookie();
        assert_eq!(world.rows().await, 0);
    }
}

pub async fn a_login_is_not_overwritten_by_requests_that_carry_the_old_id(backend: &impl Backend) {
    let world = World::over(backend).await;
    let browser = world.browser_with(Data::count_of(1)).await;
    let (slow, _, login, mut after) = overlap(
        &world,
        &browser,
        |session| session.count = 9,
        |session| {
            session.user = Some("ann".to_owned());
            session.regenerate();
        },
    )
    .await;
    assert_eq!(login.status, StatusCode::OK);
    assert_eq!(slow.status, StatusCode::CONFLICT);
    slow.expect_no_cookie();
    assert_eq!(world.read(&mut after).await.unwrap().user.as_deref(), Some("ann"));

    // The old id, sent after the login, sees an anonymous session it cannot save.
    for late in [change(|session| session.count = 9), change(Session::force_save)] {
        let mut old = browser.clone();
        assert_eq!(world.read(&mut old).await, None);
        let answer = world.run(&mut old, late).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        answer.expect_no_cookie();
    }
    let mut old = browser.clone();
    world.run(&mut old, change(|_| {})).await.expect(StatusCode::OK, "").expect_no_cookie();

    // A repeated login on the old id is a session of its own.
    let again = change(|session| {
        session.user = Some("ann".to_owned());
        session.regenerate();
    });
    let answer = world.run(&mut old, again).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(old.token(), after.token());
    assert_eq!(world.read(&mut old).await.unwrap().count, 0);

    // After ten seconds, and the minute by which clocks of nodes may differ, the old id is as unknown as any.
    world.clock.advance(SECOND * 70);
    let mut old = browser.clone();
    let answer = world.run(&mut old, change(|session| session.count = 3)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(old.token(), browser.token());
}

pub async fn a_logout_with_the_old_id_ends_the_session_under_its_new_one(backend: &impl Backend) {
    // One that was under way when the new id was given.
    let world = World::over(backend).await;
    let browser = world.browser_with(Data::of("ann")).await;
    let (logout, _, rotation, mut after) =
        overlap(&world, &browser, Session::destroy, Session::regenerate).await;
    assert_eq!((logout.status, rotation.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(logout.told(), "removed");
    assert_eq!(world.read(&mut after).await, None);

    // One that was sent before the new cookie arrived.
    let mut browser = world.browser_with(Data::of("ann")).await;
    let mut old = browser.clone();
    world.run(&mut browser, change(Session::regenerate)).await;
    let logout = world.run(&mut old, change(Session::destroy)).await;
    assert_eq!((logout.status, logout.told()), (StatusCode::OK, "removed"));
    assert_eq!(world.read(&mut browser).await, None);
}

pub async fn regenerate_loses_no_acknowledged_write_of_another_request(backend: &impl Backend) {
    let world = World::over(backend).await;
    let browser = world.browser_with(Data::of("ann")).await;
    let (login, mut after, write, _) = overlap(
        &world,
        &browser,
        |session| {
            session.count = 5;
            session.regenerate();
        },
        |session| session.list.push("seven".to_owned()),
    )
    .await;
    assert_eq!(write.status, StatusCode::OK);
    assert_eq!(login.status, StatusCode::OK);
    let data = world.read(&mut after).await.unwrap();
    assert_eq!((data.count, data.list), (5, vec!["seven".to_owned()]));
}

pub async fn reset_with_regenerate_leaves_nothing_of_what_others_wrote_meanwhile(
    backend: &impl Backend,
) {
    let world = World::over(backend).await;
    let browser = world.browser_with(Data::of("ann")).await;
    let (logout, mut after, _, _) = overlap(
        &world,
        &browser,
        |session| {
            session.clear();
            session.regenerate();
            session.count = 1;
        },
        |session| session.list.push("seven".to_owned()),
    )
    .await;
    assert_eq!(logout.status, StatusCode::OK);
    assert_eq!(world.read(&mut after).await, Some(Data::count_of(1)));
}

pub async fn five_parallel_requests_around_a_login_end_logged_in(backend: &impl Backend) {
    for _ in 0..ROUNDS * 4 {
        let world = World::over(backend).await;
        let browser = world.browser_with(Data::count_of(1)).await;
        let answers = all_at_once(5, |number| {
            let (world, mut browser) = (world.clone(), browser.clone());
            async move {
                let act = change(move |session| {
                    if number == 2 {
                        session.user = Some("ann".to_owned());
                        session.regenerate();
                    } else {
                        session.map.insert(number.to_string(), number);
                    }
                });
                let answer = world.run(&mut browser, act).await;
                (answer, browser)
            }
        });
        let answers = answers.await;
        let sets = |answer: &Answer| !answer.set_cookies().is_empty();
        // Whatever order the answers reach the browser in, it ends with the login's cookie: no other
        // answer sets one.
        let (login, mut browser) = answers
            .iter()
            .find(|(answer, _)| sets(answer) && answer.token() != browser.token())
            .map(|(answer, browser)| (answer, browser.clone()))
            .unwrap();
        assert_eq!(login.status, StatusCode::OK);
        let data = world.read(&mut browser).await.unwrap();
        assert_eq!(data.user.as_deref(), Some("ann"));
        for (number, (answer, _)) in (0_u32..).zip(&answers).filter(|(number, _)| *number != 2) {
            assert!(!sets(answer));
            if answer.status == StatusCode::OK {
                assert_eq!(data.map.get(&number.to_string()), Some(&number));
            }
        }
    }
}

pub async fn a_slow_reader_writes_nothing(backend: &impl Backend) {
    let world = World::over(backend).await;
    let browser = world.browser_with(Data::of("ann")).await;
    world.store.reset_calls();
    let (reader, _, _, mut after) =
        overlap(&world, &browser, |_| {}, |session| session.count = 2).await;
    reader.expect(StatusCode::OK, "").expect_no_cookie();
    assert_eq!(world.store.calls(Operation::Save), 1);
    assert_eq!(world.read(&mut after).await.unwrap().count, 2);
}

pub async fn reject_and_overwrite_do_what_they_say_and_absence_is_still_gone(
    backend: &impl Backend,
) {
    for (policy, status, count) in [
        (ConflictPolicy::Reject, StatusCode::CONFLICT, 1),
        (ConflictPolicy::Overwrite, StatusCode::OK, 0),
    ] {
        let world = World::over_with(backend, |builder| builder.on_conflict(policy)).await;
        let browser = world.browser_with(Data::of("ann")).await;
        let (slow, _, _, mut after) = overlap(
            &world,
            &browser,
            |session| session.list.push("one".to_owned()),
            |session| session.count = 1,
        )
        .await;
        assert_eq!(slow.status, status, "{policy:?}");
        assert_eq!(world.read(&mut after).await.unwrap().count, count, "{policy:?}");

        let (slow, ..) = overlap(
            &world,
            &browser,
            |session| session.list.push("one".to_owned()),
            Session::destroy,
        )
        .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "{policy:?}");
        assert_eq!(world.rows().await, 0, "{policy:?}");
    }
}

pub async fn merging_refuses_two_owners_removed_roles_and_invalid_results(backend: &impl Backend) {
    let roles = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let conflicts = |ours: fn(&mut Data), theirs: fn(&mut Data)| async move {
        let world = World::over_with(backend, |builder| {
            builder.validate_data(|data: &Data| data.map.len() <= 2)
        })
        .await;
        let start = Data { list: roles(&["reader", "writer"]), ..Data::of("ann") };
        let browser = world.browser_with(start).await;
        let (slow, _, quick, mut after) =
            overlap(&world, &browser, move |session| ours(session), move |session| theirs(session))
                .await;
        assert_eq!(quick.status, StatusCode::OK);
        (slow.status, world.read(&mut after).await.unwrap())
    };
    let conflict = StatusCode::CONFLICT;

    // Another owner, on either side.
    let other = |data: &mut Data| data.user = Some("bob".to_owned());
    assert_eq!(conflicts(other, |data| data.count = 1).await.0, conflict);
    assert_eq!(conflicts(|data| data.count = 1, other).await.0, conflict);

    // A role removed on one side stays removed.
    let (status, data) =
        conflicts(|data| data.list.push("admin".to_owned()), |data| _ = data.list.pop()).await;
    assert_eq!((status, data.list), (conflict, roles(&["reader"])));
    let (status, data) = conflicts(|data| data.count = 1, |data| _ = data.list.pop()).await;
    assert_eq!((status, data.list), (StatusCode::OK, roles(&["reader"])));

    // Three entries together are one too many.
    let (status, data) = conflicts(
        |data| data.map.extend([("c".into(), 3)]),
        |data| data.map.extend([("a".into(), 1), ("b".into(), 2)]),
    )
    .await;
    assert_eq!((status, data.map.len()), (conflict, 2));
}

pub async fn update_refuses_uncommitted_changes_and_is_local_on_a_fresh_session(
    backend: &impl Backend,
) {
    let world = World::over(backend).await;
    let mut browser = world.browser();
    let local = script(async |mut session| {
        session.count = 1;
        session.update(|data| data.count += 1).await?;
        Ok(session.commit().await?.into_response())
    });
    world.run(&mut browser, local).await.expect(StatusCode::OK, "");
    assert_eq!(world.read(&mut browser).await.unwrap().count, 2);

    let dirty = script(async |mut session| {
        session.count = 9;
        match session.update(|data| data.count += 1).await {
            Err(SessionError::Uncommitted) => session.discard(),
            other => panic!("{other:?}"),
        }
        Ok(().into_response())
    });
    world.run(&mut browser, dirty).await.expect(StatusCode::OK, "");
    assert_eq!(world.read(&mut browser).await.unwrap().count, 2);
}

pub async fn after_an_update_that_failed_or_was_dropped_its_guard_goes_on(backend: &impl Backend) {
    let world = World::over_with(backend, |builder| builder.max_payload(500)).await;
    let mut browser = world.browser_with(Data::of("ann")).await;
    let store = world.store.clone();
    let fails = script(move |mut session| {
        let store = store.clone();
        async move {
            let large = session.update(|data| data.list = vec!["seven".to_owned(); 100]).await;
            assert!(matches!(large, Err(SessionError::TooLarge { .. })));
            store.inject_next(1, Operation::Save, Fault::Fail);
            let down = session.update(|data| data.count += 1).await;
            assert!(matches!(down, Err(SessionError::Store(_))));
            store.inject_next(1, Operation::Save, Fault::Hang);
            let update = session.update(|data| data.count += 1);
            let dropped = tokio::time::timeout(MILLISECOND, update).await;
            assert!(dropped.is_err());
            session.count += 10;
            Ok(session.commit().await?.into_response())
        }
    });
    world.run(&mut browser, fails).await.expect(StatusCode::OK, "");
    assert_eq!(world.read(&mut browser).await.unwrap().count, 10);
}

pub async fn update_and_commit_write_once_and_move_the_expiry(backend: &impl Backend) {
    let world = World::over(backend).await;
    let mut browser = world.browser_with(Data::of("ann")).await;
    world.clock.advance(HOUR);
    world.store.reset_calls();
    let update = script(async |mut session| {
        session.update(|data| data.count += 1).await?;
        assert_eq!(session.count, 1);
        Ok(session.commit().await?.into_response())
    });
    world.run(&mut browser, update).await.expect(StatusCode::OK, "").expect_no_cookie();
    assert_eq!(world.store.calls(Operation::Load), 1);
    assert_eq!(world.store.calls(Operation::Save), 1);
    world.clock.advance(DAY.checked_sub(MILLISECOND).unwrap());
    assert_eq!(world.read(&mut browser).await.unwrap().count, 1);
}

pub async fn a_write_whose_answer_was_lost_is_not_applied_twice(backend: &impl Backend) {
    let world = World::over(backend).await;
    let mut browser = world.browser_with(Data::of("ann")).await;
    world.store.inject_next(1, Operation::Save, Fault::LoseAnswer);
    let count = script(async |mut session| {
        session.update(|data| data.count += 1).await?;
        Ok(session.commit().await?.into_response())
    });
    let answer = world.run(&mut browser, count.clone()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    answer.expect_no_cookie();
    assert_eq!(world.read(&mut browser).await.unwrap().count, 1);
    let append = change(|session| session.list.push("one".to_owned()));
    world.store.inject_next(1, Operation::Save, Fault::LoseAnswer);
    let answer = world.run(&mut browser, append).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.read(&mut browser).await.unwrap().list, ["one"]);
}

pub async fn a_merge_names_no_owner_that_neither_side_named(backend: &impl Backend) {
    // The owner is a person within a tenant, whose number is the count.
    let world = World::over_with(backend, |builder| {
        builder.owner(|data: &Data| Some(format!("{}/{}", data.count, data.user.as_ref()?)))
    })
    .await;
    let browser = world.browser_with(Data::count_of(1)).await;
    let (login, _, switch, mut after) = overlap(
        &world,
        &browser,
        |session| {
            session.user = Some("ann".to_owned());
            session.regenerate();
        },
        |session| session.count = 2,
    )
    .await;
    assert_eq!(switch.status, StatusCode::OK);
    assert_eq!(login.status, StatusCode::CONFLICT);
    assert_eq!(world.rows().await, 1);
    assert_eq!(world.read(&mut after).await, Some(Data::count_of(2)));
}

pub async fn no_policy_replaces_a_row_of_a_newer_schema(backend: &impl Backend) {
    for policy in [ConflictPolicy::Merge, ConflictPolicy::Reject, ConflictPolicy::Overwrite] {
        let world = World::over_with(backend, |builder| builder.on_conflict(policy)).await;
        let mut browser = world.browser_with(Data::of("ann")).await;
        let key = key_of(&world, &mut browser).await;
        let newer = SessionManager::<Data>::builder()
            .store(world.store.clone())
            .clock(world.clock.clone())
            .schema_version(2)
            .migrate(|_, value| Ok::<_, std::convert::Infallible>(value))
            .build()
            .unwrap();
        let gate = Gate::new();
        let (waiting, slow_world, mut slow) = (gate.clone(), world.clone(), browser.clone());
        let request = tokio::spawn(async move {
            let change = script(move |mut session| {
                let waiting = waiting.clone();
                async move {
                    waiting.pass().await;
                    session.count = 1;
                    Ok(session.commit().await?.into_response())
                }
            });
            slow_world.run(&mut slow, change).await.status
        });
        gate.reached(1).await;
        newer.update(key, |data| data.list.push("one".to_owned())).await.unwrap();
        gate.open();
        let status = request.await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{policy:?}");
        assert_eq!(newer.load(key).await.unwrap().unwrap().list, ["one"]);
    }
}

pub async fn a_touch_is_no_conflict(backend: &impl Backend) {
    let world = World::over_with(backend, |builder| {
        builder.rolling(true).on_conflict(ConflictPolicy::Reject)
    })
    .await;
    let mut browser = world.browser_with(Data::of("ann")).await;
    world.clock.advance(HOUR);
    world.store.reset_calls();
    let (write, ..) = overlap(&world, &browser, |session| session.count = 3, |_| {}).await;
    assert_eq!(world.store.calls(Operation::Touch), 1);
    assert_eq!(write.status, StatusCode::OK);
    assert_eq!(world.read(&mut browser).await.unwrap().count, 3);
}

/// Changes a part of its own over and over, until the session is no more.
async fn keep_writing(world: World, mut browser: Browser, number: u32) {
    let session = browser.token();
    for count in 0.. {
        let write = change(move |session| _ = session.map.insert(number.to_string(), count));
        let answer = world.run(&mut browser, write).await;
        if answer.status != StatusCode::OK || browser.token() != session {
            return;
        }
    }
}

pub async fn a_logout_and_a_login_get_through_to_a_session_that_others_keep_writing(
    backend: &impl Backend,
) {
    let logout: fn(&mut Session<Data>) = Session::destroy;
    for end in [logout, Session::regenerate] {
        for writers in [1, 3] {
            let world = World::over(backend).await;
            let mut browser = world.browser_with(Data::of("ann")).await;
            let old = browser.clone();
            world.store.reset_calls();
            let writers = (0..writers)
                .map(|number| tokio::spawn(keep_writing(world.clone(), old.clone(), number)));
            let writers: Vec<_> = writers.collect();
            while world.store.calls(Operation::Save) < 20 {
                tokio::time::sleep(MILLISECOND).await;
            }
            let answer = world.run(&mut browser, change(end)).await;
            assert_eq!(answer.status, StatusCode::OK);
            for writer in writers {
                writer.await.unwrap();
            }
            assert_eq!(world.read(&mut old.clone()).await, None);
        }
    }
}

pub async fn a_logout_everywhere_misses_no_session_that_gets_a_new_id(backend: &impl Backend) {
    // With `on_end` the sessions end one by one.
    for tells in [false, true] {
        let world =
            World::over_with(
                backend,
                |builder| {
                    if tells { builder.on_end(|_, _| {}) } else { builder }
                },
            );
        logout_everywhere_beside_new_ids(world.await).await;
    }
}

async fn logout_everywhere_beside_new_ids(world: World) {
    if !world.store.indexes_owners() {
        return;
    }
    for round in 0..60 {
        let name = format!("ann {round}");
        let mut others = Vec::new();
        for _ in 0..round % 4 {
            others.push(world.browser_with(Data::of(&name)).await);
        }
        let mut browser = world.browser_with(Data::of(&name)).await;
        let rotation = async {
            tokio::time::sleep(MILLISECOND / 20 * (round % 20)).await;
            world.run(&mut browser, change(Session::regenerate)).await.status
        };
        let sessions = world.sessions.clone();
        let owner = name.clone();
        let revoke = tokio::spawn(async move { sessions.destroy_all_of(&owner).await });
        let status = rotation.await;
        revoke.await.unwrap().unwrap();
        assert_eq!(world.read(&mut browser).await, None, "a new id with {status}");
        assert!(world.sessions.sessions_of(&name).await.unwrap().is_empty());
    }
}

pub async fn after_logins_at_once_exactly_the_allowed_number_of_sessions_is_left(
    backend: &impl Backend,
) {
    if !World::over(backend).await.store.indexes_owners() {
        return;
    }
    for limit in [1, 3] {
        let world =
            World::over_with(backend, |builder| builder.max_sessions_per_owner(limit)).await;
        let mut bob = world.browser_with(Data::of("bob")).await;
        let logins = all_at_once(20, |number| {
            let (world, mut browser) = (world.clone(), world.browser());
            async move {
                let login = change(move |session| {
                    session.user = Some("ann".to_owned());
                    session.count = number;
                    session.regenerate();
                });
                world.run(&mut browser, login).await.expect(StatusCode::OK, "");
                browser
            }
        });
        let mut left = 0;
        for mut browser in logins.await {
            left += u32::from(world.read(&mut browser).await.is_some());
        }
        let listed = world.sessions.sessions_of("ann").await.unwrap();
        assert_eq!((left, listed.len()), (limit, limit as usize));
        assert_eq!(world.rows().await, listed.len() + 1);
        assert!(world.read(&mut bob).await.is_some());
    }
}

pub async fn every_session_is_listed_while_others_come_and_go(backend: &impl Backend) {
    let world = World::over(backend).await;
    if !world.store.lists_sessions() {
        let error = world.sessions.sessions(None, 10).await.unwrap_err();
        assert!(matches!(error, SessionError::Store(StoreError::Unsupported { .. })), "{error}");
        return;
    }
    let mut stay = BTreeSet::new();
    for number in 0..30 {
        let mut browser = world.browser_with(Data::of(&format!("stays {number}"))).await;
        stay.insert(key_of(&world, &mut browser).await);
    }
    let coming_and_going = {
        let world = world.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let mut browser = world.browser_with(Data::of(&format!("goes {number}"))).await;
                world.run(&mut browser, change(Session::destroy)).await;
                tokio::task::yield_now().await;
            }
        })
    };
    for limit in [1, 7, 100] {
        let (mut listed, mut after) = (BTreeSet::new(), None);
        loop {
            let page = world.sessions.sessions(after.as_ref(), limit).await.unwrap();
            assert!(page.unreadable.is_empty());
            listed.extend(page.iter().map(StoredSession::key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(
            listed.is_superset(&stay),
            "{} of {}",
            listed.intersection(&stay).count(),
            stay.len()
        );
    }
    coming_and_going.abort();
}
