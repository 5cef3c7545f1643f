use std::{
    array,
    collections::{HashMap, VecDeque},
    error::Error,
    fmt,
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    error::StoreError,
    store::{SessionStore, delegate_session_store},
};

/// A store around another that fails, hangs or waits when it is told to, and counts its calls.
///
/// Clones share the store, the faults and the counts, so a test keeps one and gives one to the manager.
/// Nothing in it sleeps: a test decides what happens when.
///
/// # Example
///
/// ```
/// use axum_typed_session::{MemoryStore, SessionManager, testing::{Fault, FaultyStore, Operation}};
///
/// let store = FaultyStore::new(MemoryStore::new());
/// let sessions = SessionManager::<u32>::builder().store(store.clone()).build()?;
///
/// store.inject_next(1, Operation::Load, Fault::Fail);      // one request is a 503
/// store.inject(Operation::all(), Fault::Hang);             // then the store is down
/// store.heal();                                            // and up again
/// assert_eq!(store.calls(Operation::Save), 0);
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
pub struct FaultyStore<S> {
    store: Arc<S>,
    control: Arc<Mutex<Control>>,
}

/// A method of [`SessionStore`] that a [`FaultyStore`] disturbs and counts.
///
/// Wherever several can be meant, one alone, an array or [`all`](Self::all) will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`SessionStore::load`].
    Load,
    /// [`SessionStore::save`].
    Save,
    /// [`SessionStore::touch`].
    Touch,
    /// [`SessionStore::destroy`] and [`SessionStore::destroy_at`].
    Destroy,
    /// [`SessionStore::delete_expired`].
    DeleteExpired,
    /// [`SessionStore::find_by_owner`].
    FindByOwner,
    /// [`SessionStore::destroy_by_owner`].
    DestroyByOwner,
}

impl Operation {
    /// Returns every operation there is.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Load,
            Self::Save,
            Self::Touch,
            Self::Destroy,
            Self::DeleteExpired,
            Self::FindByOwner,
            Self::DestroyByOwner,
        ]
        .into_iter()
    }

    /// Returns the operation of a method of [`SessionStore`].
    fn of(method: &str) -> Self {
        match method {
            "load" => Self::Load,
            "save" => Self::Save,
            "touch" => Self::Touch,
            "destroy" | "destroy_at" => Self::Destroy,
            "delete_expired" => Self::DeleteExpired,
            "find_by_owner" => Self::FindByOwner,
            _ => Self::DestroyByOwner,
        }
    }
}

impl IntoIterator for Operation {
    type Item = Self;
    type IntoIter = array::IntoIter<Self, 1>;

    fn into_iter(self) -> Self::IntoIter {
        [self].into_iter()
    }
}

/// What happens to a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing, so that a later call is the one disturbed.
    Pass,
    /// [`StoreError::Unavailable`], without asking the store.
    Fail,
    /// No answer ever, without asking the store.
    Hang,
    /// The store is asked, and the answer is [`StoreError::Unavailable`] all the same: an outcome that
    /// the caller cannot know.
    LoseAnswer,
    /// The call waits at the gate, and then asks the store.
    Pause(Gate),
    /// The store is asked, and its answer waits at the gate. One that never opens is a write that
    /// arrived and timed out.
    HoldAnswer(Gate),
}

/// Where calls wait until a test lets them go on; clones are the same gate.
///
/// # Example
///
/// ```
/// # use axum_typed_session::{MemoryStore, SessionStore, StoreKey};
/// use axum_typed_session::testing::{Fault, FaultyStore, Gate, Operation};
///
/// # #[tokio::main]
/// # async fn main() {
/// # let (store, key) = (FaultyStore::new(MemoryStore::new()), StoreKey::from_bytes([7; 32]));
/// let gate = Gate::new();
/// store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
/// let logout = tokio::spawn({ let store = store.clone(); async move { store.destroy(&key).await } });
/// gate.reached(1).await;          // the logout stands at the store's door
/// gate.open();
/// assert!(logout.await.unwrap().is_ok());
/// # }
/// ```
#[derive(Clone)]
pub struct Gate(watch::Sender<GateState>);

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    reached: usize,
    open: bool,
}

