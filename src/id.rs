//! The client's secret, and the hashes that stores see instead of it.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::error::BoxError;

/// The length of a session id in bytes; 256 bits, four times what OWASP ASVS 7.2.3 asks for.
pub(crate) const ID_BYTES: usize = 32;

/// The length of an id in base64url without padding.
const ID_CHARS: usize = 43;

/// Who an id or owner is for: the configured `audience` and `kind`.
///
/// Hashing starts from here, so that an id of one cookie finds nothing under another.
#[derive(Clone)]
pub(crate) struct Scope(Arc<ScopeStart>);

struct ScopeStart {
    id: Sha256,
    owner: Sha256,
}

impl Scope {
    pub(crate) fn new(audience: &str, kind: &str) -> Self {
        let start = |label: &str| {
            let mut hasher = Sha256::new();
            for part in [label, audience, kind] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            hasher
        };
        Self(Arc::new(ScopeStart {
            id: start("axum-typed-session v1 id"),
            owner: start("axum-typed-session v1 owner"),
        }))
    }

    pub(crate) fn id(&self, secret: [u8; ID_BYTES]) -> SessionId {
        SessionId { secret, scope: self.clone(), key: OnceLock::new() }
    }

    /// Reads an id as it travels; `None` for anything a server never sent.
    pub(crate) fn parse_id(&self, text: &[u8]) -> Option<SessionId> {
        if text.len() != ID_CHARS {
            return None;
        }
        let mut secret = [0; ID_BYTES];
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut secret).ok()?;
        (written == ID_BYTES).then(|| self.id(secret))
    }

    pub(crate) fn owner(&self, owner: &str) -> OwnerKey {
        OwnerKey(self.0.owner.clone().chain_update(owner).finalize().into())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// The secret a client holds: 32 bytes, in base64url on the wire.
///
/// Whoever has it has the session, so it is never printed: [`Debug`](fmt::Debug) shows no byte of it.
#[derive(Clone)]
pub struct SessionId {
    secret: [u8; ID_BYTES],
    scope: Scope,
    /// Hashed when first asked for, since one request asks several times or not at all.
    key: OnceLock<StoreKey>,
}

impl SessionId {
    /// Returns the bytes of the secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Returns what stores see of this id.
    #[must_use]
    pub fn store_key(&self) -> StoreKey {
        *self.key.get_or_init(|| {
            let hasher = self.scope.0.id.clone();
            StoreKey(hasher.chain_update(self.secret).finalize().into())
        })
    }

    /// Returns the id as it travels when it is not sealed.
    pub(crate) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.secret)
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.store_key() == other.store_key()
    }
}

impl Eq for SessionId {}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionId").finish_non_exhaustive()
    }
}

/// What a store sees of a session id: SHA-256 of audience, kind and id.
///
/// A leaked table of these logs nobody in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    /// Makes a key of the bytes a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for a store to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first eight bytes, for logs.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        match self.0.first_chunk() {
            Some(start) => Fingerprint(*start),
            None => Fingerprint([0; 8]),
        }
    }

    /// Returns the whole key in hexadecimal, for a form field of an admin page.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({}..)", self.fingerprint())
    }
}

impl FromStr for StoreKey {
    type Err = StoreKeyFromStrError;

    /// Reads what [`to_hex`](Self::to_hex) wrote.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(StoreKeyFromStrError(()));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let value = |digit: u8| char::from(digit).to_digit(16);
            let [high, low] = pair.map(value);
            let (Some(high), Some(low)) = (high, low) else {
                return Err(StoreKeyFromStrError(()));
            };
            *byte = u8::try_from(high * 16 + low).map_err(|_| StoreKeyFromStrError(()))?;
        }
        Ok(Self(bytes))
    }
}

/// The text is not a [`StoreKey`] in hexadecimal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a store key is 64 hexadecimal digits")]
pub struct StoreKeyFromStrError(());

impl From<SessionId> for StoreKey {
    fn from(id: SessionId) -> Self {
        id.store_key()
    }
}

impl From<&SessionId> for StoreKey {
    fn from(id: &SessionId) -> Self {
        id.store_key()
    }
}

impl From<&Self> for StoreKey {
    fn from(key: &Self) -> Self {
        *key
    }
}

/// The first eight bytes of a [`StoreKey`]: enough to follow one session through a log, too little
/// to find its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What a store sees of an owner: SHA-256 of audience, kind and the owner's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey([u8; 32]);

impl OwnerKey {
    /// Makes a key of the bytes a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for a store to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.get(..8).unwrap_or_default();
        write!(f, "OwnerKey({}..)", hex(start))
    }
}

/// Draws bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], BoxError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
