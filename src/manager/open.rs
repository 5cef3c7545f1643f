//! Opening a session: from the tokens of a request to a basis and its data.

use std::sync::Arc;

use http::request::Parts;

use super::{
    Backing, Basis, Live, SessionManager,
    end::Revocation,
    payload::{Draft, Unreadable},
    token::{Arrivals, Claim},
};
use crate::{
    clock::Timestamp,
    decision::Origin,
    error::{SessionRejection, StoreError},
    event::SessionEvent,
    id::{SessionId, StoreKey},
    record::Record,
    store::SessionStore,
};

/// What a claim turned out to be.
enum Verdict<T> {
    Valid(Box<Draft<T>>),
    Refused,
    Tombstone,
    /// There is no such session, so nothing to end either.
    Unknown,
}

/// The best claim so far, and what destroy would end besides.
struct Found<T> {
    best: Option<(Timestamp, Live, Box<Draft<T>>)>,
    valid: usize,
    tombstone: bool,
    refused: bool,
    others: Vec<(StoreKey, Option<Record>)>,
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
        let now = self.now();
        let arrivals = self.read_tokens(parts, now)?;
        let store = self.store_of(parts)?;
        let found = self.judge_all(&arrivals, store.as_ref(), parts, now).await?;
        self.report(&arrivals, &found);
        let (live, draft) = match found.best {
            Some((_, live, draft)) => (Some(live), draft),
            None => (None, Box::new(Draft::new(self.default_data()))),
        };
        let origin = match &live {
            Some(_) => Origin::Loaded,
            None if found.tombstone => Origin::Tombstone,
            None if found.refused => Origin::Rejected,
            None => Origin::New,
        };
        let basis = Basis {
            origin,
            arrived: arrivals.arrived,
            opened_at: now,
            live,
            others: found.others,
            store,
            parts: kept_parts,
        };
        Ok((basis, draft))
    }

    /// Says whether a commit needs the request itself, so that someone has to keep it.
    pub(crate) fn keeps_parts(&self) -> bool {
        self.config.hooks.generate_id.is_some()
    }

    fn store_of(&self, parts: &Parts) -> Result<Option<Arc<dyn SessionStore>>, SessionRejection> {
        match &self.backing {
            Backing::Token(list) => Ok(list.clone()),
            Backing::Store(store) => Ok(Some(store.clone())),
            Backing::StoreFor(store_for) => match store_for(parts) {
                Ok(store) => Ok(Some(store)),
                Err(error) => {
                    self.alarm(&SessionEvent::StoreError { operation: "store_for" });
                    Err(error.into())
                }
            },
        }
    }

    async fn judge_all(
        &self,
        arrivals: &Arrivals,
        store: Option<&Arc<dyn SessionStore>>,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Found<T>, SessionRejection> {
        let mut found =
            Found { best: None, valid: 0, tombstone: false, refused: false, others: Vec::new() };
        for claim in &arrivals.claims {
            let (age, record, verdict) = match (&claim.data, store) {
                (Some((issued_at, record)), list) => {
                    let verdict = self.judge_token(claim, record, list, parts, now).await?;
                    (*issued_at, Some(record.clone()), verdict)
                }
                (None, Some(store)) => self.judge_row(claim, store, parts, now).await?,
                (None, None) => continue,
            };
            match (verdict, record) {
                (Verdict::Valid(draft), Some(record)) => {
                    found.valid += 1;
                    let live =
                        Live { id: claim.id.clone(), record, retired_key: claim.retired_key };
                    found.keep_newest(age, live, draft);
                }
                (Verdict::Tombstone, _) => found.tombstone = true,
                (Verdict::Refused, record) | (Verdict::Valid(_), record @ None) => {
                    found.refused = true;
                    found.others.push((claim.id.store_key(), record));
                }
                (Verdict::Unknown, _) => {}
            }
        }
        Ok(found)
    }

    /// Judges a token that carries its data, which the list may have revoked.
    async fn judge_token(
        &self,
        claim: &Claim,
        record: &Record,
        list: Option<&Arc<dyn SessionStore>>,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Verdict<T>, SessionRejection> {
        let verdict = self.judge(&claim.id, record, parts, now)?;
        let Some(list) = list.filter(|_| matches!(verdict, Verdict::Valid(_))) else {
            return Ok(verdict);
        };
        match self.revocation(list, &claim.id.store_key(), now).await? {
            None => Ok(verdict),
            Some(revocation) => {
                self.emit(|| SessionEvent::Revoked { session: claim.id.store_key().fingerprint() });
                Ok(match revocation {
                    Revocation::Replaced => Verdict::Tombstone,
                    Revocation::Ended => Verdict::Unknown,
                })
            }
        }
    }

    async fn judge_row(
        &self,
        claim: &Claim,
        store: &Arc<dyn SessionStore>,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<(Timestamp, Option<Record>, Verdict<T>), SessionRejection> {
        let key = claim.id.store_key();
        let session = key.fingerprint();
        let absent = |verdict| Ok((now, None, verdict));
        match self.rows(store).load(&key).await {
            Ok(Some(record)) => {
                let verdict = self.judge(&claim.id, &record, parts, now)?;
                Ok((record.created_at(), Some(record), verdict))
            }
            Ok(None) => {
                self.emit(|| SessionEvent::Missed { session });
                absent(Verdict::Unknown)
            }
            Err(StoreError::Corrupt) => {
                self.alarm(&SessionEvent::Corrupt { session });
                absent(Verdict::Refused)
            }
            Err(StoreError::Newer) => {
                self.alarm(&SessionEvent::Newer { session: Some(session) });
                Err(SessionRejection::Newer)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn judge(
        &self,
        id: &SessionId,
        record: &Record,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Verdict<T>, SessionRejection> {
        let session = || id.store_key().fingerprint();
        if self.config.policy.ends_at(&record.lifetime) <= now {
            self.emit(|| SessionEvent::Expired { session: session() });
            return Ok(Verdict::Refused);
        }
        if record.tombstone {
            self.emit(|| SessionEvent::Revoked { session: session() });
            return Ok(Verdict::Tombstone);
        }
        let data = match self.decode(record) {
            Ok(data) => data,
            Err(Unreadable::Newer) => {
                self.alarm(&SessionEvent::Newer { session: Some(session()) });
                return Err(SessionRejection::Newer);
            }
            Err(Unreadable::Corrupt) => {
                self.alarm(&SessionEvent::Corrupt { session: session() });
                return Ok(Verdict::Refused);
            }
            Err(Unreadable::Refused) => {
                self.emit(|| SessionEvent::Invalid { session: session() });
                return Ok(Verdict::Refused);
            }
        };
        let validate = self.config.hooks.validate.as_ref();
        if !self.is_valid_data(&data) || !validate.is_none_or(|validate| validate(parts, &data)) {
            self.emit(|| SessionEvent::Invalid { session: session() });
            return Ok(Verdict::Refused);
        }
        Ok(Verdict::Valid(Box::new(Draft::new(data))))
    }

    /// One event for all the tokens that failed, however many a client sends.
    fn report(&self, arrivals: &Arrivals, found: &Found<T>) {
        if found.valid > 1 {
            self.emit(|| SessionEvent::Ambiguous { valid: found.valid });
        }
        if arrivals.claims.is_empty() {
            if arrivals.malformed {
                self.emit(|| SessionEvent::InvalidToken);
            } else if arrivals.unknown_key {
                self.emit(|| SessionEvent::UnknownKey);
            }
        }
    }
}

impl<T> Found<T> {
    fn keep_newest(&mut self, age: Timestamp, live: Live, draft: Box<Draft<T>>) {
        match &self.best {
            Some((best, ..)) if *best >= age => self.others.push(live.further()),
            _ => {
                if let Some((_, older, _)) = self.best.replace((age, live, draft)) {
                    self.others.push(older.further());
                }
            }
        }
    }
}
