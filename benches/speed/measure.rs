//! Requests to one application, and the time that they take.

use std::time::{Duration, Instant};

use axum::Router;

use crate::sides::{prepared, send};

pub const ROUNDS: usize = 41;
/// The time of one contestant in one round.
const TURN: Duration = Duration::from_millis(6);
/// Past the first thousand saves of a manager, which are all read back.
const WARM_UP: usize = 1200;

/// An application, and the requests that are sent to it.
pub struct Contestant {
    app: Router,
    path: String,
    /// The `Cookie` headers, in turns that visit all of them in no order.
    cookies: Vec<String>,
    next: usize,
    /// Nanoseconds of a request, one for each round.
    times: Vec<f64>,
}

impl Contestant {
    /// Makes the application of a side for a case; a `bare` one has no sessions.
    pub async fn of(side: &str, case: &str, bare: bool) -> Self {
        let (app, path, cookies) = prepared(side, case, bare).await;
        Self::new(app, path, vec![cookies]).await
    }

    pub async fn new(app: Router, path: String, cookies: Vec<String>) -> Self {
        let mut contestant = Self { app, path, cookies, next: 0, times: Vec::new() };
        contestant.run(WARM_UP).await;
        contestant
    }

    pub async fn run(&mut self, requests: usize) {
        for _ in 0..requests {
            // A large prime, so that the next session is never near.
            self.next = (self.next + 1_000_003) % self.cookies.len();
            send(&mut self.app, &self.path, &self.cookies[self.next]).await;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub async fn turn(&mut self) {
        let (started, mut requests) = (Instant::now(), 0);
        while started.elapsed() < TURN {
            self.run(16).await;
            requests += 16;
        }
        self.times.push(started.elapsed().as_nanos() as f64 / f64::from(requests));
    }

    /// Returns the median of the nanoseconds of a request.
    pub fn median(&mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[self.times.len() / 2]
    }
}

/// Lets each pair, with and without sessions, take its turns. Returns the nanoseconds above no session.
pub async fn above_bare(pairs: &mut [[Contestant; 2]]) -> Vec<f64> {
    for _ in 0..ROUNDS {
        for contestant in pairs.iter_mut().flatten() {
            contestant.turn().await;
        }
    }
    pairs.iter_mut().map(|[with, without]| with.median() - without.median()).collect()
}
