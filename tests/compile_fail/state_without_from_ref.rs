use axum_typed_session::{Session, SessionCommit, SessionError, SessionManager};

#[derive(Clone)]
struct AppState {
    visits: SessionManager<u32>,
}

#[axum::debug_handler(state = AppState)]
async fn index(session: Session<u32>) -> Result<SessionCommit, SessionError> {
    session.commit().await
}

fn main() {}
