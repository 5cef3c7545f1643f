//! Sessions of other libraries, which become sessions of this manager.

use cookie::Cookie;
use http::request::Parts;

use super::{
    any_data::Data,
    basis::{Basis, Incoming},
    core::Core,
    endings::Successor,
    rows::Rows,
    tokens::Verdict,
};
use crate::{
    clock::Timestamp,
    cookies::values_of,
    decision::{Live, Origin},
    error::{Result, SessionError, StoreError},
    event::SessionEventKind as Kind,
    expiry::TimeoutChanges,
    id::{SessionId, StoreKey, random},
    import::{Import, OldSession},
    keys::derive,
    store::{Record, SaveOutcome, Version, Write},
};

/// The old session that the session of a request was made from.
pub(crate) struct Imported {
    /// The key of the mark that the old session was imported, so that it is imported once. `None` if other old sessions
    /// may have the same credential.
    mark: Option<StoreKey>,
    /// When the old session would have ended, or the import ends.
    end: Timestamp,
}

impl Basis {
    /// Returns the session if it was made from an old one and nothing of it is saved or sent yet.
    pub(crate) fn importing(&self) -> Option<(&Imported, &Live)> {
        let live = self.live().filter(|live| live.is_outdated)?;
        Some((self.incoming.imported.as_ref()?, live))
    }
}

