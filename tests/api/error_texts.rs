//! The four errors: their texts, their sources, their answers to the client.

use std::{error::Error, io, time::Duration};

use axum::response::IntoResponse;
use axum_typed_session::{ConfigError, SessionError, SessionRejection, StoreError, StoreKey};
use http::StatusCode;
use http_body_util::BodyExt as _;

use crate::support::{Answer, traced};

fn broken() -> Box<dyn Error + Send + Sync> {
    Box::new(io::Error::other("connection refused by 10.0.0.7"))
}

fn store_errors() -> [(StoreError, &'static str); 6] {
    let (after, operation) = (Duration::from_secs(2), "find_by_owner");
    [
        (StoreError::unavailable(broken()), "the session store is unavailable"),
        (
            StoreError::Timeout { after },
            "the session store did not answer within 2s (`store_timeout`); whether a write took effect is \
             unknown",
        ),
        (
            StoreError::Full,
            "the session store is full; raise its capacity or shorten `anonymous_ttl`",
        ),
        (StoreError::Corrupt, "the stored session is unreadable"),
        (StoreError::Newer, "the stored session has a newer record format; upgrade this node"),
        (
            StoreError::Unsupported { operation },
            "this session store does not support `find_by_owner`",
        ),
    ]
}

fn rejections() -> [(SessionRejection, u16, &'static str); 3] {
    let carrier = "cookie \"__Host-session\"".to_owned();
    [
        (SessionRejection::Store(StoreError::Full), 503, "the session could not be loaded"),
        (
            SessionRejection::Newer,
            503,
            "the session was written by a newer version; finish the rollout, or accept it first with \
             `accept_schema`",
        ),
        (
            SessionRejection::SharedName { carrier },
            500,
            "two session managers of one request use the cookie \"__Host-session\"; give one of them another \
             name with `.cookie(..)`",
        ),
    ]
}

fn session_errors() -> [(SessionError, u16, &'static str); 14] {
    let (actual, limit, operation) = (5000, 4096, "load");
    [
        (
            SessionError::Store(StoreError::unavailable(broken())),
            503,
            "the session could not be stored",
        ),
        (
            SessionError::Conflict,
            409,
            "another request changed the same session data; repeat the request, change it through `update`, \
             or choose another `on_conflict`",
        ),
        (SessionError::Gone, 409, "the session has ended or was given a new id by another request"),
        (
            SessionError::Invalid,
            500,
            "`validate_data` refuses the session data, so it was not saved",
        ),
        (
            SessionError::Seal(broken()),
            500,
            "the session token could not be sealed or written as a header",
        ),
        (
            SessionError::TooLarge { actual, limit },
            500,
            "the session takes 5000 bytes where 4096 are allowed; keep less in it, raise `.max_payload(..)`, \
             or use `.store(..)` where a cookie is the limit",
        ),
        (
            SessionError::Encode(broken()),
            500,
            "the session data could not be encoded by its `Serialize` or `codec`",
        ),
        (
            SessionError::Closed,
            500,
            "the sessions of this request are committed and its response is on its way; commit earlier, or keep \
             a `SessionHandle` (`session.handle()`) instead of the session",
        ),
        (
            SessionError::IdInUse,
            500,
            "every id drawn was in use; `id_generator` must return random ids",
        ),
        (
            SessionError::NoStore { operation },
            500,
            "`load` needs a session store; set one with `.store(..)`, or where `.store_for(..)` chooses, name one \
             with `manager.with_store(..)`",
        ),
        (SessionError::NotSaved, 500, "the session has not been saved yet; commit it first"),
        (
            SessionError::Uncommitted,
            500,
            "`update` needs a session without uncommitted changes; commit them first",
        ),
        (SessionError::Random(broken()), 500, "the operating system's random source failed"),
        (
            SessionError::Rejected(SessionRejection::Newer),
            503,
            "the session was written by a newer version; finish the rollout, or accept it first with \
             `accept_schema`",
        ),
    ]
}

/// Asserts the form of a text, and that no cause repeats what stands above it.
#[track_caller]
fn expect_text(error: &(dyn Error + 'static), text: &str) {
    assert_eq!(error.to_string(), text);
    assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "{text}");
    let mut above = error;
    while let Some(source) = above.source() {
        let (outer, inner) = (above.to_string(), source.to_string());
        assert!(!outer.contains(&inner), "{outer} repeats {inner}");
        above = source;
    }
}

#[test]
fn texts_name_the_way_out_and_sources_repeat_nothing() {
    for (error, text) in store_errors() {
        expect_text(&error, text);
        expect_text(&SessionError::Store(error), "the session could not be stored");
    }
    for (error, text) in store_errors() {
        expect_text(&SessionRejection::Store(error), "the session could not be loaded");
        let _ = text;
    }
    for (error, _, text) in rejections() {
        expect_text(&error, text);
        expect_text(&SessionError::from(error), text);
    }
    for (error, _, text) in session_errors() {
        expect_text(&error, text);
    }
    expect_text(
        &ConfigError::KeyIdCollision,
        "two keys in `.keys(..)` share a key id; replace one of them",
    );
    let error = "not hex".parse::<StoreKey>().unwrap_err();
    expect_text(&error, "a store key is 43 characters of base64url");
}

#[test]
fn sources_lead_to_the_cause() {
    let error = SessionError::Store(StoreError::unavailable(broken()));
    let store = error.source().unwrap();
    assert!(matches!(store.downcast_ref(), Some(StoreError::Unavailable(_))));
    let cause = store.source().unwrap();
    assert_eq!(cause.to_string(), "connection refused by 10.0.0.7");
    assert!(SessionError::Gone.source().is_none());
}

#[test]
fn a_newer_row_is_newer_in_every_error_it_becomes() {
    assert!(matches!(StoreError::Newer.into(), SessionRejection::Newer));
    let error = SessionError::from(StoreError::Newer);
    assert!(matches!(error, SessionError::Rejected(SessionRejection::Newer)));
    assert!(matches!(SessionError::from(StoreError::Full), SessionError::Store(StoreError::Full)));
}

#[test]
fn clients_learn_the_status_and_nothing_of_the_inside() {
    let rejections = rejections().map(|(error, status, _)| {
        assert_eq!(error.status(), status);
        (error.into_response(), status)
    });
    let errors = session_errors().map(|(error, status, _)| {
        assert_eq!(error.status(), status);
        (error.into_response(), status)
    });
    let read = async {
        for (response, status) in rejections.into_iter().chain(errors) {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let answer = Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            };
            let answer = answer.expect_error(StatusCode::from_u16(status).unwrap());
            assert_eq!(answer.header("content-type").unwrap(), "text/plain; charset=utf-8");
            assert_eq!(answer.headers.len(), 2, "{:?}", answer.headers);
        }
    };
    traced(read);
}

#[test]
fn the_operator_learns_the_whole_chain() {
    let error = || SessionError::Store(StoreError::unavailable(broken()));
    let (_, log) = traced(async { error().into_response() });
    let sources = "[the session store is unavailable, connection refused by 10.0.0.7]";
    for part in ["ERROR", "error=the session could not be stored", sources] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
    let (_, log) = traced(async { SessionError::Conflict.into_response() });
    assert!(log.contains("INFO"), "no alarm over what clients can cause: {log}");
}
