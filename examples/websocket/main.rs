//! A chat over a WebSocket that ends at sign-out, and a stream of events beside it.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example websocket
//! ```
//!
//! Open <http://127.0.0.1:3000> in two tabs, sign in, and write. Sign out in one tab: the other shows the sign-in form
//! within a second.
//!
//! A `Session` belongs to one request, and a socket lives on after its response. So the socket keeps a `SessionHandle`,
//! which loads and changes the stored session. It answers `SessionError::Gone` once the session has ended or has
//! expired. Nothing wakes the socket then, so it looks once a second, and before each line that it passes on.
//!
//! An open socket does not extend its session, and no cookie can be set through it.
//!
//! The sign-in asks for no password; the example `login` is complete. `PORT` sets the port, and `INSECURE_HTTP=1` suits
//! browsers that refuse Secure cookies on `http://localhost`.

mod page;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, env, error::Error, time::Duration};

use axum::{
    Form, Router,
    extract::{
        FromRef, FromRequestParts, State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{StatusCode, Uri, header, request::Parts, uri::Authority},
    response::{
        IntoResponse, Redirect, Response,
        sse::{Event, Sse},
    },
    routing::{any, get, post},
};
use axum_typed_session::{
    ConfigError, IdleTimeout, KeyRing, MemoryStore, Session, SessionError, SessionHandle,
    SessionManager,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::interval,
};

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    /// How many lines the user has written in this session.
    sent: u32,
}

/// The channel that carries the lines of all users.
type Room = broadcast::Sender<Utf8Bytes>;

#[derive(Clone, FromRef)]
struct App {
    logins: SessionManager<Login>,
    room: Room,
}

impl App {
    fn new(keys: KeyRing, insecure_http: bool) -> Result<Self, ConfigError> {
        // Handles need a store: a session in the cookie leaves the server with its response.
        let logins = SessionManager::builder()
            .keys(keys)
            .store(MemoryStore::new())
            .owner(|login: &Login| login.user.clone())
            .idle_timeout(IdleTimeout::BrowserSession(Duration::from_secs(2 * 60 * 60)))
            .rolling(true)
            .insecure_http(insecure_http)
            .build()?;
        Ok(Self { logins, room: Room::new(100) })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/sign-in", post(sign_in))
            .route("/sign-out", post(sign_out))
            .route("/socket", any(open_socket))
            .route("/sent", get(sent))
            .route("/chat.js", get(page::script))
            .with_state(self)
    }
}

async fn index(login: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let page = page::index(&login);
    // The back button shows no chat after sign-out, since the browser keeps no copy of the page.
    Ok(([(header::CACHE_CONTROL, "no-store")], login.commit().await?, page))
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
}

/// The form asks for no longer name.
const LONGEST_NAME: usize = 40;

async fn sign_in(
    mut login: Session<Login>,
    Form(form): Form<SignIn>,
) -> Result<impl IntoResponse, SessionError> {
    let name = form.name.trim();
    if (1..=LONGEST_NAME).contains(&name.chars().count()) {
        *login = Login { user: Some(name.to_owned()), sent: 0 };
        login.regenerate();
    }
    Ok((login.commit().await?, Redirect::to("/")))
}

async fn sign_out(mut login: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    login.destroy();
    Ok((login.commit().await?, Redirect::to("/")))
}

/// A request that a page of this server made, as its `Origin` header says.
///
/// Browsers let a page open a socket to any server. `SameSite=Lax` keeps the cookie from pages of other sites, but not
/// from other hosts of the same site. A proxy in front must pass `Host` on; otherwise compare with the public address.
struct SameOrigin;

impl<S: Sync> FromRequestParts<S> for SameOrigin {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let value = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let origin = value(header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
        let page = origin.as_ref().and_then(Uri::authority).map(Authority::as_str);
        if page.is_some() && page == value(header::HOST) {
            Ok(Self)
        } else {
            Err((StatusCode::FORBIDDEN, "only pages of this server may open a socket"))
        }
    }
}

const SIGN_IN_FIRST: (StatusCode, &str) = (StatusCode::UNAUTHORIZED, "sign in first");

/// The longest line that a socket takes, in bytes.
const LONGEST_LINE: usize = 2000;

async fn open_socket(
    _: SameOrigin,
    upgrade: WebSocketUpgrade,
    State(room): State<Room>,
    login: Session<Login>,
) -> Result<Response, SessionError> {
    let Some(user) = login.user.clone() else {
        return Ok(login.commit().await?.wrap(SIGN_IN_FIRST));
    };
    let commit = login.commit().await?;
    let login = commit.handle::<Login>()?;
    let response = upgrade
        .max_message_size(LONGEST_LINE)
        .on_upgrade(async move |socket| serve(socket, &user, &login, &room).await);
    Ok(commit.wrap(response))
}

/// How long a socket or a stream may outlive its session.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Tells the page that the session has ended. Codes from 4000 on are the application's own.
const SIGNED_OUT: u16 = 4001;

/// Serves a socket until the page leaves it or the session ends.
async fn serve(mut socket: WebSocket, user: &str, login: &SessionHandle<Login>, room: &Room) {
    let Err(error) = chat(&mut socket, user, login, room).await else { return };
    let (code, reason) = if matches!(error, SessionError::Gone) {
        (SIGNED_OUT, "signed out")
    } else {
        tracing::warn!(%error, "a socket is closed, since its session cannot be read");
        (close_code::AGAIN, "try again later")
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if let Err(error) = socket.send(close).await {
        tracing::debug!(%error, "the page has left already");
    }
}

/// Returns `Ok` once the page has left.
async fn chat(
    socket: &mut WebSocket,
    user: &str,
    login: &SessionHandle<Login>,
    room: &Room,
) -> Result<(), SessionError> {
    let mut lines = room.subscribe();
    let mut check = interval(CHECK_EVERY);
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => say(text.trim(), user, login, room).await?,
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
            },
            line = lines.recv() => match line {
                Ok(line) => {
                    if socket.send(Message::Text(line)).await.is_err() {
                        return Ok(());
                    }
                }
                // A page that reads slowly misses lines.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = check.tick() => drop(login.load().await?),
        }
    }
}

/// Counts a line in the session, and passes it on. After sign-out the count fails, so the line is not passed on.
async fn say(
    text: &str,
    user: &str,
    login: &SessionHandle<Login>,
    room: &Room,
) -> Result<(), SessionError> {
    if !text.is_empty() {
        login.update(|login| login.sent += 1).await?;
        let line = json!({ "user": user, "text": text }).to_string();
        // Without a listener there is nothing to do.
        let _ = room.send(line.into());
    }
    Ok(())
}

/// Streams how many lines the session has sent, from any tab, until it ends.
async fn sent(login: Session<Login>) -> Result<Response, SessionError> {
    if login.user.is_none() {
        return Ok(login.commit().await?.wrap(SIGN_IN_FIRST));
    }
    let commit = login.commit().await?;
    let start = (commit.handle::<Login>()?, interval(CHECK_EVERY));
    let events = stream::unfold(start, async |(login, mut check)| {
        check.tick().await;
        let sent = login.load().await.ok()?.sent;
        Some((Ok::<_, Infallible>(Event::default().data(sent.to_string())), (login, check)))
    });
    Ok(commit.wrap(Sse::new(events)))
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("websocket: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let insecure_http = env::var("INSECURE_HTTP").is_ok_and(|value| value == "1");
    let app = App::new(KeyRing::from_env("SESSION_KEY")?, insecure_http)?;
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.router()).await?;
    Ok(())
}
