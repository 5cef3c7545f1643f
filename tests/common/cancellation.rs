//! Dropping a request at any await leaves every row wholly old or wholly new, whichever store it is.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use axum_typed_session::{Session, SessionStore, delegate_session_store, testing::ManualClock};

use crate::{
    browser::{Answer, Browser, HOUR},
    world::{Backend, Data, Opened, World, change},
};

/// Makes a module of these tests over a backend. Without an index of owners, there are those that do not need it.
macro_rules! cancellation_over {
    ($name:ident without an index, $backend:expr) => {
        crate::world::suite_over! { $name, $backend, cancellation:
            a_dropped_request_leaves_the_session_wholly_old_or_wholly_new
            no_dropped_request_leaves_a_logged_out_session_alive
        }
    };
    ($name:ident, $backend:expr) => {
        crate::world::suite_over! { $name, $backend, cancellation:
            a_dropped_create_leaves_no_row_or_a_whole_one
            a_dropped_request_leaves_the_session_wholly_old_or_wholly_new
            no_dropped_request_leaves_a_logged_out_session_alive
            no_dropped_request_leaves_a_session_alive_that_was_revoked_everywhere
        }
    };
}
pub(crate) use cancellation_over;

/// Stores that can also be left before and after everything they do.
pub struct Pausing<'a, B>(pub &'a B);

impl<B: Backend> Backend for Pausing<'_, B> {
    async fn open(&self, clock: &ManualClock) -> Opened {
        self.0.open(clock).await.within(PausingStore)
    }
}

struct PausingStore(Arc<dyn SessionStore>);

async fn between<R>(call: impl Future<Output = R>) -> R {
    tokio::task::yield_now().await;
    let answer = call.await;
    tokio::task::yield_now().await;
    answer
}

impl SessionStore for PausingStore {
    delegate_session_store!(all => self.0, async |_, call| between(call).await);
}

pub type Wish = fn(&mut Session<Data>);

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

/// A request that goes on only while it is polled.
pub type Request = Pin<Box<dyn Future<Output = Answer> + Send>>;

pub fn request(world: &World, browser: &Browser, wish: Wish) -> Request {
    let (world, mut browser) = (world.clone(), browser.clone());
    Box::pin(async move { world.run(&mut browser, change(wish)).await })
}

/// Polls at most so many times; says whether the request came to its end.
pub async fn poll(request: &mut Request, mut times: usize) -> bool {
    poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(false);
        }
        times -= 1;
        match request.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if times == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Sessions, each of somebody else.
struct Sessions {
    world: World,
    count: u32,
}

impl Sessions {
    async fn over(backend: &impl Backend) -> Self {
        let backend = Pausing(backend);
        Self { world: World::over_with(&backend, |builder| builder.rolling(true)).await, count: 0 }
    }

    /// Somebody new.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("ann {}", self.count)
    }

    /// A session that was saved an hour ago, and whose it is.
    async fn log_in(&mut self) -> (Browser, String) {
        let name = self.name();
        let browser = self.world.browser_with(Data::of(&name)).await;
        self.world.clock.advance(HOUR);
        (browser, name)
    }

    async fn read(&self, browser: &Browser) -> Option<Data> {
        self.world.read(&mut browser.clone()).await
    }

    /// What there is of somebody's. Nothing is found if the store has no index of owners.
    async fn of(&self, name: &str) -> Vec<Data> {
        if !self.world.store.indexes_owners() {
            return Vec::new();
        }
        let found = self.world.sessions.sessions_of(name).await.unwrap();
        found.iter().map(|session| (**session).clone()).collect()
    }
}

pub async fn a_dropped_create_leaves_no_row_or_a_whole_one(backend: &impl Backend) {
    let mut sessions = Sessions::over(backend).await;
    for polls in 0.. {
        let data = Data::of(&sessions.name());
        let (world, mut browser) = (sessions.world.clone(), sessions.world.browser());
        let start = data.clone();
        let start = change(move |session| **session = start.clone());
        let mut request: Request = Box::pin(async move { world.run(&mut browser, start).await });
        let finished = poll(&mut request, polls).await;
        drop(request);
        let rows = sessions.of(data.user.as_deref().unwrap()).await;
        assert!(rows.len() <= 1 && rows.iter().all(|row| *row == data));
        if finished {
            assert_eq!(rows.len(), 1);
            break;
        }
    }
}

pub async fn a_dropped_request_leaves_the_session_wholly_old_or_wholly_new(backend: &impl Backend) {
    let mut sessions = Sessions::over(backend).await;
    for (name, wish) in WISHES {
        let regenerates = name.contains("regenerate");
        for polls in 0.. {
            let (browser, owner) = sessions.log_in().await;
            let mut request = request(&sessions.world, &browser, wish);
            let finished = poll(&mut request, polls).await;
            drop(request);
            match sessions.read(&browser).await {
                // Ended, or under a new id.
                None => assert!(regenerates || name == "destroy", "{name} at {polls}"),
                Some(data) => {
                    let whole =
                        [0, 7].contains(&data.count) && data.user.as_deref() == Some(&*owner);
                    assert!(whole, "{name} at {polls}");
                }
            }
            // A dropped regenerate may leave one row that nobody can reach, besides the session's own.
            let rows = sessions.of(&owner).await.len();
            assert!(rows <= 1 + usize::from(regenerates), "{name} at {polls}");
            if finished {
                assert!(polls > 3, "{name} was left at {polls} points");
                break;
            }
        }
    }
}

/// Ends a session while a request of it is under way, at every point at which that can be, and drops the
/// request at every later one.
async fn end_during_dropped_requests(
    sessions: &mut Sessions,
    end: impl AsyncFn(&Sessions, &Browser, &str) -> bool,
) {
    for (name, wish) in WISHES {
        'before: for before in 0.. {
            for after in 0.. {
                let (browser, owner) = sessions.log_in().await;
                let mut slow = request(&sessions.world, &browser, wish);
                if poll(&mut slow, before).await {
                    break 'before;
                }
                let ended = end(sessions, &browser, &owner).await;
                let finished = poll(&mut slow, after).await;
                drop(slow);
                let at = format!("{name} at {before}, {after}");
                assert_eq!(sessions.read(&browser).await, None, "{at}");
                if ended {
                    // Nothing of the session can be reached: whatever row is left was never handed out.
                    let rows = sessions.of(&owner).await.len();
                    let orphan = usize::from(name.contains("regenerate") && !finished);
                    assert!(rows <= orphan, "{at}: {rows} rows");
                }
                if finished {
                    break;
                }
            }
        }
    }
}

pub async fn no_dropped_request_leaves_a_logged_out_session_alive(backend: &impl Backend) {
    let mut sessions = Sessions::over(backend).await;
    end_during_dropped_requests(&mut sessions, async |sessions, browser, _| {
        let logout = request(&sessions.world, browser, Session::destroy).await;
        logout.status.is_success()
    })
    .await;
}

pub async fn no_dropped_request_leaves_a_session_alive_that_was_revoked_everywhere(
    backend: &impl Backend,
) {
    let mut sessions = Sessions::over(backend).await;
    end_during_dropped_requests(&mut sessions, async |sessions, _, owner| {
        sessions.world.sessions.destroy_all_of(owner).await.unwrap();
        true
    })
    .await;
}
