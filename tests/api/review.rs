//! What a reading of the core found.

use std::time::Duration;

use axum::{
    Router,
    extract::{FromRequestParts as _, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use axum_typed_session::{
    AutoCommitLayer, Counter, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder, SessionStore, StoreKey, delegate_session_store,
    store::{SaveOutcome, Timestamp, Write},
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation, RecordBuilder},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Visit, change, meanwhile, overlap, run, seen, spawned, visited},
    support::{Browser, EventLog, Log, ProbeStore, SECOND, key},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Data {
    user: Option<String>,
    elevated: bool,
    hits: Counter,
    cart: Vec<String>,
    last: String,
}

impl Data {
    fn of(user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..Self::default() }
    }
}

type Store = FaultyStore<MemoryStore>;

fn stored(clock: &ManualClock) -> (Store, SessionManagerBuilder<Data>) {
    let store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let builder = SessionManager::builder().clock(clock.clone()).store(store.clone());
    (store, builder.owner(|data: &Data| data.user.clone()))
}

async fn browser_of(sessions: &SessionManager<Data>, data: Data) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    let answer = change(&mut browser, |session: &mut Session<Data>| {
        **session = data;
        session.force_save();
    });
    assert_eq!(answer.await.told(), "set");
    browser
}

fn layered(sessions: &SessionManager<Data>) -> Router {
    visited(sessions.clone()).layer(AutoCommitLayer::new())
}

fn login(user: &'static str) -> impl Fn(&mut Session<Data>) {
    move |session| {
        session.user = Some(user.to_owned());
        session.regenerate();
    }
}

// Guards dropped while a commit is under way.

/// A guard is dropped, one commits, and while it does a third is dropped.
async fn dropped_commit_dropped(first: fn(&mut Session<Data>)) -> (StatusCode, Data) {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    let gate = Gate::new();
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let mut before = visit.session().await?;
        first(&mut before);
        drop(before);
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        "here".clone_into(&mut one.last);
        other.cart.push("tea".to_owned());
        let (guard, ()) = meanwhile(&gate, one.commit(), async { drop(other) }).await;
        Ok(guard?.into_response())
    })
    .await;
    (answer.status, seen(&browser).await.unwrap())
}

#[tokio::test]
async fn what_a_guard_left_is_applied_once_when_another_is_dropped_during_its_commit() {
    let (status, data) = dropped_commit_dropped(|session| session.hits += 1).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((*data.hits, &*data.last, data.cart.len()), (1, "here", 1));
}

#[tokio::test]
async fn what_a_guard_left_in_a_list_is_there_once_when_another_is_dropped_during_its_commit() {
    let (status, data) =
        dropped_commit_dropped(|session| session.cart.push("rice".to_owned())).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(data.cart, ["rice", "tea"]);
}

#[tokio::test]
async fn a_clear_that_was_committed_does_not_clear_the_commit_again() {
    let (status, data) = dropped_commit_dropped(Session::clear).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&*data.last, data.cart.len()), ("here", 1));
}

#[tokio::test]
async fn an_end_recorded_during_a_commit_is_not_forgotten() {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    let gate = Gate::new();
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        one.user = Some("bob".to_owned());
        other.destroy();
        let rest = async {
            drop(other);
            let mut fresh = visit.session().await?;
            assert!(fresh.is_new());
            "flash".clone_into(&mut fresh.last);
            drop(fresh);
            Ok::<_, SessionError>(())
        };
        let (guard, rest) = meanwhile(&gate, one.commit(), rest).await;
        rest?;
        Ok((StatusCode::INTERNAL_SERVER_ERROR, guard?).into_response())
    })
    .await;
    assert_eq!(sessions.sessions_of("bob").await.unwrap().len(), 0, "{answer:?}");
    assert_eq!(sessions.sessions_of("ada").await.unwrap().len(), 0, "{answer:?}");
}

