//! Two nodes whose clocks differ by half a minute: nobody is logged out, and no session is extended back and forth.

use std::time::Duration;

use axum::Router;
use axum_typed_session::{
    Clock as _, MemoryStore, Rolling, SessionManager, SessionManagerBuilder,
    testing::{FaultyStore, ManualClock, Operation},
};
use http::StatusCode;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    Answer, Browser, HOUR, MINUTE, Mode, SECOND, Visits, in_both_modes, key, scripted,
};

const SKEW: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(600);
const RUN: Duration = Duration::from_secs(4 * 3600);

/// A node whose clock is right, and one whose clock is ahead.
struct Nodes {
    clocks: [ManualClock; 2],
    apps: [Router; 2],
    store: FaultyStore<MemoryStore>,
}

impl Nodes {
    fn new(
        mode: Mode,
        options: impl Fn(SessionManagerBuilder<Visits>) -> SessionManagerBuilder<Visits>,
    ) -> Self {
        let clocks = [ManualClock::new(), ManualClock::new()];
        clocks[1].advance(SKEW);
        // The store has the clock that is right, as an engine has its own.
        let store = FaultyStore::new(MemoryStore::builder().clock(clocks[0].clone()).build());
        let app = |clock: &ManualClock| {
            let builder = SessionManager::builder().clock(clock.clone()).idle_timeout(IDLE);
            let builder = match mode {
                Mode::Cookie => builder.keys(key()),
                Mode::Store => builder.store(store.clone()),
            };
            scripted(options(builder).build().unwrap())
        };
        let apps = [app(&clocks[0]), app(&clocks[1])];
        Self { clocks, apps, store }
    }

    fn advance(&self, time: Duration) {
        self.clocks.iter().for_each(|clock| clock.advance(time));
    }

    /// Sends a request of the browser to one of the nodes.
    async fn get(&self, browser: &mut Browser, node: usize, path: &str) -> Answer {
        let mut there = browser.at(&self.apps[node]);
        let answer = there.get(path).await;
        browser.jar = there.jar;
        answer
    }

    /// How often a session was extended: by a write to the store, or by a cookie.
    fn extensions(&self, answers: &[Answer]) -> usize {
        let cookies = answers.iter().filter(|answer| answer.told() == "set").count();
        cookies + self.store.calls([Operation::Touch, Operation::Save])
    }
}

in_both_modes! {
    nobody_is_logged_out_and_no_session_is_extended_back_and_forth,
    changes_on_both_nodes_are_all_there,
    requests_in_turn_extend_a_session_no_more_often_than_one_node_does,
}

async fn nobody_is_logged_out_and_no_session_is_extended_back_and_forth(mode: Mode) {
    for (rolling, step) in [(Rolling::EveryCommit, IDLE / 20), (Rolling::BelowHalf, IDLE / 2)] {
        for seed in 0..8 {
            let nodes = Nodes::new(mode, |builder| builder.rolling(rolling));
            let mut rng = StdRng::seed_from_u64(seed);
            let mut browser = Browser::new(nodes.apps[0].clone());
            nodes.get(&mut browser, rng.random_range(0..2), "/add").await;
            nodes.store.reset_calls();
            let (mut answers, mut passed) = (Vec::new(), Duration::ZERO);
            while passed < RUN {
                let wait = Duration::from_millis(rng.random_range(1..240_000));
                nodes.advance(wait);
                passed += wait;
                let answer = nodes.get(&mut browser, rng.random_range(0..2), "/read").await;
                answers.push(answer.expect(StatusCode::OK, "1"));
            }
            let most = passed.as_millis() / step.as_millis() + 1;
            let extensions = nodes.extensions(&answers);
            assert!(extensions as u128 <= most, "{rolling:?}, {seed}: {extensions} above {most}");
            assert!(extensions > 0);
        }
    }
}

async fn changes_on_both_nodes_are_all_there(mode: Mode) {
    for seed in 0..8 {
        let nodes = Nodes::new(mode, |builder| builder);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut browser = Browser::new(nodes.apps[0].clone());
        for count in 1..200 {
            let path = if rng.random_range(0..8) == 0 { "/add/regenerate" } else { "/add" };
            let answer = nodes.get(&mut browser, rng.random_range(0..2), path).await;
            answer.expect(StatusCode::OK, &count.to_string());
            nodes.advance(Duration::from_millis(rng.random_range(0..240_000)));
        }
    }
}

/// Many requests at once, as a page with its pictures sends them, each to another node.
async fn requests_in_turn_extend_a_session_no_more_often_than_one_node_does(mode: Mode) {
    let nodes = Nodes::new(mode, |builder| builder.rolling(true));
    let mut browser = Browser::new(nodes.apps[0].clone());
    nodes.get(&mut browser, 1, "/add").await;
    for minutes in 1..30 {
        nodes.advance(MINUTE);
        nodes.store.reset_calls();
        let mut answers = Vec::new();
        for node in [0, 1, 0, 1, 0, 1] {
            answers.push(nodes.get(&mut browser, node, "/read").await.expect(StatusCode::OK, "1"));
        }
        // The node that is behind, and then the node that is ahead, at most.
        let extensions = nodes.extensions(&answers);
        assert!(extensions <= 2, "{extensions} after {minutes} minutes");
    }
}

#[tokio::test]
async fn a_cookie_from_a_node_that_is_ahead_is_valid_at_once_and_for_its_whole_life() {
    for mode in [Mode::Cookie, Mode::Store] {
        let nodes = Nodes::new(mode, |builder| builder.idle_timeout(HOUR));
        let mut browser = Browser::new(nodes.apps[1].clone());
        browser.get("/add").await.expect(StatusCode::OK, "1");
        nodes.get(&mut browser, 0, "/read").await.expect(StatusCode::OK, "1");
        nodes.advance(HOUR - SECOND);
        for node in [0, 1] {
            nodes.get(&mut browser, node, "/read").await.expect(StatusCode::OK, "1");
        }
        assert!(nodes.clocks[0].now() < nodes.clocks[1].now());
    }
}
