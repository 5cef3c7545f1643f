//! The rules of [`SessionStore`], one function for each rule, and a macro that runs them all.
//!
//! [`session_store_conformance!`](crate::session_store_conformance) makes a `#[tokio::test]` of each function. To
//! use another test harness or runtime, call the functions yourself. Each is a future that panics if the store
//! breaks the rule, and the text of the panic names the rule.
//!
//! ```
//! use axum_typed_session::{MemoryStore, testing::conformance::{self, StoreUnderTest}};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = StoreUnderTest::new(MemoryStore::new());
//! conformance::create_finds_no_row(&store).await;
//! # }
//! ```
//!
//! The checks draw random keys and owners, so the tests of a store may share a server with each other and with other
//! data. But `delete_expired` and `take_expired` act on the expired rows of the whole store, whoever saved them. So a
//! store that returns expired rows needs a table, a prefix or a file of its own for each test.
//!
//! The checks of races use their own threads, with every runtime. Within Tokio, these threads enter the runtime of
//! the caller.
//!
//! On these pages, a *row* is a stored session, and a *tombstone* is a row that marks an id which was replaced or
//! ended.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "panicking where a promise is broken is what a check is for"
)]

mod cancellation;
mod expect;
mod expiry;
mod expiry_races;
mod faults;
mod fields;
mod lifetimes;
mod listing;
mod owners;
mod parallel;
mod races;
mod readers;
mod touch;
mod writes;

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

pub use self::{
    cancellation::*, expiry::*, expiry_races::*, faults::*, fields::*, lifetimes::*, listing::*,
    owners::*, races::*, readers::*, touch::*, writes::*,
};
use super::{RecordBuilder, random};
use crate::{
    clock::Timestamp,
    id::{OwnerKey, StoreKey},
    store::SessionStore,
};

/// Makes a module of tests that check a store of your own, one test for each rule of
/// [`SessionStore`](crate::SessionStore).
///
/// | call | meaning |
/// |---|---|
/// | `session_store_conformance!(name, store)` | a module `name` of tests |
/// | `session_store_conformance!(store)` | a module `session_store_conformance` |
///
/// `store` is an expression that makes an empty store. It runs once for each test, may contain `.await`, and sees
/// everything of the surrounding module. It is a [`SessionStore`](crate::SessionStore), or a
/// [`StoreUnderTest`](crate::testing::conformance::StoreUnderTest) that can also move the time of the engine.
///
/// Your `tokio` needs the features `macros` and `rt-multi-thread`, and this crate needs the feature `testing`.
///
/// # Example
///
/// ```
/// # mod tests {
/// use axum_typed_session::{MemoryStore, session_store_conformance};
///
/// session_store_conformance!(memory_store, MemoryStore::new());
/// # }
/// ```
#[doc(alias("test suite", "custom store", "compliance"))]
#[macro_export]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
macro_rules! session_store_conformance {
    ($name:ident, $store:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the store may need nothing of its surroundings")]
            use super::*;

            $crate::__conformance_checks! { [$crate::__session_store_conformance] $store; }
        }
    };
    ($store:expr $(,)?) => {
        $crate::session_store_conformance!(session_store_conformance, $store);
    };
}

