//! What may cross threads and live as long as it likes, and how much room it takes.

use axum::extract::FromRequestParts as _;
use axum_typed_session::{
    AutoCommitLayer, ConfigError, ConflictPolicy, CreatedSession, Fingerprint, IdleTimeout, Key,
    KeyRing, MemoryStore, Session, SessionCommit, SessionError, SessionEvent, SessionHandle,
    SessionId, SessionManager, SessionManagerBuilder, SessionStore, StoreError, StoreKey,
    StoredSession, Transport,
    layer::AutoCommitService,
    store::{OwnerKey, Record, SaveOutcome, Timestamp, Version, Write},
    testing::ManualClock,
};
use http::Request;

use crate::logins::Login;

fn shared<V: Send + Sync + Unpin + 'static>() {}

fn cheap<V: Clone>() {}

fn error<E: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn public_types_are_send_and_sync() {
    shared::<Session<Login>>();
    shared::<SessionCommit>();
    shared::<SessionHandle<Login>>();
    shared::<(StoredSession<Login>, CreatedSession<Login>)>();
    shared::<SessionManager<Login>>();
    shared::<SessionManagerBuilder<Login>>();
    shared::<SessionId>();
    shared::<(StoreKey, OwnerKey, Fingerprint, Version, Timestamp, IdleTimeout)>();
    shared::<(Key, KeyRing, Transport, SessionEvent, ConflictPolicy)>();
    shared::<(Record, Write<'_>, SaveOutcome, MemoryStore, Box<dyn SessionStore>)>();
    shared::<(AutoCommitLayer, AutoCommitService<()>, ManualClock)>();
}

#[test]
fn what_handlers_pass_around_is_cloned_cheaply() {
    // Not even data that cannot be cloned keeps these from it.
    struct NotClone;
    cheap::<SessionManager<NotClone>>();
    cheap::<SessionHandle<NotClone>>();
    cheap::<(KeyRing, SessionId, Record, MemoryStore, SessionEvent, Transport)>();
}

#[test]
fn sessions_take_little_room_in_a_handlers_future_however_large_the_data() {
    type Large = [[u64; 32]; 32];
    async fn handler(session: Session<Large>) -> Result<SessionCommit, SessionError> {
        session.commit().await
    }
    fn future_size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }
    let manager = SessionManager::<Large>::builder().store(MemoryStore::new());
    let manager = manager.build().unwrap();
    let mut parts = Request::new(()).into_parts().0;
    let extract = Session::<Large>::from_request_parts(&mut parts, &manager);
    assert!(size_of_val(&extract) <= 384, "{}", size_of_val(&extract));
    assert!(future_size(handler) <= 384, "{}", future_size(handler));
}

#[test]
fn errors_are_errors_that_can_be_boxed() {
    error::<SessionError>();
    error::<StoreError>();
    error::<ConfigError>();
}
