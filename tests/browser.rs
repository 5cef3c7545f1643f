//! What a real browser makes of the cookies: Chromium, headless, over a real socket.
#![allow(unreachable_pub, reason = "`pub` there is what test modules share")]

#[path = "common/logs.rs"]
mod logs;

use std::{env, path::Path, process::Stdio, time::Duration};

use axum::{
    Router,
    response::{AppendHeaders, Html, IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{Key, Session, SessionError, SessionManager, cookie::Cookie};
use http::{HeaderMap, header};
use logs::Log;
use tokio::process::Command;

const CHROMIUM: [&str; 3] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// A script that visits like a person and writes down what it saw.
const PAGE: &str = r"<!doctype html><pre id=out></pre><script>
(async () => {
  const seen = [];
  const visit = async (path, method) => (await fetch(path, {method, redirect: 'manual'})).text();
  for (let i = 0; i < 3; i++) seen.push(await visit('/', 'GET'));
  seen.push('script sees [' + document.cookie + ']');
  await visit('/logout', 'POST');
  seen.push(await visit('/', 'GET'));
  document.getElementById('out').textContent = seen.join('|');
})();
</script>";

/// A script that writes down which cookies the browser sends to the page's folder and to the front page.
const COOKIES_PAGE: &str = r"<!doctype html><pre id=out></pre><script>
(async () => {
  const sent = async (path) => (await fetch(path)).text();
  document.getElementById('out').textContent = await sent('sent') + '|' + await sent('/');
})();
</script>";

/// What the script saw where the cookie was kept.
const KEPT: &str = "1 visits|2 visits|3 visits|script sees []|1 visits";

async fn index(mut visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    *visits += 1;
    let body = format!("{} visits", *visits);
    Ok((visits.commit().await?, body))
}

async fn logout(mut visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    visits.destroy();
    Ok((visits.commit().await?, Redirect::to("/")))
}

/// The counter and the page that visits it.
fn counter(insecure_http: bool) -> Router {
    let sessions = SessionManager::<u32>::builder()
        .keys(Key::generate())
        .insecure_http(insecure_http)
        .build()
        .unwrap();
    Router::new()
        .route("/", get(index))
        .route("/logout", post(logout))
        .route("/folder/page", get(async || Html(PAGE)))
        .with_state(sessions)
}

/// A page that sets cookies, and what it fetches.
fn cookies(cookies: Vec<String>) -> Router {
    async fn sent(headers: HeaderMap) -> String {
        let sent = headers.get(header::COOKIE).map(|cookies| cookies.to_str().unwrap().to_owned());
        sent.unwrap_or_default()
    }
    let page = async move || {
        let cookies = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
        (AppendHeaders(cookies.collect::<Vec<_>>()), Html(COOKIES_PAGE))
    };
    Router::new()
        .route("/", get(sent))
        .route("/folder/sent", get(sent))
        .route("/folder/page", get(page))
}

/// Serves an app on every host there is, and returns what a browser saw on a page of it.
async fn what_chromium_sees(chromium: &str, app: Router, host: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let profile =
        env::temp_dir().join(format!("typed-session-browser-{}-{port}", std::process::id()));
    let browser = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * 127.0.0.1",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{host}:{port}/folder/page"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), browser).await;
    server.abort();
    let _ = std::fs::remove_dir_all(&profile);
    let page = String::from_utf8(output.unwrap().unwrap().stdout).unwrap();
    let seen = page.split_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    seen.map(|(seen, _)| seen.to_owned()).unwrap_or(page)
}

/// The browser's path; without one the test says so, and fails where the whole suite must run.
fn chromium() -> Option<&'static str> {
    let found = CHROMIUM.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        assert!(env::var("CI").is_err(), "no Chromium: install Debian's package `chromium`");
        eprintln!("SKIPPED: browser tests need Chromium; install Debian's package `chromium`");
    }
    found
}

#[tokio::test]
async fn chromium_keeps_the_default_cookie_hides_it_from_scripts_and_drops_it_at_logout() {
    let Some(chromium) = chromium() else { return };
    let log = Log::start();
    for host in ["127.0.0.1", "localhost", "app.localhost"] {
        assert_eq!(what_chromium_sees(chromium, counter(false), host).await, KEPT, "{host}");
    }
    assert_eq!(log.take(), <[&str; 0]>::default());
}