/// Hands the names of all checks to a macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ([$($then:tt)+] $($with:tt)*) => {
        $($then)+! { $($with)*
            create_finds_no_row
            create_conflicts_with_a_live_row
            create_conflicts_with_a_tombstone
            update_replaces_the_version_it_expects
            update_conflicts_with_another_version
            update_never_makes_a_row
            a_repeated_create_is_one_write
            a_repeated_update_is_one_write
            a_repeated_write_undoes_no_touch
            destroy_removes_the_row
            destroying_nothing_succeeds
            destroy_at_removes_the_version_it_expects
            destroy_at_conflicts_with_another_version
            destroy_at_finds_no_row
            gone_stays_gone
            touch_moves_only_the_expiry
            touch_never_shortens
            touch_conflicts_with_another_version
            touch_never_makes_a_row
            touch_leaves_the_row_writable
            concurrent_touches_keep_the_latest_end
            tombstones_are_touched_and_destroyed_like_rows
            load_hides_an_expired_row
            create_replaces_an_expired_row
            create_replaces_an_expired_row_of_its_own_version
            update_does_not_revive_an_expired_row
            touch_does_not_revive_an_expired_row
            writes_at_another_version_of_an_expired_row_are_gone
            destroy_of_an_expired_row_succeeds
            find_by_owner_hides_expired_rows
            touched_rows_outlive_their_first_expiry
            updated_rows_outlive_their_first_expiry
            save_moves_the_expiry
            rows_live_until_their_end
            a_record_saved_after_its_end_is_absent
            delete_expired_leaves_live_rows
            delete_expired_respects_its_limit
            delete_expired_deletes_expired_rows
            every_field_comes_back
            payloads_are_opaque_bytes
            keys_are_compared_byte_by_byte
            owners_are_found_by_their_rows
            owners_are_compared_byte_by_byte
            the_owner_index_follows_the_row
            the_owner_index_forgets_ended_rows
            the_owner_index_forgets_replaced_expired_rows
            destroy_by_owner_ends_every_session
            destroy_by_owner_keeps_the_one_it_is_told_to
            without_an_index_owners_are_unsupported
            list_returns_every_live_row
            list_returns_every_row_in_pages_of_one
            list_hides_rows_that_are_gone
            list_misses_no_row_while_others_come_and_go
            list_takes_any_cursor_and_limit
            without_a_list_it_is_unsupported
            take_expired_returns_what_it_deletes
            take_expired_leaves_live_rows
            take_expired_gives_each_row_once
            without_taking_expired_rows_it_is_unsupported
            concurrent_creates_save_one
            concurrent_updates_of_a_version_save_one
            concurrent_creates_over_an_expired_row_save_one
            a_row_created_during_a_cleanup_stays
            reads_return_no_mix_of_two_records
            the_owner_index_follows_concurrent_writes
            compare_and_swap_loses_nothing
            destroy_beats_racing_updates
            touch_undoes_no_racing_update
            touch_revives_no_destroyed_row
            find_by_owner_follows_a_new_id
            destroy_by_owner_follows_a_new_id
            a_dropped_create_leaves_all_or_nothing
            a_dropped_update_leaves_old_or_new
            a_dropped_touch_leaves_a_whole_row
            a_dropped_destroy_leaves_all_or_nothing
            a_dropped_destroy_by_owner_leaves_whole_rows
            a_broken_engine_is_an_error
            rows_are_back_when_the_engine_is
            an_unreadable_row_is_an_error_and_stays
            an_unreadable_row_can_be_destroyed
            take_expired_leaves_out_unreadable_rows
        }
    };
}

/// Makes a test of each check of [`session_store_conformance!`](crate::session_store_conformance).
#[doc(hidden)]
#[macro_export]
macro_rules! __session_store_conformance {
    ($store:expr; $($check:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let store = $crate::testing::conformance::StoreUnderTest::from($store);
            $crate::testing::conformance::$check(&store).await;
        }
    )* };
}

