use axum_typed_session::Session;

#[axum::debug_handler(state = axum_typed_session::SessionManager<u32>)]
async fn index(_body: String, session: Session<u32>) {
    session.discard();
}

fn main() {}
