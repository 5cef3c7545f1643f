//! The store in memcached, which many processes share.

mod connect;
mod connection;
mod tokens;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::connect::MemcachedConnectError;
use self::{
    connect::Server,
    connection::{Command, Condition, Connections, Failure},
    tokens::Tokens,
};
use super::{SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, Timestamp},
    error::{ConfigError, StoreError},
    id::StoreKey,
    store::{Record, Version, row},
};

/// Keeps sessions in memcached 1.6 or later, on one server that all nodes of an application share.
///
/// Cloning is cheap, and clones share their connections. [`stores`](crate::guide::stores) compares all stores.
/// Memcached deletes expired sessions by itself, so no [`Cleanup`](crate::store::Cleanup) is needed.
///
/// While the server is down, every operation is a [`StoreError::Unavailable`]: at once if nothing listens, and after
/// a second if the server does not answer. The store reconnects by itself.
///
/// # Example
///
/// ```no_run
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use axum_typed_session::{MemcachedStore, SessionManager};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemcachedStore::connect("memcached://127.0.0.1:11211").await?;
/// let sessions = SessionManager::<Visits>::builder()
///     .store(store)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// # What memcached does not keep
///
/// Memcached is a cache. Choose another store if a session must last as long as its timeouts say.
///
/// - **Restart.** All sessions end with the server process. Users sign in again.
/// - **Eviction.** A full server deletes the sessions that were not used for the longest time. Such a session has
///   ended: the next request gets a fresh session, and no request in flight brings the old session back. Give the
///   server enough memory (`-m`), and watch `evictions` in its statistics.
/// - **No list of ended ids.** Do not use this store for
///   [`revocations`](crate::SessionManagerBuilder::revocations). An entry that is evicted would make the cookie of an
///   ended session valid again. [`build`](crate::SessionManagerBuilder::build) warns about it.
/// - **No index.** [`sessions_of`](crate::SessionManager::sessions_of) and
///   [`destroy_all_of`](crate::SessionManager::destroy_all_of) are [`StoreError::Unsupported`]. So are
///   [`list`](SessionStore::list) and [`take_expired`](SessionStore::take_expired): no command of memcached lists keys
///   in pages or returns expired rows.
/// - **1 MiB.** A session of more than 1,048,064 bytes is refused before it is sent. The default
///   [`max_payload`](crate::SessionManagerBuilder::max_payload) is far below.
///
/// # Setting up the server
///
/// - **Compare-and-swap.** The server must not run with `-C`, which turns it off. Every operation on a session is an
///   error then.
/// - **Item size.** The server must not run with an `-I` below the default `1m`. It refuses an item that is larger,
///   and deletes the item that it would have replaced, so the session ends.
/// - **Eviction.** Do not turn eviction off with `-M`. A full server then answers a save with
///   [`StoreError::Full`], and deletes the session that it should have replaced.
/// - **Network.** The store sends no password, uses no TLS and reaches no IPv6 addresses. Everyone who reaches the
///   server can read and end all sessions. Let only the application reach it, or use a Unix socket.
/// - **Connections.** Each node opens up to 32, when they are needed. The server allows 1,024 by default (`-c`).
/// - **One server.** The store does not spread sessions over several servers.
///
/// # Expiry
///
/// The clock of the node tells when a session has expired, so the clocks of the nodes should agree. The server keeps a
/// row for a minute longer, because it counts in whole seconds by its own clock. It deletes a session that has more
/// than 30 days left by its wall clock.
///
/// # Measured cost
///
/// A session of 243 bytes takes 480 bytes of the server's memory with its default slab sizes, with or without an
/// [`owner`](crate::SessionManagerBuilder::owner).
///
/// # How it works
///
/// | operation | commands |
/// |---|---|
/// | load | `mg` |
/// | save | `ms`. Before it an `mg`, if this node did not load or save the session just before |
/// | conflict | `ms` and `mg` |
/// | touch | `mg` and `ms` |
/// | destroy | `md` |
///
/// An update carries the token that the server gave with the row (`C`, compare-and-swap), so the server writes only if
/// the row is still in that state. The store remembers the tokens of the 4,096 rows that it met last. If a token is
/// missing or too old, the store reads the row and compares the whole version of the row.
///
/// If a connection breaks, the store reads the row to learn whether the write took effect. It sends a write again only
/// if it did not take effect.
///
/// The driver is the crate `async-memcached`.
#[doc(alias("memcache", "MemcacheStore", "elasticache"))]
#[derive(Clone)]
pub struct MemcachedStore {
    shared: Arc<Shared>,
    prefix: Arc<str>,
    /// The clock of the operating system, if there is none.
    clock: Option<Arc<dyn Clock>>,
}

