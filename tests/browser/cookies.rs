//! Which cookies Chromium keeps and sends, on hosts of any name. It visits a page whose script writes down what it saw.

use std::{env, process::Stdio, sync::LazyLock, time::Duration};

use axum::{
    Router,
    response::{AppendHeaders, Html, IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{
    Key, Session, SessionError, SessionManager, SessionManagerBuilder,
    cookie::{Cookie, SameSite},
};
use http::{HeaderMap, header, request::Parts};
use tokio::process::Command;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{browser::chromium, logs::Log};

/// Releases and tenants share one key, so that nothing else keeps them apart.
static KEY: LazyLock<Key> = LazyLock::new(Key::generate);

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

/// A script that visits a list of pages, `host path` or a path alone, and writes down their answers.
const VISITS_PAGE: &str = r"<!doctype html><pre id=out></pre><script>
(async () => {
  const seen = [];
  for (const page of PAGES) {
    const [path, host] = page.split(' ').reverse();
    const url = 'http://' + (host || location.hostname) + ':' + location.port + path;
    seen.push(await (await fetch(url, {method: 'POST', credentials: 'include'})).text());
  }
  document.getElementById('out').textContent = seen.join('|');
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

/// A release of an application: `/add`, `/read` and `/logout`, which answer with the count.
fn release(builder: SessionManagerBuilder<u32>) -> Router {
    async fn answer(visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
        let body = visits.to_string();
        Ok((visits.commit().await?, body))
    }
    let add = async |mut visits: Session<u32>| {
        *visits += 1;
        answer(visits).await
    };
    let logout = async |mut visits: Session<u32>| {
        visits.destroy();
        answer(visits).await
    };
    Router::new()
        .route("/add", post(add))
        .route("/read", post(answer))
        .route("/logout", post(logout))
        .with_state(builder.build().unwrap())
}

/// A page that visits these pages of an application.
fn visiting(app: Router, pages: &[&str]) -> Router {
    let page = VISITS_PAGE.replace("PAGES", &format!("{pages:?}"));
    app.route("/folder/page", get(async || Html(page)))
}

#[tokio::test]
async fn a_former_cookie_disappears_from_chromium_after_the_move_and_at_a_logout() {
    async fn count(headers: HeaderMap) -> String {
        let sent = headers.get(header::COOKIE).map(|cookies| cookies.to_str().unwrap().to_owned());
        sent.map_or(0, |sent| sent.split(';').count()).to_string()
    }
    let Some(chromium) = chromium() else { return };
    let named = |name: &'static str| Cookie::build(name).same_site(SameSite::None);
    let cases = [
        ("localhost", named("id").path("/folder"), named("id")),
        ("localhost", named("id"), named("id").path("/folder")),
        ("localhost", named("id"), named("__Host-id")),
        ("www.shop.localhost", named("id").domain("shop.localhost"), named("id")),
        ("www.shop.localhost", named("id"), named("id").domain("shop.localhost")),
        ("localhost", named("id"), named("id").partitioned(true)),
    ];
    let pages = [
        ("/folder/old/add", "1"),
        ("/folder/sent", "1"),
        // The session moves, and so does the cookie.
        ("/folder/new/read", "1"),
        ("/folder/sent", "1"),
        ("/folder/new/add", "2"),
        // An old node does not know today's cookie, and sets its own beside it.
        ("/folder/old/add", "1"),
        ("/folder/sent", "2"),
        ("/folder/new/read", "2"),
        ("/folder/new/logout", "2"),
        ("/folder/sent", "0"),
        ("/folder/new/read", "0"),
    ];
    for (host, was, is) in cases {
        let builder = || SessionManager::builder().keys(KEY.clone());
        let old = release(builder().cookie(was.clone()));
        let new = release(builder().cookie(is.clone()).former_cookie(was.clone()));
        let app = Router::new()
            .nest("/folder/old", old)
            .nest("/folder/new", new)
            .route("/folder/sent", post(count));
        let app = visiting(app, &pages.map(|(page, _)| page));
        let seen = what_chromium_sees(chromium, app, host).await;
        assert_eq!(seen, pages.map(|(_, seen)| seen).join("|"), "{was:?} {is:?} at {host}");
    }
}

#[tokio::test]
async fn chromium_keeps_the_sessions_of_two_tenants_apart() {
    fn host(parts: &Parts) -> String {
        let host = parts.headers.get(header::HOST).unwrap().to_str().unwrap();
        host.split(':').next().unwrap().to_owned()
    }
    let Some(chromium) = chromium() else { return };
    let of_host = |parts: &Parts| Cookie::build("id").domain(host(parts)).build();
    let of_all = |_: &Parts| Cookie::build("id").domain("shop.localhost").build();
    let apart: &[(&str, &str)] = &[
        ("a.shop.localhost /add", "1"),
        ("a.shop.localhost /add", "2"),
        ("b.shop.localhost /read", "0"),
        ("b.shop.localhost /add", "1"),
        ("a.shop.localhost /read", "2"),
        ("b.shop.localhost /logout", "1"),
        ("b.shop.localhost /read", "0"),
        ("a.shop.localhost /read", "2"),
    ];
    // The browser sends the cookie of one to the other.
    let together: &[(&str, &str)] = &[
        ("a.shop.localhost /add", "1"),
        ("b.shop.localhost /read", "0"),
        ("a.shop.localhost /read", "1"),
        ("b.shop.localhost /add", "1"),
        ("a.shop.localhost /read", "0"),
    ];
    let builder = || SessionManager::builder().keys(KEY.clone()).audience_for(host);
    let cases = [
        (release(builder()), apart),
        (release(builder().cookie_for(of_host)), apart),
        (release(builder().cookie_for(of_all)), together),
    ];
    for (app, pages) in cases {
        let cors = CorsLayer::new().allow_origin(AllowOrigin::mirror_request());
        let app = app.layer(cors.allow_credentials(true));
        let list: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
        let seen = what_chromium_sees(chromium, visiting(app, &list), "a.shop.localhost").await;
        let expected: Vec<_> = pages.iter().map(|(_, seen)| *seen).collect();
        assert_eq!(seen, expected.join("|"));
    }
}
