//! Tokens of a session: reading the ones that arrived, making the one that is sent.

use std::cmp::Reverse;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, request::Parts};

use super::{
    core::{Core, UNVERSIONED},
    endings::Successor,
};
use crate::{
    clock::Timestamp,
    cookies::NAME_VALUE_LIMIT,
    decision::Live,
    error::{Result, SessionError, StoreError},
    event::SessionEventKind as Kind,
    expiry::cookie_seconds,
    id::{ID_BYTES, SessionId},
    seal::{BadToken, Opened},
    store::{Record, TIME_BYTES, put_time, take, take_time},
    transport::Binding,
};

/// More sessions of one request than this are not looked up, since each may cost a load.
const MAX_CLAIMS: usize = 16;

/// More tokens than this are not opened for each cookie, the current one or a former one. No browser keeps so many
/// cookies of one site, so cookies that an attacker adds cannot hide a session.
const MAX_TRIES: usize = 256;

/// The bytes of an id in a token that carries its data. The rest of the id is zero there: 16 random bytes tell
/// sessions apart, and the id does not open the session.
pub(super) const CARRIED_ID_BYTES: usize = 16;

/// The bytes of the id, the time of issue and the expiry, which stand before a record.
const BEFORE_RECORD: usize = CARRIED_ID_BYTES + 2 * TIME_BYTES;

/// The tokens of a request.
pub(super) struct Tokens {
    /// A token came, valid or not.
    pub(super) arrived: bool,
    /// A response that sets the token also removes former cookies.
    pub(super) removes_formers: bool,
    /// The tokens that may name a session.
    pub(super) claims: Vec<Claim>,
}

/// The result of a check of a session, without its data.
pub(super) enum Verdict {
    /// It has not ended; its data is still to be judged.
    Current(Box<Record>),
    /// Its id was replaced.
    Tombstone(Option<Successor>),
    /// It has expired, and its row is still there.
    Expired(Option<Box<Record>>),
    /// It is damaged, or a newer node wrote it.
    Unreadable(StoreError),
    Absent,
}

/// The record of a session that was looked for.
pub(super) type Found = Result<Option<Box<Record>>, StoreError>;

/// The session that an authenticated token, or a plain id, names.
pub(super) struct Claim {
    pub(super) id: SessionId,
    pub(super) former_key: bool,
    pub(super) in_former_cookie: bool,
    /// If the token carries the data.
    pub(super) issued_at: Option<Timestamp>,
    /// The record that the token carries; with a store the record that is to be loaded.
    pub(super) record: Found,
    /// The verdict of the revocation list, if the session is in the list.
    pub(super) revoked: Option<Box<Verdict>>,
}

impl Claim {
    /// Orders the sessions of a request: first one in the current cookie, then the newest.
    pub(super) fn rank(&self) -> (bool, Reverse<Option<Timestamp>>) {
        let created_at = || Some(self.record.as_ref().ok()?.as_ref()?.created_at());
        (self.in_former_cookie, Reverse(self.issued_at.or_else(created_at)))
    }
}

