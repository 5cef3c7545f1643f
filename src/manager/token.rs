//! Tokens of a session: what arrived, and what is sent.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::request::Parts;

use super::{Live, SessionManager};
use crate::{
    clock::Timestamp,
    cookies::NAME_VALUE_LIMIT,
    error::{SessionError, SessionRejection, StoreError},
    event::SessionEvent,
    expiry::cookie_seconds,
    id::{ID_BYTES, SessionId},
    record::{Record, Version, take},
    seal::{Opened, Shape},
    transport::Delivery,
};

/// More tokens of one name than this are not opened: each costs a decryption or a load.
const MAX_OPENED: usize = 4;

/// How far ahead another node's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The version of a record inside a token, which is replaced as a whole.
pub(super) const UNVERSIONED: Version = Version::from_bytes([0; 16]);

/// The tokens of a request that could be a session.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) arrived: bool,
    pub(super) malformed: bool,
    pub(super) unknown_key: bool,
    pub(super) claims: Vec<Claim>,
}

impl Arrivals {
    /// Keeps a claim, unless the same token came twice.
    fn add(&mut self, claim: Claim) {
        let is_same =
            |other: &Claim| other.id.as_bytes() == claim.id.as_bytes() && other.data == claim.data;
        if !self.claims.iter().any(is_same) {
            self.claims.push(claim);
        }
    }
}

/// What an authenticated token, or a plain id, says.
pub(super) struct Claim {
    pub(super) id: SessionId,
    pub(super) retired_key: bool,
    /// Issue time and record, if the token carries the data.
    pub(super) data: Option<(Timestamp, Record)>,
}

enum BadToken {
    Malformed,
    UnknownKey,
    Newer,
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    pub(super) fn read_tokens(
        &self,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Arrivals, SessionRejection> {
        let mut arrivals = Arrivals::default();
        let mut newer = false;
        let mut to_open = MAX_OPENED;
        self.config.carrier.visit_tokens(parts, |token| {
            arrivals.arrived = true;
            if to_open > 0 {
                match self.read_token(token, now, &mut to_open) {
                    Ok(claim) => arrivals.add(claim),
                    Err(BadToken::Malformed) => arrivals.malformed = true,
                    Err(BadToken::UnknownKey) => arrivals.unknown_key = true,
                    Err(BadToken::Newer) => newer = true,
                }
            }
        });
        if newer {
            self.alarm(&SessionEvent::Newer { session: None });
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
            let id = self.config.scope.parse_id(token).ok_or(BadToken::Malformed)?;
            *to_open -= 1;
            return Ok(Claim { id, retired_key: false, data: None });
        };
        let opened = match sealer.inspect(token) {
            Shape::Ours(candidate) => {
                *to_open -= 1;
                sealer.open(candidate).ok_or(BadToken::Malformed)?
            }
            Shape::UnknownKey => return Err(BadToken::UnknownKey),
            Shape::Malformed => return Err(BadToken::Malformed),
        };
        let Opened { mut plaintext, retired_key } = opened;
        let id = take(&mut plaintext).ok_or(BadToken::Malformed)?;
        Ok(Claim {
            id: self.config.scope.id(id),
            retired_key,
            data: if self.data_in_token() { Some(read_data(plaintext, now)?) } else { None },
        })
    }

    /// Renders the token of a session and the headers that carry it.
    pub(super) fn deliver(&self, live: &Live, now: Timestamp) -> Result<Delivery, SessionError> {
        let owned = live.record.owner.is_some();
        let max_age = self.config.policy.max_age_of(live.record.max_age(), owned);
        let seconds =
            max_age.is_persistent().then(|| cookie_seconds(live.record.expires_at(), now));
        let token = match &self.config.sealer {
            Some(sealer) if self.data_in_token() => {
                self.check_fits(&live.record)?;
                sealer.seal(data_len(&live.record), |into| {
                    write_data(&live.id, now, &live.record, into);
                })
            }
            Some(sealer) => sealer.seal(ID_BYTES, |into| {
                into.extend_from_slice(live.id.as_bytes());
            }),
            None => Ok(live.id.to_text()),
        };
        let token = token.map_err(SessionError::Random)?;
        let delivery = self.config.carrier.set(token, seconds);
        delivery.map_err(SessionError::Encode)
    }

    /// Measures a token before anything is stored or sent.
    pub(super) fn check_fits(&self, record: &Record) -> Result<(), SessionError> {
        match &self.config.sealer {
            Some(sealer) if self.data_in_token() => {
                let value = sealer.token_len(data_len(record));
                self.check_size(self.config.carrier.name().len() + value, NAME_VALUE_LIMIT)
            }
            _ => Ok(()),
        }
    }
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
fn data_len(record: &Record) -> usize {
    DATA_PREFIX_BYTES + record.encoded_len()
}

/// Writes the plaintext of a token that carries its data.
fn write_data(id: &SessionId, issued_at: Timestamp, record: &Record, into: &mut Vec<u8>) {
    into.extend_from_slice(id.as_bytes());
    into.put_u64(issued_at.as_unix_millis());
    into.put_u64(record.expires_at().as_unix_millis());
    record.write_to(into);
}
