use axum_typed_session::Session;

async fn index(session: Session) {}

fn main() {}
