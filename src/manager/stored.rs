//! Operations on stored sessions outside a request, and `update`, which also serves requests.

use std::{fmt, ops::Deref, sync::Arc};

use http::request::Parts;
use time::OffsetDateTime;

use super::{
    SessionManager,
    any_data::Data,
    basis::Basis,
    core::Core,
    endings::{Ending, Successor},
    rows::Rows,
    tokens::Verdict,
};
use crate::{
    clock::Timestamp,
    decision::{Intents, Live, Origin, lifetime_after_save, tells},
    error::{Result, SessionError, StoreError},
    event::{EndReason, SessionEventKind as Kind},
    expiry::Lifetime,
    id::StoreKey,
    store::{Cleanup, Record, SessionStore},
};

/// A session as the store holds it. It derefs to the data.
///
/// [`SessionManager::sessions_of`] returns it and has an example; [`SessionManager::load`] returns it too. It is a
/// copy: a change of it changes nothing in the store.
#[derive(Clone)]
pub struct StoredSession<T> {
    key: StoreKey,
    record: Record,
    data: T,
    /// The end of the session under the current rules, which may be stricter than at its last save.
    expires_at: Timestamp,
}

impl<T> StoredSession<T> {
    /// Returns the key under which the store keeps the session, such as for [`SessionManager::destroy`]. The
    /// example of [`SessionManager::sessions_of`] uses it.
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns the time at which the session began, or at which another user signed in. The example of
    /// [`SessionManager::sessions_of`] uses it.
    pub fn created_at(&self) -> OffsetDateTime {
        self.record.created_at().into()
    }

    /// Returns the time at which the session ends unless a commit extends it. The example of
    /// [`SessionManager::create`] uses it.
    #[doc(alias("expiry", "ttl"))]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at.into()
    }

    /// Returns the data. The example of [`SessionManager::load`] uses it.
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

impl AnySession {
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

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Returns the same manager with another store, for tenants of
    /// [`store_for`](crate::SessionManagerBuilder::store_for) and for tests.
    ///
    /// It also opens sessions of the original manager, if `store` has them.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{MemoryStore, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// fn for_tests(sessions: &SessionManager<Login>) -> SessionManager<Login> {
    ///     sessions.with_store(MemoryStore::new())
    /// }
    /// ```
    pub fn with_store(&self, store: impl SessionStore) -> Self {
        Self::new(self.core.with_store(store))
    }

    /// Returns the manager for the sessions of one request. It has the store, the cookie and the audience that
    /// [`store_for`](crate::SessionManagerBuilder::store_for),
    /// [`cookie_for`](crate::SessionManagerBuilder::cookie_for) and
    /// [`audience_for`](crate::SessionManagerBuilder::audience_for) choose for this request.
    ///
    /// A background job makes the request itself, with all parts that these functions read.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::Request;
    /// use axum_typed_session::SessionManager;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn ban(sessions: SessionManager<Login>) -> Result<u64, Box<dyn std::error::Error>> {
    ///     let request = Request::get("/").header("host", "a.example").body(())?;
    ///     let (parts, ()) = request.into_parts();
    ///     Ok(sessions.for_request(&parts)?.destroy_all_of("alice").await?)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if `store_for` fails.
    /// - [`SessionError::Config`] if a chosen cookie or audience cannot be used.
    #[doc(alias = "tenant")]
    pub fn for_request(&self, parts: &Parts) -> Result<Self, SessionError> {
        let own = self.core.of_request(parts)?;
        Ok(own.map_or_else(|| self.clone(), Self::new))
    }

    /// Returns a stored session; `None` if it has ended, has a new id, or is rejected by
    /// [`validate_data`](crate::SessionManagerBuilder::validate_data).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager, StoreKey};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn user_of(
    ///     sessions: &SessionManager<Login>,
    ///     key: StoreKey,
    /// ) -> Result<Option<String>, SessionError> {
    ///     let session = sessions.load(key).await?;
    ///     Ok(session.and_then(|session| session.into_inner().user))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed or did not answer.
    /// - [`SessionError::Newer`] if a newer version of the application wrote the session.
    /// - [`SessionError::NoStore`] without a store.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias = "get")]
    pub async fn load(
        &self,
        key: impl Into<StoreKey>,
    ) -> Result<Option<StoredSession<T>>, SessionError> {
        let session = self.core.load_if("load", key.into(), &|_| true).await?;
        Ok(session.and_then(StoredSession::typed))
    }

