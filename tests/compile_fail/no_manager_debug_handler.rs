use axum_typed_session::Session;

#[axum::debug_handler]
async fn index(session: Session<u32>) -> String {
    session.to_string()
}

fn main() {}
