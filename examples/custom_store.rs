//! A session store of your own: sessions in one file, with the key-value store [`redb`].
//!
//! A store needs three methods: `load`, `save` and `destroy`. This one also has `touch` and `destroy_at`, which are one
//! transaction here, and `delete_expired`, since `redb` deletes nothing by itself. The tests at the end of the file run
//! the conformance suite of the feature `testing`, which checks every rule of [`SessionStore`].
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example custom_store
//! ```
//!
//! In a second terminal:
//!
//! ```text
//! curl -c jar -b jar http://127.0.0.1:3000/
//! curl -c jar -b jar http://127.0.0.1:3000/
//! ```
//!
//! Stop the program with Ctrl-C and start it again in the same terminal: the count goes on. This command proves the
//! store:
//!
//! ```text
//! cargo test --example custom_store --features testing
//! ```
//!
//! `SESSION_FILE` names the file, which is `sessions.redb` by default. `PORT` sets the port, and `INSECURE_HTTP=1` suits
//! browsers that refuse Secure cookies on `http://localhost`.

use std::{env, error::Error, fs::File, io, path::Path, sync::Arc};

use async_trait::async_trait;
use axum::{Router, response::IntoResponse, routing::get};
use axum_typed_session::{
    KeyRing, Session, SessionError, SessionManager, SessionStore, StoreError, StoreKey,
    store::{Cleanup, Record, SaveOutcome, Timestamp, Version, Write},
    time::OffsetDateTime,
};
use redb::{Database, ReadableTable, Table, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::spawn_blocking};

/// Sessions in a file of this process. The system's clock decides when a session expires.
///
/// `redb` allows one writer at a time, so everything between the begin and the commit of a write transaction is one
/// step. A commit is on the disk before the method answers.
#[derive(Clone)]
struct RedbStore {
    database: Arc<Database>,
}

type Key = [u8; 32];

/// The version, the expiry in Unix milliseconds, and the other fields of the record.
type Row = ([u8; 16], u64, &'static [u8]);

const SESSIONS: TableDefinition<'_, Key, Row> = TableDefinition::new("sessions");

/// The keys in the order of their expiry, so that `delete_expired` does not read the whole file.
const EXPIRIES: TableDefinition<'_, (u64, Key), ()> = TableDefinition::new("expiries");

impl RedbStore {
    fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self::in_file(file.map_err(failed)?)
    }

    fn in_file(file: File) -> Result<Self, StoreError> {
        let database = Database::builder().create_file(file).map_err(failed)?;
        // A read transaction does not create the table that it opens.
        let transaction = database.begin_write().map_err(failed)?;
        transaction.open_table(SESSIONS).map_err(failed)?;
        transaction.open_table(EXPIRIES).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Runs `work` on a thread that may block, in one write transaction. An error leaves the file as it was.
    async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Rows<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let database = self.database.clone();
        let written = spawn_blocking(move || {
            let transaction = database.begin_write().map_err(failed)?;
            let mut rows = Rows {
                sessions: transaction.open_table(SESSIONS).map_err(failed)?,
                expiries: transaction.open_table(EXPIRIES).map_err(failed)?,
            };
            let result = work(&mut rows)?;
            drop(rows);
            transaction.commit().map_err(failed)?;
            Ok(result)
        });
        written.await.map_err(StoreError::unavailable)?
    }
}

/// Both tables in one write transaction.
struct Rows<'t> {
    sessions: Table<'t, Key, Row>,
    expiries: Table<'t, (u64, Key), ()>,
}

