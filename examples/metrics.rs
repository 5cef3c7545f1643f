//! Session events as Prometheus metrics.
//!
//! The program counts every event of its sessions with the crate [`metrics`], and shows the counters on a listener of
//! its own, which only the monitoring should reach.
//!
//! Labels are few and fixed: the kind of an event, and the operation of a store that failed. Never make a label of a
//! session, a user or the field of a conflict. Each value of a label is a time series of its own, and these values have
//! no bound.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example metrics
//! ```
//!
//! In a second terminal:
//!
//! ```text
//! curl -c jar -b jar http://127.0.0.1:3000/
//! curl -c jar -b jar http://127.0.0.1:3000/
//!
//! # A cookie that this program did not make.
//! curl -b '__Host-session=forged' http://127.0.0.1:3000/
//!
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/logout
//! curl http://127.0.0.1:3001/metrics
//! ```
//!
//! No event carries the time that a store call takes. A store in front of yours can measure it:
//! `delegate_session_store!` writes it in a few lines. `PORT` and `METRICS_PORT` set the ports, and `INSECURE_HTTP=1`
//! suits browsers that refuse Secure cookies on `http://localhost`.

use std::{env, error::Error};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{
    KeyRing, MemoryStore, Session, SessionError, SessionEvent, SessionEventKind, SessionManager,
    SessionManagerBuilder, SessionStore,
};
use metrics::{counter, describe_counter};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
}

/// Runs within the request, so it counts and does nothing else.
fn count(event: &SessionEvent) {
    counter!("session_events_total", "kind" => event.kind.name()).increment(1);
    if let SessionEventKind::StoreError { operation } = event.kind {
        counter!("session_store_errors_total", "operation" => operation).increment(1);
    }
}

fn describe() {
    describe_counter!("session_events_total", "Events of sessions, by kind.");
    describe_counter!("session_store_errors_total", "Failed store calls, by operation.");
}

fn sessions(store: impl SessionStore) -> SessionManagerBuilder<Visits> {
    SessionManager::builder().store(store).on_event(count)
}

async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = format!("visits: {}\n", session.count);
    Ok((session.commit().await?, body))
}

async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

async fn show_metrics(State(prometheus): State<PrometheusHandle>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus.render())
}

fn app(sessions: SessionManager<Visits>) -> Router {
    Router::new().route("/", get(index)).route("/logout", post(logout)).with_state(sessions)
}

fn internal(prometheus: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(show_metrics)).with_state(prometheus)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("metrics: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    describe();
    let sessions = sessions(MemoryStore::new())
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let listener = listen("PORT", 3000).await?;
    let internal_listener = listen("METRICS_PORT", 3001).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("metrics on http://{}/metrics", internal_listener.local_addr()?);
    tokio::try_join!(
        axum::serve(listener, app(sessions)).into_future(),
        axum::serve(internal_listener, internal(prometheus)).into_future(),
    )?;
    Ok(())
}

async fn listen(variable: &str, default: u16) -> Result<TcpListener, Box<dyn Error>> {
    let port = match env::var(variable) {
        Ok(port) => {
            port.parse().map_err(|_| format!("{variable} must be a number from 0 to 65535"))?
        }
        Err(_) => default,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    Ok(listener
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set {variable}"))?)
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Request, StatusCode, request},
    };
    use axum_typed_session::Key;
    use http_body_util::BodyExt as _;
    use metrics::set_default_local_recorder;
    use tower::ServiceExt as _;

    use super::*;

    /// Sends a request with a cookie. Returns the cookie that the client has then.
    async fn send(app: &Router, request: request::Builder, cookie: &str) -> String {
        let request = request.header(header::COOKIE, cookie).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let set = response.headers().get(header::SET_COOKIE);
        let pair = set.and_then(|cookie| cookie.to_str().unwrap().split(';').next());
        pair.unwrap_or(cookie).to_owned()
    }

    async fn page(prometheus: PrometheusHandle) -> String {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = internal(prometheus).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_event_is_counted_by_its_kind() {
        let recorder = PrometheusBuilder::new().build_recorder();
        // Of this thread, on which the whole test runs.
        let _guard = set_default_local_recorder(&recorder);
        describe();
        let app = app(sessions(MemoryStore::new()).keys(Key::generate()).build().unwrap());

        let cookie = send(&app, Request::get("/"), "").await;
        let cookie = send(&app, Request::get("/"), &cookie).await;
        send(&app, Request::get("/"), &cookie).await;
        send(&app, Request::post("/logout"), &cookie).await;
        send(&app, Request::post("/logout"), "__Host-session=forged").await;

        let page = page(recorder.handle()).await;
        for line in [
            "# HELP session_events_total Events of sessions, by kind.",
            "# TYPE session_events_total counter",
            r#"session_events_total{kind="created"} 1"#,
            r#"session_events_total{kind="saved"} 2"#,
            r#"session_events_total{kind="destroyed"} 1"#,
            r#"session_events_total{kind="invalid_token"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[cfg(feature = "testing")]
    #[tokio::test]
    async fn failed_store_calls_are_counted_by_operation() {
        use axum_typed_session::testing::{Fault, FaultyStore, Operation};

        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = set_default_local_recorder(&recorder);
        let store = FaultyStore::new(MemoryStore::new());
        store.inject(Operation::all(), Fault::Fail);
        let app = app(sessions(store).build().unwrap());

        send(&app, Request::get("/"), "").await;

        let page = page(recorder.handle()).await;
        let line = r#"session_store_errors_total{operation="save"} 1"#;
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}
