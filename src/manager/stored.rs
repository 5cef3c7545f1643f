//! Operations on stored sessions outside a request, and `update`, which also serves requests.

use std::{cmp::Reverse, fmt, ops::Deref};

use http::request::Parts;
use time::OffsetDateTime;

use super::{
    SessionManager, any_data::Data, basis::Basis, core::Core, endings::Successor,
    incoming::Verdict, rows::Rows,
};
use crate::{
    clock::Timestamp,
    decision::{Intents, Live, Origin, lifetime_after_save, tells},
    error::{SessionError, StoreError},
    event::SessionEventKind as Kind,
    expiry::Lifetime,
    id::{OwnerKey, StoreKey},
    store::{Record, SessionStore},
};

/// A session as a store holds it. It derefs to the data.
#[derive(Clone)]
pub struct StoredSession<T> {
    key: StoreKey,
    record: Record,
    data: T,
    /// When the session ends under the current rules, which may be stricter than at its last save.
    expires_at: Timestamp,
}

impl<T> StoredSession<T> {
    /// Returns the key under which the store keeps the session, such as for [`SessionManager::destroy`].
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns when the session began, or when its owner last changed.
    pub fn created_at(&self) -> OffsetDateTime {
        self.record.created_at().into()
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

impl<D> StoredSession<D> {
    pub(super) fn new(key: StoreKey, record: Record, data: D, core: &Core) -> Self {
        let expires_at = core.policy.ends_at(&record.lifetime);
        Self { key, record, data, expires_at }
    }
}

impl StoredSession<Box<Data>> {
    pub(crate) fn typed<T: 'static>(self) -> Option<StoredSession<T>> {
        let Self { key, record, data, expires_at } = self;
        Some(StoredSession { key, record, data: *data.downcast().ok()?, expires_at })
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
            .field("created_at", &self.record.created_at())
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
        Self::new(self.core.with_store(store))
    }

    /// Returns the manager for the sessions of one request: with the store, the cookie and the audience that
    /// [`store_for`](crate::SessionManagerBuilder::store_for),
    /// [`cookie_for`](crate::SessionManagerBuilder::cookie_for) and
    /// [`audience_for`](crate::SessionManagerBuilder::audience_for) choose.
    ///
    /// A job makes the request itself, with whatever these functions look at.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if `store_for` fails.
    /// - [`SessionError::Config`] if a cookie or an audience cannot be used.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::Request;
    /// use axum_typed_session::{SessionError, SessionManager};
    ///
    /// # async fn example(sessions: SessionManager<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// let (request, ()) = Request::get("/").header("host", "a.example").body(())?.into_parts();
    /// let ended = sessions.for_request(&request)?.destroy_all_of("alice").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_request(&self, parts: &Parts) -> Result<Self, SessionError> {
        Ok(Self::new(self.core.for_request(parts)?))
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
        let session = self.core.load_if("load", key.into(), &|_| true).await?;
        Ok(session.and_then(StoredSession::typed))
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
    pub async fn update<R: Send>(
        &self,
        key: impl Into<StoreKey>,
        change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        self.update_if(key.into(), &|_| true, change).await
    }

    /// Changes a stored session as long as it is the one that `is_meant`, and keeps its expiry.
    pub(crate) async fn update_if<R: Send>(
        &self,
        key: StoreKey,
        is_meant: &IsMeant<'_>,
        change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        let rows = self.core.rows_for("update")?;
        if self.core.owner_is_told {
            // The save would name the owner of another tenant.
            self.core.check_tenant("update")?;
        }
        let session = self.core.load_if("update", key, is_meant).await?;
        let session = session.ok_or_else(|| self.core.gone(Some(key)))?;
        let mut result = None;
        let mut change = any_change(change, &mut result);
        self.core.apply(rows, session, is_meant, Expiry::Keep, &mut change).await?;
        drop(change);
        result.ok_or(SessionError::Gone)
    }

    /// Ends a session. If it has already ended, this is a success.
    ///
    /// In cookie mode it needs [`revocations`](crate::SessionManagerBuilder::revocations), which the key is entered
    /// into.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has a new id and goes on under it.
    /// - [`SessionError::Store`] unless it is certain that the session has ended.
    /// - [`SessionError::NoStore`] in cookie mode without revocations.
    pub async fn destroy(&self, key: impl Into<StoreKey>) -> Result<(), SessionError> {
        let (core, key) = (&self.core, key.into());
        let Some(list) = core.list() else {
            return core.destroy_if("destroy", key, &|_| true).await;
        };
        let earlier = core.revoke(list, &key, None, None, core.now()).await?;
        if earlier.as_ref().and_then(Successor::of).is_some() {
            return Err(core.gone(Some(key)));
        }
        core.report(Kind::Destroyed, || key);
        Ok(())
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
        let operation = "sessions_of";
        let owner = self.core.owner_key(operation, owner)?;
        let rows = self.core.rows_for(operation)?;
        let find = rows.bounded("find_by_owner", rows.store.find_by_owner(&owner));
        let mut sessions = Vec::new();
        for key in find.await? {
            // The index may name a session whose owner has changed meanwhile.
            let is_meant = |record: &Record| record.owner == Some(owner);
            let session = self.core.load_if(operation, key, &is_meant).await?;
            sessions.extend(session.and_then(StoredSession::typed));
        }
        sessions.sort_by_key(|session| Reverse(session.record.created_at()));
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
        let (operation, key) = ("destroy_of", key.into());
        let owner = self.core.owner_key(operation, owner)?;
        let is_meant = |record: &Record| record.owner == Some(owner);
        if self.core.load_if(operation, key, &is_meant).await?.is_none() {
            return Ok(false);
        }
        self.core.destroy_if(operation, key, &is_meant).await?;
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
        self.core.destroy_by_owner("destroy_all_of", owner, None).await
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
        self.core.destroy_by_owner("destroy_others_of", owner, Some(keep.into())).await
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
        let (core, operation) = (&self.core, "delete_expired");
        let rows = core.list().map_or_else(|| core.rows_for(operation), Ok)?;
        Ok(rows.bounded(operation, rows.store.delete_expired(limit)).await?)
    }
}

/// Returns `true` for the session that an operation is for.
pub(crate) type IsMeant<'a> = dyn Fn(&Record) -> bool + Send + Sync + 'a;

/// A change of data whose type is forgotten.
pub(crate) type AnyChange<'a> = dyn FnMut(&mut Data) + Send + 'a;

/// Makes a change of data whose type is forgotten. Its latest result is there once the change has landed.
pub(crate) fn any_change<T: 'static, R>(
    mut change: impl FnMut(&mut T) -> R,
    result: &mut Option<R>,
) -> impl FnMut(&mut Data) {
    move |data| *result = data.downcast_mut().map(&mut change)
}

