//! The conformance suite can fail: stores with one flaw each, and the check that names it.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use axum_typed_session::time::OffsetDateTime;
use axum_typed_session::{
    SessionStore, StoreError, StoreKey, session_store_conformance,
    store::{Cursor, KeyPage, OwnerKey, Record, SaveOutcome, Timestamp, Version, Write},
    testing::{
        ManualClock, RecordBuilder,
        conformance::{self, StoreUnderTest},
    },
};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    CreateOverwrites,
    CreateTakesOverTombstones,
    CreateConflictsWithExpiredRows,
    CreateOverExpiredRowsIsTwoSteps,
    CreateTakesExpiredRowsForItsOwn,
    UpdateMakesRows,
    UpdateDoesNothing,
    UpdateIgnoresTheVersion,
    UpdateRevivesExpiredRows,
    UpdateConflictsWithExpiredRows,
    TouchConflictsWithExpiredRows,
    DestroyAtConflictsWithExpiredRows,
    ConflictHasNoRecordOfItsOwn,
    RepeatedCreateConflicts,
    RepeatedUpdateConflicts,
    RepeatedWriteShortens,
    LoadReturnsExpiredRows,
    LoadIsTwoSteps,
    RowsLiveForTenMinutes,
    RowsLiveForHalfTheirLife,
    PastEndsAreNever,
    SaveIsTwoSteps,
    SaveIsTwoWrites,
    ExpiryIsInSeconds,
    MaxAgeIsLost,
    PayloadIsText,
    KeysIgnoreCase,
    KeysEndAtAZeroByte,
    TouchShortens,
    TouchMakesRows,
    TouchIgnoresTheVersion,
    TouchWritesBack,
    TouchLosesTheOwner,
    TouchIsTwoSteps,
    TouchIgnoresTombstones,
    DeleteExpiredDeletesAll,
    DeleteExpiredIgnoresItsLimit,
    DeleteExpiredForgetsTouches,
    DeleteExpiredIsTwoSteps,
    IndexKeepsFormerOwners,
    IndexKeepsExpiredRows,
    IndexKeepsOwnersOfExpiredRows,
    IndexForgetsUpdates,
    IndexIsTwoSteps,
    DestroyByOwnerIgnoresKeep,
    DestroyByOwnerMiscounts,
    DestroyByOwnerIsTwoSteps,
    FindByOwnerIsTwoSteps,
    OwnersIgnoreCase,
    DestroyDoesNothing,
    DestroyFailsOnNothing,
    DestroyFailsOnExpiredRows,
    DestroyIsTwoWrites,
    DestroyAtIgnoresTheVersion,
    DestroyAtDoesNothing,
    DestroyAtSucceedsOnNothing,
    DestroyAtKeepsTombstones,
    FindsNobodyWithoutAnIndex,
    ListLosesTheLastOfAPage,
    ListShowsExpiredRows,
    ListCountsRows,
    ListIsInOrderOfExpiry,
    ListIgnoresItsLimit,
    ListEndsAtAPageOfExpiredRows,
    ListEndsAtAPageOfOne,
    ListForgetsUpdates,
    ListHasNoEnd,
    ListExpectsItsOwnCursors,
    ListsNothingWithoutSupport,
    TakeExpiredKeepsTheRows,
    TakeExpiredTakesLiveRows,
    TakeExpiredForgetsTouches,
    TakeExpiredIsTwoSteps,
    TakeExpiredIgnoresItsLimit,
    TakeExpiredDropsTombstones,
    TakeExpiredStopsAtUnreadableRows,
    TakeExpiredFailsAtUnreadableRows,
    TakeExpiredLeavesUnreadableRows,
    TakesNothingWithoutSupport,
    DeleteExpiredDeletesNothing,
    EngineErrorIsNone,
    EngineErrorIsGone,
    EngineErrorIsAnEmptyList,
    EngineErrorIsAnEmptyPage,
    EngineErrorIsNothingExpired,
    EngineErrorIsADestroy,
    EngineErrorLosesTheRow,
    UnreadableRowIsNone,
    UnreadableRowIsDeleted,
    UnreadableRowCannotBeDestroyed,
}

