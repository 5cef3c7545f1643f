//! Opening a session: from the tokens of a request to a basis and its data.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes};
use http::request::Parts;

use super::{Backing, Basis, Live, SessionManager, commit::UNVERSIONED, payload::Unreadable};
use crate::{
    clock::Timestamp,
    decision::Origin,
    error::{SessionRejection, StoreError},
    event::SessionEvent,
    id::{SessionId, StoreKey},
    record::{Record, take},
    seal::{Opened, Shape},
    store::SessionStore,
};

/// More tokens of one name than this are not opened: each costs a decryption or a load.
const MAX_OPENED: usize = 4;

/// How far ahead another node's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How long a replaced id is told from an unknown one, so that requests sent before the new cookie
/// arrived cannot overwrite it.
pub(super) const TOMBSTONE_TTL: Duration = Duration::from_secs(60);

/// The tokens of a request that could be a session.
#[derive(Default)]
struct Arrivals {
    arrived: bool,
    malformed: bool,
    unknown_key: bool,
    claims: Vec<Claim>,
}

/// What an authenticated token, or a plain id, says.
struct Claim {
    id: SessionId,
    retired_key: bool,
    /// Issue time and record, if the token carries the data.
    data: Option<(Timestamp, Record)>,
}

/// What a claim turned out to be.
enum Verdict<T> {
    Valid(T),
    Refused,
    Tombstone,
    /// There is no such session, so nothing to end either.
    Unknown,
}

/// The best claim so far, and what destroy would end besides.
struct Found<T> {
    best: Option<(Timestamp, Live, T)>,
    valid: usize,
    tombstone: bool,
    refused: bool,
    others: Vec<StoreKey>,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Finds the session of a request, or starts a fresh one.
    pub(crate) async fn open(&self, parts: &Parts) -> Result<(Basis, T), SessionRejection> {
        let now = self.now();
        let arrivals = self.read_tokens(parts, now)?;
        let store = self.store_of(parts)?;
        let found = self
            .judge_all(&arrivals, store.as_ref(), parts, now)
            .await?;
        self.report(&arrivals, &found);
        let (live, data) = match found.best {
            Some((_, live, data)) => (Some(live), data),
            None => (None, self.default_data()),
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
            parts: self.parts_for_id(parts),
        };
        Ok((basis, data))
    }

    fn store_of(&self, parts: &Parts) -> Result<Option<Arc<dyn SessionStore>>, SessionRejection> {
        match &self.backing {
            Backing::Token(list) => Ok(list.clone()),
            Backing::Store(store) => Ok(Some(store.clone())),
            Backing::StoreFor(store_for) => match store_for(parts) {
                Ok(store) => Ok(Some(store)),
                Err(error) => {
                    self.emit(|| SessionEvent::StoreError {
                        operation: "store_for",
                    });
                    Err(error.into())
                }
            },
        }
    }

    /// The request's own extensions hold the session's cell, which must not hold itself.
    fn parts_for_id(&self, parts: &Parts) -> Option<Arc<Parts>> {
        self.config.hooks.generate_id.as_ref()?;
        let mut parts = parts.clone();
        parts.extensions.remove::<crate::request::RequestSessions>();
        Some(Arc::new(parts))
    }

    fn read_tokens(&self, parts: &Parts, now: Timestamp) -> Result<Arrivals, SessionRejection> {
        let mut arrivals = Arrivals::default();
        let mut newer = false;
        let mut to_open = MAX_OPENED;
        self.config.carrier.visit_tokens(parts, |token| {
            arrivals.arrived = true;
            if to_open > 0 {
                match self.read_token(token, now, &mut to_open) {
                    Ok(claim) => arrivals.claims.push(claim),
                    Err(BadToken::Malformed) => arrivals.malformed = true,
                    Err(BadToken::UnknownKey) => arrivals.unknown_key = true,
                    Err(BadToken::Newer) => newer = true,
                }
            }
        });
        if newer {
            self.emit(|| SessionEvent::Newer { session: None });
            return Err(SessionRejection::Newer);
        }
        Ok(arrivals)
    }

