//! The spellings in which secret bytes could be shown, and the search for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum_typed_session::Key;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use hkdf::Hkdf;
use sha2::Sha256;

/// As many bytes of a secret in a row are found.
const PART: usize = 12;

/// Bytes that nothing may show, and what was shown.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    secrets: Vec<Vec<u8>>,
    shown: Vec<u8>,
}

impl Secrets {
    pub fn add(&self, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= PART, "too short to be told from other texts");
        self.0.lock().unwrap().secrets.push(secret.to_vec());
    }

    /// Adds a text that is searched later.
    pub fn show(&self, text: &str) {
        let shown = &mut self.0.lock().unwrap().shown;
        shown.extend_from_slice(text.as_bytes());
        shown.push(b'\n');
    }

    /// Adds a key and what is derived from it.
    pub fn add_key(&self, key: &Key) {
        self.add(key.as_bytes());
        let hkdf = Hkdf::<Sha256>::new(Some(b"axum-typed-session v1"), key.as_bytes());
        for purpose in ["encrypt", "sign", "row", "owner"] {
            let mut derived = [0; 32];
            hkdf.expand(format!("{purpose} key").as_bytes(), &mut derived).unwrap();
            self.add(derived);
        }
    }

    /// Adds a token, without its first bytes: version and id of the key are no secret.
    pub fn add_token(&self, token: &str) {
        self.add(token.as_bytes().get(8..).unwrap_or_default());
        if let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) {
            self.add(&bytes[8..]);
        }
    }

    /// Adds a hash whose first eight bytes are shown as its fingerprint.
    pub fn add_hash(&self, hash: &[u8; 32]) {
        self.add(&hash[8..]);
    }

    /// Searches all that was shown.
    #[track_caller]
    pub fn expect_silence(&self) {
        let Noted { secrets, shown } = std::mem::take(&mut *self.0.lock().unwrap());
        let mut parts: HashMap<[u8; PART], Vec<Vec<u8>>> = HashMap::new();
        for mut part in secrets.iter().flat_map(|secret| spellings(secret)) {
            part.make_ascii_lowercase();
            parts.entry(*part.first_chunk().unwrap()).or_default().push(part);
        }
        let shown = shown.to_ascii_lowercase();
        assert!(!secrets.is_empty() && !shown.is_empty());
        for at in 0..shown.len() {
            let rest = &shown[at..];
            let starts = rest.first_chunk().and_then(|start| parts.get(start));
            if let Some(part) = starts.into_iter().flatten().find(|part| rest.starts_with(part)) {
                let place = &shown[at.saturating_sub(200)..(at + 100).min(shown.len())];
                let [part, place] = [part, place].map(String::from_utf8_lossy);
                panic!("{part} is in {place}");
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Returns the ways in which a secret could be shown, in parts, of which any whole secret shows at least one.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = Vec::new();
    for part in secret.chunks_exact(PART) {
        spellings.push(part.to_vec());
        spellings.push(hex(part).into_bytes());
        spellings.push(part.escape_ascii().to_string().into_bytes());
        let list = format!("{part:?}");
        spellings.push(list.trim_matches(['[', ']']).as_bytes().to_vec());
    }
    // The characters of base64 depend on the place of a byte among three.
    for start in 0..3 {
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&secret[start..]).into_bytes();
            spellings.extend(text.chunks_exact(PART + 2).map(<[u8]>::to_vec));
        }
    }
    spellings
}

#[test]
fn a_secret_is_found_however_it_is_shown() {
    let secret: Vec<u8> = (b' '..b'z').collect();
    for (shown, is_found) in [
        (String::from_utf8(secret.clone()).unwrap(), true),
        (format!("{secret:?}"), true),
        (format!("id={}", hex(&secret).to_uppercase()), true),
        (format!("{:?}", bytes::Bytes::from(secret.clone())), true),
        (STANDARD_NO_PAD.encode(&secret), true),
        (URL_SAFE_NO_PAD.encode([&[1], &*secret].concat()), true),
        (URL_SAFE_NO_PAD.encode([&[1, 2], &*secret].concat()), true),
        ("nothing of the kind".to_owned(), false),
    ] {
        let secrets = Secrets::default();
        secrets.add(&secret);
        secrets.show(&shown);
        let found = std::panic::catch_unwind(|| secrets.expect_silence());
        assert_eq!(found.is_err(), is_found, "{shown}");
    }
}
