use axum::response::IntoResponse;
use axum_typed_session::Session;

async fn index(session: Session<u32>) -> impl IntoResponse {
    (session.commit().await, "hello")
}

fn main() {}
