//! Sealed tokens and stored data. A client holds a token, and cannot read it, change it or use it for another
//! purpose. A store holds sealed data, and cannot do so either.
//!
//! ```text
//! encrypted  version u8 = 2 | key id [u8; 4] | nonce [u8; 24] | tag [u8; 16] | ciphertext
//! signed     version u8 = 2 | key id [u8; 4] | tag [u8; 32] | plaintext
//! ```
//!
//! A token is written in base64url without padding; stored data stays binary and is always encrypted. Encryption is
//! XAES-256-GCM. It derives a key for each message from half of its 192-bit nonce, so random nonces are safe at any
//! volume. Signing is HMAC-SHA256. The configuration chooses between the two; a token never does. The associated data
//! is a SHA-256 hash of version, audience, kind, transport, cookie or header, and mode, so a token of another of these
//! does not open. It need not bind the key id, which only chooses the key. The text comes last, so that it can be read
//! in place.

use base64_simd::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes};
use hmac::{Hmac, Mac as _};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
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

const VERSION: u8 = 2;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const NONCE_BYTES: usize = 24;
const GCM_TAG_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// Seals and opens the tokens of one session kind.
pub(crate) struct Sealer {
    /// The sealing key first; there is at least one.
    keys: Vec<DerivedKey<Cipher>>,
    /// The bytes of a token before its plaintext.
    head_bytes: usize,
    /// Whether tokens are signed or encrypted, and whether they hold data or an id.
    mode: String,
}

enum Cipher {
    Encrypt(Box<Xaes256Gcm>),
    /// The key itself, since a keyed HMAC does not wipe its state.
    Sign(Zeroizing<[u8; 32]>),
}

/// The associated data of a token or of stored data. It has one length, so no byte can move from it to the text.
pub(crate) type Context = [u8; 32];

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
        let (adjective, proof_bytes) =
            if signed { ("signed", MAC_BYTES) } else { ("encrypted", NONCE_BYTES + GCM_TAG_BYTES) };
        let mode = format!("{adjective} {content}");
        Ok(Self { keys: keys.collect(), head_bytes: HEADER_BYTES + proof_bytes, mode })
    }

    /// Makes the associated data that binds tokens to an audience, a kind, a transport and its cookie or header.
    pub(crate) fn context(&self, bound_to: [&str; 4]) -> Context {
        let names = with_lengths(bound_to.into_iter().chain([&*self.mode]));
        Sha256::new_with_prefix([VERSION]).chain_update(names).finalize().into()
    }

    /// Makes the associated data that binds stored data to its key.
    ///
    /// The key is a hash already, and no token is sealed with the keys of rows.
    pub(crate) fn row_context(key: &StoreKey) -> &Context {
        key.as_bytes()
    }

    /// Returns the length of the token that `plaintext` bytes become.
    pub(crate) fn token_len(&self, plaintext: usize) -> usize {
        // Base64 without padding: four characters for three bytes, rounded up.
        ((self.head_bytes + plaintext) * 4).div_ceil(3)
    }

    /// Appends the token of what `write` appends, which is `len` bytes long.
    pub(crate) fn seal(
        &self,
        context: &Context,
        len: usize,
        into: &mut String,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), BoxError> {
        let token = self.seal_bytes(context, len, write)?;
        URL_SAFE_NO_PAD.encode_append(token, into);
        Ok(())
    }

    /// Seals what `write` appends, which is `len` bytes long, without the base64 of a token.
    pub(crate) fn seal_bytes(
        &self,
        context: &Context,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, BoxError> {
        let key = self.keys.first().ok_or("the key ring is empty")?;
        let mut token = Vec::with_capacity(self.head_bytes + len);
        token.push(VERSION);
        token.extend_from_slice(&key.id);
        // Nonce and tag follow once they are known.
        token.resize(self.head_bytes, 0);
        write(&mut token);
        let (head, text) =
            token.split_at_mut_checked(self.head_bytes).ok_or("the plaintext shrank the token")?;
        let (_, proof) = head.split_at_mut(HEADER_BYTES);
        match &key.secret {
            Cipher::Encrypt(cipher) => {
                let (nonce, tag) = proof.split_at_mut(NONCE_BYTES);
                rand::rng().fill_bytes(nonce);
                let nonce: &[u8; NONCE_BYTES] = (&*nonce).try_into()?;
                tag.copy_from_slice(&cipher.encrypt_inout_detached(
                    nonce.into(),
                    context,
                    text.into(),
                )?);
            }
            Cipher::Sign(secret) => {
                proof.copy_from_slice(&signature(secret, context, text).finalize().into_bytes());
            }
        }
        Ok(token)
    }

    /// Opens a token. Every failure with a known key is the same [`BadToken::Forged`].
    pub(crate) fn open(&self, context: &Context, text: &[u8]) -> Result<Opened, BadToken> {
        // No longer token was ever sent; this bounds the work that one can cause.
        if !(self.token_len(0)..=NAME_VALUE_LIMIT).contains(&text.len()) {
            return Err(BadToken::Malformed);
        }
        let token = URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| BadToken::Malformed)?;
        self.open_bytes(context, token)
    }

    /// Opens what [`seal_bytes`](Self::seal_bytes) made.
    pub(crate) fn open_bytes(
        &self,
        context: &Context,
        mut token: Vec<u8>,
    ) -> Result<Opened, BadToken> {
        let (head, text) =
            token.split_at_mut_checked(self.head_bytes).ok_or(BadToken::Malformed)?;
        let Some(([VERSION, id @ ..], proof)) = head.split_first_chunk::<HEADER_BYTES>() else {
            return Err(BadToken::Malformed);
        };
        let key = self.keys.iter().find(|key| key.id == *id).ok_or(BadToken::UnknownKey)?;
        key.secret.open(context, proof, text).ok_or(BadToken::Forged)?;
        let mut plaintext = Bytes::from(token);
        plaintext.advance(self.head_bytes);
        Ok(Opened { plaintext, former_key: key.is_former })
    }
}

impl Cipher {
    /// Checks the text, and makes it readable in place.
    fn open(&self, context: &Context, proof: &[u8], text: &mut [u8]) -> Option<()> {
        match self {
            Self::Encrypt(cipher) => {
                let (nonce, tag) = proof.split_first_chunk::<NONCE_BYTES>()?;
                let tag: &[u8; GCM_TAG_BYTES] = tag.try_into().ok()?;
                cipher.decrypt_inout_detached(nonce.into(), context, text.into(), tag.into()).ok()
            }
            Self::Sign(secret) => signature(secret, context, text).verify_slice(proof).ok(),
        }
    }
}

fn signature(secret: &[u8; 32], context: &Context, text: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    mac.chain_update(context).chain_update(text)
}

#[cfg(test)]
mod tests;
