//! All that is logged at `TRACE`, by every crate, while sessions live, collide, fail and end: no id, key, token, name
//! or data is in it, in no spelling. The same holds for errors and for answers to requests that failed.

use std::{error::Error, fmt::Debug, future::Future};

use axum::{Router, response::IntoResponse, routing::post};
use axum_typed_session::{
    AutoCommitLayer, EndReason, Key, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder, SessionStore as _,
    store::{SaveOutcome, Write},
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation, RecordBuilder},
};
use http::{Request, header};
use tracing::Level;

use crate::{
    logins::{Login, logins, without_keys},
    secrets::Secrets,
    support::{
        Answer, Browser, COOKIE, Change, DAY, HOUR, Log, MILLISECOND, SECOND, changing, key,
    },
};

type Builder = SessionManagerBuilder<Login>;
type Store = FaultyStore<MemoryStore>;
type Options<'a> = dyn Fn(&ManualClock, Store) -> Builder + 'a;

const NAME: &str = "ada-lovelace-the-first";
const NOTE: &str = "open-sesame-and-more";

/// A manager, where it keeps what it stores, and what must not be shown.
struct Scene {
    sessions: SessionManager<Login>,
    app: Router,
    store: Store,
    clock: ManualClock,
    secrets: Secrets,
}

impl Scene {
    fn new(secrets: &Secrets, options: impl FnOnce(&ManualClock, Store) -> Builder) -> Self {
        let clock = ManualClock::new();
        let store = FaultyStore::new(MemoryStore::builder().clock(clock.clone()).build());
        let builder = options(&clock, store.clone()).owner(|login: &Login| login.user.clone());
        let builder = builder.rolling(true).store_timeout(MILLISECOND).max_payload(2000);
        let sessions = builder.on_end(|_, _: EndReason| {}).build().unwrap();
        let app = changing(sessions.clone());
        Self { app, sessions, store, clock, secrets: secrets.clone() }
    }

    async fn run(
        &self,
        browser: &mut Browser,
        change: impl Fn(&mut Session<Login>) + Send + Sync + 'static,
    ) -> Answer {
        self.run_behind(browser, open(), change).await
    }

