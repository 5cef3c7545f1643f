//! Dropping a request at any await leaves every row wholly old or wholly new.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use axum::{Extension, Router, body::Body, routing::post};
use axum_typed_session::{
    MemoryStore, OwnerKey, Record, SaveOutcome, Session, SessionError, SessionManager,
    SessionStore, StoreError, StoreKey, Timestamp, Version, Write, testing::ManualClock,
};
use http::{Request, header};
use tower::ServiceExt as _;

use crate::{
    store_support::Data,
    support::{Browser, COOKIE, HOUR},
};

/// A store that can be left before and after everything it does.
#[derive(Clone)]
struct Yielding(MemoryStore);

async fn between<R>(call: impl Future<Output = R>) -> R {
    tokio::task::yield_now().await;
    let answer = call.await;
    tokio::task::yield_now().await;
    answer
}

#[async_trait]
impl SessionStore for Yielding {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        between(self.0.load(key)).await
    }
    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        between(self.0.save(key, record, write)).await
    }
    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        between(self.0.destroy(key)).await
    }
    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        between(self.0.touch(key, version, at)).await
    }
    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        between(self.0.destroy_at(key, version)).await
    }
    fn indexes_owners(&self) -> bool {
        true
    }
    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        between(self.0.find_by_owner(owner)).await
    }
}

type Wish = fn(&mut Session<Data>);

async fn act(
    mut session: Session<Data>,
    Extension(wish): Extension<Wish>,
) -> Result<axum_typed_session::SessionCommit, SessionError> {
    wish(&mut session);
    session.commit().await
}

async fn read(session: Option<Session<Data>>) -> String {
    serde_json::to_string(&session.map(|session| session.clone())).unwrap()
}

struct World {
    clock: ManualClock,
    store: MemoryStore,
    sessions: SessionManager<Data>,
    app: Router,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let sessions = SessionManager::<Data>::builder()
            .store(Yielding(store.clone()))
            .owner(|data: &Data| data.user.clone())
            .rolling(true)
            .clock(clock.clone())
            .build()
            .unwrap();
        let app = Router::new()
            .route("/", post(act).get(read))
            .with_state(sessions.clone());
        Self {
            clock,
            store,
            sessions,
            app,
        }
    }

    /// A request that is never polled unless the test does.
    fn request(
        &self,
        cookie: Option<&str>,
        wish: Wish,
    ) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        let mut request = Request::post("/").extension(wish);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("{COOKIE}={cookie}"));
        }
        let response = self
            .app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap());
        Box::pin(async { response.await.unwrap() })
    }

    async fn read(&self, cookie: &str) -> Option<Data> {
        let mut browser = Browser::new(self.app.clone());
        browser.jar.insert(COOKIE.into(), cookie.to_owned());
        serde_json::from_str(&browser.get("/").await.body).unwrap()
    }

    async fn log_in(&self) -> String {
        let start: Wish = |session| **session = Data::of("ann");
        let response = self.request(None, start).await;
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        cookie.split(['=', ';']).nth(1).unwrap().to_owned()
    }
}

/// Polls at most so many times; says whether the future came to its end.
fn poll(
    future: &mut Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>,
    times: usize,
) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    (0..times).any(|_| matches!(pin!(future.as_mut()).poll(&mut cx), Poll::Ready(_)))
}

const WISHES: [(&str, Wish); 5] = [
    ("touch", |_| {}),
    ("save", |session| session.count = 7),
    ("regenerate", |session| session.regenerate()),
    ("save and regenerate", |session| {
        session.count = 7;
        session.regenerate();
    }),
    ("destroy", |session| session.destroy()),
];

#[tokio::test]
async fn a_dropped_create_leaves_no_row_or_a_whole_one() {
    for polls in 0.. {
        let world = World::new();
        let start: Wish = |session| **session = Data::of("ann");
        let mut request = world.request(None, start);
        let finished = poll(&mut request, polls);
        drop(request);
        let rows = world.sessions.sessions_of("ann").await.unwrap();
        assert_eq!(rows.len(), world.store.len());
        assert!(rows.iter().all(|row| **row == Data::of("ann")));
        if finished {
            assert_eq!(rows.len(), 1);
            break;
        }
    }
}

#[tokio::test]
async fn a_dropped_request_leaves_the_session_wholly_old_or_wholly_new() {
    for (name, wish) in WISHES {
        let mut steps = 0;
        for polls in 0.. {
            let world = World::new();
            let cookie = world.log_in().await;
            world.clock.advance(HOUR);
            let mut request = world.request(Some(&cookie), wish);
            let finished = poll(&mut request, polls);
            drop(request);
            match world.read(&cookie).await {
                // Ended, or under a new id.
                None => assert!(
                    name.contains("regenerate") || name == "destroy",
                    "{name} at {polls}"
                ),
                Some(data) => {
                    let whole = [0, 7].contains(&data.count) && data.user.as_deref() == Some("ann");
                    assert!(whole, "{name} at {polls}");
                }
            }
            // A dropped regenerate may leave one row that nobody can reach, besides the session's own.
            let rows = world.sessions.sessions_of("ann").await.unwrap().len();
            assert!(
                rows <= 1 + usize::from(name.contains("regenerate")),
                "{name} at {polls}"
            );
            steps = polls;
            if finished {
                break;
            }
        }
        assert!(steps > 3, "{name} was left at {steps} points");
    }
}

#[tokio::test]
async fn no_dropped_request_leaves_a_logged_out_session_alive() {
    for (name, wish) in WISHES {
        'before: for before in 0.. {
            for after in 0.. {
                let world = World::new();
                let cookie = world.log_in().await;
                world.clock.advance(HOUR);
                let mut slow = world.request(Some(&cookie), wish);
                if poll(&mut slow, before) {
                    break 'before;
                }
                let destroy: Wish = |session| session.destroy();
                let status = world.request(Some(&cookie), destroy).await.status();
                let finished = poll(&mut slow, after);
                drop(slow);
                assert_eq!(
                    world.read(&cookie).await,
                    None,
                    "{name} at {before}, {after}"
                );
                if status.is_success() {
                    // Nothing of the session can be reached: whatever row is left was never handed out.
                    let rows = world.sessions.sessions_of("ann").await.unwrap().len();
                    let orphan = usize::from(name.contains("regenerate") && !finished);
                    assert!(rows <= orphan, "{name} at {before}, {after}: {rows} rows");
                }
                if finished {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn no_dropped_request_leaves_a_session_alive_that_was_revoked_everywhere() {
    for (name, wish) in WISHES {
        'before: for before in 0.. {
            for after in 0.. {
                let world = World::new();
                let cookie = world.log_in().await;
                let mut slow = world.request(Some(&cookie), wish);
                if poll(&mut slow, before) {
                    break 'before;
                }
                world.sessions.destroy_all_of("ann").await.unwrap();
                let finished = poll(&mut slow, after);
                drop(slow);
                assert_eq!(
                    world.read(&cookie).await,
                    None,
                    "{name} at {before}, {after}"
                );
                if finished {
                    break;
                }
            }
        }
    }
}
