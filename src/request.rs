//! A request's sessions: one cell for each, and the registry of them all.

use std::{
    any::Any,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Extensions, HeaderMap, request::Parts};
use tokio::sync::OnceCell;

use crate::{
    decision::Origin,
    error::{SessionError, SessionRejection},
    id::SessionId,
    manager::{Basis, Committed, Draft, Effect, SessionManager},
    transport::{Carrier, Delivery},
};

/// The registry as it sits in a request's extensions.
///
/// Dropping it, a session or its guard while the thread panics means that the handler did: what it left
/// half done is then never committed, even where a catch-panic layer turns the panic into a response.
#[derive(Clone)]
pub(crate) struct RequestSessions(Arc<Registry>);

/// All sessions of one request.
#[derive(Default)]
pub(crate) struct Registry {
    cells: Mutex<Vec<Arc<dyn AnyCell>>>,
    fate: Arc<Fate>,
}

/// What happened to the request as a whole.
#[derive(Default)]
struct Fate {
    /// An `AutoCommitLayer` will commit what handlers leave.
    layered: AtomicBool,
    /// A handler panicked.
    poisoned: AtomicBool,
    /// The response is on its way.
    closed: AtomicBool,
}

impl Fate {
    fn poison_if_panicking(&self) {
        if std::thread::panicking() {
            self.poisoned.store(true, Ordering::Release);
        }
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Acquire)
    }

    /// Says whether the request came to no end of its own: a handler panicked, or it was dropped before
    /// the layer was through, as when its client went away.
    fn is_cut_off(&self) -> bool {
        self.is_poisoned() || (self.is_layered() && !self.closed.load(Ordering::Acquire))
    }
}

impl Drop for RequestSessions {
    fn drop(&mut self) {
        self.0.fate.poison_if_panicking();
    }
}

impl RequestSessions {
    /// Returns the request's registry, made by whoever comes first.
    pub(crate) fn of(extensions: &mut Extensions) -> &Registry {
        let sessions = extensions.get_or_insert_with(|| Self(Arc::default()));
        &sessions.0
    }

    /// Makes the caller the one who commits; `None` if an outer layer already is.
    pub(crate) fn claim(extensions: &mut Extensions) -> Option<Arc<Registry>> {
        let sessions = extensions.get_or_insert_with(|| Self(Arc::default()));
        let taken = sessions.0.fate.layered.swap(true, Ordering::AcqRel);
        (!taken).then(|| sessions.0.clone())
    }
}

impl Registry {
    /// Returns the cell of a manager's session, made by whoever comes first.
    pub(crate) fn cell<T: Send + Sync + 'static>(
        &self,
        manager: &SessionManager<T>,
    ) -> Result<Arc<Cell<T>>, SessionRejection> {
        let mut cells = lock(&self.cells);
        for cell in cells.iter() {
            if let Ok(cell) = cell.clone().into_any().downcast::<Cell<T>>()
                && cell.manager.is_same(manager)
            {
                return Ok(cell);
            }
            if cell.carrier().clashes_with(manager.carrier()) {
                return Err(SessionRejection::SharedName { carrier: manager.carrier().describe() });
            }
        }
        let cell = Arc::new(Cell::new(manager.clone(), self.fate.clone()));
        cells.push(cell.clone());
        Ok(cell)
    }

    /// Says whether a handler may still have something to commit.
    pub(crate) fn is_used(&self) -> bool {
        !lock(&self.cells).is_empty()
    }

    /// Ends the request without a commit, on purpose.
    pub(crate) fn close(&self) {
        for cell in lock(&self.cells).iter() {
            cell.drop_left();
        }
        self.fate.closed.store(true, Ordering::Release);
    }

    /// Commits what handlers left, unless one panicked, and closes the request.
    pub(crate) async fn commit(&self, wanted: bool) -> Result<(), SessionError> {
        let cells = lock(&self.cells).clone();
        let wanted = wanted && !self.fate.is_poisoned();
        let mut result = Ok(());
        for cell in &cells {
            if wanted {
                let committed = cell.commit_left().await;
                result = result.and(committed);
            } else {
                cell.drop_left();
            }
        }
        self.fate.closed.store(true, Ordering::Release);
        result
    }

    /// Puts what every session's commits came to into the response.
    pub(crate) fn deliver(&self, headers: &mut HeaderMap) {
        for cell in lock(&self.cells).iter() {
            cell.deliver(headers);
        }
    }
}

