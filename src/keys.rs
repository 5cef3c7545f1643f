//! The keys of an application, and the keys derived from them for each purpose.

mod key;

use std::{collections::HashSet, env, fmt};

use base64_simd::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use self::key::Key;
use crate::error::ConfigError;

/// The keys of a session cookie. One key seals new tokens: it encrypts or signs them. The other keys only open tokens.
///
/// To replace a key without signing anyone out, roll out three times, each time to every node. With
/// [`from_env`](Self::from_env) only the variable changes:
///
/// | | the variable | or in code |
/// |---|---|---|
/// | first | `old,new` | `KeyRing::new(old).accept_next(new)` |
/// | then | `new,old` | `KeyRing::new(new).accept_former(old)` |
/// | once the longest session has ended | `new` | `KeyRing::new(new)` |
///
/// The longest session ends after the [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout), or
/// after the [`max_absolute_timeout`](crate::SessionManagerBuilder::max_absolute_timeout) if it is set.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Key, KeyRing, SessionManager};
///
/// let (old, new) = (Key::generate(), Key::generate());
/// let sessions = SessionManager::<u32>::builder()
///     .keys(KeyRing::new(new).accept_former(old))
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
///
/// [`guide::keys_and_schemas`](crate::guide::keys_and_schemas) has every step.
#[doc(alias("rotate", "rotation", "secret", "SESSION_KEY"))]
#[derive(Clone)]
#[must_use]
pub struct KeyRing {
    /// Each key with `true` if it is a former key. The key that seals is the first.
    keys: Vec<(Key, bool)>,
}

impl KeyRing {
    /// Makes a ring with one key, which seals and opens. The example of [`KeyRing`] uses it.
    pub fn new(seal: Key) -> Self {
        Self { keys: vec![(seal, false)] }
    }

    /// Reads the keys from an environment variable: one key, or several keys separated by commas.
    ///
    /// The first key seals. The others are former keys, as with [`accept_former`](Self::accept_former). A key has
    /// 64 bytes or more, in hex or in base64 (standard or URL-safe, padded or not), on one line. A text that has
    /// only hex digits is hex. Whitespace around a key is ignored. A [`Key`] uses the first 64 bytes.
    ///
    /// # Example
    ///
    /// The shell makes a key with `export SESSION_KEY=$(openssl rand -hex 64)`, and the program reads it:
    ///
    /// ```no_run
    /// use axum_typed_session::{KeyRing, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(KeyRing::from_env("SESSION_KEY")?)
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The variable is not set or empty, or a key in it is too short or in another form. The text names the
    /// variable and the position of the key. It contains no part of the value.
    ///
    /// # Security
    ///
    /// A client that guesses a key can forge every session, so the bytes must be random. A passphrase of the right
    /// length is not refused.
    #[doc(alias("env", "openssl"))]
    pub fn from_env(variable: &str) -> Result<Self, ConfigError> {
        let source = format!("the environment variable `{variable}`");
        let Some(text) = env::var_os(variable) else {
            return Err(ConfigError::new(format!("{source} is not set; {HOW_TO_MAKE_A_KEY}")));
        };
        let text = Zeroizing::new(text.into_encoded_bytes());
        let form = "is neither hex with an even number of digits nor base64 on one line";
        Self::read(&text, &source, hex_or_base64, form)
    }

    /// Reads the keys from a text, such as the content of a file: one key, or several keys separated by commas.
    ///
    /// The text has the form of [`from_env`](Self::from_env), but in hex only. A mistyped digit is an error and is
    /// never read as base64.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::KeyRing;
    ///
    /// fn keys() -> Result<KeyRing, Box<dyn std::error::Error>> {
    ///     let text = std::fs::read_to_string("/run/secrets/session_key")?;
    ///     Ok(KeyRing::from_hex(&text)?)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The text is empty, or a key in it is too short or not hex. The error names the position of the key. It
    /// contains no part of the text.
    ///
    /// # Security
    ///
    /// The bytes must be random, as in [`from_env`](Self::from_env).
    pub fn from_hex(text: &str) -> Result<Self, ConfigError> {
        let source = "the text of `KeyRing::from_hex(..)`";
        Self::read(text.as_bytes(), source, hex, "is not hex with an even number of digits")
    }

