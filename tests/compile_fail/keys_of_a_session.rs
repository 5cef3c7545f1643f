use axum_typed_session::Session;

fn visit(session: Session<u32>) {
    session.insert("count", 1);
    session.get::<u32>("count");
}

fn main() {}