#[tokio::test]
async fn a_change_dropped_while_the_layer_commits_is_not_lost_in_silence() {
    let log = Log::start();
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    let gate = Gate::new();
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let waiting = gate.clone();
    let (sender, done) = tokio::sync::oneshot::channel();
    let request = run(&mut under, async move |mut visit: Visit<Data>| {
        let (mut one, mut late) = (visit.session().await?, visit.session().await?);
        "here".clone_into(&mut one.last);
        drop(one);
        tokio::spawn(async move {
            waiting.reached(1).await;
            late.destroy();
            drop(late);
            let _ = sender.send(());
        });
        Ok(().into_response())
    });
    let open = async {
        done.await.unwrap();
        gate.open();
    };
    let (answer, ()) = tokio::join!(request, open);
    let left = seen::<Data>(&browser).await;
    assert!(left.is_none() || !log.take().is_empty(), "{answer:?} {left:?}");
}

// Identities under the layer.

#[tokio::test]
async fn no_change_crosses_two_boundaries_of_guards_dropped_under_the_layer() {
    let (_, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let mut switch = visit.session().await?;
        *switch = Data::of("bob");
        drop(switch);
        let (mut of_bob, mut logout) = (visit.session().await?, visit.session().await?);
        logout.clear();
        drop(logout);
        of_bob.elevated = true;
        drop(of_bob);
        Ok(().into_response())
    })
    .await;
    let left = seen::<Data>(&browser).await.unwrap();
    assert!(!(left.user.is_none() && left.elevated), "{left:?} {answer:?}");
}

#[tokio::test]
async fn a_clear_reaches_what_an_earlier_guard_left_of_a_fresh_session() {
    let (_, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let mut under = Browser::new(layered(&sessions));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let mut before = visit.session().await?;
        before.user = Some("ada".to_owned());
        drop(before);
        let mut session = visit.session().await?;
        session.clear();
        assert_eq!(session.user, None);
        Ok(session.commit().await?.into_response())
    })
    .await;
    let of_ada = sessions.sessions_of("ada").await.unwrap().len();
    let left = seen::<Data>(&under).await;
    let user = left.and_then(|data| data.user);
    assert_eq!((user, of_ada), (None, 0), "{answer:?}");
}

