//! The session of a request. It is loaded once, all its `Session`s share it, and only one of them commits at a time.

mod dropped;

use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, request::Parts};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as Turn};

use super::{Fate, Registry, RequestSessions, lock};
use crate::{
    error::{Result, SessionError},
    id::SessionId,
    manager::{AnyChange, Basis, BoxFuture, CONTENTION, Core, Draft},
    warnings,
};

/// A reference to the session of a request, which all its `Session`s share.
#[derive(Clone)]
pub(crate) struct Cell {
    registry: Arc<Registry>,
    place: usize,
}

impl Deref for Cell {
    type Target = Slot;

    #[allow(clippy::expect_used, reason = "the text says why it cannot happen")]
    fn deref(&self) -> &Slot {
        self.registry.slots().nth(self.place).expect("no slot is ever taken out of a registry")
    }
}

/// The session of a request.
pub(crate) struct Slot {
    pub(crate) core: Core,
    state: Mutex<State>,
    /// Set once the state has a basis, so that the question takes no lock.
    is_loaded: AtomicBool,
    /// Held by the extractor that loads the session, and later by the commit that is under way.
    turn: AsyncMutex<()>,
    /// The request's session of another manager.
    pub(super) next: OnceLock<Box<Self>>,
}

#[derive(Default)]
struct State {
    /// `None` if the session was never loaded, so that no `Session` of it exists.
    basis: Option<Arc<Basis>>,
    /// Data of the basis that a `Session` gave back unchanged, for the next `Session`.
    spare: Option<Box<Draft>>,
    /// Changes of `Session`s that were dropped uncommitted. They wait until they can be folded into the basis.
    ///
    /// Here and below, the number counts the copies of the request at the time of the extraction.
    waiting: VecDeque<(u32, Box<Draft>)>,
    /// The basis as it was before each folded change that a retry may have to undo.
    folded: Vec<(u32, Arc<Basis>)>,
    /// The reason why changes of dropped `Session`s cannot be committed together.
    refused: Option<(u32, SessionError)>,
    /// A commit of changes of dropped `Session`s began, and it is not known whether they are stored.
    is_in_doubt: bool,
    /// The layer has committed this session.
    is_over: bool,
    /// The session was read, so the response depends on it.
    is_read: bool,
    /// A `SessionCommit` was made for the latest outcome.
    is_promised: bool,
    is_delivered: bool,
    /// A token is in a response already, and may have to be removed from it.
    is_sent: bool,
}

impl State {
    fn basis(&self) -> Result<Arc<Basis>> {
        self.basis.clone().ok_or(SessionError::Closed)
    }

    /// Returns the basis if another commit came after the draft was handed out.
    fn newer_than(&self, draft: &Draft) -> Result<Option<Arc<Basis>>> {
        let basis = self.basis.as_ref().ok_or(SessionError::Closed)?;
        Ok(if Arc::ptr_eq(&draft.basis, basis) { None } else { Some(basis.clone()) })
    }

    fn has_nothing_to_fold(&self) -> bool {
        self.waiting.is_empty() && !self.is_in_doubt
    }

    fn set_basis(&mut self, basis: Arc<Basis>) {
        (self.basis, self.spare) = (Some(basis), None);
    }

    /// Keeps unchanged data for the next `Session`.
    fn give_back(&mut self, draft: Box<Draft>) {
        if self.basis.as_ref().is_some_and(|basis| Arc::ptr_eq(basis, &draft.basis)) {
            self.spare = Some(draft);
        }
    }

    /// Notes that a `SessionCommit` is made for the latest outcome.
    fn promise(&mut self) {
        (self.is_promised, self.is_read) = (true, false);
    }

    /// Drops changes of dropped `Session`s that may be stored already, so that they are not committed twice.
    fn forget_doubtful(&mut self) {
        if !std::mem::take(&mut self.is_in_doubt) {
            return;
        }
        let is_known = self.folded.first().is_some_and(|(_, before)| before.uncommitted.is_none());
        let oldest = self.folded.drain(..).map(|(copies, _)| copies).min().filter(|_| is_known);
        self.forget_uncommitted();
        self.refused.get_or_insert((oldest.unwrap_or_default(), SessionError::Conflict));
    }

    /// Drops the folded changes.
    fn forget_uncommitted(&mut self) {
        if let Some(basis) = self.basis.as_mut().filter(|basis| basis.uncommitted.is_some()) {
            Arc::make_mut(basis).uncommitted = None;
            self.spare = None;
        }
    }
}

impl Cell {
    pub(super) fn new(registry: Arc<Registry>, place: usize) -> Self {
        Self { registry, place }
    }

    /// Makes a cell whose request has no other.
    pub(crate) fn alone(core: Core) -> Self {
        let registry = Arc::<Registry>::default();
        let _ = registry.first.set(Slot::new(core));
        Self::new(registry, 0)
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.registry.fate
    }

