//! Ended sessions: rows that are removed, ids that were replaced, and the revocation list of cookie mode.

use std::time::Duration;

use bytes::Bytes;

use super::{
    SessionManager,
    basis::Basis,
    core::Core,
    rows::{CONTENTION, Pauses, Rows},
    stored::IsMeant,
};
use crate::{
    clock::Timestamp,
    decision::Save,
    error::{Result, StoreError},
    event::{EndReason, SessionEventKind as Kind},
    expiry::Lifetime,
    id::StoreKey,
    store::{Cleanup, REVOCATIONS_OUTLIVE, Record, SaveOutcome, Version, Write, none_if_expired},
};

/// How long a replaced id is told from an unknown one, so that requests sent before the new cookie arrived
/// cannot overwrite it.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(10);

/// The session that an old id was replaced by. No client can use its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Successor {
    pub(super) key: StoreKey,
    /// The data was cleared, or the owner changed: nothing of the old session goes on in the new one.
    pub(super) is_other_identity: bool,
}

impl Successor {
    pub(super) fn new(key: StoreKey, save: &Save<'_>) -> Self {
        Self { key, is_other_identity: save.leaves_identity() }
    }

    /// Reads the content of a tombstone or of an entry of the revocation list.
    pub(super) fn of(tombstone: &Record) -> Option<Self> {
        let (flag, key) = tombstone.payload.split_first()?;
        let key = StoreKey::from_bytes(key.try_into().ok()?);
        Some(Self { key, is_other_identity: *flag != 0 })
    }

    fn payload(self) -> Bytes {
        [&[u8::from(self.is_other_identity)], self.key.as_bytes().as_slice()].concat().into()
    }
}

/// Tells the application that a session ended, unless the end turns out to be another's or none.
///
/// It tells too if the outcome stays unknown, because the store failed or the request was dropped: once too often
/// rather than never.
struct EndNotice<'a> {
    core: &'a Core,
    key: StoreKey,
    record: Option<&'a Record>,
    why: EndReason,
}

impl EndNotice<'_> {
    fn settle(mut self, is_ended: bool) {
        self.record = self.record.filter(|_| is_ended);
    }
}

impl Drop for EndNotice<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.filter(|_| !std::thread::panicking()) {
            self.core.tell_end(&self.key, record, self.why);
        }
    }
}

/// The result of an attempt to remove a row.
pub(super) enum Ending {
    Done,
    /// There was no row.
    Absent,
    /// The session goes on under a newer id, which this tombstone names.
    Replaced(Record),
    /// The row holds another session than the one that was meant.
    NotMeant,
}

impl Cleanup {
    /// Calls [`on_end`](crate::SessionManagerBuilder::on_end) of this manager for each session that the cleanup
    /// deletes. Call it once for each manager that keeps its sessions in the store.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{ConfigError, MemoryStore, SessionManager, store::Cleanup};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ConfigError> {
    /// let store = MemoryStore::new();
    /// let sessions = SessionManager::<Login>::builder()
    ///     .store(store.clone())
    ///     .on_end(|login, why| println!("{:?} went offline: {why:?}", login.user))
    ///     .build()?;
    /// let cleanup = Cleanup::new(store).report_to(&sessions).spawn();
    /// // Serve requests until the shutdown.
    /// cleanup.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn report_to<T: Send + Sync + 'static>(self, sessions: &SessionManager<T>) -> Self {
        let core = sessions.core.clone();
        self.observed(move |key, record| core.tell_expired(key, record))
    }
}

impl Core {
    /// Calls `on_end`. It needs the data, so it cannot be called for a session that cannot be read.
    pub(super) fn tell_end(&self, key: &StoreKey, record: &Record, why: EndReason) {
        if !self.data.is_told_ends() || !self.is_of_this_kind(record) {
            return;
        }
        let mut record = record.clone();
        if self.open_row(key, &mut record).is_ok()
            && let Ok(Some(data)) = self.decode(&record)
        {
            self.data.tell_end(data, why);
        }
    }

    /// Calls `on_end` for an expired row that the store has deleted, if it was a session of this type.
    pub(super) fn tell_expired(&self, key: &StoreKey, record: &Record) {
        let is_other = record.kind != self.tenant.scope.kind && self.check_tenant("").is_ok();
        if !record.tombstone && !is_other {
            self.tell_end(key, record, EndReason::Expired);
        }
    }

    /// Ends every session that came in. It returns `Ok` only if they have certainly ended.
    pub(super) async fn destroy_all(&self, basis: &Basis, now: Timestamp) -> Result<()> {
        if let Some(imported) = &basis.incoming.imported {
            Box::pin(self.mark(imported, None, now)).await?;
        }
        let live = basis.live().map(|live| (live.key(), Some(&*live.record)));
        let others = basis.incoming.others.iter().map(|(key, record)| (*key, record.as_deref()));
        for (key, record) in live.into_iter().chain(others) {
            self.destroy_session(key, record, now).await?;
            self.report(Kind::Destroyed, || key);
        }
        Ok(())
    }