impl Gate {
    /// Makes a closed gate.
    pub fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// Waits until so many calls have come to the gate since it was made, those let through included.
    pub async fn reached(&self, calls: usize) {
        self.wait_until(|state| state.reached >= calls).await;
    }

    /// Lets through whoever waits, and everyone who comes later.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits at the gate until it opens; for a handler that a test wants to stand still.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.reached += 1);
        self.wait_until(|state| state.open).await;
    }

    async fn wait_until(&self, wanted: impl FnMut(&GateState) -> bool) {
        // An error would mean that no sender is left, and this is one.
        let _ = self.0.subscribe().wait_for(wanted).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GateState { reached, open } = *self.0.borrow();
        f.debug_struct("Gate").field("reached", &reached).field("open", &open).finish()
    }
}

#[derive(Default)]
struct Control {
    plans: HashMap<Operation, Plan>,
    calls: HashMap<Operation, usize>,
}

/// What is to happen to the calls of one operation.
#[derive(Default)]
struct Plan {
    next: VecDeque<Fault>,
    afterwards: Option<Fault>,
}

impl Control {
    fn arrive(&mut self, operation: Operation) -> Fault {
        *self.calls.entry(operation).or_default() += 1;
        let plan = self.plans.entry(operation).or_default();
        let fault = plan.next.pop_front().or_else(|| plan.afterwards.clone());
        fault.unwrap_or(Fault::Pass)
    }
}

impl<S> FaultyStore<S> {
    /// Wraps a store, with no fault yet.
    pub fn new(store: S) -> Self {
        Self { store: Arc::new(store), control: Arc::default() }
    }

    /// Disturbs every call of these operations until another fault or [`heal`](Self::heal) replaces it.
    ///
    /// Calls that [`inject_next`](Self::inject_next) has planned come first.
    #[allow(clippy::needless_pass_by_value, reason = "a fault is made where it is injected")]
    pub fn inject(&self, operations: impl IntoIterator<Item = Operation>, fault: Fault) {
        let mut control = self.control();
        for operation in operations {
            control.plans.entry(operation).or_default().afterwards = Some(fault.clone());
        }
    }

    /// Disturbs the next so many calls of each of these operations, after those already planned.
    ///
    /// [`Fault::Pass`] leaves calls alone: to fail the second save, plan one `Pass` and one `Fail`.
    #[allow(clippy::needless_pass_by_value, reason = "a fault is made where it is injected")]
    pub fn inject_next(
        &self,
        calls: usize,
        operations: impl IntoIterator<Item = Operation>,
        fault: Fault,
    ) {
        let mut control = self.control();
        for operation in operations {
            let plan = control.plans.entry(operation).or_default();
            plan.next.extend((0..calls).map(|_| fault.clone()));
        }
    }

    /// Forgets every fault, planned or lasting. Calls that already hang or wait stay where they are.
    pub fn heal(&self) {
        self.control().plans.clear();
    }

    /// Returns how many calls of these operations have come in, answered or not.
    pub fn calls(&self, operations: impl IntoIterator<Item = Operation>) -> usize {
        let control = self.control();
        let calls = |operation| control.calls.get(&operation).copied();
        operations.into_iter().filter_map(calls).sum()
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        self.control().calls.clear();
    }

    /// Returns the wrapped store, undisturbed and uncounted.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn disturb<R>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let fault = self.control().arrive(operation);
        match fault {
            Fault::Pass => call.await,
            Fault::Fail => Err(StoreError::unavailable(Injected(operation))),
            Fault::Hang => pending().await,
            Fault::LoseAnswer => match call.await {
                Ok(_lost) => Err(StoreError::unavailable(Injected(operation))),
                Err(error) => Err(error),
            },
            Fault::Pause(gate) => {
                gate.pass().await;
                call.await
            }
            Fault::HoldAnswer(gate) => {
                let answer = call.await;
                gate.pass().await;
                answer
            }
        }
    }
}

impl<S: SessionStore> SessionStore for FaultyStore<S> {
    delegate_session_store!(all => self.store, async |method, call| {
        self.disturb(Operation::of(method), call).await
    });
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), control: self.control.clone() }
    }
}

impl<S> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("calls", &self.control().calls).finish_non_exhaustive()
    }
}

/// What a disturbed call fails with.
#[derive(Debug)]
struct Injected(Operation);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a test made {:?} fail", self.0)
    }
}

impl Error for Injected {}
