//! While keys or the data type are rolled out, two nodes at different steps serve the same visitors, in any order and
//! at once. Nobody is signed out, and no acknowledged write is lost.

use std::{cell::Cell, sync::Arc};

use axum::{
    Extension, Router,
    response::IntoResponse as _,
    routing::{get, post},
};
use axum_typed_session::{
    Counter, Key, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder,
    testing::{Gate, ManualClock},
};
use http::{Request, StatusCode};
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Browser, MINUTE};

const CLIENTS: usize = 3;

/// Sessions of a visitor, in any release of the application.
trait Visitor: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    fn user(&mut self) -> &mut Option<String>;
    fn visit(&mut self);
    fn visits(&self) -> u64;
}

/// Makes a release's type of the sessions, in which visits are the sum of some fields.
macro_rules! visitor {
    ($name:ident, $($field:ident)*, $counts_in:ident) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $name {
            user: Option<String>,
            $(#[serde(default)] $field: Counter,)*
        }

        impl Visitor for $name {
            fn user(&mut self) -> &mut Option<String> {
                &mut self.user
            }

            fn visit(&mut self) {
                self.$counts_in += 1;
            }

            fn visits(&self) -> u64 {
                [$(*self.$field),*].iter().map(|count: &i64| u64::try_from(*count).unwrap()).sum()
            }
        }
    };
}

visitor!(Before, count, count);
visitor!(Between, count total, count);
visitor!(After, total, total);

/// Converts what `Before` and `Between` save.
fn migrate(from: u32, mut data: Value) -> Result<Value, String> {
    if from != 1 {
        return Err(format!("from {from}"));
    }
    let mut take = |name: &str| data.get_mut(name).map_or(Value::Null, Value::take);
    let counts = [take("count"), take("total")];
    let total: i64 = counts.iter().filter_map(Value::as_i64).sum();
    Ok(serde_json::json!({"user": take("user"), "total": total}))
}

/// Where the sessions live.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    EncryptedData,
    SignedData,
    EncryptedId,
    SignedId,
    PlainId,
    EncryptedRows,
}

/// What the nodes share.
struct World {
    mode: Mode,
    clock: ManualClock,
    store: Arc<MemoryStore>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
        Self { mode, clock, store }
    }

    fn has_store(&self) -> bool {
        !matches!(self.mode, Mode::EncryptedData | Mode::SignedData)
    }

    fn node<T: Visitor>(
        &self,
        keys: &KeyRing,
        options: impl FnOnce(SessionManagerBuilder<T>) -> SessionManagerBuilder<T>,
    ) -> Router {
        let mut builder = SessionManager::<T>::builder().clock(self.clock.clone()).kind("Visitor");
        if self.has_store() {
            builder = builder.store(self.store.clone());
        }
        if self.mode != Mode::PlainId {
            builder = builder.keys(keys.clone());
        }
        builder = builder.signed(matches!(self.mode, Mode::SignedData | Mode::SignedId));
        builder = builder.encrypt_rows(self.mode == Mode::EncryptedRows);
        app(options(builder).build().unwrap())
    }

    /// The steps of the table of [`KeyRing`].
    fn keys(&self) -> Vec<Router> {
        let (old, new) = (Key::generate(), Key::generate());
        [
            KeyRing::new(old.clone()),
            KeyRing::new(old.clone()).accept_next(new.clone()),
            KeyRing::new(new.clone()).accept_former(old),
            KeyRing::new(new),
        ]
        .map(|keys| self.node::<Before>(&keys, |builder| builder))
        .into()
    }

    /// The releases of the guide's page on schemas.
    fn schemas(&self) -> Vec<Router> {
        let keys = KeyRing::new(Key::generate());
        vec![
            self.node::<Before>(&keys, |builder| builder),
            self.node::<Between>(&keys, |builder| builder.accept_schema(2)),
            self.node::<After>(&keys, |builder| builder.schema_version(2).migrate(migrate)),
        ]
    }
}

type Answer = Result<axum::response::Response, SessionError>;

async fn shown<T: Visitor>(mut session: Session<T>) -> Answer {
    let text = format!("{:?} {}", session.user().clone(), session.visits());
    Ok((session.commit().await?, text).into_response())
}

/// Counts a visit, behind the gate that the test put there.
async fn visit<T: Visitor>(mut session: Session<T>, gate: Option<Extension<Gate>>) -> Answer {
    if let Some(Extension(gate)) = gate {
        gate.pass().await;
    }
    session.visit();
    shown(session).await
}

async fn sign_in<T: Visitor>(mut session: Session<T>) -> Answer {
    *session.user() = Some("ada".to_owned());
    session.regenerate();
    shown(session).await
}

fn app<T: Visitor>(sessions: SessionManager<T>) -> Router {
    Router::new()
        .route("/", get(shown::<T>))
        .route("/visit", post(visit::<T>))
        .route("/sign-in", post(sign_in::<T>))
        .with_state(sessions)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read {
        client: usize,
        node: usize,
    },
    Visit {
        client: usize,
        node: usize,
    },
    SignIn {
        client: usize,
        node: usize,
    },
    /// The other node answers a visit while this one is at another.
    VisitBoth {
        client: usize,
        slow: usize,
    },
    Advance(usize),
    TakeBack(usize),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..CLIENTS, 0..2_usize);
    prop_oneof![
        4 => place().prop_map(|(client, node)| Step::Read { client, node }),
        4 => place().prop_map(|(client, node)| Step::Visit { client, node }),
        1 => place().prop_map(|(client, node)| Step::SignIn { client, node }),
        2 => place().prop_map(|(client, slow)| Step::VisitBoth { client, slow }),
        3 => (0..2_usize).prop_map(Step::Advance),
        1 => (0..2_usize).prop_map(Step::TakeBack),
        1 => Just(Step::Wait),
    ]
}