#[tokio::test]
async fn a_stored_owner_is_that_of_the_stored_data() {
    let (_, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let mut under = Browser::new(layered(&sessions));
    run(&mut under, async move |mut visit: Visit<Data>| {
        let mut before = visit.session().await?;
        before.user = Some("ada".to_owned());
        drop(before);
        let mut session = visit.session().await?;
        session.clear();
        Ok(session.commit().await?.into_response())
    })
    .await;
    let user = seen::<Data>(&under).await.and_then(|data| data.user);
    let of_ada = sessions.sessions_of("ada").await.unwrap().len();
    assert_eq!(usize::from(user.is_some()), of_ada);
}

// Rows after failures.

/// Ends ada's session with `logout` while a `regenerate` waits for its last write, which fails. Returns what the
/// store has of her then.
async fn logout_during_a_failing_regenerate(
    logout: impl AsyncFnOnce(&SessionManager<Data>, Browser),
) -> (Option<Data>, usize) {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    // The new row and the tombstone land; the last write hangs twice, until it times out.
    store.reset_calls();
    store.inject_next(2, Operation::Save, Fault::Pass);
    store.inject_next(1, Operation::Save, Fault::Fail);
    store.inject_next(1, Operation::Save, Fault::Hang);
    let regenerate = spawned(&browser, async |mut visit: Visit<Data>| {
        let mut session = visit.session().await?;
        session.regenerate();
        Ok(session.commit().await?.into_response())
    });
    while store.calls(Operation::Save) < 4 {
        tokio::task::yield_now().await;
    }
    logout(&sessions, browser.clone()).await;
    let (answer, _) = regenerate.await.unwrap();
    assert!(!answer.status.is_success());
    (seen::<Data>(&browser).await, sessions.sessions_of("ada").await.unwrap().len())
}

#[tokio::test(start_paused = true)]
async fn a_logout_during_a_regenerate_that_fails_is_final() {
    let left = logout_during_a_failing_regenerate(async |_, mut elsewhere| {
        let logout = change(&mut elsewhere, Session::<Data>::destroy).await;
        assert_eq!((logout.status, logout.told()), (StatusCode::OK, "removed"));
    });
    assert_eq!(left.await, (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_logout_everywhere_during_a_regenerate_that_fails_is_final() {
    let left = logout_during_a_failing_regenerate(async |sessions, _| {
        sessions.destroy_all_of("ada").await.unwrap();
    });
    assert_eq!(left.await, (None, 0));
}

/// A store every call of which takes its time.
struct SlowStore(MemoryStore);

impl SessionStore for SlowStore {
    delegate_session_store!(all => self.0, async |_, call| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        call.await
    });
}

#[tokio::test(start_paused = true)]
async fn a_logout_that_replaced_ids_lead_in_a_circle_is_an_error_in_time() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let (_, sessions) = stored(&clock);
    let sessions = sessions.store(SlowStore(store.clone())).build().unwrap();
    let mut browser = browser_of(&sessions, Data::of("ada")).await;
    let session = sessions.sessions_of("ada").await.unwrap().sessions.remove(0);
    // Damage that only somebody with access to the store can do.
    let [begin, end] = [session.created_at(), session.expires_at()].map(Timestamp::from);
    let itself = [&[0], session.key().as_bytes().as_slice()].concat();
    let circle = RecordBuilder::new().created_at(begin).expires_at(end);
    let circle = circle.tombstone().payload(itself).build();
    store.destroy(&session.key()).await.unwrap();
    let saved = store.save(&session.key(), &circle, Write::Create).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    let logout = change(&mut browser, Session::<Data>::destroy);
    let logout = tokio::time::timeout(Duration::from_secs(60), logout).await.expect("an answer");
    assert_eq!((logout.status, logout.told()), (StatusCode::CONFLICT, "nothing"));
}

#[tokio::test]
async fn a_new_id_survives_a_store_whose_clock_is_ahead() {
    let clock = ManualClock::new();
    let ahead = ManualClock::new();
    ahead.advance(15 * SECOND);
    let store = MemoryStore::builder().clock(ahead).build();
    let sessions: SessionManager<Data> =
        SessionManager::builder().clock(clock.clone()).store(store).build().unwrap();
    let mut browser = browser_of(&sessions, Data::of("ada")).await;
    let answer = change(&mut browser, Session::<Data>::regenerate).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(seen::<Data>(&browser).await.is_some());
}

#[tokio::test]
async fn a_regenerate_that_the_clock_jumps_over_leaves_a_session() {
    let clock = ManualClock::new();
    let (store, sessions) = stored(&clock);
    let sessions = sessions.build().unwrap();
    let mut browser = browser_of(&sessions, Data::of("ada")).await;
    let gate = Gate::new();
    store.inject_next(2, Operation::Save, Fault::Pass);
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let jump = async {
        gate.reached(1).await;
        clock.advance(15 * SECOND);
        gate.open();
    };
    let (answer, ()) = tokio::join!(change(&mut browser, Session::<Data>::regenerate), jump);
    assert!(seen::<Data>(&browser).await.is_some(), "{answer:?}");
}

/// Drops a guard that counted one hit, and returns the next, which counted ten.
async fn after_a_dropped_hit(visit: &mut Visit<Data>) -> Result<Session<Data>, SessionError> {
    visit.session().await?.hits += 1;
    let mut session = visit.session().await?;
    session.hits += 10;
    Ok(session)
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_not_applied_again_by_the_layer() {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    store.inject_next(1, Operation::Save, Fault::LoseAnswer);
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let session = after_a_dropped_hit(&mut visit).await?;
        let outcome = session.commit().await;
        assert!(outcome.is_err());
        Ok("sorry".into_response())
    })
    .await;
    let hits = *seen::<Data>(&browser).await.unwrap().hits;
    assert!([0, 11].contains(&hits), "{hits} {answer:?}");
}

#[tokio::test]
async fn a_commit_that_was_dropped_is_not_applied_again_by_the_layer() {
    for (held, arrived) in [(Fault::HoldAnswer as fn(Gate) -> Fault, true), (Fault::Pause, false)] {
        let (store, sessions) = stored(&ManualClock::new());
        let sessions = sessions.build().unwrap();
        let browser = browser_of(&sessions, Data::of("ada")).await;
        let mut under = browser.at(&layered(&sessions));
        let gate = Gate::new();
        store.inject_next(1, Operation::Save, held(gate.clone()));
        let answer = run(&mut under, async move |mut visit: Visit<Data>| {
            let session = after_a_dropped_hit(&mut visit).await?;
            tokio::select! {
                biased;
                _ = session.commit() => panic!("the store holds it"),
                () = gate.reached(1) => {}
            }
            Ok("too slow".into_response())
        })
        .await;
        let hits = *seen::<Data>(&browser).await.unwrap().hits;
        assert_eq!((answer.status, hits), (StatusCode::CONFLICT, i64::from(arrived) * 11));
    }
}

// Outside a request.

/// Pauses the load before an end, and logs another user in meanwhile.
async fn ended_meanwhile(
    end: impl AsyncFnOnce(
        &SessionManager<Data>,
        StoreKey,
        Option<axum_typed_session::SessionHandle<Data>>,
    ),
) -> Option<Data> {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let mut browser = browser_of(&sessions, Data::of("ada")).await;
    let (sender, handle) = tokio::sync::oneshot::channel();
    run(&mut browser, async move |mut visit: Visit<Data>| {
        let session = visit.session().await?;
        let _ = sender.send(session.handle()?);
        Ok(session.commit().await?.into_response())
    })
    .await;
    let handle = handle.await.unwrap();
    let key = handle.key();
    let gate = Gate::new();
    store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
    let switch = async {
        gate.reached(1).await;
        let answer =
            change(&mut browser, |session: &mut Session<Data>| **session = Data::of("bob")).await;
        assert_eq!(answer.status, StatusCode::OK);
        gate.open();
    };
    tokio::join!(end(&sessions, key, Some(handle)), switch);
    seen(&browser).await
}

#[tokio::test]
async fn the_handle_of_one_person_does_not_end_the_session_of_the_next() {
    let left = ended_meanwhile(async |_, _, handle| {
        let _ = handle.unwrap().destroy().await;
    });
    assert_eq!(left.await, Some(Data::of("bob")));
}

#[tokio::test]
async fn an_owner_does_not_end_the_session_of_the_next() {
    let left = ended_meanwhile(async |sessions, key, _| {
        let _ = sessions.destroy_of("ada", key).await;
    });
    assert_eq!(left.await, Some(Data::of("bob")));
}

// Merging.

#[tokio::test]
async fn two_guards_with_different_fields_both_land_after_a_field_was_added() {
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    struct Old {
        last: String,
        page: String,
    }
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct New {
        last: String,
        page: String,
        count: u32,
    }
    for one_changes in [true, false] {
        let clock = ManualClock::new();
        let store = ProbeStore::new(&clock);
        let old = SessionManager::<Old>::builder().clock(clock.clone()).kind("x");
        let old = old.store(store.clone()).build().unwrap();
        let new = SessionManager::<New>::builder().clock(clock.clone()).kind("x").store(store);
        let new = new.rolling(true).build().unwrap();
        let mut before = Browser::new(visited(old));
        change(&mut before, |session: &mut Session<Old>| "a".clone_into(&mut session.last)).await;
        clock.advance(SECOND);
        let mut browser = before.at(&visited(new));
        let answer = run(&mut browser, async move |mut visit: Visit<New>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            if one_changes {
                "b".clone_into(&mut one.last);
            }
            "c".clone_into(&mut other.page);
            other.count = 1;
            // A guard that changed nothing still extends the session.
            let _ = one.commit().await?;
            Ok(other.commit().await?.into_response())
        })
        .await;
        assert_eq!(answer.status, StatusCode::OK);
        let last = if one_changes { "b" } else { "a" }.to_owned();
        let merged = New { last, page: "c".to_owned(), count: 1 };
        assert_eq!(seen::<New>(&browser).await, Some(merged));
    }
}

