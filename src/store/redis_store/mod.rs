//! The store in Redis, Valkey or a cluster of either, which many processes share.

mod builder;
mod connect;
mod connection;
mod credentials;
mod line;
mod list;
mod owners;
mod row;
mod scripts;
mod sentinel;
mod writes;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{
    Cmd, FromRedisValue, RedisError, Value, aio::ConnectionManager,
    cluster_async::ClusterConnection,
};

pub use self::{builder::RedisStoreBuilder, connect::RedisConnectError};
use self::{
    connection::Connection,
    line::Line,
    scripts::{Reply, SAVED, Scripts, SourceAndName},
    writes::Abilities,
};
use super::{SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, Timestamp},
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Cursor, KeyPage, Record, Version},
};

/// Keeps sessions in Redis or Valkey, on one server, behind Redis Sentinel or on a cluster. All nodes of an application
/// share it.
///
/// Cloning is cheap, and clones share their connection. [`stores`](crate::guide::stores) compares all stores. Redis
/// deletes expired sessions by itself, so no [`Cleanup`](crate::store::Cleanup) is needed.
///
/// While the server is down, every operation is a [`StoreError::Unavailable`]: after a third of a second if no
/// server listens, and after a second if the server does not answer. The store connects again by itself: one attempt
/// at a time for all operations, with pauses that grow to a sixth of a second. After a refused password the pause is a
/// second.
///
/// # Example
///
/// ```no_run
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
/// use axum_typed_session::{RedisStore, SessionManager};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// let sessions = SessionManager::<Visits>::builder()
///     .store(store)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Setting up the server
///
/// Use Redis 6.2 or later, or Valkey 8 or later. The tests run on Redis 6.2, 7.0 and 8.2, and on Valkey 9.1.
///
/// - **Eviction.** Set `maxmemory-policy noeviction`. A full server then answers every write with
///   [`StoreError::Full`]. This includes a save that only extends a session, so with `rolling(true)` each commit is
///   a 503. Sessions can still be read and destroyed. Any other policy may end sessions early. It may also drop the
///   index of an owner, so that `destroy_all_of` misses live sessions.
/// - **Persistence.** Without `appendonly yes`, a restart loses the changes since the last snapshot; with
///   `appendfsync everysec`, the changes of the last second. A session that was destroyed in that time is back.
/// - **Replicas.** Replication is asynchronous, so a failover may lose the last acknowledged writes, also a
///   destroy. `min-replicas-to-write` bounds how many. The store reads from primaries only.
/// - **Rights.** `~axum-typed-session:* +get +set +del +getrange +setrange +pexpire +pttl +zadd +zrange +zrem
///   +zremrangebyscore +scan +eval +evalsha +ping +select`, on a cluster also `+cluster|slots +asking`, and with Redis
///   Sentinel also `+role`. Only a URL with a database other than 0 needs `+select`. The user of the sentinels
///   themselves needs `+sentinel|master +sentinel|get-master-addr-by-name`.
/// - **Passwords.** In a URL, percent-encode `%`, `/`, `?`, `#` and `@` in user and password. For a password that
///   changes while the application runs, use [`RedisStoreBuilder::credentials`].
/// - **TLS.** Use a `rediss://` URL and the feature `redis-rustls`. It trusts the certificates of the system, or of
///   the file that `SSL_CERT_FILE` names. For other certificates, make the connection yourself and use
///   [`from_connection_manager`](Self::from_connection_manager).
///
/// # Clusters
///
/// [`connect_cluster`](Self::connect_cluster) spreads sessions over all primaries. Slots may move while the
/// application runs.
///
/// - While a primary is down, its sessions are [`StoreError::Unavailable`]. So are all other sessions, unless the
///   cluster has `cluster-require-full-coverage no`. When a replica takes over, the store follows it.
/// - A node that hangs slows down the other nodes: commands to them took up to 1.9 seconds under load.
/// - A failover may lose the entry of a session in the index of its owner, but not the session itself.
///   `destroy_all_of` then misses the session until it ends or gets a new id. The reason is that both lie on different
///   primaries, and that a primary acknowledges a write before its replica has it. On one server with replicas, a
///   session that survives a failover keeps its entry, because the entry is written first and replicas keep the order.
/// - A list of all sessions asks one primary after the other. If slots have moved since the first page, the next page
///   is an error, and the list has to begin again. While a slot is being moved, its sessions may be missed.
///
/// # Redis Sentinel
///
/// [`connect_sentinel`](Self::connect_sentinel) asks the sentinels which server is the primary, and follows them when
/// they promote a replica.
///
/// - The store asks whenever it connects, and twice a second while it is used. The answer of the latest configuration
///   among a majority of the sentinels wins. The server must then say itself that it is a primary.
/// - No command is sent to a primary that the sentinels have not confirmed for 1.5 seconds. So a primary that hung or
///   was cut off, and was replaced meanwhile, gets no command when it is back. If no sentinel answers at all, the
///   store stays with the primary that it has, and a failover goes unnoticed.
/// - Until a replica is promoted, every operation is a [`StoreError::Unavailable`].
/// - Redis loses the writes that the old primary acknowledged and the new primary had not received, as in every
///   failover. A primary that is cut off together with the application, away from all sentinels, goes on to take
///   writes that are lost later. `min-replicas-to-write 1` and `min-replicas-max-lag 10` on all servers end that
///   after 10 seconds.
/// - With `rediss://`, a certificate must be valid for the host that the sentinels name. For names instead of
///   addresses, set `resolve-hostnames yes` and `announce-hostnames yes` on the sentinels.
///
/// # Expiry
///
/// The server decides when a session expires: it counts down the time that was left at the save, by the clock of
/// the node that saved. The clocks of the nodes may differ by up to an hour before the index of an owner loses an
/// entry early.
///
/// # Lists of all sessions
///
/// A page is one `SCAN`. It looks at up to 1,000 keys of the server, so a page has few keys or none if the server holds
/// much else. Only the server where a `SCAN` began can continue it. If that server restarted, or if a replica took
/// over, begin the list again, because later pages may miss sessions. Expired sessions are never handed out, because
/// the server deletes them by itself.
///
/// # Measured cost
///
/// With a session of 243 bytes, in commands that are pipelined:
///
/// | | cost |
/// |---|---|
/// | load | 0.7 µs of the one core of the server |
/// | new session | 1.1 µs |
/// | save | 4.5 µs with Redis 7.0, and 1.4 µs with Valkey 9.1 |
/// | memory of a session | about 480 bytes |
/// | memory for an owner | about 330 bytes, and about 200 bytes for each further session of that owner |
///
/// The memory for an owner stays until the absolute end of the session, even if the session ends earlier.
/// The test `memory_per_session` measures the memory again.
///
/// # How it works
///
/// A load is a `GET`, a destroy is a `DEL`, and a new session is a `SET .. NX`. A save is a `SET .. IFEQ`, which Valkey
/// has since 8.1 and Redis since 8.4. If the row is not the row that was loaded, a script runs then, which compares the
/// version alone. Other servers refuse the first `SET .. IFEQ`, and the store uses the script from then on. A touch is
/// a script too. Each is one command on one key. If the server does not know a script, such as after a restart, the
/// script is sent in full once.
///
/// With an [`owner`](crate::SessionManagerBuilder::owner), a sorted set lists the sessions of each owner. A login sends
/// one more command, and so does an update that changes the owner. To list or destroy the sessions of an owner, the
/// store sends one command, and then one for each login since
/// [`absolute_timeout`](crate::SessionManagerBuilder::absolute_timeout), 64 at a time. Within the default
/// [`store_timeout`](crate::SessionManagerBuilder::store_timeout), this is enough for 300,000 logins of one owner
/// on one server, and for 130,000 on a cluster. If there are more, `destroy_all_of` destroys the sessions among the
/// newest 1,000 logins first, continues as far as the time allows, and then reports an error.
///
/// If a server becomes a replica, or does not answer three commands in a row, the store resolves its name or asks the
/// sentinels again, and connects again, at most once a second. The operating system probes an idle connection after
/// five seconds, and closes a dead connection five seconds later. On a cluster, 24 commands run at the same time, and
/// one command without an answer is enough to ask the cluster which node serves which slots.
#[doc(alias("valkey", "fred", "RedisSessionStore", "elasticache"))]
#[derive(Clone)]
pub struct RedisStore {
    connection: Connection,
    scripts: Arc<Scripts>,
    abilities: Arc<Abilities>,
    prefix: Arc<str>,
    /// The clock of the operating system, if there is none.
    clock: Option<Arc<dyn Clock>>,
}

