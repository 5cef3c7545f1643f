//! Texts that are parsed: keys of rows, ids in headers of two transports, and keys of the application.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum_typed_session::{
    KeyRing, SessionManager, SessionStore, StoreError, StoreKey, Transport,
    store::{Record, SaveOutcome, Write},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, header};

use super::{Login, block_on, builder, header_bytes, session_of};

/// Base64 of 32 bytes.
const TEXT_LEN: usize = 43;

pub fn run(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    match choice % 4 {
        0 => check_store_key(&String::from_utf8_lossy(text)),
        1 => check_store_key(&URL_SAFE_NO_PAD.encode(text)),
        2 => check_headers(&header_bytes(text.iter().copied())),
        _ => check_keys(&String::from_utf8_lossy(text)),
    }
}

/// Decodes an id in a second way.
fn decoded(text: &[u8]) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A text that parses is the text of the key, and no other text is a key.
fn check_store_key(text: &str) {
    let key: Option<StoreKey> = text.parse().ok();
    assert_eq!(key, decoded(text.as_bytes()).map(StoreKey::from_bytes));
    if let Some(key) = key {
        assert_eq!(key.to_base64url(), text);
        assert_eq!(text.len(), TEXT_LEN);
    }
}

/// A server that reads ids from a header.
struct Node {
    sessions: SessionManager<Login>,
    name: HeaderName,
    scheme: &'static [u8],
    asked: Asked,
}

impl Node {
    fn new(transport: Transport, name: HeaderName, scheme: &'static [u8]) -> Self {
        let asked = Asked::default();
        let sessions = builder().store(asked.clone()).transport(transport).build().unwrap();
        Self { sessions, name, scheme, asked }
    }
}

/// An id reaches the store if a header has its text, behind `Bearer` in one of the two.
fn check_headers(value: &[u8]) {
    thread_local! {
        static NODES: [Node; 2] = [
            Node::new(Transport::bearer(), header::AUTHORIZATION, b"bearer "),
            Node::new(Transport::header("x-id"), HeaderName::from_static("x-id"), b""),
        ];
    }
    NODES.with(|nodes| {
        for Node { sessions, name, scheme, asked } in nodes {
            let trimmed = value.trim_ascii();
            let start = trimmed.get(..scheme.len()).unwrap_or_default();
            let id = trimmed.get(scheme.len()..).filter(|_| start.eq_ignore_ascii_case(scheme));
            let id = id.and_then(|id| decoded(id.trim_ascii()));
            block_on(async {
                let session = session_of(sessions, name, &[value.to_vec()]).await.unwrap();
                assert!(session.is_new());
                session.discard();
            });
            assert_eq!(asked.0.lock().unwrap().drain(..).count(), usize::from(id.is_some()));
        }
    });
}

/// A ring is read from hexadecimal digits alone, 128 or more for each key.
fn check_keys(text: &str) {
    let is_key = |key: &str| {
        let key = key.trim_ascii();
        let is_hex = key.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex && key.len() >= 128 && key.len().is_multiple_of(2)
    };
    match KeyRing::from_hex(text) {
        Ok(_) => assert!(text.split(',').all(is_key), "{text:?}"),
        Err(error) => {
            assert!(!text.split(',').all(is_key), "{text:?}: {error}");
            let is_shown = text.len() >= 16 && error.to_string().contains(text);
            assert!(!is_shown, "{error}");
        }
    }
}

/// A store without sessions that lists what it was asked for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<StoreKey>>>);

#[async_trait]
impl SessionStore for Asked {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.lock().unwrap().push(*key);
        Ok(None)
    }

    async fn save(
        &self,
        _: &StoreKey,
        _: &Record,
        _: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        panic!("a request that only reads saved a session")
    }

    async fn destroy(&self, _: &StoreKey) -> Result<(), StoreError> {
        panic!("a request that only reads ended a session")
    }

    fn survives_restart(&self) -> bool {
        true
    }
}
