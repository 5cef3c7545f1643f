//! The keys of an application, and the keys derived from them for each purpose.

use std::{collections::HashSet, fmt};

pub use cookie::Key;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::ConfigError;

/// The keys of a session cookie: one key seals, the others only open.
///
/// To replace a key without logging anyone out, roll out three times:
///
/// 1. `KeyRing::new(old).accept_next(new)` on every node.
/// 2. `KeyRing::new(new).accept_former(old)`.
/// 3. `KeyRing::new(new)`, once the
///    [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout) has passed, or the
///    [`max_absolute_timeout`](crate::SessionManagerBuilder::max_absolute_timeout) where it is set.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Key, KeyRing};
///
/// let (old, new) = (Key::generate(), Key::generate());
/// let ring = KeyRing::new(new).accept_former(old);
/// ```
#[derive(Clone)]
#[must_use]
pub struct KeyRing {
    /// Each with `true` if it is a former key. The key that seals stands first.
    keys: Vec<(Key, bool)>,
}

impl KeyRing {
    /// Makes a ring of one key that seals and opens.
    pub fn new(seal: Key) -> Self {
        Self { keys: vec![(seal, false)] }
    }

    /// Also opens tokens of the key that will seal next, and leaves them as they are.
    pub fn accept_next(mut self, key: Key) -> Self {
        self.keys.push((key, false));
        self
    }

    /// Also opens tokens of a former key. The next commit seals them again under the current key and keeps their
    /// expiry.
    #[doc(alias = "retire")]
    pub fn accept_former(mut self, key: Key) -> Self {
        self.keys.push((key, true));
        self
    }

    /// Derives this ring's keys for one purpose, the sealing key first.
    pub(crate) fn derive(&self, purpose: &str) -> Result<Vec<DerivedKey>, ConfigError> {
        let mut derived: Vec<DerivedKey> = Vec::new();
        for (key, is_former) in &self.keys {
            if is_weak(key.master()) {
                return Err(ConfigError::new(
                    "a key in `.keys(..)` is weak; make one of 64 random bytes, such as `Key::generate()`",
                ));
            }
            let key = DerivedKey::new(key, *is_former, purpose);
            if let Some(other) = derived.iter().find(|other| other.id == key.id) {
                // Two keys have one id by chance in one of 2^32 cases.
                return Err(ConfigError::new(if other.secret == key.secret {
                    "a key stands twice in `.keys(..)`; list each key once"
                } else {
                    "two keys in `.keys(..)` share a key id; replace one of them"
                }));
            }
            derived.push(key);
        }
        Ok(derived)
    }
}

impl From<Key> for KeyRing {
    fn from(key: Key) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// One key for one purpose.
pub(crate) struct DerivedKey {
    pub(crate) id: [u8; 4],
    pub(crate) is_former: bool,
    pub(crate) secret: Zeroizing<[u8; 32]>,
}

impl DerivedKey {
    fn new(key: &Key, is_former: bool, purpose: &str) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"axum-typed-session v1"), key.master());
        let mut id = [0; 4];
        let mut secret = Zeroizing::new([0; 32]);
        expand(&hkdf, purpose, "id", &mut id);
        expand(&hkdf, purpose, "key", secret.as_mut());
        Self { id, is_former, secret }
    }
}

fn expand(hkdf: &Hkdf<Sha256>, purpose: &str, label: &str, into: &mut [u8]) {
    #[allow(
        clippy::expect_used,
        reason = "HKDF-SHA256 fails above 8160 bytes only, and a key left at zero would be worse"
    )]
    hkdf.expand_multi_info(&[purpose.as_bytes(), b" ", label.as_bytes()], into)
        .expect("an output of at most 32 bytes");
}

/// Returns `true` for a key that was typed or zeroed rather than drawn. Random bytes and the text of 64 random
/// hexadecimal digits practically never count as weak.
fn is_weak(master: &[u8]) -> bool {
    let distinct: HashSet<_> = master.iter().collect();
    let repeats =
        |period: usize| master.iter().zip(master.iter().skip(period)).all(|(a, b)| a == b);
    distinct.len() < 8 || (1..=32).any(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &[u8]) -> Key {
        Key::from(text)
    }

    #[test]
    fn weak_keys_are_refused_and_random_ones_are_not() {
        assert!(is_weak(&[0; 64]));
        assert!(is_weak(&[7; 64]));
        assert!(is_weak(&b"0123456789abcdef".repeat(4)));
        assert!(!is_weak(Key::generate().master()));
        assert!(!is_weak(b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"));
    }

    #[test]
    fn every_byte_of_the_key_and_the_purpose_matter() {
        let bytes: Vec<u8> = (0..64).map(|byte| byte * 3).collect();
        let base = DerivedKey::new(&key(&bytes), false, "encrypt");
        for index in 0..64 {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let other = DerivedKey::new(&key(&changed), false, "encrypt");
            assert_ne!(*base.secret, *other.secret, "byte {index}");
        }
        let other = DerivedKey::new(&key(&bytes), false, "sign");
        assert_ne!(*base.secret, *other.secret);
        assert_ne!(base.id, other.id);
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = KeyRing::new(Key::generate());
        assert_eq!(format!("{ring:?}"), "KeyRing { keys: 1, .. }");
    }
}
