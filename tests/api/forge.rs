//! Signed tokens written byte by byte, after the layout that `seal.rs`, `record.rs` and the manager's
//! `tokens.rs` document: what only a newer release, or a mistaken one, would send.

use axum_typed_session::Key;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Signs a plaintext as a manager in signed cookie mode of `Login`s with default names does.
pub fn signed_token(key: &Key, plaintext: &[u8]) -> String {
    let hkdf = Hkdf::<Sha256>::new(Some(b"axum-typed-session v1"), key.master());
    let (mut id, mut secret) = ([0; 4], [0; 32]);
    hkdf.expand(b"sign id", &mut id).unwrap();
    hkdf.expand(b"sign key", &mut secret).unwrap();
    let mut context = vec![1];
    for part in ["axum-typed-session", "Login", "cookie", "__Host-session", "signed data"] {
        context.extend((part.len() as u64).to_be_bytes());
        context.extend(part.as_bytes());
    }
    let mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(&secret).unwrap();
    let tag = mac
        .chain_update((context.len() as u64).to_be_bytes())
        .chain_update(&context)
        .chain_update(plaintext)
        .finalize()
        .into_bytes();
    let token = [&[1], &id[..], plaintext, &tag].concat();
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
        let mut bytes = vec![7; 32];
        bytes.extend(self.issued_at.to_be_bytes());
        bytes.extend(self.expires_at.to_be_bytes());
        bytes.extend([self.format, self.flags, self.codec]);
        bytes.extend(self.schema.to_be_bytes());
        bytes.extend(self.issued_at.to_be_bytes());
        bytes.extend(u64::MAX.to_be_bytes());
        bytes.extend(self.payload);
        bytes
    }
}