impl Core {
    /// Reads the tokens of a request.
    pub(super) fn read_tokens(&self, parts: &Parts, now: Timestamp) -> Tokens {
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
            let claim = self.claim(token, binding, now);
            // Opening a token costs work, authentic or not.
            if !matches!(claim, Err(BadToken::UnknownKey | BadToken::Malformed)) {
                tries -= 1;
            }
            match claim {
                Ok(mut claim) => {
                    claim.in_former_cookie = is_former;
                    (in_current, in_former) = (in_current || !is_former, in_former || is_former);
                    let is_same = |other: &Claim| {
                        other.id.as_bytes() == claim.id.as_bytes()
                            && other.issued_at == claim.issued_at
                            && other.record.as_ref().ok() == claim.record.as_ref().ok()
                    };
                    if !claims.iter().any(is_same) {
                        // Most requests have one, and it is large.
                        claims.reserve_exact(1);
                        claims.push(claim);
                    }
                }
                Err(bad) => worst = worst.max(Some(bad)),
            }
        });
        // One event for all the tokens that failed, however many a client sends.
        if let Some(bad) = worst.filter(|_| claims.is_empty()) {
            let kind = match bad {
                BadToken::UnknownKey => Kind::UnknownKey,
                BadToken::Malformed | BadToken::Forged => Kind::InvalidToken,
            };
            self.events.report(kind, || None);
        }
        let removes_formers = !carrier.formers.is_empty() && (in_former || !in_current);
        Tokens { arrived, removes_formers, claims }
    }

    fn claim(&self, token: &[u8], binding: &Binding, now: Timestamp) -> Result<Claim, BadToken> {
        let scope = &self.tenant.scope;
        let claim = |id, former_key| {
            let (in_former_cookie, issued_at, record, revoked) = (false, None, Ok(None), None);
            Claim { id, former_key, in_former_cookie, issued_at, record, revoked }
        };
        let Some(sealer) = &self.sealer else {
            let suffix = binding.suffix.as_bytes();
            // An empty text has no address, for which some processors compare a hundred times slower.
            let text = if suffix.is_empty() { Some(token) } else { token.strip_suffix(suffix) };
            let id = text.and_then(|text| scope.parse_id(text)).ok_or(BadToken::Malformed)?;
            return Ok(claim(id.hashed(), false));
        };
        let Opened { mut plaintext, former_key } = sealer.open(&binding.context, token)?;
        if !self.data_in_token() {
            let id = take(&mut plaintext).ok_or(BadToken::Forged)?;
            return Ok(claim(scope.id(id).hashed(), former_key));
        }
        let mut id = [0; ID_BYTES];
        plaintext
            .try_copy_to_slice(id.split_at_mut(CARRIED_ID_BYTES).0)
            .map_err(|_| BadToken::Forged)?;
        let id = scope.id(id);
        let (issued_at, record) = self.read_data(plaintext, now)?;
        Ok(Claim { issued_at: Some(issued_at), record, ..claim(id, former_key) })
    }

    /// Reads the part after the id in a token that carries its data.
    ///
    /// The token ends no later than today's rules allow, so that the revocation list can forget its id.
    fn read_data(&self, mut rest: Bytes, now: Timestamp) -> Result<(Timestamp, Found), BadToken> {
        let issued_at = take_time(&mut rest).ok_or(BadToken::Forged)?;
        let expires_at = take_time(&mut rest).ok_or(BadToken::Forged)?;
        if issued_at > now.saturating_add(self.clock_skew) {
            return Err(BadToken::Forged);
        }
        match Record::from_bytes(UNVERSIONED, expires_at, rest) {
            Ok(record) if record.is_sealed || record.kind != 0 => Err(BadToken::Forged),
            Ok(record) => {
                let end = issued_at.saturating_add(self.ttl_of(&record));
                let record = record.with_expires_at(expires_at.min(end));
                Ok((issued_at, Ok(Some(Box::new(record)))))
            }
            // No node needs the data of an expired token.
            Err(StoreError::Newer) if expires_at > now => Ok((issued_at, Err(StoreError::Newer))),
            Err(_) => Err(BadToken::Forged),
        }
    }

    /// Makes the token of a session and the header that carries it.
    pub(super) fn deliver(&self, live: &mut Live, now: Timestamp) -> Result<HeaderValue> {
        live.is_outdated = false;
        self.header(&live.record, now, |into| self.write_token(live, now, into))
    }

    /// Makes the header that carries a session's token.
    ///
    /// A token with data lives as long as the session. An id lives to the session's absolute end: the row
    /// decides when the session ends, and a cookie that need not move never replaces a newer one.
    pub(super) fn header(
        &self,
        record: &Record,
        now: Timestamp,
        write_token: impl FnOnce(&mut String) -> Result<()>,
    ) -> Result<HeaderValue> {
        let end = if self.data_in_token() { record.expires_at() } else { record.absolute_end() };
        let is_persistent = self.policy.is_persistent(&record.lifetime);
        let seconds = is_persistent.then(|| cookie_seconds(end, now));
        let carrier = &self.tenant.carrier;
        let mut text = carrier.begin(self.token_len(record));
        write_token(&mut text)?;
        carrier.finish(text, seconds).map_err(SessionError::Seal)
    }

    /// Writes the token of a session under the current key.
    pub(super) fn write_token(&self, live: &Live, now: Timestamp, into: &mut String) -> Result<()> {
        let (id, record) = (live.id.as_bytes(), &live.record);
        let Binding { context, suffix } = &self.tenant.carrier.binding;
        let Some(sealer) = &self.sealer else {
            into.extend([&*live.id.to_text(), suffix]);
            return Ok(());
        };
        let outcome = sealer.seal(context, self.text_len(record), into, |text| {
            if self.data_in_token() {
                text.extend(id.iter().take(CARRIED_ID_BYTES));
                put_time(text, now);
                put_time(text, record.expires_at());
                record.write_to(text);
            } else {
                text.extend_from_slice(id);
            }
        });
        outcome.map_err(SessionError::Seal)
    }

    /// Makes the id of a session. Of an id in a token with data only a part counts.
    pub(super) fn session_id(&self, mut secret: [u8; ID_BYTES]) -> SessionId {
        let scope = &self.tenant.scope;
        if !self.data_in_token() {
            return scope.id(secret).hashed();
        }
        secret.split_at_mut(CARRIED_ID_BYTES).1.fill(0);
        scope.id(secret)
    }

    /// Returns the length of what a token seals.
    fn text_len(&self, record: &Record) -> usize {
        if self.data_in_token() { BEFORE_RECORD + record.encoded_len() } else { ID_BYTES }
    }

    fn token_len(&self, record: &Record) -> usize {
        let plain = || 2 * ID_BYTES + self.tenant.carrier.binding.suffix.len();
        self.sealer.as_ref().map_or_else(plain, |sealer| sealer.token_len(self.text_len(record)))
    }

    /// Measures a token before anything is stored or sent.
    pub(super) fn check_fits(&self, record: &Record) -> Result<()> {
        let limit = self.max_cookie_bytes.unwrap_or(NAME_VALUE_LIMIT);
        self.check_size(self.cookie_bytes(record.encoded_len()), limit)
    }

    /// Returns the bytes of name and value of the cookie that holds a record of this length; none where it holds an
    /// id.
    pub(crate) fn cookie_bytes(&self, record_len: usize) -> usize {
        let sealer = self.sealer.as_ref().filter(|_| self.data_in_token());
        sealer.map_or(0, |sealer| {
            self.tenant.carrier.name_len() + sealer.token_len(BEFORE_RECORD + record_len)
        })
    }
}
