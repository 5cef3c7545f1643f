//! Session events as metrics: `on_event` into the `metrics` crate, and a page for Prometheus.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example metrics
//! curl -c jar -b jar http://127.0.0.1:3000/
//! curl -b __Host-session=forged http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/metrics
//! ```
//!
//! A product serves `/metrics` at an address that the internet does not reach. `PORT` sets the port.

use std::{env, error::Error};

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{
    ConfigError, KeyRing, MemoryStore, Session, SessionError, SessionEvent, SessionManager,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Counts an event by its kind.
///
/// The fingerprint of the session is no label: every session would be a time series of its own.
fn count(event: &SessionEvent) {
    metrics::counter!("session_events_total", "kind" => event.kind.name()).increment(1);
}

fn sessions(keys: KeyRing) -> Result<SessionManager<u32>, ConfigError> {
    SessionManager::builder().keys(keys).store(MemoryStore::new()).on_event(count).build()
}

async fn index(mut session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    *session += 1;
    let body = format!("{} visits\n", *session);
    Ok((session.commit().await?, body))
}

fn app(sessions: SessionManager<u32>, prometheus: PrometheusHandle) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(async move || prometheus.render()))
        .with_state(sessions)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    metrics::describe_counter!("session_events_total", "Session events by kind.");
    let app = app(sessions(KeyRing::from_env("SESSION_KEY")?)?, prometheus);
    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, header},
    };
    use axum_typed_session::Key;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn events_are_counted_by_kind() {
        let prometheus = PrometheusBuilder::new().install_recorder().unwrap();
        let app = app(sessions(Key::generate().into()).unwrap(), prometheus);
        let send = async |path: &str, cookie: &str| {
            let request = Request::get(path).header(header::COOKIE, cookie).body(Body::empty());
            let response = app.clone().oneshot(request.unwrap()).await.unwrap();
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        send("/", "").await;
        send("/", "").await;
        send("/", "__Host-session=forged").await;
        let page = send("/metrics", "").await;
        assert!(page.contains(r#"session_events_total{kind="created"} 3"#), "{page}");
        assert!(page.contains(r#"session_events_total{kind="invalid_token"} 1"#), "{page}");
    }
}
