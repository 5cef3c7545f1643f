//! Sealed tokens: what a client holds and cannot read, change or use elsewhere.
//!
//! ```text
//! encrypted  version u8 = 1 | key id [u8; 4] | nonce [u8; 24] | ciphertext | tag [u8; 16]
//! signed     version u8 = 1 | key id [u8; 4] | plaintext | tag [u8; 32]
//! ```
//!
//! in base64url without padding. Encryption is XAES-256-GCM, which derives a key per message from half
//! of its 192-bit nonce, so that random nonces are safe at any volume; signing is HMAC-SHA256. Which of
//! them is configuration, never the token's choice. The associated data binds version, key id,
//! audience, kind, transport, the name of its cookie or header, and mode.

use base64::{Engine as _, decoded_len_estimate, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use xaes_256_gcm::{
    Xaes256Gcm,
    aead::{AeadInOut as _, KeyInit as _},
};
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, ConfigError},
    id::random,
    keys::KeyRing,
};

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const NONCE_BYTES: usize = 24;
const GCM_TAG_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// Whether a token can be read by who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Encrypted,
    Signed,
}

/// What a token holds, which keeps an id from opening as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Data,
    Id,
}

/// Seals and opens the tokens of one session kind.
pub(crate) struct Sealer {
    /// The sealing key first; there is at least one.
    keys: Vec<SealKey>,
    protection: Protection,
}

struct SealKey {
    id: [u8; KEY_ID_BYTES],
    is_former: bool,
    cipher: Cipher,
    /// Version and key id, then audience, kind, transport, its name and the mode, each with its length.
    context: Vec<u8>,
}

enum Cipher {
    Encrypt(Box<Xaes256Gcm>),
    /// The key itself, since a keyed HMAC does not wipe its state.
    Sign(Zeroizing<[u8; 32]>),
}

/// Why a token is no session; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BadToken {
    UnknownKey,
    Malformed,
    /// A later release sealed it.
    Newer,
}

/// What an authenticated token held.
pub(crate) struct Opened {
    pub(crate) plaintext: Bytes,
    pub(crate) former_key: bool,
}

impl Sealer {
    /// Makes the sealer of tokens bound to an audience, a kind, a transport and its name.
    pub(crate) fn new(
        ring: &KeyRing,
        protection: Protection,
        holds: Content,
        bound_to: [&str; 4],
    ) -> Result<Self, ConfigError> {
        let (purpose, mode) = match (protection, holds) {
            (Protection::Encrypted, Content::Data) => ("encrypt", "encrypted data"),
            (Protection::Encrypted, Content::Id) => ("encrypt", "encrypted id"),
            (Protection::Signed, Content::Data) => ("sign", "signed data"),
            (Protection::Signed, Content::Id) => ("sign", "signed id"),
        };
        let mut binding = Vec::new();
        for part in bound_to.into_iter().chain([mode]) {
            binding.extend_from_slice(&(part.len() as u64).to_be_bytes());
            binding.extend_from_slice(part.as_bytes());
        }
        let keys = ring.derive(purpose)?.into_iter().map(|key| SealKey {
            context: [&[VERSION], &key.id[..], &binding].concat(),
            id: key.id,
            is_former: key.is_former,
            cipher: match protection {
                Protection::Encrypted => {
                    Cipher::Encrypt(Box::new(Xaes256Gcm::new((&*key.secret).into())))
                }
                Protection::Signed => Cipher::Sign(key.secret),
            },
        });
        Ok(Self { keys: keys.collect(), protection })
    }

    /// Returns the length of the token that `plaintext` bytes become.
    pub(crate) fn token_len(&self, plaintext: usize) -> usize {
        let bytes = self.overhead() + plaintext;
        // Base64 without padding: four characters for three bytes, rounded up.
        (bytes * 4).div_ceil(3)
    }

    fn overhead(&self) -> usize {
        HEADER_BYTES
            + match self.protection {
                Protection::Encrypted => NONCE_BYTES + GCM_TAG_BYTES,
                Protection::Signed => MAC_BYTES,
            }
    }

