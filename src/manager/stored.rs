//! Operations on stored sessions outside a request, and `update`, which also serves requests.

use std::{fmt, ops::Deref, sync::Arc};

use time::OffsetDateTime;

use super::{SessionManager, basis::Basis, core::Home, incoming::Verdict};
use crate::{
    clock::Timestamp,
    decision::{Live, Origin, lifetime_after_save, tells},
    error::SessionError,
    event::SessionEventKind as Kind,
    expiry::Lifetime,
    id::{OwnerKey, StoreKey},
    store::{Record, SessionStore},
};

/// A session as a store holds it. It derefs to the data.
#[derive(Clone)]
pub struct StoredSession<T> {
    data: T,
    key: StoreKey,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl<T> StoredSession<T> {
    /// Returns the key under which the store keeps the session, such as for [`SessionManager::destroy`].
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns when the session began, or when its owner last changed.
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at.into()
    }

    /// Returns when the session ends unless a commit extends it.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at.into()
    }

    /// Returns the data.
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

/// How long ending all sessions of an owner may take: many more than one store call.
const LONGEST_ENDING: u32 = 15;

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Returns the same manager with another store, for tenants of
    /// [`store_for`](crate::SessionManagerBuilder::store_for) and for tests.
    ///
    /// It opens sessions of the original manager too, if `store` has their rows.
    pub fn with_store(&self, store: impl SessionStore) -> Self {
        Self { core: self.core.with_store(store), data: self.data.clone() }
    }

    /// Returns a stored session; `None` if it has ended, has a new id, or is rejected by
    /// [`validate_data`](crate::SessionManagerBuilder::validate_data).
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store is down.
    /// - [`SessionError::NoStore`] in cookie mode.
    pub async fn load(
        &self,
        key: impl Into<StoreKey>,
    ) -> Result<Option<StoredSession<T>>, SessionError> {
        let key = key.into();
        let store = self.core.store("load")?;
        let loaded = self.load_valid(store, &key).await?;
        Ok(loaded.map(|(record, data)| self.stored_session(key, &record, data)))
    }

    /// Changes a stored session, keeps its expiry, and returns the result of `change`.
    ///
    /// `change` runs again on the newest row whenever another writer came first, so it should do nothing but change
    /// the data. Nothing is written if the data stays the same.
    ///
    /// A key names no identity. If another person has logged in on this session meanwhile, `change` changes that
    /// person's data. A [`SessionHandle`](crate::SessionHandle) answers [`SessionError::Gone`] instead.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has ended or has a new id.
    /// - [`SessionError::Conflict`] if other writers came first for five seconds.
    /// - All other errors of [`commit`](crate::Session::commit).
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the row wholly old or wholly new.
    pub async fn update<R>(
        &self,
        key: impl Into<StoreKey>,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<R, SessionError> {
        self.update_of(key.into(), None, change).await
    }

    /// Changes a stored session. If `epoch` is given, it changes only the session of that identity.
    pub(crate) async fn update_of<R>(
        &self,
        key: StoreKey,
        epoch: Option<u64>,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<R, SessionError> {
        let store = self.core.store("update")?;
        let (record, data) = self.load_of(store, &key, epoch).await?;
        let asks_identity = epoch.is_some();
        let applied = self.apply(store, key, record, data, asks_identity, Expiry::Keep, change);
        Ok(applied.await?.result)
    }

    /// Loads the session of a handle.
    pub(crate) async fn load_identity(
        &self,
        key: StoreKey,
        epoch: u64,
    ) -> Result<StoredSession<T>, SessionError> {
        let store = self.core.store("load")?;
        let (record, data) = self.load_of(store, &key, Some(epoch)).await?;
        Ok(self.stored_session(key, &record, data))
    }

    /// Ends a session as long as it is the one that `is_meant`.
    pub(crate) async fn destroy_if(
        &self,
        operation: &'static str,
        key: StoreKey,
        is_meant: impl Fn(&Record) -> bool,
    ) -> Result<(), SessionError> {
        let rows = self.core.rows_in(self.core.store(operation)?);
        if self.core.destroy_row(rows, key, None, is_meant).await?.is_some() {
            return Err(self.core.gone(Some(key)));
        }
        self.core.report(Kind::Destroyed, || key);
        Ok(())
    }

    /// Ends a stored session. If it has already ended, this is a success.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has a new id and goes on under it.
    /// - [`SessionError::Store`] unless it is certain that the session has ended.
    /// - [`SessionError::NoStore`] in cookie mode.
    pub async fn destroy(&self, key: impl Into<StoreKey>) -> Result<(), SessionError> {
        self.destroy_if("destroy", key.into(), |_| true).await
    }

    /// Returns the live sessions of an [`owner`](crate::SessionManagerBuilder::owner), the newest first. It makes one
    /// store call for each.
    ///
    /// Use it only for display: a session that gets a new id during the call may be missing.
    /// [`destroy_all_of`](Self::destroy_all_of) misses no session.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store is down or does not index owners.
    /// - [`SessionError::NoStore`] in cookie mode.
    pub async fn sessions_of(&self, owner: &str) -> Result<Vec<StoredSession<T>>, SessionError> {
        let store = self.core.store("sessions_of")?;
        let owner = self.core.scope.owner(owner);
        let rows = self.core.rows_in(store);
        let find = rows.bounded("find_by_owner", store.find_by_owner(&owner));
        let mut sessions = Vec::new();
        for key in find.await? {
            // The index may name a session whose owner has changed meanwhile.
            let found = self.load_valid(store, &key).await?;
            if let Some((record, data)) = found.filter(|(record, _)| record.owner == Some(owner)) {
                sessions.push(self.stored_session(key, &record, data));
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }

    /// Ends a session if it belongs to this owner. Returns `true` if it does.
    ///
    /// Use it on pages where users end their own sessions and the key comes from a form.
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
        let store = self.core.store("destroy_of")?;
        let owner = Some(self.core.scope.owner(owner));
        let found = self.load_valid(store, &key).await?;
        if found.is_none_or(|(record, _)| record.owner != owner) {
            return Ok(false);
        }
        self.destroy_if("destroy_of", key, |record| record.owner == owner).await?;
        Ok(true)
    }

    /// Ends every session of an owner that was saved before the call, and returns how many it ended.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store fails, does not index owners, or takes longer than fifteen times
    ///   [`store_timeout`](crate::SessionManagerBuilder::store_timeout). Sessions that ended before the error stay
    ///   ended, so calling again is safe.
    /// - [`SessionError::NoStore`] in cookie mode.
    pub async fn destroy_all_of(&self, owner: &str) -> Result<u64, SessionError> {
        self.destroy_by_owner("destroy_all_of", owner, None).await
    }

    /// Ends every session of an owner except `keep`, such as after a change of password.
    ///
    /// After a [`regenerate`](crate::Session::regenerate), pass
    /// [`SessionCommit::id`](crate::SessionCommit::id) as `keep`.
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

    /// Deletes at most `limit` expired rows and returns how many it deleted. For a periodic task; see
    /// [`Cleanup`](crate::store::Cleanup).
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store fails.
    /// - [`SessionError::NoStore`] in cookie mode without
    ///   [`revocations`](crate::SessionManagerBuilder::revocations).
    pub async fn delete_expired(&self, limit: u32) -> Result<u64, SessionError> {
        let store = match &*self.core.home {
            Home::Token(Some(list)) => list,
            Home::Token(None) | Home::Store(_) | Home::StoreFor(_) => {
                self.core.store("delete_expired")?
            }
        };
        let rows = self.core.rows_in(store);
        Ok(rows.bounded("delete_expired", store.delete_expired(limit)).await?)
    }

    async fn destroy_by_owner(
        &self,
        operation: &'static str,
        owner: &str,
        keep: Option<&StoreKey>,
    ) -> Result<u64, SessionError> {
        let store = self.core.store(operation)?;
        let owner: OwnerKey = self.core.scope.owner(owner);
        let mut rows = self.core.rows_in(store);
        rows.timeout = rows.timeout.saturating_mul(LONGEST_ENDING);
        Ok(rows.bounded("destroy_by_owner", store.destroy_by_owner(&owner, keep)).await?)
    }

    /// Loads a session; `None` if it has ended, was replaced, is damaged or is rejected.
    async fn load_valid(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
    ) -> Result<Option<(Record, T)>, SessionError> {
        let stored = self.core.rows_in(store).load(key).await;
        Ok(match self.judge(|| *key, stored, None, self.core.now())? {
            Verdict::Valid(record, draft) => Some((record, draft.data)),
            Verdict::Tombstone(_) | Verdict::Refused(_) | Verdict::Absent => None,
        })
    }

    async fn load_of(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
        epoch: Option<u64>,
    ) -> Result<(Record, T), SessionError> {
        let found = self.load_valid(store, key).await?;
        let found = found.filter(|(record, _)| epoch.is_none_or(|epoch| record.epoch == epoch));
        found.ok_or_else(|| self.core.gone(Some(*key)))
    }

    fn stored_session(&self, key: StoreKey, record: &Record, data: T) -> StoredSession<T> {
        let expires_at = self.core.policy.ends_at(&record.lifetime);
        StoredSession { data, key, created_at: record.created_at(), expires_at }
    }

    /// `update` of a request's own session. Returns the request's next basis if the row changed.
    pub(crate) async fn update_live<R>(
        &self,
        basis: &Basis,
        live: &Live,
        change: impl FnMut(&mut T) -> R,
    ) -> Result<(Applied<T, R>, Option<Basis>), SessionError> {
        let operation = "update";
        let store = basis.incoming.store.as_ref().ok_or(SessionError::NoStore { operation })?;
        let (record, data) = (live.record.clone(), self.data_of(basis)?);
        let applied =
            self.apply(store, live.key(), record, data, true, Expiry::Restart, change).await?;
        let record = applied.record.clone();
        if record.version == live.record.version {
            return Ok((applied, None));
        }
        let told = tells(&self.core.policy, live, &record.lifetime);
        let leaves = live.record.owner.is_some() && record.owner != live.record.owner;
        let identity = basis.identity + u32::from(leaves);
        let mut live = Box::new(live.with(record));
        let told = if told {
            live.former_key = false;
            Some(self.core.deliver(&live, self.core.now())?)
        } else {
            basis.told.clone()
        };
        Ok((applied, Some(Basis { identity, ..basis.after(Origin::Loaded(live), told) })))
    }

    /// Runs `change` on a row until its write lands.
    #[allow(
        clippy::too_many_arguments,
        reason = "a row, its data, and how `update` differs outside requests"
    )]
    async fn apply<R>(
        &self,
        store: &Arc<dyn SessionStore>,
        key: StoreKey,
        record: Record,
        data: T,
        asks_identity: bool,
        expiry: Expiry,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<Applied<T, R>, SessionError> {
        let (mut result, mut data, next) = self.changed(&record, data, expiry, &mut change)?;
        let Some(next) = next else {
            return Ok(Applied { result, data, record });
        };
        let again = |theirs: &Record| {
            let stored = Ok(Some(theirs.clone()));
            let valid = match self.judge(|| key, stored, None, self.core.now())? {
                Verdict::Valid(_, draft) if !asks_identity || theirs.epoch == record.epoch => {
                    draft.data
                }
                Verdict::Valid(..)
                | Verdict::Tombstone(_)
                | Verdict::Refused(_)
                | Verdict::Absent => {
                    return Err(self.core.gone(Some(key)));
                }
            };
            let next;
            (result, data, next) = self.changed(theirs, valid, expiry, &mut change)?;
            Ok(next)
        };
        let written = self.core.rows_in(store).overwrite(&key, next, record.version, again).await?;
        let record = written.map_err(|_| self.core.gone(Some(key)))?;
        self.core.report(Kind::Saved, || key);
        Ok(Applied { result, data, record })
    }

    /// Changes data and makes the record of it; `None` if it did not change.
    fn changed<R>(
        &self,
        record: &Record,
        mut data: T,
        expiry: Expiry,
        change: &mut impl FnMut(&mut T) -> R,
    ) -> Result<(R, T, Option<Record>), SessionError> {
        let result = change(&mut data);
        let ours = self.encode(&data)?;
        if record.schema == self.core.schema && self.is_same_data(&record.payload, &ours) {
            return Ok((result, data, None));
        }
        let prepared = self.prepare(&mut data, Some(ours))?;
        let now = self.core.now();
        let mut lifetime =
            lifetime_after_save(&self.core.policy, record, prepared.owner, None, now);
        if expiry == Expiry::Keep {
            // No cookie can be sent, so the session cannot outlive the one there is.
            let Lifetime { expires_at, absolute_end, .. } = record.lifetime;
            lifetime = Lifetime { expires_at, absolute_end, ..lifetime };
        }
        let epoch =
            if prepared.owner == record.owner { record.epoch } else { self.core.new_epoch()? };
        let record = self.core.record(&prepared, lifetime, epoch)?;
        Ok((result, data, Some(record)))
    }
}

/// The outcome of an `update`.
pub(crate) struct Applied<T, R> {
    pub(crate) result: R,
    pub(crate) data: T,
    record: Record,
}

/// Whether a save restarts the idle timeout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Restart,
    Keep,
}
