//! Sealed tokens and stored data. A client holds a token, and cannot read it, change it or use it for another
//! purpose. A store holds sealed data, and cannot do so either.
//!
//! ```text
//! encrypted  version u8 = 1 | key id [u8; 4] | nonce [u8; 24] | ciphertext | tag [u8; 16]
//! signed     version u8 = 1 | key id [u8; 4] | plaintext | tag [u8; 32]
//! ```
//!
//! A token is written in base64url without padding; stored data stays binary and is always encrypted. Encryption is XAES-256-GCM. It derives a key for each message
//! from half of its 192-bit nonce, so random nonces are safe at any volume. Signing is HMAC-SHA256. The
//! configuration chooses between the two; a token never does. The associated data binds version, audience, kind,
//! transport, cookie or header, and mode. It need not bind the key id, which only chooses the key.

use base64::{Engine as _, decoded_len_estimate, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use rand::RngCore as _;
use sha2::Sha256;
use xaes_256_gcm::{
    Xaes256Gcm,
    aead::{AeadInOut as _, KeyInit as _},
};
use zeroize::Zeroizing;

use crate::{
    cookies::NAME_VALUE_LIMIT,
    error::{BoxError, ConfigError},
    id::{StoreKey, with_lengths},
    keys::{DerivedKey, KEY_ID_BYTES, KeyRing},
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const NONCE_BYTES: usize = 24;
const GCM_TAG_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// Seals and opens the tokens of one session kind.
pub(crate) struct Sealer {
    /// The sealing key first; there is at least one.
    keys: Vec<DerivedKey<Cipher>>,
    /// The bytes of a token beside its plaintext.
    overhead: usize,
    /// Whether tokens are signed or encrypted, and whether they hold data or an id.
    mode: String,
}

enum Cipher {
    Encrypt(Box<Xaes256Gcm>),
    /// The key itself, since a keyed HMAC does not wipe its state.
    Sign(Zeroizing<[u8; 32]>),
}

/// The reason why a token is not a session. The most serious reason is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BadToken {
    UnknownKey,
    Malformed,
    /// It names a known key, but no server sealed it, or no server writes its content.
    Forged,
}

/// The content of an authenticated token.
pub(crate) struct Opened {
    pub(crate) plaintext: Bytes,
    pub(crate) former_key: bool,
}

impl Sealer {
    /// Makes a sealer. A token with data never opens as one with an id.
    pub(crate) fn new(
        ring: &KeyRing,
        signed: bool,
        data_in_token: bool,
    ) -> Result<Self, ConfigError> {
        let purpose = if signed { "sign" } else { "encrypt" };
        Self::of(ring, purpose, signed, if data_in_token { "data" } else { "id" })
    }

    /// Makes the sealer of stored data.
    pub(crate) fn for_rows(ring: &KeyRing) -> Result<Self, ConfigError> {
        Self::of(ring, "row", false, "row")
    }

    fn of(ring: &KeyRing, purpose: &str, signed: bool, content: &str) -> Result<Self, ConfigError> {
        let keys = ring.derive(purpose)?.into_iter().map(|key| DerivedKey {
            id: key.id,
            is_former: key.is_former,
            secret: if signed {
                Cipher::Sign(key.secret)
            } else {
                Cipher::Encrypt(Box::new(Xaes256Gcm::new((&*key.secret).into())))
            },
        });
        let (adjective, overhead) =
            if signed { ("signed", MAC_BYTES) } else { ("encrypted", NONCE_BYTES + GCM_TAG_BYTES) };
        let mode = format!("{adjective} {content}");
        Ok(Self { keys: keys.collect(), overhead: HEADER_BYTES + overhead, mode })
    }

    /// Makes the associated data that binds tokens to an audience, a kind, a transport and its cookie or header.
    pub(crate) fn context(&self, bound_to: [&str; 4]) -> Vec<u8> {
        let names = with_lengths(bound_to.into_iter().chain([&*self.mode]));
        [&[VERSION], &*names].concat()
    }

    /// Makes the associated data that binds stored data to its key.
    pub(crate) fn row_context(&self, key: &StoreKey) -> Vec<u8> {
        [&[VERSION], self.mode.as_bytes(), key.as_bytes()].concat()
    }

    /// Returns the length of the token that `plaintext` bytes become.
    pub(crate) fn token_len(&self, plaintext: usize) -> usize {
        // Base64 without padding: four characters for three bytes, rounded up.
        ((self.overhead + plaintext) * 4).div_ceil(3)
    }

    /// Seals what `write` appends, which is `len` bytes long.
    pub(crate) fn seal(
        &self,
        context: &[u8],
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<String, BoxError> {
        self.seal_bytes(context, len, write).map(|token| URL_SAFE_NO_PAD.encode(token))
    }

    /// Seals what `write` appends, which is `len` bytes long, without the base64 of a token.
    pub(crate) fn seal_bytes(
        &self,
        context: &[u8],
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, BoxError> {
        let key = self.keys.first().ok_or("the key ring is empty")?;
        let mut token = Vec::with_capacity(self.overhead + len);
        token.push(VERSION);
        token.extend_from_slice(&key.id);
        match &key.secret {
            Cipher::Encrypt(cipher) => {
                let mut nonce = [0; NONCE_BYTES];
                rand::thread_rng().fill_bytes(&mut nonce);
                token.extend_from_slice(&nonce);
                write(&mut token);
                let text = token.get_mut(HEADER_BYTES + NONCE_BYTES..);
                let text = text.ok_or("the plaintext shrank the token")?;
                let tag = cipher.encrypt_inout_detached(&nonce.into(), context, text.into())?;
                token.extend_from_slice(&tag);
            }
            Cipher::Sign(secret) => {
                write(&mut token);
                let text = token.get(HEADER_BYTES..).unwrap_or_default();
                let tag = signature(secret, context, text).finalize().into_bytes();
                token.extend_from_slice(&tag);
            }
        }
        Ok(token)
    }

    /// Opens a token. Every failure with a known key is the same [`BadToken::Forged`].
    pub(crate) fn open(&self, context: &[u8], text: &[u8]) -> Result<Opened, BadToken> {
        // No longer token was ever sent; this bounds the work that one can cause.
        if !(self.token_len(0)..=NAME_VALUE_LIMIT).contains(&text.len()) {
            return Err(BadToken::Malformed);
        }
        // An unzeroed buffer: zeroing costs time.
        let mut token = Vec::with_capacity(decoded_len_estimate(text.len()));
        URL_SAFE_NO_PAD.decode_vec(text, &mut token).map_err(|_| BadToken::Malformed)?;
        self.open_bytes(context, token)
    }

    /// Opens what [`seal_bytes`](Self::seal_bytes) made.
    pub(crate) fn open_bytes(&self, context: &[u8], token: Vec<u8>) -> Result<Opened, BadToken> {
        let Some([VERSION, id @ ..]) = token.first_chunk::<HEADER_BYTES>() else {
            return Err(BadToken::Malformed);
        };
        let key = self.keys.iter().find(|key| key.id == *id).ok_or(BadToken::UnknownKey)?;
        let plaintext = key.secret.open(context, token).ok_or(BadToken::Forged)?;
        Ok(Opened { plaintext, former_key: key.is_former })
    }
}

impl Cipher {
    fn open(&self, context: &[u8], mut token: Vec<u8>) -> Option<Bytes> {
        let text = match self {
            Self::Encrypt(cipher) => {
                let (head, rest) = token.split_at_mut_checked(HEADER_BYTES + NONCE_BYTES)?;
                let nonce: &[u8; NONCE_BYTES] = head.last_chunk()?;
                let (text, tag) = rest.split_last_chunk_mut::<GCM_TAG_BYTES>()?;
                let (nonce, tag) = (nonce.into(), (&*tag).into());
                cipher.decrypt_inout_detached(nonce, context, text.into(), tag).ok()?;
                HEADER_BYTES + NONCE_BYTES..token.len() - GCM_TAG_BYTES
            }
            Self::Sign(secret) => {
                let signed = token.get(HEADER_BYTES..)?;
                let (text, tag) = signed.split_last_chunk::<MAC_BYTES>()?;
                signature(secret, context, text).verify_slice(tag).ok()?;
                HEADER_BYTES..token.len() - MAC_BYTES
            }
        };
        Some(Bytes::from(token).slice(text))
    }
}

/// The length of the context comes first, so that no byte can move from the context to the text.
fn signature(secret: &[u8; 32], context: &[u8], text: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(secret).expect("any length");
    mac.chain_update((context.len() as u64).to_be_bytes()).chain_update(context).chain_update(text)
}

#[cfg(test)]
mod tests;
