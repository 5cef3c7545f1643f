//! Sessions whose data is in a store: what is asked of it, and when.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    Router,
    extract::{FromRequestParts as _, Request, State},
    response::IntoResponse,
    routing::get,
};
use axum_typed_session::{
    IdleTimeout, Key, MemoryStore, Session, SessionError, SessionManager, SessionStore, StoreError,
    testing::{Fault, Operation},
};
use http::StatusCode;

use crate::{
    support::{Browser, COOKIE, EventLog, HOUR, SECOND, Visits, get_with_cookies, scripted, send},
    world::{Data, World, change, script},
};

type Wish = fn(&mut Session<Data>);

#[tokio::test]
async fn the_client_holds_an_id_and_the_store_sees_only_its_hash() {
    let world = World::new();
    let browser = world.browser_with(Data::count_of(1)).await;
    let token = browser.token();
    assert_eq!(token.len(), 43);
    let id = script(async |session| {
        let id = session.id().unwrap();
        assert_ne!(id.as_bytes(), id.store_key().as_bytes());
        Ok(id.store_key().to_base64url().into_response())
    });
    let answer = world.run(&mut browser.clone(), id).await;
    let key = answer.body.parse::<axum_typed_session::StoreKey>().unwrap();
    let row = world.store.inner().load(&key).await.unwrap().unwrap();
    let stored = format!("{:?} {}", row.to_bytes(), String::from_utf8_lossy(row.payload()));
    assert!(!stored.contains(&token));
}

