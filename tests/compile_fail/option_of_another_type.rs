use axum_typed_session::{Session, SessionManager};

#[axum::debug_handler(state = SessionManager<u32>)]
async fn index(session: Option<Session<String>>) -> &'static str {
    if session.is_some() { "welcome back" } else { "hello" }
}

fn main() {}
