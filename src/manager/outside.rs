//! Operations on stored sessions outside a request, and the loop that `update` is made of.

use std::{fmt, ops::Deref, sync::Arc, time::SystemTime};

use super::{Backing, Basis, Live, SessionManager, contention::Contention, payload::Unreadable};
use crate::{
    clock::Timestamp,
    error::{SessionError, SessionRejection, StoreError},
    event::SessionEvent,
    id::{OwnerKey, StoreKey},
    record::{Record, Version},
    store::{SaveOutcome, SessionStore, Write},
};

/// A session as a store holds it: the data, which it derefs to, and when it began and ends.
#[derive(Clone)]
pub struct StoredSession<T> {
    data: T,
    key: StoreKey,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl<T> StoredSession<T> {
    /// Returns what names this session to the store, such as for [`SessionManager::destroy`].
    #[must_use]
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns when the session began, or when its owner last changed.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        self.created_at.into()
    }

    /// Returns when the session ends unless something extends it.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at.into()
    }

    /// Returns the data alone.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.data
    }
}

impl<T> Deref for StoredSession<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> fmt::Debug for StoredSession<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("key", &self.key)
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What an `update` made of a row.
pub(crate) struct Updated<T, R> {
    pub(crate) result: R,
    pub(crate) data: T,
    pub(crate) record: Record,
}

/// An owner who logs in faster than this many rounds end sessions is not waited for.
const MAX_ROUNDS: usize = 64;

