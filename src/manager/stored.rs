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

/// The limit of the time that ending all sessions of an owner may take, in store timeouts.
const LONGEST_ENDING: u32 = 15;

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
        Ok(Self::new(self.core.for_request(parts)?))
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
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) and
    ///   [`owner`](crate::SessionManagerBuilder::owner) are set, and the manager is not from
    ///   [`for_request`](Self::for_request).
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
    /// - [`SessionError::Gone`] if the session continues under a new id.
    /// - [`SessionError::Store`] unless it is certain that the session has ended.
    /// - [`SessionError::NoStore`] without a store and without revocations.
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
            return core.destroy_if("destroy", key, &|_| true).await;
        };
        let earlier = core.revoke(list, &key, None, None, core.now()).await?;
        if earlier.as_ref().and_then(Successor::of).is_some() {
            return Err(core.gone(Some(key)));
        }
        core.report(Kind::Destroyed, || key);
        Ok(())
    }

    /// Returns the stored sessions of an [`owner`](crate::SessionManagerBuilder::owner), the newest first. It makes
    /// one store call for the list and one for each session.
    ///
    /// Use the list for display only: a session that gets a new id during the call may be missing.
    /// [`destroy_all_of`](Self::destroy_all_of) ends every session.
    ///
    /// # Example
    ///
    /// A page with "your devices":
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn devices(
    ///     sessions: &SessionManager<Login>,
    ///     user: &str,
    /// ) -> Result<String, SessionError> {
    ///     let mut page = String::new();
    ///     for session in sessions.sessions_of(user).await? {
    ///         let (key, since) = (session.key().to_base64url(), session.created_at());
    ///         page += &format!("<li>{since} <button name=key value={key}>Sign out</button>");
    ///     }
    ///     Ok(page)
    /// }
    /// ```
    ///
    /// [`guide::devices`](crate::guide::devices) has the whole page.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed, did not answer, or has no index of owners.
    /// - [`SessionError::Newer`] if a newer version of the application wrote one of the sessions.
    /// - [`SessionError::NoStore`] without a store.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias("devices", "list sessions"))]
    pub async fn sessions_of(&self, owner: &str) -> Result<Vec<StoredSession<T>>, SessionError> {
        let operation = "sessions_of";
        let owners = self.core.owners(operation, owner)?;
        let rows = self.core.rows_for(operation)?;
        // The index may name a session whose owner has changed meanwhile.
        let is_meant = |record: &Record| record.owner.is_some_and(|of| owners.contains(&of));
        let mut sessions = Vec::new();
        for owner in &owners {
            let find = rows.bounded("find_by_owner", rows.store.find_by_owner(owner));
            for key in find.await? {
                let session = self.core.load_if(operation, key, &is_meant).await?;
                sessions.extend(session.and_then(StoredSession::typed));
            }
        }
        sessions.sort_by_key(|session| Reverse(session.record.created_at()));
        Ok(sessions)
    }

    /// Ends a session if it belongs to `owner`. Returns `true` if it did.
    ///
    /// Use it on pages where users end their own sessions, since the key comes from a form.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use axum_typed_session::{SessionError, SessionManager, StoreKey};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn sign_out_device(
    ///     sessions: &SessionManager<Login>,
    ///     user: &str,
    ///     key: StoreKey,
    /// ) -> Result<StatusCode, SessionError> {
    ///     let is_ended = sessions.destroy_of(user, key).await?;
    ///     Ok(if is_ended { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`sessions_of`](Self::sessions_of), and [`SessionError::Gone`] if the session gets a new id or
    /// another owner during the call.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the session may have ended or not. It is safe to call again.
    #[doc(alias("revoke", "logout", "sign out"))]
    pub async fn destroy_of(
        &self,
        owner: &str,
        key: impl Into<StoreKey>,
    ) -> Result<bool, SessionError> {
        let (operation, key) = ("destroy_of", key.into());
        let owners = self.core.owners(operation, owner)?;
        let is_meant = |record: &Record| record.owner.is_some_and(|of| owners.contains(&of));
        if self.core.load_if(operation, key, &is_meant).await?.is_none() {
            return Ok(false);
        }
        self.core.destroy_if(operation, key, &is_meant).await?;
        Ok(true)
    }

    /// Ends every session of an [`owner`](crate::SessionManagerBuilder::owner) that was saved before the call.
    /// Returns the number of sessions that ended.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn ban(sessions: &SessionManager<Login>, user: &str) -> Result<(), SessionError> {
    ///     let count = sessions.destroy_all_of(user).await?;
    ///     println!("{user} is signed out of {count} devices");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed, has no index of owners, or needs more than fifteen times the
    ///   [`store_timeout`](crate::SessionManagerBuilder::store_timeout). Sessions that ended before the error stay
    ///   ended. It is safe to call again.
    /// - [`SessionError::NoStore`] without a store.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some sessions may have ended. It is safe to call again.
    #[doc(alias("logout everywhere", "log out everywhere", "sign out everywhere"))]
    #[doc(alias("revoke"))]
    pub async fn destroy_all_of(&self, owner: &str) -> Result<u64, SessionError> {
        self.core.destroy_by_owner("destroy_all_of", owner, None).await
    }

    /// Ends every session of an [`owner`](crate::SessionManagerBuilder::owner) except `keep`, such as after a
    /// change of password. Returns the number of sessions that ended.
    ///
    /// After a [`regenerate`](crate::Session::regenerate), pass [`SessionCommit::key`](crate::SessionCommit::key)
    /// as `keep`. That method has an example.
    ///
    /// # Errors
    ///
    /// Those of [`destroy_all_of`](Self::destroy_all_of).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some sessions may have ended. It is safe to call again.
    #[doc(alias("sign out others", "revoke"))]
    pub async fn destroy_others_of(
        &self,
        owner: &str,
        keep: impl Into<StoreKey>,
    ) -> Result<u64, SessionError> {
        self.core.destroy_by_owner("destroy_others_of", owner, Some(keep.into())).await
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
        Ok(rows.bounded(operation, rows.store.delete_expired(limit)).await?)
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
    /// Returns the hashes by which the store may know an owner.
    fn owners(&self, operation: &'static str, owner: &str) -> Result<Vec<OwnerKey>, SessionError> {
        self.check_tenant(operation)?;
        Ok(self.owner_keys(owner).collect())
    }

    async fn destroy_by_owner(
        &self,
        operation: &'static str,
        owner: &str,
        keep: Option<StoreKey>,
    ) -> Result<u64, SessionError> {
        let owners = self.owners(operation, owner)?;
        let mut rows = self.rows_for(operation)?;
        rows.timeout = rows.timeout.saturating_mul(LONGEST_ENDING);
        let mut destroyed = 0;
        // Twice, if there are several: a node with other keys may move a session from the next hash to one before.
        let rounds = if owners.len() > 1 { 2 } else { 1 };
        for owner in owners.iter().cycle().take(rounds * owners.len()) {
            let destroy = rows.store.destroy_by_owner(owner, keep.as_ref());
            destroyed += rows.bounded("destroy_by_owner", destroy).await?;
        }
        Ok(destroyed)
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
        let Verdict::Current(mut record) = self.judge(&|| key, row, self.now())? else {
            return Ok(None);
        };
        let data = self.read(&|| key, &mut record, None)?.filter(|_| is_meant(&record));
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
        let Some(mut record) = self.changed(&mut session, expiry)? else {
            return Ok(session);
        };
        let loaded = session.record.clone();
        let again = |theirs: &Record| {
            let theirs = self.stored(key, Ok(Some(theirs.clone())), is_meant)?;
            session = theirs.ok_or_else(|| self.gone(Some(key)))?;
            change(&mut *session.data);
            self.changed(&mut session, expiry)
        };
        let written = rows.overwrite(&key, &mut record, &loaded, again).await?;
        written.map_err(|_| self.gone(Some(key)))?;
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
    /// The save has the effect of a commit of the request.
    OfRequest {
        extends: bool,
    },
    Keep,
}
