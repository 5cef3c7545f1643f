use axum::{Router, routing::get};
use axum_typed_session::Session;

async fn index(session: Session<u32>) -> String {
    session.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", get(index)).with_state(());
}
