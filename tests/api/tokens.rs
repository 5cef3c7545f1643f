//! What a client holds: unreadable, unchangeable, of use for one purpose, and only for a while.

use std::time::Duration;

use axum::Router;
use axum_typed_session::{
    Key, MemoryStore, SessionManagerBuilder, Transport, cookie::Cookie, testing::ManualClock,
    time::OffsetDateTime,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, Request, StatusCode, header};

use crate::{
    browser::sentence_of,
    forge::{Plaintext, signed_token},
    logins::{FRESH, Login, app, issue, logins, without_keys},
    support::{Answer, COOKIE, DAY, EventLog, MILLISECOND, get_with_cookies, key, send},
};

type Builder = SessionManagerBuilder<Login>;

async fn read_cookie(app: &Router, token: &str) -> Answer {
    get_with_cookies(app, &format!("{COOKIE}={token}")).await
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn an_encrypted_token_shows_nothing_of_the_data() {
    let clock = ManualClock::new();
    let token = issue(&app(logins(&clock)), "open-sesame").await.token();
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for part in ["open-sesame", "sesame", "note", "user"] {
        assert!(!token.contains(part) && !contains(&bytes[29..], part.as_bytes()), "{part}");
    }
}

#[tokio::test]
async fn a_signed_token_is_readable() {
    let clock = ManualClock::new();
    let token = issue(&app(logins(&clock).signed(true)), "open-sesame").await.token();
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    assert!(contains(&bytes, br#"{"user":null,"note":"open-sesame"}"#));
}

#[tokio::test]
async fn two_tokens_of_the_same_data_have_nothing_in_common_but_version_and_key_id() {
    let app = app(logins(&ManualClock::new()));
    let (one, other) = (issue(&app, "same").await, issue(&app, "same").await);
    let [one, other] = [one, other].map(|answer| URL_SAFE_NO_PAD.decode(answer.token()).unwrap());
    assert_eq!(one[..5], other[..5]);
    let equal = one[5..].iter().zip(&other[5..]).filter(|(a, b)| a == b);
    assert!(equal.count() < 16);
}

/// Every way to damage a token that has a name. `other` is another authentic token of the same manager.
fn damaged(token: &str, other: &str) -> Vec<String> {
    let mut tokens: Vec<String> = (0..token.len()).map(|end| token[..end].to_owned()).collect();
    for index in 0..token.len() {
        let other = if token.as_bytes()[index] == b'A' { "B" } else { "A" };
        tokens.push([&token[..index], other, &token[index + 1..]].concat());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << bit;
            tokens.push(URL_SAFE_NO_PAD.encode(flipped));
        }
    }
    // Among others a tag of zeros, and the nonce, the text or the tag of another token.
    tokens.extend(mixtures(&bytes, &vec![0; bytes.len()]));
    tokens.extend(mixtures(&bytes, &URL_SAFE_NO_PAD.decode(other).unwrap()));
    for end in ["A", "AA", "AAA", "AAAA", "=", "==", ".", "!", "\u{7e}"] {
        tokens.push(format!("{token}{end}"));
        tokens.push(format!("{end}{token}"));
    }
    tokens.push(format!("{token}{token}"));
    tokens
}

/// One token with bytes of the other in any place: its nonce, its text, its tag, all of these, or parts of them.
fn mixtures(one: &[u8], other: &[u8]) -> Vec<String> {
    assert_eq!(one.len(), other.len());
    let mut mixtures = Vec::new();
    for length in [1, 16, 24, 32, one.len()] {
        for start in 0..one.len() {
            let end = (start + length).min(one.len());
            let mut mixture = one.to_vec();
            mixture[start..end].copy_from_slice(&other[start..end]);
            if mixture != one && mixture != other {
                mixtures.push(URL_SAFE_NO_PAD.encode(mixture));
            }
        }
    }
    mixtures
}

#[tokio::test]
async fn every_damaged_token_gets_the_same_answer_a_fresh_session_and_one_event() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let managers: [(&str, Builder); 5] = [
        ("encrypted data", logins(&clock)),
        ("signed data", logins(&clock).signed(true)),
        ("encrypted id", logins(&clock).store(store.clone())),
        ("signed id", logins(&clock).signed(true).store(store.clone())),
        ("plain id", without_keys(&clock).store(store)),
    ];
    for (name, manager) in managers {
        let log = EventLog::default();
        let app = app(manager.on_event(log.hook()));
        let (token, other) = (issue(&app, "mine").await.token(), issue(&app, "hers").await.token());
        read_cookie(&app, &token).await.expect(StatusCode::OK, "mine");
        log.take();
        let expected = read_cookie(&app, "never-issued").await;
        assert_eq!((expected.status, &*expected.body), (StatusCode::OK, FRESH));
        log.take();
        for damaged in damaged(&token, &other) {
            let answer = read_cookie(&app, &damaged).await;
            assert_eq!(answer.body, expected.body, "{name}: {damaged} of {token}");
            assert_eq!(answer.status, expected.status, "{name}");
            assert_eq!(answer.headers, expected.headers, "{name}");
            let events = log.take();
            let known = ["invalid_token", "unknown_key", "missed"];
            assert!(
                matches!(events[..], [event] if known.contains(&event)),
                "{name}: {events:?} for {damaged:?} of {token}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_opens_only_for_what_it_was_made_for() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let header = |name| Transport::header(HeaderName::from_static(name));
    let custom = Transport::custom(
        |parts| Some(parts.headers.get("x-session")?.to_str().ok()?.to_owned()),
        |headers, token| {
            headers.insert("x-session", token.unwrap_or_default().parse().unwrap());
        },
    );
    let managers: Vec<(&str, Builder)> = vec![
        ("encrypted", logins(&clock)),
        ("signed", logins(&clock).signed(true)),
        ("another key", logins(&clock).keys(Key::generate())),
        ("another kind", logins(&clock).kind("admin")),
        ("another audience", logins(&clock).audience("other-app")),
        ("another cookie", logins(&clock).cookie(Cookie::new("__Host-other", ""))),
        ("bearer", logins(&clock).transport(Transport::bearer())),
        ("header", logins(&clock).transport(header("x-session"))),
        ("another header", logins(&clock).transport(header("x-other"))),
        ("custom", logins(&clock).transport(custom)),
        ("id", logins(&clock).store(store.clone())),
        ("signed id", logins(&clock).signed(true).store(store.clone())),
        ("id of another kind", logins(&clock).store(store.clone()).kind("admin")),
        ("plain id", without_keys(&clock).store(store)),
    ];
    let mut apps = Vec::new();
    for (name, manager) in managers {
        let log = EventLog::default();
        let app = app(manager.on_event(log.hook()));
        let answer = issue(&app, "mine").await;
        let mut headers = ["x-session", "x-other", "x-session-token"].into_iter();
        let in_header = headers.find_map(|name| answer.header(name));
        let token = in_header.unwrap_or_else(|| answer.token());
        log.take();
        apps.push((name, app, log, token));
    }
    for (made_by, _, _, token) in &apps {
        for (read_by, app, log, _) in &apps {
            // In every place at once: each manager looks into its own.
            let request = Request::get("/")
                .header(header::COOKIE, format!("{COOKIE}={token}; __Host-other={token}"))
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .header("x-session", token)
                .header("x-other", token);
            let answer = send(app, request).await;
            let events = log.take();
            if made_by == read_by {
                assert_eq!((&*answer.body, &events[..]), ("mine", &[][..]), "{made_by}");
            } else {
                assert_eq!(answer.body, FRESH, "{made_by} read by {read_by}");
                assert!(
                    matches!(events[..], ["invalid_token" | "unknown_key"]),
                    "{made_by} read by {read_by}: {events:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_valid_until_its_last_millisecond() {
    for signed in [false, true] {
        let (clock, log) = (ManualClock::new(), EventLog::default());
        let manager = logins(&clock).on_event(log.hook());
        let app = app(if signed { manager.signed(true) } else { manager });
        let token = issue(&app, "mine").await.token();
        log.take();
        clock.advance(DAY.checked_sub(MILLISECOND).unwrap());
        read_cookie(&app, &token).await.expect(StatusCode::OK, "mine");
        assert!(log.take().is_empty());
        clock.advance(MILLISECOND);
        let answer = read_cookie(&app, &token).await;
        answer.expect(StatusCode::OK, FRESH).expect_no_cookie();
        assert_eq!(log.take(), ["expired"]);
    }
}

#[tokio::test]
async fn a_token_from_the_future_is_accepted_up_to_sixty_seconds_of_clock_skew() {
    for (ahead, body, event) in [(60_000, "mine", None), (60_001, FRESH, Some("invalid_token"))] {
        let (here, there) = (ManualClock::new(), ManualClock::new());
        there.advance(Duration::from_millis(ahead));
        let token = issue(&app(logins(&there)), "mine").await.token();
        let log = EventLog::default();
        let app = app(logins(&here).on_event(log.hook()));
        read_cookie(&app, &token).await.expect(StatusCode::OK, body);
        assert_eq!(log.take(), Vec::from_iter(event));
    }
}

#[tokio::test]
async fn clock_skew_sets_how_far_ahead_another_node_may_be() {
    for (skew, ahead, body) in
        [(0, 0, "mine"), (0, 1, FRESH), (5_000, 5_000, "mine"), (5_000, 5_001, FRESH)]
    {
        let (here, there) = (ManualClock::new(), ManualClock::new());
        there.advance(Duration::from_millis(ahead));
        let token = issue(&app(logins(&there)), "mine").await.token();
        let app = app(logins(&here).clock_skew(Duration::from_millis(skew)));
        read_cookie(&app, &token).await.expect(StatusCode::OK, body);
    }
}

/// The moment at which the tokens were made.
const MADE_AT: u64 = 1_767_225_600_000;

fn then() -> ManualClock {
    ManualClock::at(OffsetDateTime::UNIX_EPOCH + Duration::from_millis(MADE_AT))
}

const PLAINTEXT: Plaintext = Plaintext {
    issued_at: MADE_AT,
    expires_at: MADE_AT + 1000,
    format: 4,
    flags: 0,
    codec: 1,
    schema: 1,
    payload: br#"{"user":null,"note":"forged"}"#,
};

#[tokio::test]
async fn authentic_tokens_with_contents_no_server_writes_start_a_fresh_session() {
    let (old, bad) = ((StatusCode::OK, FRESH), "invalid_token");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let unavailable = (status, sentence_of(status));
    let whole = PLAINTEXT.bytes();
    let with = |change: fn(&mut Plaintext)| {
        let mut plaintext = PLAINTEXT.clone();
        change(&mut plaintext);
        plaintext.bytes()
    };
    let cases = [
        ("as it should be", whole.clone(), (StatusCode::OK, "forged"), None),
        ("nothing", Vec::new(), old, Some(bad)),
        ("an id alone", whole[..16].to_vec(), old, Some(bad)),
        ("no record", whole[..28].to_vec(), old, Some(bad)),
        ("half a record", whole[..40].to_vec(), old, Some(bad)),
        ("format 0", with(|text| text.format = 0), old, Some(bad)),
        ("format 1", with(|text| text.format = 1), (StatusCode::OK, "forged"), None),
        ("an unknown flag", with(|text| text.flags = 64), old, Some(bad)),
        (
            "an epoch that is not there",
            with(|text| (text.flags, text.payload) = (16, b"")),
            old,
            Some(bad),
        ),
        (
            "a max-age that is not there",
            with(|text| (text.flags, text.payload) = (4, b"")),
            old,
            Some(bad),
        ),
        ("data that is no JSON", with(|text| text.payload = b"x"), old, Some("corrupt")),
        ("a tombstone", with(|text| text.flags = 1), old, Some("revoked")),
        ("another codec", with(|text| text.codec = 2), old, Some("corrupt")),
        ("data of another type", with(|text| text.payload = b"{}"), old, Some("corrupt")),
        ("expired", with(|text| text.expires_at = MADE_AT), old, Some("expired")),
        (
            "expired and of a newer schema",
            with(|text| (text.expires_at, text.schema) = (MADE_AT, 2)),
            old,
            Some("expired"),
        ),
        (
            "expired and of a newer format",
            with(|text| (text.expires_at, text.format) = (MADE_AT, 5)),
            old,
            Some(bad),
        ),
        ("a newer schema", with(|text| text.schema = 2), unavailable, Some("newer")),
        ("a newer record format", with(|text| text.format = 5), unavailable, Some("newer")),
    ];
    let log = EventLog::default();
    let app = app(logins(&then()).signed(true).on_event(log.hook()));
    for (name, plaintext, (status, body), event) in cases {
        let answer = read_cookie(&app, &signed_token(&key(), &plaintext)).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{name}");
        assert_eq!(log.take(), Vec::from_iter(event), "{name}");
        answer.expect_no_cookie();
    }
}

/// A client could make a server decode and check a whole header of 64 KiB otherwise.
#[tokio::test]
async fn a_token_longer_than_any_that_is_sent_is_not_opened() {
    let log = EventLog::default();
    let app = app(logins(&then()).signed(true).on_event(log.hook()));
    let token_of = |length: usize| {
        let payload = format!(r#"{{"user":null,"note":"{}"}}"#, "x".repeat(length));
        let payload = Vec::leak(payload.into_bytes());
        signed_token(&key(), &Plaintext { payload, ..PLAINTEXT }.bytes())
    };
    let longest = (0..4096).rev().find(|length| token_of(*length).len() <= 4096).unwrap();
    let opened = read_cookie(&app, &token_of(longest)).await;
    opened.expect(StatusCode::OK, &"x".repeat(longest));
    assert_eq!(log.take(), [""; 0]);
    read_cookie(&app, &token_of(longest + 1)).await.expect(StatusCode::OK, FRESH);
    assert_eq!(log.take(), ["invalid_token"]);
}
