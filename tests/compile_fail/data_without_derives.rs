use axum_typed_session::{Key, SessionManager};

struct Visits {
    count: u32,
}

fn main() {
    let _ = SessionManager::<Visits>::builder().keys(Key::generate()).build();
}
