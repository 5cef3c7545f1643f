//! A store that takes its time, from none to more than a request waits for it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_typed_session::{Session, SessionStore, delegate_session_store, testing::ManualClock};
use http::StatusCode;

use crate::{
    cancellation::Wish,
    support::{Answer, Browser, HOUR, MILLISECOND, SECOND},
    world::{Backend, Data, Memory, Opened, World, change},
};

/// The default of `store_timeout`.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where a call takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Before,
    After,
}

/// Which calls are slow from now on, where, and how slow.
#[derive(Clone, Default)]
struct Pace(Arc<Mutex<Option<(Call, Slow, Duration)>>>);

/// One kind of calls, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Loads,
    Writes,
    All,
}

impl Pace {
    fn set(&self, call: Call, slow: Slow, latency: Duration) {
        *self.0.lock().unwrap() = Some((call, slow, latency));
    }

    fn heal(&self) {
        *self.0.lock().unwrap() = None;
    }

    async fn wait(&self, method: &str, now: Slow) {
        let pace = *self.0.lock().unwrap();
        let Some((call, slow, latency)) = pace.filter(|(_, slow, _)| *slow == now) else {
            return;
        };
        let is_slow = match call {
            Call::Loads => method == "load",
            Call::Writes => method != "load",
            Call::All => true,
        };
        if is_slow && slow == now && !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }
}

struct SlowStore {
    store: Arc<dyn SessionStore>,
    pace: Pace,
}

impl SessionStore for SlowStore {
    delegate_session_store!(all => self.store, async |method, call| {
        self.pace.wait(method, Slow::Before).await;
        let answer = call.await;
        self.pace.wait(method, Slow::After).await;
        answer
    });
}

impl Backend for Pace {
    async fn open(&self, clock: &ManualClock) -> Opened {
        let pace = self.clone();
        Memory.open(clock).await.within(|store| SlowStore { store, pace })
    }
}

const WISHES: [(&str, Wish); 5] = [
    ("read", |_| {}),
    ("save", |session| session.count = 7),
    ("regenerate", Session::regenerate),
    ("save and regenerate", |session| {
        session.count = 7;
        session.regenerate();
    }),
    ("destroy", Session::destroy),
];

/// Asserts what is left of the session of ann, by the answer to a request that wanted something of it.
async fn check(world: &World, name: &str, answer: &Answer, old: &Browser, new: &Browser, at: &str) {
    let seen_by = async |browser: &Browser| world.read(&mut browser.clone()).await;
    let changes = name.contains("save");
    match answer.status {
        StatusCode::OK => {
            let data = seen_by(new).await;
            let count = data.as_ref().map(|data| data.count);
            let expected = (name != "destroy").then_some(if changes { 7 } else { 0 });
            assert_eq!(count, expected, "{at}");
            if name.contains("regenerate") || name == "destroy" {
                assert_eq!(seen_by(old).await, None, "{at}");
            }
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            assert_eq!(answer.told(), "nothing", "{at}");
            match seen_by(old).await {
                // The row may be gone, though nobody was told.
                None => assert_eq!(name, "destroy", "{at}"),
                Some(data) => {
                    let counts: &[u32] = if changes { &[0, 7] } else { &[0] };
                    assert!(counts.contains(&data.count), "{at}");
                    assert_eq!(data.user.as_deref(), Some("ann"), "{at}");
                }
            }
        }
        status => panic!("{at}: {status}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for_or_is_down_and_nothing_is_half_done() {
    let millis = [0, 1, 500, 1000, 1999, 2000, 2001, 5000, 60_000, 3_600_000];
    for latency in millis.map(Duration::from_millis) {
        for call in [Call::Loads, Call::Writes, Call::All] {
            for slow in [Slow::Before, Slow::After] {
                for (name, wish) in WISHES {
                    let at = format!("{name}, {latency:?} {slow:?} {call:?}");
                    let pace = Pace::default();
                    let world = World::over_with(&pace, |builder| builder.rolling(true)).await;
                    let old = world.browser_with(Data::of("ann")).await;
                    world.clock.advance(HOUR);
                    pace.set(call, slow, latency);
                    let (mut new, begun) = (old.clone(), tokio::time::Instant::now());
                    let answer = world.run(&mut new, change(wish)).await;
                    let took = begun.elapsed();
                    pace.heal();
                    if latency < TIMEOUT {
                        assert_eq!(answer.status, StatusCode::OK, "{at}");
                    } else if latency > TIMEOUT {
                        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{at}");
                    }
                    // One call after the other, of which the first that is too slow is the last but for a look at
                    // what it did.
                    assert!(took <= 6 * TIMEOUT, "{at} took {took:?}");
                    check(&world, name, &answer, &old, &new, &at).await;
                    // The next request works.
                    let mut next = new.clone();
                    let answer = world.run(&mut next, change(|session| session.count = 9)).await;
                    assert_eq!(answer.status, StatusCode::OK, "{at}");
                    assert_eq!(world.read(&mut next).await.map(|data| data.count), Some(9), "{at}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_counts_for_each_call_and_not_for_the_request() {
    let pace = Pace::default();
    let world = World::over(&pace).await;
    let old = world.browser_with(Data::of("ann")).await;
    pace.set(Call::All, Slow::Before, TIMEOUT - MILLISECOND);
    let (mut browser, begun) = (old.clone(), tokio::time::Instant::now());
    let answer = world.run(&mut browser, change(Session::regenerate)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(begun.elapsed() > TIMEOUT + SECOND, "a load and two writes");
}
