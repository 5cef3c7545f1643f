//! The task that deletes expired rows: when it comes, when it ends, and what it survives.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum_typed_session::{
    MemoryStore, SessionStore, StoreError, delegate_session_store, store::Cleanup,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::support::{Log, MINUTE, SECOND};

/// A memory store in front of which expired rows pile up.
#[derive(Clone)]
struct Pile {
    inner: MemoryStore,
    state: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    expired: u64,
    batch_takes: Duration,
    failing: bool,
    /// When each batch began.
    batches: Vec<Duration>,
}

impl Pile {
    fn of(expired: u64) -> Self {
        Self {
            inner: MemoryStore::new(),
            state: Arc::new(Mutex::new(State {
                started: Instant::now(),
                expired,
                batch_takes: Duration::ZERO,
                failing: false,
                batches: Vec::new(),
            })),
        }
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap())
    }

    fn expired(&self) -> u64 {
        self.with(|state| state.expired)
    }

    fn batches(&self) -> Vec<Duration> {
        self.with(|state| state.batches.clone())
    }

    /// From the beginning of each batch to that of the next.
    fn waits(&self) -> Vec<Duration> {
        let batches = self.batches();
        let pairs = batches.windows(2);
        pairs.map(|pair| pair[1].saturating_sub(pair[0])).collect()
    }
}

#[async_trait]
impl SessionStore for Pile {
    delegate_session_store!(all except delete_expired => self.inner);

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let takes = self.with(|state| {
            state.batches.push(state.started.elapsed());
            state.batch_takes
        });
        sleep(takes).await;
        self.with(|state| {
            if state.failing {
                return Err(StoreError::unavailable("as told"));
            }
            let deleted = state.expired.min(limit.into());
            state.expired -= deleted;
            Ok(deleted)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_come_at_random_but_once_a_minute_in_the_mean() {
    let pile = Pile::of(0);
    let _task = Cleanup::new(pile.clone()).spawn();
    sleep(100 * MINUTE).await;
    let waits = pile.waits();
    assert!((75..=135).contains(&waits.len()), "{}", waits.len());
    // The timer rounds up to milliseconds.
    let bounds = 30 * SECOND..=91 * SECOND;
    assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
    let shortest = waits.iter().min().unwrap();
    let longest = waits.iter().max().unwrap();
    assert!(*longest > *shortest + 20 * SECOND, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_together_do_not_come_together() {
    let first = Pile::of(0);
    let second = Pile::of(0);
    let _tasks = [&first, &second].map(|pile| Cleanup::new(pile.clone()).spawn());
    sleep(10 * MINUTE).await;
    assert_ne!(first.batches(), second.batches());
}

#[tokio::test(start_paused = true)]
async fn a_round_deletes_batch_after_batch_and_leaves_the_store_half_of_the_time() {
    let pile = Pile::of(25);
    pile.with(|state| state.batch_takes = SECOND);
    let _task = Cleanup::new(pile.clone()).every(MINUTE).batch(10).spawn();
    sleep(110 * SECOND).await;
    assert_eq!(pile.expired(), 0);
    let waits = pile.waits();
    assert_eq!(waits[..2], [2 * SECOND; 2]);
    // The third was not full, so the round ended.
    assert!(waits[2..].iter().all(|wait| *wait >= 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn quick_batches_have_a_pause_too() {
    let pile = Pile::of(30);
    let _task = Cleanup::new(pile.clone()).batch(10).spawn();
    sleep(90 * SECOND).await;
    assert_eq!(pile.waits()[0], Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn errors_are_survived_and_make_rounds_rarer() {
    let pile = Pile::of(5);
    pile.with(|state| state.failing = true);
    let _task = Cleanup::new(pile.clone()).spawn();
    sleep(200 * MINUTE).await;
    let waits = pile.waits();
    for (wait, times) in waits.iter().zip([2, 4, 8, 16, 16, 16]) {
        let bounds = times * 30 * SECOND..=times * 91 * SECOND;
        assert!(bounds.contains(wait), "{times}: {waits:?}");
    }
    pile.with(|state| state.failing = false);
    sleep(25 * MINUTE).await;
    assert_eq!(pile.expired(), 0);
    // As often as ever again.
    let before = pile.batches().len();
    sleep(20 * MINUTE).await;
    assert!(pile.batches().len() >= before + 10);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_given_up() {
    let pile = Pile::of(5);
    pile.with(|state| state.batch_takes = Duration::MAX / 4);
    let log = Log::start();
    let _task = Cleanup::new(pile.clone()).spawn();
    sleep(2 * MINUTE).await;
    // The cleanup's own option, not the manager's `store_timeout`.
    let lines = log.take();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.contains("smaller `.batch(..)`")),
        "{lines:?}"
    );
    pile.with(|state| state.batch_takes = Duration::ZERO);
    sleep(10 * MINUTE).await;
    assert_eq!(pile.expired(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_it_in_the_middle_of_a_batch() {
    let pile = Pile::of(1_000_000);
    pile.with(|state| state.batch_takes = 10 * SECOND);
    let (word, shutdown) = oneshot::channel::<()>();
    let cleanup = Cleanup::new(pile.clone()).batch(10);
    let run = tokio::spawn(cleanup.run(async {
        let _ = shutdown.await;
    }));
    sleep(95 * SECOND).await;
    let batches = pile.batches().len();
    assert!(batches > 0 && !run.is_finished());
    word.send(()).unwrap();
    let asked = Instant::now();
    run.await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    sleep(10 * MINUTE).await;
    assert_eq!(pile.batches().len(), batches);
}

#[tokio::test(start_paused = true)]
async fn a_handle_ends_it_when_stopped_or_dropped() {
    let pile = Pile::of(0);
    Cleanup::new(pile.clone()).spawn().stop().await;
    drop(Cleanup::new(pile.clone()).spawn());
    sleep(10 * MINUTE).await;
    assert!(pile.batches().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_is_no_endless_round() {
    let pile = Pile::of(5);
    let _task = Cleanup::new(pile.clone()).batch(0).spawn();
    sleep(10 * MINUTE).await;
    assert!(pile.batches().len() <= 20);
}
