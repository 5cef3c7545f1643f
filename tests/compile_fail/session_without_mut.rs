use axum_typed_session::{Session, SessionCommit, SessionError};

async fn index(session: Session<u32>) -> Result<SessionCommit, SessionError> {
    *session += 1;
    session.commit().await
}

fn main() {}