#[derive(Clone)]
struct Flawed {
    flaw: Flaw,
    clock: ManualClock,
    rows: Arc<Mutex<HashMap<StoreKey, Record>>>,
    former_owners: Arc<Mutex<Vec<(OwnerKey, StoreKey)>>>,
    /// When a row would expire if nobody had touched it.
    saved_until: Arc<Mutex<HashMap<StoreKey, Timestamp>>>,
    /// When a row would expire if no update had moved its end.
    created_until: Arc<Mutex<HashMap<StoreKey, Timestamp>>>,
    /// An index that is written apart from the rows, where that is the flaw.
    index: Arc<Mutex<HashMap<OwnerKey, BTreeSet<StoreKey>>>>,
    is_broken: Arc<AtomicBool>,
    unreadable: Arc<Mutex<BTreeSet<StoreKey>>>,
    /// What makes a write atomic, where that is not the flaw.
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

/// Long enough for another thread to come between two steps.
const MOMENT: Duration = Duration::from_millis(1);

/// Long enough for many calls of other threads.
const LONG_MOMENT: Duration = Duration::from_millis(10);

impl Flawed {
    fn tested(flaw: Flaw) -> StoreUnderTest {
        let clock = ManualClock::at(OffsetDateTime::now_utc());
        let store = Self {
            flaw,
            clock: clock.clone(),
            rows: Arc::default(),
            former_owners: Arc::default(),
            saved_until: Arc::default(),
            created_until: Arc::default(),
            index: Arc::default(),
            is_broken: Arc::default(),
            unreadable: Arc::default(),
            one_at_a_time: Arc::default(),
        };
        let (broken, repaired) = (store.is_broken.clone(), store.is_broken.clone());
        let unreadable = store.unreadable.clone();
        StoreUnderTest::new(store)
            .advance_with(move |duration| {
                clock.advance(duration);
                async {}
            })
            .break_with(
                move || {
                    broken.store(true, Ordering::SeqCst);
                    async {}
                },
                move || {
                    repaired.store(false, Ordering::SeqCst);
                    async {}
                },
            )
            .damage_with(move |key| {
                unreadable.lock().unwrap().insert(key);
                async {}
            })
    }

