use axum_typed_session::Session;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Visits {
    count: u32,
}

async fn index(session: Session<Visits>) {
    let copy = session.clone();
    tokio::spawn(async move { copy.count });
}

fn main() {}
