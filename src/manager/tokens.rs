//! Tokens of a session: reading the ones that arrived, making the one that is sent.

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
    transport::{Binding, Carrier},
};

/// More sessions of one request than this are not looked up, since each may cost a load.
const MAX_CLAIMS: usize = 16;

/// More tokens than this are not opened for each cookie, the current one or a former one. No browser keeps so many
/// cookies of one site, so cookies that an attacker adds cannot hide a session.
const MAX_TRIES: usize = 256;

/// The bytes of the id, the time of issue and the expiry, which stand before a record.
const AROUND_RECORD: usize = ID_BYTES + 8 + 8;

/// The tokens of a request.
pub(super) struct Tokens {
    /// A token came, valid or not.
    pub(super) arrived: bool,
    /// A response that sets the token also removes former cookies.
    pub(super) removes_formers: bool,
    /// The tokens that may name a session.
    pub(super) claims: Vec<Claim>,
}

/// The session that an authenticated token, or a plain id, names.
pub(super) struct Claim {
    pub(super) id: SessionId,
    pub(super) former_key: bool,
    pub(super) in_former_cookie: bool,
    /// Issue time and record, if the token carries data that this node can read.
    pub(super) carried: Option<(Timestamp, Record)>,
    /// The token carries data that only a newer node can read.
    pub(super) is_newer: bool,
}

impl Claim {
    fn is_same(&self, other: &Self) -> bool {
        self.id.as_bytes() == other.id.as_bytes() && self.carried == other.carried
    }
}

impl Core {
    /// Reads the tokens of a request.
    pub(super) fn read_tokens(
        &self,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Tokens, SessionError> {
        let carrier = &self.tenant.carrier;
        let (mut arrived, mut worst) = (false, None);
        let mut tries = MAX_TRIES * (1 + carrier.formers.len());
        let (mut in_current, mut in_former) = (false, false);
        let mut claims: Vec<Claim> = Vec::new();
        carrier.visit_tokens(parts, |token, binding, is_former| {
            arrived = true;
            if tries == 0 || claims.len() >= MAX_CLAIMS {
                return;
            }
            match self.read_token(token, binding, now, &mut tries) {
                Ok(claim) => {
                    (in_current, in_former) = (in_current || !is_former, in_former || is_former);
                    if !claims.iter().any(|other| other.is_same(&claim)) {
                        claims.push(Claim { in_former_cookie: is_former, ..claim });
                    }
                }
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
        let removes_formers = !carrier.formers.is_empty() && (in_former || !in_current);
        Ok(Tokens { arrived, removes_formers, claims })
    }

    fn read_token(
        &self,
        token: &[u8],
        binding: &Binding,
        now: Timestamp,
        tries: &mut usize,
    ) -> Result<Claim, BadToken> {
        let scope = &self.tenant.scope;
        let claim = |id, former_key| {
            let (carried, is_newer) = (None, false);
            Claim { id, former_key, in_former_cookie: false, carried, is_newer }
        };
        let Some(sealer) = &self.sealer else {
            let text = token.strip_suffix(binding.suffix.as_bytes());
            let id = text.and_then(|text| scope.parse_id(text)).ok_or(BadToken::Malformed)?;
            return Ok(claim(id, false));
        };
        let Opened { mut plaintext, former_key } = sealer.open(&binding.context, token, tries)?;
        let id = scope.id(take(&mut plaintext).ok_or(BadToken::Malformed)?);
        let mut claim = claim(id, former_key);
        if self.data_in_token() {
            match self.read_data(plaintext, now) {
                Ok(carried) => claim.carried = Some(carried),
                Err(BadToken::Newer) => claim.is_newer = true,
                Err(bad) => return Err(bad),
            }
        }
        Ok(claim)
    }

    /// Reads the part after the id in a token that carries its data.
    ///
    /// The token ends no later than today's rules allow, so that the revocation list can forget its id.
    fn read_data(&self, mut rest: Bytes, now: Timestamp) -> Result<(Timestamp, Record), BadToken> {
        let issued_at = take_timestamp(&mut rest).ok_or(BadToken::Malformed)?;
        let expires_at = take_timestamp(&mut rest).ok_or(BadToken::Malformed)?;
        if issued_at > now.saturating_add(self.clock_skew) {
            return Err(BadToken::Malformed);
        }
        match Record::from_bytes(UNVERSIONED, expires_at, rest) {
            Ok(record) if record.is_sealed || record.kind != 0 => Err(BadToken::Malformed),
            Ok(record) => {
                let end = issued_at.saturating_add(self.ttl_of(&record));
                Ok((issued_at, record.with_expires_at(expires_at.min(end))))
            }
            // No node needs the data of an expired token.
            Err(StoreError::Newer) if expires_at > now => Err(BadToken::Newer),
            Err(_) => Err(BadToken::Malformed),
        }
    }

    /// Makes the token of a session and the header that carries it.
    pub(super) fn deliver(
        &self,
        live: &mut Live,
        now: Timestamp,
    ) -> Result<HeaderValue, SessionError> {
        live.is_outdated = false;
        self.header(self.token(live, now)?, &live.record, now)
    }

    /// Makes the header that carries a session's token.
    ///
    /// A token with data lives as long as the session. An id lives to the session's absolute end: the row
    /// decides when the session ends, and a cookie that need not move never replaces a newer one.
    pub(super) fn header(
        &self,
        token: String,
        record: &Record,
        now: Timestamp,
    ) -> Result<HeaderValue, SessionError> {
        let end = if self.data_in_token() { record.expires_at() } else { record.absolute_end() };
        let is_persistent = self.policy.is_persistent(&record.lifetime);
        let seconds = is_persistent.then(|| cookie_seconds(end, now));
        self.tenant.carrier.set(token, seconds).map_err(SessionError::Seal)
    }

    /// Makes the token of a session under the current key.
    pub(super) fn token(&self, live: &Live, now: Timestamp) -> Result<String, SessionError> {
        let record = &live.record;
        let Binding { context, suffix } = &self.tenant.carrier.binding;
        let token = match &self.sealer {
            Some(sealer) => sealer.seal(context, self.plaintext_len(record), |into| {
                into.extend_from_slice(live.id.as_bytes());
                if self.data_in_token() {
                    into.put_u64(now.as_unix_millis());
                    into.put_u64(record.expires_at().as_unix_millis());
                    record.write_to(into);
                }
            }),
            None => Ok(live.id.to_text() + suffix),
        };
        token.map_err(SessionError::Seal)
    }

    /// Measures a token before anything is stored or sent.
    pub(super) fn check_fits(&self, record: &Record) -> Result<(), SessionError> {
        let limit = self.max_cookie_bytes.unwrap_or(NAME_VALUE_LIMIT);
        self.check_size(self.cookie_len(record), limit)
    }

    /// Returns the bytes of name and value of the cookie that holds a record; none where it holds an id.
    pub(super) fn cookie_len(&self, record: &Record) -> usize {
        match &self.sealer {
            Some(sealer) if self.data_in_token() => {
                cookie_bytes(sealer, &self.tenant.carrier, record.encoded_len())
            }
            _ => 0,
        }
    }

    fn plaintext_len(&self, record: &Record) -> usize {
        if self.data_in_token() { AROUND_RECORD + record.encoded_len() } else { ID_BYTES }
    }
}

/// Returns the bytes of name and value of a cookie with a record in it.
pub(crate) fn cookie_bytes(sealer: &Sealer, carrier: &Carrier, record: usize) -> usize {
    carrier.name_len() + sealer.token_len(AROUND_RECORD + record)
}
