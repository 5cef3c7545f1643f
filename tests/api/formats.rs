//! The tokens and rows of `tests/common/formats.txt`, which every later version has to open.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{Router, extract::RawQuery, response::IntoResponse, routing::get};
use axum_typed_session::{
    Clock as _, Key, MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder,
    SessionStore as _, StoreKey, StoredSession,
    store::{SaveOutcome, Write},
    testing::ManualClock,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;

use crate::{
    common::formats::{Row, entries, entry, line_of, rows, then, tokens},
    logins::{FRESH, Login, logins, router, since_start, without_keys},
    support::{Answer, Browser, COOKIE, EventLog, SECOND},
};

type Builder = SessionManagerBuilder<Login>;

/// The key of the file; public, so of no other use.
fn golden_key() -> Key {
    let bytes: Vec<u8> = (0..64).map(|index: u8| index.wrapping_mul(37) ^ 0x5a).collect();
    Key::try_from(&*bytes).unwrap()
}

fn owned(builder: Builder) -> Builder {
    builder.owner(|login: &Login| login.user.clone())
}

fn golden(clock: &ManualClock) -> Builder {
    owned(logins(clock).keys(golden_key()))
}

fn app(builder: Builder) -> Router {
    app_of(builder.build().unwrap())
}

fn app_of(sessions: SessionManager<Login>) -> Router {
    let csrf = get(csrf_token).post(verify_csrf);
    router(sessions.clone()).merge(Router::new().route("/csrf", csrf).with_state(sessions))
}

async fn csrf_token(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let token = session.csrf_token()?;
    Ok((session.commit().await?, token))
}

async fn verify_csrf(
    RawQuery(token): RawQuery,
    session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    session.verify_csrf(&token.unwrap_or_default())?;
    Ok((session.commit().await?, "verified"))
}

/// Bytes for the ids of a manager: 32 times 7, then 32 times 8, and so on.
fn numbered(builder: Builder) -> Builder {
    let next = AtomicU8::new(7);
    builder.id_generator(move |_| [next.fetch_add(1, Ordering::Relaxed); 32])
}

/// Asserts that a session is the one that all entries hold: of `ada`, with the note `golden` and an idle timeout of
/// its own, so that every field of a record is in use. Then changes it.
async fn is_golden(app: Router, clock: &ManualClock, token: &str) -> Answer {
    let made_at = since_start(then().now());
    let ends_at = |millis| format!("{made_at} {}", made_at + millis);
    clock.advance(10 * SECOND);
    let mut browser = with(app, token);
    browser.get("/").await.expect(StatusCode::OK, "golden");
    browser.get("/times").await.expect(StatusCode::OK, &ends_at(3_600_000));
    let saved = browser.post("/note?later").await.expect(StatusCode::OK, "later");
    browser.get("/").await.expect(StatusCode::OK, "later");
    browser.get("/times").await.expect(StatusCode::OK, &ends_at(3_610_000));
    saved
}

fn with(app: Router, token: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser.jar.insert(COOKIE.to_owned(), token.to_owned());
    browser
}

#[tokio::test]
async fn tokens_with_data_open_forever() {
    for signed in [false, true] {
        for token in tokens(if signed { " signed data" } else { " encrypted data" }) {
            let clock = then();
            let saved = is_golden(app(golden(&clock).signed(signed)), &clock, token).await;
            assert_eq!(saved.max_age(), Some(3600), "an idle timeout of its own");
        }
    }
}

#[tokio::test]
async fn a_session_has_the_store_key_it_always_had() {
    for (name, token, id) in [
        ("signed data", "token 2 signed data", "id 2 signed data"),
        ("encrypted id", "token 2 encrypted id", "id 2 fixed"),
    ] {
        let clock = then();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let builder = match name {
            "signed data" => golden(&clock).signed(true),
            _ => golden(&clock).store(with_rows(store, &rows("4 plain")).await),
        };
        let mut browser = with(app(builder), entry(token));
        browser.get("/id").await.expect(StatusCode::OK, entry(id));
    }
}

async fn with_rows(store: MemoryStore, rows: &[Row]) -> MemoryStore {
    for row in rows {
        let saved = store.save(&row.key, &row.record(), Write::Create).await;
        assert_eq!(saved.unwrap(), SaveOutcome::Saved, "{}", row.name);
    }
    store
}

/// Managers with a store that find the session of a row, and their tokens.
fn readers(row: &Row, clock: &ManualClock) -> Vec<(Builder, &'static str)> {
    let bare = || owned(without_keys(clock));
    let of_0_1 = entry("id 1").split_once(' ').unwrap().1;
    match row.format() {
        // 0.1 had the name of the cookie as its kind.
        1 => vec![(bare().kind(COOKIE), of_0_1)],
        // Owners were hashed without a key.
        2 => tokens(" plain id").into_iter().map(|token| (bare(), token)).collect(),
        _ => {
            let encrypted = tokens(" encrypted id").into_iter();
            let signed = tokens(" signed id").into_iter();
            let encrypted = encrypted.map(|token| (golden(clock), token));
            encrypted.chain(signed.map(|token| (golden(clock).signed(true), token))).collect()
        }
    }
}

#[tokio::test]
async fn rows_of_every_format_open_forever_and_are_saved_in_the_newest() {
    let newest = rows(" plain").iter().map(Row::format).max().unwrap();
    for row in [rows(" plain"), rows(" sealed")].concat() {
        for number in 0..readers(&row, &then()).len() {
            let clock = then();
            let store = MemoryStore::builder().clock(clock.clone()).build();
            let store = Arc::new(with_rows(store, std::slice::from_ref(&row)).await);
            let (builder, token) = readers(&row, &clock).swap_remove(number);
            let is_sealed = row.name.ends_with("sealed");
            let sessions = builder.store(store.clone()).encrypt_rows(is_sealed).build().unwrap();
            let owned = sessions.sessions_of("ada").await.unwrap();
            assert_eq!(owned.iter().map(StoredSession::key).collect::<Vec<_>>(), [row.key]);

            is_golden(app_of(sessions), &clock, token).await.expect_no_cookie();
            let saved = store.load(&row.key).await.unwrap().unwrap();
            assert_eq!(saved.to_bytes()[0], newest, "{}", row.name);
            assert_eq!(saved.owner(), row.record().owner(), "{}", row.name);
            let is_readable = saved.payload().windows(5).any(|part| part == b"later");
            assert_eq!(is_readable, !is_sealed, "{}", row.name);
        }
    }
}

/// A user who signs out with an id that was replaced a moment ago.
#[tokio::test]
async fn marks_of_replaced_ids_lead_to_the_session_forever() {
    for mark in rows(" replaced") {
        let (clock, log) = (then(), EventLog::default());
        let successors = rows(" successor");
        let successor = successors.iter().find(|row| row.format() == mark.format()).unwrap();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let store = with_rows(store, &[mark.clone(), successor.clone()]).await;
        let sessions = golden(&clock).store(store.clone()).on_event(log.hook()).build().unwrap();
        let mut browser = with(app_of(sessions.clone()), tokens(" encrypted id")[0]);
        browser.get("/").await.expect(StatusCode::OK, FRESH);
        assert_eq!(log.take(), ["revoked"]);
        assert_eq!(sessions.sessions_of("ada").await.unwrap().len(), 1);
        browser.post("/destroy").await.expect_status(StatusCode::OK);
        assert!(sessions.sessions_of("ada").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn entries_of_the_revocation_list_revoke_forever() {
    for row in rows(" revocation") {
        let (clock, log) = (then(), EventLog::default());
        let list = MemoryStore::builder().clock(clock.clone()).build();
        let list = with_rows(list, &[row]).await;
        let app = app(golden(&clock).revocations(list).on_event(log.hook()));
        let mut browser = with(app, entry("token 2 encrypted data"));
        browser.get("/").await.expect(StatusCode::OK, FRESH);
        assert_eq!(log.take(), ["revoked"]);
    }
}

/// Pages stay open while a new version is rolled out.
#[tokio::test]
async fn the_csrf_token_of_a_session_stays() {
    let mut browser = with(app(golden(&then())), entry("token 2 encrypted data"));
    let token = entry("csrf encrypted data");
    browser.get("/csrf").await.expect(StatusCode::OK, token);
    browser.post(&format!("/csrf?{token}")).await.expect(StatusCode::OK, "verified");
}

#[tokio::test]
async fn tokens_of_0_1_start_a_fresh_session() {
    for signed in [false, true] {
        let (clock, log) = (then(), EventLog::default());
        let mode = if signed { "signed" } else { "encrypted" };
        let app = app(golden(&clock).signed(signed).kind(COOKIE).on_event(log.hook()));
        let answer = with(app, entry(&format!("token 1 {mode} data"))).get("/").await;
        answer.expect(StatusCode::OK, FRESH).expect_no_cookie();
        assert_eq!(log.take(), ["invalid_token"]);
    }
}

/// Begins the session that all entries hold.
async fn begin(app: Router) -> Browser {
    let mut browser = Browser::new(app);
    for path in ["/user?ada", "/note?golden", "/max-age?3600"] {
        browser.post(path).await.expect_status(StatusCode::OK);
    }
    browser
}

async fn key_and_id(browser: &mut Browser) -> (StoreKey, String) {
    let both = browser.get("/id").await.body;
    (both.split_once(' ').unwrap().0.parse().unwrap(), both)
}

/// The lines of the file, as this version writes them.
async fn written_today() -> Vec<String> {
    let clock = then();
    let fresh = || MemoryStore::builder().clock(clock.clone()).build();
    let mut lines = Vec::new();
    for signed in [false, true] {
        let mode = if signed { "signed" } else { "encrypted" };
        for content in ["data", "id"] {
            let builder = golden(&clock).signed(signed);
            let builder = if content == "id" { numbered(builder).store(fresh()) } else { builder };
            let mut browser = begin(app(builder)).await;
            let token = browser.token();
            let version = URL_SAFE_NO_PAD.decode(&token).unwrap()[0];
            lines.push(format!("token {version} {mode} {content}: {token}"));
            let (_, id) = key_and_id(&mut browser).await;
            lines.push(format!("id {version} {mode} {content}: {id}"));
        }
    }
    let store = fresh();
    let token = begin(app(numbered(owned(without_keys(&clock))).store(store))).await.token();
    lines.push(format!("token 0 plain id: {token}"));
    for is_sealed in [false, true] {
        let store = fresh();
        let builder = numbered(golden(&clock)).store(store.clone()).encrypt_rows(is_sealed);
        let mut browser = begin(app(builder)).await;
        let (key, _) = key_and_id(&mut browser).await;
        let row = store.load(&key).await.unwrap().unwrap();
        lines.push(line_of(if is_sealed { "sealed" } else { "plain" }, &key, &row));
        if !is_sealed {
            browser.post("/regenerate").await.expect_status(StatusCode::OK);
            let (next, _) = key_and_id(&mut browser).await;
            for (what, key) in [("replaced", key), ("successor", next)] {
                lines.push(line_of(what, &key, &store.load(&key).await.unwrap().unwrap()));
            }
        }
    }
    let list = fresh();
    let app = app(golden(&clock).revocations(list.clone()));
    let mut browser = with(app, entry("token 2 encrypted data"));
    let (key, _) = key_and_id(&mut browser).await;
    let token = browser.get("/csrf").await.body;
    lines.push(format!("csrf encrypted data: {token}"));
    browser.post("/destroy").await.expect_status(StatusCode::OK);
    lines.push(line_of("revocation", &key, &list.load(&key).await.unwrap().unwrap()));
    lines
}

/// A version that writes another format adds its lines to the file, and leaves the lines that are there.
#[tokio::test]
async fn what_this_version_writes_has_entries() {
    let written = written_today().await;
    let is_known = |line: &str| {
        let name = line.split_once(": ").unwrap().0;
        name.starts_with("id ") || entries().any(|(known, _)| known == name)
    };
    let missing: Vec<_> = written.into_iter().filter(|line| !is_known(line)).collect();
    assert!(missing.is_empty(), "add to tests/common/formats.txt:\n{}", missing.join("\n"));
}

/// A change of the layout is a new format, also where this version reads what it writes.
#[test]
fn the_newest_rows_are_written_as_they_were() {
    let newest = rows(" plain").iter().map(Row::format).max().unwrap();
    for end in [" plain", " sealed", " replaced", " successor", " revocation"] {
        let newest: Vec<_> = rows(end).into_iter().filter(|row| row.format() == newest).collect();
        assert_eq!(newest.len(), 1, "{end}");
        for row in newest {
            assert_eq!(row.record().to_bytes(), row.data(), "{}", row.name);
        }
    }
}