    async fn run_behind(
        &self,
        browser: &mut Browser,
        gate: Gate,
        change: impl Fn(&mut Session<Login>) + Send + Sync + 'static,
    ) -> Answer {
        let secrets = self.secrets.clone();
        let change = Change::behind(gate, move |session: &mut Session<Login>| {
            if let Some(id) = session.id() {
                secrets.add(id.as_bytes());
                secrets.add_hash(id.store_key().as_bytes());
            }
            secrets.add(
                session.csrf_token().unwrap_or_else(|_| "no token, since it has ended".into()),
            );
            change(session);
        });
        let answer = browser.send_with(Request::post("/"), change).await;
        for cookie in answer.set_cookies() {
            let (_, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if !value.is_empty() {
                self.secrets.add_token(value);
            }
        }
        if !answer.status.is_success() {
            self.secrets.show(&answer.body);
        }
        answer
    }

    async fn logged_in(&self) -> Browser {
        let mut browser = Browser::new(self.app.clone());
        self.run(&mut browser, |session| session.note = NOTE.into()).await;
        let login = |session: &mut Session<Login>| {
            session.user = Some(NAME.to_owned());
            session.regenerate();
        };
        self.run(&mut browser, login).await;
        browser
    }

    /// Adds the rows as the store has them, and the hashes of their owners.
    async fn add_rows(&self) {
        for session in &self.sessions.sessions_of(NAME).await.unwrap().sessions {
            let row = self.store.inner().load(&session.key()).await.unwrap().unwrap();
            self.secrets.add(row.payload());
            self.secrets.add_hash(row.owner().unwrap().as_bytes());
        }
    }

    fn note<R: Debug>(&self, outcome: &Result<R, SessionError>) {
        self.secrets.show(&format!("{outcome:?} {outcome:#?}"));
        let mut source = outcome.as_ref().err().map(|error| error as &dyn Error);
        while let Some(error) = source {
            self.secrets.show(&format!("{error} {error:?}"));
            source = error.source();
        }
    }
}

fn open() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

/// The life of a session, with what clients can do to it.
async fn visits(scene: &Scene) {
    let mut browser = scene.logged_in().await;
    let stolen = browser.clone();
    // Read, extended, written by `rolling`, and refused for its size.
    browser.get("/").await;
    scene.clock.advance(HOUR * 6);
    scene.run(&mut browser, |_| {}).await;
    scene.run(&mut browser, |session| session.note = NOTE.repeat(400)).await;
    let forged = |session: &mut Session<Login>| drop(session.verify_csrf("forged").unwrap_err());
    scene.run(&mut browser, forged).await;
    scene.run(&mut browser, |session| session.set_idle_timeout(DAY * 90)).await;
    // Damaged, cut, strange and doubled cookies.
    let token = browser.token();
    for damaged in [&token[1..], &token[..token.len() - 1], NOTE, "", &format!("{token}{token}")] {
        let mut browser = Browser::new(scene.app.clone());
        browser.jar.insert(COOKIE.to_owned(), damaged.to_owned());
        scene.run(&mut browser, |_| {}).await;
    }
    let mut twice = scene.logged_in().await;
    twice.jar.insert(COOKIE.to_owned(), format!("{}; {COOKIE}={token}", twice.token()));
    scene.run(&mut twice, |_| {}).await;
    // A copy that goes on after the sign-out.
    scene.run(&mut browser, Session::destroy).await;
    scene.run(&mut stolen.clone(), |session| session.note = NOTE.into()).await;
    let mut late = scene.logged_in().await;
    scene.clock.advance(DAY * 91);
    scene.run(&mut late, |_| {}).await;
}

/// Two requests at once, of which one is refused or merged.
async fn collisions(scene: &Scene) {
    let ends: [fn(&mut Session<Login>); 4] = [
        |session| session.note = format!("{NOTE}, and so on"),
        |session| session.user = Some(format!("{NAME}, and so on")),
        Session::regenerate,
        Session::destroy,
    ];
    for quick in ends {
        for slow in ends {
            let mut browser = scene.logged_in().await;
            let (gate, mut other) = (Gate::new(), browser.clone());
            let both = async {
                gate.reached(1).await;
                scene.run(&mut browser, quick).await;
                gate.open();
            };
            tokio::join!(scene.run_behind(&mut other, gate.clone(), slow), both);
        }
    }
}

/// Every operation on a store that fails, hangs or loses its answer.
async fn faults(scene: &Scene) {
    for fault in [Fault::Fail, Fault::Hang, Fault::LoseAnswer] {
        for operation in Operation::all() {
            let mut browser = scene.logged_in().await;
            scene.store.inject([operation], fault.clone());
            scene.clock.advance(HOUR * 6);
            scene.run(&mut browser, |_| {}).await;
            scene.run(&mut browser, |session| session.note = NOTE.to_uppercase()).await;
            scene.run(&mut browser, Session::regenerate).await;
            scene.run(&mut browser, Session::destroy).await;
            scene.note(&scene.sessions.destroy_all_of(NAME).await);
            scene.note(&scene.sessions.sessions_of(NAME).await);
            scene.note(&scene.sessions.delete_expired(9).await);
            scene.store.heal();
        }
    }
}

/// What an operator and a job do, with rows that can be read and rows that cannot.
async fn outside(scene: &Scene) {
    let mut browser = scene.logged_in().await;
    scene.add_rows().await;
    let key = scene.sessions.sessions_of(NAME).await.unwrap().sessions.remove(0).key();
    scene.note(&scene.sessions.load(key).await);
    let change = |login: &mut Login| login.note = NOTE.repeat(400);
    scene.note(&scene.sessions.update(key, change).await);
    let row = scene.store.inner().load(&key).await.unwrap().unwrap();
    let garbage = format!(r#"{{"user":["{NAME}"],"note":"{NOTE}"}}"#);
    for payload in [garbage.as_bytes(), NOTE.as_bytes(), b"{}"] {
        let damaged = RecordBuilder::new().owner(row.owner().unwrap()).payload(payload);
        let damaged = damaged.created_at(row.created_at()).expires_at(row.expires_at()).build();
        let found = scene.store.inner().load(&key).await.unwrap().unwrap();
        let write = Write::Update { loaded: &found };
        let saved = scene.store.inner().save(&key, &damaged, write).await.unwrap();
        assert_eq!(saved, SaveOutcome::Saved);
        scene.note(&scene.sessions.load(key).await);
        scene.note(&scene.sessions.update(key, change).await);
        scene.run(&mut browser.clone(), |_| {}).await;
    }
    scene.run(&mut browser, Session::destroy).await;
    let login = Login { user: Some(NAME.to_owned()), note: NOTE.to_owned() };
    let created = scene.sessions.create(login).await.unwrap();
    scene.secrets.add_token(created.token());
    scene.secrets.show(&format!("{created:?} {:?}", created.headers()));
    scene.note(&scene.sessions.destroy_of(NAME, created.key()).await);
    scene.note(&scene.sessions.destroy_of(NAME, created.key()).await);
}

/// The mistakes that are warned of.
async fn mistakes(scene: &Scene) {
    let forgets_to_commit = |mut session: Session<Login>| async move {
        session.note = NOTE.into();
    };
    let drops_the_guard = |mut session: Session<Login>| async move {
        session.note = NOTE.into();
        let _guard = session.commit().await;
    };
    let fails = |mut session: Session<Login>| async move {
        session.note = NOTE.into();
        Err::<(), _>(SessionError::Conflict.into_response())
    };
    let app = Router::new()
        .route("/forgets", post(forgets_to_commit))
        .route("/drops", post(drops_the_guard))
        .route("/fails", post(fails));
    let plain = app.clone().with_state(scene.sessions.clone());
    let layered = app.layer(AutoCommitLayer::new()).with_state(scene.sessions.clone());
    for app in [plain, layered] {
        for path in ["/forgets", "/drops", "/fails"] {
            let mut browser = scene.logged_in().await.at(&app);
            let request = Request::post(format!("{path}?{NOTE}")).header(header::USER_AGENT, NOTE);
            browser.send(request.header(header::HOST, "shop.example")).await;
        }
    }
}

/// Runs a scene and searches all that was logged meanwhile.
async fn watched<F: Future<Output = ()>>(secrets: &Secrets, play: impl FnOnce() -> F) {
    secrets.add(NAME);
    secrets.add(NOTE);
    secrets.add_key(&key());
    let log = Log::of(Level::TRACE);
    play().await;
    let text = log.text();
    // One line of each level, so that it is known that all were watched.
    for level in ["DEBUG", "WARN", "ERROR"] {
        assert!(text.contains(&format!("{level} axum_typed_session")), "{text}");
    }
    secrets.show(&text);
    secrets.expect_silence();
}

#[tokio::test(start_paused = true)]
async fn in_cookie_mode_nothing_secret_is_logged() {
    for signed in [false, true] {
        let secrets = Secrets::default();
        let scene =
            Scene::new(&secrets, |clock, list| logins(clock).signed(signed).revocations(list));
        watched(&secrets, || async {
            visits(&scene).await;
            collisions(&scene).await;
            faults(&scene).await;
            mistakes(&scene).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_store_mode_nothing_secret_is_logged() {
    let former = Key::generate();
    let ring = || KeyRing::new(key()).accept_former(former.clone()).accept_next(Key::generate());
    let plain = |clock: &ManualClock, store| without_keys(clock).store(store);
    let sealed = |clock: &ManualClock, store| logins(clock).keys(ring()).store(store);
    let encrypted = |clock: &ManualClock, store| sealed(clock, store).encrypt_rows(true);
    let options: [&Options<'_>; 3] = [&plain, &sealed, &encrypted];
    for options in options {
        let secrets = Secrets::default();
        secrets.add_key(&former);
        let scene = Scene::new(&secrets, options);
        watched(&secrets, || async {
            visits(&scene).await;
            collisions(&scene).await;
            faults(&scene).await;
            outside(&scene).await;
            mistakes(&scene).await;
            scene.clock.advance(DAY * 91);
            scene.note(&scene.sessions.delete_expired(9).await);
            tokio::time::sleep(SECOND).await;
        })
        .await;
    }
}
