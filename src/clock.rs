//! The clock, and instants as stores keep them.

use std::{fmt, time::Duration};

use time::{OffsetDateTime, PrimitiveDateTime};

/// An instant in milliseconds since the Unix epoch, as records and stores keep it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp of milliseconds since the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn as_unix_millis(self) -> u64 {
        self.0
    }

    /// Returns the instant `duration` later, or the latest possible instant.
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the time from `earlier` until this instant; zero if `earlier` is later.
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
    /// Instants before 1970 become 1970.
    fn from(time: OffsetDateTime) -> Self {
        Self(u64::try_from(time.unix_timestamp_nanos() / NANOS_OF_MILLI).unwrap_or(0))
    }
}

impl From<Timestamp> for OffsetDateTime {
    /// Instants after the year 9999 become its last instant.
    fn from(timestamp: Timestamp) -> Self {
        Self::from_unix_timestamp_nanos(i128::from(timestamp.0) * NANOS_OF_MILLI)
            .unwrap_or(PrimitiveDateTime::MAX.assume_utc())
    }
}

const NANOS_OF_MILLI: i128 = 1_000_000;

/// A source of the current time. Default: [`SystemClock`]; tests set a manual clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current wall-clock time.
    fn now(&self) -> OffsetDateTime;
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}
