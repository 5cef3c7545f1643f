//! Sessions of egg-session, encrypted without authentication or signed.

use aes::{
    Aes256,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use async_trait::async_trait;
use base64::alphabet;
use cookie::Cookie;
use http::request::Parts;
use md5::{Digest as _, Md5};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    KoaSessions, OldSession, OldSessions,
    keygrip::{Hash, Secrets},
    koa::Data,
    old_cookie::{OldCookie, decode},
    rows::OldRows,
};
use crate::error::StoreError;

/// Sessions of the npm package [egg-session](https://www.npmjs.com/package/egg-session), also called `@eggjs/session`,
/// for [`import`](crate::SessionManagerBuilder::import).
///
/// egg encrypts the cookie by default: [`insecure_encrypted`](Self::insecure_encrypted). With `encrypt: false` in its
/// configuration it signs the cookie: [`signed`](Self::signed). Data in an external store is read with
/// [`store`](Self::store).
///
/// # Example
///
/// ```
/// use axum_typed_session::import::EggSessions;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
///
/// // `config.keys` of the egg application is a list between commas.
/// let old = EggSessions::insecure_encrypted(["the newest key", "an older key"], |data| {
///     let user = data["user"].as_str()?.to_owned();
///     Some(Login { user: Some(user) })
/// });
/// ```
pub struct EggSessions<T> {
    format: Format<T>,
}

enum Format<T> {
    Signed(KoaSessions<T>),
    Encrypted { secrets: Secrets, cookie: OldCookie, data: Data<T> },
}

const NAME: &str = "EGG_SESS";

impl<T> EggSessions<T> {
    /// Reads the cookie `EGG_SESS`, signed with one of these keys, of an application with `encrypt: false`. The type
    /// has an example of `take`, which returns what this application keeps of the data.
    ///
    /// # Security
    ///
    /// The package [egg-cookies](https://www.npmjs.com/package/egg-cookies) signs with HMAC-SHA256. The rest of what
    /// [`KoaSessions`] says holds here too.
    pub fn signed(
        keys: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let koa = KoaSessions::new(keys, take).hash(Hash::Sha256).cookie(Cookie::new(NAME, ""));
        Self { format: Format::Signed(koa) }
    }

    /// Reads the cookie `EGG_SESS`, encrypted with one of these keys, of an application with `encrypt: true`, which is
    /// egg's default. The type has an example.
    ///
    /// # Security
    ///
    /// The cookie is **not authenticated**, which is why the name begins with `insecure_`. egg-cookies
    /// (`lib/keygrip.js`) encrypts with AES-256-CBC without a signature. MD5 derives the key and a fixed
    /// initialization vector from the secret, in one round and without a salt, as OpenSSL's `EVP_BytesToKey` did.
    ///
    /// - Who can make the server tell whether a changed cookie was accepted can, with many requests, find the plaintext of
    ///   a cookie and build cookies of its own (Vaudenay 2002, Rizzo and Duong 2010). The old application has the same
    ///   weakness. This reader accepts only strict base64 of whole JSON, which makes that much harder, but is no proof
    ///   against it.
    /// - Neither the name of the cookie nor its purpose is part of it. Who can have the application encrypt a text of
    ///   their choice into another cookie, with `ctx.cookies.set(.., { encrypt: true })`, has written a session.
    /// - Two sessions that begin with the same data have cookies that begin with the same bytes.
    /// - A guessable key can be found from one cookie, offline.
    ///
    /// Take over only what you would let a user choose, such as an id that `take` looks up, and choose a near date for the
    /// import. A session of an administrator should sign in again.
    pub fn insecure_encrypted(
        keys: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        take: impl Fn(Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (secrets, cookie) = (Secrets::new(keys), OldCookie::named(NAME));
        Self { format: Format::Encrypted { secrets, cookie, data: Data::new(take) } }
    }

    /// Sets the cookie: the option `key` of egg's session, with its Path and Domain. Default: `EGG_SESS` with the Path
    /// `/`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{cookie::Cookie, import::EggSessions};
    ///
    /// let old = EggSessions::signed(["the key"], |data| data["count"].as_u64())
    ///     .cookie(Cookie::build("SHOP_SESS").domain("example.com"));
    /// ```
    #[must_use]
    pub fn cookie(self, cookie: impl Into<Cookie<'static>>) -> Self {
        let format = match self.format {
            Format::Signed(koa) => Format::Signed(koa.cookie(cookie)),
            Format::Encrypted { secrets, data, .. } => {
                Format::Encrypted { secrets, cookie: OldCookie(cookie.into()), data }
            }
        };
        Self { format }
    }

    /// Reads the data from rows of JSON: the option `app.sessionStore` of egg. The cookie then holds the key of the row.
    /// [`KoaSessions::store`] says which rows are read, and what else holds.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::import::{EggSessions, OldRows};
    ///
    /// fn old(rows: impl OldRows) -> EggSessions<u64> {
    ///     EggSessions::insecure_encrypted(["the key"], |data| data["count"].as_u64()).store(rows)
    /// }
    /// ```
    #[must_use]
    pub fn store(self, rows: impl OldRows) -> Self {
        let format = match self.format {
            Format::Signed(koa) => Format::Signed(koa.store(rows)),
            Format::Encrypted { secrets, cookie, data } => {
                Format::Encrypted { secrets, cookie, data: data.stored(rows) }
            }
        };
        Self { format }
    }
}

impl<T> std::fmt::Debug for EggSessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EggSessions").finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> OldSessions<T> for EggSessions<T> {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        match &self.format {
            Format::Signed(koa) => koa.cookies(),
            Format::Encrypted { cookie, .. } => vec![cookie.0.clone()],
        }
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<T>>, StoreError> {
        let (secrets, cookie, data) = match &self.format {
            Format::Signed(koa) => return koa.find(request).await,
            Format::Encrypted { secrets, cookie, data } => (secrets, cookie, data),
        };
        // No more than four values, each with each key.
        for value in cookie.values(&request.headers) {
            let Some(sealed) = decode(&alphabet::URL_SAFE, value) else { continue };
            for secret in secrets.iter() {
                let text = decrypt(secret, &sealed).and_then(|text| String::from_utf8(text).ok());
                let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
                if let Some(found) = data.find(&text, &sealed).await? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

/// Decrypts as egg-cookies does.
fn decrypt(secret: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut derived = Zeroizing::new([0; 48]);
    let mut last = None;
    for part in derived.as_chunks_mut::<16>().0 {
        let hash = last.map_or_else(Md5::new, |last: [u8; 16]| Md5::new_with_prefix(last));
        *part = hash.chain_update(secret).finalize().into();
        last = Some(*part);
    }
    let (key, iv) = derived.split_at(32);
    let cipher = cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?;
    let mut text = sealed.to_vec();
    cipher.decrypt_padded::<Pkcs7>(&mut text).ok().map(<[u8]>::to_vec)
}
