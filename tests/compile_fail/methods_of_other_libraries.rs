use axum_typed_session::Session;

fn by_value(session: Session<u32>) {
    session.save();
    session.flush();
    session.cycle_id();
    session.set_expiry(None);
    session.reset();
}

fn by_reference(session: &mut Session<u32>) {
    session.flush();
}

fn main() {}
