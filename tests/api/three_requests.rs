//! Three requests of one browser at once, in random orders of their store calls: what was acknowledged holds.

use std::{future::Future, pin::Pin};

use axum_typed_session::{
    Clock as _, Key, KeyRing, Session, SessionManager,
    testing::{Fault, FaultyStore, ManualClock, Operation},
    time,
};
use futures_util::{future::join_all, poll};
use http::StatusCode;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde::{Deserialize, Serialize};

use crate::{
    requests::{change, seen, visited},
    support::{Browser, COOKIE, ProbeStore, SECOND, key},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Page {
    user: Option<String>,
    elevated: bool,
    cart: Vec<String>,
    flash: Option<String>,
}

impl Page {
    fn is(&self, user: &str) -> bool {
        self.user.as_deref() == Some(user)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Owned,
    WithoutOwner,
    Encrypted,
    Revocations,
}

const KINDS: [Kind; 4] = [Kind::Owned, Kind::WithoutOwner, Kind::Encrypted, Kind::Revocations];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Read,
    AddTea,
    AddMilk,
    /// What a page does that has asked ada for a second factor.
    Elevate,
    /// As after a change of password: ada stays, her id does not.
    RenewId,
    LogInAda,
    LogInBob,
    LogOut,
    LogOutWithFlash,
    LogOutEverywhere,
}

const ACTS: [Act; 10] = [
    Act::Read,
    Act::AddTea,
    Act::AddMilk,
    Act::Elevate,
    Act::RenewId,
    Act::LogInAda,
    Act::LogInBob,
    Act::LogOut,
    Act::LogOutWithFlash,
    Act::LogOutEverywhere,
];

impl Act {
    fn apply(self, session: &mut Session<Page>) {
        match self {
            Self::AddTea => session.cart.push("tea".to_owned()),
            Self::AddMilk => session.cart.push("milk".to_owned()),
            Self::Elevate if session.is("ada") => session.elevated = true,
            Self::RenewId if session.user.is_some() => session.regenerate(),
            Self::LogInAda if !session.is("bob") => {
                session.user = Some("ada".to_owned());
                session.regenerate();
            }
            Self::LogInBob => {
                session.clear();
                session.user = Some("bob".to_owned());
                session.regenerate();
            }
            Self::LogOut => session.destroy(),
            Self::LogOutWithFlash => {
                session.clear();
                session.regenerate();
                session.flash = Some("bye".to_owned());
            }
            Self::Read
            | Self::Elevate
            | Self::RenewId
            | Self::LogInAda
            | Self::LogOutEverywhere => {}
        }
    }

    fn logs_in(self) -> bool {
        matches!(self, Self::LogInAda | Self::LogInBob)
    }

    fn ends(self) -> bool {
        matches!(self, Self::LogOut | Self::LogOutWithFlash | Self::LogOutEverywhere)
    }
}

/// What disturbs the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// One of the requests is dropped.
    Drop,
    /// A store call fails, or its answer is lost.
    Fault,
    /// The requests come to nodes whose clocks differ by a few seconds, and which are at different steps of a change of
    /// keys.
    Nodes,
    /// All clocks jump by less than the ten seconds for which a replaced id is remembered.
    Jump,
    All,
}

impl Trouble {
    fn has(self, trouble: Self) -> bool {
        self == trouble || self == Self::All
    }
}

/// A request, the browser that got its answer, and whether it was acknowledged.
struct Outcome {
    act: Act,
    status: Option<StatusCode>,
    browser: Browser,
}

impl Outcome {
    fn is_done(&self, is_meant: impl Fn(Act) -> bool) -> bool {
        is_meant(self.act) && self.status == Some(StatusCode::OK)
    }
}

type Request<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

struct Case {
    kind: Kind,
    trouble: Trouble,
    acts: [Act; 3],
    seed: u64,
    random: StdRng,
    /// That of the store, then those of the nodes.
    clocks: Vec<ManualClock>,
    store: FaultyStore<ProbeStore>,
    nodes: Vec<SessionManager<Page>>,
}

