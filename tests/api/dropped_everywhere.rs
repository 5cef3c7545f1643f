//! Requests and operations that are dropped at each await point, which a store makes of every call before its effect
//! and after it: what is left is whole, and the next request goes on with it.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use axum::{Router, response::IntoResponse as _, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Clock as _, MemoryStore, Session, SessionManager, SessionStore, StoreError,
    cookie::Cookie,
    delegate_session_store,
    import::{OldSession, OldSessions},
    testing::ManualClock,
};
use http::{HeaderMap, StatusCode, header, request::Parts};

use crate::{
    cancellation::{Pausing, Wish},
    requests::{Visit, run, seen, visited},
    support::{Browser, DAY, MINUTE, SECOND, Visits, key, scripted},
    world::{Data, Memory, World, change},
};

/// Polls a future so often, and then drops it. Returns what came of it before that.
fn polled<R>(times: usize, future: impl Future<Output = R>) -> Option<R> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    })
}

/// Runs a case with one poll more each time, until it says that it came to its end.
async fn at_every_point(name: &str, mut case: impl AsyncFnMut(usize) -> bool) {
    for polls in 0.. {
        if case(polls).await {
            assert!(polls > 2, "{name} was left at {polls} points");
            return;
        }
        assert!(polls < 500, "{name} never ends");
    }
}

/// A world in memory whose calls can be left before and after their effect.
async fn pausing() -> World {
    World::over_with(&Pausing(&Memory), |builder| builder.max_sessions_per_owner(3)).await
}

async fn count_of(browser: &Browser, world: &World) -> Option<u32> {
    world.read(&mut browser.clone()).await.map(|data| data.count)
}

/// Asserts that a request that changes the session works, and that the next one sees it.
async fn expect_next_works(world: &World, browser: &Browser, at: &str) {
    let mut browser = browser.clone();
    let answer = world.run(&mut browser, change(|session| session.count = 9)).await;
    // The browser may hold an id that was replaced, which is refused for a while.
    if answer.status == StatusCode::CONFLICT {
        world.clock.advance(MINUTE + 20 * SECOND);
        let answer = world.run(&mut browser, change(|session| session.count = 9)).await;
        assert_eq!(answer.status, StatusCode::OK, "{at}, later");
    } else {
        assert_eq!(answer.status, StatusCode::OK, "{at}");
    }
    assert_eq!(count_of(&browser, world).await, Some(9), "{at}");
}

const WISHES: [(&str, Wish); 5] = [
    ("add", |session| session.count = 7),
    ("regenerate", Session::regenerate),
    ("add and regenerate", |session| {
        session.count = 7;
        session.regenerate();
    }),
    ("clear", Session::clear),
    ("destroy", Session::destroy),
];

/// A handler that drops its session with two awaits around, and the layer that commits.
fn layered(sessions: &SessionManager<Data>, wish: Wish) -> Router {
    let handler = move |mut session: Session<Data>| async move {
        tokio::task::yield_now().await;
        wish(&mut session);
        drop(session);
        tokio::task::yield_now().await;
    };
    let routes = Router::new().route("/", get(handler)).layer(AutoCommitLayer::new());
    routes.with_state(sessions.clone())
}

#[tokio::test]
async fn under_the_layer_a_session_is_wholly_old_or_wholly_new() {
    for (name, wish) in WISHES {
        at_every_point(name, async |polls| {
            let world = pausing().await;
            let start = Data { count: 1, ..Data::of("ann") };
            let browser = world.browser_with(start.clone()).await;
            let mut there = browser.at(&layered(&world.sessions, wish));
            let is_finished = polled(polls, there.get("/")).is_some();
            let at = format!("{name} at {polls}");
            let replaces = name.contains("regenerate");
            match world.read(&mut browser.clone()).await {
                None => assert!(replaces || name == "destroy", "{at}"),
                Some(data) if name == "clear" => {
                    assert!(data == start || data == Data::default(), "{at}: {data:?}");
                }
                Some(data) => assert!([1, 7].contains(&data.count) && data.user == start.user),
            }
            let rows = world.sessions.sessions_of("ann").await.unwrap().len();
            assert!(rows <= 1 + usize::from(replaces), "{at}: {rows} rows");
            expect_next_works(&world, &browser, &at).await;
            is_finished
        })
        .await;
    }
}

