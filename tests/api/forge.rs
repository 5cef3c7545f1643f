//! Signed tokens written byte by byte, after the layout that `seal.rs`, `record.rs` and the manager's
//! `tokens.rs` document: what only a newer release, or a mistaken one, would send.

use axum_typed_session::Key;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

/// Signs a plaintext as a manager in signed cookie mode of `Login`s with default names does.
pub fn signed_token(key: &Key, plaintext: &[u8]) -> String {
    let hkdf = Hkdf::<Sha256>::new(Some(b"axum-typed-session v1"), key.as_bytes());
    let (mut id, mut secret) = ([0; 4], [0; 32]);
    hkdf.expand(b"sign id", &mut id).unwrap();
    hkdf.expand(b"sign key", &mut secret).unwrap();
    let mut context = Sha256::new_with_prefix([2]);
    for part in ["axum-typed-session", "Login", "cookie", "__Host-session", "signed data"] {
        context.update((part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(&secret).unwrap();
    let tag = mac.chain_update(context.finalize()).chain_update(plaintext).finalize().into_bytes();
    let token = [&[2], &id[..], &tag, plaintext].concat();
    URL_SAFE_NO_PAD.encode(token)
}

/// The plaintext of a token of cookie mode: id, issue time, expiry, then the record.
#[derive(Clone)]
pub struct Plaintext {
    pub issued_at: u64,
    pub expires_at: u64,
    pub format: u8,
    pub flags: u8,
    pub codec: u8,
    pub schema: u32,
    pub payload: &'static [u8],
}

impl Plaintext {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![7; 16];
        bytes.extend(time(self.issued_at));
        bytes.extend(time(self.expires_at));
        bytes.extend([self.format, self.flags, self.codec]);
        bytes.extend(self.schema.to_be_bytes());
        if self.format < 4 {
            bytes.extend(self.issued_at.to_be_bytes());
            bytes.extend(u64::MAX.to_be_bytes());
        } else {
            bytes.extend(time(self.issued_at));
            bytes.extend([255; 6]);
        }
        bytes.extend(self.payload);
        bytes
    }
}

/// A time as tokens hold it: milliseconds in six bytes.
fn time(millis: u64) -> [u8; 6] {
    *millis.to_be_bytes().last_chunk().unwrap()
}
