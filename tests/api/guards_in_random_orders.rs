//! Whatever the guards of one request do, and in whatever order: what was acknowledged is there at the
//! end unless something acknowledged later replaced it, and what was refused is not.

use axum_typed_session::{
    MemoryStore, Session, SessionCommit, SessionError, SessionManager, testing::ManualClock,
};
use http::StatusCode;
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Visit, change, run, seen, visited, with_guards},
    support::{Browser, Mode, SECOND, key},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Notes {
    one: String,
    two: String,
    three: String,
}

const FIELDS: usize = 3;

impl Notes {
    fn fields(&mut self) -> [&mut String; FIELDS] {
        [&mut self.one, &mut self.two, &mut self.three]
    }

    /// Takes over the fields in which `changed` differs from `before`.
    fn take_changes(&mut self, before: &Self, changed: &Self) {
        let (mut before, mut changed) = (before.clone(), changed.clone());
        let pairs = before.fields().into_iter().zip(changed.fields());
        for (field, (before, changed)) in self.fields().into_iter().zip(pairs) {
            if before != changed {
                changed.clone_into(field);
            }
        }
    }
}

/// What happens next, and to which of the guards there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Extract,
    Change { guard: usize, field: usize },
    Borrow(usize),
    Update { guard: usize, field: usize },
    Regenerate(usize),
    Clear(usize),
    Destroy(usize),
    Commit(usize),
    Drop(usize),
    Discard(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let guard = 0..4_usize;
    let change = (guard.clone(), 0..FIELDS);
    prop_oneof![
        4 => Just(Step::Extract),
        6 => change.clone().prop_map(|(guard, field)| Step::Change { guard, field }),
        1 => guard.clone().prop_map(Step::Borrow),
        2 => change.prop_map(|(guard, field)| Step::Update { guard, field }),
        1 => guard.clone().prop_map(Step::Regenerate),
        1 => guard.clone().prop_map(Step::Clear),
        1 => guard.clone().prop_map(Step::Destroy),
        7 => guard.clone().prop_map(Step::Commit),
        1 => guard.clone().prop_map(Step::Drop),
        1 => guard.prop_map(Step::Discard),
    ]
}

/// Counts what a guard has to have seen before its changes may land.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moved {
    ended: u32,
    cleared: u32,
}

/// The session, as the acknowledged commits left it.
#[derive(Debug, Default)]
struct Model {
    notes: Option<Notes>,
    moved: Moved,
    /// Ends without a session, and clears of what was clear: whether these move anything is left open.
    perhaps_moved: Moved,
    /// Texts so far, all of them different.
    texts: u32,
}

/// What has to come of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Lands,
    IsRefused,
    Either,
}

impl Expected {
    #[track_caller]
    fn check<R>(self, outcome: &Result<R, SessionError>, what: &str) {
        match (self, outcome) {
            (Self::Lands | Self::Either, Ok(_))
            | (Self::IsRefused | Self::Either, Err(SessionError::Conflict | SessionError::Gone)) => {
            }
            (expected, Ok(_)) => panic!("{what} was acknowledged, but it {expected:?}"),
            (expected, Err(error)) => panic!("{what} is {error:?}, but it {expected:?}"),
        }
    }
}

/// A guard, and what the model knows of it.
struct Guard {
    session: Session<Notes>,
    /// What it was handed; `None` for a fresh session.
    handed: Option<Notes>,
    moved: Moved,
    perhaps_moved: Moved,
    notes: Notes,
    clears: bool,
    regenerates: bool,
    destroys: bool,
}

impl Guard {
    async fn extract(visit: &mut Visit<Notes>, model: &Model) -> Self {
        let session = visit.session().await.unwrap();
        assert_eq!(session.is_new(), model.notes.is_none(), "extracted");
        let handed = model.notes.clone();
        let notes = handed.clone().unwrap_or_default();
        let (moved, perhaps_moved) = (model.moved, model.perhaps_moved);
        let (clears, regenerates, destroys) = (false, false, false);
        Self { session, handed, moved, perhaps_moved, notes, clears, regenerates, destroys }
    }

