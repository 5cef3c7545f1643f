//! The same work without a library: what a handler would do by hand with the same encryption, JSON and base64.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    response::{AppendHeaders, IntoResponse},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, header};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use xaes_256_gcm::{
    Xaes256Gcm,
    aead::{AeadInOut as _, KeyInit as _},
};

use crate::shopper::Shopper;

const NAME: &str = "__Host-session=";

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let cookies = headers.get(header::COOKIE)?.as_bytes();
    let pairs = cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii_start);
    pairs.filter_map(|pair| pair.strip_prefix(NAME.as_bytes())).next()
}

fn set(token: &str) -> AppendHeaders<[(HeaderName, String); 2]> {
    let cookie = format!("{NAME}{token}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=86400");
    AppendHeaders([(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store".to_owned())])
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

const DAY: u64 = Duration::from_secs(24 * 60 * 60).as_millis() as u64;

type Cipher = Arc<Xaes256Gcm>;

/// Nonce, expiry and JSON, and the tag.
fn seal(cipher: &Xaes256Gcm, shopper: &Shopper) -> String {
    let mut token = Vec::with_capacity(512);
    let nonce: [u8; 24] = random();
    token.extend_from_slice(&nonce);
    token.extend_from_slice(&(now() + DAY).to_be_bytes());
    serde_json::to_writer(&mut token, shopper).unwrap();
    let text = (&mut token[24..]).into();
    let tag = cipher.encrypt_inout_detached(&nonce.into(), b"", text).unwrap();
    token.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(&token)
}

fn open(cipher: &Xaes256Gcm, token: &[u8]) -> Option<Shopper> {
    let mut token = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (nonce, rest) = token.split_first_chunk_mut::<24>()?;
    let (text, tag) = rest.split_last_chunk_mut::<16>()?;
    let (nonce, tag) = ((&*nonce).into(), (&*tag).into());
    cipher.decrypt_inout_detached(nonce, b"", (&mut *text).into(), tag).ok()?;
    let (expires_at, json) = text.split_first_chunk()?;
    (u64::from_be_bytes(*expires_at) > now()).then(|| serde_json::from_slice(json).ok())?
}

fn opened(cipher: &Xaes256Gcm, headers: &HeaderMap) -> Shopper {
    token(headers).and_then(|token| open(cipher, token)).unwrap_or_default()
}

pub fn in_cookie() -> Router {
    let cipher: Cipher = Arc::new(Xaes256Gcm::new(&[7; 32].into()));
    let read =
        async |State(cipher): State<Cipher>, headers: HeaderMap| opened(&cipher, &headers).user;
    let write = async |State(cipher): State<Cipher>, headers: HeaderMap| {
        let mut shopper = opened(&cipher, &headers);
        shopper.count += 1;
        (set(&seal(&cipher, &shopper)), "hello")
    };
    let fill = async |State(cipher): State<Cipher>| (set(&seal(&cipher, &Shopper::ann())), "hello");
    Router::new()
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/fill", get(fill))
        .with_state(cipher)
}

/// The hash of an id, and expiry and JSON.
type Rows = Arc<Mutex<HashMap<[u8; 32], (u64, Vec<u8>)>>>;

fn key(token: &[u8]) -> Option<[u8; 32]> {
    let id = URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(Sha256::digest(id).into())
}

fn found(rows: &Rows, headers: &HeaderMap) -> Option<([u8; 32], Shopper)> {
    let key = key(token(headers)?)?;
    let (expires_at, json) = rows.lock().unwrap().get(&key)?.clone();
    (expires_at > now()).then(|| Some((key, serde_json::from_slice(&json).ok()?)))?
}

fn stored(rows: &Rows, key: [u8; 32], shopper: &Shopper) {
    let json = serde_json::to_vec(shopper).unwrap();
    rows.lock().unwrap().insert(key, (now() + DAY, json));
}

fn created(rows: &Rows, shopper: &Shopper) -> impl IntoResponse + use<> {
    // As ids should be, from the operating system.
    let mut id = [0; 32];
    getrandom::fill(&mut id).unwrap();
    let token = URL_SAFE_NO_PAD.encode(id);
    stored(rows, key(token.as_bytes()).unwrap(), shopper);
    (set(&token), "hello")
}

pub fn in_memory() -> Router {
    let read = async |State(rows): State<Rows>, headers: HeaderMap| {
        found(&rows, &headers).map(|(_, shopper)| shopper.user).unwrap_or_default()
    };
    let write = async |State(rows): State<Rows>, headers: HeaderMap| {
        if let Some((key, mut shopper)) = found(&rows, &headers) {
            shopper.count += 1;
            stored(&rows, key, &shopper);
            "hello".into_response()
        } else {
            created(&rows, &Shopper { count: 1, ..Shopper::default() }).into_response()
        }
    };
    let fill = async |State(rows): State<Rows>| created(&rows, &Shopper::ann());
    Router::new()
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/fill", get(fill))
        .with_state(Rows::default())
}
