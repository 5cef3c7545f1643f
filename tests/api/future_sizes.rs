//! A session makes the future of its handler a little larger, and not as large as what a commit needs.

use axum_typed_session::{Session, SessionCommit, SessionError};
use tokio::task::yield_now;

const fn size_of_future<A, F>(_: &impl Fn(A) -> F) -> usize {
    size_of::<F>()
}

async fn without(number: u32) -> u32 {
    yield_now().await;
    number
}

async fn reads(session: Session<u32>) -> u32 {
    yield_now().await;
    let number = *session;
    session.discard();
    number
}

async fn writes(mut session: Session<u32>) -> Result<SessionCommit, SessionError> {
    yield_now().await;
    *session += 1;
    session.commit().await
}

#[test]
fn the_future_of_a_handler_grows_by_at_most_256_bytes_for_a_session() {
    let without = size_of_future(&without);
    let sizes = [size_of_future(&reads), size_of_future(&writes)];
    assert!(sizes.iter().all(|size| size - without <= 256), "{sizes:?}, without: {without}");
}