    /// Reads keys between commas, the sealing key first. `form` describes a key that `decode` cannot read.
    fn read(list: &[u8], source: &str, decode: Decode, form: &str) -> Result<Self, ConfigError> {
        if list.trim_ascii().is_empty() {
            return Err(ConfigError::new(format!("{source} is empty; {HOW_TO_MAKE_A_KEY}")));
        }
        let keys = list.split(|byte| *byte == b',').zip(1..).map(|(text, number)| {
            let key = read_key(text.trim_ascii(), decode, form).map_err(|problem| {
                ConfigError::new(format!("key {number} of {source} {problem}"))
            })?;
            Ok((key, number > 1))
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// Adds the key that will seal next. The ring opens its tokens and leaves them as they are. The table of
    /// [`KeyRing`] shows when to use it.
    pub fn accept_next(mut self, key: Key) -> Self {
        self.keys.push((key, false));
        self
    }

    /// Adds a former key. The ring opens its tokens. The next commit seals them again with the current key, and
    /// keeps their expiry. The example of [`KeyRing`] uses it.
    #[doc(alias("retire", "rotate"))]
    pub fn accept_former(mut self, key: Key) -> Self {
        self.keys.push((key, true));
        self
    }

    /// Derives this ring's keys for one purpose, the sealing key first.
    pub(crate) fn derive(&self, purpose: &str) -> Result<Vec<DerivedKey>, ConfigError> {
        let mut derived: Vec<DerivedKey> = Vec::new();
        for (key, is_former) in &self.keys {
            if is_weak(key.as_bytes()) {
                return Err(ConfigError::new(
                    "a key in `.keys(..)` is not random; make a key with `openssl rand -hex 64`",
                ));
            }
            let key = DerivedKey::new(key, *is_former, purpose);
            if let Some(other) = derived.iter().find(|other| other.id == key.id) {
                // Two keys have one id by chance in one of 2^32 cases.
                return Err(ConfigError::new(if other.secret == key.secret {
                    "`.keys(..)` contains a key twice; list each key once"
                } else {
                    "two keys in `.keys(..)` share a key id; replace one of them"
                }));
            }
            derived.push(key);
        }
        Ok(derived)
    }
}

const HOW_TO_MAKE_A_KEY: &str = "make a key with `openssl rand -hex 64`";

/// Returns the bytes that a text stands for, or `None` for a text in another form. The bytes are never moved to a
/// larger buffer, which would leave a copy behind.
type Decode = fn(&[u8]) -> Option<Zeroizing<Vec<u8>>>;

/// Reads one key. The error describes a text that is not a key.
fn read_key(text: &[u8], decode: Decode, form: &str) -> Result<Key, String> {
    Key::read(&decode(text).ok_or_else(|| format!("{form}; {HOW_TO_MAKE_A_KEY}"))?)
}

fn hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let value = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push(value(*high)? << 4 | value(*low)?);
    }
    Some(bytes)
}

/// A text of hex digits only is read as hex. The base64 text of a random key has this form once in 10^40 keys.
fn hex_or_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.iter().all(u8::is_ascii_hexdigit) {
        return hex(text);
    }
    let forms = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    forms.iter().find_map(|form| form.decode_to_vec(text).ok()).map(Zeroizing::new)
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

/// A key that was derived for one purpose. It holds the bytes, or the cipher that was made from them.
pub(crate) struct DerivedKey<S = Zeroizing<[u8; 32]>> {
    pub(crate) id: [u8; KEY_ID_BYTES],
    pub(crate) is_former: bool,
    pub(crate) secret: S,
}

pub(crate) const KEY_ID_BYTES: usize = 4;

impl DerivedKey {
    fn new(key: &Key, is_former: bool, purpose: &str) -> Self {
        let mut id = [0; 4];
        let mut secret = Zeroizing::new([0; 32]);
        derive(key.as_bytes(), &[purpose.as_bytes(), b" id"], &mut id);
        derive(key.as_bytes(), &[purpose.as_bytes(), b" key"], secret.as_mut());
        Self { id, is_former, secret }
    }
}

/// Derives the value that `info` names from a secret, of at most 32 bytes.
pub(crate) fn derive(secret: &[u8], info: &[&[u8]], output: &mut [u8]) {
    let hkdf = Hkdf::<Sha256>::new(Some(b"axum-typed-session v1"), secret);
    #[allow(
        clippy::expect_used,
        reason = "HKDF-SHA256 fails above 8160 bytes only, and a key left at zero would be worse"
    )]
    hkdf.expand_multi_info(info, output).expect("an output of at most 32 bytes");
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
        Key::try_from(text).unwrap()
    }

    #[test]
    fn weak_keys_are_refused_and_random_ones_are_not() {
        assert!(is_weak(&[0; 64]));
        assert!(is_weak(&[7; 64]));
        assert!(is_weak(&b"0123456789abcdef".repeat(4)));
        assert!(!is_weak(Key::generate().as_bytes()));
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