    /// Loads the session once in a request, and returns a copy of its data.
    pub(crate) async fn hand_out(&self, parts: &Parts) -> Result<Box<Draft>> {
        let draft = self.hand_out_to_end(parts).await?;
        if draft.basis.incoming.meets_newer {
            self.fate().fail(&self.core);
            return Err(SessionError::Newer);
        }
        Ok(draft)
    }

    /// Does the same, also if a newer node wrote the session, which this node can only end.
    pub(crate) async fn hand_out_to_end(&self, parts: &Parts) -> Result<Box<Draft>> {
        if self.is_loaded() {
            return self.hand_out_loaded();
        }
        if self.core.opens_at_once() {
            return self.keep(self.core.open_at_once(parts, RequestSessions::without_registry));
        }
        // Boxed, so that the future of a handler stays small.
        Box::pin(self.load(parts)).await
    }

    /// The first extractor loads the session, and the others wait for it.
    async fn load(&self, parts: &Parts) -> Result<Box<Draft>> {
        let _turn = self.turn.lock().await;
        if self.is_loaded() {
            return self.hand_out_loaded();
        }
        let opened = self.core.open(parts, RequestSessions::without_registry).await;
        self.keep(opened)
    }

    /// Keeps the session that was opened first, and hands it out.
    fn keep(&self, opened: Result<Box<Draft>>) -> Result<Box<Draft>> {
        let draft = opened.inspect_err(|_| self.fate().fail(&self.core))?;
        let is_first = {
            let state = &mut *lock(&self.state);
            Arc::ptr_eq(state.basis.get_or_insert_with(|| draft.basis.clone()), &draft.basis)
        };
        self.is_loaded.store(true, Ordering::Release);
        if is_first { Ok(draft) } else { self.hand_out_loaded() }
    }

    fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    fn hand_out_loaded(&self) -> Result<Box<Draft>> {
        let (basis, spare) = {
            let mut state = lock(&self.state);
            // A commit under way, which was begun before, does not know of this end yet.
            if state.waiting.iter().any(|(_, draft)| draft.intents.destroy) {
                (Arc::new(state.basis()?.with_ending()), None)
            } else {
                (state.basis()?, state.spare.take())
            }
        };
        spare.map_or_else(|| self.core.draft_of(basis), Ok)
    }

    /// Returns the outcome of the latest commit of the request, with the changes of dropped `Session`s.
    pub(crate) fn basis(&self) -> Result<Arc<Basis>> {
        lock(&self.state).basis()
    }