    /// Seals what `write` appends, which is `len` bytes long.
    pub(crate) fn seal(
        &self,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<String, BoxError> {
        let key = self.keys.first().ok_or("the key ring is empty")?;
        let mut token = Vec::with_capacity(self.overhead() + len);
        token.push(VERSION);
        token.extend_from_slice(&key.id);
        match &key.cipher {
            Cipher::Encrypt(cipher) => {
                let nonce: [u8; NONCE_BYTES] = random()?;
                token.extend_from_slice(&nonce);
                write(&mut token);
                let (_, text) = token
                    .split_at_mut_checked(HEADER_BYTES + NONCE_BYTES)
                    .ok_or("the plaintext shrank the token")?;
                let tag =
                    cipher.encrypt_inout_detached(&nonce.into(), &key.context, text.into())?;
                token.extend_from_slice(&tag);
            }
            Cipher::Sign(secret) => {
                write(&mut token);
                let text = token.get(HEADER_BYTES..).unwrap_or_default();
                let tag = signature(secret, &key.context, text).finalize().into_bytes();
                token.extend_from_slice(&tag);
            }
        }
        let mut text = String::with_capacity(self.token_len(len));
        URL_SAFE_NO_PAD.encode_string(token, &mut text);
        Ok(text)
    }

    /// Opens a token. A token that passes the checks of version, key id and length, which need no key,
    /// counts against `to_open`, authentic or not.
    ///
    /// Every failure after those checks is the same [`BadToken::Malformed`].
    pub(crate) fn open(&self, token: &[u8], to_open: &mut usize) -> Result<Opened, BadToken> {
        let key = self.key_of(token)?;
        *to_open = to_open.saturating_sub(1);
        Self::open_with(key, token).ok_or(BadToken::Malformed)
    }

    fn key_of(&self, token: &[u8]) -> Result<&SealKey, BadToken> {
        // Eight characters are six bytes: version, key id and one more.
        let mut start = [0; 6];
        let head = token.first_chunk::<8>();
        let decoded = head.map(|head| URL_SAFE_NO_PAD.decode_slice(head, &mut start));
        let [version, id @ .., _] = start;
        let has_shape = matches!(decoded, Some(Ok(_)))
            && version == VERSION
            && (self.token_len(0)..=MAX_TOKEN_CHARS).contains(&token.len());
        if !has_shape {
            return Err(BadToken::Malformed);
        }
        self.keys.iter().find(|key| key.id == id).ok_or(BadToken::UnknownKey)
    }

    fn open_with(key: &SealKey, text: &[u8]) -> Option<Opened> {
        // An unzeroed buffer: zeroing costs time.
        let mut token = Vec::with_capacity(decoded_len_estimate(text.len()));
        URL_SAFE_NO_PAD.decode_vec(text, &mut token).ok()?;
        let end = token.len();
        let text = match &key.cipher {
            Cipher::Encrypt(cipher) => {
                let start = HEADER_BYTES + NONCE_BYTES;
                let tag_at = end.checked_sub(GCM_TAG_BYTES)?;
                let tag: [u8; GCM_TAG_BYTES] = *token.last_chunk()?;
                let nonce: [u8; NONCE_BYTES] = *token.get(HEADER_BYTES..)?.first_chunk()?;
                let text = token.get_mut(start..tag_at)?;
                cipher
                    .decrypt_inout_detached(&nonce.into(), &key.context, text.into(), &tag.into())
                    .ok()?;
                start..tag_at
            }
            Cipher::Sign(secret) => {
                let tag_at = end.checked_sub(MAC_BYTES)?;
                let (text, tag) = token.split_at_checked(tag_at)?;
                let text = text.get(HEADER_BYTES..)?;
                signature(secret, &key.context, text).verify_slice(tag).ok()?;
                HEADER_BYTES..tag_at
            }
        };
        Some(Opened { plaintext: Bytes::from(token).slice(text), former_key: key.is_former })
    }
}

/// Longer than any token a cookie can carry; bounds the work one candidate can cause.
pub(crate) const MAX_TOKEN_CHARS: usize = 4096;

/// The context's length stands first, so that no byte can move between it and the text.
fn signature(secret: &[u8; 32], context: &[u8], text: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(secret).expect("any length");
    mac.chain_update((context.len() as u64).to_be_bytes()).chain_update(context).chain_update(text)
}

#[cfg(test)]
mod tests;