/// A cell whose type is forgotten.
pub(crate) trait AnyCell: Send + Sync {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    fn carrier(&self) -> &Carrier;
    /// The session's id as of the latest commit; `None` if it has none.
    fn id(&self) -> Option<SessionId>;
    /// Commits the draft that a dropped guard left.
    fn commit_left(&self) -> CommitLeft<'_>;
    /// Forgets the draft that a dropped guard left, on purpose.
    fn drop_left(&self);
    /// Notes a panic that drops what belongs to this cell.
    fn poison_if_panicking(&self);
    /// Puts the latest outcome into a response, and that the response depends on the session.
    fn deliver(&self, headers: &mut HeaderMap);
}

type CommitLeft<'a> = Pin<Box<dyn Future<Output = Result<(), SessionError>> + Send + 'a>>;

/// One session of one request, which all its guards share.
pub(crate) struct Cell<T: Send + Sync + 'static> {
    manager: SessionManager<T>,
    /// Set by the one load, however many extractors.
    state: OnceCell<Mutex<State<T>>>,
    fate: Arc<Fate>,
}

struct State<T> {
    basis: Arc<Basis>,
    /// Moves whenever guards handed out before could undo a change made since.
    generation: u64,
    /// Counts the commits that began with changes; only the last of them speaks for the response.
    commits: u64,
    /// How many of those commits are under way.
    under_way: u32,
    /// The generation that a dropped guard's changes began; guards before it know nothing of them.
    drafted: u64,
    /// What a dropped guard left: data for the next guard, or under a layer changes to be committed.
    left: Option<Box<Draft<T>>>,
    /// Two guards left changes that exclude each other.
    overlap: bool,
    response: Response,
}

/// What the commits of a request came to, for its response.
#[derive(Default)]
struct Response {
    delivery: Option<Delivery>,
    /// A token went into a response already, and may have to come out of it again.
    sent: bool,
    /// A `SessionCommit` stands for this delivery.
    promised: bool,
    delivered: bool,
}

impl Response {
    /// Forgets what was to be delivered, and who promised to.
    fn replace(&mut self, delivery: Option<Delivery>) {
        *self = Self { delivery, sent: self.sent, ..Self::default() };
    }
}

/// A commit under way, which is over once this is dropped, however it ended.
pub(crate) struct Turn<'a, T: Send + Sync + 'static> {
    cell: &'a Cell<T>,
    pub(crate) basis: Arc<Basis>,
    dirty: bool,
    generation: u64,
    commits: u64,
}

impl<T: Send + Sync + 'static> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.dirty
            && let Some(mut state) = self.cell.state()
        {
            state.under_way -= 1;
        }
    }
}

/// What a new guard starts with.
pub(crate) struct Handout<T> {
    pub(crate) basis: Arc<Basis>,
    pub(crate) generation: u64,
    /// Boxed, since a session is moved often.
    pub(crate) draft: Box<Draft<T>>,
}

