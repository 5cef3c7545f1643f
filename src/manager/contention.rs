//! How long a write tries again when others keep coming first.

use std::time::Duration;

use tokio::time::Instant;

use crate::{error::SessionError, id::random};

/// Tries again, with growing random pauses, until five seconds are over.
pub(super) struct Contention {
    deadline: Instant,
    /// The longest the next pause may be.
    ceiling: Duration,
}

const BOUND: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl Contention {
    pub(super) fn start() -> Self {
        Self {
            deadline: Instant::now() + BOUND,
            ceiling: Duration::from_millis(1),
        }
    }

    /// Waits before the next try, or ends in [`SessionError::Conflict`].
    pub(super) async fn pause(&mut self) -> Result<(), SessionError> {
        if Instant::now() >= self.deadline {
            return Err(SessionError::Conflict);
        }
        let [share] = random::<1>().map_err(SessionError::Random)?;
        tokio::time::sleep(self.ceiling * u32::from(share) / 256).await;
        self.ceiling = (self.ceiling * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
