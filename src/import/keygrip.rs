//! Signatures of the npm package keygrip, which koa, egg and cookie-session use.

use base64::alphabet;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::old_cookie::{OldCookie, decode, values};

/// The secrets of an application, of which every one is tried.
pub(super) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl Secrets {
    /// Leaves out empty secrets: anyone could sign with them.
    pub(super) fn new(secrets: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let secrets = secrets.into_iter().map(|secret| Zeroizing::new(secret.into()));
        Self(secrets.filter(|secret| !secret.is_empty()).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| secret.as_slice())
    }

    /// Returns `true` if one of the secrets made this signature, compared in constant time.
    pub(super) fn verify(&self, hash: Hash, data: &[u8], signature: &[u8]) -> bool {
        self.iter().any(|secret| match hash {
            Hash::Sha1 => is_signed::<Hmac<Sha1>>(secret, data, signature),
            Hash::Sha256 => is_signed::<Hmac<Sha256>>(secret, data, signature),
        })
    }

    /// Returns the value of a cookie for which a signature came in the cookie `<name>.sig`.
    ///
    /// The signature covers `<name>=<value>`, so no value can be moved to another cookie.
    pub(super) fn signed_value<'h>(
        &self,
        hash: Hash,
        cookie: &'h OldCookie,
        headers: &'h HeaderMap,
    ) -> Option<&'h str> {
        let name = cookie.signature_name();
        let signatures = values(headers, &name);
        let signatures: Vec<_> =
            signatures.filter_map(|text| decode(&alphabet::URL_SAFE, text)).collect();
        cookie.values(headers).find(|value| {
            let data = format!("{}={value}", cookie.0.name());
            signatures.iter().any(|signature| self.verify(hash, data.as_bytes(), signature))
        })
    }
}

/// The hash of a signature. The configuration names it, never the cookie.
#[derive(Clone, Copy)]
pub(super) enum Hash {
    /// That of keygrip.
    Sha1,
    /// That of egg-cookies and express-session.
    Sha256,
}

fn is_signed<M: Mac + KeyInit>(secret: &[u8], data: &[u8], signature: &[u8]) -> bool {
    <M as KeyInit>::new_from_slice(secret)
        .is_ok_and(|mac| mac.chain_update(data).verify_slice(signature).is_ok())
}