    /// Fails while the engine is broken.
    fn engine(&self) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("the engine is broken"));
        }
        Ok(())
    }

    /// Fails for a row that is no record.
    fn read(&self, key: &StoreKey) -> Result<(), StoreError> {
        if self.unreadable.lock().unwrap().contains(key) {
            return Err(StoreError::Corrupt);
        }
        Ok(())
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<StoreKey, Record>> {
        self.rows.lock().unwrap()
    }

    fn now(&self) -> Timestamp {
        use axum_typed_session::Clock as _;
        self.clock.now().into()
    }

    fn is_live(&self, record: &Record) -> bool {
        let (began, end) = (record.created_at(), record.expires_at());
        let end = if self.is(Flaw::RowsLiveForTenMinutes) {
            end.min(began.saturating_add(Duration::from_secs(10 * 60)))
        } else if self.is(Flaw::RowsLiveForHalfTheirLife) {
            began.saturating_add(end.saturating_since(began) / 2)
        } else {
            end
        };
        end > self.now()
    }

    /// Whether an index or a list that did not see updates still has the row.
    fn outlives(&self, forgets_updates: Flaw, key: &StoreKey) -> bool {
        !self.is(forgets_updates) || self.created_until.lock().unwrap()[key] > self.now()
    }

    /// The keys of expired rows, and of others if that is the flaw.
    fn expired(&self, all: Flaw, forgets_touches: Flaw, limit: usize) -> Vec<StoreKey> {
        let saved_until = self.saved_until.lock().unwrap();
        let rows = self.rows();
        let is_expired = |key: &StoreKey, row: &Record| {
            let touches_count = !self.is(forgets_touches);
            let has_expired =
                if touches_count { !self.is_live(row) } else { saved_until[key] <= self.now() };
            self.is(all) || has_expired
        };
        let expired = rows.iter().filter(|(key, row)| is_expired(key, row));
        expired.map(|(key, _)| *key).take(limit).collect()
    }

    fn live(&self, key: &StoreKey) -> Option<Record> {
        let row = self.rows().get(key).cloned();
        row.filter(|row| self.is_live(row))
    }

    fn key(&self, key: &StoreKey) -> StoreKey {
        let mut bytes = *key.as_bytes();
        if self.is(Flaw::KeysIgnoreCase) {
            bytes.make_ascii_lowercase();
        }
        if self.is(Flaw::KeysEndAtAZeroByte) {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(32);
            bytes[end..].fill(0);
        }
        StoreKey::from_bytes(bytes)
    }

    /// What the row keeps of a record.
    fn kept(&self, record: &Record) -> Record {
        let builder = RecordBuilder::new()
            .version(record.version())
            .created_at(record.created_at())
            .expires_at(record.expires_at())
            .absolute_end(record.absolute_end())
            .schema(record.schema())
            .codec_tag(record.codec_tag());
        if self.is(Flaw::ExpiryIsInSeconds) {
            let millis = record.expires_at().as_unix_millis() / 1000 * 1000;
            let expires_at = Timestamp::from_unix_millis(millis);
            return record.clone().with_expires_at(expires_at);
        }
        if self.is(Flaw::PastEndsAreNever) && !self.is_live(record) {
            return record.clone().with_expires_at(Timestamp::from_unix_millis(u64::MAX));
        }
        if self.is(Flaw::MaxAgeIsLost) && record.idle_timeout().is_some() {
            return builder.payload(record.payload()).build();
        }
        if self.is(Flaw::PayloadIsText) && record.owner().is_none() && !record.is_tombstone() {
            let text = String::from_utf8_lossy(record.payload()).into_owned();
            return builder.payload(text).build();
        }
        record.clone()
    }

    fn keys_of(&self, owner: &OwnerKey, rows: &HashMap<StoreKey, Record>) -> Vec<StoreKey> {
        let is_same = |of: OwnerKey| {
            of == *owner
                || self.is(Flaw::OwnersIgnoreCase)
                    && of.as_bytes().eq_ignore_ascii_case(owner.as_bytes())
        };
        let found = rows.iter().filter(|(key, row)| {
            row.owner().is_some_and(is_same)
                && self.outlives(Flaw::IndexForgetsUpdates, key)
                && (self.is(Flaw::IndexKeepsExpiredRows) || self.is_live(row))
        });
        found.map(|(key, _)| *key).collect()
    }

    /// The place of a row in the order of pages.
    fn place(&self, key: &StoreKey, row: &Record) -> Vec<u8> {
        let mut place = Vec::new();
        if self.is(Flaw::ListIsInOrderOfExpiry) {
            place.extend(row.expires_at().as_unix_millis().to_be_bytes());
        }
        place.extend(key.as_bytes());
        place
    }

    fn decide(&self, key: &StoreKey, record: &Record, write: Write<'_>) -> Option<SaveOutcome> {
        let mut row = self.rows().get(key).cloned();
        if let Some(expired) = row.as_ref().filter(|row| !self.is_live(row)) {
            let is_repeated = expired.version() == record.version();
            let is_at_another = write.expected().is_some_and(|loaded| loaded != expired.version());
            if is_repeated
                && write.expected().is_none()
                && self.is(Flaw::CreateTakesExpiredRowsForItsOwn)
            {
                return Some(SaveOutcome::Saved);
            }
            if !is_repeated && is_at_another && self.is(Flaw::UpdateConflictsWithExpiredRows) {
                return Some(SaveOutcome::Conflict(expired.clone().into()));
            }
        }
        let sees_expired = match write {
            Write::Create => self.is(Flaw::CreateConflictsWithExpiredRows),
            Write::Update { .. } => self.is(Flaw::UpdateRevivesExpiredRows),
        };
        if !sees_expired {
            row = row.filter(|row| self.is_live(row));
        }
        let repeated_conflicts = match write {
            Write::Create => self.is(Flaw::RepeatedCreateConflicts),
            Write::Update { .. } => self.is(Flaw::RepeatedUpdateConflicts),
        };
        match (row, write) {
            (Some(row), _) if row.version() == record.version() && !repeated_conflicts => {
                (!self.is(Flaw::RepeatedWriteShortens)).then_some(SaveOutcome::Saved)
            }
            (Some(_), Write::Update { .. }) if self.is(Flaw::UpdateDoesNothing) => {
                Some(SaveOutcome::Saved)
            }
            (Some(_), Write::Create) if self.is(Flaw::CreateOverwrites) => None,
            (Some(row), Write::Create)
                if row.is_tombstone() && self.is(Flaw::CreateTakesOverTombstones) =>
            {
                None
            }
            (Some(_), Write::Update { .. }) if self.is(Flaw::UpdateIgnoresTheVersion) => None,
            (Some(row), Write::Update { loaded }) if row.version() == loaded.version() => None,
            (Some(_), _) if self.is(Flaw::ConflictHasNoRecordOfItsOwn) => {
                Some(SaveOutcome::Conflict(record.clone().into()))
            }
            (Some(row), _) => Some(SaveOutcome::Conflict(row.into())),
            (None, Write::Update { .. }) if self.is(Flaw::UpdateMakesRows) => None,
            (None, Write::Update { .. }) => Some(SaveOutcome::Gone),
            (None, Write::Create) => None,
        }
    }

    fn write(&self, key: StoreKey, record: &Record) {
        let former = self.rows().insert(key, self.kept(record));
        let former = former.filter(|former| {
            !self.is(Flaw::IndexKeepsOwnersOfExpiredRows) || !self.is_live(former)
        });
        if let Some(owner) = former.and_then(|former| former.owner()) {
            self.former_owners.lock().unwrap().push((owner, key));
        }
    }
}

