//! Many stored sessions at once: all of a type, or those of one owner.

use std::{cmp::Reverse, collections::BTreeSet, ops::Bound, time::Duration};

use futures_util::future::join_all;
use tokio::{task::yield_now, time::timeout};

use super::{
    SessionManager, any_data::Data, core::Core, endings::Ending, page::SessionPage, rows::Rows,
    stored::IsMeant,
};
use crate::{
    error::{Result, SessionError, StoreError},
    event::{EndReason, SessionEventKind as Kind},
    id::{OwnerKey, StoreKey},
    store::{Cursor, Record, SaveOutcome, Version, Write},
};

/// The most sessions of an owner in one page.
const PAGE: usize = 1000;

/// How many sessions are loaded or ended at once.
const AT_ONCE: usize = 32;

/// The limit of the time that ending all sessions of an owner may take, in store timeouts.
const LONGEST_ENDING: u32 = 15;

/// How often the sessions of an owner are listed and ended, until the list is empty.
const MAX_ROUNDS: usize = 64;

const NEVER_EMPTY: &str = "the owner index still lists sessions after 64 rounds of destroying them";

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Returns a page of about `limit` of all stored sessions of this type, in no particular order. `after` is the
    /// [`next`](SessionPage::next) of the page before; `None` begins with the first page.
    ///
    /// Use it for maintenance, statistics and "who is online". A session that exists from the first page to the last
    /// page is returned at least once, while other sessions come and go. A session may be returned twice. A page may
    /// have fewer sessions than `limit`, even none, and still have a next page. The memory that a page needs depends
    /// on `limit`, not on the number of sessions.
    ///
    /// [`MemoryStore`](crate::MemoryStore), [`RedisStore`](crate::RedisStore) and the SQL stores can list their
    /// sessions; [`MemcachedStore`](crate::MemcachedStore) cannot. If sessions of several types share a store, each
    /// page reads the rows of the other types too, and leaves them out.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// /// Counts the sessions of users who are signed in.
    /// async fn signed_in(sessions: &SessionManager<Login>) -> Result<usize, SessionError> {
    ///     let (mut count, mut after) = (0, None);
    ///     loop {
    ///         let page = sessions.sessions(after.as_ref(), 500).await?;
    ///         count += page.iter().filter(|session| session.user.is_some()).count();
    ///         after = page.next;
    ///         if after.is_none() {
    ///             return Ok(count);
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed or did not answer, and with
    ///   [`StoreError::Unsupported`](crate::StoreError::Unsupported) if the store cannot list its sessions.
    /// - [`SessionError::NoStore`] without a store.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias("iterate", "scan", "count", "all", "online"))]
    pub async fn sessions(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<SessionPage<T>, SessionError> {
        let rows = self.core.rows_for("sessions")?;
        self.core.check_tenant("sessions")?;
        let page = rows.bounded("list", rows.store.list(after, limit.max(1))).await?;
        let kind = self.core.tenant.scope.kind;
        let is_meant = |record: &Record| record.kind == kind;
        let mut sessions = self.core.load_all(rows, &page.keys, &is_meant).await?.typed();
        sessions.next = page.next;
        Ok(sessions)
    }

    /// Returns the stored sessions of an [`owner`](crate::SessionManagerBuilder::owner), the newest first. It makes
    /// one store call for the list, and one for each session, 32 at a time.
    ///
    /// It returns at most 1,000 sessions. [`max_sessions_per_owner`](crate::SessionManagerBuilder::max_sessions_per_owner)
    /// keeps an owner below that, unless it is set higher; [`sessions_of_after`](Self::sessions_of_after) returns the
    /// following pages then.
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
    /// - [`SessionError::NoStore`] without a store.
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias("devices", "list sessions"))]
    pub async fn sessions_of(&self, owner: &str) -> Result<SessionPage<T>, SessionError> {
        Ok(self.core.sessions_of(owner, None).await?.typed())
    }

    /// Returns the page of an owner's sessions that follows the page with this [`next`](SessionPage::next). Each page
    /// has its newest session first.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn count(
    ///     sessions: &SessionManager<Login>,
    ///     user: &str,
    /// ) -> Result<usize, SessionError> {
    ///     let mut page = sessions.sessions_of(user).await?;
    ///     let mut count = page.len();
    ///     while let Some(next) = page.next {
    ///         page = sessions.sessions_of_after(user, &next).await?;
    ///         count += page.len();
    ///     }
    ///     Ok(count)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`sessions_of`](Self::sessions_of).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    pub async fn sessions_of_after(
        &self,
        owner: &str,
        after: &Cursor,
    ) -> Result<SessionPage<T>, SessionError> {
        Ok(self.core.sessions_of(owner, Some(after)).await?.typed())
    }

    /// Ends a session if it belongs to `owner`. Returns `true` if it did. If the connection to Redis or memcached breaks
    /// meanwhile, it may return `false` for a session that it has ended.
    ///
    /// Use it on pages where users end their own sessions, since the key comes from a form. It works on sessions that
    /// this node cannot read too. The owner is compared and the session is removed in one step.
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
    /// Those of [`sessions_of`](Self::sessions_of), and [`SessionError::Gone`] if the session has got a new id within
    /// the last seconds: show the list again.
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
        self.core.destroy_of(owner, key.into()).await
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
}