impl Core {
    /// Asks for the old session of a request that brings no valid one of this manager.
    pub(super) async fn import(
        &self,
        parts: &Parts,
        incoming: &mut Incoming,
    ) -> Result<Option<(Origin, Option<Box<Data>>)>> {
        for Import { until, cookies, source } in &self.imports {
            let came =
                |cookie: &Cookie<'_>| values_of(&parts.headers, cookie.name()).next().is_some();
            let arrived = cookies.iter().any(came);
            // A destroy then removes them, whether they open or not.
            incoming.arrived |= arrived;
            if *until <= incoming.opened_at || (!arrived && !cookies.is_empty()) {
                continue;
            }
            let after = self.store_timeout();
            let found = tokio::time::timeout(after, source.find(parts)).await;
            let found = found.unwrap_or(Err(StoreError::Timeout { after })).inspect_err(|_| {
                self.events.report(Kind::StoreError { operation: "import" }, || None);
            });
            if let Some(old) = found?
                && let Some(found) = self.take_over(old, *until, parts, incoming).await?
            {
                (incoming.arrived, incoming.removes_old) = (true, true);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Makes the session of a request from an old one; `None` if that may not be imported.
    ///
    /// Its id is derived from the old credential, so that all requests that a browser sends at once get one session.
    /// Without a credential, each request makes a session of its own, since two visitors must not share one.
    async fn take_over(
        &self,
        old: OldSession<Box<Data>>,
        until: Timestamp,
        parts: &Parts,
        incoming: &mut Incoming,
    ) -> Result<Option<(Origin, Option<Box<Data>>)>> {
        let (now, scope) = (incoming.opened_at, &self.tenant.scope);
        let (end, mut verdict) = (old.end(now), None);
        let mark = old.credential.map(|old| scope.id(derived(&old, b"import mark")).store_key());
        let mut ids = self.import_keys.iter().filter_map(|key| {
            let purpose = [b"import id".as_slice(), mark?.as_bytes()].concat();
            Some(self.session_id(derived(&*key.secret, &purpose)))
        });
        let mut id = match ids.next() {
            Some(id) => id,
            None => self.session_id(random().map_err(SessionError::Random)?),
        };
        if let Some((rows, mark)) = self.rows_of_marks().zip(mark) {
            // A mark is an entry like those of the revocation list.
            match self.revocation(rows, &mark, now).await {
                Ok(None) => {}
                // Another request has just imported it as this session.
                Ok(Some(Verdict::Tombstone(Some(session)))) => {
                    // Another node may have another key first, while keys are replaced.
                    id = ids.find(|other| other.store_key() == session.key).unwrap_or(id);
                    verdict = self.verdict_after_import(rows, &id, now).await?;
                }
                // It was imported, and its cookie was removed, or it has ended. A mark that cannot be read is still a mark.
                Ok(Some(_)) | Err(SessionError::Newer) => {
                    self.report(Kind::Revoked, || id.store_key());
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let is_pending = verdict.is_none();
        let verdict = verdict.unwrap_or_else(|| self.record_of_old(old.data, end, &id, now));
        let mut record = match verdict {
            Verdict::Current(record) => record,
            Verdict::Tombstone(successor) => {
                incoming.others.extend(successor.map(|successor| (successor.key, None)));
                return Ok(Some((Origin::Tombstone, None)));
            }
            Verdict::Unreadable(error) => {
                incoming.meets_newer |= matches!(error, StoreError::Newer);
                incoming.others.push((id.store_key(), None));
                return Ok(None);
            }
            Verdict::Expired(_) | Verdict::Absent => return Ok(None),
        };
        let Ok(Some(data)) = self.read(&|| id.store_key(), &mut record, Some(parts)) else {
            return Ok(None);
        };
        incoming.imported = is_pending.then(|| Imported { mark, end: end.min(until) });
        let live = Live { id, record, is_outdated: true };
        Ok(Some((Origin::Loaded(live), Some(data))))
    }

    /// Makes the record of an old session. It lives no longer than the old one had left.
    fn record_of_old(
        &self,
        mut data: Box<Data>,
        end: Timestamp,
        id: &SessionId,
        now: Timestamp,
    ) -> Verdict {
        let refused = |kind| {
            self.report(kind, || id.store_key());
            Verdict::Absent
        };
        if end <= now {
            return refused(Kind::Expired);
        }
        let Ok(prepared) = self.prepare(&mut *data, None) else {
            return refused(Kind::Invalid);
        };
        let owned = prepared.owner.is_some();
        let mut lifetime = self.policy.begun(now, TimeoutChanges::default(), owned);
        lifetime.expires_at = lifetime.expires_at.min(end);
        Verdict::Current(Box::new(self.record(&prepared, lifetime, 0)))
    }

    /// Judges the session that another request has just made from the same old one. Returns `None` if this request
    /// makes it too: in cookie mode, where no row holds it.
    async fn verdict_after_import(
        &self,
        rows: Rows<'_>,
        id: &SessionId,
        now: Timestamp,
    ) -> Result<Option<Verdict>> {
        if self.data_in_token() {
            return self.revocation(rows, &id.store_key(), now).await;
        }
        let row = rows.look_up(&id.store_key(), &|_| true).await;
        self.judge(&|| id.store_key(), row.map(|row| row.map(Box::new)), now).map(Some)
    }

    /// Returns where marks are kept, if there is such a place.
    fn rows_of_marks(&self) -> Option<Rows<'_>> {
        self.rows().or_else(|| self.list())
    }

    /// Notes that an old session was imported as a session, or without one that it has ended. A mark that is there
    /// already stays and is returned.
    pub(super) async fn mark(
        &self,
        imported: &Imported,
        session: Option<(StoreKey, Version)>,
        now: Timestamp,
    ) -> Result<Option<Record>> {
        let Some((rows, key)) = self.rows_of_marks().zip(imported.mark) else { return Ok(None) };
        let end = imported.end.max(now.saturating_add(self.tombstone_life()));
        let end = end.saturating_add(self.clock_skew);
        let successor = session.map(|(key, _)| Successor { key, is_other_identity: false });
        let mut mark = self.tombstone(now, end, successor);
        mark.version = session.map_or(mark.version, |(_, version)| version);
        Ok(rows.save_twice(&key, &mark, Write::Create).await?.conflicting())
    }

    /// Saves a session that was made from an old one and is not saved yet, as the old session was. With the row it
    /// goes on like any other. Returns `true` if it has ended meanwhile.
    ///
    /// The mark has the version in which the row began. If this request made the row and the mark has another
    /// version, then the row of an earlier import had been there and was ended, and it must not come back.
    pub(super) async fn save_imported(&self, basis: &Basis, now: Timestamp) -> Result<bool> {
        let Some(((imported, live), rows)) = basis.importing().zip(self.rows()) else {
            return Ok(false);
        };
        let (key, record) = (live.key(), &live.record);
        let found = match rows.save_twice(&key, record, Write::Create).await? {
            SaveOutcome::Saved => None,
            SaveOutcome::Conflict(theirs) if !theirs.tombstone => Some(theirs.version),
            SaveOutcome::Conflict(_) | SaveOutcome::Gone => return Ok(true),
        };
        let version = found.unwrap_or(record.version);
        let earlier = self.mark(imported, Some((key, version)), now).await?;
        if found.is_some() {
            return Ok(earlier.is_some_and(|mark| Successor::of(&mark).is_none()));
        }
        if earlier.is_none() {
            self.report(Kind::Imported, || key);
            return Ok(false);
        }
        let _ = rows.destroy_at(&key, version).await?;
        Ok(true)
    }

    /// Notes that a token with the data of an old session is about to be sent.
    pub(super) async fn note_import(&self, basis: &Basis, now: Timestamp) -> Result<()> {
        if let Some((imported, live)) = basis.importing().filter(|_| self.data_in_token()) {
            let session = Some((live.key(), Version::unique()));
            if self.mark(imported, session, now).await?.is_none() {
                self.report(Kind::Imported, || live.key());
            }
        }
        Ok(())
    }
}

fn derived(secret: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut derived = [0; 32];
    derive(secret, &[purpose], &mut derived);
    derived
}
