//! The session of a request: its tokens are opened, looked up and judged, until one session is chosen.

use std::sync::{Arc, Mutex};

use http::request::Parts;

use super::{
    any_data::Data,
    basis::{Basis, Draft, Incoming},
    core::Core,
    endings::Successor,
    rows::Rows,
    tokens::{Claim, Found, Tokens, Verdict},
};
use crate::{
    clock::Timestamp,
    decision::{Live, Origin},
    error::{Result, StoreError},
    event::SessionEventKind as Kind,
    id::StoreKey,
    store::Record,
    warnings::Route,
};

impl Core {
    /// Finds the session of a request, or starts a fresh one.
    ///
    /// `keep` copies the request for `id_generator`.
    pub(crate) async fn open(
        &self,
        parts: &Parts,
        keep: fn(&Parts) -> Arc<Parts>,
    ) -> Result<Box<Draft>> {
        let now = self.now();
        let mut tokens = self.read_tokens(parts, now);
        for claim in &mut tokens.claims {
            if claim.issued_at.is_none() {
                let row = self.rows_for("load")?.look_up(&claim.id.store_key(), &|_| true).await;
                claim.record = row.map(|row| row.map(Box::new));
            } else if let (Some(list), Ok(Some(record))) = (self.list(), &claim.record)
                && self.policy.ends_at(&record.lifetime) > now
            {
                let revoked = Box::pin(self.revocation(list, &claim.id.store_key(), now)).await?;
                claim.revoked = revoked.map(Box::new);
            }
        }
        let mut incoming = self.incoming(parts, keep, &tokens, now);
        let (mut origin, mut data) = self.choose(parts, tokens.claims, &mut incoming)?;
        if origin == Origin::New && !incoming.meets_newer && !self.imports.is_empty() {
            let found = Box::pin(self.import(parts, &mut incoming)).await?;
            (origin, data) = found.unwrap_or((origin, data));
        }
        Ok(self.first_draft(incoming, origin, data))
    }

    /// Does the same where [`opens_at_once`](Self::opens_at_once) holds.
    pub(crate) fn open_at_once(
        &self,
        parts: &Parts,
        keep: fn(&Parts) -> Arc<Parts>,
    ) -> Result<Box<Draft>> {
        let now = self.now();
        let tokens = self.read_tokens(parts, now);
        let mut incoming = self.incoming(parts, keep, &tokens, now);
        let (origin, data) = self.choose(parts, tokens.claims, &mut incoming)?;
        Ok(self.first_draft(incoming, origin, data))
    }

    fn first_draft(
        &self,
        incoming: Incoming,
        origin: Origin,
        data: Option<Box<Data>>,
    ) -> Box<Draft> {
        let basis = Arc::new(Basis::new(Arc::new(incoming), 0, origin, None));
        Box::new(Draft::new(basis, data.unwrap_or_else(|| self.data.default())))
    }

    /// Notes the facts of a request, before its sessions are judged.
    fn incoming(
        &self,
        parts: &Parts,
        keep: fn(&Parts) -> Arc<Parts>,
        &Tokens { arrived, removes_formers, .. }: &Tokens,
        now: Timestamp,
    ) -> Incoming {
        let dropping = if arrived { None } else { self.tenant.carrier.host_that_drops(parts) };
        Incoming {
            arrived,
            removes_formers,
            removes_old: false,
            meets_newer: false,
            opened_at: now,
            extends: self.extend_if.as_ref().is_none_or(|extend_if| extend_if(parts)),
            route: Route::of(parts),
            others: Vec::new(),
            imported: None,
            plain_http_host: dropping.map(Box::from),
            parts: self.generate_id.is_some().then(|| keep(parts)),
            early_id: Mutex::new(None),
        }
    }

