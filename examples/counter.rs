//! A page that counts, and a session that ends: the first example to read.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example counter
//! ```
//!
//! Open <http://127.0.0.1:3000>, or use curl:
//!
//! ```text
//! curl -L -c jar -b jar -d '' http://127.0.0.1:3000/count
//! ```
//!
//! `PORT` sets the port, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.

use std::{env, error::Error};

use axum::{
    Router,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{ConfigError, KeyRing, Session, SessionError, SessionManager};
use maud::{DOCTYPE, Markup, html};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
}

/// A page that only reads. It returns the guard as well, so that no cache shows it to another visitor.
async fn index(session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    let page = page(session.count);
    Ok((session.commit().await?, page))
}

async fn count(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    Ok((session.commit().await?, Redirect::to("/")))
}

async fn sign_out(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

fn page(count: u32) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Counter" }
                style { (STYLE) }
            }
            body {
                main {
                    output id="count" { (count) }
                    form method="post" action="/count" { button { "Count" } }
                    form method="post" action="/sign-out" { button class="plain" { "Sign out" } }
                }
            }
        }
    }
}

const STYLE: &str = "
    body { font: 1.1rem/1.5 system-ui, sans-serif; color-scheme: light dark; display: grid;
        min-height: 90vh; place-items: center }
    main { text-align: center; display: grid; gap: 1rem; width: min(18rem, 90vw) }
    output { font-size: 6rem; font-weight: 700; line-height: 1.2 }
    button { font: inherit; width: 100%; padding: .6rem; border: 1px solid #2457c5; border-radius: .5rem;
        background: #2457c5; color: white; cursor: pointer }
    button.plain { background: none; color: inherit; border-color: #8888 }
";

fn app(sessions: SessionManager<Visits>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/count", post(count))
        .route("/sign-out", post(sign_out))
        .with_state(sessions)
}

fn sessions(keys: KeyRing) -> Result<SessionManager<Visits>, ConfigError> {
    SessionManager::builder()
        .keys(keys)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("counter: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let app = app(sessions(KeyRing::from_env("SESSION_KEY")?)?);
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode, header},
    };
    use axum_typed_session::Key;
    use tower::ServiceExt;

    use super::*;

    /// Sends a request with the cookie of an earlier response, and returns the status, the cookie and the page.
    async fn send(app: &Router, request: &str, cookie: &str) -> (StatusCode, String, String) {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let cookie =
            response.headers().get(header::SET_COOKIE).map(|cookie| cookie.to_str().unwrap());
        let cookie = cookie.unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let page = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, cookie, String::from_utf8(page.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn posts_count_and_sign_out_begins_anew() {
        let app = app(sessions(Key::generate().into()).unwrap());
        let (_, none, page) = send(&app, "GET /", "").await;
        assert!(none.is_empty() && page.contains(">0</output>"), "{page}");

        let (status, once, _) = send(&app, "POST /count", "").await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let (_, twice, _) = send(&app, "POST /count", &once).await;
        assert!(send(&app, "GET /", &twice).await.2.contains(">2</output>"));

        let (_, removal, _) = send(&app, "POST /sign-out", &twice).await;
        assert_eq!(removal, "__Host-session=");
        assert!(send(&app, "GET /", &removal).await.2.contains(">0</output>"));
    }
}
