//! The registry of a request's sessions, which the layer commits.

mod cell;

use std::{
    iter::successors,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use axum::response::Response;
use http::{Extensions, HeaderMap, request::Parts};

pub(crate) use self::cell::Cell;
use self::cell::Slot;
use crate::{
    error::{Failed, Result, SessionError},
    manager::Core,
};

/// The registry as it sits in a request's extensions.
///
/// If it, a session or its guard is dropped while the thread panics, the handler has panicked. Its unfinished changes
/// are then never committed, even if a catch-panic layer turns the panic into a response.
///
/// `tower::retry` copies the request before each call, so that it can call again, and a call consumes its request. So a
/// copy begins another attempt if it is copied again before it is used, and the request that it was made from is gone.
/// Every other copy has another purpose, such as a log.
#[derive(Default)]
pub(crate) struct RequestSessions {
    registry: Arc<Registry>,
    /// The number of a copy that was not used yet, which copies of it share, and the life of its original.
    copy: Option<(u32, Weak<()>)>,
    /// Lives as long as this request, and is made with its first copy.
    life: OnceLock<Arc<()>>,
}

/// All sessions of one request, in one allocation for a request of one session.
#[derive(Default)]
pub(crate) struct Registry {
    fate: Fate,
    /// The first session, which holds the next one. None is ever taken out.
    first: OnceLock<Slot>,
    adding: Mutex<()>,
}

/// The state of a request as a whole: flags, and the manager whose error came last. Only a retry resets them.
#[derive(Default)]
pub(crate) struct Fate {
    flags: AtomicU8,
    /// How many copies of the request were made.
    copies: AtomicU32,
    failed: Mutex<Option<Core>>,
}

impl Fate {
    /// An `AutoCommitLayer` will commit the uncommitted changes.
    pub(crate) const LAYERED: u8 = 1;
    /// A handler panicked.
    pub(crate) const POISONED: u8 = 2;
    /// A commit failed, so the response is an error.
    pub(crate) const FAILED: u8 = 4;
    /// The layer commits, so that no other commit may begin.
    pub(crate) const CLOSING: u8 = 8;
    /// The response is made.
    pub(crate) const CLOSED: u8 = 16;

    /// Sets a flag. Returns `true` if it was set before.
    pub(crate) fn set(&self, flag: u8) -> bool {
        self.flags.fetch_or(flag, Ordering::AcqRel) & flag != 0
    }

    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    pub(crate) fn copies(&self) -> u32 {
        self.copies.load(Ordering::Acquire)
    }

    /// Numbers a copy of the request. Returns `None` after a panic: a later attempt does not undo that one.
    fn number_copy(&self) -> Option<u32> {
        (!self.is(Self::POISONED)).then(|| self.copies.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Notes that the response is an error of this manager, unless another error comes later.
    pub(crate) fn fail(&self, core: &Core) {
        self.set(Self::FAILED);
        *lock(&self.failed) = Some(core.clone());
    }

    pub(crate) fn poison_if_panicking(&self) {
        if std::thread::panicking() {
            self.set(Self::POISONED);
        }
    }

    /// Returns `true` if uncommitted changes are not a mistake: a commit failed, a handler panicked, or the
    /// request was dropped before the layer had finished, as when its client went away.
    pub(crate) fn excuses(&self) -> bool {
        self.is(Self::FAILED | Self::POISONED) || (self.is(Self::LAYERED) && !self.is(Self::CLOSED))
    }
}

impl Drop for RequestSessions {
    fn drop(&mut self) {
        self.registry.fate.poison_if_panicking();
    }
}

impl Clone for RequestSessions {
    fn clone(&self) -> Self {
        let (registry, life) = (self.registry.clone(), self.life.get_or_init(Arc::default));
        let number = self.copy.as_ref().map(|(number, _)| *number);
        let number = number.or_else(|| registry.fate.number_copy());
        let copy = number.map(|number| (number, Arc::downgrade(life)));
        Self { registry, copy, life: OnceLock::new() }
    }
}

impl RequestSessions {
    /// Returns the registry of the request. The first call makes it.
    pub(crate) fn of(extensions: &mut Extensions) -> &Arc<Registry> {
        let sessions = extensions.get_or_insert_with(Self::default);
        if let Some((copy, original)) = sessions.copy.take()
            && (sessions.life.get().is_some() && original.strong_count() == 0)
        {
            sessions.registry.forget_since(copy);
        }
        &sessions.registry
    }

    /// Returns the registry of a request that this code cannot change.
    pub(crate) fn seen_in(extensions: &Extensions) -> Arc<Registry> {
        extensions.get::<Self>().map(|sessions| sessions.registry.clone()).unwrap_or_default()
    }

    /// Makes the caller the layer that commits; `None` if an outer layer already commits.
    ///
    /// A retry outside of the layer sends copies of a request whose registry an earlier attempt has closed.
    pub(crate) fn claim(extensions: &mut Extensions) -> Option<Arc<Registry>> {
        let mut registry = Self::of(extensions).clone();
        if registry.fate.is(Fate::CLOSED) {
            extensions.insert(Self::default());
            registry = Self::of(extensions).clone();
        }
        let is_taken = registry.fate.set(Fate::LAYERED);
        (!is_taken).then_some(registry)
    }

    /// Returns a copy of the request for a cell to keep. The registry holds the cell, so the copy must not
    /// hold the registry.
    pub(crate) fn without_registry(parts: &Parts) -> Arc<Parts> {
        let mut parts = parts.clone();
        parts.extensions.remove::<Self>();
        Arc::new(parts)
    }
}

impl Registry {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        successors(self.first.get(), |slot| slot.next.get().map(|next| &**next))
    }

    fn cells(self: &Arc<Self>) -> impl Iterator<Item = Cell> {
        self.slots().enumerate().map(|(place, _)| Cell::new(self.clone(), place))
    }

    /// Returns the cell of a manager's session. The first call makes it.
    pub(crate) fn cell(self: Arc<Self>, core: Core, parts: &Parts) -> Result<Cell> {
        if let Some(place) = self.place_of(&core) {
            return Ok(Cell::new(self, place));
        }
        // The application's code, so it runs outside the lock.
        let own = core.of_request(parts).inspect_err(|_| self.fate.fail(&core))?;
        self.add(own.unwrap_or(core)).map(|place| Cell::new(self, place))
    }

    fn place_of(&self, core: &Core) -> Option<usize> {
        self.slots().position(|slot| slot.core.is_same(core))
    }

    /// Adds the session of a manager, and returns its place.
    fn add(&self, core: Core) -> Result<usize> {
        // Most requests have one session, which needs no lock.
        let Err(slot) = self.first.set(Slot::new(core)) else { return Ok(0) };
        let (_adding, core) = (lock(&self.adding), slot.core);
        if let Some(place) = self.place_of(&core) {
            return Ok(place);
        }
        let carrier = &core.tenant.carrier;
        let clash = self.slots().find_map(|slot| slot.core.tenant.carrier.clash_with(carrier));
        if let Some(carrier) = clash {
            self.fate.fail(&core);
            return Err(SessionError::DuplicateName { carrier: carrier.to_owned() });
        }
        let place = self.slots().count();
        let _ = self.slots().last().map(|last| last.next.set(Box::new(Slot::new(core))));
        Ok(place)
    }

    /// Forgets the uncommitted changes and the errors of attempts since a copy of the request was made.
    fn forget_since(self: &Arc<Self>, copy: u32) {
        self.fate.flags.fetch_and(!Fate::POISONED, Ordering::AcqRel);
        *lock(&self.fate.failed) = None;
        self.cells().for_each(|cell| cell.forget_since(copy));
    }

    /// Closes a request without a commit.
    pub(crate) fn close(&self) {
        self.fate.set(Fate::CLOSING | Fate::CLOSED);
    }

    /// Commits the uncommitted changes, and closes the request, so that no later extraction commits for its response.
    /// If the changes are not `wanted`, only the ends of sessions are committed. After a panic nothing is committed.
    pub(crate) async fn commit(self: &Arc<Self>, wanted: bool) -> Result<()> {
        let mut result = Ok(());
        self.fate.set(Fate::CLOSING);
        if !self.fate.is(Fate::POISONED) {
            for cell in self.cells() {
                result = result.and(cell.commit_what_is_left(wanted).await);
            }
        }
        self.close();
        result
    }

    /// Renders the error that became a response, as its manager asks.
    pub(crate) fn render(&self, response: &mut Response) {
        let Some(Failed(error)) = response.extensions().get::<Failed>() else { return };
        let first = || self.first.get().map(|slot| slot.core.clone());
        let failed = lock(&self.fate.failed).clone().or_else(first);
        if let Some(core) = &failed
            && let Some(respond) = &core.error_response
        {
            let mut rendered = respond(error);
            core.tenant.carrier.mark(false, rendered.headers_mut());
            *response = rendered;
        }
    }

    /// Puts the outcome of the commits of every session into the response.
    pub(crate) fn deliver(&self, headers: &mut HeaderMap) {
        self.slots().for_each(|slot| slot.deliver(headers));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.slots().for_each(|slot| slot.warn_of_lost_guard(&self.fate));
    }
}

/// No code of the application runs under these locks, so the data of a poisoned lock is valid.
pub(crate) fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
