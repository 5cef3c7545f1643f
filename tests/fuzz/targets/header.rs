//! The reader of the `Cookie` header. The input is the headers of a request, one a line.
//!
//! A few bytes stand for what a fuzzer would not find by itself: 1 to 4 for the id of a session that exists, 5 for the
//! name of the cookie and `=`, and 6 for an id that no server drew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum_typed_session::{
    SessionManager, SessionStore, StoreError, StoreKey,
    store::{Record, SaveOutcome, Timestamp, Write},
    testing::RecordBuilder,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::Cookie;
use http::header;

use super::{
    COOKIE, Login, NOW, block_on, builder, committed, header_bytes, key_of_id, session_of,
};

/// The sessions that exist. All bytes of an id are its number.
const SESSIONS: u8 = 4;

/// A request looks up no more sessions than this.
const MOST_SESSIONS: usize = 16;

pub fn run(data: &[u8]) {
    thread_local! {
        static NODE: (SessionManager<Login>, Shelf) = {
            let shelf = Shelf::new();
            (builder().store(shelf.clone()).build().unwrap(), shelf)
        };
    }
    let headers: Vec<_> = data.split(|byte| *byte == b'\n').map(expanded).collect();
    NODE.with(|(sessions, shelf)| block_on(check(sessions, shelf, &headers)));
}

fn expanded(line: &[u8]) -> Vec<u8> {
    let text = |byte: u8| match byte {
        1..=SESSIONS => URL_SAFE_NO_PAD.encode([byte; 32]).into_bytes(),
        5 => format!("{COOKIE}=").into_bytes(),
        6 => URL_SAFE_NO_PAD.encode([9; 32]).into_bytes(),
        byte => vec![byte],
    };
    header_bytes(line.iter().flat_map(|byte| text(*byte)))
}

async fn check(sessions: &SessionManager<Login>, shelf: &Shelf, headers: &[Vec<u8>]) {
    let values: Vec<_> = headers.iter().flat_map(|header| values_in(header)).collect();
    agrees_with_the_cookie_crate(headers);
    let mut keys = Vec::new();
    for key in values.iter().filter_map(|value| key_of(value)) {
        if keys.len() < MOST_SESSIONS && !keys.contains(&key) {
            keys.push(key);
        }
    }

    let mut session = session_of(sessions, &header::COOKIE, headers).await.unwrap();
    assert_eq!(shelf.take_loads(), keys);
    // The newest of those that exist; they are numbered by age.
    let newest = (1..=SESSIONS).rev().find(|number| keys.contains(&key_of_id([*number; 32])));
    assert_eq!(session.is_new(), newest.is_none());
    assert_eq!(session.visits, u32::from(newest.unwrap_or_default()));

    session.destroy();
    let headers = committed(session).await.unwrap();
    assert_eq!(headers.contains_key(header::SET_COOKIE), !values.is_empty());
    shelf.take_loads();
}

/// Returns the values of the session cookie in a header, in a second way.
fn values_in(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = format!("{COOKIE}=").into_bytes();
    header.split(|byte| *byte == b';').filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(&*start)?.trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// Asserts that the `cookie` crate reads the same values. It strips spaces beyond ASCII, and before `=`, which would
/// make another cookie of ours, and reads text only.
fn agrees_with_the_cookie_crate(headers: &[Vec<u8>]) {
    let texts = headers.iter().filter(|header| header.is_ascii());
    for text in texts.map(|header| str::from_utf8(header).unwrap()) {
        let cookies = text.split(';').filter_map(|pair| {
            let is_spaced = pair.split('=').next()?.trim_start().ends_with([' ', '\t']);
            let cookie = Cookie::parse(pair).ok().filter(|_| !is_spaced)?;
            (cookie.name() == COOKIE).then(|| cookie.value_trimmed().as_bytes().to_vec())
        });
        assert!(cookies.eq(values_in(text.as_bytes())), "{text:?}");
    }
}

fn key_of(value: &[u8]) -> Option<StoreKey> {
    let id = URL_SAFE_NO_PAD.decode(value).ok()?;
    id.try_into().ok().map(key_of_id)
}

/// A store whose sessions stay as they are, and that lists what it was asked for.
#[derive(Clone)]
struct Shelf {
    records: Arc<HashMap<StoreKey, Record>>,
    loads: Arc<Mutex<Vec<StoreKey>>>,
}

impl Shelf {
    fn new() -> Self {
        let record = |number: u8| {
            let record = RecordBuilder::new()
                .created_at(Timestamp::from_unix_millis(NOW - 1000 + u64::from(number)))
                .expires_at(Timestamp::from_unix_millis(NOW + 1000))
                .payload(format!(r#"{{"user":null,"visits":{number}}}"#));
            (key_of_id([number; 32]), record.build())
        };
        Self { records: Arc::new((1..=SESSIONS).map(record).collect()), loads: Arc::default() }
    }

    fn take_loads(&self) -> Vec<StoreKey> {
        std::mem::take(&mut self.loads.lock().unwrap())
    }
}

#[async_trait]
impl SessionStore for Shelf {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.loads.lock().unwrap().push(*key);
        Ok(self.records.get(key).cloned())
    }

    async fn save(
        &self,
        _: &StoreKey,
        _: &Record,
        _: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        panic!("a request that only ends sessions saved one")
    }

    async fn destroy(&self, _: &StoreKey) -> Result<(), StoreError> {
        Ok(())
    }

    fn survives_restart(&self) -> bool {
        true
    }
}
