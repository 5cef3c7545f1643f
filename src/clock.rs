//! The clock, and instants as stores keep them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

/// A time in milliseconds since the Unix epoch, as records and stores keep it.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use axum_typed_session::store::Timestamp;
///
/// let now = Timestamp::from_unix_millis(1_700_000_000_000);
/// let end = now.saturating_add(Duration::from_secs(60));
/// assert_eq!(end.as_unix_millis(), 1_700_000_060_000);
/// assert_eq!(end.saturating_since(now), Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp from the milliseconds since the Unix epoch. See the [example](Self#example).
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the time of a clock, or without one the time of the operating system; a time before 1970 becomes 1970.
    pub(crate) fn by(clock: Option<&dyn Clock>) -> Self {
        if let Some(clock) = clock {
            return clock.now().into();
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the milliseconds since the Unix epoch. See the [example](Self#example).
    pub const fn as_unix_millis(self) -> u64 {
        self.0
    }

    /// Returns the time that is `duration` later, or the latest possible time. See the [example](Self#example).
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the duration from `earlier` to this time; zero if `earlier` is the later time. The type has an
    /// example.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({} ms)", self.0)
    }
}

impl From<OffsetDateTime> for Timestamp {
    /// Times before 1970 become 1970.
    fn from(time: OffsetDateTime) -> Self {
        let millis = time.unix_timestamp() * 1000 + i64::from(time.millisecond());
        Self(u64::try_from(millis).unwrap_or(0))
    }
}

impl From<Timestamp> for OffsetDateTime {
    /// Times after the year 9999 become the end of that year.
    fn from(timestamp: Timestamp) -> Self {
        let millis = i64::try_from(timestamp.0).unwrap_or(i64::MAX);
        Self::UNIX_EPOCH.saturating_add(time::Duration::milliseconds(millis))
    }
}

/// A source of the current time, for [`clock`](crate::SessionManagerBuilder::clock). Default: [`SystemClock`].
///
/// Tests use [`ManualClock`](crate::testing::ManualClock), whose time they move.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Clock, Key, SessionManager, time::{Duration, OffsetDateTime}};
///
/// /// Shows how the application behaves tomorrow.
/// struct Tomorrow;
///
/// impl Clock for Tomorrow {
///     fn now(&self) -> OffsetDateTime {
///         OffsetDateTime::now_utc() + Duration::DAY
///     }
/// }
///
/// let builder = SessionManager::<u32>::builder().keys(Key::generate());
/// let sessions = builder.clock(Tomorrow).build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time. It must not block.
    fn now(&self) -> OffsetDateTime;
}

/// The clock of the operating system: the default [`Clock`], whose page has an example of another clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}
