//! How long a write tries again when others keep coming first.

use std::time::Duration;

use tokio::time::Instant;

use super::rows::Rows;
use crate::{
    error::SessionError,
    id::{StoreKey, random},
    record::Record,
};

/// Tries again, at once and then after growing random pauses, until five seconds are over.
pub(super) struct Contention {
    deadline: Instant,
    /// The longest the next pause may be.
    ceiling: Duration,
}

const BOUND: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl Contention {
    pub(super) fn start() -> Self {
        Self { deadline: Instant::now() + BOUND, ceiling: Duration::ZERO }
    }

    /// Ends in [`SessionError::Conflict`] when the time is over.
    pub(super) fn check(&self) -> Result<(), SessionError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(SessionError::Conflict) }
    }

    /// Returns the row to try with next, `None` if there is none any more: after a first loss the one
    /// that came first, later the one there is after a pause, since what was read before it would be
    /// outdated again.
    pub(super) async fn next(
        &mut self,
        rows: &Rows<'_>,
        key: &StoreKey,
        theirs: Record,
    ) -> Result<Option<Record>, SessionError> {
        if self.ceiling.is_zero() || theirs.is_tombstone() {
            self.ceiling = FIRST_PAUSE;
            return Ok(Some(theirs));
        }
        self.check()?;
        let [share] = random::<1>().map_err(SessionError::Random)?;
        tokio::time::sleep(self.ceiling * u32::from(share) / 256).await;
        self.ceiling = (self.ceiling * 2).min(LONGEST_PAUSE);
        Ok(rows.load(key).await?)
    }
}