async fn race<T>(start: T, one: fn(&mut T), other: fn(&mut T)) -> (StatusCode, T)
where
    T: Default
        + Clone
        + std::fmt::Debug
        + Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let sessions = SessionManager::<T>::builder().clock(clock).store(store).build().unwrap();
    let mut browser = Browser::new(visited(sessions));
    change(&mut browser, move |session: &mut Session<T>| {
        **session = start;
        session.force_save();
    })
    .await;
    assert!(seen::<T>(&browser).await.is_some());
    let overlapped = overlap(
        &browser,
        move |session: &mut Session<T>| other(session),
        async move |browser| {
            let answer = change(browser, move |session: &mut Session<T>| one(session)).await;
            assert_eq!(answer.status, StatusCode::OK);
        },
    )
    .await;
    (overlapped.slow.status, seen(&browser).await.unwrap())
}

#[tokio::test]
async fn a_session_that_is_an_enum_with_tag_and_content_is_one_value() {
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "state", content = "cents")]
    enum Payment {
        #[default]
        None,
        Draft(String),
        Confirmed(String),
    }
    let (status, left) = race(
        Payment::Draft("500".to_owned()),
        |payment| *payment = Payment::Confirmed("500".to_owned()),
        |payment| *payment = Payment::Draft("90000".to_owned()),
    )
    .await;
    assert_eq!((status, left), (StatusCode::CONFLICT, Payment::Confirmed("500".to_owned())));
}

