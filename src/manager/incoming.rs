//! The session of a request: its tokens are opened, looked up and judged, until one session is chosen.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex},
};

use http::request::Parts;

use super::{
    any_data::Data,
    basis::{Basis, Draft, Incoming},
    core::Core,
    endings::Successor,
    rows::Rows,
    tokens::{Claim, Tokens},
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

/// The result of a check of a session, without its data.
pub(super) enum Verdict {
    /// It has not ended; its data is still to be judged.
    Current(Record),
    /// Its id was replaced.
    Tombstone(Option<Successor>),
    /// It has expired, and its row is still there.
    Expired(Option<Record>),
    /// It is damaged, or a newer node wrote it.
    Unreadable(StoreError),
    Absent,
}

/// The order of several sessions: a session in the current cookie before a session in a former cookie, then the newest.
type Rank = (bool, Reverse<Timestamp>);

impl Core {
    /// Reads the tokens of a request and looks their sessions up. It decodes no data. Returns the origin if no
    /// session is valid, and the sessions that may be valid, in the order in which they count.
    pub(super) async fn look_up(
        &self,
        parts: &Parts,
        keep: fn(&Parts) -> Arc<Parts>,
    ) -> Result<(Incoming, Origin, Vec<(Rank, Live)>)> {
        let now = self.now();
        let Tokens { arrived, removes_formers, claims } = self.read_tokens(parts, now);
        let (mut origin, mut others, mut meets_newer) = (Origin::New, Vec::new(), false);
        let mut current = Vec::with_capacity(claims.len());
        for Claim { id, former_key, in_former_cookie, carried } in claims {
            let session = || id.store_key();
            let (issued_at, stored) = if let Some((issued_at, record)) = carried {
                (Some(issued_at), record.map(Some).ok_or(StoreError::Newer))
            } else {
                let rows = self.rows_for("load")?;
                (None, rows.look_up(id.key()).await)
            };
            let mut verdict = self.judge(&session, stored, now)?;
            if let (Verdict::Current(_), Some(list)) = (&verdict, self.list())
                && let Some(revoked) = Box::pin(self.revocation(list, id.key(), now)).await?
            {
                self.report(Kind::Revoked, session);
                verdict = revoked;
            }
            match verdict {
                Verdict::Current(record) => {
                    let age = issued_at.unwrap_or(record.created_at());
                    let rank = (in_former_cookie, Reverse(age));
                    let is_outdated = former_key || in_former_cookie;
                    current.push((rank, Live { id, record, is_outdated }));
                }
                Verdict::Tombstone(successor) => {
                    origin = Origin::Tombstone;
                    others.extend(successor.map(|successor| (successor.key, None)));
                }
                Verdict::Expired(record) => others.push((session(), record)),
                Verdict::Unreadable(error) => {
                    meets_newer |= matches!(error, StoreError::Newer);
                    others.push((session(), None));
                }
                Verdict::Absent => {}
            }
        }
        if origin == Origin::Tombstone {
            // The client gets its new token from another response. A token of a former cookie must not replace it.
            let formers = current.extract_if(.., |((in_former_cookie, _), _)| *in_former_cookie);
            others.extend(formers.map(|(_, live)| (live.key(), Some(live.record))));
        }
        current.sort_by_key(|(rank, _)| *rank);
        let dropping = if arrived { None } else { self.tenant.carrier.host_that_drops(parts) };
        let incoming = Incoming {
            arrived,
            removes_formers,
            meets_newer,
            opened_at: now,
            extends: self.extend_if.as_ref().is_none_or(|extend_if| extend_if(parts)),
            route: Route::of(parts),
            others,
            plain_http_host: dropping.map(Box::from),
            parts: self.generate_id.is_some().then(|| keep(parts)),
            early_id: Mutex::new(None),
        };
        Ok((incoming, origin, current))
    }

    /// Judges the record of a session from a token or a store.
    pub(super) fn judge(
        &self,
        session: &dyn Fn() -> StoreKey,
        stored: Result<Option<Record>, StoreError>,
        now: Timestamp,
    ) -> Result<Verdict> {
        // A replaced id is remembered for seconds, by the clock of another node. Within the skew the store decides.
        let skew = |row: &Record| self.clock_skew * u32::from(row.tombstone);
        let end = |row: &Record| self.policy.ends_at(&row.lifetime).saturating_add(skew(row));
        let (kind, verdict) = match stored {
            Ok(None) => (Kind::Missed, Verdict::Absent),
            Ok(Some(row)) if end(&row) <= now => (Kind::Expired, Verdict::Expired(Some(row))),
            Ok(Some(record)) if record.tombstone => {
                (Kind::Revoked, Verdict::Tombstone(Successor::of(&record)))
            }
            Ok(Some(record)) if self.is_newer(&record) => {
                (Kind::Newer, Verdict::Unreadable(StoreError::Newer))
            }
            Ok(Some(record)) => return Ok(Verdict::Current(record)),
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

    /// Finds the session of a request, or starts a fresh one.
    ///
    /// `keep` copies the request for `id_generator`.
    pub(crate) async fn open(
        &self,
        parts: &Parts,
        keep: fn(&Parts) -> Arc<Parts>,
    ) -> Result<Box<Draft>> {
        // A handler's future holds this one, and past a kilobyte allocators leave their fast path.
        let (mut incoming, mut origin, current) = Box::pin(self.look_up(parts, keep)).await?;
        let mut newest = None;
        let mut valid = 0;
        for (_, mut live) in current {
            let Live { id, record, .. } = &mut live;
            let data = self.read(&|| id.store_key(), record, Some(parts)).ok().flatten();
            valid += usize::from(data.is_some());
            match data {
                Some(data) if newest.is_none() => {
                    newest = Some(data);
                    origin = Origin::Loaded(Box::new(live));
                }
                _ => incoming.others.push((live.key(), Some(live.record))),
            }
        }
        if valid > 1 {
            self.events.report(Kind::Ambiguous { valid }, || None);
        }
        let basis = Arc::new(Basis::new(Arc::new(incoming), 0, origin, None));
        Ok(Box::new(Draft::new(basis, newest.unwrap_or_else(|| self.data.default()))))
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
