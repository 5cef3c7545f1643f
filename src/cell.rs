//! The session of a request. It is loaded once, all guards share it, and only one guard commits at a time.

mod dropped;

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, request::Parts};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as Turn, OnceCell};

use crate::{
    error::SessionError,
    id::SessionId,
    manager::{Basis, CONTENTION, Core, Draft, SessionManager},
    request::{AnyCell, CommitFuture, Fate, Registry, RequestSessions, lock},
    warnings::Mistake,
};

/// The session of a request, shared by all its guards.
pub(crate) struct Cell<T: Send + Sync + 'static> {
    manager: SessionManager<T>,
    /// Set by the one load, however many extractors.
    state: OnceCell<Mutex<State<T>>>,
    /// Held by the commit that is under way.
    turn: AsyncMutex<()>,
    fate: Arc<Fate>,
    /// A load or a commit of this session failed.
    failed: AtomicBool,
}

struct State<T> {
    basis: Arc<Basis>,
    /// Data of the basis that a guard gave back unchanged, for the next one.
    spare: Option<Box<Draft<T>>>,
    /// Changes of guards that were dropped uncommitted. They wait until they can be folded into the basis.
    waiting: VecDeque<Box<Draft<T>>>,
    /// Why changes of dropped guards cannot be committed together.
    refused: Option<SessionError>,
    /// A commit of changes of dropped guards began, and it is not known whether they are stored.
    is_in_doubt: bool,
    /// The layer has committed this session.
    is_over: bool,
    /// The session was read, so that its response depends on it.
    is_read: bool,
    /// A `SessionCommit` was made for the latest outcome.
    is_promised: bool,
    is_delivered: bool,
    /// A token went into a response already, and may have to come out of it again.
    is_sent: bool,
}

impl<T> State<T> {
    fn set_basis(&mut self, basis: Basis) {
        self.basis = Arc::new(basis);
        self.spare = None;
    }
}

impl Registry {
    /// Returns the cell of a manager's session, made by whoever comes first.
    pub(crate) fn cell<T: Send + Sync + 'static>(
        &self,
        manager: &SessionManager<T>,
    ) -> Result<Arc<Cell<T>>, SessionError> {
        let mut cells = lock(&self.cells);
        for cell in cells.iter() {
            if let Ok(cell) = cell.clone().into_any().downcast::<Cell<T>>()
                && cell.core().is_same(&manager.core)
            {
                return Ok(cell);
            }
            let carrier = &manager.core.carrier;
            if cell.core().carrier.clashes_with(carrier) {
                return Err(SessionError::DuplicateName { carrier: carrier.describe() });
            }
        }
        let cell = Arc::new(Cell::new(manager.clone(), self.fate.clone()));
        cells.push(cell.clone());
        Ok(cell)
    }
}

