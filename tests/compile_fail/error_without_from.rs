use axum_typed_session::{Session, SessionCommit};

enum AppError {
    NotFound,
}

async fn index(session: Session<u32>) -> Result<SessionCommit, AppError> {
    Ok(session.commit().await?)
}

fn main() {}