/// Whether a save restarts the session's clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Restart,
    Keep,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Returns the same manager over another store, for tenants of `store_for` and for tests.
    ///
    /// Sessions of the original open here too if their rows are in `store`.
    #[must_use]
    pub fn with_store(&self, store: impl SessionStore) -> Self {
        Self { config: self.config.clone(), backing: Backing::Store(Arc::new(store)) }
    }

    /// Returns a stored session, or `None` if it has ended, was replaced or does not validate.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] when the store is down, [`SessionError::NoStore`] in cookie mode.
    pub async fn load(
        &self,
        key: impl Into<StoreKey>,
    ) -> Result<Option<StoredSession<T>>, SessionError> {
        let key = key.into();
        let store = self.store("load")?;
        let Some(record) = self.load_live(store, &key).await? else {
            return Ok(None);
        };
        self.stored_session(key, &record)
    }

    /// Changes a stored session, keeping its expiry, and returns what `change` returned.
    ///
    /// `change` runs again on the fresh row whenever another writer came first, so it should do nothing
    /// but change the data. A change that changes nothing is not written.
    ///
    /// # Errors
    ///
    /// [`SessionError::Gone`] if the session has ended, [`SessionError::Conflict`] if others kept coming
    /// first for five seconds, and what [`commit`](crate::Session::commit) answers besides.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the row wholly old or wholly new.
    pub async fn update<R>(
        &self,
        key: impl Into<StoreKey>,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<R, SessionError> {
        let key = key.into();
        let store = self.store("update")?;
        let record = self.load_live(store, &key).await?;
        let record = record.ok_or_else(|| self.gone(Some(key)))?;
        let updated = self.update_loop(store, &key, record, Expiry::Keep, change);
        Ok(updated.await?.result)
    }

    /// Ends a stored session; ending one that has ended is a success.
    ///
    /// # Errors
    ///
    /// [`SessionError::Gone`] if the session got a new id and lives on under that,
    /// [`SessionError::Store`] unless it is certain that it has ended, [`SessionError::NoStore`] in cookie
    /// mode.
    pub async fn destroy(&self, key: impl Into<StoreKey>) -> Result<(), SessionError> {
        let key = key.into();
        let store = self.store("destroy")?;
        match self.rows(store).load(&key).await {
            Ok(None) => {}
            Ok(Some(record)) if record.is_tombstone() => return Err(self.gone(Some(key))),
            Ok(Some(record)) => self.destroy_session(store, &key, record.version()).await?,
            // What cannot be read can still be ended.
            Err(StoreError::Corrupt | StoreError::Newer) => self.rows(store).destroy(&key).await?,
            Err(error) => return Err(error.into()),
        }
        self.emit(|| SessionEvent::Destroyed { session: key.fingerprint() });
        Ok(())
    }

    /// Returns the live sessions of an owner, the newest first, with a store call for each.
    ///
    /// One that gets a new id meanwhile may be left out: this is for showing, `destroy_all_of` for ending.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] when the store is down or does not index owners,
    /// [`SessionError::NoStore`] in cookie mode.
    pub async fn sessions_of(&self, owner: &str) -> Result<Vec<StoredSession<T>>, SessionError> {
        let store = self.store("sessions_of")?;
        let owner = self.config.scope.owner(owner);
        let rows = self.rows(store);
        let find = rows.bounded("find_by_owner", store.find_by_owner(&owner));
        let mut sessions = Vec::new();
        for key in find.await? {
            let record = self.load_live(store, &key).await?;
            // The index may name a session that changed hands meanwhile.
            let record = record.filter(|record| record.owner() == Some(owner));
            if let Some(record) = record {
                sessions.extend(self.stored_session(key, &record)?);
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }

    /// Ends one session if it is this owner's, and says whether it was.
    ///
    /// For pages on which people end their own sessions, where the key comes from a form.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    pub async fn destroy_of(
        &self,
        owner: &str,
        key: impl Into<StoreKey>,
    ) -> Result<bool, SessionError> {
        let key = key.into();
        let store = self.store("destroy_of")?;
        let owner = self.config.scope.owner(owner);
        let is_owner = |record: Record| record.owner() == Some(owner);
        if !self.load_live(store, &key).await?.is_some_and(is_owner) {
            return Ok(false);
        }
        self.destroy(key).await?;
        Ok(true)
    }

    /// Ends every session of an owner that was saved before the call, and returns how many; fewer than there
    /// were if the store took longer than `store_timeout` and was asked again.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] when the store fails or does not index owners, [`SessionError::Conflict`] when
    /// new sessions kept coming; sessions ended before that stay ended, so calling again is safe.
    /// [`SessionError::NoStore`] in cookie mode.
    pub async fn destroy_all_of(&self, owner: &str) -> Result<u64, SessionError> {
        self.destroy_by_owner("destroy_all_of", owner, None).await
    }

    /// Ends every session of an owner but one, such as after a change of password.
    ///
    /// After a `regenerate` the one to keep is [`SessionCommit::id`](crate::SessionCommit::id).
    ///
    /// # Errors
    ///
    /// As [`destroy_all_of`](Self::destroy_all_of).
    pub async fn destroy_others_of(
        &self,
        owner: &str,
        keep: impl Into<StoreKey>,
    ) -> Result<u64, SessionError> {
        let keep = keep.into();
        self.destroy_by_owner("destroy_others_of", owner, Some(&keep)).await
    }

    /// Deletes at most `limit` expired rows and returns how many; for a periodic task.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] when the store fails, [`SessionError::NoStore`] in cookie mode without
    /// revocations.
    pub async fn delete_expired(&self, limit: u32) -> Result<u64, SessionError> {
        let store = match &self.backing {
            Backing::Token(Some(list)) => list,
            Backing::Token(None) | Backing::Store(_) | Backing::StoreFor(_) => {
                self.store("delete_expired")?
            }
        };
        let rows = self.rows(store);
        let delete = rows.bounded("delete_expired", store.delete_expired(limit));
        Ok(delete.await?)
    }

    async fn destroy_by_owner(
        &self,
        operation: &'static str,
        owner: &str,
        keep: Option<&StoreKey>,
    ) -> Result<u64, SessionError> {
        let store = self.store(operation)?;
        let owner: OwnerKey = self.config.scope.owner(owner);
        let rows = self.rows(store);
        let at_once = store.destroy_by_owner(&owner, keep);
        match rows.bounded("destroy_by_owner", at_once).await {
            // A store that is up and has much to do gets its time, one bounded call after another.
            Err(StoreError::Timeout { .. }) => {}
            result => return Ok(result?),
        }
        let mut destroyed = 0;
        for _ in 0..MAX_ROUNDS {
            let find = rows.bounded("find_by_owner", store.find_by_owner(&owner));
            let mut keys = find.await?;
            keys.retain(|key| Some(key) != keep);
            if keys.is_empty() {
                return Ok(destroyed);
            }
            for key in &keys {
                rows.destroy(key).await?;
                destroyed += 1;
            }
        }
        Err(SessionError::Conflict)
    }

    fn store(&self, operation: &'static str) -> Result<&Arc<dyn SessionStore>, SessionError> {
        match &self.backing {
            Backing::Store(store) => Ok(store),
            Backing::Token(_) | Backing::StoreFor(_) => Err(SessionError::NoStore { operation }),
        }
    }

    /// Loads a row that is neither ended, replaced nor damaged.
    async fn load_live(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
    ) -> Result<Option<Record>, SessionError> {
        let now = self.now();
        match self.rows(store).load(key).await {
            Ok(record) => Ok(record.filter(|record| {
                !record.is_tombstone() && self.config.policy.ends_at(&record.lifetime) > now
            })),
            Err(StoreError::Corrupt) => {
                self.alarm(&SessionEvent::Corrupt { session: key.fingerprint() });
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn stored_session(
        &self,
        key: StoreKey,
        record: &Record,
    ) -> Result<Option<StoredSession<T>>, SessionError> {
        Ok(self.readable(&key, record)?.map(|data| StoredSession {
            data,
            key,
            created_at: record.created_at(),
            expires_at: self.config.policy.ends_at(&record.lifetime),
        }))
    }

    fn readable(&self, key: &StoreKey, record: &Record) -> Result<Option<T>, SessionError> {
        match self.decode(record) {
            Ok(data) if self.is_valid_data(&data) => Ok(Some(data)),
            Err(Unreadable::Newer) => Err(SessionRejection::Newer.into()),
            Err(Unreadable::Corrupt) => {
                self.alarm(&SessionEvent::Corrupt { session: key.fingerprint() });
                Ok(None)
            }
            Ok(_) | Err(Unreadable::Refused) => {
                self.emit(|| SessionEvent::Invalid { session: key.fingerprint() });
                Ok(None)
            }
        }
    }

    /// `update` of a request's own session, which restarts its clock as every save does.
    pub(crate) async fn update_live<R>(
        &self,
        basis: &Basis,
        live: &Live,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<Updated<T, R>, SessionError> {
        let store = basis.store.as_ref();
        let store = store.ok_or(SessionError::NoStore { operation: "update" })?;
        let key = live.id.store_key();
        let record = live.record.clone();
        self.update_loop(store, &key, record, Expiry::Restart, change).await
    }

    async fn update_loop<R>(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
        mut record: Record,
        expiry: Expiry,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<Updated<T, R>, SessionError> {
        let mut contention = Contention::start();
        loop {
            let data = self.readable(key, &record)?;
            let mut data = data.ok_or_else(|| self.gone(Some(*key)))?;
            let result = change(&mut data);
            let next = self.next_record(&mut data, &record, expiry)?;
            let Some(next) = next else {
                return Ok(Updated { result, data, record });
            };
            let write = Write::Update { expected: record.version() };
            let rows = self.rows(store);
            let theirs = match rows.save(key, &next, write).await? {
                SaveOutcome::Saved => {
                    self.emit(|| SessionEvent::Saved { session: key.fingerprint() });
                    return Ok(Updated { result, data, record: next });
                }
                SaveOutcome::Conflict(theirs) => contention.next(&rows, key, theirs).await?,
                SaveOutcome::Gone => None,
            };
            record = self.not_gone(key, theirs)?;
        }
    }

    /// Makes the record of changed data; `None` if it did not change.
    fn next_record(
        &self,
        data: &mut T,
        record: &Record,
        expiry: Expiry,
    ) -> Result<Option<Record>, SessionError> {
        let ours = self.encode(data)?;
        if self.is_current(record) && self.is_same_data(&record.payload, &ours) {
            return Ok(None);
        }
        let prepared = self.prepare(data, Some(ours))?;
        let stored = record.lifetime;
        let owner_arrived = prepared.owner.is_some() && prepared.owner != record.owner;
        let mut lifetime = stored;
        if owner_arrived || expiry == Expiry::Restart {
            let now = self.now();
            let (created_at, stored_end) = if owner_arrived {
                (now, None)
            } else {
                (stored.created_at, Some(stored.absolute_end))
            };
            let owned = prepared.owner.is_some();
            lifetime = self.config.policy.saved(created_at, stored_end, now, stored.max_age, owned);
        }
        if expiry == Expiry::Keep {
            lifetime.expires_at = stored.expires_at.min(lifetime.absolute_end);
        }
        Ok(Some(Record {
            version: Version::random().map_err(SessionError::Random)?,
            schema: self.config.schema,
            codec: self.config.codec.tag(),
            owner: prepared.owner,
            lifetime,
            tombstone: false,
            payload: prepared.payload,
        }))
    }
}
