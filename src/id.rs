//! The session id, which only the client holds, and the hashes that stores see instead.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use base64_simd::{AsOut as _, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};

use crate::{error::BoxError, keys::derive};

/// The length of a session id in bytes; 256 bits, four times what OWASP ASVS 7.2.3 asks for.
pub(crate) const ID_BYTES: usize = 32;

/// The configured `audience` and `kind`, with which every hash of an id or owner begins.
///
/// An id of one cookie therefore finds nothing under another.
pub(crate) struct Scope {
    id: Sha256,
    owner: Sha256,
    /// Audience and kind, each behind its length.
    names: Vec<u8>,
    /// A number for the audience and the kind, which rows hold. It is not 0.
    pub(crate) kind: u32,
}

impl Scope {
    pub(crate) fn new(audience: &str, kind: &str) -> Arc<Self> {
        let names = with_lengths([audience, kind]);
        let start = |label| Sha256::new_with_prefix(with_lengths([label])).chain_update(&names);
        let [a, b, c, d, ..]: [u8; 32] = start("axum-typed-session v1 kind").finalize().into();
        Arc::new(Self {
            id: start("axum-typed-session v1 id"),
            owner: start("axum-typed-session v1 owner"),
            kind: u32::from_be_bytes([a, b, c, d]) | 1,
            names,
        })
    }

    pub(crate) fn id(self: &Arc<Self>, secret: [u8; ID_BYTES]) -> SessionId {
        SessionId { secret, scope: self.clone(), key: None }
    }

    /// Reads the text of an id; `None` if no server sent this text.
    pub(crate) fn parse_id(self: &Arc<Self>, text: &[u8]) -> Option<SessionId> {
        decode(text).map(|secret| self.id(secret))
    }

    pub(crate) fn owner(&self, owner: &str) -> OwnerKey {
        OwnerKey(self.owner.clone().chain_update(owner).finalize().into())
    }

    /// As [`owner`](Self::owner), with a secret, so that a dump of a store cannot be searched for names.
    pub(crate) fn keyed_owner(&self, secret: &[u8; 32], owner: &str) -> OwnerKey {
        let hash = self.owner(owner);
        #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
        OwnerKey(mac.chain_update(hash.0).finalize().into_bytes().into())
    }
}

/// The id of a session, which only the client has: 32 random bytes, sent as base64url.
///
/// If the cookie carries the data, the id has 16 random bytes and then 16 zeros. It then names the session and does not
/// open it.
///
/// A client that knows the id has the session, so treat it like a password. [`Debug`](fmt::Debug) shows no byte of
/// it. Other parts of the program need only its [`StoreKey`].
///
/// # Example
///
/// ```
/// use axum_typed_session::{SessionCommit, StoreKey};
///
/// fn key(commit: &SessionCommit) -> Option<StoreKey> {
///     commit.id().map(|id| id.store_key()) // the same as `commit.key()`
/// }
/// ```
#[derive(Clone)]
pub struct SessionId {
    secret: [u8; ID_BYTES],
    scope: Arc<Scope>,
    /// The hash of an id that a store is asked for. A session in a cookie needs it only for events.
    key: Option<StoreKey>,
}

impl SessionId {
    /// Returns the 32 secret bytes, such as for a test of an
    /// [`id_generator`](crate::SessionManagerBuilder::id_generator). See the [example](Self#example).
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Returns the hash that stores see instead of this id. See the [example](Self#example).
    pub fn store_key(&self) -> StoreKey {
        self.key.unwrap_or_else(|| {
            let hasher = self.scope.id.clone();
            StoreKey(hasher.chain_update(self.secret).finalize().into())
        })
    }

    /// Hashes the id once for all its uses.
    pub(crate) fn hashed(self) -> Self {
        Self { key: Some(self.store_key()), ..self }
    }

    /// Returns the text with which a page proves that it was made for the client of this id.
    pub(crate) fn csrf_token(&self) -> String {
        let mut token = [0; 32];
        let info = [b"axum-typed-session v1 csrf".as_slice(), &self.scope.names];
        derive(&self.secret, &info, &mut token);
        URL_SAFE_NO_PAD.encode_to_string(token)
    }

    /// Returns the text of the id, which travels where ids are not sealed.
    pub(crate) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode_to_string(self.secret)
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

/// Makes a newtype of bytes that stores keep. `Debug` shows the first bytes only.
macro_rules! bytes_for_stores {
    ($(#[$doc:meta])* $name:ident($bytes:literal)) => {
        $(#[$doc])*
        // Aligned to words: an `Option` moves it at odd addresses otherwise, and the processor waits for that.
        #[repr(align(8))]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Makes a value from the bytes that a store kept. The example of [`StoreKey`](crate::StoreKey) uses
            /// it.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes for a store to keep. [`from_bytes`](Self::from_bytes) reads them.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Returns the first eight bytes, for logs. [`Fingerprint`](crate::Fingerprint) has an example.
            pub const fn fingerprint(&self) -> $crate::id::Fingerprint {
                let [a, b, c, d, e, f, g, h, ..] = self.0;
                $crate::id::Fingerprint([a, b, c, d, e, f, g, h])
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), self.fingerprint())
            }
        }
    };
}
pub(crate) use bytes_for_stores;

bytes_for_stores! {
    /// The key under which a store keeps a session: the SHA-256 hash of the audience, the kind and the id of the
    /// session.
    ///
    /// If the table of a store leaks, nobody can sign in with its keys. [`Session::key`](crate::Session::key) and
    /// [`StoredSession::key`](crate::StoredSession::key) return it. [`SessionManager`](crate::SessionManager) takes
    /// it to load, change or end a session. An id is accepted there too.
    ///
    /// # Example
    ///
    /// A page shows the key in a form, and the next request sends it back:
    ///
    /// ```
    /// use axum_typed_session::StoreKey;
    ///
    /// let key = StoreKey::from_bytes([7; 32]);
    /// let text = key.to_base64url();
    /// assert_eq!(text.parse::<StoreKey>()?, key);
    /// # Ok::<(), axum_typed_session::store::ParseStoreKeyError>(())
    /// ```
    ///
    /// [`guide::devices`](crate::guide::devices) has the whole page.
    StoreKey(32)
}

bytes_for_stores! {
    /// The hash with which a store indexes the sessions of an owner: the SHA-256 hash of the audience, the kind and
    /// the owner's name.
    ///
    /// A store of your own gets it in [`find_by_owner`](crate::SessionStore::find_by_owner) and
    /// [`destroy_by_owner`](crate::SessionStore::destroy_by_owner).
    OwnerKey(32)
}

impl StoreKey {
    /// Returns the whole key as 43 characters of base64url, such as for a form field. See the [example](Self#example).
    pub fn to_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode_to_string(self.0)
    }
}

