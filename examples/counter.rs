//! A page that counts visits.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example counter
//! curl -c jar -b jar http://127.0.0.1:3000/
//! ```
//!
//! `PORT` sets the port, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.

use std::{env, error::Error};

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_extra::extract::cookie::{Cookie, CookieJar};
use axum_typed_session::{KeyRing, Session, SessionError, SessionManager};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
}

async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = format!("{} visits", session.count);
    Ok((session.commit().await?, body))
}

async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

/// The scripts of a page read the theme, so it has a readable cookie of its own beside the session's.
async fn theme(jar: CookieJar, Path(theme): Path<String>) -> (CookieJar, Redirect) {
    (jar.add(Cookie::build(("theme", theme)).path("/")), Redirect::to("/"))
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
    let sessions = SessionManager::<Visits>::builder()
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let app = Router::new()
        .route("/", get(index))
        .route("/logout", post(logout))
        .route("/theme/{theme}", post(theme))
        .with_state(sessions);
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
