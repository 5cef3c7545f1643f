//! What a real browser makes of the cookies: Chromium, headless, over a real socket.

use std::{env, path::Path, process::Stdio, time::Duration};

use axum::{
    Router,
    response::{Html, IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{Key, Session, SessionError, SessionManager};
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

async fn index(mut visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    *visits += 1;
    let body = format!("{} visits", *visits);
    Ok((visits.commit().await?, body))
}

async fn logout(mut visits: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    visits.destroy();
    Ok((visits.commit().await?, Redirect::to("/")))
}

/// Serves the counter and the page that visits it, and returns what a browser saw.
async fn what_chromium_sees(chromium: &str, insecure_http: bool) -> String {
    let sessions = SessionManager::<u32>::builder()
        .keys(Key::generate())
        .insecure_http(insecure_http)
        .build()
        .unwrap();
    let app = Router::new()
        .route("/", get(index))
        .route("/logout", post(logout))
        .route("/page", get(async || Html(PAGE)))
        .with_state(sessions);
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
            "--virtual-time-budget=10000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://127.0.0.1:{port}/page"))
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

#[tokio::test(flavor = "multi_thread")]
async fn chromium_keeps_the_default_cookie_hides_it_from_scripts_and_drops_it_at_logout() {
    let Some(chromium) = chromium() else { return };
    assert_eq!(
        what_chromium_sees(chromium, false).await,
        "1 visits|2 visits|3 visits|script sees []|1 visits"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_keeps_the_cookie_of_insecure_http() {
    let Some(chromium) = chromium() else { return };
    assert_eq!(
        what_chromium_sees(chromium, true).await,
        "1 visits|2 visits|3 visits|script sees []|1 visits"
    );
}