    /// Commits the draft of a `Session`, for a `SessionCommit`. Returns `None` if there is nothing to do.
    pub(crate) fn commit(&self, draft: Box<Draft>) -> Option<BoxFuture<'_, ()>> {
        if !draft.is_touched() && self.core.rests(&draft.basis) {
            let mut state = lock(&self.state);
            state.give_back(draft);
            state.promise();
            return None;
        }
        Some(Box::pin(async {
            let turn = self.commit_in_turn(draft).await;
            let turn = turn.inspect_err(|_| self.fate().fail(&self.core))?;
            let mut state =
                turn.as_ref().map_or_else(|| lock(&self.state), |_| self.fold_waiting());
            state.promise();
            Ok(())
        }))
    }

    /// Commits a draft, and returns the turn; `None` if an unchanged `Session` has nothing to do.
    async fn commit_in_turn(&self, mut draft: Box<Draft>) -> Result<Option<Turn<'_, ()>>> {
        let is_changed = draft.intents.any() || self.core.is_changed(&mut draft)?;
        if !is_changed
            && (self.fate().is(Fate::CLOSED) || lock(&self.state).newer_than(&draft)?.is_some())
        {
            return Ok(None);
        }
        let Some(turn) = self.turn(is_changed).await? else { return Ok(None) };
        let newer = self.fold_waiting().newer_than(&draft)?;
        if let Some(newer) = newer {
            if !is_changed {
                return Ok(None);
            }
            self.core.rebase(&newer, &mut draft)?;
        }
        self.commit_onto(draft).await?;
        Ok(Some(turn))
    }

    /// Commits a draft of the current basis; the caller has the turn.
    async fn commit_onto(&self, mut draft: Box<Draft>) -> Result<()> {
        let is_in_doubt = draft.basis.uncommitted.is_some() && !self.core.data_in_token();
        if !is_in_doubt {
            return self.finish(self.core.commit(&mut draft).await?);
        }
        lock(&self.state).is_in_doubt = true;
        let committed = self.core.commit(&mut draft).await;
        match committed {
            Err(SessionError::Store(_)) => lock(&self.state).forget_doubtful(),
            _ => lock(&self.state).is_in_doubt = false,
        }
        self.finish(committed?)
    }

    /// Waits until no other commit of this session is under way, as long as a write waits for other
    /// requests. An unchanged `Session` does not wait.
    async fn turn(&self, is_changed: bool) -> Result<Option<Turn<'_, ()>>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) if !is_changed => return Ok(None),
            Err(_) => {
                let wait = Box::pin(tokio::time::timeout(CONTENTION, self.turn.lock()));
                wait.await.map_err(|_| SessionError::Conflict)?
            }
        };
        if self.fate().is(Fate::CLOSING) { Err(SessionError::Closed) } else { Ok(Some(turn)) }
    }

    /// Makes the outcome of a commit the current basis; the caller has the turn.
    fn finish(&self, committed: Option<Basis>) -> Result<()> {
        let mut state = lock(&self.state);
        if self.fate().is(Fate::CLOSED) {
            return Err(SessionError::Closed);
        }
        if let Some(committed) = committed {
            state.set_basis(Arc::new(committed));
            state.folded.clear();
            (state.is_promised, state.is_delivered) = (false, false);
        }
        Ok(())
    }

    /// Keeps unchanged data for the next `Session`.
    fn give_back(&self, draft: Box<Draft>, is_read: bool) {
        let mut state = lock(&self.state);
        state.is_read |= is_read;
        state.give_back(draft);
    }

    /// Changes the stored session now; `basis` is the basis of the draft.
    pub(crate) fn update<'a>(
        &'a self,
        basis: &'a Basis,
        change: &'a mut AnyChange<'a>,
    ) -> BoxFuture<'a, Box<Draft>> {
        Box::pin(async {
            let _turn = self.turn(true).await?;
            let mut current = self.fold_waiting().basis()?;
            if !self.core.rests(&current) {
                self.commit_onto(self.core.draft_of(current)?).await?;
                current = self.basis()?;
            }
            let live = current.live().filter(|_| current.identity == basis.identity);
            let live = live.ok_or_else(|| self.core.gone(None))?;
            let (data, next) = self.core.update_live(&current, live, change).await?;
            self.finish(next)?;
            Ok(Box::new(Draft::new(self.basis()?, data)))
        })
    }

    /// Returns the id that the client has once a draft is committed.
    pub(crate) fn coming_id(&self, draft: &mut Draft) -> Result<SessionId> {
        let mut basis = self.basis()?;
        if draft.basis.identity > basis.identity {
            // A commit under way does not know yet that a dropped `Session` ends the session.
            basis = draft.basis.clone();
        }
        let id = self.core.coming_id(&basis, &mut draft.intents);
        id.inspect_err(|_| self.fate().fail(&self.core))
    }

    /// Returns the session's id as of the latest commit; `None` if it has none.
    pub(crate) fn id(&self) -> Option<SessionId> {
        self.basis().ok()?.live().map(|live| live.id.clone())
    }
}

impl Slot {
    pub(super) fn new(core: Core) -> Self {
        Self {
            core,
            state: Mutex::default(),
            is_loaded: AtomicBool::new(false),
            turn: AsyncMutex::default(),
            next: OnceLock::new(),
        }
    }

    /// Puts the latest outcome into a response, and marks the response as this visitor's own.
    pub(crate) fn deliver(&self, headers: &mut HeaderMap) {
        let is_token = |basis: &Arc<Basis>| basis.told.is_some();
        let sent = {
            let mut state = lock(&self.state);
            state.is_delivered = true;
            state.is_sent |= state.basis.as_ref().is_some_and(is_token);
            if state.is_sent { state.basis.clone() } else { None }
        };
        let carrier = &self.core.tenant.carrier;
        let is_told = sent.as_ref().is_some_and(is_token);
        if let Some(basis) = sent {
            // Identities are counted from 0 on, so one has ended, as at a logout.
            let removes_formers = basis.incoming.removes_formers || basis.identity > 0;
            let removes_old = basis.incoming.removes_old || basis.live().is_none();
            carrier.put(basis.told.clone(), (removes_formers, removes_old), headers);
        }
        if is_told {
            self.core.warnings.warn_of_size(carrier.bytes_in(headers), self.core.type_name);
        }
        carrier.mark(is_told, headers);
    }

    /// Warns of a guard that was not returned, and of a session that was read without one.
    pub(super) fn warn_of_lost_guard(&self, fate: &Fate) {
        let state = lock(&self.state);
        let is_no_mistake = state.is_delivered || fate.excuses();
        if let Some(basis) = state.basis.as_ref().filter(|_| !is_no_mistake) {
            if state.is_promised {
                self.warn(warnings::DROPPED_GUARD, basis);
            } else if state.is_read && !fate.is(Fate::LAYERED) {
                self.warn(warnings::READ_WITHOUT_GUARD, basis);
            }
        }
    }

    fn warn(&self, warning: &'static str, basis: &Basis) {
        self.core.warn(warning, Some(&basis.incoming.route), None);
    }
}