#[tokio::test]
async fn a_swapped_tuple_is_a_change() {
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    struct Piece {
        at: (u8, u8),
    }
    let (status, left) =
        race(Piece { at: (1, 2) }, |piece| piece.at = (7, 7), |piece| piece.at = (2, 1)).await;
    assert_eq!((status, left.at), (StatusCode::CONFLICT, (7, 7)));
}

// Cookie mode.

#[tokio::test]
async fn with_revocations_a_login_in_flight_does_not_undo_a_logout() {
    let clock = ManualClock::new();
    let list = ProbeStore::new(&clock);
    let sessions: SessionManager<Data> = SessionManager::builder()
        .clock(clock)
        .keys(key())
        .revocations(list)
        .owner(|data: &Data| data.user.clone())
        .build()
        .unwrap();
    let cart = Data { cart: vec!["tea".to_owned()], ..Data::default() };
    let browser = browser_of(&sessions, cart).await;
    let overlapped = overlap(&browser, login("ada"), async |browser| {
        assert_eq!(change(browser, Session::<Data>::destroy).await.told(), "removed");
    })
    .await;
    assert_eq!(overlapped.slow.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn with_a_store_a_login_in_flight_does_not_undo_a_logout() {
    let (_, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let cart = Data { cart: vec!["tea".to_owned()], ..Data::default() };
    let browser = browser_of(&sessions, cart).await;
    let overlapped = overlap(&browser, login("ada"), async |browser| {
        assert_eq!(change(browser, Session::<Data>::destroy).await.told(), "removed");
    })
    .await;
    assert_eq!(overlapped.slow.status, StatusCode::CONFLICT);
}

// Around the layer.

#[tokio::test]
async fn a_change_that_is_dropped_outside_of_the_layer_is_warned_of() {
    async fn outside(
        State(sessions): State<SessionManager<Data>>,
        request: Request,
        next: Next,
    ) -> Result<Response, SessionError> {
        let (mut parts, body) = request.into_parts();
        let mut session = Session::<Data>::from_request_parts(&mut parts, &sessions).await?;
        let response = next.run(Request::from_parts(parts, body)).await;
        "outside".clone_into(&mut session.last);
        Ok(response)
    }
    let log = Log::start();
    let (_, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let app = layered(&sessions).layer(from_fn_with_state(sessions.clone(), outside));
    let mut under = browser.at(&app);
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let session = visit.session().await?;
        Ok(session.commit().await?.into_response())
    })
    .await;
    let left = seen::<Data>(&browser).await.unwrap();
    assert!(left.last == "outside" || !log.take().is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_commit_in_a_task_is_waited_for_while_the_layer_commits_another_session() {
    let clock = ManualClock::new();
    let (_, sessions) = stored(&clock);
    let sessions = sessions.build().unwrap();
    let numbers_store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
    let numbers: SessionManager<u32> = SessionManager::builder()
        .clock(clock)
        .store(numbers_store.clone())
        .cookie(cookie::Cookie::new("__Host-number", ""))
        .build()
        .unwrap();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let first = Gate::new();
    numbers_store.inject_next(1, Operation::Save, Fault::Pause(first.clone()));
    let (sender, outcome) = tokio::sync::oneshot::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let handler = {
        let (sessions, numbers, first) = (sessions.clone(), numbers.clone(), first.clone());
        move |request: Request| {
            let (sessions, numbers, first) = (sessions.clone(), numbers.clone(), first.clone());
            let sender = sender.lock().unwrap().take().unwrap();
            async move {
                let mut parts = request.into_parts().0;
                let mut session =
                    Session::<Data>::from_request_parts(&mut parts, &sessions).await.unwrap();
                let mut number =
                    Session::<u32>::from_request_parts(&mut parts, &numbers).await.unwrap();
                *number += 1;
                tokio::spawn(async move {
                    first.reached(1).await;
                    session.regenerate();
                    let _ = sender.send(session.commit().await.map(drop));
                });
            }
        }
    };
    let app = Router::new().route("/", axum::routing::post(handler)).layer(AutoCommitLayer::new());
    let mut under = browser.at(&app);
    let request = tokio::spawn(async move {
        let answer = under.send(http::Request::post("/")).await;
        (answer, under)
    });
    first.reached(1).await;
    crate::requests::settle().await;
    first.open();
    let outcome = outcome.await.unwrap();
    let (answer, under) = request.await.unwrap();
    let left = seen::<Data>(&under.at(&visited(sessions))).await;
    assert_eq!(left, Some(Data::of("ada")), "{outcome:?} {answer:?}");
}

#[tokio::test]
async fn the_layer_renders_an_error_as_its_own_manager_asks() {
    let face =
        |text: &'static str| move |error: &SessionError| (error.status(), text).into_response();
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.error_response(face("data")).build().unwrap();
    let numbers: SessionManager<u32> = SessionManager::builder()
        .keys(key())
        .cookie(cookie::Cookie::new("__Host-number", ""))
        .error_response(face("number"))
        .build()
        .unwrap();
    store.inject(Operation::Save, Fault::Fail);
    let handler = move |request: Request| {
        let (sessions, numbers) = (sessions.clone(), numbers.clone());
        async move {
            let mut parts = request.into_parts().0;
            Session::<u32>::from_request_parts(&mut parts, &numbers).await?.discard();
            let mut session = Session::<Data>::from_request_parts(&mut parts, &sessions).await?;
            session.hits += 1;
            session.commit().await
        }
    };
    let app = Router::new().route("/", axum::routing::get(handler)).layer(AutoCommitLayer::new());
    assert_eq!(Browser::new(app).get("/").await.body, "data");
}

#[tokio::test]
async fn an_update_that_another_made_first_is_no_save() {
    let log = EventLog::default();
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.on_event(log.hook()).build().unwrap();
    browser_of(&sessions, Data::of("ada")).await;
    let key = sessions.sessions_of("ada").await.unwrap().sessions.remove(0).key();
    log.take();
    let gate = Gate::new();
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let write = || sessions.update(key, |data| "here".clone_into(&mut data.last));
    let (late, early) = meanwhile(&gate, write(), write()).await;
    late.and(early).unwrap();
    assert_eq!(log.take(), ["saved"]);
}

// Faults found by comparing with be66cd3.

/// A manager whose `before_save` brings the names of users, who are the owners, into one form.
fn in_lower_case() -> SessionManager<Data> {
    let (_, sessions) = stored(&ManualClock::new());
    let lower = |data: &mut Data| data.user = data.user.take().map(|user| user.to_lowercase());
    sessions.before_save(lower).build().unwrap()
}

#[tokio::test]
async fn an_update_follows_a_login_whose_name_before_save_rewrites() {
    let sessions = in_lower_case();
    let browser = browser_of(&sessions, Data::default()).await;
    let mut under = browser.at(&layered(&sessions));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        visit.session().await?.user = Some("Ada".to_owned());
        let mut session = visit.session().await?;
        session.update(|data| data.hits += 1).await?;
        Ok(session.commit().await?.into_response())
    })
    .await;
    let data = seen::<Data>(&browser).await.unwrap();
    assert_eq!((answer.status, &*data.user.unwrap(), *data.hits), (StatusCode::OK, "ada", 1));
}

#[tokio::test]
async fn a_login_whose_name_before_save_rewrites_is_no_boundary_between_guards() {
    let sessions = in_lower_case();
    let browser = browser_of(&sessions, Data::of("ada")).await;
    let mut under = browser.at(&layered(&sessions));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        visit.session().await?.user = Some("Ada".to_owned());
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        "here".clone_into(&mut one.last);
        other.cart.push("tea".to_owned());
        let _one = one.commit().await?;
        Ok(other.commit().await?.into_response())
    })
    .await;
    let data = seen::<Data>(&browser).await.unwrap();
    assert_eq!((answer.status, &*data.last, data.cart.len()), (StatusCode::OK, "here", 1));
}