#[async_trait]
impl SessionStore for Flawed {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let key = self.key(key);
        if self.engine().is_err() && self.is(Flaw::EngineErrorLosesTheRow) {
            self.rows().remove(&key);
        }
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsNone) {
            return Ok(None);
        }
        self.engine()?;
        if self.read(&key).is_err() && self.is(Flaw::UnreadableRowIsNone) {
            return Ok(None);
        }
        if self.read(&key).is_err() && self.is(Flaw::UnreadableRowIsDeleted) {
            self.rows().remove(&key);
            self.unreadable.lock().unwrap().remove(&key);
            return Err(StoreError::Corrupt);
        }
        self.read(&key)?;
        if self.is(Flaw::LoadReturnsExpiredRows) {
            return Ok(self.rows().get(&key).cloned());
        }
        let loaded = self.live(&key);
        if let Some(row) = loaded.as_ref().filter(|_| self.is(Flaw::LoadIsTwoSteps)) {
            tokio::time::sleep(MOMENT).await;
            let changed = self.rows().get(&key).cloned();
            if let Some(rest) = changed.filter(|now| now.version() != row.version()) {
                let mixed = RecordBuilder::new().version(row.version()).payload(rest.payload());
                let mixed = mixed.created_at(rest.created_at()).expires_at(rest.expires_at());
                return Ok(Some(mixed.absolute_end(rest.absolute_end()).build()));
            }
        }
        Ok(loaded)
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let key = self.key(key);
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsGone) {
            return Ok(SaveOutcome::Gone);
        }
        self.engine()?;
        self.read(&key)?;
        let replaces_expired = self.live(&key).is_none() && self.rows().contains_key(&key);
        let is_two_steps = self.is(Flaw::SaveIsTwoSteps)
            || self.is(Flaw::CreateOverExpiredRowsIsTwoSteps) && replaces_expired;
        let one_at_a_time = if is_two_steps { None } else { Some(self.one_at_a_time.lock().await) };
        if let Some(outcome) = self.decide(&key, record, write) {
            return Ok(outcome);
        }
        if is_two_steps {
            tokio::time::sleep(MOMENT).await;
        }
        if self.is(Flaw::SaveIsTwoWrites) {
            let half = RecordBuilder::new().version(record.version()).build();
            self.write(key, &half);
            tokio::task::yield_now().await;
        }
        if write.expected().is_none() {
            self.created_until.lock().unwrap().insert(key, record.expires_at());
        }
        self.write(key, record);
        self.saved_until.lock().unwrap().insert(key, record.expires_at());
        drop(one_at_a_time);
        if let Some(owner) = record.owner().filter(|_| self.is(Flaw::IndexIsTwoSteps)) {
            let mut keys = self.index.lock().unwrap().get(&owner).cloned().unwrap_or_default();
            tokio::time::sleep(MOMENT).await;
            keys.insert(key);
            self.index.lock().unwrap().insert(owner, keys);
        }
        Ok(SaveOutcome::Saved)
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsADestroy) {
            return Ok(());
        }
        self.engine()?;
        if self.is(Flaw::UnreadableRowCannotBeDestroyed) {
            self.read(&self.key(key))?;
        }
        if self.is(Flaw::DestroyDoesNothing) {
            return Ok(());
        }
        let _one_at_a_time = self.one_at_a_time.lock().await;
        if self.is(Flaw::DestroyIsTwoWrites) && self.live(&self.key(key)).is_some() {
            self.write(self.key(key), &RecordBuilder::new().build());
            tokio::task::yield_now().await;
        }
        self.unreadable.lock().unwrap().remove(&self.key(key));
        let fails_on_nothing = self.is(Flaw::DestroyFailsOnNothing);
        let fails_on_expired = self.is(Flaw::DestroyFailsOnExpiredRows);
        let removed = self.rows().remove(&self.key(key));
        let is_missing = |row: &Record| fails_on_expired && !self.is_live(row);
        if removed.as_ref().map_or(fails_on_nothing, is_missing) {
            return Err(StoreError::unavailable("no such row"));
        }
        Ok(())
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        if self.is(Flaw::DestroyAtConflictsWithExpiredRows)
            && let Some(row) = self.rows().get(key).filter(|row| row.version() != version)
        {
            return Ok(SaveOutcome::Conflict(row.clone().into()));
        }
        match self.load(key).await? {
            None if self.is(Flaw::DestroyAtSucceedsOnNothing) => Ok(SaveOutcome::Saved),
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version && !self.is(Flaw::DestroyAtIgnoresTheVersion) => {
                Ok(SaveOutcome::Conflict(row.into()))
            }
            Some(_) if self.is(Flaw::DestroyAtDoesNothing) => Ok(SaveOutcome::Saved),
            Some(row) if row.is_tombstone() && self.is(Flaw::DestroyAtKeepsTombstones) => {
                Ok(SaveOutcome::Saved)
            }
            Some(_) => self.destroy(key).await.map(|()| SaveOutcome::Saved),
        }
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let key = self.key(key);
        self.engine()?;
        self.read(&key)?;
        if self.is(Flaw::TouchConflictsWithExpiredRows)
            && let Some(row) = self.rows().get(&key).filter(|row| row.version() != version)
        {
            return Ok(SaveOutcome::Conflict(row.clone().into()));
        }
        let row = self
            .live(&key)
            .filter(|row| !row.is_tombstone() || !self.is(Flaw::TouchIgnoresTombstones));
        let Some(row) = row else {
            if self.is(Flaw::TouchMakesRows) {
                let made = RecordBuilder::new().version(version);
                self.write(key, &made.expires_at(expires_at).build());
            }
            return Ok(SaveOutcome::Gone);
        };
        if row.version() != version && !self.is(Flaw::TouchIgnoresTheVersion) {
            return Ok(SaveOutcome::Conflict(row.into()));
        }
        if row.expires_at() >= expires_at && !self.is(Flaw::TouchShortens) {
            return Ok(SaveOutcome::Saved);
        }
        if self.is(Flaw::TouchIsTwoSteps) {
            tokio::time::sleep(MOMENT).await;
        }
        let one_at_a_time = if self.is(Flaw::TouchWritesBack) {
            None
        } else {
            Some(self.one_at_a_time.lock().await)
        };
        // What was there before waiting.
        if one_at_a_time.is_none() {
            tokio::time::sleep(MOMENT).await;
        } else {
            match self.live(&key) {
                None => return Ok(SaveOutcome::Gone),
                Some(now) if now.version() != row.version() => {
                    return Ok(SaveOutcome::Conflict(now.into()));
                }
                Some(now)
                    if now.expires_at() >= expires_at
                        && !self.is(Flaw::TouchShortens)
                        && !self.is(Flaw::TouchIsTwoSteps) =>
                {
                    return Ok(SaveOutcome::Saved);
                }
                Some(_) => {}
            }
        }
        let touched = if self.is(Flaw::TouchLosesTheOwner) {
            let touched = RecordBuilder::new().version(version);
            touched.expires_at(expires_at).build()
        } else {
            row.with_expires_at(expires_at)
        };
        self.created_until.lock().unwrap().insert(key, expires_at);
        self.write(key, &touched);
        Ok(SaveOutcome::Saved)
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsNothingExpired) {
            return Ok(0);
        }
        self.engine()?;
        if self.is(Flaw::DeleteExpiredDeletesNothing) {
            return Ok(0);
        }
        let limit = if self.is(Flaw::DeleteExpiredIgnoresItsLimit) {
            usize::MAX
        } else {
            usize::try_from(limit).unwrap()
        };
        let one_at_a_time = self.one_at_a_time.lock().await;
        let (all, forgets) = (Flaw::DeleteExpiredDeletesAll, Flaw::DeleteExpiredForgetsTouches);
        let expired = self.expired(all, forgets, limit);
        if self.is(Flaw::DeleteExpiredIsTwoSteps) {
            drop(one_at_a_time);
            tokio::time::sleep(LONG_MOMENT).await;
        }
        self.rows().retain(|key, _| !expired.contains(key));
        Ok(expired.len() as u64)
    }

    async fn take_expired(&self, limit: u32) -> Result<Vec<(StoreKey, Record)>, StoreError> {
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsAnEmptyPage) {
            return Ok(Vec::new());
        }
        self.engine()?;
        if !self.returns_expired() {
            return Ok(Vec::new());
        }
        let limit = if self.is(Flaw::TakeExpiredIgnoresItsLimit) {
            usize::MAX
        } else {
            usize::try_from(limit).unwrap()
        };
        let one_at_a_time = self.one_at_a_time.lock().await;
        let (all, forgets) = (Flaw::TakeExpiredTakesLiveRows, Flaw::TakeExpiredForgetsTouches);
        let expired = self.expired(all, forgets, usize::MAX);
        let (unreadable, mut expired): (Vec<_>, Vec<_>) =
            expired.into_iter().partition(|key| self.read(key).is_err());
        if let Some(key) = unreadable.first() {
            if self.is(Flaw::TakeExpiredStopsAtUnreadableRows) {
                return Ok(Vec::new());
            }
            if self.is(Flaw::TakeExpiredFailsAtUnreadableRows) {
                return self.read(key).map(|()| Vec::new());
            }
        }
        if !self.is(Flaw::TakeExpiredLeavesUnreadableRows) {
            self.rows().retain(|key, _| !unreadable.contains(key));
        }
        expired.truncate(limit);
        let mut taken = Vec::new();
        for key in expired {
            taken.extend(self.rows().get(&key).cloned().map(|row| (key, row)));
        }
        if self.is(Flaw::TakeExpiredIsTwoSteps) {
            drop(one_at_a_time);
            tokio::time::sleep(LONG_MOMENT).await;
        }
        if !self.is(Flaw::TakeExpiredKeepsTheRows) {
            self.rows().retain(|key, _| taken.iter().all(|(taken, _)| taken != key));
        }
        if self.is(Flaw::TakeExpiredDropsTombstones) {
            taken.retain(|(_, row)| !row.is_tombstone());
        }
        Ok(taken)
    }

    fn returns_expired(&self) -> bool {
        !self.is(Flaw::TakesNothingWithoutSupport)
    }

    async fn list(&self, after: Option<&Cursor>, limit: u32) -> Result<KeyPage, StoreError> {
        if self.engine().is_err() && self.is(Flaw::EngineErrorIsAnEmptyPage) {
            return Ok(KeyPage::default());
        }
        self.engine()?;
        if !self.lists_sessions() {
            return Ok(KeyPage::default());
        }
        let after = after.map_or(&[][..], Cursor::as_bytes);
        if self.is(Flaw::ListExpectsItsOwnCursors) && !after.is_empty() {
            assert_eq!(after.len(), 32, "a cursor is a key");
        }
        let limit = if self.is(Flaw::ListIgnoresItsLimit) {
            usize::MAX
        } else {
            usize::try_from(limit.max(1)).unwrap()
        };
        let shows_expired =
            self.is(Flaw::ListShowsExpiredRows) || self.is(Flaw::ListEndsAtAPageOfExpiredRows);
        // Each row with the bytes of its place in the order.
        let mut rows: Vec<_> = self
            .rows()
            .iter()
            .map(|(key, row)| (self.place(key, row), *key, self.is_live(row)))
            .filter(|(.., is_live)| *is_live || shows_expired)
            .filter(|(_, key, _)| self.outlives(Flaw::ListForgetsUpdates, key))
            .collect();
        rows.sort();
        if self.is(Flaw::ListCountsRows) {
            let count = |number: usize| u32::try_from(number).unwrap().to_be_bytes().to_vec();
            rows.iter_mut().enumerate().for_each(|(number, row)| row.0 = count(number));
        }
        rows.retain(|(place, ..)| place.as_slice() > after);
        rows.truncate(limit);
        let mut next = rows.last().map(|(place, ..)| Cursor::new(place.clone()));
        if self.is(Flaw::ListEndsAtAPageOfExpiredRows) {
            rows.retain(|(.., is_live)| *is_live);
            next = next.filter(|_| !rows.is_empty());
        }
        if self.is(Flaw::ListEndsAtAPageOfOne) && limit == 1 {
            next = None;
        }
        if self.is(Flaw::ListLosesTheLastOfAPage) {
            rows.pop();
        }
        if self.is(Flaw::ListHasNoEnd) {
            next = next.or_else(|| Some(Cursor::new(after)));
        }
        Ok(KeyPage { keys: rows.into_iter().map(|(_, key, _)| key).collect(), next })
    }

    fn lists_sessions(&self) -> bool {
        !self.is(Flaw::ListsNothingWithoutSupport)
    }

    fn indexes_owners(&self) -> bool {
        !self.is(Flaw::FindsNobodyWithoutAnIndex)
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        if !self.indexes_owners()
            || (self.engine().is_err() && self.is(Flaw::EngineErrorIsAnEmptyList))
        {
            return Ok(Vec::new());
        }
        self.engine()?;
        let mut found = self.keys_of(owner, &self.rows());
        if self.is(Flaw::FindByOwnerIsTwoSteps) {
            tokio::time::sleep(MOMENT).await;
            found.retain(|key| self.live(key).is_some_and(|row| row.owner() == Some(*owner)));
        }
        if self.is(Flaw::IndexIsTwoSteps) {
            let keys = self.index.lock().unwrap().get(owner).cloned().unwrap_or_default();
            found.retain(|key| keys.contains(key));
        }
        if self.is(Flaw::IndexKeepsFormerOwners) || self.is(Flaw::IndexKeepsOwnersOfExpiredRows) {
            let former = self.former_owners.lock().unwrap();
            found.extend(former.iter().filter(|(of, _)| of == owner).map(|(_, key)| *key));
        }
        Ok(found)
    }

    async fn destroy_by_owner(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        self.engine()?;
        let keep = keep.filter(|_| !self.is(Flaw::DestroyByOwnerIgnoresKeep));
        if self.is(Flaw::DestroyByOwnerIsTwoSteps) {
            let mut ending = self.keys_of(owner, &self.rows());
            tokio::time::sleep(MOMENT).await;
            ending.retain(|key| Some(key) != keep);
            let mut rows = self.rows();
            return Ok(ending.iter().filter(|key| rows.remove(*key).is_some()).count() as u64);
        }
        let mut rows = self.rows();
        let mut ending = self.keys_of(owner, &rows);
        ending.retain(|key| Some(key) != keep);
        let ended = ending.iter().filter(|key| rows.remove(*key).is_some()).count() as u64;
        Ok(if self.is(Flaw::DestroyByOwnerMiscounts) { ended + 1 } else { ended })
    }
}

