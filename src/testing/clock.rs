use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

use crate::clock::{Clock, Timestamp};

/// A clock that moves only when told to; clones show the same time.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use axum_typed_session::{Key, SessionManager, testing::ManualClock};
///
/// let clock = ManualClock::new();
/// let sessions = SessionManager::<u32>::builder()
///     .keys(Key::generate())
///     .clock(clock.clone())
///     .build()?;
/// clock.advance(Duration::from_secs(3600));
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    millis: Arc<AtomicU64>,
}

impl ManualClock {
    /// Makes a clock that stands at the beginning of 2100 (UTC): always the same, and so far ahead that a
    /// store by the system's clock takes nothing that is saved by this one for expired.
    pub fn new() -> Self {
        Self::at(Timestamp::from_unix_millis(4_102_444_800_000).into())
    }

    /// Makes a clock that stands at `time`.
    pub fn at(time: OffsetDateTime) -> Self {
        Self { millis: Arc::new(AtomicU64::new(Timestamp::from(time).as_unix_millis())) }
    }

    /// Moves the clock ahead, by whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Puts the clock to `time`, which may be earlier.
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