struct Shared {
    connections: Connections,
    tokens: Tokens,
}

/// The longest row that is sent: one mebibyte, which is what a server takes by default, without room for the key.
/// A server that refuses a longer row has already deleted the row that it would replace.
const LONGEST_ROW: usize = (1 << 20) - 512;

/// The longest prefix. A key has at most 250 bytes, 43 of them for the session.
const LONGEST_PREFIX: usize = 200;

/// The server keeps a row so much longer than the store returns it. It counts in seconds, by a clock of its own.
const SLACK: Duration = Duration::from_secs(60);

/// The server reads a longer time as a Unix time.
const LONGEST_RELATIVE_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often a write is tried while other requests extend the session in between.
const TRIES: u32 = 64;

/// A row, and the token that names its state.
struct Found {
    record: Record,
    token: u64,
}

impl MemcachedStore {
    /// Connects to one server. The URL is `memcached://host:port`, where the port is optional, or `unix:///path`.
    ///
    /// See the example of [`MemcachedStore`].
    ///
    /// # Errors
    ///
    /// [`MemcachedConnectError`] if the text is not such a URL, if no server listens there, if it is older than
    /// memcached 1.6, or if it does not answer within 5 seconds. After this method succeeded, a server that is down
    /// is a [`StoreError`] of each operation.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing is stored.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, MemcachedConnectError> {
        let store = Self::connect_lazy(url)?;
        store.shared.connections.check().await?;
        Ok(store)
    }

    /// Makes a store that connects when it is first used. The URL is that of [`connect`](Self::connect).
    ///
    /// The application can start while the server is down. Until the server is up, every operation is a
    /// [`StoreError::Unavailable`].
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::MemcachedStore;
    ///
    /// let store = MemcachedStore::connect_lazy("memcached://127.0.0.1:11211")?;
    /// # Ok::<(), axum_typed_session::store::MemcachedConnectError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemcachedConnectError::Url`] if the text is not the URL of a memcached server.
    pub fn connect_lazy(url: impl AsRef<str>) -> Result<Self, MemcachedConnectError> {
        let connections = Connections::new(Server::parse(url.as_ref())?);
        Ok(Self {
            shared: Arc::new(Shared { connections, tokens: Tokens::new() }),
            prefix: Arc::from("axum-typed-session:"),
            clock: None,
        })
    }

    /// Sets the start of every key that the store writes. Default: `axum-typed-session:`.
    ///
    /// If two applications share a server, give each its own prefix or its own
    /// [`audience`](crate::SessionManagerBuilder::audience). Otherwise each accepts the sessions of the other.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::MemcachedStore;
    ///
    /// let store = MemcachedStore::connect_lazy("memcached://127.0.0.1")?.prefix("shop:")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless the prefix has at most 200 characters, all of them visible ASCII.
    #[doc(alias("namespace", "key_prefix"))]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Result<Self, ConfigError> {
        let prefix = prefix.as_ref();
        if prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!(
                "`.prefix(..)`: memcached allows only visible ASCII characters without spaces, and at most {LONGEST_PREFIX}"
            );
            return Err(ConfigError::new(problem));
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// Sets the clock that tells when a session has expired. Default: [`SystemClock`](crate::SystemClock).
    ///
    /// Only tests need another clock.
    #[doc(alias("mock", "mock time"))]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    fn row_key(&self, key: &StoreKey) -> String {
        format!("{}{}", self.prefix, key.to_base64url())
    }

    fn now(&self) -> Timestamp {
        Timestamp::by(self.clock.as_deref())
    }

    fn is_live(&self, record: &Record) -> bool {
        record.expires_at() > self.now()
    }

    /// Returns the command that writes a row.
    fn set(&self, record: &Record, condition: Condition) -> Command {
        let ttl = ttl(record.expires_at(), self.now());
        Command::Set { row: row::encode(record), ttl, condition }
    }

    /// Reads a row, expired or not.
    async fn read(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let Some(answer) = self.shared.connections.repeat(key, &Command::Get).await? else {
            return Ok(None);
        };
        let found = Found { record: row::decode(answer.row)?, token: answer.token };
        self.shared.tokens.insert_row(&found.record, found.token);
        Ok(Some(found))
    }

    /// Returns the row that a write replaces, or `None` if it makes one; or the outcome if it may not write.
    fn replaced(
        &self,
        found: Option<Found>,
        expected: Option<Version>,
    ) -> Result<Option<Found>, Box<SaveOutcome>> {
        let live = found.as_ref().is_some_and(|found| self.is_live(&found.record));
        match (found, expected) {
            (found, None) if !live => Ok(found),
            (Some(found), Some(version)) if live && found.record.version() == version => {
                Ok(Some(found))
            }
            (Some(found), _) if live => Err(Box::new(SaveOutcome::Conflict(found.record.into()))),
            _ => Err(Box::new(SaveOutcome::Gone)),
        }
    }

    /// Sends a write until it meets the row in the state that it expects: first `first`, if the state is known, and
    /// then what `next` makes of the row that is there. `next` also returns the outcome if there is nothing to write.
    ///
    /// Returns the token of the new state with [`SaveOutcome::Saved`], if there was something to write.
    async fn write(
        &self,
        key: &StoreKey,
        first: Option<Command>,
        next: impl Fn(Option<Found>) -> Result<Command, Box<SaveOutcome>> + Send + Sync,
    ) -> Result<(SaveOutcome, Option<u64>), StoreError> {
        let key = self.row_key(key);
        let (mut known, mut lost) = (first, None);
        for _ in 0..TRIES {
            let command = match known.take() {
                Some(command) => command,
                None => match (next(self.read(&key).await?), lost) {
                    // The lost write may have taken effect, and another save may have replaced its row. With a
                    // conflict, the caller would merge the same change a second time.
                    (Err(outcome), Some(lost)) if matches!(*outcome, SaveOutcome::Conflict(_)) => {
                        return Err(lost);
                    }
                    (Err(outcome), _) => return Ok((*outcome, None)),
                    (Ok(command), earlier) => {
                        lost = earlier;
                        command
                    }
                },
            };
            match self.shared.connections.call(&key, &command).await {
                Ok(Some(answer)) => return Ok((SaveOutcome::Saved, Some(answer.token))),
                Ok(None) => {}
                Err(Failure::Lost(error)) if lost.is_none() => lost = Some(error),
                Err(failure) => return Err(failure.into()),
            }
        }
        let problem = format!("other requests changed the session during each of {TRIES} tries");
        Err(StoreError::unavailable(problem))
    }
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for MemcachedStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let found = self.read(&self.row_key(key)).await?;
        Ok(found.map(|found| found.record).filter(|record| self.is_live(record)))
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        let len = row::len(record);
        if len > LONGEST_ROW {
            return Err(too_large(len));
        }
        let expected = write.expected();
        let condition = match expected {
            None => Some(Condition::Absent),
            // The row has this version already if an earlier try took effect.
            Some(version) if version == record.version() => None,
            Some(version) => self.shared.tokens.live(version, self.now()).map(Condition::Token),
        };
        let first = condition.map(|condition| self.set(record, condition));
        let next = |found: Option<Found>| {
            let is_saved = |found: &Found| {
                found.record.version() == record.version() && self.is_live(&found.record)
            };
            if found.as_ref().is_some_and(is_saved) {
                return Err(Box::new(SaveOutcome::Saved));
            }
            let replaced = self.replaced(found, expected)?;
            let condition =
                replaced.map_or(Condition::Absent, |found| Condition::Token(found.token));
            Ok(self.set(record, condition))
        };
        let (outcome, token) = self.write(key, first, next).await?;
        if let Some(token) = token {
            self.shared.tokens.insert_row(record, token);
        }
        Ok(outcome)
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        let command = Command::Delete { token: None };
        self.shared.connections.repeat(&self.row_key(key), &command).await?;
        Ok(())
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let next = |found| match self.replaced(found, Some(version))? {
            Some(Found { record, token }) if record.expires_at() < expires_at => {
                Ok(self.set(&record.with_expires_at(expires_at), Condition::Token(token)))
            }
            _ => Err(Box::new(SaveOutcome::Saved)),
        };
        let (outcome, token) = self.write(key, None, next).await?;
        if let Some(token) = token {
            self.shared.tokens.insert(version, expires_at, token);
        }
        Ok(outcome)
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let delete = |token| Command::Delete { token: Some(token) };
        let first = self.shared.tokens.live(version, self.now()).map(delete);
        let next = |found| match self.replaced(found, Some(version))? {
            Some(found) => Ok(delete(found.token)),
            None => Err(Box::new(SaveOutcome::Gone)),
        };
        let (outcome, _) = self.write(key, first, next).await?;
        Ok(outcome)
    }

    /// Returns `false`: the rows end with the server, and a full server deletes some of them.
    fn survives_restart(&self) -> bool {
        false
    }
}