impl<T: Send + Sync + 'static> Cell<T> {
    fn new(manager: SessionManager<T>, fate: Arc<Fate>) -> Self {
        Self { manager, state: OnceCell::new(), fate }
    }

    pub(crate) fn manager(&self) -> &SessionManager<T> {
        &self.manager
    }

    /// Loads the session, once in a request, and hands its data out.
    pub(crate) async fn hand_out(&self, parts: &Parts) -> Result<Handout<T>, SessionRejection> {
        self.hand_out_of(self.open(parts).await?)
    }

    /// Hands the data out if the request has a valid session, as far as is known now.
    pub(crate) async fn hand_out_if_loaded(
        &self,
        parts: &Parts,
    ) -> Result<Option<Handout<T>>, SessionRejection> {
        let state = self.open(parts).await?;
        if lock(state).basis.origin == Origin::Loaded {
            self.hand_out_of(state).map(Some)
        } else {
            Ok(None)
        }
    }

    async fn open(&self, parts: &Parts) -> Result<&Mutex<State<T>>, SessionRejection> {
        let load = async || {
            let kept_parts = self.manager.keeps_parts().then(|| without_registry(parts));
            // A handler's future holds this one, and past a kilobyte allocators leave their fast path.
            let (basis, draft) = Box::pin(self.manager.open(parts, kept_parts)).await?;
            Ok(Mutex::new(State {
                basis: Arc::new(basis),
                generation: 0,
                commits: 0,
                under_way: 0,
                drafted: 0,
                left: Some(draft),
                overlap: false,
                response: Response::default(),
            }))
        };
        self.state.get_or_try_init(load).await
    }

    fn hand_out_of(&self, state: &Mutex<State<T>>) -> Result<Handout<T>, SessionRejection> {
        let (basis, generation, left) = {
            let mut state = lock(state);
            (state.basis.clone(), state.generation, state.left.take())
        };
        let draft = match left {
            Some(draft) => draft,
            None => Box::new(Draft::new(self.manager.data_of(&basis)?)),
        };
        Ok(Handout { basis, generation, draft })
    }

    /// Locks the state; `None` if the session was never opened, so that no guard of it exists.
    fn state(&self) -> Option<MutexGuard<'_, State<T>>> {
        self.state.get().map(lock)
    }

    /// Takes a dropped guard's draft back: clean data serves the next guard, changes wait for the layer if
    /// there is one.
    pub(crate) fn take_back(&self, basis: &Basis, generation: u64, mut draft: Box<Draft<T>>) {
        if self.fate.is_poisoned() {
            return;
        }
        // Encoding is the application's code, so it runs outside the lock.
        let dirty = draft.is_dirty() && self.manager.differs(basis, &mut draft).unwrap_or(true);
        if dirty && !self.fate.is_layered() {
            // Nobody will commit it, so no other guard may: whoever dropped it may have failed.
            self.warn_of_dropped_changes();
            return;
        }
        let Some(mut state) = self.state() else {
            return;
        };
        let current = state.generation == generation;
        if !dirty {
            if current && state.left.is_none() {
                draft.settle();
                state.left = Some(draft);
            }
        } else if current || draft.intents.destroy {
            state.generation += 1;
            state.drafted = state.generation;
            state.left = Some(draft);
        } else {
            state.overlap = true;
        }
    }

    /// Commits a guard's draft; `basis` is what the guard was handed out of.
    pub(crate) async fn commit(
        &self,
        basis: &Basis,
        generation: u64,
        mut draft: Box<Draft<T>>,
    ) -> Result<(), SessionError> {
        let dirty = draft.is_dirty() && self.manager.differs(basis, &mut draft)?;
        if self.is_closed() {
            return if dirty { Err(SessionError::Closed) } else { Ok(()) };
        }
        if !self.is_current(generation) && !draft.intents.destroy {
            return if dirty { Err(SessionError::Overlap) } else { Ok(()) };
        }
        let turn = {
            let Some(mut state) = self.state() else {
                return Ok(());
            };
            if dirty && state.under_way > 0 && !draft.intents.destroy {
                return Err(SessionError::Overlap);
            }
            self.begin(&mut state, dirty)
        };
        // Boxed for the same reason as `open`.
        let committed = Box::pin(self.manager.commit(&turn.basis, &mut draft)).await?;
        self.finish(&turn, committed);
        Ok(())
    }

    /// Claims the cell for a commit.
    fn begin(&self, state: &mut State<T>, dirty: bool) -> Turn<'_, T> {
        if dirty {
            state.commits += 1;
            state.under_way += 1;
            state.left = None;
        }
        Turn {
            cell: self,
            basis: state.basis.clone(),
            dirty,
            generation: state.generation,
            commits: state.commits,
        }
    }

    /// Notes what a commit came to. One that failed never gets here and has moved nothing, so that other
    /// guards can go on.
    fn finish(&self, turn: &Turn<'_, T>, committed: Committed) {
        let Some(mut state) = self.state() else {
            return;
        };
        let superseded =
            state.commits != turn.commits || (!turn.dirty && state.generation != turn.generation);
        if superseded {
            return;
        }
        if turn.dirty {
            // All guards handed out before this moment started from what was before the commit.
            state.generation += 1;
            state.drafted = 0;
            state.overlap |= state.left.take().is_some_and(|left| left.is_dirty());
        }
        if let Some(basis) = committed.basis {
            state.basis = Arc::new(basis);
        }
        match committed.effect {
            Effect::None => {}
            Effect::Send(delivery) => state.response.replace(Some(delivery)),
            Effect::Retract => state.response.replace(None),
        }
    }

    /// Claims the cell for an `update`, which starts from the latest that was committed; `generation` is
    /// that of its guard.
    pub(crate) fn begin_update(&self, generation: u64) -> Result<Turn<'_, T>, SessionError> {
        let Some(mut state) = self.state().filter(|_| !self.is_closed()) else {
            return Err(SessionError::Closed);
        };
        if state.under_way > 0 || generation < state.drafted {
            return Err(SessionError::Overlap);
        }
        Ok(self.begin(&mut state, true))
    }

    /// Ends an `update`; returns what its guard goes on with.
    pub(crate) fn finish_update(
        &self,
        turn: &Turn<'_, T>,
        committed: Committed,
    ) -> Option<(Arc<Basis>, u64)> {
        self.finish(turn, committed);
        let state = self.state()?;
        Some((state.basis.clone(), state.generation))
    }

    fn is_current(&self, generation: u64) -> bool {
        self.state().is_some_and(|state| state.generation == generation)
    }

    fn warn_of_dropped_changes(&self) {
        if self.manager.warned().dirty_first_time() {
            tracing::warn!(
                session = std::any::type_name::<T>(),
                "changes to a session were dropped: call `session.commit().await`, add \
                 `AutoCommitLayer`, or say `session.discard()`"
            );
        }
    }

    fn is_closed(&self) -> bool {
        self.fate.closed.load(Ordering::Acquire)
    }

    /// Notes that a `SessionCommit` was made for the latest outcome.
    pub(crate) fn promise(&self) {
        if let Some(mut state) = self.state() {
            state.response.promised = state.response.delivery.is_some() || state.response.sent;
        }
    }
}

