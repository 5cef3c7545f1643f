//! Store calls, each bounded in time and reported when it fails, and writes that compete with other requests.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::{
    error::{SessionError, StoreError},
    event::{Events, SessionEventKind},
    id::{StoreKey, random},
    store::{Record, SaveOutcome, SessionStore, Version, Write},
};

/// The rows of one store.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(super) store: &'a dyn SessionStore,
    pub(super) timeout: Duration,
    pub(super) events: &'a Events,
}

impl Rows<'_> {
    pub(super) async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.bounded("load", self.store.load(key)).await
    }

    pub(super) async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        self.bounded("save", self.store.save(key, record, write)).await
    }

    /// Saves, and saves once more if the outcome is unknown: the second save finds the version of the first.
    pub(super) async fn save_twice(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        match self.save(key, record, write).await {
            Err(StoreError::Timeout { .. } | StoreError::Unavailable(_)) => {
                self.save(key, record, write).await
            }
            known => known,
        }
    }

    pub(super) async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.bounded("destroy", self.store.destroy(key)).await
    }

    pub(super) async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        self.bounded("destroy", self.store.destroy_at(key, version)).await
    }

    /// Bounds a call in time: a store that does not answer counts as down.
    pub(super) async fn bounded<R>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let result = tokio::time::timeout(self.timeout, call).await;
        let result = result.unwrap_or(Err(StoreError::Timeout { after: self.timeout }));
        if let Err(error) = &result
            && !matches!(error, StoreError::Corrupt | StoreError::Newer)
        {
            self.events.report(SessionEventKind::StoreError { operation }, || None);
        }
        result
    }

    /// Writes over the row that was `loaded`. If another write came first, `again` makes the next record from the row
    /// that the other write left, or returns `None` if that row can stay.
    ///
    /// Returns the record that the row holds then. The inner error is a tombstone, or `None` if there is no row.
    ///
    /// # Errors
    ///
    /// [`SessionError::Conflict`] if other writes came first for [`CONTENTION`], and the errors of `again`.
    pub(super) async fn overwrite(
        &self,
        key: &StoreKey,
        mut record: Record,
        mut loaded: Record,
        mut again: impl FnMut(&Record) -> Result<Option<Record>, SessionError>,
    ) -> Result<Result<Record, Option<Record>>, SessionError> {
        let mut pauses = Pauses::start();
        loop {
            let write = Write::Update { loaded: &loaded };
            let save: SaveOutcome = if record.tombstone {
                self.save_twice(key, &record, write).await?
            } else {
                self.save(key, &record, write).await?
            };
            let theirs = match save {
                SaveOutcome::Saved => return Ok(Ok(record)),
                SaveOutcome::Gone => return Ok(Err(None)),
                // Boxed, since every save would hold it and few are contended.
                SaveOutcome::Conflict(theirs) => Box::pin(pauses.next(self, key, theirs)).await?,
            };
            let theirs = match theirs {
                Some(theirs) if !theirs.tombstone => theirs,
                other => return Ok(Err(other)),
            };
            match again(&theirs)? {
                Some(next) => (record, loaded) = (next, theirs),
                None => return Ok(Ok(theirs)),
            }
        }
    }
}

/// The time for which a write tries again if other writes come first.
pub(crate) const CONTENTION: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The pauses of a write that comes second: no pause at first, then growing random pauses.
pub(super) struct Pauses {
    deadline: Instant,
    /// The longest the next pause may be.
    ceiling: Duration,
}

impl Pauses {
    pub(super) fn start() -> Self {
        Self { deadline: Instant::now() + CONTENTION, ceiling: Duration::ZERO }
    }

    /// Returns [`SessionError::Conflict`] when the time is over.
    pub(super) fn check(&self) -> Result<(), SessionError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(SessionError::Conflict) }
    }

    /// Returns the row to try with next. The first time it is the row that the conflict returned; later it
    /// is loaded after a pause, before which any row would be outdated again.
    async fn next(
        &mut self,
        rows: &Rows<'_>,
        key: &StoreKey,
        theirs: Record,
    ) -> Result<Option<Record>, SessionError> {
        if self.ceiling.is_zero() || theirs.tombstone {
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
