//! Store calls, each bounded in time and reported when it fails, and writes that compete with other requests.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{core::Core, stored::IsMeant};
use crate::{
    error::{Result, SessionError, StoreError},
    event::SessionEventKind,
    id::{StoreKey, random},
    seal::Sealer,
    store::{Record, SaveOutcome, SessionStore, Version, Write, none_if_expired},
};

/// The rows of one store.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(super) core: &'a Core,
    pub(super) store: &'a dyn SessionStore,
    pub(super) timeout: Duration,
}

impl Rows<'_> {
    /// Loads a row if it is one that `is_meant`. The payload of another manager's row may be sealed with other keys.
    ///
    /// It returns [`StoreError::Expired`] if the store still has the expired row and says so.
    pub(super) async fn look_up(
        &self,
        key: &StoreKey,
        is_meant: &IsMeant<'_>,
    ) -> Result<Option<Record>, StoreError> {
        let mut found = self.bounded("load", self.store.load(key)).await;
        match &mut found {
            Ok(Some(record)) if !is_meant(record) => return Ok(None),
            Ok(Some(record)) => self.core.open_row(key, record)?,
            _ => {}
        }
        found
    }

    /// Loads a row that has not expired.
    pub(super) async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        none_if_expired(self.look_up(key, &|_| true).await)
    }

    pub(super) async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let is_opened = |record: &Record| record.opened_from.is_some();
        let replaces_opened = matches!(write, Write::Update { loaded } if is_opened(loaded));
        let saved = if self.core.encrypt_rows || replaces_opened || is_opened(record) {
            Box::pin(self.save_sealed(key, record, write)).await
        } else {
            self.bounded("save", self.store.save(key, record, write)).await
        };
        self.opened(key, saved)
    }

    /// Saves where the store has, or gets, other bytes than the records.
    async fn save_sealed(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let record = self.core.sealed(key, record)?;
        let mut loaded = match write {
            Write::Update { loaded } => Some(loaded.as_stored()),
            Write::Create => None,
        };
        // This request has sealed and saved it, and does not know those bytes. The version alone tells.
        if let Some(loaded) = loaded.as_mut().filter(|loaded| record.is_sealed && !loaded.is_sealed)
        {
            loaded.payload = Bytes::new();
        }
        let write = loaded.as_ref().map_or(Write::Create, |loaded| Write::Update { loaded });
        self.bounded("save", self.store.save(key, &record, write)).await
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
        let destroyed = self.bounded("destroy", self.store.destroy_at(key, version)).await;
        self.opened(key, destroyed)
    }

    fn opened(
        &self,
        key: &StoreKey,
        mut outcome: Result<SaveOutcome, StoreError>,
    ) -> Result<SaveOutcome, StoreError> {
        if let Ok(SaveOutcome::Conflict(record)) = &mut outcome {
            self.core.open_row(key, record)?;
        }
        outcome
    }

    /// Bounds a call in time: a store that does not answer counts as down.
    pub(super) async fn bounded<R>(
        &self,
        operation: &'static str,
        mut call: impl Future<Output = Result<R, StoreError>> + Unpin,
    ) -> Result<R, StoreError> {
        let mut timer = None;
        let answered = poll_fn(|cx| {
            if let Poll::Ready(result) = call.poll_unpin(cx) {
                return Poll::Ready(result);
            }
            // A store in memory answers at once, and a timer costs as much as its answer.
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
            timer.poll_unpin(cx).map(|()| Err(StoreError::Timeout { after: self.timeout }))
        });
        let result = answered.await;
        if let Err(error) = &result
            && !matches!(error, StoreError::Corrupt | StoreError::Newer | StoreError::Expired)
        {
            self.core.events.report(SessionEventKind::StoreError { operation }, || None);
        }
        result
    }

    /// Writes `record` over the row that was loaded `first`. If another write came first, `again` makes the next
    /// record from the row that the other write left, or returns `None` if that row can stay.
    ///
    /// Then `record` is what the row holds. The inner error is a tombstone, or `None` if there is no row.
    ///
    /// # Errors
    ///
    /// [`SessionError::Conflict`] if other writes came first for [`CONTENTION`], and the errors of `again`.
    pub(super) async fn overwrite(
        &self,
        key: &StoreKey,
        record: &mut Record,
        first: &Record,
        mut again: impl FnMut(&Record) -> Result<Option<Record>>,
    ) -> Result<Result<(), Option<Record>>> {
        let (mut pauses, mut newer) = (None, None::<Box<Record>>);
        loop {
            let write = Write::Update { loaded: newer.as_deref().unwrap_or(first) };
            let save: SaveOutcome = if record.tombstone {
                self.save_twice(key, record, write).await?
            } else {
                self.save(key, record, write).await?
            };
            let theirs = match save {
                SaveOutcome::Saved => return Ok(Ok(())),
                SaveOutcome::Gone => return Ok(Err(None)),
                // Boxed, since every save would hold it and few are contended.
                SaveOutcome::Conflict(theirs) => {
                    let pauses = pauses.get_or_insert_with(Pauses::start);
                    Box::pin(pauses.next(self, key, *theirs)).await?
                }
            };
            let theirs = match theirs {
                Some(theirs) if !theirs.tombstone => theirs,
                other => return Ok(Err(other)),
            };
            let Some(next) = again(&theirs)? else {
                *record = theirs;
                return Ok(Ok(()));
            };
            (*record, newer) = (next, Some(Box::new(theirs)));
        }
    }
}

impl Core {
    /// Returns a record as the store gets it: with an encrypted payload, if `encrypt_rows` is set.
    fn sealed(&self, key: &StoreKey, record: &Record) -> Result<Record, StoreError> {
        let mut record = Record { opened_from: None, ..record.clone() };
        if let Some(sealer) = self.row_sealer.as_ref().filter(|_| self.encrypt_rows) {
            let (context, payload) = (Sealer::row_context(key), &record.payload);
            let write = |bytes: &mut Vec<u8>| bytes.extend_from_slice(payload);
            let bytes = sealer.seal_bytes(context, payload.len(), write);
            record.payload = bytes.map_err(StoreError::Unavailable)?.into();
            record.is_sealed = true;
        }
        Ok(record)
    }

    /// Opens the payload of a record of a store, if it is encrypted.
    pub(super) fn open_row(&self, key: &StoreKey, record: &mut Record) -> Result<(), StoreError> {
        if !record.is_sealed {
            return Ok(());
        }
        let sealer = self.row_sealer.as_ref().ok_or(StoreError::Corrupt)?;
        let opened = sealer.open_bytes(Sealer::row_context(key), record.payload.to_vec());
        let opened = opened.map_err(|_| StoreError::Corrupt)?;
        record.opened_from().is_outdated = opened.former_key;
        (record.payload, record.is_sealed) = (opened.plaintext, false);
        Ok(())
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
    pub(super) fn check(&self) -> Result<()> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(SessionError::Conflict) }
    }

    /// Returns the row to try with next. The first time it is the row that the conflict returned; later it
    /// is loaded after a pause, before which any row would be outdated again.
    async fn next(
        &mut self,
        rows: &Rows<'_>,
        key: &StoreKey,
        theirs: Record,
    ) -> Result<Option<Record>> {
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
