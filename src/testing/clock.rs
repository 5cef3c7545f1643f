use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

use crate::clock::{Clock, Timestamp};

/// A clock that stands still until a test moves it. Clones show the same time.
///
/// Give the clock to the manager and to the store, because each has its own clock.
///
/// # Example
///
/// ```
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use std::time::Duration;
/// use axum_typed_session::{MemoryStore, SessionManager, testing::ManualClock};
///
/// let clock = ManualClock::new();
/// let store = MemoryStore::builder().clock(clock.clone()).build();
/// let sessions = SessionManager::<Visits>::builder()
///     .store(store)
///     .clock(clock.clone())
///     .build()?;
/// clock.advance(Duration::from_secs(3600));
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[doc(alias("mock", "mock time", "fake", "time travel"))]
#[derive(Clone, Debug)]
pub struct ManualClock {
    millis: Arc<AtomicU64>,
}

impl ManualClock {
    /// Makes a clock that shows the beginning of the year 2100 (UTC).
    ///
    /// The time is the same in every run. It is in the future, so a store that uses the system's clock does not
    /// count a session of this clock as expired.
    pub fn new() -> Self {
        Self::at(Timestamp::from_unix_millis(4_102_444_800_000).into())
    }

    /// Makes a clock that shows `time`, in whole milliseconds.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Clock, testing::ManualClock, time::OffsetDateTime};
    ///
    /// let clock = ManualClock::at(OffsetDateTime::UNIX_EPOCH);
    /// assert_eq!(clock.now(), OffsetDateTime::UNIX_EPOCH);
    /// ```
    pub fn at(time: OffsetDateTime) -> Self {
        Self { millis: Arc::new(AtomicU64::new(Timestamp::from(time).as_unix_millis())) }
    }

    /// Moves the clock forward, by whole milliseconds and to the end of the year 9999 at most. See the example of
    /// [`ManualClock`].
    #[doc(alias("sleep", "forward"))]
    pub fn advance(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let later = |now: u64| Some(now.saturating_add(millis));
        // It never fails, since there is always a later time.
        let _ = self.millis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Sets the clock to `time`, in whole milliseconds. `time` may be in the past.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Clock, testing::ManualClock, time::OffsetDateTime};
    ///
    /// let clock = ManualClock::new();
    /// clock.set(OffsetDateTime::UNIX_EPOCH);
    /// assert_eq!(clock.now(), OffsetDateTime::UNIX_EPOCH);
    /// ```
    pub fn set(&self, time: OffsetDateTime) {
        let millis = Timestamp::from(time).as_unix_millis();
        self.millis.store(millis, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        Timestamp::from_unix_millis(self.millis.load(Ordering::SeqCst)).into()
    }
}
