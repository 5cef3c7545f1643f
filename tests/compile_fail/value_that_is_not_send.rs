use std::rc::Rc;

use axum::response::IntoResponse;
use axum_typed_session::{Session, SessionError, SessionManager};

#[axum::debug_handler(state = SessionManager<u32>)]
async fn index(session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    let name: Rc<str> = "Ada".into();
    let commit = session.commit().await?;
    Ok((commit, name.to_string()))
}

fn main() {}
