//! The cookie: its defaults, what the template changes, and what `build()` refuses.

use axum::{Router, response::AppendHeaders, routing::get};
use axum_typed_session::{
    Session, SessionError, SessionManagerBuilder,
    cookie::{Cookie, CookieBuilder, Expiration, SameSite, time},
    testing::ManualClock,
};
use http::{Request, StatusCode, header};

use crate::{
    logins::{Login, app, logins},
    support::{Browser, Log, send},
};

fn named(name: &'static str) -> CookieBuilder<'static> {
    Cookie::build((name, ""))
}

fn with(cookie: CookieBuilder<'static>) -> SessionManagerBuilder<Login> {
    logins(&ManualClock::new()).cookie(cookie)
}

/// What is sent when a session is saved, without the token, and when it is removed.
async fn rendered(manager: SessionManagerBuilder<Login>) -> (Vec<String>, Vec<String>) {
    let mut browser = Browser::new(app(manager));
    let set = browser.post("/note?mine").await;
    let token = browser.jar.values().next().unwrap().clone();
    let removed = browser.post("/destroy").await;
    assert!(browser.jar.is_empty());
    let owned = |cookie: &str| cookie.replace(&token, "TOKEN");
    let [set, removed] =
        [set, removed].map(|answer| answer.set_cookies().into_iter().map(owned).collect());
    (set, removed)
}

#[tokio::test]
async fn templates_render_what_they_say_and_defaults_for_the_rest() {
    let cases = [
        (
            logins(&ManualClock::new()),
            "__Host-session=TOKEN; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=86400",
        ),
        (
            with(named("__Host-login").same_site(SameSite::Strict)),
            "__Host-login=TOKEN; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=86400",
        ),
        (
            with(named("__Secure-id").path("/app").domain(".example.com")),
            "__Secure-id=TOKEN; HttpOnly; SameSite=Lax; Secure; Path=/app; Domain=example.com; Max-Age=86400",
        ),
        (
            with(named("id").same_site(SameSite::None).partitioned(true)),
            "id=TOKEN; HttpOnly; SameSite=None; Partitioned; Secure; Path=/; Max-Age=86400",
        ),
        (
            with(named("id").http_only(false).secure(false)),
            "id=TOKEN; SameSite=Lax; Path=/; Max-Age=86400",
        ),
        (
            logins(&ManualClock::new()).insecure_http(true),
            "session=TOKEN; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400",
        ),
        (
            with(named("__secure-ID").secure(true).path("/app")).insecure_http(true),
            "ID=TOKEN; HttpOnly; SameSite=Lax; Path=/app; Max-Age=86400",
        ),
        (
            with(named("__Host-Http-id")).insecure_http(true),
            "id=TOKEN; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400",
        ),
        (
            with(named("__hOST-id")).insecure_http(true),
            "id=TOKEN; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400",
        ),
        (
            with(named("id")).insecure_http(true).insecure_http(false),
            "id=TOKEN; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=86400",
        ),
    ];
    for (manager, expected) in cases {
        let (set, removed) = rendered(manager).await;
        assert_eq!(set, [expected]);
        let removal = expected
            .replace("TOKEN", "")
            .replace("Max-Age=86400", "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(removed, [removal], "removal has the attributes of setting");
    }
}

#[tokio::test]
async fn remove_unpartitioned_expires_the_unpartitioned_twin_first() {
    let manager = with(named("__Host-id").same_site(SameSite::None).partitioned(true));
    let (set, removed) = rendered(manager.remove_unpartitioned(true)).await;
    let gone = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    let twin = format!("__Host-id=; HttpOnly; SameSite=None; Secure; Path=/; {gone}");
    let attributes = "HttpOnly; SameSite=None; Partitioned; Secure; Path=/";
    assert_eq!(set, [twin.clone(), format!("__Host-id=TOKEN; {attributes}; Max-Age=86400")]);
    assert_eq!(removed, [twin, format!("__Host-id=; {attributes}; {gone}")]);
}

/// Browsers keep a cookie with Partitioned beside one without it, so the application may have both.
#[tokio::test]
async fn a_cookie_of_the_name_in_the_other_partition_stays() {
    let none = || named("id").same_site(SameSite::None);
    let cookies = ["id=other; Secure; Partitioned", "id=other; Secure"];
    for (template, [other, same]) in
        [(none(), cookies), (none().partitioned(true), [cookies[1], cookies[0]])]
    {
        let handler = move |mut session: Session<Login>| async move {
            session.note.push('x');
            let cookies = AppendHeaders([other, same].map(|cookie| (header::SET_COOKIE, cookie)));
            Ok::<_, SessionError>((cookies, session.commit().await?, ()))
        };
        let sessions = with(template).build().unwrap();
        let app = Router::new().route("/", get(handler)).with_state(sessions);
        let answer = send(&app, Request::get("/")).await;
        let set = answer.set_cookies();
        assert_eq!(set.len(), 2, "{set:?}");
        assert_eq!(set[0], other);
        assert!(set[1].starts_with("id=") && !set[1].contains("other"), "{set:?}");
    }
}

#[tokio::test]
async fn the_set_cookie_header_is_marked_sensitive() {
    let mut browser = Browser::new(app(logins(&ManualClock::new())));
    let answer = browser.post("/note?mine").await;
    assert!(answer.headers["set-cookie"].is_sensitive());
}

#[test]
fn templates_that_browsers_would_drop_or_misread_are_refused() {
    const NAME: &str =
        "the name must have at least one character, and only letters, digits and !#$%&'*+-.^_`|~";
    const RELATIVE: &str = "Path must start with `/`, such as `/` or `/app`; browsers replace any other Path by the folder \
        of the request";
    const PATH: &str = "Path must not hold a space, comma, semicolon, control character or non-ASCII letter; percent-encode it, such as `%20` for a space";
    let host = |name| {
        [
            (named(name).secure(false), "the prefix `__Host-` needs Secure"),
            (named(name).path("/app"), "the prefix `__Host-` needs Path=/"),
            (named(name).domain("example.com"), "the prefix `__Host-` allows no Domain"),
        ]
    };
    let secure = |name| {
        let text = "the prefix `__Secure-` needs Secure";
        (named(name).secure(false), text)
    };
    let mut cases = vec![
        secure("__Secure-id"),
        secure("__secure-id"),
        secure("__SECURE-"),
        (named("id").same_site(SameSite::None).secure(false), "SameSite=None needs Secure"),
        (named("id").partitioned(true).secure(false), "Partitioned needs Secure"),
        (Cookie::build(("id", "value")), "the value must be empty, because the session sets it"),
        (
            named("id").max_age(time::Duration::ZERO),
            "Max-Age must not be set; use `.idle_timeout(..)`",
        ),
        (named("id").permanent(), "Max-Age must not be set; use `.idle_timeout(..)`"),
        (
            named("id").expires(time::OffsetDateTime::UNIX_EPOCH),
            "Expires must not be set; use `.idle_timeout(..)` or `.idle_timeout(IdleTimeout::BrowserSession(..))`",
        ),
        (
            named("id").expires(Expiration::Session),
            "Expires must not be set; use `.idle_timeout(..)` or `.idle_timeout(IdleTimeout::BrowserSession(..))`",
        ),
    ];
    cases.extend(
        ["__Host-id", "__host-id", "__HOST-id", "__hOsT-", "__Host-Http-id"]
            .into_iter()
            .flat_map(host),
    );
    for name in
        ["", "a b", "a;b", "a,b", "a=b", "a\r\nb", "a\u{7f}", "\"a\"", "sch\u{f6}n", "a/b", "\t"]
    {
        cases.push((named(name), NAME));
    }
    for path in ["", "app", "./", "https://example.com/app", " /", "\\"] {
        cases.push((named("id").path(path), RELATIVE));
    }
    for path in ["/a;b", "/a,b", "/a b", "/\n", "/\u{1}", "/\u{f6}"] {
        cases.push((named("id").path(path), PATH));
    }
    expect_refusals(cases);
}

#[test]
fn domains_that_browsers_drop_are_refused_with_what_to_write() {
    let long = "a".repeat(64) + ".example";
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
    let cases: [(&[&str], &str); 12] = [
        (&["", "."], "is empty"),
        (&["https://example.com", "http://example.com:80/", "://", "a://b"], "is a URL"),
        (
            &["example.com/", "example.com/app", "/", "example.com\\", "//example.com"],
            "holds a path, which",
        ),
        (&["example.com:3000", ":", "127.0.0.1:80", "[::1]:80", "[::1", "https:"], "holds a port"),
        (&["*.example.com", "*", ".*.example.com", "a*.example"], "holds a `*`"),
        (
            &["b\u{fc}cher.example", "\u{3002}", "example\u{ff0e}com", "\u{430}.example"],
            "holds non-ASCII letters instead",
        ),
        (
            &["a b", " example.com", "example.com ", "a\r\n", "a\0b", "\u{7f}", "a\tb"],
            "holds a space",
        ),
        (
            &["a;b", "a,b", "a%20b", "a@b", "a\"b", "[1.2.3.4]", "a=b", "<a>", "a#b", "a?b"],
            "holds a character that is not allowed",
        ),
        (&["a..b", "example.com.", "..example.com", "example.com.."], "begins or ends with a dot"),
        (&["::1", "fe80::1", "::ffff:127.0.0.1"], "is an IPv6 address without brackets"),
        (&["1.2.3", "127.1", "256.0.0.1", "127.0.0.01", "1.2.3.4.5", "7"], "ends in a number"),
        (&[&long, &longest], "is longer than"),
    ];
    for (domains, problem) in cases {
        for domain in domains {
            let built = with(named("id").domain((*domain).to_owned())).build();
            let Err(error) = built else { panic!("accepted {domain:?}") };
            let (text, start) = (error.to_string(), format!("`.cookie(..)`: Domain {problem}"));
            let end = "write only the host, such as `example.com`, or remove Domain";
            assert!(text.starts_with(&start) && text.ends_with(end), "{domain:?}: {text}");
        }
    }
}

#[test]
fn domains_that_browsers_keep_are_accepted() {
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    for domain in [
        "example.com",
        ".example.com",
        "EXAMPLE.com",
        "a_b.example",
        "a--b.co.uk",
        "3.example",
        &longest,
    ] {
        let log = Log::start();
        assert!(with(named("id").domain(domain.to_owned())).build().is_ok(), "{domain}");
        assert_eq!(log.take(), <[&str; 0]>::default(), "{domain}");
    }
}

#[test]
fn domains_that_browsers_keep_at_one_host_alone_warn() {
    for domain in ["127.0.0.1", ".192.0.2.7", "[::1]", "localhost", "com", "a_b"] {
        let log = Log::start();
        assert!(with(named("id").domain(domain)).build().is_ok(), "{domain}");
        let lines = log.take();
        let [line] = &lines[..] else { panic!("{domain}: {lines:?}") };
        let shown = "Domain of the session cookie is an IP address or a name without a dot";
        assert!(line.contains(shown) && line.contains("remove Domain"), "{line}");
    }
}

#[test]
fn a_path_that_ends_with_a_slash_warns() {
    for (path, warns) in [("/", false), ("/app", false), ("/app/", true)] {
        let log = Log::start();
        assert!(with(named("id").path(path)).build().is_ok(), "{path}");
        let lines = log.take();
        let says = |line: &String| line.contains("Path of the session cookie ends with `/`");
        assert_eq!(lines.iter().any(says), warns, "{path}: {lines:?}");
    }
}

#[test]
fn templates_of_a_prefix_for_http_alone_need_secure_and_http_only() {
    let script = "the prefixes `__Http-` and `__Host-Http-` need HttpOnly";
    expect_refusals(vec![
        (named("__Http-id").http_only(false), script),
        (named("__host-http-id").http_only(false), script),
        (named("__HTTP-id").secure(false), "the prefix `__Http-` needs Secure"),
    ]);
}

#[test]
fn what_insecure_http_takes_away_is_named_where_it_is_missed() {
    for (template, problem) in [
        (named("id").same_site(SameSite::None), "SameSite=None needs Secure"),
        (named("id").partitioned(true).secure(true), "Partitioned needs Secure"),
    ] {
        let error = with(template).insecure_http(true).build().unwrap_err();
        let expected = format!("`.cookie(..)`: {problem}, which `.insecure_http(true)` takes away");
        assert_eq!(error.to_string(), expected);
    }
}

fn expect_refusals(cases: Vec<(CookieBuilder<'static>, &str)>) {
    for (template, problem) in cases {
        let shown = format!("{template:?}");
        let Err(error) = with(template).build() else {
            panic!("accepted {shown}");
        };
        assert_eq!(error.to_string(), format!("`.cookie(..)`: {problem}"), "{shown}");
    }
}

#[test]
fn insecure_http_refuses_what_needs_secure() {
    for template in [named("id").same_site(SameSite::None), named("id").partitioned(true)] {
        assert!(with(template).insecure_http(true).build().is_err());
    }
}

#[test]
fn choices_that_weaken_the_cookie_warn() {
    let default = || logins(&ManualClock::new());
    let cases = [
        (default(), None),
        (
            default().insecure_http(true),
            Some(
                "`.insecure_http(true)` sends session cookies over plain http; never use it in production",
            ),
        ),
        (
            with(named("id").secure(false)),
            Some("the session cookie is not Secure; anyone on the network can read it"),
        ),
        (
            with(named("id").http_only(false)),
            Some("the session cookie is not HttpOnly; any script on the page can read it"),
        ),
    ];
    for (manager, warning) in cases {
        let log = Log::start();
        assert!(manager.build().is_ok());
        let lines = log.take();
        assert_eq!(lines.len(), usize::from(warning.is_some()), "{lines:?}");
        assert!(lines.concat().contains(warning.unwrap_or_default()), "{lines:?}");
    }
}

#[tokio::test]
async fn over_plain_http_the_session_works_under_the_short_name() {
    let mut browser = Browser::new(app(logins(&ManualClock::new()).insecure_http(true)));
    browser.post("/note?mine").await;
    browser.get("/").await.expect(StatusCode::OK, "mine");
}