/// A store to check, and what a check does to its engine. It derefs to the store.
///
/// `StoreUnderTest::from(store)` takes every store. The checks then know only the store itself:
///
/// | method | without it |
/// |---|---|
/// | [`advance_with`](Self::advance_with) | the checks of expiry wait until rows expire, about one second each, and no row lives for long |
/// | [`break_with`](Self::break_with) | no check sees an error of the engine |
/// | [`damage_with`](Self::damage_with) | no check sees a row that cannot be read |
/// | [`engine_deletes_expired`](Self::engine_deletes_expired) | `delete_expired` must delete expired rows |
///
/// # Example
///
/// ```
/// use axum_typed_session::time::OffsetDateTime;
/// use axum_typed_session::{MemoryStore, testing::{ManualClock, conformance::StoreUnderTest}};
///
/// fn memory_store() -> StoreUnderTest {
///     let clock = ManualClock::at(OffsetDateTime::now_utc());
///     let store = MemoryStore::builder().clock(clock.clone()).build();
///     StoreUnderTest::new(store).advance_with(move |duration| {
///         clock.advance(duration);
///         async {}
///     })
/// }
/// ```
pub struct StoreUnderTest {
    store: Arc<dyn SessionStore>,
    advance: Option<Box<Act<Duration>>>,
    fault: Option<Fault>,
    damage: Option<Box<Act<StoreKey>>>,
    engine_deletes_expired: bool,
    /// How many milliseconds the engine was moved ahead.
    ahead: AtomicU64,
}

/// The clock of the engine may differ so much from the clock of the checks.
const MOST_SKEW: Duration = Duration::from_millis(250);

/// What a check does to the engine.
type Act<A> = dyn Fn(A) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

fn act<A, F, W>(run: F) -> Box<Act<A>>
where
    F: Fn(A) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Box::new(move |argument| Box::pin(run(argument)))
}

struct Fault {
    begin: Box<Act<()>>,
    end: Box<Act<()>>,
}

impl StoreUnderTest {
    /// Takes a store whose engine uses the real time.
    pub fn new(store: impl SessionStore) -> Self {
        Self {
            store: Arc::new(store),
            advance: None,
            fault: None,
            damage: None,
            engine_deletes_expired: false,
            ahead: AtomicU64::new(0),
        }
    }