impl Case {
    fn new(kind: Kind, trouble: Trouble, acts: [Act; 3], seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = ManualClock::new();
        let store = FaultyStore::new(ProbeStore::new(&clock));
        let (former, next) = (key(), Key::generate());
        let rings = [
            KeyRing::new(former.clone()).accept_next(next.clone()),
            KeyRing::new(next).accept_former(former),
        ];
        let (mut clocks, mut nodes) = (vec![clock.clone()], Vec::new());
        for ring in rings {
            let clock = ManualClock::at(clock.now());
            if trouble.has(Trouble::Nodes) {
                clock.set(clock.now() + SECOND * random.random_range(0..5) - SECOND * 2);
            }
            let builder = SessionManager::builder().clock(clock.clone());
            let builder = match kind {
                Kind::Owned | Kind::WithoutOwner => builder.store(store.clone()),
                Kind::Encrypted => builder.store(store.clone()).keys(ring).encrypt_rows(true),
                Kind::Revocations => builder.keys(ring).revocations(store.clone()),
            };
            let builder = match kind {
                Kind::WithoutOwner => builder,
                Kind::Owned | Kind::Encrypted | Kind::Revocations => {
                    builder.owner(|page: &Page| page.user.clone())
                }
            };
            clocks.push(clock);
            nodes.push(builder.build().unwrap());
        }
        if !trouble.has(Trouble::Nodes) {
            nodes.truncate(1);
        }
        Self { kind, trouble, acts, seed, random, clocks, store, nodes }
    }

    /// Moves all clocks; back if it is negative.
    fn advance(&self, seconds: i64) {
        for clock in &self.clocks {
            clock.set(clock.now() + time::Duration::seconds(seconds));
        }
    }

    fn indexes_owners(&self) -> bool {
        matches!(self.kind, Kind::Owned | Kind::Encrypted)
    }

    async fn send(&self, act: Act, node: usize, mut browser: Browser) -> Outcome {
        let node = &self.nodes[node];
        browser = browser.at(&visited(node.clone()));
        let status = if act == Act::LogOutEverywhere {
            let ended = node.destroy_all_of("ada").await;
            if ended.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        } else {
            change(&mut browser, move |session| act.apply(session)).await.status
        };
        Outcome { act, status: Some(status), browser }
    }