    /// Changes a stored session, keeps its expiry, and returns the result of `change`.
    ///
    /// If another writer writes first, `change` runs again on the newest stored data. So it should do nothing but
    /// change the data. Nothing is written if the data stays the same.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager, StoreKey};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Visits { count: u32 }
    ///
    /// async fn add(
    ///     sessions: &SessionManager<Visits>,
    ///     key: StoreKey,
    /// ) -> Result<u32, SessionError> {
    ///     let change = |visits: &mut Visits| {
    ///         visits.count += 1;
    ///         visits.count
    ///     };
    ///     sessions.update(key, change).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has ended or has a new id.
    /// - [`SessionError::Conflict`] if other writers wrote first for five seconds.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    /// - [`SessionError::NoStore`] without a store.
    /// - All other errors of [`commit`](crate::Session::commit).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the stored session is entirely old or entirely new.
    ///
    /// # Security
    ///
    /// A key does not say to whom the session belongs. If another user has signed in with this session meanwhile,
    /// `change` changes the data of that user. A [`SessionHandle`](crate::SessionHandle) returns
    /// [`SessionError::Gone`] instead.
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
        // The save would make the row and its owner those of another tenant.
        self.core.check_tenant("update")?;
        let session = self.core.load_if("update", key, is_meant).await?;
        let session = session.ok_or_else(|| self.core.gone(Some(key)))?;
        let mut result = None;
        let mut change = any_change(change, &mut result);
        self.core.apply(rows, session, is_meant, Expiry::Keep, &mut change).await?;
        drop(change);
        result.ok_or(SessionError::Gone)
    }

    /// Ends a session. If it has already ended, the call succeeds.
    ///
    /// Without a store it needs [`revocations`](crate::SessionManagerBuilder::revocations), and adds the key to
    /// that list.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager, StoreKey};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// /// An admin ends a session. The key comes from a form.
    /// async fn end(
    ///     sessions: &SessionManager<Login>,
    ///     key: StoreKey,
    /// ) -> Result<(), SessionError> {
    ///     sessions.destroy(key).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session continues under a new id, or is of another type.
    /// - [`SessionError::Store`] unless it is certain that the session has ended.
    /// - [`SessionError::NoStore`] without a store and without revocations.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set with a store, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the session may have ended or not. It is safe to call again.
    ///
    /// # Security
    ///
    /// It ends the session of any user. If users end their own sessions, call [`destroy_of`](Self::destroy_of).
    #[doc(alias("revoke", "delete", "logout", "sign out", "invalidate"))]
    pub async fn destroy(&self, key: impl Into<StoreKey>) -> Result<(), SessionError> {
        let (core, key) = (&self.core, key.into());
        let Some(list) = core.list() else {
            let is_ours = |record: &Record| core.is_of_this_kind(record);
            return core.destroy_if("destroy", key, &is_ours).await;
        };
        let earlier = core.revoke(list, &key, None, None, core.now()).await?;
        if earlier.as_ref().and_then(Successor::of).is_some() {
            return Err(core.gone(Some(key)));
        }
        core.report(Kind::Destroyed, || key);
        Ok(())
    }

    /// Deletes at most `limit` expired sessions from the store, and returns the number of sessions that it deleted.
    ///
    /// [`Cleanup`](crate::store::Cleanup) is a task that calls a store in this way. Expired sessions are rejected
    /// even if they are not deleted yet.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn clean_up(sessions: &SessionManager<Login>) -> Result<(), SessionError> {
    ///     while sessions.delete_expired(1000).await? == 1000 {}
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed or did not answer.
    /// - [`SessionError::NoStore`] without a store and without
    ///   [`revocations`](crate::SessionManagerBuilder::revocations).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some sessions may have been deleted. It is safe to call again.
    #[doc(alias("cleanup", "purge", "prune"))]
    pub async fn delete_expired(&self, limit: u32) -> Result<u64, SessionError> {
        let (core, operation) = (&self.core, "delete_expired");
        let rows = core.list().map_or_else(|| core.rows_for(operation), Ok)?;
        if let Some(store) = core.store().filter(|_| core.data.is_told_ends()) {
            let batch = Cleanup::new(Arc::clone(store)).batch(limit).report_to(self);
            return Ok(rows
                .bounded(operation, Box::pin(batch.delete_batch(&Arc::default())))
                .await?);
        }
        Ok(rows.bounded(operation, rows.store.delete_expired(limit)).await?)
    }
}

/// A stored session, without the type of its data.
pub(super) type AnySession = StoredSession<Box<Data>>;

/// Returns `None` for a session that is damaged. A session that a newer node wrote stays an error.
fn none_if_damaged(found: Result<Option<AnySession>>) -> Result<Option<AnySession>> {
    match found {
        Err(SessionError::Store(StoreError::Corrupt)) => Ok(None),
        found => found,
    }
}

/// Returns `true` for the session that an operation is for.
pub(crate) type IsMeant<'a> = dyn Fn(&Record) -> bool + Send + Sync + 'a;

/// A change of data, without its type.
pub(crate) type AnyChange<'a> = dyn FnMut(&mut Data) + Send + 'a;

/// Makes a change of data, without its type. `result` holds the latest result once the change is written.
pub(crate) fn any_change<T: 'static, R>(
    mut change: impl FnMut(&mut T) -> R,
    result: &mut Option<R>,
) -> impl FnMut(&mut Data) {
    move |data| *result = data.downcast_mut().map(&mut change)
}

