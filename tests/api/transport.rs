//! Tokens that travel in headers instead of a cookie.

use axum::Router;
use axum_typed_session::{Transport, testing::ManualClock};
use http::{HeaderName, Request, StatusCode};

use crate::{
    logins::{FRESH, app, logins},
    support::{Answer, COOKIE, EventLog, send},
};

const X_SESSION: HeaderName = HeaderName::from_static("x-session");

fn custom() -> Transport {
    Transport::custom(
        |parts| {
            let query = parts.uri.query()?;
            query.strip_prefix("token=").map(str::to_owned)
        },
        |headers, token| {
            headers.insert("x-new-token", token.unwrap_or("none").parse().unwrap());
        },
    )
}

/// How one transport looks from outside.
struct Wire {
    transport: Transport,
    out: &'static str,
    vary: &'static str,
    removed: &'static str,
    request: fn(method: &str, path: &str, token: &str) -> http::request::Builder,
}

fn wires() -> [Wire; 3] {
    [
        Wire {
            transport: Transport::bearer(),
            out: "x-session-token",
            vary: "authorization",
            removed: "",
            request: |method, path, token| {
                let request = Request::builder().method(method).uri(path);
                request.header("authorization", format!("Bearer {token}"))
            },
        },
        Wire {
            transport: Transport::header(X_SESSION),
            out: "x-session",
            vary: "x-session",
            removed: "",
            request: |method, path, token| {
                let request = Request::builder().method(method).uri(path);
                request.header("x-session", token)
            },
        },
        Wire {
            transport: custom(),
            out: "x-new-token",
            vary: "*",
            removed: "none",
            request: |method, path, token| {
                let request = Request::builder().method(method);
                request.uri(format!("{path}?token={token}"))
            },
        },
    ]
}

fn app_of(wire: &Wire) -> Router {
    app(logins(&ManualClock::new()).transport(wire.transport.clone()))
}

async fn issue(app: &Router, wire: &Wire) -> (Answer, String) {
    let answer = send(app, Request::post("/note?mine")).await;
    let token = answer.header(wire.out).unwrap();
    (answer, token)
}

#[tokio::test]
async fn a_token_goes_out_in_a_header_and_comes_back_in_one() {
    for wire in wires() {
        let app = app_of(&wire);
        let (answer, token) = issue(&app, &wire).await;
        let answer = answer.expect(StatusCode::OK, "mine").expect_no_cookie();
        assert_eq!(answer.header("vary").as_deref(), Some(wire.vary));
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        assert!(answer.headers[wire.out].is_sensitive() || wire.vary == "*");
        let read = send(&app, (wire.request)("GET", "/", &token)).await;
        let read = read.expect(StatusCode::OK, "mine").expect_no_cookie();
        assert_eq!(read.header(wire.out), None);
        let unchanged = send(&app, (wire.request)("POST", "/commit", &token)).await;
        assert_eq!(unchanged.header(wire.out), None);
        assert_eq!(unchanged.header("cache-control").as_deref(), Some("private"));
        assert_eq!(unchanged.header("vary").as_deref(), Some(wire.vary));
    }
}

#[tokio::test]
async fn removal_is_an_empty_value_and_only_where_a_token_came() {
    for wire in wires() {
        let app = app_of(&wire);
        let (_, token) = issue(&app, &wire).await;
        for token in [&token, "garbage"] {
            let answer = send(&app, (wire.request)("POST", "/destroy", token)).await;
            assert_eq!(answer.header(wire.out).as_deref(), Some(wire.removed));
            assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
            answer.expect_no_cookie();
        }
        let answer = send(&app, Request::post("/destroy")).await;
        assert_eq!(answer.header(wire.out), None);
        let answer = send(&app, (wire.request)("POST", "/destroy", "")).await;
        assert_eq!(answer.header(wire.out), None, "an empty header is no token");
    }
}

#[tokio::test]
async fn the_cookie_transport_varies_on_cookie() {
    let app = app(logins(&ManualClock::new()));
    let answer = send(&app, Request::post("/commit")).await;
    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
}

#[tokio::test]
async fn bearer_is_read_in_any_case_and_other_schemes_are_not() {
    let [bearer, ..] = wires();
    let log = EventLog::default();
    let manager = logins(&ManualClock::new()).on_event(log.hook());
    let app = app(manager.transport(bearer.transport.clone()));
    let (_, token) = issue(&app, &bearer).await;
    log.take();
    let cases = [
        ("Bearer", "mine"),
        ("bearer", "mine"),
        ("BEARER", "mine"),
        ("bEARER", "mine"),
        ("Bearer ", "mine"),
        ("Basic", FRESH),
        ("Bearerx", FRESH),
        ("Token", FRESH),
        ("", FRESH),
    ];
    for (scheme, body) in cases {
        let request = Request::get("/").header("authorization", format!("{scheme} {token}"));
        send(&app, request).await.expect(StatusCode::OK, body);
        assert!(log.take().is_empty(), "{scheme}");
    }
    let request = Request::get("/").header("authorization", "Bearer garbage");
    send(&app, request).await.expect(StatusCode::OK, FRESH);
    assert_eq!(log.take(), ["invalid_token"]);
}

#[tokio::test]
async fn a_header_transport_does_not_look_at_cookies() {
    for wire in wires() {
        let app = app_of(&wire);
        let (_, token) = issue(&app, &wire).await;
        let cookies = format!("{COOKIE}={token}; {}={token}", wire.out);
        let request = Request::get("/").header("cookie", cookies);
        send(&app, request).await.expect(StatusCode::OK, FRESH);
    }
}