/// Two nodes, each at a step of a rollout, and what each visitor should see.
struct Deploy {
    world: World,
    steps: Vec<Router>,
    at: [usize; 2],
    /// The furthest step that a node has been at: a node is not taken back to before the step below it.
    furthest: usize,
    browsers: Vec<Browser>,
    visits: [u64; CLIENTS],
    /// How many visits came at once with another.
    pairs: u32,
}

impl Deploy {
    async fn begin(world: World, steps: Vec<Router>) -> Self {
        let mut browsers = vec![Browser::new(steps[0].clone()); CLIENTS];
        for browser in &mut browsers {
            browser.post("/sign-in").await.expect(StatusCode::OK, &text(0));
        }
        let visits = [0; CLIENTS];
        Self { world, steps, at: [0; 2], furthest: 0, browsers, visits, pairs: 0 }
    }

    fn at_node(&self, client: usize, node: usize) -> Browser {
        self.browsers[client].at(&self.steps[self.at[node]])
    }

    async fn ask(&mut self, client: usize, node: usize, request: http::request::Builder) {
        let mut browser = self.at_node(client, node);
        browser.send(request).await.expect(StatusCode::OK, &text(self.visits[client]));
        self.browsers[client] = browser;
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Read { client, node } => {
                self.ask(client, node, Request::get("/")).await;
            }
            Step::Visit { client, node } => {
                self.visits[client] += 1;
                self.ask(client, node, Request::post("/visit")).await;
            }
            Step::SignIn { client, node } => {
                self.ask(client, node, Request::post("/sign-in")).await;
            }
            // In a cookie the later of two requests at once wins, on one node too.
            Step::VisitBoth { .. } if !self.world.has_store() => {}
            Step::VisitBoth { client, slow } => self.visit_both(client, slow).await,
            Step::Advance(node) => self.advance(node).await,
            Step::TakeBack(node) => {
                if self.at[node] > 0 && self.at[node] == self.furthest {
                    self.at[node] -= 1;
                }
            }
            Step::Wait => self.world.clock.advance(MINUTE),
        }
    }

    /// Gives a node the next step, if the other node has reached the step before that.
    async fn advance(&mut self, node: usize) {
        let next = self.at[node] + 1;
        if next == self.steps.len() || self.at[1 - node] + 1 < next {
            return;
        }
        // The last step ends the sessions that did not come by since the step before it.
        if next == self.steps.len() - 1 {
            for client in 0..CLIENTS {
                self.ask(client, node, Request::get("/")).await;
            }
        }
        self.at[node] = next;
        self.furthest = self.furthest.max(next);
    }

    /// Both visits count: the later of them is merged onto what the other node saved.
    async fn visit_both(&mut self, client: usize, slow: usize) {
        let gate = Gate::new();
        let (waiting, mut browser) = (gate.clone(), self.at_node(client, slow));
        let slow_visit = tokio::spawn(async move {
            let answer = browser.send_with(Request::post("/visit"), waiting).await;
            (answer, browser)
        });
        gate.reached(1).await;
        self.visits[client] += 1;
        self.ask(client, 1 - slow, Request::post("/visit")).await;
        gate.open();
        let (answer, browser) = slow_visit.await.unwrap();
        self.pairs += 1;
        self.visits[client] += 1;
        answer.expect_status(StatusCode::OK);
        self.browsers[client] = browser;
    }
}

fn text(visits: u64) -> String {
    format!("{:?} {visits}", Some("ada"))
}

/// Runs random orders of requests and of steps of a rollout, and looks at every session on both nodes at the end.
fn roll_out(mode: Mode, steps: fn(&World) -> Vec<Router>) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) };
    let orders = proptest::collection::vec(step(), 40..80);
    let runtime = Runtime::new().unwrap();
    let (complete, pairs) = (Cell::new(0), Cell::new(0));
    let result = TestRunner::new(config).run(&orders, |order| {
        runtime.block_on(async {
            let world = World::new(mode);
            let steps = steps(&world);
            let mut deploy = Deploy::begin(world, steps).await;
            for step in order {
                deploy.run(step).await;
            }
            for place in 0..CLIENTS * 2 {
                let (client, node) = (place / 2, place % 2);
                deploy.run(Step::Read { client, node }).await;
            }
            let is_complete = deploy.furthest == deploy.steps.len() - 1;
            complete.set(complete.get() + u32::from(is_complete));
            pairs.set(pairs.get() + deploy.pairs);
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{mode:?}: {error}");
    }
    assert!(complete.get() > 0, "no order came to the last step");
    assert_eq!(pairs.get() > 0, World::new(mode).has_store());
}

/// Makes a test of a rollout for each mode.
macro_rules! in_modes {
    ($name:ident, $steps:path: $($test:ident $mode:ident)*) => {
        mod $name {
            use super::*;

            $(
                #[test]
                fn $test() {
                    roll_out(Mode::$mode, $steps);
                }
            )*
        }
    };
}

in_modes! { two_keys_on_two_nodes_sign_nobody_out_and_lose_no_write, World::keys:
    encrypted_data EncryptedData
    signed_data SignedData
    encrypted_id EncryptedId
    signed_id SignedId
    encrypted_rows EncryptedRows
}

in_modes! { two_schemas_on_two_nodes_sign_nobody_out_and_lose_no_write, World::schemas:
    encrypted_data EncryptedData
    signed_data SignedData
    encrypted_id EncryptedId
    signed_id SignedId
    plain_id PlainId
    encrypted_rows EncryptedRows
}
