//! Cookie headers that no browser sends: never an error, never a panic, never slow.

use axum::Router;
use axum_typed_session::{Transport, testing::ManualClock};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use proptest::prelude::*;

use crate::{
    logins::{FRESH, app, forged, issue_cookie, logins},
    support::{Answer, COOKIE, EventLog, ends_within_a_minute, get_with_cookies, send},
};

async fn get_with_headers(app: &Router, headers: &[&[u8]]) -> Answer {
    let mut request = Request::get("/");
    for bytes in headers {
        request = request.header(header::COOKIE, HeaderValue::from_bytes(bytes).unwrap());
    }
    send(app, request).await
}

#[tokio::test]
async fn a_valid_cookie_is_found_among_whatever_else_is_in_the_header() {
    let app = app(logins(&ManualClock::new()));
    let valid = issue_cookie(&app, "mine").await;
    let quoted = format!("{}\"", valid.replacen('=', "=\"", 1));
    let big = format!("a={}; {valid}", "x".repeat(64 * 1024));
    let cases: &[&[&[u8]]] = &[
        &[valid.as_bytes()],
        &[quoted.as_bytes()],
        &[big.as_bytes()],
        &[b"theme=dark", valid.as_bytes(), b"lang=en"],
        &[&[b"\xff\xfe=\x80; ", valid.as_bytes(), b"; n=\xc3\x28"].concat()],
        &[b"\x80\xff", valid.as_bytes()],
        &[&[b";;; ;=;==; ", valid.as_bytes(), b";"].concat()],
        &[&[b"a=1;", valid.as_bytes(), b";b=2"].concat()],
        &[&[b"\t ", valid.as_bytes(), b" \t"].concat()],
    ];
    for headers in cases {
        let answer = get_with_headers(&app, headers).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "mine"), "{headers:?}");
    }
}

#[tokio::test]
async fn cookies_whose_names_only_resemble_ours_are_none_of_ours() {
    let log = EventLog::default();
    let app = app(logins(&ManualClock::new()).on_event(log.hook()));
    let valid = issue_cookie(&app, "mine").await;
    let token = valid.split_once('=').unwrap().1;
    log.take();
    let names = [
        "__Host-sessio",
        "__Host-session2",
        "__Host-session_",
        "__host-session",
        "session",
        "x__Host-session",
        "__Host-session ",
        "__Host-session\"",
        "a=__Host-session",
        "",
    ];
    for name in names {
        let answer = get_with_cookies(&app, &format!("{name}={token}")).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, FRESH), "{name}");
        assert!(log.take().is_empty(), "{name}");
    }
    get_with_cookies(&app, COOKIE).await.expect(StatusCode::OK, FRESH);
    assert!(log.take().is_empty(), "a name without a value");
}

/// Another host of the site can set a cookie whose name begins with such a space, since it has no prefix to a browser.
/// A server that takes the space away takes that cookie for one with `__Host-`.
#[tokio::test]
async fn a_space_beyond_ascii_before_the_name_makes_another_cookie() {
    let log = EventLog::default();
    let app = app(logins(&ManualClock::new()).on_event(log.hook()));
    let (planted, mine) = (issue_cookie(&app, "planted").await, issue_cookie(&app, "mine").await);
    log.take();
    for space in ["\u{85}", "\u{a0}", "\u{2000}", "\u{2028}", "\u{3000}", "\u{feff}"] {
        let planted = format!("{space}{planted}");
        let answer = get_with_headers(&app, &[planted.as_bytes()]).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, FRESH), "{space:?}");
        let both = format!("{mine};{planted}; {planted}");
        let answer = get_with_headers(&app, &[both.as_bytes()]).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "mine"), "{space:?}");
    }
    for byte in [b'\x85', b'\xa0'] {
        let planted = [&[byte], planted.as_bytes()].concat();
        let answer = get_with_headers(&app, &[&planted]).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, FRESH), "{byte}");
    }
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test]
async fn bad_values_are_a_fresh_session_and_one_event() {
    let log = EventLog::default();
    let app = app(logins(&ManualClock::new()).on_event(log.hook()));
    let huge = "A".repeat(64 * 1024);
    let values: [&[u8]; 9] = [
        b"",
        b"\"",
        b"\"\"",
        b"=",
        b"\xff\xff\xff",
        "sch\u{f6}n".as_bytes(),
        b"AQ%3D%3D",
        b"null",
        huge.as_bytes(),
    ];
    for value in values {
        let header = [COOKIE.as_bytes(), b"=", value].concat();
        let answer = get_with_headers(&app, &[&header]).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, FRESH), "{value:?}");
        assert_eq!(log.take(), ["invalid_token"], "{value:?}");
    }
}

#[tokio::test]
async fn bad_input_does_not_keep_a_new_session_from_being_saved() {
    let app = app(logins(&ManualClock::new()));
    let request = Request::post("/note?new").header(header::COOKIE, format!("{COOKIE}=garbage"));
    let answer = send(&app, request).await;
    let cookie = format!("{COOKIE}={}", answer.token());
    get_with_cookies(&app, &cookie).await.expect(StatusCode::OK, "new");
}

/// Linear in the header, each takes less than a second. Quadratic, it would take many minutes.
#[test]
fn reading_takes_time_linear_in_the_header() {
    ends_within_a_minute(|| async {
        let app = app(logins(&ManualClock::new()));
        let forged = forged(&issue_cookie(&app, "mine").await);
        for part in ["", " ", "=", "\"", "a=b;", "__Host-session", "__Host-session=x;", &forged] {
            let header = format!("{part};").repeat(8 * 1024 * 1024 / (part.len() + 1));
            get_with_cookies(&app, &header).await.expect(StatusCode::OK, FRESH);
            let header = [&*part.repeat(header.len() / part.len().max(1)), "; a=b"].concat();
            get_with_cookies(&app, &header).await.expect(StatusCode::OK, FRESH);
        }
    });
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(b"__Host-session".to_vec()),
        Just(b"__Host-session=".to_vec()),
        Just(b"=".to_vec()),
        Just(b"; ".to_vec()),
        Just(b"\"".to_vec()),
        "[A-Za-z0-9_-]{0,120}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..80),
    ];
    let headers = proptest::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat());
    headers.prop_map(|mut bytes| {
        bytes.retain(|byte| HeaderValue::from_bytes(&[*byte]).is_ok());
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_in_any_header_are_a_fresh_session(
        cookies in proptest::collection::vec(any_header(), 0..4),
        other in any_header(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let clock = ManualClock::new();
        let transports = [
            Transport::cookie(),
            Transport::bearer(),
            Transport::header(HeaderName::from_static("x-session")),
        ];
        for transport in transports {
            for signed in [false, true] {
                let manager = logins(&clock).transport(transport.clone());
                let app = app(if signed { manager.signed(true) } else { manager });
                let mut request = Request::get("/");
                for bytes in &cookies {
                    request = request.header(header::COOKIE, &bytes[..]);
                }
                let bearer = [b"Bearer ", &other[..]].concat();
                request = request.header(header::AUTHORIZATION, bearer).header("x-session", &other[..]);
                let answer = runtime.block_on(send(&app, request));
                prop_assert_eq!((answer.status, &*answer.body), (StatusCode::OK, FRESH));
            }
        }
    }
}