    /// Reads one token; what passes the cheap checks counts against `to_open`, authentic or not.
    fn read_token(
        &self,
        token: &[u8],
        now: Timestamp,
        to_open: &mut usize,
    ) -> Result<Claim, BadToken> {
        let Some(sealer) = &self.config.sealer else {
            let id = self
                .config
                .scope
                .parse_id(token)
                .ok_or(BadToken::Malformed)?;
            *to_open -= 1;
            return Ok(Claim {
                id,
                retired_key: false,
                data: None,
            });
        };
        let opened = match sealer.inspect(token) {
            Shape::Ours(candidate) => {
                *to_open -= 1;
                sealer.open(candidate).ok_or(BadToken::Malformed)?
            }
            Shape::UnknownKey => return Err(BadToken::UnknownKey),
            Shape::Malformed => return Err(BadToken::Malformed),
        };
        let Opened {
            mut plaintext,
            retired_key,
        } = opened;
        let id = take(&mut plaintext).ok_or(BadToken::Malformed)?;
        Ok(Claim {
            id: self.config.scope.id(id),
            retired_key,
            data: if self.data_in_token() {
                Some(read_data(plaintext, now)?)
            } else {
                None
            },
        })
    }

    async fn judge_all(
        &self,
        arrivals: &Arrivals,
        store: Option<&Arc<dyn SessionStore>>,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Found<T>, SessionRejection> {
        let mut found = Found {
            best: None,
            valid: 0,
            tombstone: false,
            refused: false,
            others: Vec::new(),
        };
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
                (Verdict::Valid(data), Some(record)) => {
                    found.valid += 1;
                    let live = Live {
                        id: claim.id.clone(),
                        record,
                        retired_key: claim.retired_key,
                    };
                    found.keep_newest(age, live, data);
                }
                (Verdict::Tombstone, _) => found.tombstone = true,
                (Verdict::Refused, _) | (Verdict::Valid(_), None) => {
                    found.refused = true;
                    found.others.push(claim.id.store_key());
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
                self.emit(|| SessionEvent::Revoked {
                    session: claim.id.store_key().fingerprint(),
                });
                Ok(match revocation {
                    Revocation::Replaced => Verdict::Tombstone,
                    Revocation::Ended => Verdict::Unknown,
                })
            }
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
            if entry.is_tombstone() && fresh {
                Revocation::Replaced
            } else {
                Revocation::Ended
            }
        }))
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
                self.emit(|| SessionEvent::Corrupt { session });
                absent(Verdict::Refused)
            }
            Err(StoreError::Newer) => {
                self.emit(|| SessionEvent::Newer {
                    session: Some(session),
                });
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
                self.emit(|| SessionEvent::Newer {
                    session: Some(session()),
                });
                return Err(SessionRejection::Newer);
            }
            Err(Unreadable::Corrupt) => {
                self.emit(|| SessionEvent::Corrupt { session: session() });
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
        Ok(Verdict::Valid(data))
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
    fn keep_newest(&mut self, age: Timestamp, live: Live, data: T) {
        match &self.best {
            Some((best, ..)) if *best >= age => self.others.push(live.id.store_key()),
            _ => {
                if let Some((_, older, _)) = self.best.replace((age, live, data)) {
                    self.others.push(older.id.store_key());
                }
            }
        }
    }
}

enum BadToken {
    Malformed,
    UnknownKey,
    Newer,
}

/// Why a token of cookie mode is no longer a session.
pub(super) enum Revocation {
    /// It got a new id moments ago.
    Replaced,
    Ended,
}

/// Reads what follows the id in a token that carries its data.
fn read_data(mut rest: Bytes, now: Timestamp) -> Result<(Timestamp, Record), BadToken> {
    let mut millis = || take(&mut rest).map(u64::from_be_bytes);
    let (Some(issued_at), Some(expires_at)) = (millis(), millis()) else {
        return Err(BadToken::Malformed);
    };
    let issued_at = Timestamp::from_unix_millis(issued_at);
    if issued_at > now.saturating_add(CLOCK_SKEW) {
        return Err(BadToken::Malformed);
    }
    let expires_at = Timestamp::from_unix_millis(expires_at);
    match Record::from_bytes(UNVERSIONED, expires_at, rest) {
        Ok(record) => Ok((issued_at, record)),
        // One that has expired holds nothing that a newer node still needs.
        Err(StoreError::Newer) if expires_at > now => Err(BadToken::Newer),
        Err(_) => Err(BadToken::Malformed),
    }
}

/// The length of a data token's plaintext before the record.
const DATA_PREFIX_BYTES: usize = 32 + 8 + 8;

/// Returns the length of what [`write_data`] writes.
pub(super) fn data_len(record: &Record) -> usize {
    DATA_PREFIX_BYTES + record.encoded_len()
}

/// Writes the plaintext of a token that carries its data.
pub(super) fn write_data(
    id: &SessionId,
    issued_at: Timestamp,
    record: &Record,
    into: &mut Vec<u8>,
) {
    into.extend_from_slice(id.as_bytes());
    into.put_u64(issued_at.as_unix_millis());
    into.put_u64(record.expires_at().as_unix_millis());
    record.write_to(into);
}
