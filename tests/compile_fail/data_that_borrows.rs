use axum_typed_session::{Key, SessionManager};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Login<'a> {
    user: &'a str,
}

fn main() {
    let _ = SessionManager::<Login>::builder().keys(Key::generate()).build();
}
