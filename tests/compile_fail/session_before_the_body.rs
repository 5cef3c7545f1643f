use axum::response::IntoResponse;
use axum_typed_session::Session;

fn respond(session: Session<u32>) -> impl IntoResponse {
    (session, "hello")
}

fn main() {}
