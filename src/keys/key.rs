//! The secret of an application.

use std::fmt;

use zeroize::Zeroizing;

use super::HOW_TO_MAKE_A_KEY;
use crate::error::ConfigError;

/// The secret of an application: 64 random bytes, which are wiped from memory when the key is dropped.
///
/// An application has one key and gives it to every node. A [`KeyRing`](crate::KeyRing) reads it from the environment
/// or a file, and replaces it without signing anyone out.
///
/// # Example
///
/// ```
/// use axum_typed_session::{ConfigError, Key, SessionManager};
///
/// fn sessions(secret: &[u8]) -> Result<SessionManager<u32>, ConfigError> {
///     SessionManager::builder().keys(Key::try_from(secret)?).build()
/// }
/// # assert!(sessions(Key::generate().as_bytes()).is_ok());
/// # assert!(sessions(b"too short").is_err());
/// ```
///
/// An application that has a key for `PrivateCookieJar` or `SignedCookieJar` may use the same secret:
/// `Key::try_from(key.master())`. The sessions use keys that are derived from all 64 bytes, one for each purpose.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 64]>);

impl Key {
    /// Makes a new key, for a test or a first try. All sessions end when the program that made it ends.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        #[allow(clippy::expect_used, reason = "no key can be made, and every other would be weak")]
        getrandom::fill(bytes.as_mut()).expect("random bytes of the operating system");
        Self(bytes)
    }

    /// Takes the first 64 bytes. The error describes bytes that are too few.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let len = bytes.len();
        let first = bytes.first_chunk();
        first
            .map(|first| Self(Zeroizing::new(*first)))
            .ok_or_else(|| format!("has {len} bytes and needs 64 or more; {HOW_TO_MAKE_A_KEY}"))
    }

    /// Returns the 64 secret bytes, such as to keep a [generated](Self::generate) key.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl From<[u8; 64]> for Key {
    fn from(bytes: [u8; 64]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = ConfigError;

    /// Takes the first 64 bytes.
    ///
    /// # Errors
    ///
    /// There are fewer than 64 bytes.
    fn try_from(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::read(bytes).map_err(|problem| ConfigError::new(format!("a key {problem}")))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}
