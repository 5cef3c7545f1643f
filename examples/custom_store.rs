//! A store of your own: the three required methods over a key-value file, and the test that proves them.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example custom_store
//! curl -c jar -b jar http://127.0.0.1:3000/
//! ```
//!
//! The counter goes on after a restart, since the sessions are in `sessions.redb`. The conformance suite runs with
//! `cargo test --example custom_store --features testing`.

use std::{env, error::Error, path::Path, sync::Arc};

use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{
    KeyRing, Session, SessionError, SessionManager, SessionStore, StoreError, StoreKey,
    store::{Record, SaveOutcome, Timestamp, Version, Write},
    time::OffsetDateTime,
};
use redb::{Database, ReadableTable as _, TableDefinition};
use tokio::task::spawn_blocking;

/// A session by its key: 16 bytes of version and 8 bytes of expiry, which the store compares, and the record.
const SESSIONS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("sessions");

/// Sessions in a file of `redb`, for one process.
#[derive(Clone, Debug)]
pub struct FileStore(Arc<Database>);

impl FileStore {
    /// Opens the file, and creates it where it is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(StoreError::unavailable)?;
        let write = database.begin_write().map_err(StoreError::unavailable)?;
        write.open_table(SESSIONS).map_err(StoreError::unavailable)?;
        write.commit().map_err(StoreError::unavailable)?;
        Ok(Self(Arc::new(database)))
    }

    /// Runs an operation where it may block. If its request is dropped, the operation ends all the same.
    async fn blocking<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&Database) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let database = self.0.clone();
        spawn_blocking(move || operation(&database)).await.map_err(StoreError::unavailable)?
    }
}

#[async_trait::async_trait]
impl SessionStore for FileStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let key = *key.as_bytes();
        self.blocking(move |database| {
            let read = database.begin_read().map_err(StoreError::unavailable)?;
            let sessions = read.open_table(SESSIONS).map_err(StoreError::unavailable)?;
            let found = sessions.get(key).map_err(StoreError::unavailable)?;
            found.map_or(Ok(None), |bytes| live_record(bytes.value()))
        })
        .await
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        let (key, record) = (*key.as_bytes(), record.clone());
        self.blocking(move |database| {
            // One writer at a time, so nothing comes between the comparison and the write.
            let transaction = database.begin_write().map_err(StoreError::unavailable)?;
            {
                let mut sessions =
                    transaction.open_table(SESSIONS).map_err(StoreError::unavailable)?;
                let found = sessions.get(key).map_err(StoreError::unavailable)?;
                let current = found.map_or(Ok(None), |bytes| live_record(bytes.value()))?;
                match (current, write) {
                    // The same write again, after its answer was lost.
                    (Some(current), _) if current.version() == record.version() => {
                        return Ok(SaveOutcome::Saved);
                    }
                    (Some(current), Write::Update { expected })
                        if current.version() == expected => {}
                    (Some(current), _) => return Ok(SaveOutcome::Conflict(current)),
                    (None, Write::Update { .. }) => return Ok(SaveOutcome::Gone),
                    (None, Write::Create) => {}
                }
                let bytes = to_bytes(&record);
                sessions.insert(key, bytes.as_slice()).map_err(StoreError::unavailable)?;
            }
            transaction.commit().map_err(StoreError::unavailable)?;
            Ok(SaveOutcome::Saved)
        })
        .await
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        let key = *key.as_bytes();
        self.blocking(move |database| {
            let transaction = database.begin_write().map_err(StoreError::unavailable)?;
            let mut sessions = transaction.open_table(SESSIONS).map_err(StoreError::unavailable)?;
            sessions.remove(key).map_err(StoreError::unavailable)?;
            drop(sessions);
            transaction.commit().map_err(StoreError::unavailable)
        })
        .await
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        self.blocking(move |database| {
            let transaction = database.begin_write().map_err(StoreError::unavailable)?;
            let mut sessions = transaction.open_table(SESSIONS).map_err(StoreError::unavailable)?;
            let mut expired = Vec::new();
            for session in sessions.iter().map_err(StoreError::unavailable)? {
                let (key, bytes) = session.map_err(StoreError::unavailable)?;
                if expired.len() < limit as usize && is_expired(bytes.value()) {
                    expired.push(key.value());
                }
            }
            for key in &expired {
                sessions.remove(key).map_err(StoreError::unavailable)?;
            }
            drop(sessions);
            transaction.commit().map_err(StoreError::unavailable)?;
            Ok(expired.len() as u64)
        })
        .await
    }
}

fn to_bytes(record: &Record) -> Vec<u8> {
    let expires_at = record.expires_at().as_unix_millis().to_be_bytes();
    [record.version().as_bytes().as_slice(), &expires_at, &record.to_bytes()].concat()
}

/// Splits the bytes into version, expiry and record.
fn parts(bytes: &[u8]) -> Option<([u8; 16], Timestamp, &[u8])> {
    let (version, rest) = bytes.split_first_chunk::<16>()?;
    let (expires_at, record) = rest.split_first_chunk::<8>()?;
    let expires_at = Timestamp::from_unix_millis(u64::from_be_bytes(*expires_at));
    Some((*version, expires_at, record))
}

/// An expired session counts as absent.
fn live_record(bytes: &[u8]) -> Result<Option<Record>, StoreError> {
    let (version, expires_at, record) = parts(bytes).ok_or(StoreError::Corrupt)?;
    if expires_at <= OffsetDateTime::now_utc().into() {
        return Ok(None);
    }
    Record::from_bytes(Version::from_bytes(version), expires_at, record.to_vec()).map(Some)
}

fn is_expired(bytes: &[u8]) -> bool {
    parts(bytes).is_none_or(|(_, expires_at, _)| expires_at <= OffsetDateTime::now_utc().into())
}

async fn index(mut session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
    *session += 1;
    let body = format!("{} visits\n", *session);
    Ok((session.commit().await?, body))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let sessions = SessionManager::<u32>::builder()
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .store(FileStore::open("sessions.redb")?)
        .build()?;
    let app = Router::new().route("/", get(index)).with_state(sessions);
    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum_typed_session::session_store_conformance;

    use super::*;

    /// A store with a file of its own.
    fn fresh() -> FileStore {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("sessions-{}-{number}.redb", std::process::id());
        let path = env::temp_dir().join(file);
        let _ = std::fs::remove_file(&path);
        let store = FileStore::open(&path).unwrap();
        // The open file stays usable, and disappears when it is closed.
        let _ = std::fs::remove_file(&path);
        store
    }

    session_store_conformance!(fresh());
}
