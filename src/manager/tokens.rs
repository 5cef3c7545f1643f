//! Tokens of a session: reading the ones that arrived, making the one that is sent.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::{HeaderValue, request::Parts};

use super::core::{Core, UNVERSIONED};
use crate::{
    clock::Timestamp,
    cookies::NAME_VALUE_LIMIT,
    decision::Live,
    error::{SessionError, StoreError},
    event::SessionEventKind as Kind,
    expiry::cookie_seconds,
    id::{ID_BYTES, SessionId},
    seal::{BadToken, Opened, Sealer},
    store::{Record, take, take_timestamp},
    transport::Carrier,
};

/// More tokens of one name than this are not opened: each costs a decryption or a load.
const MAX_OPENED: usize = 4;

/// The bytes of the id, the time of issue and the expiry, which stand before a record.
const AROUND_RECORD: usize = ID_BYTES + 8 + 8;

/// How far ahead another node's clock may be.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The session that an authenticated token, or a plain id, names.
pub(super) struct Claim {
    pub(super) id: SessionId,
    pub(super) former_key: bool,
    /// Issue time and record, if the token carries the data.
    pub(super) carried: Option<(Timestamp, Record)>,
}

impl Claim {
    fn is_same(&self, other: &Self) -> bool {
        self.id.as_bytes() == other.id.as_bytes() && self.carried == other.carried
    }
}

impl Core {
    /// Reads the tokens of a request. Returns whether any came, and those that could be a session.
    pub(super) fn read_tokens(
        &self,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<(bool, Vec<Claim>), SessionError> {
        let (mut arrived, mut worst) = (false, None);
        let mut claims: Vec<Claim> = Vec::new();
        let mut to_open = MAX_OPENED;
        self.carrier.visit_tokens(parts, |token| {
            arrived = true;
            if to_open == 0 {
                return;
            }
            match self.read_token(token, now, &mut to_open) {
                Ok(claim) if claims.iter().any(|other| other.is_same(&claim)) => {}
                Ok(claim) => claims.push(claim),
                Err(bad) => worst = worst.max(Some(bad)),
            }
        });
        match worst {
            Some(BadToken::Newer) => {
                self.events.report(Kind::Newer, || None);
                return Err(SessionError::Newer);
            }
            // One event for all the tokens that failed, however many a client sends.
            Some(BadToken::Malformed) if claims.is_empty() => {
                self.events.report(Kind::InvalidToken, || None);
            }
            Some(BadToken::UnknownKey) if claims.is_empty() => {
                self.events.report(Kind::UnknownKey, || None);
            }
            Some(BadToken::Malformed | BadToken::UnknownKey) | None => {}
        }
        Ok((arrived, claims))
    }

    fn read_token(
        &self,
        token: &[u8],
        now: Timestamp,
        to_open: &mut usize,
    ) -> Result<Claim, BadToken> {
        let Some(sealer) = &self.sealer else {
            let id = self.scope.parse_id(token).ok_or(BadToken::Malformed)?;
            *to_open -= 1;
            return Ok(Claim { id, former_key: false, carried: None });
        };
        let Opened { mut plaintext, former_key } = sealer.open(token, to_open)?;
        let id = self.scope.id(take(&mut plaintext).ok_or(BadToken::Malformed)?);
        let carried = if self.data_in_token() { Some(read_data(plaintext, now)?) } else { None };
        Ok(Claim { id, former_key, carried })
    }

    /// Makes the token of a session under the current key, and the header that carries it.
    ///
    /// A token with data lives as long as the session. An id lives to the session's absolute end: the row
    /// decides when the session ends, and a cookie that need not move never replaces a newer one.
    pub(super) fn deliver(
        &self,
        live: &mut Live,
        now: Timestamp,
    ) -> Result<HeaderValue, SessionError> {
        live.former_key = false;
        let record = &live.record;
        let end = if self.data_in_token() { record.expires_at() } else { record.absolute_end() };
        let is_persistent = self.policy.is_persistent(&record.lifetime);
        let seconds = is_persistent.then(|| cookie_seconds(end, now));
        let token = match &self.sealer {
            Some(sealer) => sealer.seal(self.plaintext_len(record), |into| {
                into.extend_from_slice(live.id.as_bytes());
                if self.data_in_token() {
                    into.put_u64(now.as_unix_millis());
                    into.put_u64(record.expires_at().as_unix_millis());
                    record.write_to(into);
                }
            }),
            None => Ok(live.id.to_text()),
        };
        let delivery = token.and_then(|token| self.carrier.set(token, seconds));
        delivery.map_err(SessionError::Seal)
    }

    /// Measures a token before anything is stored or sent.
    pub(super) fn check_fits(&self, record: &Record) -> Result<(), SessionError> {
        match &self.sealer {
            Some(sealer) if self.data_in_token() => {
                let actual = cookie_bytes(sealer, &self.carrier, record.encoded_len());
                self.check_size(actual, self.max_cookie_bytes.unwrap_or(NAME_VALUE_LIMIT))
            }
            _ => Ok(()),
        }
    }

    fn plaintext_len(&self, record: &Record) -> usize {
        if self.data_in_token() { AROUND_RECORD + record.encoded_len() } else { ID_BYTES }
    }
}

/// Returns the bytes of name and value of a cookie with a record in it.
pub(crate) fn cookie_bytes(sealer: &Sealer, carrier: &Carrier, record: usize) -> usize {
    carrier.name.len() + sealer.token_len(AROUND_RECORD + record)
}

/// Reads what follows the id in a token that carries its data.
fn read_data(mut rest: Bytes, now: Timestamp) -> Result<(Timestamp, Record), BadToken> {
    let issued_at = take_timestamp(&mut rest).ok_or(BadToken::Malformed)?;
    let expires_at = take_timestamp(&mut rest).ok_or(BadToken::Malformed)?;
    if issued_at > now.saturating_add(CLOCK_SKEW) {
        return Err(BadToken::Malformed);
    }
    match Record::from_bytes(UNVERSIONED, expires_at, rest) {
        Ok(record) => Ok((issued_at, record)),
        // An expired one holds nothing that a newer node still needs.
        Err(StoreError::Newer) if expires_at > now => Err(BadToken::Newer),
        Err(_) => Err(BadToken::Malformed),
    }
}
