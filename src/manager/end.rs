//! Ending a session: its row, or its entry in the revocation list.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Basis, Live, SessionManager, contention::Contention};
use crate::{
    clock::Timestamp,
    error::{SessionError, StoreError},
    event::SessionEvent,
    expiry::Lifetime,
    id::StoreKey,
    record::{Record, Version},
    store::{SaveOutcome, SessionStore, Write},
};

/// How long a replaced id is told from an unknown one, so that requests sent before the new cookie
/// arrived cannot overwrite it.
pub(super) const TOMBSTONE_TTL: Duration = Duration::from_secs(60);

/// A request that began before a revocation may seal its token this much later.
const REQUEST_IN_FLIGHT: Duration = Duration::from_secs(10 * 60);

/// Why a token of cookie mode is no longer a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revocation {
    /// It got a new id moments ago.
    Replaced,
    Ended,
}

impl Revocation {
    /// Reads a list's entry.
    fn of(entry: &Record) -> Self {
        if entry.payload == Self::Replaced.payload() { Self::Replaced } else { Self::Ended }
    }

    /// What stands in the list's tombstone; entries are tombstones, which no store evicts.
    fn payload(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Replaced => b"replaced",
            Self::Ended => b"ended",
        })
    }
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Ends every session that came in, and is certain of it before it says so.
    pub(super) async fn destroy_all(
        &self,
        basis: &Basis,
        now: Timestamp,
    ) -> Result<(), SessionError> {
        let live = basis.live.clone().map(Live::further);
        for (key, record) in live.iter().chain(&basis.others) {
            match (&basis.store, record) {
                _ if self.data_in_token() => {
                    let ended = Revocation::Ended;
                    let earlier = self.revoke(basis, key, record.as_ref(), ended, now).await?;
                    // The session was not replaced when this request began. Others that came in were
                    // refused before the list was asked, so theirs may be an old story.
                    let is_live = live.as_ref().is_some_and(|(live, _)| live == key);
                    if is_live && earlier == Some(Revocation::Replaced) {
                        return Err(self.gone(Some(*key)));
                    }
                }
                (Some(store), Some(record)) => {
                    self.destroy_session(store, key, record.version()).await?;
                }
                (Some(store), None) => self.rows(store).destroy(key).await?,
                (None, _) => {}
            }
            self.emit(|| SessionEvent::Destroyed { session: key.fingerprint() });
        }
        Ok(())
    }

    /// Removes a row whatever others write to it, unless it got a new id: then the session lives on, and
    /// saying that it ended would be a lie.
    pub(super) async fn destroy_session(
        &self,
        store: &Arc<dyn SessionStore>,
        key: &StoreKey,
        mut version: Version,
    ) -> Result<(), SessionError> {
        let rows = self.rows(store);
        let contention = Contention::start();
        loop {
            match rows.destroy_at(key, version).await? {
                SaveOutcome::Saved | SaveOutcome::Gone => return Ok(()),
                // Without a pause, in which somebody who keeps writing would always write again.
                SaveOutcome::Conflict(theirs) => {
                    version = self.not_gone(key, Some(theirs))?.version();
                }
            }
            contention.check()?;
        }
    }

    /// Looks a session of cookie mode up in the revocation list.
    pub(super) async fn revocation(
        &self,
        list: &Arc<dyn SessionStore>,
        key: &StoreKey,
        now: Timestamp,
    ) -> Result<Option<Revocation>, StoreError> {
        let entry = match self.rows(list).load(key).await {
            // An entry that cannot be read still is one.
            Err(StoreError::Corrupt) => return Ok(Some(Revocation::Ended)),
            entry => entry?,
        };
        Ok(entry.map(|entry| {
            let fresh = entry.created_at().saturating_add(TOMBSTONE_TTL) > now;
            if fresh { Revocation::of(&entry) } else { Revocation::Ended }
        }))
    }

    /// Enters a session of cookie mode into the revocation list, if there is one; returns what stood there
    /// before, which stays.
    pub(super) async fn revoke(
        &self,
        basis: &Basis,
        key: &StoreKey,
        record: Option<&Record>,
        revocation: Revocation,
        now: Timestamp,
    ) -> Result<Option<Revocation>, SessionError> {
        let Some(list) = &basis.store else {
            return Ok(None);
        };
        // A token of this id that a request in flight seals later cannot outlive this, nor one that was
        // sealed under a longer timeout.
        let last_end = now.saturating_add(self.config.policy.absolute_timeout);
        let last_end = record.map_or(last_end, |record| last_end.max(record.absolute_end()));
        let last_end = last_end.saturating_add(REQUEST_IN_FLIGHT);
        let mut entry = self.tombstone(now, last_end)?;
        entry.payload = revocation.payload();
        let entered = self.rows(list).save(key, &entry, Write::Create).await?;
        Ok(match entered {
            SaveOutcome::Conflict(earlier) => Some(Revocation::of(&earlier)),
            SaveOutcome::Saved | SaveOutcome::Gone => None,
        })
    }

    pub(super) fn tombstone(&self, now: Timestamp, end: Timestamp) -> Result<Record, SessionError> {
        Ok(Record {
            version: Version::random().map_err(SessionError::Random)?,
            schema: self.config.schema,
            codec: self.config.codec.tag(),
            owner: None,
            lifetime: Lifetime {
                created_at: now,
                expires_at: end,
                absolute_end: end,
                max_age: None,
            },
            tombstone: true,
            payload: Bytes::new(),
        })
    }

    /// Refuses a row that is no more, or that lives on under another id.
    pub(super) fn not_gone(
        &self,
        key: &StoreKey,
        row: Option<Record>,
    ) -> Result<Record, SessionError> {
        row.filter(|row| !row.is_tombstone()).ok_or_else(|| self.gone(Some(*key)))
    }

    pub(super) fn gone(&self, key: Option<StoreKey>) -> SessionError {
        self.emit(|| SessionEvent::Gone { session: key.map(|key| key.fingerprint()) });
        SessionError::Gone
    }
}