#[tokio::test]
async fn in_cookie_mode_a_dropped_commit_stored_nothing_so_the_layer_commits_what_guards_left() {
    let list = FaultyStore::new(MemoryStore::new());
    let sessions = SessionManager::<Data>::builder().keys(key()).revocations(list.clone());
    let sessions = sessions.build().unwrap();
    let mut under = browser_of(&sessions, Data::of("ada")).await.at(&layered(&sessions));
    let gate = Gate::new();
    let inject = list.clone();
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let session = after_a_dropped_hit(&mut visit).await?;
        inject.inject_next(1, Operation::Load, Fault::Pause(gate.clone()));
        tokio::select! {
            biased;
            _ = session.commit() => panic!("the list holds it"),
            () = gate.reached(1) => {}
        }
        Ok("too slow".into_response())
    })
    .await;
    let hits = *seen::<Data>(&under).await.unwrap().hits;
    assert_eq!((answer.status, hits), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_logout_after_a_dropped_commit_is_a_logout() {
    let (store, sessions) = stored(&ManualClock::new());
    let sessions = sessions.build().unwrap();
    let mut under = browser_of(&sessions, Data::of("ada")).await.at(&layered(&sessions));
    let gate = Gate::new();
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let answer = run(&mut under, async move |mut visit: Visit<Data>| {
        let session = after_a_dropped_hit(&mut visit).await?;
        tokio::select! {
            biased;
            _ = session.commit() => panic!("the store holds it"),
            () = gate.reached(1) => {}
        }
        visit.session().await?.destroy();
        Ok("bye".into_response())
    })
    .await;
    let left = sessions.sessions_of("ada").await.unwrap().len();
    assert_eq!((answer.status, answer.told(), left), (StatusCode::OK, "removed", 0));
}

#[tokio::test]
async fn the_layers_future_stays_on_the_fast_path_of_allocators() {
    use tower::{Layer as _, Service as _};
    let (_, sessions) = stored(&ManualClock::new());
    let mut service = AutoCommitLayer::new().layer(visited(sessions.build().unwrap()));
    let future = service.call(Request::new(axum::body::Body::empty()));
    assert!(size_of_val(&*future) <= 1024, "{}", size_of_val(&*future));
}
