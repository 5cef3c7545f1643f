//! A site moves from koa to axum while both applications run, and every user stays signed in.
//!
//! The old application in `old/server.mjs` keeps its sessions with koa-session. This program is the one address of
//! both: it sends every second request to the old application, as long as the visitor has not moved. The response of
//! the new application sets its own cookie and removes the old one, so a visitor who has moved stays with it.
//!
//! ```text
//! export OLD_KEYS=an-old-secret
//! npm ci --prefix examples/moving_in/old
//! node examples/moving_in/old/server.mjs
//! ```
//!
//! In a second terminal, with the same `OLD_KEYS`:
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example moving_in --features import
//! ```
//!
//! In a third terminal:
//!
//! ```text
//! # Sign in at the old application, behind the one address.
//! curl -c jar -b jar -X POST http://127.0.0.1:3001/sign-in/ann
//!
//! # The old application answers once more at most. Then the new one knows the same user.
//! curl -c jar -b jar http://127.0.0.1:3000/
//! curl -c jar -b jar http://127.0.0.1:3000/
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/sign-out
//! ```
//!
//! The program prints a line for each session that moves. When no more lines come, the old application can stop.
//! `PORT` and `OLD_URL` set the addresses, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on
//! `http://localhost`.

#[cfg(test)]
mod tests;

use std::{
    env,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use axum_typed_session::{
    KeyRing, MemoryStore, Session, SessionError, SessionEventKind, SessionManager,
    SessionManagerBuilder,
    import::KoaSessions,
    time::{Duration, OffsetDateTime},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
}

/// The sessions of the new application, which take over those of the old one.
fn sessions(old_keys: Vec<String>, until: OffsetDateTime) -> SessionManagerBuilder<Login> {
    // Of the old session only the name of its user is needed.
    let old = KoaSessions::new(old_keys, |data| {
        let name = data["user"]["name"].as_str()?;
        Some(Login { user: Some(name.to_owned()) })
    });
    SessionManager::builder()
        .store(MemoryStore::new())
        .owner(|login: &Login| login.user.clone())
        .import(until, old)
        .on_event(|event| {
            if event.kind == SessionEventKind::Imported {
                println!("a session has moved");
            }
        })
}

async fn index(session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let user = session.user.as_deref().unwrap_or("stranger");
    let body = format!("hello {user}, says the new application\n");
    Ok((session.commit().await?, body))
}

/// A real application asks for a password, as the example `login` does.
async fn sign_in(
    Path(name): Path<String>,
    mut session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    session.regenerate();
    session.user = Some(name);
    Ok((session.commit().await?, Redirect::to("/")))
}

async fn sign_out(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

/// The way to the old application.
#[derive(Clone)]
struct Old {
    url: Arc<str>,
    client: Client<HttpConnector, Body>,
    requests: Arc<AtomicUsize>,
}

impl Old {
    fn at(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.trim_end_matches('/').into(), client, requests: Arc::default() }
    }
}

/// Sends every second request of visitors who have not moved to the old application.
async fn share(State(old): State<Old>, request: Request, next: Next) -> Response {
    let is_second = || old.requests.fetch_add(1, Ordering::Relaxed) % 2 == 1;
    if has_moved(request.headers()) || is_second() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", old.url).parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    parts.uri = uri;
    match old.client.request(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(error) => {
            eprintln!("moving_in: the old application does not answer: {error}");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

/// Returns `true` if a request brings the cookie of the new application.
fn has_moved(headers: &HeaderMap) -> bool {
    let cookies =
        headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut names = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
        let (name, _) = cookie.split_once('=')?;
        Some(name.trim())
    });
    names.any(|name| name == "__Host-session" || name == "session")
}

fn app(sessions: SessionManager<Login>, old: Old) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/sign-in/{name}", post(sign_in))
        .route("/sign-out", post(sign_out))
        .layer(middleware::from_fn_with_state(old, share))
        .with_state(sessions)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("moving_in: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let old_keys = env::var("OLD_KEYS")?.split(',').map(str::to_owned).collect();
    // A real application writes a date here, which does not move with each start.
    let until = OffsetDateTime::now_utc() + Duration::weeks(4);
    let sessions = sessions(old_keys, until)
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let old = env::var("OLD_URL").unwrap_or_else(|_| "http://127.0.0.1:3001".to_owned());
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(3000);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(sessions, Old::at(&old))).await?;
    Ok(())
}
