//! The session of a request: its tokens opened, looked up and judged, until one session is left.

use std::sync::Arc;

use http::request::Parts;

use super::{
    SessionManager,
    basis::{Basis, Draft, Incoming},
    core::Core,
    data::Unreadable,
    endings::Successor,
    tokens::Claim,
};
use crate::{
    clock::Timestamp,
    decision::{Live, Origin},
    error::{SessionError, StoreError},
    event::SessionEventKind as Kind,
    id::StoreKey,
    store::Record,
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

/// A session that a token names, and what the token or the store holds of it.
struct Found {
    claim: Claim,
    stored: Result<Option<Record>, StoreError>,
    /// Its entry in the revocation list.
    revoked: Option<Record>,
}

impl Core {
    /// Reads the tokens of a request and looks their sessions up.
    async fn look_up(
        &self,
        parts: &Parts,
        kept_parts: Option<Arc<Parts>>,
    ) -> Result<(Incoming, Vec<Found>), SessionError> {
        let opened_at = self.now();
        let (arrived, claims) = self.read_tokens(parts, opened_at)?;
        let store = self.store_of(parts)?;
        let mut found = Vec::with_capacity(claims.len());
        for claim in claims {
            let (stored, revoked) = match (&claim.carried, &store) {
                (Some((_, record)), list) => {
                    let list = list.as_ref().filter(|_| !self.is_over(record, opened_at));
                    let revoked = match list {
                        Some(list) => {
                            self.revocation(self.rows_in(list), &claim.id.store_key()).await?
                        }
                        None => None,
                    };
                    (Ok(Some(record.clone())), revoked)
                }
                (None, Some(store)) => {
                    (self.rows_in(store).load(&claim.id.store_key()).await, None)
                }
                (None, None) => continue,
            };
            found.push(Found { claim, stored, revoked });
        }
        let (route, others) = (Route::of(parts), Vec::new());
        let incoming = Incoming { arrived, opened_at, route, others, store, parts: kept_parts };
        Ok((incoming, found))
    }

    fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        self.policy.ends_at(&record.lifetime) <= now
    }
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Finds the session of a request, or starts a fresh one.
    ///
    /// `kept_parts` is the request that `id_generator` gets to see later, as [`keeps_parts`](Self::keeps_parts)
    /// asks.
    pub(crate) async fn open(
        &self,
        parts: &Parts,
        kept_parts: Option<Arc<Parts>>,
    ) -> Result<(Basis, Box<Draft<T>>), SessionError> {
        // A handler's future holds this one, and past a kilobyte allocators leave their fast path.
        let (mut incoming, found) = Box::pin(self.core.look_up(parts, kept_parts)).await?;
        let (now, others) = (incoming.opened_at, &mut incoming.others);
        let mut origin = Origin::New;
        let mut newest: Option<(Timestamp, Box<Live>, Box<Draft<T>>)> = None;
        let mut valid = 0;
        for Found { claim, stored, revoked } in found {
            let session = || claim.id.store_key();
            let mut verdict = self.judge(session, stored, Some(parts), now)?;
            if let (Verdict::Valid(..), Some(entry)) = (&verdict, revoked) {
                self.core.report(Kind::Revoked, session);
                let is_fresh = self.core.is_fresh_tombstone(&entry, now);
                verdict = if is_fresh {
                    Verdict::Tombstone(Successor::of(&entry))
                } else {
                    Verdict::Absent
                };
            }
            match verdict {
                Verdict::Valid(record, draft) => {
                    valid += 1;
                    let carried = claim.carried.as_ref();
                    let age = carried.map_or(record.created_at(), |(issued_at, _)| *issued_at);
                    let former_key = claim.former_key;
                    let live = Box::new(Live { former_key, ..Live::new(claim.id, record) });
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
                    others.push((claim.id.store_key(), record));
                }
                Verdict::Absent => {}
            }
        }
        if valid > 1 {
            self.core.events.report(Kind::Ambiguous { valid }, || None);
        }
        let draft = match newest {
            Some((_, live, draft)) => {
                origin = Origin::Loaded(live);
                draft
            }
            None => Box::new(Draft::new(self.default_data())),
        };
        Ok((Basis::new(incoming, origin), draft))
    }

    /// Returns `true` if a commit needs the request itself, so that somebody has to keep it.
    pub(crate) fn keeps_parts(&self) -> bool {
        self.core.generate_id.is_some()
    }

    /// Judges what a token or a store holds of a session, for a request or, without `parts`, outside one.
    pub(super) fn judge(
        &self,
        session: impl Fn() -> StoreKey + Copy,
        stored: Result<Option<Record>, StoreError>,
        parts: Option<&Parts>,
        now: Timestamp,
    ) -> Result<Verdict<T>, SessionError> {
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
        if core.is_over(&record, now) {
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
                return Err(SessionError::Newer);
            }
            Err(Unreadable::Corrupt) => core.report(Kind::Corrupt, session),
            Ok(_) | Err(Unreadable::Refused) => {
                core.report(Kind::Invalid, session);
            }
        }
        Ok(Verdict::Refused(Some(record)))
    }

    fn is_valid(&self, parts: Option<&Parts>, data: &T) -> bool {
        self.is_valid_data(data) && parts.is_none_or(|parts| (self.data.validate)(parts, data))
    }
}