#[tokio::test]
async fn a_handler_that_does_not_ask_for_the_session_makes_no_store_call() {
    let world = World::new();
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let app = Router::new()
        .route("/", get(async || "hello"))
        .layer(axum_typed_session::AutoCommitLayer::new())
        .with_state(world.sessions.clone());
    world.store.reset_calls();
    world.store.inject(Operation::all(), Fault::Fail);
    browser.at(&app).get("/").await.expect(StatusCode::OK, "hello");
    assert_eq!(world.store.calls(Operation::all()), 0);
    assert_eq!(browser.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_fresh_session_asks_the_store_nothing_until_it_is_saved() {
    let world = World::new();
    let mut browser = world.browser();
    world.run(&mut browser, change(|_| {})).await.expect_no_cookie();
    assert_eq!(world.store.calls(Operation::all()), 0);
    world.run(&mut browser, change(|session| session.count = 1)).await;
    assert_eq!(world.store.calls(Operation::all()), 1);
    assert_eq!(world.rows().await, 1);
}

#[tokio::test]
async fn one_load_and_at_most_one_write_a_request() {
    let world = World::new();
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let cases: [(&str, Wish, usize); 4] = [
        ("read", |_| {}, 0),
        (
            "changed back",
            |session| {
                session.count += 1;
                session.count -= 1;
            },
            0,
        ),
        (
            "force_save of a change",
            |session| {
                session.count += 1;
                session.force_save();
            },
            1,
        ),
        ("set_idle_timeout", |session| session.set_idle_timeout(HOUR), 1),
    ];
    for (name, wish, writes) in cases {
        world.store.reset_calls();
        let answer = world.run(&mut browser, change(wish)).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}");
        assert_eq!(world.store.calls(Operation::Load), 1, "{name}");
        assert_eq!(world.store.calls(Operation::all()), 1 + writes, "{name}");
        assert_eq!(world.store.calls(Operation::Save), writes, "{name}");
    }
}

#[tokio::test]
async fn unchanged_data_is_touched_and_never_rewritten() {
    let world = World::with(|builder| builder.rolling(true));
    let mut browser = world.browser_with(Data::count_of(1)).await;
    world.clock.advance(HOUR);
    world.store.reset_calls();
    world.run(&mut browser, change(|_| {})).await.expect_no_cookie();
    assert_eq!(world.store.calls(Operation::Touch), 1);
    assert_eq!(world.store.calls(Operation::Save), 0);
    world.clock.advance(HOUR * 23 + SECOND);
    assert!(world.read(&mut browser).await.is_some());
}

#[tokio::test]
async fn a_browser_session_is_saved_without_sending_the_cookie_again() {
    let world = World::with(|builder| builder.idle_timeout(IdleTimeout::BrowserSession(HOUR)));
    let mut browser = world.browser_with(Data::count_of(1)).await;
    world.clock.advance(SECOND);
    world.run(&mut browser, change(|session| session.count = 2)).await.expect_no_cookie();
    assert_eq!(world.read(&mut browser).await.unwrap().count, 2);
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_never_adopted_and_malformed_ones_cost_no_call() {
    let world = World::new();
    let known = world.browser_with(Data::count_of(1)).await.token();
    let unknown = "A".repeat(43);
    let malformed = [&known[1..], &format!("{known}A"), &"A".repeat(5000), "", "=", "\u{e4}"];
    world.store.reset_calls();
    let app = Router::new().route("/", get(count)).with_state(world.sessions.clone());
    for id in malformed {
        let answer = get_with_cookies(&app, &format!("{COOKIE}={id}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_ne!(answer.token(), id);
    }
    assert_eq!(world.store.calls(Operation::Load), 0);
    let answer = get_with_cookies(&app, &format!("{COOKIE}={unknown}")).await;
    assert_ne!(answer.token(), unknown);
}

async fn count(mut session: Session<Data>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = session.count.to_string();
    Ok((session.commit().await?, body))
}

#[tokio::test]
async fn with_keys_a_forged_id_costs_no_store_call() {
    let world = World::with(|builder| builder.keys(Key::generate()));
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let token = browser.token();
    assert!(token.len() > 43);
    world.store.reset_calls();
    for index in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
        browser.jar.insert(COOKIE.into(), String::from_utf8(forged).unwrap());
        assert_eq!(world.read(&mut browser).await, None);
    }
    browser.jar.insert(COOKIE.into(), "A".repeat(43));
    assert_eq!(world.read(&mut browser).await, None);
    assert_eq!(world.store.calls(Operation::all()), 0);
    browser.jar.insert(COOKIE.into(), token);
    assert_eq!(world.read(&mut browser).await.unwrap().count, 1);
}

#[tokio::test]
async fn an_id_of_one_kind_finds_nothing_under_another() {
    let world = World::new();
    let browser = world.browser_with(Data::count_of(1)).await;
    let other = SessionManager::<Data>::builder()
        .store(world.store.clone())
        .clock(world.clock.clone())
        .kind("Other")
        .build()
        .unwrap();
    let app = Router::new().route("/", get(count)).with_state(other);
    let answer = get_with_cookies(&app, &format!("{COOKIE}={}", browser.token())).await;
    assert_eq!(answer.body, "1");
    assert_ne!(answer.token(), browser.token());
}

#[tokio::test]
async fn an_id_that_collides_is_drawn_again_a_bounded_number_of_times() {
    let next = Arc::new(AtomicU8::new(0));
    let draws = next.clone();
    let world = World::with(|builder| {
        builder.id_generator(move |_| [draws.fetch_add(1, Ordering::SeqCst).min(9) / 2; 32])
    });
    // Draws 0 and 1 give the same id, so the second session takes the third draw.
    let one = world.browser_with(Data::count_of(1)).await;
    let two = world.browser_with(Data::count_of(2)).await;
    assert_ne!(one.token(), two.token());
    assert_eq!(next.load(Ordering::SeqCst), 3);

    // From draw 8 on every id is the same: the third session of it finds none free.
    let mut browser = world.browser();
    next.store(8, Ordering::SeqCst);
    world.run(&mut browser, change(|session| session.count = 3)).await;
    let mut browser = world.browser();
    let answer = world.run(&mut browser, change(|session| session.count = 4)).await;
    answer.expect_status(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    assert_eq!(next.load(Ordering::SeqCst), 9 + 4);
}

#[tokio::test]
async fn store_for_keeps_tenants_apart_and_with_store_reaches_one_outside_a_request() {
    let (red, blue) = (MemoryStore::new(), MemoryStore::new());
    let (r, b) = (red.clone(), blue.clone());
    let sessions = SessionManager::<Visits>::builder()
        .store_for(move |parts| {
            match parts.headers.get("tenant").map(http::HeaderValue::as_bytes) {
                Some(b"red") => Ok(Arc::new(r.clone()) as Arc<dyn SessionStore>),
                Some(b"blue") => Ok(Arc::new(b.clone())),
                _ => Err(StoreError::unavailable("no such tenant")),
            }
        })
        .build()
        .unwrap();
    let app = scripted(sessions.clone());
    let mut browser = Browser::new(app.clone());
    let tenant = |name: &str| http::Request::get("/add").header("tenant", name);
    browser.send(tenant("red")).await.expect(StatusCode::OK, "1");
    browser.send(tenant("red")).await.expect(StatusCode::OK, "2");
    browser.send(tenant("blue")).await.expect(StatusCode::OK, "1");
    assert_eq!((red.len(), blue.len()), (1, 1));
    assert_eq!(send(&app, tenant("green")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = sessions.delete_expired(10).await.unwrap_err();
    assert!(matches!(error, SessionError::NoStore { .. }));
    assert_eq!(sessions.with_store(red).delete_expired(10).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_hangs_is_503_keeps_the_cookie_and_is_written_no_more() {
    for fault in [Fault::Fail, Fault::Hang] {
        let log = EventLog::default();
        let hook = log.hook();
        let world = World::with(|builder| builder.on_event(hook));
        let mut browser = world.browser_with(Data::count_of(1)).await;
        let token = browser.token();
        world.store.reset_calls();
        log.take();
        world.store.inject(Operation::all(), fault.clone());
        let answer = world.run(&mut browser, change(|session| session.count = 2)).await;
        answer.expect_error(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
        assert_eq!(world.store.calls(Operation::all()), 1);
        assert_eq!(log.take(), ["store_error"]);
        world.store.heal();
        assert_eq!(browser.token(), token);
        assert_eq!(world.read(&mut browser).await.unwrap().count, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_sends_no_cookie_and_leaves_the_old_row() {
    let wishes: [(&str, Wish, Operation); 3] = [
        ("update", |session| session.count = 2, Operation::Save),
        ("regenerate", |session| session.regenerate(), Operation::Save),
        ("destroy", |session| session.destroy(), Operation::Destroy),
    ];
    for (name, wish, operation) in wishes {
        for fault in [Fault::Fail, Fault::Hang] {
            let world = World::new();
            let mut browser = world.browser_with(Data::count_of(1)).await;
            let token = browser.token();
            world.store.inject(operation, fault);
            let answer = world.run(&mut browser, change(wish)).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
            answer.expect_no_cookie();
            world.store.heal();
            assert_eq!(browser.token(), token, "{name}");
            assert_eq!(world.read(&mut browser).await.unwrap().count, 1, "{name}");
            assert_eq!(world.rows().await, 1, "{name}");
            // And trying again works.
            let answer = world.run(&mut browser, change(wish)).await;
            assert_eq!(answer.status, StatusCode::OK, "{name}");
        }
    }
}

#[tokio::test]
async fn a_new_session_whose_row_was_not_saved_gets_no_cookie() {
    let world = World::new();
    let mut browser = world.browser();
    world.store.inject(Operation::Save, Fault::Fail);
    let answer = world.run(&mut browser, change(|session| session.count = 1)).await;
    answer.expect_status(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
}

#[tokio::test]
async fn regenerate_leaves_one_live_id_however_often_it_is_asked() {
    let world = World::new();
    let mut browser = world.browser_with(Data::count_of(1)).await;
    let old = browser.clone();
    let twice = change(|session| {
        session.regenerate();
        session.regenerate();
    });
    world.run(&mut browser, twice).await.expect(StatusCode::OK, "");
    // The live row and the tombstone of the old id.
    assert_eq!(world.rows().await, 2);
    assert_eq!(world.read(&mut old.clone()).await, None);
    assert_eq!(world.read(&mut browser).await, Some(Data::count_of(1)));
    world.clock.advance(SECOND * 60);
    world.sessions.delete_expired(10).await.unwrap();
    assert_eq!(world.rows().await, 1);
}

#[tokio::test]
async fn two_commits_that_regenerate_in_one_request_leave_one_live_id() {
    async fn handler(
        mut one: Session<Data>,
        State(sessions): State<SessionManager<Data>>,
        request: Request,
    ) -> Result<impl IntoResponse, SessionError> {
        let (mut parts, _) = request.into_parts();
        one.regenerate();
        let first = one.commit().await?;
        let mut two = Session::<Data>::from_request_parts(&mut parts, &sessions).await?;
        two.regenerate();
        let second = two.commit().await?;
        Ok((first, second, "done"))
    }
    let world = World::new();
    let before = world.browser_with(Data::count_of(1)).await;
    let app = Router::new().route("/", get(handler)).with_state(world.sessions.clone());
    let mut twice = before.at(&app);
    twice.get("/").await.expect(StatusCode::OK, "done");
    world.clock.advance(SECOND * 60);
    world.sessions.delete_expired(10).await.unwrap();
    assert_eq!(world.rows().await, 1);
    let mut after = before.clone();
    after.jar = twice.jar.clone();
    assert_eq!(world.read(&mut after).await, Some(Data::count_of(1)));
}

#[tokio::test]
async fn of_two_ids_the_newest_valid_wins_and_destroy_ends_both() {
    let world = World::new();
    let one = world.browser_with(Data::count_of(1)).await.token();
    world.clock.advance(SECOND);
    let two = world.browser_with(Data::count_of(2)).await.token();
    for (first, second) in [(&one, &two), (&two, &one)] {
        let mut browser = world.browser();
        browser.jar.insert(COOKIE.into(), format!("{first}; {COOKIE}={second}"));
        assert_eq!(world.read(&mut browser).await.unwrap().count, 2);
    }
    let mut browser = world.browser();
    browser.jar.insert(COOKIE.into(), format!("{one}; {COOKIE}={two}"));
    world.run(&mut browser, change(Session::destroy)).await.expect(StatusCode::OK, "");
    assert_eq!(world.rows().await, 0);
}