/// Returns how long the server keeps a row, as it reads it: in seconds, or a Unix time if it is long, or zero for
/// as long as there is memory.
fn ttl(expires_at: Timestamp, now: Timestamp) -> i32 {
    let left = expires_at.saturating_since(now).saturating_add(SLACK);
    let seconds = if left <= LONGEST_RELATIVE_TTL {
        left.as_millis().div_ceil(1_000)
    } else {
        u128::from(expires_at.saturating_add(SLACK).as_unix_millis()).div_ceil(1_000)
    };
    // The server's time has 32 bits.
    i32::try_from(seconds).unwrap_or(0)
}

fn too_large(len: usize) -> StoreError {
    StoreError::unavailable(format!(
        "the session takes {len} bytes in memcached, and {LONGEST_ROW} are allowed; keep less data in it, or lower \
         `.max_payload(..)`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_keeps_a_row_until_it_has_expired_for_sure() {
        const DAY: u64 = 24 * 60 * 60;
        let now = 1_900_000_000_000;
        let at =
            |millis| ttl(Timestamp::from_unix_millis(millis), Timestamp::from_unix_millis(now));
        // Expired, in a millisecond, in an hour.
        assert_eq!([at(0), at(now + 1), at(now + 3_600_000)], [60, 61, 3_660]);
        // The slack included, thirty days are the last that the server counts down.
        let last = now + (30 * DAY - 60) * 1_000;
        assert_eq!(i64::from(at(last)), i64::try_from(30 * DAY).unwrap());
        assert_eq!(at(last + 1), 1_900_000_000 + 30 * 24 * 60 * 60 + 1);
        // Beyond 2038 the server cannot count, and 0 is no limit.
        assert_eq!([at(2_147_483_647_000 - 60_000), at(2_147_483_647_000)], [i32::MAX, 0]);
        assert_eq!(at(u64::MAX), 0);
    }
}
