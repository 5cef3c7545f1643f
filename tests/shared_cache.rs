//! What a shared cache makes of the answers: nginx, told to keep every page for ten minutes.
#![allow(unreachable_pub, reason = "`pub` there is what test modules share")]

#[path = "common/servers.rs"]
#[allow(dead_code, reason = "other suites use the rest")]
mod servers;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use axum::{
    Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, Key, Session, SessionCommit, SessionError, SessionManager,
};
use serde::{Deserialize, Serialize};
use servers::{Server, find, folder, free_port, wait_until};

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
}

async fn login(
    mut session: Session<Login>,
    Path(name): Path<String>,
) -> Result<SessionCommit, SessionError> {
    session.user = Some(name);
    session.regenerate();
    session.commit().await
}

async fn me(session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let body = session.user.clone().unwrap_or_else(|| "nobody".to_owned());
    Ok((session.commit().await?, body))
}

async fn maybe(
    State(sessions): State<SessionManager<Login>>,
    session: Option<Session<Login>>,
) -> Result<impl IntoResponse, SessionError> {
    let Some(session) = session else {
        return Ok((sessions.no_session(), "nobody".to_owned()));
    };
    let body = session.user.clone().unwrap_or_default();
    Ok((session.commit().await?, body))
}

async fn layered(session: Session<Login>) -> String {
    session.user.clone().unwrap_or_else(|| "nobody".to_owned())
}

fn app() -> Router {
    let sessions = SessionManager::<Login>::builder().keys(Key::generate()).build().unwrap();
    let committed_by_the_layer =
        Router::new().route("/layered", get(layered)).layer(AutoCommitLayer::new());
    Router::new()
        .route("/login/{name}", get(login))
        .route("/me", get(me))
        .route("/maybe", get(maybe))
        .route("/public", get(async || "the same for everybody"))
        .merge(committed_by_the_layer)
        .with_state(sessions)
}

/// A cache in front of the application, which keeps whatever it may.
fn nginx(program: &str, application: u16) -> (Server, u16) {
    let (folder, port) = (folder("nginx"), free_port(0));
    let config = format!(
        "daemon off; pid {folder}/pid; error_log stderr;
         events {{}}
         http {{
           access_log off;
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
           fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
           scgi_temp_path {folder}/scgi;
           proxy_cache_path {folder}/cache keys_zone=pages:1m;
           server {{
             listen 127.0.0.1:{port};
             location / {{
               proxy_pass http://127.0.0.1:{application};
               proxy_cache pages;
               proxy_cache_valid 200 10m;
               add_header x-cache $upstream_cache_status;
             }}
           }}
         }}",
        folder = folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    let server = Server::start(&folder, program, &["-c", &file, "-e", "stderr"]).unwrap();
    wait_until("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (server, port)
}

/// Sends a `GET` and returns the head and the body of the answer.
fn visit(port: u16, path: &str, cookie: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let cookie = if cookie.is_empty() { String::new() } else { format!("cookie: {cookie}\r\n") };
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{cookie}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn log_in(port: u16, name: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET /login/{name} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    cookie.unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_no_page_of_one_visitor_to_another() {
    let Some(program) = find("nginx", "shared cache") else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app()).await });
    let program = program.display().to_string();
    let visits = tokio::task::spawn_blocking(move || {
        let (_nginx, port) = nginx(&program, application);
        // The cache works: the second visitor gets what the first one's request left there.
        assert!(visit(port, "/public", "").0.contains("x-cache: miss"));
        assert!(visit(port, "/public", "").0.contains("x-cache: hit"));
        let [ada, bob] = ["ada", "bob"].map(|name| log_in(port, name));
        for path in ["/me", "/maybe", "/layered"] {
            for (cookie, name) in [(&*ada, "ada"), (&*bob, "bob"), ("", "nobody"), (&*ada, "ada")] {
                let (head, body) = visit(port, path, cookie);
                assert_eq!(body, name, "{path}: {head}");
                assert!(!head.contains("x-cache: hit"), "{path}: {head}");
            }
        }
    });
    visits.await.unwrap();
}
