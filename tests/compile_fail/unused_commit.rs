#![deny(unused_must_use)]

use axum_typed_session::{Session, SessionError};

async fn index(session: Session<u32>) -> Result<(), SessionError> {
    session.commit().await?;
    Ok(())
}

fn main() {}