#[tokio::test]
async fn chromium_drops_the_default_cookie_over_plain_http_elsewhere_and_a_warning_says_so() {
    let Some(chromium) = chromium() else { return };
    let log = Log::start();
    let seen = what_chromium_sees(chromium, counter(false), "app.test").await;
    assert_eq!(seen, "1 visits|1 visits|1 visits|script sees []|1 visits");
    let [line] = &log.take()[..] else { panic!("expected one line") };
    assert!(line.contains("browsers drop Secure cookies") && line.contains("app.test"), "{line}");
}

#[tokio::test]
async fn chromium_keeps_the_cookie_of_insecure_http() {
    let Some(chromium) = chromium() else { return };
    let app = counter(true);
    let log = Log::start();
    for host in ["127.0.0.1", "app.test"] {
        assert_eq!(what_chromium_sees(chromium, app.clone(), host).await, KEPT, "{host}");
    }
    assert_eq!(log.take(), <[&str; 0]>::default());
}

/// Domains that a host asks for, and whether Chromium keeps the cookie.
const DOMAINS: [(&str, &[(&str, bool)]); 7] = [
    (
        "www.example.com",
        &[
            ("example.com", true),
            (".example.com", true),
            ("EXAMPLE.com", true),
            ("https://example.com", false),
            ("example.com:3000", false),
            ("example.com/", false),
            ("*.example.com", false),
            ("example..com", false),
            ("..example.com", false),
            ("example.com.", false),
            ("exa mple.com", false),
            ("1.2.3", false),
        ],
    ),
    ("www.b\u{fc}cher.example", &[("xn--bcher-kva.example", true), ("b\u{fc}cher.example", true)]),
    ("127.0.0.1", &[("127.0.0.1", true), ("127.0.0.01", false), ("127.1", false)]),
    ("[::1]", &[("[::1]", true), ("::1", false)]),
    ("localhost", &[("localhost", true)]),
    ("com", &[("com", true)]),
    ("a_b.example", &[("a_b.example", true)]),
];

#[tokio::test]
async fn chromium_drops_the_domains_that_build_refuses_and_keeps_the_others() {
    let Some(chromium) = chromium() else { return };
    for (host, domains) in DOMAINS {
        let numbered = || domains.iter().enumerate();
        let set = numbered().map(|(n, (domain, _))| format!("c{n}=1; Domain={domain}"));
        let seen = what_chromium_sees(chromium, cookies(set.collect()), host).await;
        for (n, (domain, is_kept)) in numbered() {
            assert_eq!(seen.contains(&format!("c{n}=1")), *is_kept, "{domain} at {host}: {seen}");
            let cookie = Cookie::build("id").domain(*domain);
            let built =
                SessionManager::<u32>::builder().keys(Key::generate()).cookie(cookie).build();
            // RFC 6265bis drops letters beyond ASCII (section 5.7), so other browsers may.
            assert_eq!(built.is_ok(), *is_kept && domain.is_ascii(), "{domain}: {built:?}");
        }
    }
}

/// `build()` warns of these.
#[tokio::test]
async fn chromium_keeps_an_address_and_a_single_label_at_that_host_alone() {
    let Some(chromium) = chromium() else { return };
    for (host, domain) in
        [("www.localhost", "localhost"), ("www.com", "com"), ("127.0.0.2", "127.0.0.1")]
    {
        let set = vec![format!("c=1; Domain={domain}")];
        let seen = what_chromium_sees(chromium, cookies(set), host).await;
        assert_eq!(seen, "|", "{domain} at {host}");
    }
}

#[tokio::test]
async fn chromium_takes_the_folder_for_a_path_that_does_not_begin_with_a_slash() {
    let Some(chromium) = chromium() else { return };
    let set = vec!["good=1; Path=/".to_owned(), "bad=1; Path=app".to_owned()];
    let seen = what_chromium_sees(chromium, cookies(set), "localhost").await;
    assert_eq!(seen, "bad=1; good=1|good=1");
}
