//! The errors of stores and sessions: their texts, their sources, their answers to the client.

use std::{env, error::Error, fs, io, time::Duration};

use axum::response::IntoResponse;
use axum_typed_session::{SessionError, StoreError, StoreKey};
use http_body_util::BodyExt as _;

use crate::{browser::sentence_of, common::assert_matches, support::traced};

fn broken() -> Box<dyn Error + Send + Sync> {
    Box::new(io::Error::other("connection refused by 10.0.0.7"))
}

fn store_errors() -> [StoreError; 6] {
    [
        StoreError::unavailable(broken()),
        StoreError::Timeout { after: Duration::from_secs(2) },
        StoreError::Full,
        StoreError::Corrupt,
        StoreError::Newer,
        StoreError::Unsupported { operation: "find_by_owner" },
    ]
}

fn session_errors() -> [SessionError; 17] {
    [
        SessionError::Store(StoreError::unavailable(broken())),
        SessionError::Newer,
        SessionError::DuplicateName { carrier: "cookie \"__Host-session\"".to_owned() },
        SessionError::Conflict,
        SessionError::Gone,
        SessionError::TooLarge { actual: 5000, limit: 4096 },
        SessionError::Encode(broken()),
        SessionError::Invalid,
        SessionError::Seal(broken()),
        SessionError::Closed,
        SessionError::IdInUse,
        SessionError::NoStore { operation: "load" },
        SessionError::NotSaved,
        SessionError::OtherType { asked: "shop::Cart", actual: "shop::Login" },
        SessionError::Csrf,
        SessionError::Uncommitted,
        SessionError::Random(broken()),
    ]
}

/// Asserts the form of a text, and that no cause repeats what stands above it.
#[track_caller]
fn expect_form(error: &(dyn Error + 'static)) {
    let text = error.to_string();
    assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "{text}");
    let mut above = error;
    while let Some(source) = above.source() {
        let (outer, inner) = (above.to_string(), source.to_string());
        assert!(!outer.contains(&inner), "{outer} repeats {inner}");
        above = source;
    }
}

/// An error's name and its text.
#[track_caller]
fn line(kind: &str, error: &(impl Error + 'static)) -> String {
    expect_form(error);
    let debug = format!("{error:?}");
    format!("{kind}::{}: {error}", debug.split([' ', '(']).next().unwrap())
}

#[test]
fn texts_name_the_way_out_and_sources_repeat_nothing() {
    let mut lines = Vec::from(store_errors().map(|error| line("StoreError", &error)));
    for error in session_errors() {
        lines.push(format!("{} {}", error.status().as_u16(), line("SessionError", &error)));
    }
    let error = "not base64".parse::<StoreKey>().unwrap_err();
    lines.push(format!("ParseStoreKeyError: {error}"));
    expect_file("error_texts.txt", &lines);
    for error in store_errors() {
        expect_form(&SessionError::Store(error));
    }
}

/// Compares lines to those of a file beside this one, which the variable `UPDATE_TEXTS` has written anew.
#[track_caller]
fn expect_file(name: &str, found: &[String]) {
    let path = format!("{}/tests/api/{name}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("UPDATE_TEXTS").is_some() {
        fs::write(&path, found.join("\n") + "\n").unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    let wanted: Vec<&str> = wanted.lines().collect();
    let missing = wanted.iter().filter(|line| !found.iter().any(|found| found == *line));
    let new = found.iter().filter(|line| !wanted.contains(&line.as_str()));
    let differences =
        missing.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}")));
    let differences: Vec<_> = differences.collect();
    assert!(differences.is_empty(), "not as in {path}:\n{}", differences.join("\n"));
}

#[test]
fn sources_lead_to_the_cause() {
    let error = SessionError::Store(StoreError::unavailable(broken()));
    let store = error.source().unwrap();
    assert_matches!(store.downcast_ref(), Some(StoreError::Unavailable(_)));
    let cause = store.source().unwrap();
    assert_eq!(cause.to_string(), "connection refused by 10.0.0.7");
    assert!(SessionError::Gone.source().is_none());
}

#[test]
fn a_newer_row_is_newer_in_the_error_it_becomes() {
    assert!(matches!(SessionError::from(StoreError::Newer), SessionError::Newer));
    assert!(matches!(SessionError::from(StoreError::Full), SessionError::Store(StoreError::Full)));
}

#[test]
fn clients_learn_the_status_and_nothing_of_the_inside() {
    let errors = session_errors().map(|error| (error.status(), error.into_response()));
    let read = async {
        for (status, response) in errors {
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, sentence_of(status));
        }
    };
    traced(read);
}

#[test]
fn the_operator_learns_the_whole_chain() {
    let error = || SessionError::Store(StoreError::unavailable(broken()));
    let (_, log) = traced(async { error().into_response() });
    let sources = "[the session store is unavailable, connection refused by 10.0.0.7]";
    for part in ["ERROR", "error=the session could not be loaded or stored", sources] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
    let (_, log) = traced(async { SessionError::Conflict.into_response() });
    assert!(log.contains("INFO"), "no alarm over what clients can cause: {log}");
}