/// Another request writes between the load and the commit, so the commit merges.
#[tokio::test]
async fn a_merge_lands_as_a_whole_or_not_at_all() {
    at_every_point("a merge", async |polls| {
        let world = pausing().await;
        let browser = world.browser_with(Data::of("ann")).await;
        let sessions = world.sessions.clone();
        let mut there = browser.at(&visited(sessions.clone()));
        let request = run(&mut there, async move |mut visit: Visit<Data>| {
            let mut session = visit.session().await?;
            let key = session.key().unwrap();
            sessions.update(key, |data| data.list.push("jam".to_owned())).await?;
            session.map.insert("tea".to_owned(), 1);
            Ok(session.commit().await?.into_response())
        });
        let answer = polled(polls, request);
        let data = world.read(&mut browser.clone()).await.unwrap();
        let (has_jam, has_tea) = (!data.list.is_empty(), !data.map.is_empty());
        assert!(has_jam || !has_tea, "at {polls}: {data:?}");
        assert_eq!(data.user.as_deref(), Some("ann"));
        if let Some(answer) = &answer {
            assert_eq!(answer.status, StatusCode::OK);
            assert!(has_jam && has_tea);
        }
        expect_next_works(&world, &browser, &format!("at {polls}")).await;
        answer.is_some()
    })
    .await;
}

#[tokio::test]
async fn an_update_adds_once_or_not_at_all() {
    at_every_point("an update", async |polls| {
        let world = pausing().await;
        let browser = world.browser_with(Data::of("ann")).await;
        let mut there = browser.at(&visited(world.sessions.clone()));
        let request = run(&mut there, async move |mut visit: Visit<Data>| {
            let mut session = visit.session().await?;
            session.update(|data| data.count += 1).await?;
            Ok(session.commit().await?.into_response())
        });
        let is_finished = polled(polls, request).is_some();
        let count = count_of(&browser, &world).await.unwrap();
        assert!(count == 1 || (count == 0 && !is_finished), "at {polls}: {count}");
        expect_next_works(&world, &browser, &format!("at {polls}")).await;
        is_finished
    })
    .await;
}

#[tokio::test]
async fn a_login_beyond_the_limit_leaves_whole_sessions_that_the_owner_can_list() {
    at_every_point("a login", async |polls| {
        let world = pausing().await;
        let mut browsers = Vec::new();
        for count in 1..=3 {
            browsers.push(world.browser_with(Data { count, ..Data::of("ann") }).await);
            world.clock.advance(SECOND);
        }
        let visitor = world.browser_with(Data::count_of(4)).await;
        let log_in: Wish = |session| {
            session.user = Some("ann".to_owned());
            session.regenerate();
        };
        let mut late = visitor.clone();
        let is_finished = polled(polls, world.run(&mut late, change(log_in))).is_some();
        let at = format!("at {polls}");
        let listed = world.sessions.sessions_of("ann").await.unwrap();
        // The new row is there before the row of the old id ends.
        assert!(listed.len() <= 4, "{at}: {}", listed.len());
        let mut living = 0;
        for (browser, count) in browsers.iter().zip(1..) {
            match count_of(browser, &world).await {
                None => assert_eq!(count, 1, "{at}: the oldest ends first"),
                Some(found) => {
                    assert_eq!(found, count, "{at}");
                    living += 1;
                }
            }
        }
        assert!(living >= 2 && listed.len() >= living, "{at}");
        // The row of a new id that never came ends by itself, and the next login sets the rest right.
        world.clock.advance(2 * MINUTE);
        let _next = world.browser_with(Data { count: 5, ..Data::of("ann") }).await;
        assert_eq!(world.sessions.sessions_of("ann").await.unwrap().len(), 3, "{at}");
        is_finished
    })
    .await;
}

type Operation = for<'w> fn(&'w World, &'w Browser) -> Pin<Box<dyn Future<Output = ()> + 'w>>;

