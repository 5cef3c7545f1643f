//! A browser that drops the Secure cookie, since it came over plain http, is warned of once for each host; nobody
//! else is.

use axum::{Router, extract::Request};
use axum_typed_session::{SessionManagerBuilder, Transport, cookie::Cookie, testing::ManualClock};
use http::{StatusCode, request};

use crate::support::{DAY, Log, MINUTE, Mode, Visits, in_both_modes, scripted, send};

in_both_modes! {
    each_host_is_warned_of_once,
    ten_hosts_are_warned_of_at_most,
}

const UA: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 \
    Safari/537.36";
const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,\
    */*;q=0.8,application/signed-exchange;v=b3;q=0.7";

type Headers = &'static [(&'static str, &'static str)];

/// What Chromium 156 sends when somebody opens `http://app.test:8123/`.
const OPENS: Headers = &[
    ("host", "app.test:8123"),
    ("connection", "keep-alive"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", UA),
    ("accept", HTML),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// The same for a form on a page there.
const POSTS: Headers = &[
    ("host", "app.test:8123"),
    ("connection", "keep-alive"),
    ("content-length", "3"),
    ("cache-control", "max-age=0"),
    ("upgrade-insecure-requests", "1"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("user-agent", UA),
    ("origin", "http://app.test:8123"),
    ("accept", HTML),
    ("referer", "http://app.test:8123/form"),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// The same for `fetch` in a script there, by GET and by POST.
const FETCHES: Headers = &[
    ("host", "app.test:8123"),
    ("connection", "keep-alive"),
    ("user-agent", UA),
    ("accept", "*/*"),
    ("referer", "http://app.test:8123/"),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", "en-US,en;q=0.9"),
];
const FETCHES_BY_POST: Headers = &[
    ("host", "app.test:8123"),
    ("connection", "keep-alive"),
    ("content-length", "0"),
    ("user-agent", UA),
    ("accept", "*/*"),
    ("origin", "http://app.test:8123"),
    ("referer", "http://app.test:8123/"),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// What Chromium 156 sends when somebody opens `http://localhost:8123/`.
const OPENS_LOCALHOST: Headers = &[
    ("host", "localhost:8123"),
    ("connection", "keep-alive"),
    ("sec-ch-ua", "\"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\""),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", UA),
    ("accept", HTML),
    ("sec-fetch-site", "none"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-user", "?1"),
    ("sec-fetch-dest", "document"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// The same for a form on a page there.
const POSTS_TO_LOCALHOST: Headers = &[
    ("host", "localhost:8123"),
    ("connection", "keep-alive"),
    ("content-length", "3"),
    ("cache-control", "max-age=0"),
    ("sec-ch-ua", "\"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\""),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("upgrade-insecure-requests", "1"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("user-agent", UA),
    ("origin", "http://localhost:8123"),
    ("accept", HTML),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("referer", "http://localhost:8123/form"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// A browser's headers, some of them changed, added or (where the value is empty) left out.
fn changed(headers: Headers, changes: &[(&str, &str)]) -> request::Builder {
    let is_kept = |(name, _): &&(&str, &str)| changes.iter().all(|(changed, _)| changed != name);
    let kept = headers.iter().filter(is_kept);
    let all = kept.chain(changes.iter().filter(|(_, value)| !value.is_empty()));
    all.fold(Request::get("/add"), |request, (name, value)| request.header(*name, *value))
}

fn app(builder: SessionManagerBuilder<Visits>) -> Router {
    scripted(builder.build().unwrap())
}

fn secure() -> SessionManagerBuilder<Visits> {
    Mode::Cookie.builder(&ManualClock::new())
}

/// Returns the lines that a new session of this request brings.
async fn lines_of(app: &Router, request: request::Builder) -> Vec<String> {
    let log = Log::start();
    assert_eq!(send(app, request).await.status, StatusCode::OK);
    log.take()
}

#[track_caller]
fn expect_warning(lines: &[String], host: &str) {
    let [line] = lines else { panic!("expected one line for {host}, got {lines:?}") };
    let parts = ["WARN", "browsers drop Secure cookies", "https", ".insecure_http(true)"];
    for part in parts.into_iter().chain([&*format!("host={host:?}")]) {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[track_caller]
fn expect_silence(lines: &[String], at: &str) {
    assert_eq!(lines, <[&str; 0]>::default(), "{at}");
}

#[tokio::test]
async fn a_browser_over_plain_http_is_warned_of_whatever_it_asks_for() {
    for headers in [OPENS, POSTS, FETCHES, FETCHES_BY_POST] {
        let lines = lines_of(&app(secure()), changed(headers, &[])).await;
        expect_warning(&lines, "app.test");
    }
}

#[tokio::test]
async fn the_host_is_named_as_the_browser_calls_it_without_its_port() {
    for (sent, host) in [
        ("app.test", "app.test"),
        ("192.168.0.7:3000", "192.168.0.7"),
        ("[fd00::7]:3000", "[fd00::7]"),
        ("[fd00::7]", "[fd00::7]"),
        ("my_box:80", "my_box"),
        ("localhost.example", "localhost.example"),
        ("notlocalhost", "notlocalhost"),
        ("128.0.0.1", "128.0.0.1"),
        ("127.0.0.1.example", "127.0.0.1.example"),
    ] {
        expect_warning(&lines_of(&app(secure()), changed(OPENS, &[("host", sent)])).await, host);
    }
    // HTTP/2 without TLS has the host in the URI.
    let request = changed(OPENS, &[("host", "")]).uri("http://app.test:8123/add");
    expect_warning(&lines_of(&app(secure()), request).await, "app.test");
}

#[tokio::test]
async fn the_port_of_a_page_counts_no_more_than_for_cookies() {
    for page in ["http://app.test", "http://app.test:8080"] {
        let fetch = changed(FETCHES, &[("origin", page), ("referer", "")]);
        expect_warning(&lines_of(&app(secure()), fetch).await, "app.test");
    }
}

#[tokio::test]
async fn a_proxy_that_says_plain_http_is_believed() {
    for (name, value) in [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "HTTP"),
        ("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43"),
        ("forwarded", "Proto=\"http\""),
    ] {
        let changes = [(name, value), ("upgrade-insecure-requests", ""), ("accept-encoding", "")];
        let lines = lines_of(&app(secure()), changed(OPENS, &changes)).await;
        expect_warning(&lines, "app.test");
    }
}

#[tokio::test]
async fn nothing_that_speaks_of_tls_or_localhost_is_warned_of() {
    for headers in [OPENS_LOCALHOST, POSTS_TO_LOCALHOST] {
        expect_silence(&lines_of(&app(secure()), changed(headers, &[])).await, "localhost");
        // The browser of a site behind a proxy that ends TLS and does not say so.
        let changes = [("host", "app.test"), ("origin", "https://app.test"), ("referer", "")];
        expect_silence(&lines_of(&app(secure()), changed(headers, &changes)).await, "TLS");
    }
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-proto", "http,https"),
        ("forwarded", "for=192.0.2.60;proto=https"),
        ("forwarded", "for=192.0.2.60;Proto=\"HTTPS\", for=10.0.0.1;proto=http"),
        ("origin", "https://app.test:8123"),
        ("referer", "https://app.test:8123/"),
        ("sec-fetch-site", "none"),
        ("sec-fetch-mode", "cors"),
        ("accept-encoding", "gzip, deflate, br"),
        ("host", "localhost"),
        ("host", "LOCALHOST:3000"),
        ("host", "app.localhost:3000"),
        ("host", "127.0.0.1:3000"),
        ("host", "127.9.8.7"),
        ("host", "[::1]:3000"),
    ] {
        for headers in [OPENS, POSTS] {
            let lines = lines_of(&app(secure()), changed(headers, &[(name, value)])).await;
            expect_silence(&lines, value);
        }
    }
    let request = changed(OPENS, &[("host", "")]).uri("https://app.test/add");
    expect_silence(&lines_of(&app(secure()), request).await, "HTTP/2 over TLS");
}

#[tokio::test]
async fn a_second_header_of_a_proxy_counts_as_the_first() {
    let request = changed(OPENS, &[("x-forwarded-proto", "http")]);
    let request = request.header("x-forwarded-proto", "https");
    expect_silence(&lines_of(&app(secure()), request).await, "https second");
}

/// Behind a proxy that ends TLS and does not say so, a guess would be wrong.
#[tokio::test]
async fn nothing_is_warned_of_that_does_not_prove_to_be_a_browser_over_plain_http() {
    let curl = [("user-agent", "curl/8.5.0"), ("accept", "*/*")];
    let bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let cases: [&[(&str, &str)]; 8] = [
        &curl,
        &[("user-agent", "curl/8.5.0"), ("x-forwarded-proto", "http")],
        &[("user-agent", "")],
        &[("user-agent", bot), ("upgrade-insecure-requests", "")],
        // A proxy that compresses takes the sign of TLS away.
        &[("accept-encoding", "")],
        &[("upgrade-insecure-requests", ""), ("origin", "http://other.test:8123")],
        &[("upgrade-insecure-requests", ""), ("origin", "http://app.test.evil")],
        &[("upgrade-insecure-requests", ""), ("referer", "http://app.testing/")],
    ];
    for changes in cases {
        let lines = lines_of(&app(secure()), changed(OPENS, changes)).await;
        expect_silence(&lines, &format!("{changes:?}"));
    }
}

#[tokio::test]
async fn nothing_is_warned_of_where_no_secure_cookie_is_sent() {
    let plain = Cookie::build("id").secure(false);
    let managers = [
        secure().insecure_http(true),
        secure().transport(Transport::bearer()),
        secure().transport(Transport::header("x-session")),
        secure().cookie(plain),
    ];
    for manager in managers {
        let app = app(manager);
        expect_silence(&lines_of(&app, changed(POSTS, &[])).await, "no Secure cookie");
    }
    let app = app(secure());
    let read = changed(OPENS, &[]).uri("/read");
    expect_silence(&lines_of(&app, read).await, "no cookie is sent");
    let cookie = send(&app, Request::get("/add")).await.pair().unwrap();
    let kept = changed(OPENS, &[("cookie", &cookie)]);
    expect_silence(&lines_of(&app, kept).await, "the browser kept the cookie");
}

async fn each_host_is_warned_of_once(mode: Mode) {
    let clock = ManualClock::new();
    let app = app(mode.builder(&clock));
    for host in ["one.test", "two.test"] {
        expect_warning(&lines_of(&app, changed(OPENS, &[("host", host)])).await, host);
        for pause in [MINUTE, DAY] {
            expect_silence(&lines_of(&app, changed(OPENS, &[("host", host)])).await, host);
            clock.advance(pause);
        }
    }
    let again = changed(OPENS, &[("host", "one.test:3000")]);
    expect_silence(&lines_of(&app, again).await, "cookies are for all ports");
}

/// Clients choose the host.
async fn ten_hosts_are_warned_of_at_most(mode: Mode) {
    let app = app(mode.builder(&ManualClock::new()));
    let mut lines = Vec::new();
    for n in 0..30 {
        let host = format!("host{n}.test");
        lines.extend(lines_of(&app, changed(OPENS, &[("host", &host)])).await);
    }
    assert_eq!(lines.len(), 10, "{lines:?}");
}

#[tokio::test]
async fn what_is_no_host_is_not_logged() {
    let long = format!("{}.test", "a".repeat(300));
    for host in [
        "",
        ":80",
        "a b",
        "a\"b",
        "<script>",
        "user@app.test",
        "app.test/path",
        "a,b",
        "\u{f6}",
        &long,
    ] {
        let request = changed(OPENS, &[("host", "")]).header("host", host);
        expect_silence(&lines_of(&app(secure()), request).await, host);
    }
}
