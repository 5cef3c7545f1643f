use axum_typed_session::{Session, SessionCommit, SessionError, SessionManager};

#[axum::debug_handler(state = SessionManager<u32>)]
async fn index(session: Session<String>) -> Result<SessionCommit, SessionError> {
    session.commit().await
}

fn main() {}
