//! Random operations of three clients agree with a model that fits a screen.

use std::time::Duration;

use axum_typed_session::{Key, SessionStore as _};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;

use crate::{
    browser::{Browser, COOKIE, HOUR},
    world::{Backend, Data, World, change},
};

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Append(u32),
    Login,
    Regenerate,
    Reset,
    Logout,
    LogoutEverywhere,
    Read,
    /// Sends the cookie held before the last change of id.
    Replay,
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..9_u32).prop_map(Step::Write),
        3 => (1..9_u32).prop_map(Step::Append),
        2 => Just(Step::Login),
        2 => Just(Step::Regenerate),
        1 => Just(Step::Reset),
        1 => Just(Step::Logout),
        1 => Just(Step::LogoutEverywhere),
        3 => Just(Step::Read),
        2 => Just(Step::Replay),
        1 => (0..30_u32).prop_map(|hours| Step::Wait(HOUR * hours)),
    ]
}

/// What one client should see.
#[derive(Default)]
struct Client {
    data: Option<Data>,
    ends_at: Duration,
    former: Option<String>,
}

const NAMES: [&str; 3] = ["ann", "bob", "ann"];

struct Model {
    world: World,
    now: Duration,
    clients: [Client; 3],
    browsers: [Browser; 3],
}

impl Model {
    async fn over(backend: &impl Backend, sealed: bool) -> Self {
        let world =
            World::over_with(
                backend,
                |builder| {
                    if sealed { builder.keys(Key::generate()) } else { builder }
                },
            )
            .await;
        Self {
            now: Duration::ZERO,
            clients: Default::default(),
            browsers: [(); 3].map(|()| world.browser()),
            world,
        }
    }

    fn seen(&mut self, client: usize) -> Option<Data> {
        let now = self.now;
        let client = &mut self.clients[client];
        client.data.take_if(|_| client.ends_at <= now);
        client.data.clone()
    }

    fn saved(&mut self, client: usize, data: Option<Data>) {
        let client = &mut self.clients[client];
        client.ends_at = self.now + HOUR * 24;
        client.data = data;
    }

    async fn step(&mut self, client: usize, step: Step) -> Result<(), TestCaseError> {
        let before = self.seen(client);
        let name = NAMES[client];
        let browser = &mut self.browsers[client];
        let token = browser.jar.get(COOKIE).cloned();
        let change = match step {
            Step::Read => {
                prop_assert_eq!(self.world.read(browser).await, before);
                return Ok(());
            }
            Step::Replay => {
                if let Some(former) = &self.clients[client].former {
                    let mut thief = self.world.browser();
                    thief.jar.insert(COOKIE.into(), former.clone());
                    prop_assert_eq!(self.world.read(&mut thief).await, None);
                }
                return Ok(());
            }
            Step::Wait(duration) => {
                self.world.clock.advance(duration);
                self.now += duration;
                return Ok(());
            }
            Step::LogoutEverywhere if !self.world.store.indexes_owners() => return Ok(()),
            Step::LogoutEverywhere => {
                self.world.sessions.destroy_all_of(name).await.unwrap();
                for other in 0..3 {
                    let seen = self.seen(other);
                    if seen.is_some_and(|data| data.user.as_deref() == Some(name)) {
                        self.clients[other].data = None;
                    }
                }
                return Ok(());
            }
            Step::Write(count) => change(move |session| session.count = count),
            Step::Append(item) => change(move |session| session.list.push(item.to_string())),
            Step::Login => change(move |session| {
                session.user = Some(name.to_owned());
                session.regenerate();
            }),
            Step::Regenerate => change(axum_typed_session::Session::regenerate),
            Step::Reset => change(axum_typed_session::Session::clear),
            Step::Logout => change(axum_typed_session::Session::destroy),
        };
        let answer = self.world.run(browser, change).await;
        prop_assert!(answer.status.is_success(), "{:?}", answer);
        let mut after = before.clone().unwrap_or_default();
        match step {
            Step::Write(count) => after.count = count,
            Step::Append(item) => after.list.push(item.to_string()),
            Step::Login => after.user = Some(name.to_owned()),
            Step::Reset => after = Data::default(),
            Step::Regenerate
            | Step::Logout
            | Step::LogoutEverywhere
            | Step::Read
            | Step::Replay
            | Step::Wait(_) => {}
        }
        let changed = before.as_ref().map_or(after != Data::default(), |before| *before != after);
        let is_reset = before.is_some() && matches!(step, Step::Reset);
        let replaced =
            before.is_some() && matches!(step, Step::Login | Step::Regenerate | Step::Logout);
        if matches!(step, Step::Logout) {
            prop_assert!(!browser.has_session());
            self.saved(client, None);
        } else if changed || is_reset || replaced {
            self.saved(client, Some(after));
        }
        if replaced {
            prop_assert_ne!(self.browsers[client].jar.get(COOKIE).cloned(), token.clone());
            self.clients[client].former = token;
        }
        Ok(())
    }
}

/// Makes a test over a backend, with so many sequences of operations.
macro_rules! model_over {
    ($name:ident, $cases:expr, $backend:expr) => {
        #[test]
        fn $name() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            if let Some(backend) = runtime.block_on(async { $backend }) {
                crate::model::three_clients_see_what_the_model_says(&runtime, $cases, &backend);
            }
        }
    };
}
pub(crate) use model_over;

/// And never each other's data.
pub fn three_clients_see_what_the_model_says(
    runtime: &Runtime,
    cases: u32,
    backend: &impl Backend,
) {
    let steps = proptest::collection::vec((0..3_usize, step()), 1..60);
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(cases) };
    let result = TestRunner::new(config).run(&(steps, any::<bool>()), |(steps, sealed)| {
        runtime.block_on(async {
            let mut model = Model::over(backend, sealed).await;
            for (client, step) in steps {
                model.step(client, step).await?;
            }
            for client in 0..3 {
                model.step(client, Step::Read).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