impl Rows<'_> {
    fn put(&mut self, key: Key, record: &Record) -> Result<(), StoreError> {
        self.remove(key)?;
        let expires_at = record.expires_at().as_unix_millis();
        let bytes = record.to_bytes();
        let row = (*record.version().as_bytes(), expires_at, bytes.as_slice());
        self.sessions.insert(key, row).map_err(failed)?;
        self.expiries.insert((expires_at, key), ()).map_err(failed)?;
        Ok(())
    }

    fn remove(&mut self, key: Key) -> Result<(), StoreError> {
        if let Some(row) = self.sessions.remove(key).map_err(failed)? {
            let (_, expires_at, _) = row.value();
            self.expiries.remove((expires_at, key)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Returns the record of a row that has not expired.
fn live(sessions: &impl ReadableTable<Key, Row>, key: Key) -> Result<Option<Record>, StoreError> {
    let Some(row) = sessions.get(key).map_err(failed)? else {
        return Ok(None);
    };
    let (version, expires_at, bytes) = row.value();
    let expires_at = Timestamp::from_unix_millis(expires_at);
    if expires_at <= now() {
        return Ok(None);
    }
    Record::from_bytes(Version::from_bytes(version), expires_at, bytes.to_vec()).map(Some)
}

fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::unavailable(error.into())
}

#[async_trait]
impl SessionStore for RedbStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let (database, key) = (self.database.clone(), *key.as_bytes());
        let loaded = spawn_blocking(move || {
            let transaction = database.begin_read().map_err(failed)?;
            live(&transaction.open_table(SESSIONS).map_err(failed)?, key)
        });
        loaded.await.map_err(StoreError::unavailable)?
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let (key, record, expected) = (*key.as_bytes(), record.clone(), write.expected());
        self.write(move |rows| {
            match (live(&rows.sessions, key)?, expected) {
                // An earlier try of this save arrived, and only its answer was lost.
                (Some(row), _) if row.version() == record.version() => {
                    return Ok(SaveOutcome::Saved);
                }
                (Some(row), Some(expected)) if row.version() == expected => {}
                (Some(row), _) => return Ok(SaveOutcome::Conflict(row.into())),
                (None, Some(_)) => return Ok(SaveOutcome::Gone),
                (None, None) => {}
            }
            rows.put(key, &record)?;
            Ok(SaveOutcome::Saved)
        })
        .await
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        let key = *key.as_bytes();
        self.write(move |rows| rows.remove(key)).await
    }

    // The store is complete here. The methods below do more in one transaction than their defaults.

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let key = *key.as_bytes();
        self.write(move |rows| match live(&rows.sessions, key)? {
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version => Ok(SaveOutcome::Conflict(row.into())),
            Some(row) => {
                if row.expires_at() < expires_at {
                    rows.put(key, &row.with_expires_at(expires_at))?;
                }
                Ok(SaveOutcome::Saved)
            }
        })
        .await
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let key = *key.as_bytes();
        self.write(move |rows| match live(&rows.sessions, key)? {
            None => Ok(SaveOutcome::Gone),
            Some(row) if row.version() != version => Ok(SaveOutcome::Conflict(row.into())),
            Some(_) => {
                rows.remove(key)?;
                Ok(SaveOutcome::Saved)
            }
        })
        .await
    }

    async fn delete_expired(&self, limit: u32) -> Result<u64, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.write(move |rows| {
            let until = (now().as_unix_millis(), [0xff; 32]);
            let mut expired = Vec::new();
            for row in rows.expiries.range(..=until).map_err(failed)?.take(limit) {
                let (row, ()) =
                    row.map(|(row, unit)| (row.value(), unit.value())).map_err(failed)?;
                expired.push(row.1);
            }
            for key in &expired {
                rows.remove(*key)?;
            }
            Ok(expired.len() as u64)
        })
        .await
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    count: u32,
}

async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = format!("visits: {}\n", session.count);
    Ok((session.commit().await?, body))
}

fn app(sessions: SessionManager<Visits>) -> Router {
    Router::new().route("/", get(index)).with_state(sessions)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("custom_store: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let path = env::var("SESSION_FILE").unwrap_or_else(|_| "sessions.redb".to_owned());
    let store = RedbStore::open(&path).map_err(|error| {
        let reason = error.source().map_or(error.to_string(), ToString::to_string);
        format!("SESSION_FILE: cannot open {path}: {reason}")
    })?;
    let cleanup = Cleanup::new(store.clone()).spawn();
    let sessions = SessionManager::builder()
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .store(store)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    // The file is closed in good order, so that the next start need not check it.
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app(sessions)).with_graceful_shutdown(ctrl_c).await?;
    cleanup.stop().await;
    Ok(())
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use axum_typed_session::{session_store_conformance, testing::RecordBuilder};

    use super::*;

    /// Returns a path that no other test uses.
    fn new_path() -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("axum-typed-session-{}-{number}.redb", std::process::id());
        env::temp_dir().join(name)
    }

    /// Makes a store in a file that is gone once the store is dropped.
    fn temporary_store() -> RedbStore {
        let path = new_path();
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        std::fs::remove_file(&path).unwrap();
        RedbStore::in_file(file.unwrap()).unwrap()
    }

    session_store_conformance!(redb_store, temporary_store());

    #[tokio::test]
    async fn sessions_outlive_the_process() {
        let (path, key) = (new_path(), StoreKey::from_bytes([7; 32]));
        let record = RecordBuilder::new().payload(b"{}").build();
        let store = RedbStore::open(&path).unwrap();
        let saved = store.save(&key, &record, Write::Create).await.unwrap();
        assert_eq!(saved, SaveOutcome::Saved);
        drop(store);
        let store = RedbStore::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(store.load(&key).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn expired_sessions_leave_the_file() {
        let (store, key) = (temporary_store(), StoreKey::from_bytes([7; 32]));
        let soon = now().saturating_add(Duration::from_millis(50));
        let record = RecordBuilder::new().expires_at(soon).build();
        assert_eq!(store.save(&key, &record, Write::Create).await.unwrap(), SaveOutcome::Saved);
        assert_eq!(store.delete_expired(10).await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(store.delete_expired(10).await.unwrap(), 1);
        assert_eq!(store.delete_expired(10).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_session_that_was_extended_is_not_deleted_at_its_first_expiry() {
        let (store, key) = (temporary_store(), StoreKey::from_bytes([7; 32]));
        let soon = now().saturating_add(Duration::from_millis(50));
        let record = RecordBuilder::new().expires_at(soon).build();
        assert_eq!(store.save(&key, &record, Write::Create).await.unwrap(), SaveOutcome::Saved);
        let later = soon.saturating_add(Duration::from_secs(60));
        let touched = store.touch(&key, record.version(), later).await.unwrap();
        assert_eq!(touched, SaveOutcome::Saved);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(store.delete_expired(10).await.unwrap(), 0);
        assert!(store.load(&key).await.unwrap().is_some());
    }
}
