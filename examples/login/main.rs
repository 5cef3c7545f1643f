//! Sign-up, sign-in and everything around it, as a product has it.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example login
//! ```
//!
//! Open <http://127.0.0.1:3000> and sign in as `ann` or `bob`, with the password `correct horse`, or sign up.
//!
//! - `users`: passwords as argon2 hashes.
//! - `session`: the session's data, its lifetimes, and the guard of routes.
//! - `sign_in`: the forms for signing up, in and out, with `next`, flash messages, CSRF tokens and "keep me signed in".
//! - `account`: the user's devices, and a change of password that signs out the others.
//! - `cookies`: a theme in a plain cookie, and the last visit in a private cookie, with the key of the session.
//! - `pages`: the HTML.
//!
//! Handlers do not call `commit`: the program runs under `AutoCommitLayer`, which also turns session errors into pages.
//! `PORT` sets the port, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.

#![allow(
    unreachable_pub,
    unnameable_types,
    reason = "in a program, `pub` is what other modules use"
)]

mod account;
mod cookies;
mod pages;
mod session;
mod sign_in;
#[cfg(test)]
mod tests;
mod users;

use std::{env, error::Error};

use axum::{
    Router,
    extract::FromRef,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{from_extractor_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_extra::extract::cookie::Key;
use axum_typed_session::{AutoCommitLayer, ConfigError, SessionManager};
use session::{CurrentUser, Login};
use users::Users;

#[derive(Clone, FromRef)]
struct App {
    sessions: SessionManager<Login>,
    users: Users,
    /// For `PrivateCookieJar`. The sessions use the same secret.
    key: Key,
}

impl App {
    fn new(key: Key, insecure_http: bool) -> Result<Self, ConfigError> {
        let secret = axum_typed_session::Key::try_from(key.master())?;
        let sessions = session::options(secret, insecure_http).build()?;
        Ok(Self { sessions, users: Users::default(), key })
    }

    fn router(self) -> Router {
        let account = Router::new()
            .route("/devices", get(account::devices))
            .route("/devices/sign-out-others", post(account::sign_out_others))
            .route("/devices/sign-out-all", post(account::sign_out_all))
            .route("/devices/{key}/sign-out", post(account::sign_out_one))
            .route("/password", get(account::password_form).post(account::change_password))
            .route_layer(from_extractor_with_state::<CurrentUser, _>(self.clone()));
        Router::new()
            .route("/", get(account::home))
            .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
            .route("/sign-up", get(sign_in::sign_up_form).post(sign_in::sign_up))
            .route("/sign-out", post(sign_in::sign_out))
            .route("/theme", post(cookies::set_theme))
            .nest("/account", account)
            .fallback(pages::not_found)
            .layer(AutoCommitLayer::new())
            .layer(map_response(security_headers))
            // Outside of the layers, so that caches may keep it.
            .route("/style.css", get(style))
            .with_state(self)
    }
}

/// No page is stored by a cache or shown by "back" after sign-out, runs a script, or is framed by another site.
async fn security_headers(mut response: Response) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css")], include_str!("style.css"))
}

const DEMO_PASSWORD: &str = "correct horse";

const KEY_FORM: &str =
    "SESSION_KEY must be 128 or more hex digits; make a key with `openssl rand -hex 64`";

/// Reads the bytes that the hex digits stand for. The digits themselves, taken as a key, would be half as random.
///
/// `KeyRing::from_env` reads several keys, but `PrivateCookieJar` takes only one.
fn key_from_hex(text: &str) -> Result<Key, &'static str> {
    let digit = |digit: char| digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
    let digits: Vec<u8> = text.trim().chars().map(digit).collect::<Option<_>>().ok_or(KEY_FORM)?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Key::try_from(bytes.as_slice()).map_err(|_| KEY_FORM)
}

/// An error that is not the session's.
struct InternalError;

impl IntoResponse for InternalError {
    fn into_response(self) -> Response {
        pages::error(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong. Please try again.")
    }
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("login: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let key = env::var("SESSION_KEY").map_err(|_| KEY_FORM)?;
    let key = key_from_hex(&key)?;
    let app = App::new(key, env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))?;
    for name in ["ann", "bob"] {
        app.users.add(name, DEMO_PASSWORD).await?;
    }
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("sign in as `ann` or `bob` with the password `{DEMO_PASSWORD}`, or sign up");
    axum::serve(listener, app.router()).await?;
    Ok(())
}