    /// Lets the requests take turns, a store call each, in a random order.
    async fn race(&mut self, browser: &Browser) -> Vec<Outcome> {
        let mut random = StdRng::from_rng(&mut self.random);
        if self.trouble.has(Trouble::Fault) {
            let fault = [Fault::Fail, Fault::LoseAnswer].choose(&mut random).unwrap().clone();
            self.store.inject_next(random.random_range(0..12), Operation::all(), Fault::Pass);
            self.store.inject_next(1, Operation::all(), fault);
        }
        let dropped = self.trouble.has(Trouble::Drop).then(|| random.random_range(0..18));
        let jump = self.trouble.has(Trouble::Jump).then(|| random.random_range(0..18));
        let mut running: Vec<(Act, Request<'_>)> = Vec::new();
        for act in self.acts {
            let node = random.random_range(0..self.nodes.len());
            running.push((act, Box::pin(self.send(act, node, browser.clone()))));
        }
        let mut outcomes = Vec::new();
        for turn in 0..40 {
            if running.is_empty() {
                break;
            }
            let next = random.random_range(0..running.len());
            if jump == Some(turn) {
                self.advance(*[-3, 3].choose(&mut random).unwrap());
            }
            if dropped == Some(turn) {
                let (act, _) = running.swap_remove(next);
                outcomes.push(Outcome { act, status: None, browser: browser.clone() });
                continue;
            }
            if let std::task::Poll::Ready(outcome) = poll!(&mut running[next].1) {
                outcomes.push(outcome);
                drop(running.swap_remove(next));
            }
            tokio::task::yield_now().await;
        }
        outcomes.extend(join_all(running.into_iter().map(|(_, request)| request)).await);
        outcomes
    }

    async fn run(mut self, start: Act) {
        let mut browser = Browser::new(visited(self.nodes[0].clone()));
        let answer = change(&mut browser, move |session| start.apply(session)).await;
        assert_eq!(answer.status, StatusCode::OK);
        let outcomes = self.race(&browser).await;
        self.store.heal();
        let tell = |outcome: &Outcome| format!("{:?} {:?}", outcome.act, outcome.status);
        let told: Vec<_> = outcomes.iter().map(tell).collect();
        let at = format!(
            "{:?}, {:?}, from {start:?}, seed {}: {told:?}",
            self.kind, self.trouble, self.seed
        );
        for outcome in &outcomes {
            let is_allowed = match outcome.status {
                None | Some(StatusCode::OK | StatusCode::CONFLICT) => true,
                Some(StatusCode::SERVICE_UNAVAILABLE) => self.trouble.has(Trouble::Fault),
                Some(_) => false,
            };
            assert!(is_allowed, "{at}");
        }
        let mut browsers = vec![browser];
        browsers.extend(outcomes.iter().map(|outcome| outcome.browser.clone()));
        let mut pages = Vec::new();
        browsers.sort_by_key(|browser| browser.jar.get(COOKIE).cloned());
        browsers.dedup_by_key(|browser| browser.jar.get(COOKIE).cloned());
        for browser in browsers.iter().filter(|browser| browser.has_session()) {
            pages.extend(seen::<Page>(browser).await);
        }
        let at = format!("{at}: {pages:?}");
        // Nobody gets what another person may.
        assert!(pages.iter().all(|page| page.is("ada") || !page.elevated), "elevated, {at}");
        let logs_in = self.acts.iter().any(|act| act.logs_in());
        // Two new ids at once are two sessions, and the old id leads to the first alone. `docs/security.md` says so.
        let forks = self.acts.iter().filter(|act| **act == Act::RenewId).count() > 1;
        let logs_in = logs_in || forks;
        let is_ended = outcomes.iter().any(|outcome| outcome.is_done(Act::ends));
        if is_ended && !logs_in {
            assert!(!pages.iter().any(|page| page.is("ada")), "signed in, {at}");
        }
        let ends = self.acts.iter().any(|act| act.ends()) || self.acts.contains(&Act::LogInBob);
        if self.kind != Kind::Revocations && self.trouble == Trouble::None && !ends {
            for (act, item) in [(Act::AddTea, "tea"), (Act::AddMilk, "milk")] {
                let asked = outcomes.iter().filter(|outcome| outcome.is_done(|it| it == act));
                let (asked, is_item) = (asked.count(), |other: &&String| *other == item);
                let most = pages.iter().map(|page| page.cart.iter().filter(is_item).count()).max();
                let most = most.unwrap_or_default();
                let before = usize::from(start == act);
                assert!(most == asked + before, "{most} times {item}, {at}");
            }
        }
        self.check_rows(is_ended && !logs_in, &pages, &at).await;
    }

    /// What no browser has is no session that goes on.
    async fn check_rows(&self, ended: bool, pages: &[Page], at: &str) {
        if self.kind == Kind::Revocations {
            return;
        }
        self.advance(300);
        let sessions = self.nodes.last().unwrap();
        let rows = sessions.sessions(None, 100).await.unwrap().sessions;
        if self.trouble == Trouble::None {
            assert_eq!(rows.len(), pages.len(), "rows, {at}");
        }
        if ended {
            assert!(!rows.iter().any(|row| row.is("ada")), "a row, {at}");
        }
        if ended && self.indexes_owners() {
            let found = sessions.sessions_of("ada").await.unwrap();
            assert!(found.sessions.is_empty(), "found, {at}");
        }
    }
}

async fn in_random_orders(trouble: Trouble, cases: u64) {
    let first = std::env::var("FIRST_SEED").map_or(0, |seed| seed.parse().unwrap());
    let cases = std::env::var("CASES").map_or(cases, |cases| cases.parse().unwrap());
    for seed in first..first + cases {
        let mut random = StdRng::seed_from_u64(!seed);
        let kind = *KINDS.choose(&mut random).unwrap();
        let mut acts = [(); 3].map(|()| *ACTS.choose(&mut random).unwrap());
        if !matches!(kind, Kind::Owned | Kind::Encrypted) {
            acts = acts.map(|act| if act == Act::LogOutEverywhere { Act::LogOut } else { act });
        }
        let start = *[Act::LogInAda, Act::LogInAda, Act::AddTea].choose(&mut random).unwrap();
        Case::new(kind, trouble, acts, seed).run(start).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_in_every_order() {
    in_random_orders(Trouble::None, 400).await;
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_if_one_is_dropped() {
    in_random_orders(Trouble::Drop, 400).await;
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_on_nodes_that_differ() {
    in_random_orders(Trouble::Nodes, 400).await;
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_if_the_clocks_jump() {
    in_random_orders(Trouble::Jump, 400).await;
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_if_all_of_this_happens() {
    in_random_orders(Trouble::All, 400).await;
}

#[tokio::test(start_paused = true)]
async fn what_three_requests_acknowledge_holds_if_a_store_call_fails() {
    in_random_orders(Trouble::Fault, 400).await;
}