/// The longest life that the server is told, some 140,000 years. It refuses a time beyond its 64-bit clock.
const LONGEST_TTL: Duration = Duration::from_millis(1 << 52);

impl RedisStore {
    /// Connects to one server. The URL is such as `redis://user:password@host:6379/0`, where all but the host is
    /// optional. Special characters of user and password must be percent-encoded, such as `%23` for `#`.
    ///
    /// See the example of [`RedisStore`].
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] if the text is not the URL of a Redis server, if the server refuses, or if it does not
    /// answer within 5 seconds. After this method succeeded, a server that is down is a [`StoreError`] of each
    /// operation.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing is stored.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, RedisConnectError> {
        RedisStoreBuilder::server(url).connect().await
    }

    /// Makes a store for the URL that [`connect`](Self::connect) takes, and connects when an operation first needs it.
    ///
    /// So the application starts while the server is down. Until the server is up, each operation is a
    /// [`StoreError::Unavailable`] after a third of a second, or after at most one second if the server does not
    /// answer. Then the store works without a restart. For a cluster or Redis Sentinel, use
    /// [`RedisStoreBuilder::connect_lazy`].
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::RedisStore;
    ///
    /// let store = RedisStore::connect_lazy("redis://127.0.0.1:6379")?;
    /// # Ok::<(), axum_typed_session::store::RedisConnectError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] if the text is not the URL of a Redis server.
    #[doc(alias("lazy", "retry", "startup"))]
    pub fn connect_lazy(url: impl AsRef<str>) -> Result<Self, RedisConnectError> {
        RedisStoreBuilder::server(url).connect_lazy()
    }

    /// Connects to a cluster, by the URLs of some of its nodes. The store finds the other nodes.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::RedisStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let nodes = ["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"];
    /// let store = RedisStore::connect_cluster(nodes).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] if a text is not the URL of a Redis server, or if no node answers within 5 seconds.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing is stored.
    pub async fn connect_cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, RedisConnectError> {
        RedisStoreBuilder::cluster(urls).connect().await
    }

    /// Connects to the primary of a service that Redis Sentinel watches.
    ///
    /// The first argument has the URLs of the sentinels, each with its port, and with user and password if the
    /// sentinels have them. The second argument is a URL as of a server, with the name of the service as its host.
    /// Its user, password and database are those of the servers, and `rediss://` means that the servers have TLS.
    /// The section [Redis Sentinel](Self#redis-sentinel) says how the store behaves.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::RedisStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let sentinels = ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379", "redis://10.0.0.3:26379"];
    /// let store = RedisStore::connect_sentinel(sentinels, "redis://user:password@mymaster").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] if a text is not the URL of a Redis server, if no sentinel knows the service, or if its
    /// primary does not answer within 5 seconds.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing is stored.
    #[doc(alias("failover", "high availability", "mymaster"))]
    pub async fn connect_sentinel<U: AsRef<str>>(
        sentinels: impl IntoIterator<Item = U>,
        service: impl AsRef<str>,
    ) -> Result<Self, RedisConnectError> {
        RedisStoreBuilder::sentinel(sentinels, service).connect().await
    }

    /// Uses a connection to one server that the application made, with its own time-outs and retries.
    ///
    /// The connection must come from [`store::redis`](crate::store#reexports), the version of `redis` that this crate uses. Only the driver
    /// reconnects it: if the server becomes a replica, or hangs while its name moves to another server, the
    /// connection stays with the old server. Prefer [`connect`](Self::connect), which replaces the connection then.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::{RedisStore, store::redis};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://127.0.0.1:6379")?;
    /// let manager = redis::aio::ConnectionManager::new(client).await?;
    /// let store = RedisStore::from_connection_manager(manager);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_connection_manager(manager: ConnectionManager) -> Self {
        Self::new(Connection::over(Line::managed(manager)))
    }

    /// Uses a connection to a cluster that the application made.
    ///
    /// The connection must come from [`store::redis`](crate::store#reexports), the version of `redis` that this crate uses. Build its
    /// client with `.retries(0)`: the store follows redirections itself, and repeats a command only if that is
    /// safe. A client that repeats a save whose answer was lost could report a conflict with another save, and the
    /// change would be applied twice.
    ///
    /// If a primary hangs and a replica takes over, the connection does not follow. Prefer
    /// [`connect_cluster`](Self::connect_cluster), which follows the replica.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::{RedisStore, store::redis::cluster::ClusterClientBuilder};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = ClusterClientBuilder::new(["redis://10.0.0.1:6379"]).retries(0).build()?;
    /// let store = RedisStore::from_cluster_connection(client.get_async_connection().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_cluster_connection(cluster: ClusterConnection) -> Self {
        Self::new(Connection::over(Line::cluster(cluster)))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            scripts: Arc::new(Scripts::new()),
            abilities: Arc::default(),
            prefix: Arc::from("axum-typed-session:"),
            clock: None,
        }
    }

    /// Sets the start of every key that the store writes. Default: `axum-typed-session:`.
    ///
    /// If two applications share a server, give each its own prefix or its own
    /// [`audience`](crate::SessionManagerBuilder::audience). Otherwise each accepts the sessions of the other. The
    /// rights of the server's user must allow the prefix.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use axum_typed_session::RedisStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = RedisStore::connect("redis://127.0.0.1:6379").await?.prefix("shop:");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("namespace", "key_prefix", "cache_keygen"))]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into().into();
        self
    }

    /// Sets the clock from which the store computes how long a session has to live. Default:
    /// [`SystemClock`](crate::SystemClock).
    ///
    /// Only tests need another clock. The server counts the time down by its own clock.
    #[doc(alias("mock", "mock time"))]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    fn row_key(&self, key: &StoreKey) -> Vec<u8> {
        self.row_key_of(key.as_bytes())
    }

    fn row_key_of(&self, bytes: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b"row:", bytes].concat()
    }

    fn now(&self) -> Timestamp {
        Timestamp::by(self.clock.as_deref())
    }

    /// Returns how long `instant` is away, in milliseconds that the server accepts.
    fn ttl(&self, instant: Timestamp) -> u64 {
        let left = instant.saturating_since(self.now());
        let left = left.min(LONGEST_TTL).as_millis();
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    async fn run(
        &self,
        script: &SourceAndName,
        key: &[u8],
        arguments: &[&[u8]],
    ) -> Result<Reply, StoreError> {
        let reply = script.run(&self.connection, key, arguments, None).await;
        reply.map_err(store_error)
    }

    pub(crate) async fn call<R: FromRedisValue>(&self, command: &Cmd) -> Result<R, StoreError> {
        let value = self.connection.call(command, &mut None).await;
        // The driver's own error would quote the reply, which may be session data.
        redis::from_redis_value(value.map_err(store_error)?).map_err(|_| unexpected_reply())
    }

    /// Removes a row. Returns `true` if there was a row.
    async fn remove(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(self.row_key(key));
        self.call(&command).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.row_key(key));
        let row: Option<Vec<u8>> = self.call(&command).await?;
        row.map(row::decode).transpose()
    }

    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write<'_>,
    ) -> Result<SaveOutcome, StoreError> {
        // Without an entry in the index of its owner, a row would survive `destroy_by_owner`. Row and index lie on
        // different nodes of a cluster, so no script can write both, and the entry is written first. If the row
        // that was loaded has the same owner and end, an earlier save wrote the same entry.
        let is_indexed = |loaded: &Record| {
            (loaded.owner(), loaded.absolute_end()) == (record.owner(), record.absolute_end())
        };
        let is_indexed = matches!(write, Write::Update { loaded } if is_indexed(loaded));
        let unindexed = record.owner().filter(|_| !is_indexed);
        // What few saves await is boxed: past a kilobyte allocators leave their fast path.
        if let Some(owner) = &unindexed {
            Box::pin(self.index(owner, key, record.absolute_end())).await?;
        }
        let row_key = self.row_key(key);
        let reply = match write {
            Write::Create => Box::pin(self.create(&row_key, record)).await,
            Write::Update { loaded } => Box::pin(self.update(&row_key, record, loaded)).await,
        };
        let reply = reply.map_err(store_error)?;
        if let (Some(owner), true) = (&unindexed, reply.lost.is_some()) {
            // Another request may have ended the row of the first try and removed its entry before the second try.
            Box::pin(self.index(owner, key, record.absolute_end())).await?;
        }
        outcome(reply)
    }

    async fn destroy(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.remove(key).await?;
        Ok(())
    }

    async fn touch(
        &self,
        key: &StoreKey,
        version: Version,
        expires_at: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let ttl = self.ttl(expires_at).to_string();
        let expires_at = expires_at.as_unix_millis().to_be_bytes();
        let arguments = [version.as_bytes(), &expires_at[..], ttl.as_bytes()];
        let key = self.row_key(key);
        outcome(self.run(&self.scripts.touch, &key, &arguments).await?)
    }

    async fn destroy_at(
        &self,
        key: &StoreKey,
        version: Version,
    ) -> Result<SaveOutcome, StoreError> {
        let (key, version) = (self.row_key(key), version.as_bytes());
        outcome(self.run(&self.scripts.destroy, &key, &[version]).await?)
    }

    async fn list(&self, after: Option<&Cursor>, limit: u32) -> Result<KeyPage, StoreError> {
        self.page(after, limit).await
    }

    fn lists_sessions(&self) -> bool {
        true
    }

    fn indexes_owners(&self) -> bool {
        true
    }

    async fn find_by_owner(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        self.sessions(owner).await
    }

    async fn destroy_by_owner(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        self.end_sessions(owner, keep).await
    }
}

/// Reads the reply to a write of a row.
fn outcome(reply: Reply) -> Result<SaveOutcome, StoreError> {
    match (reply.value, reply.lost) {
        (Value::Int(SAVED), _) => Ok(SaveOutcome::Saved),
        (Value::Nil, _) => Ok(SaveOutcome::Gone),
        // The first try may have taken effect, and another save may have replaced its row. With a conflict, the
        // caller would merge the same change a second time.
        (Value::BulkString(_), Some(lost)) => Err(StoreError::unavailable(lost)),
        (Value::BulkString(row), None) => {
            row::decode(row).map(|record| SaveOutcome::Conflict(record.into()))
        }
        _ => Err(unexpected_reply()),
    }
}

fn store_error(error: RedisError) -> StoreError {
    match error.code() {
        Some("WRONGTYPE") => StoreError::Corrupt,
        Some("OOM") => StoreError::Full,
        _ => StoreError::unavailable(error),
    }
}

fn unexpected_reply() -> StoreError {
    StoreError::unavailable("Redis sent a reply of an unexpected type")
}