impl Core {
    fn owner_key(&self, operation: &'static str, owner: &str) -> Result<OwnerKey, SessionError> {
        self.check_tenant(operation)?;
        Ok(self.tenant.scope.owner(owner))
    }

    async fn destroy_by_owner(
        &self,
        operation: &'static str,
        owner: &str,
        keep: Option<StoreKey>,
    ) -> Result<u64, SessionError> {
        let owner = self.owner_key(operation, owner)?;
        let mut rows = self.rows_for(operation)?;
        rows.timeout = rows.timeout.saturating_mul(LONGEST_ENDING);
        let destroy = rows.store.destroy_by_owner(&owner, keep.as_ref());
        Ok(rows.bounded("destroy_by_owner", destroy).await?)
    }

    /// Loads a session as long as it is the one that `is_meant`; `None` if it has ended, was replaced, is damaged
    /// or is rejected.
    pub(crate) async fn load_if(
        &self,
        operation: &'static str,
        key: StoreKey,
        is_meant: &IsMeant<'_>,
    ) -> Result<Option<StoredSession<Box<Data>>>, SessionError> {
        let row = self.rows_for(operation)?.load(&key).await;
        self.stored(key, row, is_meant)
    }

    /// Ends a session as long as it is the one that `is_meant`. If it has already ended, this is a success.
    pub(crate) async fn destroy_if(
        &self,
        operation: &'static str,
        key: StoreKey,
        is_meant: &IsMeant<'_>,
    ) -> Result<(), SessionError> {
        let rows = self.rows_for(operation)?;
        if self.destroy_row(rows, key, None, is_meant).await?.is_some() {
            return Err(self.gone(Some(key)));
        }
        self.report(Kind::Destroyed, || key);
        Ok(())
    }