    /// Ends a session. If it goes on under a newer id, that session ends too.
    async fn destroy_session(
        &self,
        mut key: StoreKey,
        mut record: Option<&Record>,
        now: Timestamp,
    ) -> Result<()> {
        let (pauses, why) = (Pauses::start(), EndReason::Destroyed);
        loop {
            let tombstone = if let Some(rows) = self.rows() {
                match self.destroy_row(rows, key, record.cloned(), &|_| true, why).await? {
                    Ending::Replaced(tombstone) => Some(tombstone),
                    Ending::Done | Ending::Absent | Ending::NotMeant => None,
                }
            } else {
                // A cookie that has expired is no session that ends now.
                let ends = record.filter(|record| self.policy.ends_at(&record.lifetime) > now);
                let notice = EndNotice { core: self, key, record: ends, why };
                let earlier = match self.list() {
                    Some(list) => self.revoke(list, &key, record, None, now).await?,
                    None => None,
                };
                notice.settle(earlier.is_none());
                earlier
            };
            let Some(successor) = tombstone.as_ref().and_then(Successor::of) else { return Ok(()) };
            (key, record) = (successor.key, None);
            pauses.check()?;
        }
    }

    /// Removes a row, which holds `row` if that is known, as long as it is the session that `is_meant`.
    pub(super) async fn destroy_row(
        &self,
        rows: Rows<'_>,
        key: StoreKey,
        row: Option<Record>,
        is_meant: &IsMeant<'_>,
        why: EndReason,
    ) -> Result<Ending> {
        // No pauses: a client that keeps writing would write again in each pause.
        let pauses = Pauses::start();
        // The payload of a row that is not meant may be sealed with other keys, so none is opened here.
        let load = async || none_if_expired(rows.bounded("load", rows.store.load(&key)).await);
        let found = if row.is_some() { Ok(row) } else { load().await };
        let mut outcome =
            found.map(|row| row.map_or(SaveOutcome::Gone, |row| SaveOutcome::Conflict(row.into())));
        loop {
            let record = match outcome {
                Ok(SaveOutcome::Saved) => return Ok(Ending::Done),
                Ok(SaveOutcome::Gone) => return Ok(Ending::Absent),
                Ok(SaveOutcome::Conflict(mut row)) if row.tombstone => {
                    // One that does not open names no successor.
                    let _ = self.open_row(&key, &mut row);
                    return Ok(Ending::Replaced(*row));
                }
                Ok(SaveOutcome::Conflict(row)) if is_meant(&row) => row,
                Ok(SaveOutcome::Conflict(_)) => return Ok(Ending::NotMeant),
                // Data that cannot be read can still be removed.
                Err(StoreError::Corrupt | StoreError::Newer) => {
                    rows.destroy(&key).await?;
                    return Ok(Ending::Done);
                }
                Err(error) => return Err(error.into()),
            };
            pauses.check()?;
            let notice = EndNotice { core: self, key, record: Some(&record), why };
            outcome = rows.bounded("destroy", rows.store.destroy_at(&key, record.version)).await;
            notice.settle(!matches!(outcome, Ok(SaveOutcome::Gone | SaveOutcome::Conflict(_))));
        }
    }

    /// Adds a session of cookie mode to the revocation list. If there is an entry already, it stays and is returned.
    pub(super) async fn revoke(
        &self,
        list: Rows<'_>,
        key: &StoreKey,
        record: Option<&Record>,
        successor: Option<Successor>,
        now: Timestamp,
    ) -> Result<Option<Record>> {
        // Every token of an id lives equally long, and was issued at a time before its request asked the list.
        let longest = self.policy.max_absolute_timeout();
        let ttl = record.map_or(longest, |record| self.ttl_of(record));
        // For clocks that differ and a list that answers late. It is longer where the options allow more of both.
        let margin = REVOCATIONS_OUTLIVE.max(self.clock_skew + self.unfinished_life());
        let entry = self.tombstone(now, now.saturating_add(ttl + margin), successor);
        Ok(list.save_twice(key, &entry, Write::Create).await?.conflicting())
    }

    /// Returns `true` if a save with a new id may continue although another request has already replaced the old
    /// id. A login may, since it has its own proof. Other saves may while the new session belongs to the same person.
    pub(super) async fn may_follow(
        &self,
        rows: Rows<'_>,
        save: &Save<'_>,
        tombstone: &Record,
    ) -> Result<bool> {
        let Some(successor) = Successor::of(tombstone) else {
            return Ok(false);
        };
        if save.is_login() {
            return Ok(true);
        }
        // A logout by `clear` would leave the session that the old id was replaced by.
        if successor.is_other_identity || (save.leaves_identity() && save.prepared.owner.is_none())
        {
            return Ok(false);
        }
        let found = rows.load(&successor.key).await?;
        Ok(if self.data_in_token() {
            found.is_none()
        } else {
            found.is_some_and(|row| !row.tombstone && row.owner == save.prepared.owner)
        })
    }

    /// Returns how long the row of a new id lives until its last write: longer than the writes may take, on
    /// nodes and stores whose clocks differ.
    pub(super) fn unfinished_life(&self) -> Duration {
        self.clock_skew + CONTENTION + 8 * self.store_timeout()
    }

    /// Returns how long a replaced id is remembered: long enough for the writes that replace it.
    pub(super) fn tombstone_life(&self) -> Duration {
        TOMBSTONE_LIFE.max(CONTENTION + 2 * self.store_timeout())
    }

    pub(super) fn tombstone(
        &self,
        now: Timestamp,
        end: Timestamp,
        successor: Option<Successor>,
    ) -> Record {
        Record {
            version: Version::unique(),
            schema: self.schema,
            codec: self.codec_tag,
            owner: None,
            lifetime: Lifetime::new(now, end),
            epoch: 0,
            kind: 0,
            tombstone: true,
            is_sealed: false,
            opened_from: None,
            payload: successor.map(Successor::payload).unwrap_or_default(),
        }
    }
}
