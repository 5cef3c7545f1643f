use axum::response::IntoResponse;
use axum_typed_session::{Session, SessionError};

async fn index(session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    Ok(("hello", session.commit().await?))
}

fn main() {}