impl<T: Send + Sync + 'static> Cell<T> {
    pub(crate) fn new(manager: SessionManager<T>, fate: Arc<Fate>) -> Self {
        Self {
            manager,
            state: OnceCell::new(),
            turn: AsyncMutex::new(()),
            fate,
            failed: AtomicBool::new(false),
        }
    }

    pub(crate) fn manager(&self) -> &SessionManager<T> {
        &self.manager
    }

    /// Loads the session, once in a request, and hands its data out.
    pub(crate) async fn hand_out(&self, parts: &Parts) -> Result<Box<Draft<T>>, SessionError> {
        let state = self.open(parts).await?;
        let (basis, spare) = {
            let mut state = lock(state);
            // A commit under way, which was begun before, does not know of this end yet.
            if state.waiting.iter().any(|draft| draft.intents.destroy) {
                (Arc::new(state.basis.with_ending()), None)
            } else {
                (state.basis.clone(), state.spare.take())
            }
        };
        spare.map_or_else(|| self.manager.draft_of(basis), Ok)
    }

    async fn open(&self, parts: &Parts) -> Result<&Mutex<State<T>>, SessionError> {
        let load = async || {
            let draft = self.manager.open(parts, RequestSessions::without_registry).await?;
            Ok(Mutex::new(State {
                basis: draft.basis.clone(),
                spare: Some(draft),
                waiting: VecDeque::new(),
                refused: None,
                is_in_doubt: false,
                is_over: false,
                is_read: false,
                is_promised: false,
                is_delivered: false,
                is_sent: false,
            }))
        };
        self.state.get_or_try_init(load).await.inspect_err(|_| self.fail())
    }

    /// Locks the state; `None` if the session was never opened, so that no guard of it exists.
    fn state(&self) -> Option<MutexGuard<'_, State<T>>> {
        self.state.get().map(lock)
    }

    fn basis(&self) -> Result<Arc<Basis>, SessionError> {
        self.state().map(|state| state.basis.clone()).ok_or(SessionError::Closed)
    }

    /// Commits a guard's draft.
    pub(crate) async fn commit(&self, draft: Box<Draft<T>>) -> Result<(), SessionError> {
        if !draft.is_touched() && self.manager.rests(&draft.basis) {
            self.give_back(draft);
            return Ok(());
        }
        self.commit_in_turn(draft).await.inspect_err(|_| self.fail())
    }

    /// Notes that the response is an error of this session.
    fn fail(&self) {
        self.fate.set(Fate::FAILED);
        self.failed.store(true, Ordering::Relaxed);
    }

    async fn commit_in_turn(&self, mut draft: Box<Draft<T>>) -> Result<(), SessionError> {
        let is_changed = draft.intents.any() || self.manager.change(&mut draft)?.is_some();
        if !is_changed && (self.fate.is(Fate::CLOSED) || self.is_stale(&draft)?) {
            return Ok(());
        }
        let Some(_turn) = self.turn(is_changed).await? else {
            return Ok(());
        };
        self.fold_waiting();
        if !is_changed && self.is_stale(&draft)? {
            return Ok(());
        }
        self.manager.rebase(&self.basis()?, &mut draft)?;
        self.commit_onto(draft).await?;
        self.fold_waiting();
        Ok(())
    }

    /// Returns `true` if another commit came after the draft was handed out.
    fn is_stale(&self, draft: &Draft<T>) -> Result<bool, SessionError> {
        Ok(!Arc::ptr_eq(&draft.basis, &self.basis()?))
    }

    /// Commits a draft of the current basis; the caller has the turn.
    ///
    /// Boxed, so that the handler's future stays small and this is compiled once for each type.
    fn commit_onto(&self, mut draft: Box<Draft<T>>) -> CommitFuture<'_> {
        Box::pin(async move {
            self.set_in_doubt(draft.basis.uncommitted.is_some());
            let committed = self.manager.commit(&mut draft).await;
            match committed {
                Err(SessionError::Store(_)) => self.forget_doubtful(),
                _ => self.set_in_doubt(false),
            }
            self.finish(committed?)
        })
    }

    fn set_in_doubt(&self, is_in_doubt: bool) {
        if let Some(mut state) = self.state() {
            state.is_in_doubt = is_in_doubt;
        }
    }

    /// Waits until no other commit of this session is under way, as long as a write waits for other
    /// requests. An unchanged guard does not wait.
    async fn turn(&self, is_changed: bool) -> Result<Option<Turn<'_, ()>>, SessionError> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) if !is_changed => return Ok(None),
            Err(_) => {
                let wait = Box::pin(tokio::time::timeout(CONTENTION, self.turn.lock()));
                wait.await.map_err(|_| SessionError::Conflict)?
            }
        };
        if self.fate.is(Fate::CLOSING) { Err(SessionError::Closed) } else { Ok(Some(turn)) }
    }

    /// Makes what a commit came to the current basis; the caller has the turn.
    fn finish(&self, committed: Option<Basis>) -> Result<(), SessionError> {
        let Some(mut state) = self.state().filter(|_| !self.fate.is(Fate::CLOSED)) else {
            return Err(SessionError::Closed);
        };
        if let Some(committed) = committed {
            state.set_basis(committed);
            (state.is_promised, state.is_delivered) = (false, false);
        }
        Ok(())
    }

    /// Keeps unchanged data for the next guard.
    fn give_back(&self, draft: Box<Draft<T>>) {
        if let Some(mut state) = self.state()
            && Arc::ptr_eq(&state.basis, &draft.basis)
        {
            state.spare = Some(draft);
        }
    }

    /// Notes that a `SessionCommit` was made for the latest outcome.
    pub(crate) fn promise(&self) {
        if let Some(mut state) = self.state() {
            (state.is_promised, state.is_read) = (true, false);
        }
    }

    fn warn(&self, mistake: Mistake, basis: &Basis) {
        self.manager.core.warn(mistake, Some(&basis.incoming.route), None);
    }

    /// Changes the stored session now; `basis` is what the guard was handed out of.
    pub(crate) async fn update<R>(
        &self,
        basis: &Basis,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<(Box<Draft<T>>, R), SessionError> {
        let _turn = self.turn(true).await?;
        self.fold_waiting();
        let mut current = self.basis()?;
        if !self.manager.rests(&current) {
            self.commit_onto(self.manager.draft_of(current)?).await?;
            current = self.basis()?;
        }
        let live = current.live().filter(|_| current.identity == basis.identity);
        let live = live.ok_or_else(|| self.manager.core.gone(None))?;
        let (result, data, next) = self.manager.update_live(&current, live, change).await?;
        self.finish(next)?;
        Ok((Box::new(Draft::new(self.basis()?, data)), result))
    }
}

impl<T: Send + Sync + 'static> AnyCell for Cell<T> {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn core(&self) -> &Core {
        &self.manager.core
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn id(&self) -> Option<SessionId> {
        self.basis().ok()?.live().map(|live| live.id.clone())
    }

    fn commit_left(&self, wanted: bool) -> CommitFuture<'_> {
        Box::pin(self.commit_what_is_left(wanted))
    }

    fn poison_if_panicking(&self) {
        self.fate.poison_if_panicking();
    }

    fn deliver(&self, headers: &mut HeaderMap) {
        let (told, is_sent) = self.state().map_or((None, false), |mut state| {
            state.is_delivered = true;
            state.is_sent |= state.basis.told.is_some();
            (state.basis.told.clone(), state.is_sent)
        });
        let carrier = &self.manager.core.carrier;
        if is_sent {
            carrier.put(told, headers);
        }
        carrier.mark(headers);
    }
}

impl<T: Send + Sync + 'static> Drop for Cell<T> {
    /// Warns of a guard that was not returned, and of a session that was read without one.
    fn drop(&mut self) {
        let Some(state) = self.state.get_mut() else {
            return;
        };
        let state = state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.fate.excuses() || state.is_delivered {
            return;
        }
        let (is_read, is_promised, basis) = (state.is_read, state.is_promised, state.basis.clone());
        if is_promised {
            self.warn(Mistake::DroppedGuard, &basis);
        } else if is_read && !self.fate.is(Fate::LAYERED) {
            self.warn(Mistake::ReadWithoutGuard, &basis);
        }
    }
}
