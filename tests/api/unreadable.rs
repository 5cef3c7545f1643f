//! What this node cannot read, it can still end: after an update of the application was taken back, and where rows
//! are damaged.

use std::sync::Arc;

use axum::{Router, extract::State, response::IntoResponse, routing::post};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, SessionError, SessionManager, SessionManagerBuilder,
    SessionStore as _, StoreKey, StoredSession,
    store::{Record, SaveOutcome, Version, Write},
    testing::{Fault, FaultyStore, ManualClock, Operation},
};
use http::{StatusCode, request::Parts};

use crate::{
    logins::{FRESH, Login, logins, router, without_keys},
    options::same_shape,
    support::{Browser, EventLog},
};

async fn sign_out(
    State(sessions): State<SessionManager<Login>>,
    parts: Parts,
) -> Result<impl IntoResponse, SessionError> {
    Ok((sessions.destroy_in(&parts).await?, "bye"))
}

fn app(sessions: &SessionManager<Login>) -> Router {
    let sign_out = Router::new().route("/sign-out", post(sign_out)).with_state(sessions.clone());
    router(sessions.clone()).merge(sign_out)
}

struct World {
    clock: ManualClock,
    store: FaultyStore<Arc<MemoryStore>>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
        Self { clock, store: FaultyStore::new(store) }
    }

    fn builder(&self) -> SessionManagerBuilder<Login> {
        without_keys(&self.clock).store(self.store.clone()).owner(|login| login.user.clone())
    }

    fn newer(&self) -> SessionManager<Login> {
        self.builder().schema_version(2).migrate(same_shape).build().unwrap()
    }

    fn older(&self) -> SessionManager<Login> {
        self.builder().build().unwrap()
    }
}

#[tokio::test]
async fn a_session_of_a_newer_node_can_be_signed_out_of() {
    let world = World::new();
    let (newer, older) = (world.newer(), world.older());
    for layer in [false, true] {
        let mut browser = Browser::new(app(&newer));
        browser.post("/user?ann").await.expect_status(StatusCode::OK);
        let app = if layer { app(&older).layer(AutoCommitLayer::new()) } else { app(&older) };
        let mut behind = browser.at(&app);
        behind.post("/destroy").await.expect_error(StatusCode::SERVICE_UNAVAILABLE);
        let answer = behind.post("/sign-out").await.expect(StatusCode::OK, "bye");
        assert_eq!(answer.told(), "removed");
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        assert!(newer.sessions_of("ann").await.unwrap().is_empty());
        browser.get("/").await.expect(StatusCode::OK, FRESH);
        // A second click.
        browser.at(&app).post("/sign-out").await.expect(StatusCode::OK, "bye");
    }
}

#[tokio::test]
async fn a_newer_cookie_can_be_signed_out_of_and_its_copies_with_a_list() {
    let clock = ManualClock::new();
    let list = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
    for has_list in [false, true] {
        let builder = || {
            let builder = logins(&clock);
            if has_list { builder.revocations(list.clone()) } else { builder }
        };
        let newer = app(&builder().schema_version(2).migrate(same_shape).build().unwrap());
        let older = app(&builder().build().unwrap());
        let mut browser = Browser::new(newer.clone());
        browser.post("/user?ann").await.expect_status(StatusCode::OK);
        let answer = browser.at(&older).post("/sign-out").await.expect(StatusCode::OK, "bye");
        assert_eq!(answer.told(), "removed");
        let copy = browser.at(&newer).get("/").await;
        copy.expect(StatusCode::OK, if has_list { FRESH } else { "" });
    }
}

#[tokio::test]
async fn for_a_session_that_can_be_read_it_is_a_destroy_and_a_commit() {
    let (world, log) = (World::new(), EventLog::default());
    let sessions = world.builder().on_event(log.hook()).build().unwrap();
    let mut browser = Browser::new(app(&sessions));
    let nothing = browser.post("/sign-out").await.expect(StatusCode::OK, "bye");
    nothing.expect_no_cookie();
    browser.post("/user?ann").await;
    let copy = browser.clone();
    log.take();
    assert_eq!(browser.post("/sign-out").await.told(), "removed");
    assert_eq!(log.take(), ["destroyed"]);
    copy.at(&app(&sessions)).get("/").await.expect(StatusCode::OK, FRESH);
}

#[tokio::test]
async fn nobody_is_told_that_they_are_signed_out_while_the_store_is_down() {
    let world = World::new();
    let mut browser = Browser::new(app(&world.newer()));
    browser.post("/user?ann").await;
    world.store.inject(Operation::Destroy, Fault::Fail);
    let answer = browser.at(&app(&world.older())).post("/sign-out").await;
    answer.expect_error(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    assert_eq!(world.newer().sessions_of("ann").await.unwrap().len(), 1);
}

/// Makes the data of a row unreadable for every node.
async fn damage(world: &World, key: StoreKey) {
    let row = world.store.load(&key).await.unwrap().unwrap();
    let mut bytes = row.to_bytes();
    *bytes.last_mut().unwrap() = b'?';
    let version = Version::from_bytes([9; 16]);
    let damaged = Record::from_bytes(version, row.expires_at(), bytes).unwrap();
    let saved = world.store.save(&key, &damaged, Write::Update { loaded: &row }).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
}

#[tokio::test]
async fn sessions_that_cannot_be_read_stand_beside_the_others_and_can_be_ended() {
    let world = World::new();
    let (newer, older) = (world.newer(), world.older());
    let login = |user: &str| Login { user: Some(user.to_owned()), ..Login::default() };
    let readable = older.create(login("ann")).await.unwrap().key();
    let of_newer = newer.create(login("ann")).await.unwrap().key();
    let damaged = older.create(login("ann")).await.unwrap().key();
    let of_bob = newer.create(login("bob")).await.unwrap().key();
    damage(&world, damaged).await;

    let page = older.sessions_of("ann").await.unwrap();
    assert_eq!(page.iter().map(StoredSession::key).collect::<Vec<_>>(), [readable]);
    let mut unreadable = page.unreadable.clone();
    unreadable.sort();
    let mut expected = [of_newer, damaged];
    expected.sort();
    assert_eq!(unreadable, expected);

    assert!(!older.destroy_of("ann", of_bob).await.unwrap());
    for key in expected {
        assert!(older.destroy_of("ann", key).await.unwrap());
        assert!(!older.destroy_of("ann", key).await.unwrap());
    }
    assert_eq!(newer.sessions_of("bob").await.unwrap().len(), 1);
    older.destroy(of_bob).await.unwrap();
    assert!(newer.sessions_of("bob").await.unwrap().is_empty());
}