    /// Sets a function that moves the time of the engine, so that the checks need not wait.
    ///
    /// The clock of the engine must agree with the system's clock when the store is made. Each call moves it
    /// further ahead, by the given duration and for all rows. [`StoreUnderTest`] shows an example.
    pub fn advance_with<F, W>(mut self, advance: F) -> Self
    where
        F: Fn(Duration) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.advance = Some(act(advance));
        self
    }

    /// Sets a function that breaks the engine, and one that repairs it.
    ///
    /// While the engine is broken, every call of the store must be an error, or get no answer. After the repair, the
    /// rows must be there again. Break the engine for this store only, and so that it keeps its rows: stop a server,
    /// close the connections in front of it, lock a file or rename a table.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{MemoryStore, testing::conformance::StoreUnderTest};
    /// use axum_typed_session::testing::{Fault, FaultyStore, Operation};
    ///
    /// fn store_that_breaks() -> StoreUnderTest {
    ///     let store = FaultyStore::new(MemoryStore::new());
    ///     let (broken, repaired) = (store.clone(), store.clone());
    ///     StoreUnderTest::new(store).break_with(
    ///         move || { broken.inject(Operation::all(), Fault::Fail); async {} },
    ///         move || { repaired.heal(); async {} },
    ///     )
    /// }
    /// ```
    pub fn break_with<B, BW, R, RW>(mut self, break_engine: B, repair: R) -> Self
    where
        B: Fn() -> BW + Send + Sync + 'static,
        BW: Future<Output = ()> + Send + 'static,
        R: Fn() -> RW + Send + Sync + 'static,
        RW: Future<Output = ()> + Send + 'static,
    {
        let (begin, end) = (act(move |()| break_engine()), act(move |()| repair()));
        self.fault = Some(Fault { begin, end });
        self
    }

    /// Sets a function that replaces the content of the row under a key by bytes that are no record, such as the
    /// single byte `0xff`. Key, version, expiry and owner stay, if the engine keeps them apart.
    ///
    /// Such a row must be an error, and no call but [`destroy`](SessionStore::destroy) may remove it.
    ///
    /// # Example
    ///
    /// ```
    /// use std::{collections::HashMap, sync::{Arc, Mutex}};
    /// use axum_typed_session::{SessionStore, StoreKey, testing::conformance::StoreUnderTest};
    ///
    /// fn tested(
    ///     store: impl SessionStore, rows: Arc<Mutex<HashMap<StoreKey, Vec<u8>>>>,
    /// ) -> StoreUnderTest {
    ///     StoreUnderTest::new(store).damage_with(move |key| {
    ///         rows.lock().unwrap().insert(key, vec![0xff]);
    ///         async {}
    ///     })
    /// }
    /// ```
    pub fn damage_with<F, W>(mut self, damage: F) -> Self
    where
        F: Fn(StoreKey) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.damage = Some(act(damage));
        self
    }

    /// Says that the engine deletes expired rows by itself, so
    /// [`delete_expired`](SessionStore::delete_expired) may delete nothing. Default: it must delete them.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionStore, testing::conformance::StoreUnderTest};
    ///
    /// fn tested(store: impl SessionStore) -> StoreUnderTest {
    ///     StoreUnderTest::new(store).engine_deletes_expired()
    /// }
    /// ```
    pub fn engine_deletes_expired(mut self) -> Self {
        self.engine_deletes_expired = true;
        self
    }

    /// Returns a handle for another thread.
    fn shared(&self) -> Arc<dyn SessionStore> {
        self.store.clone()
    }

    fn now(&self) -> Timestamp {
        let ahead = Duration::from_millis(self.ahead.load(Ordering::Relaxed));
        Timestamp::from(OffsetDateTime::now_utc()).saturating_add(ahead)
    }

    /// Returns an instant after the end of every check.
    fn later(&self) -> Timestamp {
        self.now().saturating_add(Duration::from_secs(60 * 60))
    }

    /// Returns `true` if no engine counts a row as expired that ends at `end`.
    fn is_surely_before(&self, end: Timestamp) -> bool {
        self.now().saturating_add(MOST_SKEW) < end
    }

    /// Returns the instant that [`pass_soon`](Self::pass_soon) goes beyond.
    fn soon(&self) -> Timestamp {
        self.now().saturating_add(self.soon_from_now())
    }

    fn soon_from_now(&self) -> Duration {
        match self.advance {
            Some(_) => Duration::from_secs(60),
            None => Duration::from_secs(1),
        }
    }

    /// Moves the time of the engine, or waits, until the instant of [`soon`](Self::soon) has passed.
    async fn pass_soon(&self) {
        // A clock that stands still between the calls falls behind while a check works.
        let more = if self.advance.is_some() { Duration::from_secs(5) } else { MOST_SKEW };
        self.pass(self.soon_from_now() + more).await;
    }

    /// Moves the time of the engine, or waits.
    async fn pass(&self, duration: Duration) {
        match &self.advance {
            Some(advance) => {
                advance(duration).await;
                let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                self.ahead.fetch_add(millis, Ordering::Relaxed);
            }
            None => parallel::sleep(duration).await,
        }
    }

    /// Starts a record that outlives the check.
    fn record(&self) -> RecordBuilder {
        RecordBuilder::new().created_at(self.now()).expires_at(self.later())
    }

    /// Starts a record that is expired after [`pass_soon`](Self::pass_soon).
    fn brief_record(&self) -> RecordBuilder {
        let soon = self.soon();
        self.record().expires_at(soon)
    }
}

impl<S: SessionStore> From<S> for StoreUnderTest {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}

impl Deref for StoreUnderTest {
    type Target = dyn SessionStore;

    fn deref(&self) -> &(dyn SessionStore + 'static) {
        &*self.store
    }
}

impl fmt::Debug for StoreUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreUnderTest")
            .field("advances", &self.advance.is_some())
            .field("breaks", &self.fault.is_some())
            .field("damages", &self.damage.is_some())
            .field("engine_deletes_expired", &self.engine_deletes_expired)
            .finish_non_exhaustive()
    }
}

fn any_key() -> StoreKey {
    StoreKey::from_bytes(random())
}

fn any_owner() -> OwnerKey {
    OwnerKey::from_bytes(random())
}
