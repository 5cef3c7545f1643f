//! What `build()` refuses besides keys and cookie templates, and what it says to change.

use std::time::Duration;

use axum_typed_session::{
    ConflictPolicy, IdleTimeout, MemoryStore, SessionManagerBuilder, Transport, cookie::Cookie,
    testing::ManualClock,
};
use http::{HeaderName, header};

use crate::{
    logins::{Login, expect_refusal, logins, without_keys},
    options::{Bar, same_shape},
    support::{DAY, SECOND},
};

type Builder = SessionManagerBuilder<Login>;
type With<'a> = &'a dyn Fn(Duration) -> Builder;

fn cookie_mode() -> Builder {
    logins(&ManualClock::new())
}

fn store_mode() -> Builder {
    cookie_mode().store(MemoryStore::new())
}

#[test]
fn durations_must_be_above_zero_and_below_their_limit() {
    let year = DAY * 365;
    let long_lived = || cookie_mode().absolute_timeout(year * 2);
    let cases: [(&str, Duration, With<'_>); 6] = [
        ("idle_timeout", DAY * 400, &|ttl| long_lived().idle_timeout(ttl)),
        ("idle_timeout", DAY * 400, &|ttl| {
            long_lived().idle_timeout(IdleTimeout::BrowserSession(ttl))
        }),
        ("absolute_timeout", year * 100, &|ttl| cookie_mode().absolute_timeout(ttl)),
        ("max_absolute_timeout", year * 100, &|ttl| cookie_mode().max_absolute_timeout(ttl)),
        ("anonymous_idle_timeout", DAY * 400, &|ttl| {
            cookie_mode().owner(|_| None).anonymous_idle_timeout(ttl)
        }),
        ("store_timeout", DAY, &|ttl| store_mode().store_timeout(ttl)),
    ];
    for (option, limit, with) in cases {
        assert!(with(limit).build().is_ok(), "{option}");
        for actual in [Duration::ZERO, limit + SECOND, Duration::MAX] {
            let text = format!("`.{option}({actual:?})` must be above zero and at most {limit:?}");
            expect_refusal(with(actual), &text);
        }
    }
    let hour = SECOND * 3600;
    assert!(cookie_mode().clock_skew(hour).build().is_ok());
    expect_refusal(
        cookie_mode().clock_skew(hour + SECOND),
        "`.clock_skew(3601s)` must be at most 3600s; keep the clocks of the nodes together with NTP",
    );
}

#[test]
fn an_idle_timeout_above_the_absolute_timeout_is_refused() {
    let text = |idle_timeout: &str, timeout: &str| {
        format!(
            "`.idle_timeout({idle_timeout})` must not be above `.absolute_timeout({timeout})`, which ends every \
             session; lower the idle timeout or raise the absolute timeout"
        )
    };
    let month = DAY * 30;
    assert!(cookie_mode().idle_timeout(month).build().is_ok());
    expect_refusal(cookie_mode().idle_timeout(month + SECOND), &text("2592001s", "2592000s"));
    expect_refusal(
        cookie_mode().idle_timeout(IdleTimeout::BrowserSession(month + SECOND)),
        &text("2592001s", "2592000s"),
    );
    expect_refusal(cookie_mode().absolute_timeout(SECOND), &text("86400s", "1s"));
    let longest = cookie_mode().max_absolute_timeout(3 * month);
    expect_refusal(longest.idle_timeout(month + SECOND), &text("2592001s", "2592000s"));
}

#[test]
fn a_max_absolute_timeout_below_the_absolute_timeout_is_refused() {
    let month = DAY * 30;
    assert!(cookie_mode().max_absolute_timeout(month).build().is_ok());
    let text = "`.max_absolute_timeout(2591999s)` must not be below `.absolute_timeout(2592000s)`, which is the \
                timeout of every session that sets none; raise the first or lower the second";
    expect_refusal(cookie_mode().max_absolute_timeout(month - SECOND), text);
}

#[test]
fn a_limit_that_no_session_or_no_browser_can_keep_is_refused() {
    let with = |bytes: usize| cookie_mode().max_cookie_bytes(bytes);
    for bytes in [0, 1, 167, 4097, usize::MAX] {
        let text = format!(
            "`.max_cookie_bytes({bytes})` must be at least 168, because an empty session takes so many bytes, and at \
             most 4096, because browsers drop a longer cookie"
        );
        expect_refusal(with(bytes), &text);
    }
    for bytes in [168, 4096] {
        assert!(with(bytes).build().is_ok(), "{bytes}");
    }
}

#[test]
fn a_header_that_http_uses_for_something_else_is_refused() {
    let with = |name| cookie_mode().transport(Transport::header(name));
    let text = "`.transport(..)`: HTTP uses this header for another purpose; use `Transport::cookie()`, \
                `Transport::bearer()` or a header such as `x-session`";
    for name in
        [header::COOKIE, header::SET_COOKIE, header::AUTHORIZATION, header::LOCATION, header::HOST]
    {
        expect_refusal(with(name), text);
    }
    assert!(with(HeaderName::from_static("x-session")).build().is_ok());
}

#[test]
fn a_header_is_named_by_a_text_too() {
    let with = |name: &str| cookie_mode().transport(Transport::header(name));
    assert!(with("X-Session").build().is_ok());
    let text = "`.transport(..)`: the text is not a header name; use letters, digits and `-`";
    for name in ["", "x session", "x-\r\nsession", "sitzung-ü"] {
        expect_refusal(with(name), text);
    }
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let empty = "the name is empty; give a name, or leave the option out";
    let cases = [
        (cookie_mode().max_payload(0), "`.max_payload(..)` must be above 0 bytes".to_owned()),
        (cookie_mode().schema_version(0), "`.schema_version(..)` must be at least 1".to_owned()),
        (cookie_mode().audience(""), format!("`.audience(..)`: {empty}")),
        (cookie_mode().kind(""), format!("`.kind(..)`: {empty}")),
    ];
    for (builder, text) in cases {
        expect_refusal(builder, &text);
    }
}

#[test]
fn options_that_lack_what_they_need_are_refused() {
    let plain = || without_keys(&ManualClock::new());
    let cases = [
        (plain().signed(true).store(MemoryStore::new()), "`.signed(..)` needs `.keys(..)`"),
        (
            store_mode().codec(Bar),
            "with a `.codec(..)`, `.on_conflict(..)` must be `Reject` or `Overwrite`, because `Merge` needs JSON",
        ),
        (
            cookie_mode().on_conflict(ConflictPolicy::Merge),
            "`.on_conflict(..)` needs `.store(..)`; without a store, the browser keeps the cookie that arrives last",
        ),
        (
            cookie_mode().store_timeout(SECOND),
            "`.store_timeout(..)` needs `.store(..)`, `.revocations(..)` or `.import(..)`",
        ),
        (
            cookie_mode().codec(Bar).migrate(same_shape),
            "`.migrate(..)` needs JSON, so it cannot be combined with a `.codec(..)`",
        ),
        (
            cookie_mode().schema_version(2),
            "`.schema_version(..)` needs `.migrate(..)`, which converts older data or rejects it",
        ),
        (
            cookie_mode().schema_version(3).migrate(same_shape).accept_schema(2),
            "`.accept_schema(..)` must not be below `.schema_version(..)`",
        ),
        (
            cookie_mode().anonymous_idle_timeout(SECOND),
            "`.anonymous_idle_timeout(..)` needs `.owner(..)`",
        ),
        (
            cookie_mode().remove_unpartitioned(true),
            "`.remove_unpartitioned(..)` needs a `.cookie(..)` with the attribute Partitioned",
        ),
    ];
    for (manager, text) in cases {
        expect_refusal(manager, text);
    }
}

#[test]
fn an_owner_of_those_who_are_not_signed_in_is_refused() {
    let text = "`.owner(..)` names an owner for the default data, so all visitors who are not signed in would be one \
                owner; return `None` for them, as for an empty name";
    for builder in [cookie_mode(), store_mode()] {
        expect_refusal(builder.owner(|login| Some(login.note.clone())), text);
    }
    let owner = |login: &Login| Some(login.note.clone()).filter(|note| !note.is_empty());
    assert!(store_mode().owner(owner).build().is_ok());
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    expect_refusal(
        store_mode().max_cookie_bytes(4096),
        "`.max_cookie_bytes(..)` is for sessions in a cookie; with a store, use `.max_payload(..)`",
    );
    expect_refusal(
        store_mode().revocations(MemoryStore::new()),
        "`.revocations(..)` is for sessions in a cookie; with a store, `destroy` ends the stored session",
    );
    let transports = [
        Transport::bearer(),
        Transport::header(HeaderName::from_static("x-session")),
        Transport::custom(|_| None, |_, _| ()),
    ];
    for transport in transports {
        let options = [
            ("cookie", cookie_mode().cookie(Cookie::new("id", ""))),
            ("insecure_http", cookie_mode().insecure_http(true)),
            ("remove_unpartitioned", cookie_mode().remove_unpartitioned(true)),
        ];
        for (option, manager) in options {
            let text = format!(
                "`.{option}(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
            );
            expect_refusal(manager.transport(transport.clone()), &text);
        }
    }
}

#[test]
fn combinations_that_mean_something_are_accepted() {
    let accepted = [
        without_keys(&ManualClock::new()).store(MemoryStore::new()),
        store_mode().signed(true),
        store_mode().codec(Bar).on_conflict(ConflictPolicy::Overwrite),
        cookie_mode().codec(Bar),
        cookie_mode().revocations(MemoryStore::new()),
        cookie_mode().schema_version(2).migrate(same_shape).accept_schema(3),
        cookie_mode().accept_schema(2),
        cookie_mode().schema_version(2).migrate(same_shape).accept_schema(2),
        cookie_mode().cookie(Cookie::new("id", "")).transport(Transport::cookie()),
    ];
    for manager in accepted {
        manager.build().unwrap();
    }
}
