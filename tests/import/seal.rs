//! The formats of other libraries, written as they write them, from what these tests know of the formats alone.

use std::collections::HashMap;

use aes::{
    Aes256,
    cipher::{BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead as _, Payload},
};
use axum_typed_session::{
    cookie::Key,
    time::{OffsetDateTime, format_description::well_known::Rfc3339},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit};
use md5::{Digest as _, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

/// The JSON of koa-session, with an end in an hour.
pub fn koa_json(data: &Value) -> String {
    let mut data = data.clone();
    let hour = 60 * 60 * 1000;
    data["_expire"] = (unix_millis() + hour).into();
    data["_maxAge"] = hour.into();
    data.to_string()
}

fn unix_millis() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

/// The text of a cookie with data.
pub fn in_base64(json: &str) -> String {
    STANDARD.encode(json)
}

/// The signature of keygrip.
pub type OfKoa = Hmac<Sha1>;
/// The signature of egg-cookies.
pub type OfEgg = Hmac<Sha256>;

fn mac<M: hmac::Mac + KeyInit>(key: impl AsRef<[u8]>, text: &str) -> Vec<u8> {
    let mac = <M as KeyInit>::new_from_slice(key.as_ref()).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

/// A cookie and the cookie of its signature.
pub fn signed<M: hmac::Mac + KeyInit>(name: &str, key: &str, value: &str) -> String {
    let pair = format!("{name}={value}");
    format!("{pair}; {name}.sig={}", URL_SAFE_NO_PAD.encode(mac::<M>(key, &pair)))
}

/// The cookie of egg with an encrypted text.
pub fn encrypted_by_egg(key: &str, text: &str) -> String {
    let mut derived = Vec::new();
    let mut last = Vec::new();
    while derived.len() < 48 {
        last = Md5::new().chain_update(&last).chain_update(key).finalize().to_vec();
        derived.extend(&last);
    }
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&derived[..32], &derived[32..]).unwrap();
    let mut sealed = text.as_bytes().to_vec();
    sealed.resize(text.len() + 16, 0);
    let sealed = cipher.encrypt_padded::<Pkcs7>(&mut sealed, text.len()).unwrap();
    format!("EGG_SESS={}", URL_SAFE.encode(sealed))
}

/// The cookie of express-session with an id, as cookie-signature signs it.
pub fn signed_by_express(secret: &str, id: &str) -> String {
    let signature = STANDARD_NO_PAD.encode(mac::<Hmac<Sha256>>(secret, id));
    format!("connect.sid={}", encoded(&format!("s:{id}.{signature}")))
}

/// The row of connect-redis, with an end in an hour.
pub fn row_of_express(data: &Value) -> String {
    let end = OffsetDateTime::now_utc() + std::time::Duration::from_secs(60 * 60);
    let end = end.replace_millisecond(0).unwrap().format(&Rfc3339).unwrap();
    let mut data = data.clone();
    data["cookie"] = json!({
        "originalMaxAge": 3_600_000,
        "expires": end,
        "httpOnly": true,
        "path": "/",
    });
    data.to_string()
}

/// The value of a cookie in a signed jar.
pub fn signed_by_jar(key: &Key, value: &str) -> String {
    STANDARD.encode(mac::<Hmac<Sha256>>(key.signing(), value)) + value
}

/// The value of a cookie in a private jar.
pub fn encrypted_by_jar(key: &Key, name: &str, value: &str) -> String {
    let nonce = rand::random::<[u8; 12]>();
    let cipher = Aes256Gcm::new_from_slice(key.encryption()).unwrap();
    let payload = Payload { msg: value.as_bytes(), aad: name.as_bytes() };
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).unwrap();
    STANDARD.encode([&nonce[..], &sealed].concat())
}

/// The percent-encoding of a value.
pub fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// The id in a cookie of tower-sessions.
pub fn id_of_tower(id: i128) -> String {
    URL_SAFE_NO_PAD.encode(id.to_le_bytes())
}

/// The row of tower-sessions, with an end in an hour.
pub fn row_of_tower(id: i128, data: &Value) -> Vec<u8> {
    let end = OffsetDateTime::now_utc() + std::time::Duration::from_secs(60 * 60);
    let data: HashMap<_, _> = data.as_object().unwrap().iter().collect();
    rmp_serde::to_vec(&(id, data, end)).unwrap()
}
