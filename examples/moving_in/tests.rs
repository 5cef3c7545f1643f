//! Both applications run, and nobody is signed out.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use axum::{body::Body, http::Request};
use axum_typed_session::Key;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

/// The old application; it is stopped when this is dropped.
struct Koa {
    process: Child,
    url: String,
}

impl Koa {
    /// Starts the old application; `None`, with a loud word, where there is no npm.
    fn start() -> Option<Self> {
        static IS_INSTALLED: OnceLock<bool> = OnceLock::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/moving_in/old");
        if !IS_INSTALLED.get_or_init(|| install(&folder)) {
            return None;
        }
        let mut process = Command::new("node")
            .arg("server.mjs")
            .current_dir(folder)
            .env("OLD_KEYS", "a new secret,an old secret")
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(' ').next_back().unwrap().trim().to_owned();
        Some(Self { process, url })
    }

    /// The one address of both applications.
    fn and_new(&self) -> Router {
        let keys = vec!["a new secret".to_owned()];
        let until = OffsetDateTime::now_utc() + Duration::DAY;
        let sessions = sessions(keys, until).keys(Key::generate()).build().unwrap();
        app(sessions, Old::at(&self.url))
    }
}

/// Installs the packages of the old application. Returns `false` where there is no npm.
fn install(folder: &Path) -> bool {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--silent", "--no-fund", "--no-audit"]).current_dir(folder);
    if let Ok(installed) = npm.status() {
        assert!(installed.success(), "npm could not install the old application");
        return true;
    }
    let is_ci = env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
    assert!(!is_ci, "npm is not installed, which CI needs for the example moving_in");
    // Not `eprintln!`, which the test harness swallows.
    let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED: moving_in needs npm !!!\n");
    false
}

impl Drop for Koa {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A visitor with a browser.
struct Visitor {
    app: Router,
    jar: BTreeMap<String, String>,
}

impl Visitor {
    fn new(app: &Router) -> Self {
        Self { app: app.clone(), jar: BTreeMap::new() }
    }

    async fn send(&mut self, method: &str, path: &str) -> String {
        let pairs = self.jar.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookies);
        let response = self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.unwrap().into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") || attributes.contains("expires=Thu, 01 Jan 1970") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = body.collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn has_moved(&self) -> bool {
        self.jar.contains_key("__Host-session")
    }
}

#[tokio::test]
async fn nobody_is_signed_out_while_both_applications_run() {
    let Some(koa) = Koa::start() else { return };
    let app = koa.and_new();
    let (mut at_old, mut moved) = (0, 0);
    for number in 0..50 {
        if number % 3 == 0 {
            // Another request, so that visitors begin at both applications.
            Visitor::new(&app).send("GET", "/").await;
        }
        let mut visitor = Visitor::new(&app);
        let name = format!("visitor{number}");
        visitor.send("POST", &format!("/sign-in/{name}")).await;
        let signed_in_at_old = !visitor.has_moved();
        at_old += usize::from(signed_in_at_old);
        for _ in 0..5 {
            let body = visitor.send("GET", "/").await;
            assert!(body.starts_with(&format!("hello {name}, says the ")), "{body}");
        }
        assert!(visitor.has_moved() && !visitor.jar.contains_key("koa.sess"));
        moved += usize::from(signed_in_at_old);
    }
    assert!((10..40).contains(&at_old), "{at_old} signed in at the old application");
    assert_eq!(moved, at_old);
}

#[tokio::test]
async fn a_visitor_who_signed_out_is_a_stranger_to_both() {
    let Some(koa) = Koa::start() else { return };
    let app = koa.and_new();
    let mut visitor = Visitor::new(&app);
    while visitor.jar.is_empty() || visitor.has_moved() {
        visitor.jar.clear();
        visitor.send("POST", "/sign-in/ann").await;
    }
    let old_cookies = visitor.jar.clone();
    while !visitor.has_moved() {
        visitor.send("GET", "/").await;
    }
    visitor.send("POST", "/sign-out").await;
    assert!(visitor.jar.is_empty(), "{:?}", visitor.jar);
    for _ in 0..4 {
        assert!(visitor.send("GET", "/").await.starts_with("hello stranger"));
    }
    // A copy of the old cookie opens nothing in the new application any more.
    let mut copy = Visitor { jar: old_cookies, ..Visitor::new(&app) };
    for _ in 0..4 {
        let body = copy.send("GET", "/").await;
        assert!(!body.contains("hello ann, says the new"), "{body}");
    }
}