impl Core {
    /// Returns the rows for an operation, and the hashes by which the store may know the owner.
    fn rows_and_owners(
        &self,
        operation: &'static str,
        owner: &str,
    ) -> Result<(Rows<'_>, Vec<OwnerKey>)> {
        self.check_tenant(operation)?;
        Ok((self.rows_for(operation)?, self.hashes_of(owner).collect()))
    }

    async fn sessions_of(
        &self,
        owner: &str,
        after: Option<&Cursor>,
    ) -> Result<SessionPage<Box<Data>>> {
        let (rows, owners) = self.rows_and_owners("sessions_of", owner)?;
        let keys = rows.keys_of(&owners).await?;
        // A cursor of another call, which is no key, begins anew.
        let after = after.and_then(|cursor| cursor.as_bytes().try_into().ok());
        let after =
            after.map_or(Bound::Unbounded, |key| Bound::Excluded(StoreKey::from_bytes(key)));
        let mut keys = keys.range((after, Bound::Unbounded)).copied();
        let page: Vec<_> = keys.by_ref().take(PAGE).collect();
        let next = page.last().filter(|_| keys.next().is_some());
        let mut sessions = self.load_all(rows, &page, &is_of(&owners)).await?;
        sessions.sessions.sort_by_key(|session| Reverse(session.created_at()));
        sessions.next = next.map(|key| Cursor::new(*key.as_bytes()));
        Ok(sessions)
    }