    /// Judges the sessions that came in, and chooses one. It has no data if none is valid.
    fn choose(
        &self,
        parts: &Parts,
        mut claims: Vec<Claim>,
        incoming: &mut Incoming,
    ) -> Result<(Origin, Option<Box<Data>>)> {
        let (now, others) = (incoming.opened_at, &mut incoming.others);
        let (mut origin, mut failed) = (Origin::New, Ok(()));
        claims.retain_mut(|claim| {
            let session = || claim.id.store_key();
            let is_current =
                matches!(&claim.record, Ok(Some(record)) if self.is_current(record, now));
            let verdict = match claim.revoked.take() {
                None if is_current => return true,
                Some(revoked) if is_current => {
                    self.report(Kind::Revoked, session);
                    Ok(*revoked)
                }
                _ => self.judge(&session, std::mem::replace(&mut claim.record, Ok(None)), now),
            };
            match verdict {
                Ok(Verdict::Tombstone(successor)) => {
                    origin = Origin::Tombstone;
                    others.extend(successor.map(|successor| (successor.key, None)));
                }
                Ok(Verdict::Expired(record)) => others.push((session(), record)),
                Ok(Verdict::Unreadable(error)) => {
                    incoming.meets_newer |= matches!(error, StoreError::Newer);
                    others.push((session(), None));
                }
                Ok(Verdict::Current(_) | Verdict::Absent) => {}
                Err(error) => failed = Err(error),
            }
            false
        });
        failed?;
        claims.sort_by_key(Claim::rank);
        // The client gets its new token from another response. A token of a former cookie must not replace it.
        let is_replaced = origin == Origin::Tombstone;
        let (mut newest, mut valid) = (None, 0);
        for Claim { id, former_key, in_former_cookie, record, .. } in claims {
            let Ok(Some(mut record)) = record else { continue };
            let session = || id.store_key();
            let data = if is_replaced && in_former_cookie {
                None
            } else {
                self.read(&session, &mut record, Some(parts)).ok().flatten()
            };
            valid += usize::from(data.is_some());
            match data {
                Some(data) if newest.is_none() => {
                    newest = Some(data);
                    let is_outdated = former_key || in_former_cookie;
                    origin = Origin::Loaded(Live { id, record, is_outdated });
                }
                _ => others.push((session(), Some(record))),
            }
        }
        if valid > 1 {
            self.events.report(Kind::Ambiguous { valid }, || None);
        }
        Ok((origin, newest))
    }

    /// Returns `true` if a session has not ended, and this version of the application can read it.
    fn is_current(&self, record: &Record, now: Timestamp) -> bool {
        self.policy.ends_at(&record.lifetime) > now && !record.tombstone && !self.is_newer(record)
    }

    /// Judges the record of a session from a token or a store.
    pub(super) fn judge(
        &self,
        session: &dyn Fn() -> StoreKey,
        stored: Found,
        now: Timestamp,
    ) -> Result<Verdict> {
        // A replaced id is remembered for seconds, by the clock of another node. Within the skew the store decides.
        let skew = |row: &Record| self.clock_skew * u32::from(row.tombstone);
        let end = |row: &Record| self.policy.ends_at(&row.lifetime).saturating_add(skew(row));
        let (kind, verdict) = match stored {
            Ok(None) => (Kind::Missed, Verdict::Absent),
            Ok(Some(record)) if self.is_current(&record, now) => {
                return Ok(Verdict::Current(record));
            }
            Ok(Some(row)) if end(&row) <= now => (Kind::Expired, Verdict::Expired(Some(row))),
            Ok(Some(record)) if record.tombstone => {
                (Kind::Revoked, Verdict::Tombstone(Successor::of(&record)))
            }
            Ok(Some(_)) => (Kind::Newer, Verdict::Unreadable(StoreError::Newer)),
            Err(StoreError::Expired) => (Kind::Expired, Verdict::Expired(None)),
            Err(error @ StoreError::Newer) => (Kind::Newer, Verdict::Unreadable(error)),
            Err(error @ StoreError::Corrupt) => (Kind::Corrupt, Verdict::Unreadable(error)),
            Err(error) => return Err(error.into()),
        };
        self.report(kind, session);
        Ok(verdict)
    }

    /// Looks a session of cookie mode up in the revocation list; `None` if it is not revoked.
    ///
    /// An id that was replaced moments ago is a tombstone.
    pub(super) async fn revocation(
        &self,
        list: Rows<'_>,
        key: &StoreKey,
        now: Timestamp,
    ) -> Result<Option<Verdict>> {
        let successor = match list.load(key).await {
            Ok(None) => return Ok(None),
            Ok(Some(entry)) => {
                let is_fresh = entry.created_at().saturating_add(self.tombstone_life()) > now;
                Successor::of(&entry).filter(|_| is_fresh)
            }
            // An entry that cannot be read is still an entry.
            Err(StoreError::Corrupt) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Some(successor.map_or(Verdict::Absent, |next| Verdict::Tombstone(Some(next)))))
    }

    /// Returns the data of a record, for a request or, without `parts`, outside one; `None` if it is rejected.
    pub(super) fn read(
        &self,
        session: &dyn Fn() -> StoreKey,
        record: &mut Record,
        parts: Option<&Parts>,
    ) -> Result<Option<Box<Data>>, StoreError> {
        match self.decode(record) {
            Ok(Some(data)) if self.data.is_valid(&*data, parts) => {
                self.rekey_owner(record, &*data);
                Ok(Some(data))
            }
            Ok(_) => {
                self.report(Kind::Invalid, session);
                Ok(None)
            }
            Err(error) => {
                self.report(Kind::Corrupt, session);
                Err(error)
            }
        }
    }
}
