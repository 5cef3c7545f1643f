use axum::{extract::Request, middleware::Next, response::Response};
use axum_typed_session::{Session, SessionError};

#[axum::debug_middleware]
async fn guard(session: Session<u32>, request: Request, next: Next) -> Result<Response, SessionError> {
    let commit = session.commit().await?;
    Ok(commit.wrap(next.run(request).await))
}

fn main() {}