impl<T: Send + Sync + 'static> AnyCell for Cell<T> {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn carrier(&self) -> &Carrier {
        self.manager.carrier()
    }

    fn id(&self) -> Option<SessionId> {
        let basis = self.state()?.basis.clone();
        basis.live.as_ref().map(|live| live.id.clone())
    }

    fn commit_left(&self) -> CommitLeft<'_> {
        Box::pin(async move {
            let (left, basis, generation) = {
                let Some(mut state) = self.state() else {
                    return Ok(());
                };
                if std::mem::take(&mut state.overlap) {
                    state.left = None;
                    return Err(SessionError::Overlap);
                }
                (state.left.take(), state.basis.clone(), state.generation)
            };
            match left {
                Some(draft) => self.commit(&basis, generation, draft).await,
                None => Ok(()),
            }
        })
    }

    fn drop_left(&self) {
        if let Some(mut state) = self.state() {
            state.left = None;
            state.overlap = false;
        }
    }

    fn poison_if_panicking(&self) {
        self.fate.poison_if_panicking();
    }

    fn deliver(&self, headers: &mut HeaderMap) {
        let (delivery, sent) = self.state().map_or((None, false), |mut state| {
            let response = &mut state.response;
            response.delivered = true;
            response.sent |= response.delivery.is_some();
            (response.delivery.clone(), response.sent)
        });
        let carrier = self.manager.carrier();
        match delivery {
            Some(delivery) => delivery.apply(headers),
            None if sent => carrier.retract(headers),
            None => {}
        }
        carrier.vary(headers);
    }
}

impl<T: Send + Sync + 'static> Drop for Cell<T> {
    /// The request is over: what nobody committed or sent is lost, which is worth a word.
    fn drop(&mut self) {
        let Some(state) = self.state.get_mut() else {
            return;
        };
        let state = state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let dirty = state.overlap || state.left.as_ref().is_some_and(|left| left.is_dirty());
        let lost = state.response.promised && !state.response.delivered;
        if self.fate.is_cut_off() {
            return;
        }
        if dirty {
            self.warn_of_dropped_changes();
        }
        if lost && self.manager.warned().lost_first_time() {
            tracing::warn!(
                session = std::any::type_name::<T>(),
                "a `SessionCommit` was dropped, so the client was not told: return it with the \
                 response, as in `Ok((session.commit().await?, body))`"
            );
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").finish_non_exhaustive()
    }
}

/// A copy for the cell to keep, which is in the registry, which must not hold itself.
fn without_registry(parts: &Parts) -> Arc<Parts> {
    let mut parts = parts.clone();
    parts.extensions.remove::<RequestSessions>();
    Arc::new(parts)
}

/// No code of the application runs under these locks, so a poisoned one is as good as new.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