#[tokio::test]
async fn an_operation_on_an_owner_ends_whole_sessions_and_can_be_repeated() {
    let operations: [(&str, Operation, usize); 2] = [
        (
            "destroy_all_of",
            |world, _| Box::pin(async { _ = world.sessions.destroy_all_of("ann").await.unwrap() }),
            0,
        ),
        (
            "destroy_others_of",
            |world, kept| {
                Box::pin(async {
                    let key = crate::world::key_of(world, &mut kept.clone()).await;
                    world.sessions.destroy_others_of("ann", key).await.unwrap();
                })
            },
            1,
        ),
    ];
    for (name, operation, left) in operations {
        at_every_point(name, async |polls| {
            let world = pausing().await;
            let other = world.browser_with(Data { count: 8, ..Data::of("bob") }).await;
            let mut browsers = Vec::new();
            for count in 1..=3 {
                browsers.push(world.browser_with(Data { count, ..Data::of("ann") }).await);
            }
            let is_finished = polled(polls, operation(&world, &browsers[0])).is_some();
            let at = format!("{name} at {polls}");
            let mut living = 0;
            for (browser, count) in browsers.iter().zip(1..) {
                let found = count_of(browser, &world).await;
                assert!(found.is_none_or(|found| found == count), "{at}");
                living += usize::from(found.is_some());
            }
            // Each session that lives is listed, so the next call finds it.
            assert_eq!(world.sessions.sessions_of("ann").await.unwrap().len(), living, "{at}");
            assert!(living == left || !is_finished, "{at}");
            if left == 1 {
                assert_eq!(count_of(&browsers[0], &world).await, Some(1), "{at}");
            }
            operation(&world, &browsers[0]).await;
            assert_eq!(world.sessions.sessions_of("ann").await.unwrap().len(), left, "{at}");
            assert_eq!(count_of(&other, &world).await, Some(8), "{at}");
            is_finished
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_that_is_created_outside_a_request_is_there_or_not() {
    at_every_point("create", async |polls| {
        let world = pausing().await;
        let data = Data { count: 7, ..Data::of("ann") };
        let created = polled(polls, world.sessions.create(data.clone())).map(Result::unwrap);
        let listed = world.sessions.sessions_of("ann").await.unwrap();
        assert!(listed.len() <= 1 && listed.iter().all(|session| **session == data));
        assert_eq!(world.rows().await, listed.len(), "at {polls}");
        if let Some(created) = &created {
            assert_eq!(listed[0].key(), created.key());
        }
        created.is_some()
    })
    .await;
}

/// A library whose cookie is the count.
#[derive(Clone)]
struct Library;

fn old_count(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?.split("; ");
    cookies.into_iter().find_map(|cookie| cookie.strip_prefix("old=")).map(str::to_owned)
}

#[async_trait::async_trait]
impl OldSessions<Visits> for Library {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![Cookie::new("old", "")]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<Visits>>, StoreError> {
        tokio::task::yield_now().await;
        let Some(text) = old_count(&request.headers) else { return Ok(None) };
        let Ok(count) = text.parse() else { return Ok(None) };
        Ok(Some(OldSession::new(Visits { count }, text)))
    }
}

struct Yielding(MemoryStore);

impl SessionStore for Yielding {
    delegate_session_store!(all => self.0, async |_, call| {
        tokio::task::yield_now().await;
        let answer = call.await;
        tokio::task::yield_now().await;
        answer
    });
}

/// What a request that was dropped did to the old session: the client, which still has the old cookie, goes on with it,
/// once.
#[tokio::test]
async fn an_old_session_is_imported_once_however_often_the_request_is_dropped() {
    for path in ["/read", "/add", "/regenerate", "/destroy"] {
        at_every_point(path, async |polls| {
            let clock = ManualClock::new();
            let store = MemoryStore::builder().clock(clock.clone()).build();
            let sessions = SessionManager::<Visits>::builder()
                .clock(clock.clone())
                .keys(key())
                .store(Yielding(store.clone()))
                .import(clock.now() + DAY, Library);
            let app = scripted(sessions.build().unwrap());
            let mut browser = Browser::new(app);
            browser.jar.insert("old".to_owned(), "7".to_owned());
            let is_finished = polled(polls, browser.clone().get(path)).is_some();
            let at = format!("{path} at {polls}");
            // The answer did not arrive, or was lost.
            let counts: &[&str] = match path {
                "/add" => &["7", "8"],
                // The id is new, and the client does not know it. Or the session ended.
                "/regenerate" | "/destroy" => &["7", "0"],
                _ => &["7"],
            };
            let answer = browser.get("/read").await;
            assert!(answer.status == StatusCode::OK, "{at}: {answer:?}");
            assert!(counts.contains(&&*answer.body), "{at}: {}", answer.body);
            let before: u32 = answer.body.parse().unwrap();
            clock.advance(2 * MINUTE);
            let next = browser.get("/add").await;
            next.expect(StatusCode::OK, &(before + 1).to_string());
            browser.get("/read").await.expect(StatusCode::OK, &(before + 1).to_string());
            is_finished
        })
        .await;
    }
}

/// A request whose future is dropped inside of the extractor of another, as by a timeout around a part of a handler.
#[tokio::test]
async fn a_part_of_a_request_that_is_dropped_leaves_the_rest_of_it_working() {
    at_every_point("a part", async |polls| {
        let world = pausing().await;
        let browser = world.browser_with(Data::of("ann")).await;
        let mut there = browser.at(&visited(world.sessions.clone()));
        let (sender, finished) = tokio::sync::oneshot::channel();
        let answer = run(&mut there, async move |mut visit: Visit<Data>| {
            let part = async {
                let mut session: Session<Data> = visit.session().await.unwrap();
                session.count = 7;
                let _guard = session.commit().await.unwrap();
            };
            sender.send(polled(polls, part).is_some()).unwrap();
            let mut session: Session<Data> = visit.session().await?;
            session.list.push("jam".to_owned());
            Ok(session.commit().await?.into_response())
        })
        .await;
        let is_finished = finished.await.unwrap();
        let data: Data = seen(&there).await.unwrap();
        let at = format!("at {polls}: {data:?}, {}", answer.status);
        assert_eq!(answer.status, StatusCode::OK, "{at}");
        assert_eq!(data.list, ["jam"], "{at}");
        assert!(data.count == 7 || (data.count == 0 && !is_finished), "{at}");
        is_finished
    })
    .await;
}
