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

/// A store that wraps another store, and fails, hangs or waits when a test says so. It also counts its calls.
///
/// Clones share the wrapped store, the faults and the counts. A test keeps one clone and gives another to the
/// manager. The store never sleeps, so the test decides what happens when.
///
/// # Example
///
/// ```
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use axum_typed_session::testing::{Fault, FaultyStore, Operation};
/// use axum_typed_session::{MemoryStore, SessionManager};
///
/// let store = FaultyStore::new(MemoryStore::new());
/// let sessions = SessionManager::<Visits>::builder().store(store.clone()).build()?;
///
/// store.inject_next(1, Operation::Load, Fault::Fail); // The next load fails: a 503.
/// store.inject(Operation::all(), Fault::Hang);        // After it, the store hangs.
/// store.heal();                                       // The store works again.
/// assert_eq!(store.calls(Operation::Save), 0);
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[doc(alias("mock", "fault injection", "failing store", "chaos"))]
pub struct FaultyStore<S> {
    store: Arc<S>,
    control: Arc<Mutex<Control>>,
}

/// A method of [`SessionStore`], for the faults and the counts of a [`FaultyStore`].
///
/// A parameter of type `impl IntoIterator<Item = Operation>` takes a single operation, an array, or
/// [`Operation::all`]. [`FaultyStore`] shows an example.
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
    /// [`SessionStore::delete_expired`] and [`SessionStore::take_expired`].
    DeleteExpired,
    /// [`SessionStore::list`].
    List,
    /// [`SessionStore::find_by_owner`].
    FindByOwner,
    /// [`SessionStore::destroy_by_owner`].
    DestroyByOwner,
}

impl Operation {
    /// Returns all operations. [`FaultyStore`] shows an example.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Load,
            Self::Save,
            Self::Touch,
            Self::Destroy,
            Self::DeleteExpired,
            Self::List,
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
            "delete_expired" | "take_expired" => Self::DeleteExpired,
            "list" => Self::List,
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

/// The fault of a call to a [`FaultyStore`], for [`inject`](FaultyStore::inject) and
/// [`inject_next`](FaultyStore::inject_next).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// No fault. Plan it to let some calls work before another fault.
    Pass,
    /// The call fails with [`StoreError::Unavailable`]. The wrapped store is not called.
    Fail,
    /// The call never returns. The wrapped store is not called.
    Hang,
    /// The wrapped store does the call, and then the call fails with [`StoreError::Unavailable`]. The caller cannot
    /// know whether the write took effect.
    LoseAnswer,
    /// The call waits at the gate, and then the wrapped store does the call.
    Pause(Gate),
    /// The wrapped store does the call, and its answer waits at the gate. If the gate never opens, a write takes
    /// effect and its caller gets a time-out.
    HoldAnswer(Gate),
}

/// A gate at which calls wait until a test opens it. Clones are the same gate.
///
/// # Example
///
/// ```
/// # use axum_typed_session::{MemoryStore, SessionStore, StoreKey};
/// use axum_typed_session::testing::{Fault, FaultyStore, Gate, Operation};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let (store, key) = (FaultyStore::new(MemoryStore::new()), StoreKey::from_bytes([7; 32]));
/// let gate = Gate::new();
/// store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
///
/// let sign_out = async { store.destroy(&key).await };
/// let test = async {
///     gate.reached(1).await; // The destroy waits at the gate.
///     gate.open();
/// };
/// let (destroyed, ()) = tokio::join!(sign_out, test);
/// assert!(destroyed.is_ok());
/// # }
/// ```
#[doc(alias("barrier", "latch", "race"))]
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

    /// Waits until this many calls have reached the gate since it was made. Calls that already passed count too.
    ///
    /// See the example of [`Gate`].
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. The gate stays as it is.
    pub async fn reached(&self, calls: usize) {
        self.wait_until(|state| state.reached >= calls).await;
    }

    /// Opens the gate for all calls that wait and for all later calls. See the example of [`Gate`].
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits at the gate until it opens. A handler under test can call it to stop at a point.
    ///
    /// # Cancellation
    ///
    /// If you drop the future, its call still counts as one that reached the gate.
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

/// The faults of the calls of one operation.
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
    /// Wraps a store. No fault is set.
    pub fn new(store: S) -> Self {
        Self { store: Arc::new(store), control: Arc::default() }
    }

    /// Sets the fault of every call of these operations, until another `inject` or [`heal`](Self::heal) replaces
    /// it.
    ///
    /// Calls that [`inject_next`](Self::inject_next) planned come first. See the example of [`FaultyStore`].
    #[allow(clippy::needless_pass_by_value, reason = "a fault is made where it is injected")]
    pub fn inject(&self, operations: impl IntoIterator<Item = Operation>, fault: Fault) {
        let mut control = self.control();
        for operation in operations {
            control.plans.entry(operation).or_default().afterwards = Some(fault.clone());
        }
    }

    /// Plans the fault of the next `calls` calls of each of these operations, after the calls already planned.
    ///
    /// To fail the second save, plan one [`Fault::Pass`] and one [`Fault::Fail`]. See the example of
    /// [`FaultyStore`].
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

    /// Removes all faults, planned or lasting. Calls that already hang or wait are not released.
    pub fn heal(&self) {
        self.control().plans.clear();
    }

    /// Returns how many calls of these operations have arrived, whether they were answered or not.
    pub fn calls(&self, operations: impl IntoIterator<Item = Operation>) -> usize {
        let control = self.control();
        let calls = |operation| control.calls.get(&operation).copied();
        operations.into_iter().filter_map(calls).sum()
    }

    /// Sets the counts of all operations to zero.
    pub fn reset_calls(&self) {
        self.control().calls.clear();
    }

    /// Returns the wrapped store. Calls of it meet no fault and are not counted.
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

/// The source of the error of an injected fault.
#[derive(Debug)]
struct Injected(Operation);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a test made {:?} fail", self.0)
    }
}

impl Error for Injected {}