/// Returns `true` if a check panics.
fn fails<F: Future<Output = ()>>(check: impl FnOnce() -> F + Send + 'static) -> bool {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(check());
    };
    thread::spawn(run).join().is_err()
}

// Every check passes where there is no flaw.
session_store_conformance!(without_a_flaw, Flawed::tested(Flaw::Nothing));

/// Makes a module of each flaw, with a test of each check that must fail. A flaw has one check only if one situation
/// shows it, such as a race.
macro_rules! caught {
    ($($flaw:ident by $first:ident $(, $other:ident)*;)+) => { $(
        #[allow(non_snake_case, reason = "the name of the flaw")]
        mod $flaw {
            use super::*;

            caught! { @$flaw $first }
            $(caught! { @$flaw $other })*
        }
    )+ };
    (@$flaw:ident $check:ident) => {
        #[test]
        fn $check() {
            let check = async || conformance::$check(&Flawed::tested(Flaw::$flaw)).await;
            assert!(fails(check), "{:?} passed {}", Flaw::$flaw, stringify!($check));
        }
    };
}

caught! {
    CreateOverwrites by create_conflicts_with_a_live_row, concurrent_creates_save_one;
    CreateTakesOverTombstones by create_conflicts_with_a_tombstone, every_field_comes_back;
    CreateConflictsWithExpiredRows by create_replaces_an_expired_row,
        take_expired_leaves_live_rows;
    CreateOverExpiredRowsIsTwoSteps by concurrent_creates_over_an_expired_row_save_one;
    CreateTakesExpiredRowsForItsOwn by create_replaces_an_expired_row_of_its_own_version;
    UpdateDoesNothing by update_replaces_the_version_it_expects, save_moves_the_expiry;
    UpdateMakesRows by update_never_makes_a_row, gone_stays_gone;
    UpdateIgnoresTheVersion by update_conflicts_with_another_version,
        concurrent_updates_of_a_version_save_one, compare_and_swap_loses_nothing;
    UpdateRevivesExpiredRows by update_does_not_revive_an_expired_row, save_moves_the_expiry;
    UpdateConflictsWithExpiredRows by writes_at_another_version_of_an_expired_row_are_gone;
    TouchConflictsWithExpiredRows by writes_at_another_version_of_an_expired_row_are_gone;
    DestroyAtConflictsWithExpiredRows by writes_at_another_version_of_an_expired_row_are_gone;
    ConflictHasNoRecordOfItsOwn by create_conflicts_with_a_live_row, every_field_comes_back,
        compare_and_swap_loses_nothing;
    RepeatedCreateConflicts by a_repeated_create_is_one_write, a_repeated_write_undoes_no_touch;
    RepeatedUpdateConflicts by a_repeated_update_is_one_write, every_field_comes_back;
    RepeatedWriteShortens by a_repeated_write_undoes_no_touch,
        touched_rows_outlive_their_first_expiry;
    LoadReturnsExpiredRows by load_hides_an_expired_row, touch_does_not_revive_an_expired_row;
    LoadIsTwoSteps by reads_return_no_mix_of_two_records;
    RowsLiveForTenMinutes by rows_live_until_their_end, every_field_comes_back;
    RowsLiveForHalfTheirLife by rows_live_until_their_end, every_field_comes_back;
    PastEndsAreNever by a_record_saved_after_its_end_is_absent;
    SaveIsTwoSteps by concurrent_creates_save_one, concurrent_updates_of_a_version_save_one,
        compare_and_swap_loses_nothing, destroy_beats_racing_updates;
    SaveIsTwoWrites by a_dropped_create_leaves_all_or_nothing, a_dropped_update_leaves_old_or_new;
    ExpiryIsInSeconds by every_field_comes_back, create_finds_no_row;
    MaxAgeIsLost by every_field_comes_back, touch_moves_only_the_expiry;
    PayloadIsText by payloads_are_opaque_bytes, every_field_comes_back;
    KeysIgnoreCase by keys_are_compared_byte_by_byte, owners_are_found_by_their_rows;
    KeysEndAtAZeroByte by keys_are_compared_byte_by_byte, list_returns_every_live_row;
    TouchShortens by touch_never_shortens, touched_rows_outlive_their_first_expiry;
    TouchMakesRows by touch_never_makes_a_row, gone_stays_gone;
    TouchIgnoresTheVersion by touch_conflicts_with_another_version, touch_leaves_the_row_writable;
    TouchWritesBack by touch_undoes_no_racing_update, touch_revives_no_destroyed_row,
        concurrent_touches_keep_the_latest_end;
    TouchLosesTheOwner by touch_moves_only_the_expiry, a_dropped_touch_leaves_a_whole_row;
    TouchIsTwoSteps by concurrent_touches_keep_the_latest_end;
    TouchIgnoresTombstones by tombstones_are_touched_and_destroyed_like_rows;
    DeleteExpiredDeletesAll by delete_expired_leaves_live_rows, delete_expired_respects_its_limit;
    DeleteExpiredDeletesNothing by delete_expired_deletes_expired_rows,
        delete_expired_leaves_live_rows;
    DeleteExpiredIgnoresItsLimit by delete_expired_respects_its_limit,
        delete_expired_deletes_expired_rows;
    DeleteExpiredForgetsTouches by delete_expired_leaves_live_rows,
        touched_rows_outlive_their_first_expiry;
    DeleteExpiredIsTwoSteps by a_row_created_during_a_cleanup_stays;
    IndexKeepsFormerOwners by the_owner_index_follows_the_row, the_owner_index_forgets_ended_rows;
    IndexKeepsExpiredRows by find_by_owner_hides_expired_rows,
        touched_rows_outlive_their_first_expiry;
    IndexKeepsOwnersOfExpiredRows by the_owner_index_forgets_replaced_expired_rows;
    IndexForgetsUpdates by updated_rows_outlive_their_first_expiry;
    IndexIsTwoSteps by the_owner_index_follows_concurrent_writes,
        a_dropped_create_leaves_all_or_nothing, a_dropped_update_leaves_old_or_new;
    DestroyByOwnerIgnoresKeep by destroy_by_owner_keeps_the_one_it_is_told_to,
        a_dropped_destroy_by_owner_leaves_whole_rows;
    DestroyByOwnerMiscounts by destroy_by_owner_ends_every_session,
        find_by_owner_hides_expired_rows;
    DestroyByOwnerIsTwoSteps by destroy_by_owner_follows_a_new_id;
    FindByOwnerIsTwoSteps by find_by_owner_follows_a_new_id;
    OwnersIgnoreCase by owners_are_compared_byte_by_byte;
    DestroyDoesNothing by destroy_removes_the_row, gone_stays_gone;
    DestroyFailsOnExpiredRows by destroy_of_an_expired_row_succeeds;
    DestroyIsTwoWrites by a_dropped_destroy_leaves_all_or_nothing;
    DestroyAtSucceedsOnNothing by destroy_at_finds_no_row,
        destroy_at_removes_the_version_it_expects;
    DestroyFailsOnNothing by destroying_nothing_succeeds, keys_are_compared_byte_by_byte;
    DestroyAtIgnoresTheVersion by destroy_at_conflicts_with_another_version,
        update_conflicts_with_another_version;
    DestroyAtDoesNothing by destroy_at_removes_the_version_it_expects,
        the_owner_index_forgets_ended_rows;
    DestroyAtKeepsTombstones by tombstones_are_touched_and_destroyed_like_rows;
    FindsNobodyWithoutAnIndex by without_an_index_owners_are_unsupported,
        owners_are_found_by_their_rows;
    ListLosesTheLastOfAPage by list_returns_every_live_row, list_hides_rows_that_are_gone;
    ListShowsExpiredRows by list_hides_rows_that_are_gone, load_hides_an_expired_row;
    ListCountsRows by list_misses_no_row_while_others_come_and_go;
    ListIsInOrderOfExpiry by list_misses_no_row_while_others_come_and_go;
    ListIgnoresItsLimit by list_returns_every_live_row, list_takes_any_cursor_and_limit;
    ListEndsAtAPageOfExpiredRows by list_hides_rows_that_are_gone;
    ListEndsAtAPageOfOne by list_returns_every_row_in_pages_of_one;
    ListForgetsUpdates by updated_rows_outlive_their_first_expiry;
    ListHasNoEnd by list_returns_every_live_row, list_hides_rows_that_are_gone;
    ListExpectsItsOwnCursors by list_takes_any_cursor_and_limit;
    ListsNothingWithoutSupport by without_a_list_it_is_unsupported, list_returns_every_live_row;
    TakeExpiredKeepsTheRows by take_expired_returns_what_it_deletes,
        take_expired_gives_each_row_once;
    TakeExpiredTakesLiveRows by take_expired_leaves_live_rows, take_expired_returns_what_it_deletes;
    TakeExpiredForgetsTouches by take_expired_leaves_live_rows,
        touched_rows_outlive_their_first_expiry;
    TakeExpiredIsTwoSteps by take_expired_gives_each_row_once, a_row_created_during_a_cleanup_stays;
    TakeExpiredIgnoresItsLimit by take_expired_returns_what_it_deletes,
        take_expired_gives_each_row_once;
    TakeExpiredDropsTombstones by take_expired_returns_what_it_deletes,
        take_expired_gives_each_row_once;
    TakeExpiredStopsAtUnreadableRows by take_expired_leaves_out_unreadable_rows;
    TakeExpiredFailsAtUnreadableRows by take_expired_leaves_out_unreadable_rows;
    TakeExpiredLeavesUnreadableRows by take_expired_leaves_out_unreadable_rows;
    TakesNothingWithoutSupport by without_taking_expired_rows_it_is_unsupported,
        take_expired_returns_what_it_deletes;
    EngineErrorIsNone by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorIsGone by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorIsAnEmptyList by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorIsAnEmptyPage by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorIsNothingExpired by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorIsADestroy by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    EngineErrorLosesTheRow by a_broken_engine_is_an_error, rows_are_back_when_the_engine_is;
    UnreadableRowIsNone by an_unreadable_row_is_an_error_and_stays,
        an_unreadable_row_can_be_destroyed;
    UnreadableRowIsDeleted by an_unreadable_row_is_an_error_and_stays,
        an_unreadable_row_can_be_destroyed;
    UnreadableRowCannotBeDestroyed by an_unreadable_row_is_an_error_and_stays,
        an_unreadable_row_can_be_destroyed;
}

#[test]
fn the_macro_runs_every_check() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing/conformance");
    let sources = std::fs::read_dir(folder).unwrap();
    let sources = sources.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let source: String = sources.collect();
    let (_, list) = source.split_once("! { $($with)*").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let listed: BTreeSet<&str> = list.split_whitespace().collect();
    let checks = source.split("\npub async fn ").skip(1);
    let checks: BTreeSet<&str> = checks.map(|check| check.split_once('(').unwrap().0).collect();
    assert_eq!(listed, checks);
}

#[test]
fn every_check_catches_a_flaw() {
    let source = include_str!("store_conformance.rs");
    let (_, list) = source.split_once("\ncaught! {").unwrap();
    let (list, _) = list.split_once("\n}").unwrap();
    let caught: BTreeSet<&str> = list.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    macro_rules! assert_caught {
        ($($check:ident)*) => { $(
            assert!(caught.contains(stringify!($check)), "{} catches no flaw", stringify!($check));
        )* };
    }
    axum_typed_session::__conformance_checks! { [assert_caught] }
}