impl FromStr for StoreKey {
    type Err = ParseStoreKeyError;

    /// Reads the text that [`to_base64url`](Self::to_base64url) returned.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text.as_bytes()).map(Self).ok_or(ParseStoreKeyError(()))
    }
}

/// The error of a text that is not a [`StoreKey`] in base64url. The example of [`StoreKey`] handles it.
#[derive(Clone, Debug)]
pub struct ParseStoreKeyError(());

impl fmt::Display for ParseStoreKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store key has 43 characters of base64url")
    }
}

impl std::error::Error for ParseStoreKeyError {}

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

/// The first eight bytes of a [`StoreKey`], for logs. They tell sessions apart, but nobody can find a session with
/// them.
///
/// # Example
///
/// ```
/// use axum_typed_session::StoreKey;
///
/// let key = StoreKey::from_bytes([7; 32]);
/// assert_eq!(key.fingerprint().to_string(), "0707070707070707");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub(crate) [u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Decodes 32 bytes of base64url; `None` if no server sent this text.
fn decode(text: &[u8]) -> Option<[u8; ID_BYTES]> {
    let mut bytes = [0; ID_BYTES];
    // The decoder panics if the bytes do not fit.
    let is_long = text.len() == URL_SAFE_NO_PAD.encoded_length(ID_BYTES);
    is_long.then(|| URL_SAFE_NO_PAD.decode(text, bytes.as_mut_slice().as_out()).ok())??;
    Some(bytes)
}

/// Joins texts, each behind its length, so that no byte can move from one to the next.
pub(crate) fn with_lengths<'p>(parts: impl IntoIterator<Item = &'p str>) -> Vec<u8> {
    let with_length = |part: &str| [&(part.len() as u64).to_be_bytes(), part.as_bytes()].concat();
    parts.into_iter().flat_map(with_length).collect()
}

/// Returns two numbers that no other call returns together, on whichever node: random ones of the process, to the
/// second of which the count of calls is added.
pub(crate) fn unique() -> (u64, u64) {
    static START: LazyLock<(u64, AtomicU64)> = LazyLock::new(|| {
        let random = RandomState::new();
        (random.hash_one(0), AtomicU64::new(random.hash_one(1)))
    });
    (START.0, START.1.fetch_add(1, Ordering::Relaxed))
}

/// Draws bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], BoxError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Asserts that a count is as probable as if each id had its own bytes at random. A fair generator fails one of
    /// these checks once in a hundred thousand runs.
    #[track_caller]
    fn expect_probable(count: u32, tries: u32, chance: f64) {
        let (count, tries) = (f64::from(count), f64::from(tries));
        let deviation = (tries * chance * (1.0 - chance)).sqrt();
        assert!((count - tries * chance).abs() < 6.5 * deviation, "{count} of {tries}");
    }

    fn expect_random_ids(ids: u32) {
        let (mut ones, mut bytes) = ([0; ID_BYTES * 8], [0; 256]);
        let (mut equals, mut starts) = ([0; ID_BYTES], HashSet::new());
        let mut last = [0; ID_BYTES];
        for _ in 0..ids {
            let id = random::<ID_BYTES>().unwrap();
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(id[bit / 8] >> (bit % 8) & 1);
            }
            for (at, byte) in id.into_iter().enumerate() {
                bytes[usize::from(byte)] += 1;
                equals[at] += u32::from(byte == last[at]);
            }
            // Half an id: two of them are equal by chance in one of 10^26 runs.
            assert!(starts.insert(*id.first_chunk::<16>().unwrap()));
            last = id;
        }
        // Each bit, each value of a byte, and each byte beside the same byte of the id before.
        for (counts, tries, chance) in [
            (&ones[..], ids, 1.0 / 2.0),
            (&bytes[..], 32 * ids, 1.0 / 256.0),
            (&equals[..], ids, 1.0 / 256.0),
        ] {
            for count in counts {
                expect_probable(*count, tries, chance);
            }
        }
    }

    #[test]
    fn ids_are_random() {
        expect_random_ids(20_000);
    }

    #[test]
    #[ignore = "takes five seconds without optimization"]
    fn a_million_ids_are_random() {
        expect_random_ids(1_000_000);
    }
}