    /// Judges and decodes a row; `None` unless it holds a valid session, and the one that `is_meant`.
    fn stored(
        &self,
        key: StoreKey,
        row: Result<Option<Record>, StoreError>,
        is_meant: &IsMeant<'_>,
    ) -> Result<Option<StoredSession<Box<Data>>>, SessionError> {
        let Verdict::Current(record) = self.judge(&|| key, row, self.now())? else {
            return Ok(None);
        };
        let data = self.read(&|| key, &record, None)?.filter(|_| is_meant(&record));
        Ok(data.map(|data| StoredSession::new(key, record, data, self)))
    }

    /// `update` of a request's own session. Returns the request's next basis if the row changed.
    pub(crate) async fn update_live(
        &self,
        basis: &Basis,
        live: &Live,
        change: &mut AnyChange<'_>,
    ) -> Result<(Box<Data>, Option<Basis>), SessionError> {
        let (rows, record) = (self.rows_for("update")?, live.record.clone());
        let session = StoredSession::new(live.key(), record, self.data_of(basis)?, self);
        let is_meant = |theirs: &Record| theirs.epoch == live.record.epoch;
        let expiry = Expiry::OfRequest { extends: basis.incoming.extends };
        let session = self.apply(rows, session, &is_meant, expiry, change).await?;
        let StoredSession { record, data, .. } = session;
        if record.version == live.record.version {
            return Ok((data, None));
        }
        let identity = basis.identity_after(&Intents::default(), record.owner);
        let tells = tells(&self.policy, live, &record.lifetime);
        let (mut live, mut told) = (live.with(record), basis.told.clone());
        if tells {
            told = Some(self.deliver(&mut live, self.now())?);
        }
        let next = Basis::new(basis.incoming.clone(), identity, Origin::Loaded(live), told);
        Ok((data, Some(next)))
    }

    /// Runs `change` on a row until its write lands. Returns the session as its row holds it then.
    async fn apply(
        &self,
        rows: Rows<'_>,
        mut session: StoredSession<Box<Data>>,
        is_meant: &IsMeant<'_>,
        expiry: Expiry,
        change: &mut AnyChange<'_>,
    ) -> Result<StoredSession<Box<Data>>, SessionError> {
        let key = session.key;
        change(&mut *session.data);
        let Some(next) = self.changed(&mut session, expiry)? else {
            return Ok(session);
        };
        let expected = session.record.version;
        let again = |theirs: &Record| {
            let theirs = self.stored(key, Ok(Some(theirs.clone())), is_meant)?;
            session = theirs.ok_or_else(|| self.gone(Some(key)))?;
            change(&mut *session.data);
            self.changed(&mut session, expiry)
        };
        let written = rows.overwrite(&key, next, expected, again).await?;
        let record = written.map_err(|_| self.gone(Some(key)))?;
        if record.version != session.record.version {
            self.report(Kind::Saved, || key);
        }
        Ok(StoredSession { record, ..session })
    }

    /// Makes the record of a session whose data was changed; `None` if the row holds the same data.
    fn changed(
        &self,
        session: &mut StoredSession<Box<Data>>,
        expiry: Expiry,
    ) -> Result<Option<Record>, SessionError> {
        let StoredSession { record, data, .. } = session;
        let ours = self.encode(&**data)?;
        if record.schema == self.schema && self.is_same_data(&record.payload, &ours) {
            return Ok(None);
        }
        let prepared = self.prepare(&mut **data, Some(ours))?;
        let (policy, now) = (&self.policy, self.now());
        let saved = |extends| {
            lifetime_after_save(policy, record, prepared.owner, &Intents::default(), extends, now)
        };
        let lifetime = match expiry {
            Expiry::OfRequest { extends } => saved(extends),
            // No cookie can be sent, so the session cannot outlive the one there is.
            Expiry::Keep => Lifetime { created_at: saved(false).created_at, ..record.lifetime },
        };
        let epoch = if prepared.owner == record.owner { record.epoch } else { self.new_epoch()? };
        self.record(&prepared, lifetime, epoch).map(Some)
    }
}

/// The effect of a save on the session's expiry.
#[derive(Clone, Copy)]
enum Expiry {
    /// As a commit of the request has it.
    OfRequest {
        extends: bool,
    },
    Keep,
}
