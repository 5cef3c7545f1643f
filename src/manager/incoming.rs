//! The session of a request: its tokens opened, looked up and judged, until one session is left.

use std::sync::Arc;

use http::request::Parts;

use super::{
    SessionManager,
    basis::{Basis, Draft, Incoming},
    data::Unreadable,
    endings::Successor,
    tokens::Claim,
};
use crate::{
    clock::Timestamp,
    decision::{Live, Origin},
    error::{SessionRejection, StoreError},
    event::SessionEventKind as Kind,
    id::StoreKey,
    record::Record,
    store::SessionStore,
    warnings::Route,
};

/// What a session turned out to be.
pub(super) enum Verdict<T> {
    Valid(Record, Box<Draft<T>>),
    /// Its id was replaced.
    Tombstone(Option<Successor>),
    /// Not to be handed out; the record, if it could be read, is left to expire.
    Refused(Option<Record>),
    Absent,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Finds the session of a request, or starts a fresh one.
    ///
    /// `kept_parts` is what `id_generator` gets to see later, as [`keeps_parts`](Self::keeps_parts) asks.
    pub(crate) async fn open(
        &self,
        parts: &Parts,
        kept_parts: Option<Arc<Parts>>,
    ) -> Result<(Basis, Box<Draft<T>>), SessionRejection> {
        let opened_at = self.core.now();
        let (arrived, claims) = self.core.read_tokens(parts, opened_at)?;
        let store = self.core.store_of(parts)?;
        let (mut origin, mut others) = (Origin::New, Vec::new());
        let mut newest: Option<(Timestamp, Box<Live>, Box<Draft<T>>)> = None;
        let mut valid = 0;
        for claim in &claims {
            match self.judge_claim(claim, store.as_ref(), parts, opened_at).await? {
                Verdict::Valid(record, draft) => {
                    valid += 1;
                    let carried = claim.carried.as_ref();
                    let age = carried.map_or(record.created_at(), |(issued_at, _)| *issued_at);
                    let live = Live {
                        former_key: claim.former_key,
                        ..Live::new(claim.id.clone(), record)
                    };
                    let live = Box::new(live);
                    let older = match &newest {
                        Some((newest, ..)) if *newest >= age => Some(live),
                        _ => newest.replace((age, live, draft)).map(|(_, older, _)| older),
                    };
                    others.extend(older.map(|older| (older.key(), Some(older.record))));
                }
                Verdict::Tombstone(successor) => {
                    origin = Origin::Tombstone;
                    others.extend(successor.map(|successor| (successor.key, None)));
                }
                Verdict::Refused(record) => {
                    if origin == Origin::New {
                        origin = Origin::Rejected;
                    }
                    others.push((claim.id.store_key(), record));
                }
                Verdict::Absent => {}
            }
        }
        if valid > 1 {
            self.core.alarm(Kind::Ambiguous { valid });
        }
        let draft = match newest {
            Some((_, live, draft)) => {
                origin = Origin::Loaded(live);
                draft
            }
            None => Box::new(Draft::new(self.default_data())),
        };
        let route = Route::of(parts);
        let incoming = Incoming { arrived, opened_at, route, others, store, parts: kept_parts };
        Ok((Basis::new(incoming, origin), draft))
    }

    /// Returns `true` if a commit needs the request itself, so that somebody has to keep it.
    pub(crate) fn keeps_parts(&self) -> bool {
        self.core.generate_id.is_some()
    }

    async fn judge_claim(
        &self,
        claim: &Claim,
        store: Option<&Arc<dyn SessionStore>>,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Verdict<T>, SessionRejection> {
        let session = || claim.id.store_key();
        let (stored, list) = match (&claim.carried, store) {
            (Some((_, record)), list) => (Ok(Some(record.clone())), list),
            (None, Some(store)) => {
                (self.core.rows_in(store).load(&claim.id.store_key()).await, None)
            }
            (None, None) => return Ok(Verdict::Absent),
        };
        let verdict = self.judge(session, stored, Some(parts), now)?;
        let (Verdict::Valid(..), Some(list)) = (&verdict, list) else {
            return Ok(verdict);
        };
        let Some(entry) = self.core.revocation(list, &claim.id.store_key()).await? else {
            return Ok(verdict);
        };
        self.core.report(Kind::Revoked, session);
        Ok(if self.core.is_fresh_tombstone(&entry, now) {
            Verdict::Tombstone(Successor::of(&entry))
        } else {
            Verdict::Absent
        })
    }

    /// Judges what a token or a store holds of a session, for a request or, without `parts`, outside one.
    pub(super) fn judge(
        &self,
        session: impl Fn() -> StoreKey + Copy,
        stored: Result<Option<Record>, StoreError>,
        parts: Option<&Parts>,
        now: Timestamp,
    ) -> Result<Verdict<T>, SessionRejection> {
        let core = &self.core;
        let record = match stored {
            Ok(Some(record)) => record,
            Ok(None) => {
                core.report(Kind::Missed, session);
                return Ok(Verdict::Absent);
            }
            Err(StoreError::Corrupt) => {
                core.report(Kind::Corrupt, session);
                return Ok(Verdict::Refused(None));
            }
            Err(error) => {
                if matches!(error, StoreError::Newer) {
                    core.report(Kind::Newer, session);
                }
                return Err(error.into());
            }
        };
        if core.policy.ends_at(&record.lifetime) <= now {
            core.report(Kind::Expired, session);
            return Ok(Verdict::Refused(Some(record)));
        }
        if record.tombstone {
            core.report(Kind::Revoked, session);
            return Ok(Verdict::Tombstone(Successor::of(&record)));
        }
        match self.decode(&record) {
            Ok(data) if self.is_valid(parts, &data) => {
                return Ok(Verdict::Valid(record, Box::new(Draft::new(data))));
            }
            Err(Unreadable::Newer) => {
                core.report(Kind::Newer, session);
                return Err(SessionRejection::Newer);
            }
            Err(Unreadable::Corrupt) => core.report(Kind::Corrupt, session),
            Ok(_) | Err(Unreadable::Refused) => {
                core.report(Kind::Invalid, session);
            }
        }
        Ok(Verdict::Refused(Some(record)))
    }

    fn is_valid(&self, parts: Option<&Parts>, data: &T) -> bool {
        let validate = self.data.validate.as_ref().zip(parts);
        self.is_valid_data(data) && validate.is_none_or(|(validate, parts)| validate(parts, data))
    }
}
