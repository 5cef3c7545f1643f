use axum::{Extension, Router, routing::get};
use axum_typed_session::{Session, SessionCommit, SessionError, SessionManager};

async fn index(session: Session<u32>) -> Result<SessionCommit, SessionError> {
    session.commit().await
}

fn app(sessions: SessionManager<u32>) -> Router {
    Router::new().route("/", get(index)).layer(Extension(sessions))
}

fn main() {}
