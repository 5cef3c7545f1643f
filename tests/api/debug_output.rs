//! `{:?}` of anything public shows no key, no id and no data.

use std::error::Error;

use axum::{Router, response::IntoResponse, routing::post};
use axum_typed_session::{
    Key, KeyRing, MemoryStore, Session, SessionError, SessionId, SessionManager, SessionStore as _,
    StoreError, StoreKey, Transport,
    store::{Cursor, Timestamp},
    testing::{ManualClock, RecordBuilder},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Request;

use crate::{
    logins::{Login, logins},
    support::{key, send},
};

/// The ways in which bytes could leak: hexadecimal, base64 and as a list, whole or in part.
fn spellings(bytes: &[u8]) -> Vec<String> {
    let mut spellings = Vec::new();
    for part in bytes.chunks(12).filter(|part| part.len() == 12) {
        let list = format!("{part:?}");
        spellings.push(list.trim_matches(['[', ']']).to_owned());
        spellings.push(URL_SAFE_NO_PAD.encode(part));
        spellings.push(part.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")));
    }
    spellings
}

#[track_caller]
fn expect_nothing_of(secrets: &[String], shown: &str) {
    let lower = shown.to_lowercase();
    for secret in secrets {
        assert!(!lower.contains(&secret.to_lowercase()), "{secret} is in {shown}");
    }
    for part in ["open-sesame", "lovelace"] {
        assert!(!lower.contains(part), "{part} is in {shown}");
    }
}

fn manager(store: &MemoryStore, clock: &ManualClock) -> SessionManager<Login> {
    let manager = logins(clock).owner(|login: &Login| login.user.clone());
    manager.store(store.clone()).build().unwrap()
}

/// Shows what a handler sees, and tells the id in its own way.
async fn show(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    session.user = Some("ada-lovelace".to_owned());
    session.note = "open-sesame".into();
    let before = format!("{session:?} {:#?}", session.id());
    let commit = session.commit().await?;
    let shown = format!("{before} {commit:?}");
    Ok((commit, shown))
}

async fn show_again(session: Session<Login>) -> Result<String, SessionError> {
    let id: &SessionId = session.id().unwrap();
    let (bytes, handle) = (id.as_bytes(), session.handle()?);
    let loaded = handle.load().await?;
    let shown = format!("{session:#?} {id:?} {handle:?} {loaded:?} {:?}", id.store_key());
    Ok(format!("{} {shown}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[tokio::test]
async fn sessions_ids_managers_and_rows_show_no_id_and_no_data() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let sessions = manager(&store, &clock);
    let app = Router::new()
        .route("/show", post(show))
        .route("/again", post(show_again))
        .with_state(sessions.clone());
    let first = send(&app, Request::post("/show")).await;
    let cookie = first.pair().unwrap();
    let again = send(&app, Request::post("/again").header("cookie", &cookie)).await;
    let (id, shown) = again.body.split_once(' ').unwrap();
    let id = URL_SAFE_NO_PAD.decode(id).unwrap();
    let token = URL_SAFE_NO_PAD.decode(first.token()).unwrap();

    let row = sessions.sessions_of("ada-lovelace").await.unwrap().sessions.remove(0);
    let record = store.load(&row.key()).await.unwrap().unwrap();
    let mut secrets = spellings(&id);
    secrets.extend(spellings(key().as_bytes()));
    secrets.extend(spellings(&token[5..]));
    secrets.extend(spellings(record.payload()));
    // A fingerprint is shown; the whole store key or owner key is not.
    secrets.push(row.key().to_base64url());
    secrets.push(row.key().to_base64url()[16..].to_owned());
    let owner = record.owner().unwrap();
    secrets.extend(spellings(owner.as_bytes()));

    let shown = [
        first.body.clone(),
        shown.to_owned(),
        format!("{sessions:?} {sessions:#?}"),
        format!("{store:?} {row:?} {record:?} {record:#?} {owner:?}"),
        format!("{:?}", logins(&clock)),
        format!("{:?}", first.headers),
    ];
    assert!(first.body.contains("Session"));
    assert!(shown[1].contains("SessionId"));
    for shown in shown {
        expect_nothing_of(&secrets, &shown);
    }
}

#[test]
fn keys_show_no_byte() {
    let (key, next, old) = (Key::generate(), Key::generate(), Key::generate());
    let ring = KeyRing::new(key.clone()).accept_next(next).accept_former(old);
    assert_eq!(format!("{ring:?}"), "KeyRing { keys: 3, .. }");
    let manager = logins(&ManualClock::new()).keys(ring);
    let builder = format!("{manager:?}");
    let shown = format!("{key:?} {key:#?} {builder} {:?}", manager.build());
    expect_nothing_of(&spellings(key.as_bytes()), &shown);
}

#[test]
fn small_values_show_what_helps() {
    let key = StoreKey::from_bytes(std::array::from_fn(|index| u8::try_from(index).unwrap()));
    assert_eq!(format!("{key:?}"), "StoreKey(0001020304050607..)");
    assert_eq!(format!("{:?}", key.fingerprint()), "Fingerprint(0001020304050607)");
    assert_eq!(format!("{:?}", Transport::bearer()), "Transport::bearer()");
}

#[tokio::test]
async fn data_that_does_not_decode_leaves_no_trace_in_errors() {
    let error = SessionError::from(StoreError::Corrupt);
    assert_eq!(format!("{error:?}"), "Store(Corrupt)");
    let shown = format!("{error} {:?}", error.source().map(ToString::to_string));
    let source = "Some(\"the stored session is damaged, or this crate did not write it\")";
    assert_eq!(shown, format!("the session could not be loaded or stored {source}"));
}

#[test]
fn what_is_shown_begins_with_the_name_of_its_type() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone());
    let builder = SessionManager::<Login>::builder().store(MemoryStore::new());
    assert!(format!("{builder:?}").starts_with("SessionManagerBuilder"));
    let sessions = builder.build().unwrap();
    assert!(format!("{sessions:?}").starts_with("SessionManager {"));
    assert!(format!("{:?}", sessions.no_session()).starts_with("SessionCommit"));
    assert!(format!("{store:?}").starts_with("MemoryStoreBuilder { max_bytes: 268435456"));
    assert!(format!("{:?}", store.build()).starts_with("MemoryStore { len: 0, max_bytes"));
    let record = RecordBuilder::new().expires_at(Timestamp::from_unix_millis(5)).build();
    assert!(format!("{record:?}").starts_with("Record { version: Version("));
    assert_eq!(format!("{:?}", record.expires_at()), "Timestamp(5 ms)");
    assert_eq!(format!("{:?}", Cursor::new([1, 2])), "Cursor(2 bytes)");
}