impl Core {
    /// Loads a session as long as it is the one that `is_meant`; `None` if it has ended, was replaced, is damaged
    /// or is rejected.
    pub(crate) async fn load_if(
        &self,
        operation: &'static str,
        key: StoreKey,
        is_meant: &IsMeant<'_>,
    ) -> Result<Option<AnySession>> {
        let rows = self.rows_for(operation)?;
        self.check_tenant(operation)?;
        let row = rows.look_up(&key, &|_| true).await;
        none_if_damaged(self.stored(key, row, is_meant))
    }

    /// Ends a session as long as it is the one that `is_meant`. If it has already ended, this is a success.
    pub(crate) async fn destroy_if(
        &self,
        operation: &'static str,
        key: StoreKey,
        is_meant: &IsMeant<'_>,
    ) -> Result<()> {
        let rows = self.rows_for(operation)?;
        self.check_tenant(operation)?;
        match self.destroy_row(rows, key, None, is_meant, EndReason::Destroyed).await? {
            Ending::Done | Ending::Absent => self.report(Kind::Destroyed, || key),
            Ending::Replaced(_) | Ending::NotMeant => return Err(self.gone(Some(key))),
        }
        Ok(())
    }

    /// Judges and decodes a row; `None` if there is no session: it has ended, was replaced, is rejected, or is not the
    /// one that was meant. A row that is damaged or that a newer node wrote is an error.
    pub(super) fn stored(
        &self,
        key: StoreKey,
        row: Result<Option<Record>, StoreError>,
        is_meant: &IsMeant<'_>,
    ) -> Result<Option<AnySession>> {
        let is_ours = |record: &Record| {
            record.tombstone || (is_meant(record) && self.is_of_this_kind(record))
        };
        // No token named the row, so nobody misses a session if there is none.
        if row.as_ref().is_ok_and(|row| !row.as_ref().is_some_and(is_ours)) {
            return Ok(None);
        }
        let mut record = match self.judge(&|| key, row.map(|row| row.map(Box::new)), self.now())? {
            Verdict::Current(record) => record,
            Verdict::Unreadable(error) => return Err(error.into()),
            Verdict::Tombstone(_) | Verdict::Expired(_) | Verdict::Absent => return Ok(None),
        };
        let data = self.read(&|| key, &mut record, None)?;
        Ok(data.map(|data| StoredSession::new(key, *record, data, self)))
    }

    /// `update` of a request's own session. Returns the request's next basis if the row changed.
    pub(crate) async fn update_live(
        &self,
        basis: &Basis,
        live: &Live,
        change: &mut AnyChange<'_>,
    ) -> Result<(Box<Data>, Option<Basis>)> {
        let (rows, extends) = (self.rows_for("update")?, basis.incoming.extends);
        if Box::pin(self.save_imported(basis, self.now())).await? {
            return Err(self.gone(Some(live.key())));
        }
        let record = Record::clone(&live.record);
        let record = self.with_latest_expiry(rows, live, record, extends).await?;
        let session = StoredSession::new(live.key(), record, self.data_of(basis)?, self);
        let is_meant = |theirs: &Record| theirs.epoch == live.record.epoch;
        let expiry = Expiry::OfRequest { extends };
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
        mut session: AnySession,
        is_meant: &IsMeant<'_>,
        expiry: Expiry,
        change: &mut AnyChange<'_>,
    ) -> Result<AnySession> {
        let key = session.key;
        change(&mut *session.data);
        let Some(mut record) = self.changed(&mut session, expiry)? else {
            return Ok(session);
        };
        let loaded = session.record.clone();
        let again = |theirs: &Record| {
            let theirs = self.stored(key, Ok(Some(theirs.clone())), is_meant);
            session = none_if_damaged(theirs)?.ok_or_else(|| self.gone(Some(key)))?;
            change(&mut *session.data);
            self.changed(&mut session, expiry)
        };
        let written = rows.overwrite(&key, &mut record, &loaded, again).await?;
        written.map_err(|_| self.gone(Some(key)))?;
        if record.version != session.record.version {
            self.report(Kind::Saved, || key);
        }
        if record.owner != session.record.owner {
            Box::pin(self.end_surplus(key, &mut record)).await;
        }
        Ok(StoredSession { record, ..session })
    }

    /// Makes the record of a session whose data was changed; `None` if the row holds the same data.
    fn changed(&self, session: &mut AnySession, expiry: Expiry) -> Result<Option<Record>> {
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
        let epoch = if prepared.owner == record.owner { record.epoch } else { self.new_epoch() };
        Ok(Some(self.record(&prepared, lifetime, epoch)))
    }
}

/// The effect of a save on the session's expiry.
#[derive(Clone, Copy)]
enum Expiry {
    /// The save has the effect of a commit of the request.
    OfRequest {
        extends: bool,
    },
    Keep,
}
