use axum::Router;
use axum_typed_session::SessionManager;

fn app(sessions: SessionManager<u32>) -> Router {
    Router::new().layer(sessions)
}

fn main() {}
