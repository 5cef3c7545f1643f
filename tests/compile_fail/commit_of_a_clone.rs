use axum_typed_session::Session;

async fn index(session: Session<u32>) {
    let mut data = session.clone();
    tokio::spawn(async move {
        data += 1;
        data.commit().await
    });
}

fn main() {}