    /// Loads sessions that were listed, some at once.
    async fn load_all(
        &self,
        rows: Rows<'_>,
        keys: &[StoreKey],
        is_meant: &IsMeant<'_>,
    ) -> Result<SessionPage<Box<Data>>> {
        let mut page = SessionPage { sessions: Vec::new(), unreadable: Vec::new(), next: None };
        for (key, row) in keys.iter().zip(rows.load_each(keys, is_meant).await) {
            match self.stored(*key, row, is_meant) {
                Ok(session) => page.sessions.extend(session),
                Err(SessionError::Newer | SessionError::Store(StoreError::Corrupt)) => {
                    page.unreadable.push(*key);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    async fn destroy_of(&self, owner: &str, key: StoreKey) -> Result<bool> {
        let (rows, owners) = self.rows_and_owners("destroy_of", owner)?;
        let is_meant = is_of(&owners);
        let row = match rows.load(&key).await {
            Ok(None) => return Ok(false),
            Ok(row) => row,
            // The row does not tell its owner, but the index does.
            Err(StoreError::Corrupt | StoreError::Newer) => {
                if !rows.keys_of(&owners).await?.contains(&key) {
                    return Ok(false);
                }
                None
            }
            Err(error) => return Err(error.into()),
        };
        match self.destroy_row(rows, key, row, &is_meant, EndReason::Destroyed).await? {
            Ending::Done => self.report(Kind::Destroyed, || key),
            Ending::Absent | Ending::NotMeant => return Ok(false),
            Ending::Replaced(_) => return Err(self.gone(Some(key))),
        }
        Ok(true)
    }

    async fn destroy_by_owner(
        &self,
        operation: &'static str,
        owner: &str,
        keep: Option<StoreKey>,
    ) -> Result<u64> {
        let (mut rows, owners) = self.rows_and_owners(operation, owner)?;
        let longest = rows.timeout.saturating_mul(LONGEST_ENDING);
        if self.data.is_told_ends() {
            let all = Box::pin(self.destroy_each(rows, &owners, keep));
            let too_late = |_| Err(StoreError::Timeout { after: longest }.into());
            return timeout(longest, all).await.unwrap_or_else(too_late);
        }
        rows.timeout = longest;
        let mut destroyed = 0;
        // Twice, if there are several: a node with other keys may move a session from the next hash to one before.
        let rounds = if owners.len() > 1 { 2 } else { 1 };
        for owner in owners.iter().cycle().take(rounds * owners.len()) {
            let destroy = rows.store.destroy_by_owner(owner, keep.as_ref());
            destroyed += rows.bounded("destroy_by_owner", destroy).await?;
        }
        Ok(destroyed)
    }

    /// Ends the sessions of an owner one by one, as `on_end` gets the data of each.
    async fn destroy_each(
        &self,
        rows: Rows<'_>,
        owners: &[OwnerKey],
        keep: Option<StoreKey>,
    ) -> Result<u64> {
        let mut destroyed = 0;
        for _ in 0..MAX_ROUNDS {
            let mut keys = rows.keys_of(owners).await?;
            keys.retain(|key| Some(*key) != keep);
            if keys.is_empty() {
                return Ok(destroyed);
            }
            let ended = keys.iter().map(|key| (*key, None));
            destroyed += self.end_rows(rows, ended.collect(), owners, EndReason::Destroyed).await?;
        }
        Err(StoreError::unavailable(NEVER_EMPTY).into())
    }

    /// Ends rows of these owners, some at once. Returns how many it ended.
    async fn end_rows(
        &self,
        rows: Rows<'_>,
        ended: Vec<(StoreKey, Option<Record>)>,
        owners: &[OwnerKey],
        why: EndReason,
    ) -> Result<u64> {
        let end = async |(key, row): (StoreKey, Option<Record>)| {
            let began = row.as_ref().map(Record::created_at);
            let is_of = is_of(owners);
            let is_meant = move |record: &Record| {
                is_of(record) && began.is_none_or(|began| began == record.created_at())
            };
            let ending = self.destroy_row(rows, key, row, &is_meant, why).await?;
            let is_done = matches!(ending, Ending::Done);
            if is_done {
                self.report(Kind::Destroyed, || key);
            }
            Ok(u64::from(is_done))
        };
        let ends = some_at_once(ended.into_iter().map(end).collect()).await;
        ends.into_iter().sum()
    }

    /// Ends the oldest sessions of an owner who has just signed in with the session under `own`, as far as the owner
    /// has more than `max_sessions_per_owner`.
    ///
    /// The login stands, also if this fails. The store's failure is an event, and the next login ends more.
    pub(super) async fn end_surplus(&self, own: StoreKey, record: &mut Record) {
        let _ = self.try_to_end_surplus(own, record).await;
    }

    /// Every login lists the sessions after it was stored, and all agree on their order. So after logins at once,
    /// exactly the newest sessions remain.
    async fn try_to_end_surplus(&self, own: StoreKey, record: &mut Record) -> Result<()> {
        let (Some(rows), Some(owner)) = (self.rows(), record.owner) else { return Ok(()) };
        if !rows.store.indexes_owners() {
            return Ok(());
        }
        let owners = self.owners_of(record, owner);
        let limit = self.max_sessions_per_owner();
        for is_first_look in [true, false] {
            let mut sessions = self.rows_of(rows, &owners, limit).await?;
            sessions.sort_by_key(|(key, record)| Reverse((record.created_at(), *key)));
            let newest = sessions.first().map(|(_, record)| record.created_at());
            let surplus = sessions.split_off(limit.min(sessions.len()));
            let is_surplus = surplus.iter().any(|(key, _)| *key == own);
            if let Some(newest) = newest.filter(|_| is_surplus && is_first_look) {
                // The clock of another node is ahead, or another login came in the same millisecond. This login is
                // the later one, unless yet another one says the same of itself.
                let mut latest = record.clone();
                latest.lifetime.created_at = newest.saturating_add(Duration::from_millis(1));
                latest.version = Version::unique();
                let write = Write::Update { loaded: record };
                if rows.save_twice(&own, &latest, write).await? == SaveOutcome::Saved {
                    *record = latest;
                }
                continue;
            }
            let surplus = surplus.into_iter().map(|(key, record)| (key, Some(record)));
            self.end_rows(rows, surplus.collect(), &owners, EndReason::OverLimit).await?;
            break;
        }
        Ok(())
    }

    /// Returns the hashes of the owner of a record under every key.
    fn owners_of(&self, record: &Record, owner: OwnerKey) -> Vec<OwnerKey> {
        // With one key there is one hash, and the data need not be decoded.
        let data = (self.owner_keys.len() > 1).then(|| self.decode(record).ok().flatten());
        let name = data.flatten().and_then(|data| self.data.owner(&*data));
        name.map_or_else(|| vec![owner], |name| self.hashes_of(&name).collect())
    }

    /// Returns the rows of an owner, undecoded, or none of them if there are at most `few`.
    async fn rows_of(
        &self,
        rows: Rows<'_>,
        owners: &[OwnerKey],
        few: usize,
    ) -> Result<Vec<(StoreKey, Record)>> {
        let keys: Vec<_> = rows.keys_of(owners).await?.into_iter().collect();
        let (mut found, soon) = (Vec::new(), self.now().saturating_add(self.unfinished_life()));
        if keys.len() <= few {
            return Ok(found);
        }
        for (key, row) in keys.iter().zip(rows.load_each(&keys, &is_of(owners)).await) {
            match row {
                Ok(row) => found.extend(row.map(|row| (*key, row))),
                // A row that cannot be read has no known age, so it is not ended for its age.
                Err(StoreError::Corrupt | StoreError::Newer | StoreError::Expired) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A session that is getting a new id has two rows, and one of them ends soon.
        let session = |row: &Record| (row.created_at(), row.epoch);
        found.sort_by_key(|(_, row)| (session(row), Reverse(row.expires_at())));
        found.dedup_by(|(_, row), (_, other)| {
            row.expires_at() <= soon && session(row) == session(other)
        });
        Ok(found)
    }
}

impl Rows<'_> {
    /// Returns the keys of all sessions of an owner, whose hash depends on the key that a node uses.
    async fn keys_of(&self, owners: &[OwnerKey]) -> Result<BTreeSet<StoreKey>, StoreError> {
        let mut keys = BTreeSet::new();
        for owner in owners {
            let find = self.bounded("find_by_owner", self.store.find_by_owner(owner));
            // A node with other keys may move a session from one hash to the next meanwhile.
            keys.extend(find.await?);
        }
        Ok(keys)
    }

    async fn load_each(
        &self,
        keys: &[StoreKey],
        is_meant: &IsMeant<'_>,
    ) -> Vec<Result<Option<Record>, StoreError>> {
        some_at_once(keys.iter().map(|key| self.look_up(key, is_meant)).collect()).await
    }
}

/// Awaits store calls, some at once.
async fn some_at_once<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let (mut calls, mut results) = (calls.into_iter(), Vec::new());
    while calls.len() > 0 {
        results.extend(join_all(calls.by_ref().take(AT_ONCE)).await);
        // A store in memory never waits, so without this no other task would get its turn.
        yield_now().await;
    }
    results
}

/// The index may name a session whose owner has changed meanwhile.
fn is_of(owners: &[OwnerKey]) -> impl Fn(&Record) -> bool + Send + Sync {
    move |record| record.owner.is_some_and(|owner| owners.contains(&owner))
}