    fn before(&self) -> Notes {
        self.handed.clone().unwrap_or_default()
    }

    fn changes(&self) -> bool {
        self.notes != self.before()
    }

    fn is_dirty(&self) -> bool {
        self.changes() || self.clears || self.regenerates || self.destroys
    }

    fn change(&mut self, field: usize, text: String) {
        text.clone_into(self.session.fields()[field]);
        *self.notes.fields()[field] = text;
    }

    fn clear(&mut self) {
        self.session.clear();
        self.notes = Notes::default();
        self.clears |= self.handed.is_some();
    }

    /// What has to come of changes to the data.
    fn expected(&self, model: &Model) -> Expected {
        if self.moved == model.moved && self.perhaps_moved == model.perhaps_moved {
            Expected::Lands
        } else if self.moved == model.moved || self.handed.is_none() {
            // A fresh session that another guard saved and ended is fresh again.
            Expected::Either
        } else if self.clears && self.moved.ended == model.moved.ended {
            // It is based on nothing that was there before.
            Expected::Either
        } else {
            Expected::IsRefused
        }
    }

    async fn update(&mut self, mode: Mode, model: &mut Model, field: usize, text: String) {
        let apply = |notes: &mut Notes| text.clone_into(notes.fields()[field]);
        if mode == Mode::Cookie || self.handed.is_none() {
            self.session.update(apply).await.unwrap();
            *self.notes.fields()[field] = text;
            return;
        }
        let expected = self.expected(model);
        let is_dirty = self.is_dirty();
        let outcome = self.session.update(apply).await;
        if is_dirty {
            assert!(matches!(outcome, Err(SessionError::Uncommitted)), "update: {outcome:?}");
            return;
        }
        expected.check(&outcome, "update");
        if outcome.is_ok() {
            let mut notes = model.notes.clone().unwrap_or_default();
            *notes.fields()[field] = text;
            model.notes = Some(notes.clone());
            (self.handed, self.notes) = (Some(notes.clone()), notes);
            (self.moved, self.perhaps_moved) = (model.moved, model.perhaps_moved);
        }
    }

    async fn commit(self, visit: &mut Visit<Notes>, model: &mut Model) -> Option<SessionCommit> {
        let before = self.before();
        let expected = match () {
            () if self.destroys || !self.is_dirty() => Expected::Lands,
            // That of a session which was cleared meanwhile is not said to be refused.
            () if !self.changes() && !self.clears => match self.expected(model) {
                Expected::IsRefused | Expected::Either => Expected::Either,
                Expected::Lands => Expected::Lands,
            },
            () => self.expected(model),
        };
        let changes = self.changes();
        let Self { session, notes, clears, destroys, .. } = self;
        let outcome = session.commit().await;
        expected.check(&outcome, "commit");
        let guard = outcome.ok()?;
        if destroys {
            let moved =
                if model.notes.is_some() { &mut model.moved } else { &mut model.perhaps_moved };
            moved.ended += 1;
            model.notes = None;
        } else if clears {
            let was_clear = before == Notes::default() || model.notes == Some(Notes::default());
            let moved = if was_clear { &mut model.perhaps_moved } else { &mut model.moved };
            moved.cleared += 1;
            if changes || before != Notes::default() {
                model.notes = Some(notes);
            } else {
                // A clear of what is clear may do nothing, as if it had come before the others.
                let now = visit.session().await.unwrap().clone();
                assert!([model.notes.as_ref(), Some(&notes)].contains(&Some(&now)), "{now:?}");
                model.notes = Some(now);
            }
        } else if changes {
            model.notes.get_or_insert_default().take_changes(&before, &notes);
        }
        Some(guard)
    }
}

/// The guards of a request, which do a step after the other.
struct Play {
    mode: Mode,
    visit: Visit<Notes>,
    guards: Vec<Guard>,
    sent: Vec<SessionCommit>,
}

impl Play {
    async fn step(&mut self, step: Step, model: &mut Model) {
        let index = match step {
            Step::Extract => None,
            Step::Change { guard, .. }
            | Step::Update { guard, .. }
            | Step::Borrow(guard)
            | Step::Regenerate(guard)
            | Step::Clear(guard)
            | Step::Destroy(guard)
            | Step::Commit(guard)
            | Step::Drop(guard)
            | Step::Discard(guard) => guard.checked_rem(self.guards.len()),
        };
        let Some(index) = index else {
            self.guards.push(Guard::extract(&mut self.visit, model).await);
            return;
        };
        model.texts += 1;
        let text = format!("text {}", model.texts);
        let guard = &mut self.guards[index];
        match step {
            Step::Extract => {}
            Step::Change { field, .. } => guard.change(field, text),
            Step::Borrow(_) => _ = &mut *guard.session,
            Step::Update { field, .. } => guard.update(self.mode, model, field, text).await,
            Step::Regenerate(_) => {
                guard.session.regenerate();
                guard.regenerates = true;
            }
            Step::Clear(_) => guard.clear(),
            Step::Destroy(_) => {
                guard.session.destroy();
                guard.destroys = true;
            }
            Step::Commit(_) => {
                let guard = self.guards.swap_remove(index);
                self.sent.extend(guard.commit(&mut self.visit, model).await);
            }
            Step::Drop(_) => drop(self.guards.swap_remove(index)),
            Step::Discard(_) => self.guards.swap_remove(index).session.discard(),
        }
        for guard in &self.guards {
            assert_eq!(*guard.session, guard.notes, "what a guard holds");
        }
    }
}

/// Runs the steps in one request, and compares what is left with the model.
async fn play(mode: Mode, is_loaded: bool, steps: Vec<Step>) {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let builder = SessionManager::<Notes>::builder().clock(clock.clone());
    let builder = match mode {
        Mode::Cookie => builder.keys(key()),
        Mode::Store => builder.store(store.clone()),
    };
    let sessions = builder.build().unwrap();
    let mut browser = Browser::new(visited(sessions.clone()));
    let mut model = Model::default();
    if is_loaded {
        let notes = Notes { one: "a".into(), two: "b".into(), three: "c".into() };
        model.notes = Some(notes.clone());
        change(&mut browser, |session: &mut Session<Notes>| **session = notes).await;
    }
    let (sender, played) = tokio::sync::oneshot::channel();
    let answer = run(&mut browser, async move |visit: Visit<Notes>| {
        let (guards, sent) = (Vec::new(), Vec::new());
        let mut play = Play { mode, visit, guards, sent };
        for step in steps {
            play.step(step, &mut model).await;
        }
        drop(play.guards);
        sender.send(model).unwrap();
        Ok(with_guards(play.sent))
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    let model = played.await.unwrap();
    assert_eq!(seen(&browser).await, model.notes, "at the end");
    if mode == Mode::Store {
        clock.advance(60 * SECOND);
        sessions.delete_expired(100).await.unwrap();
        assert_eq!(store.len(), usize::from(model.notes.is_some()), "rows at the end");
    }
}

fn in_random_orders(mode: Mode) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = proptest::collection::vec(step(), 1..24);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) };
    let result = TestRunner::new(config).run(&(any::<bool>(), steps), |(is_loaded, steps)| {
        runtime.block_on(play(mode, is_loaded, steps));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn in_cookie_mode_guards_in_random_orders_agree_with_the_model() {
    in_random_orders(Mode::Cookie);
}

#[test]
fn in_store_mode_guards_in_random_orders_agree_with_the_model() {
    in_random_orders(Mode::Store);
}
