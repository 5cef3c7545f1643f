//! The store for many processes, in Redis, Valkey or a cluster of either.

mod connect;
mod connection;
mod line;
mod owners;
mod row;
mod scripts;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{
    Cmd, FromRedisValue, RedisError, Value, aio::ConnectionManager,
    cluster_async::ClusterConnection,
};

pub use self::connect::RedisConnectError;
use self::{
    connect::Target,
    connection::Connection,
    line::Line,
    scripts::{DECLINED, Reply, SAVED, Scripts, SourceAndName},
};
use super::{SaveOutcome, SessionStore, Write};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, Version},
};

/// Sessions in Redis or Valkey, on one server or a cluster, shared by all nodes of an application.
///
/// Cheap to clone; clones share their connection. The store reconnects by itself: while the server is away
/// every operation is a [`StoreError::Unavailable`], within a third of a second if nobody listens and a
/// second if nobody answers, and the first one after that works again.
///
/// # Example
///
/// ```no_run
/// use axum_typed_session::{RedisStore, SessionManager};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// let sessions = SessionManager::<u32>::builder().store(store).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # What it costs
///
/// Every operation is one command on one key: `GET` to load, `DEL` to destroy, a script to save or touch.
/// A script the server does not know is sent in full once, after a restart, a failover or `SCRIPT FLUSH`. With
/// [`owner`](crate::SessionManagerBuilder::owner) a login takes one command more, an update that changes the
/// owner two, and listing or ending an owner's sessions one and then one for each login since
/// `absolute_timeout`, 64 at a time: ended sessions keep their entry until then, except those that
/// `destroy_all_of` ended. The default `store_timeout` is enough for 300,000 entries on one server, which is
/// held up for 50 ms to list them, and for 130,000 on a cluster. Of more, the sessions among the newest 1,000
/// end at once; `destroy_all_of` goes on as far as it comes and reports an error.
///
/// Of the server's one core a load takes 1 µs and a save 5 µs (a plain `SET` takes 2), besides its network: some
/// 100,000 saves a second at the most, pipelined.
///
/// A session of 243 bytes takes 530 bytes of memory on the server, keys and tables included. An owner adds 300
/// bytes, and 160 for each further session, until the session's absolute end even if it expires or is
/// destroyed before. Measured with Redis 7.0, the memory by the test `memory_per_session`.
///
/// # Setting up the server
///
/// Redis 6.2 or later, or Valkey. Tested with Redis 7.0.
///
/// - **Eviction.** Use `maxmemory-policy noeviction`: a full server then answers every write with
///   [`StoreError::Full`], a change or a longer life of a session too, so that with `rolling(true)` each commit
///   is a 503. Sessions go on being read and destroyed. Every key expires, so each other policy may end
///   sessions early, and may drop an owner's index and so hide live sessions from `destroy_all_of`.
/// - **Persistence.** Without `appendonly yes` a restart ends sessions that are younger than the last snapshot;
///   with `appendfsync everysec`, those of the last second; and a session that was destroyed in that time is
///   back.
/// - **Replicas.** Replication is asynchronous: a failover may lose the last acknowledged writes, a logout
///   among them. `min-replicas-to-write` bounds how many; the store sends no `WAIT`. It reads from primaries
///   only. In a cluster a failover may lose a session's entry in its owner's index and not the session, which
///   lies on another primary: `destroy_all_of` misses it until it gets a new id or ends.
/// - **Rights.** `~axum-typed-session:* +get +set +del +getrange +setrange +pexpire +pttl +zadd +zrange
///   +zrem +zremrangebyscore +eval +evalsha`, and on a cluster `+cluster|slots +asking +ping`.
/// - **TLS.** A `rediss://` URL and the feature `redis-rustls`, which trusts the system's certificates, or
///   those of the file `SSL_CERT_FILE`. A connection with certificates of its own comes in by
///   [`from_connection_manager`](Self::from_connection_manager).
/// - **Failover, and a name that moves.** The name is resolved and connected to anew when its server turns out to
///   be a replica, and after three commands in a row without an answer, at most once a second and beside the
///   connection there is. Idle connections are probed after five seconds, dead ones given up five seconds later.
///
/// # Clusters
///
/// [`connect_cluster`](Self::connect_cluster) spreads sessions over all primaries. Slots may be moved while the
/// application runs. While a primary is away its sessions are [`StoreError::Unavailable`], and the others too
/// unless the cluster has `cluster-require-full-coverage no`. Where another took its slots over, the store
/// follows, also if the former primary hangs: a command without an answer has it ask who serves them. A node
/// that hangs slows the others down, since 24 commands run at once and those sent to it take a second each;
/// under load, those of other nodes took up to 1.9 s. An owner's index and the sessions in it lie on
/// different nodes; an entry is written before its session, and each session found is asked whether it is
/// still the owner's, so one that is missing or has changed hands is not listed.
///
/// # Expiry
///
/// Expiry is decided by the server, which counts down the time that remained by the clock of the node that
/// saved. Nodes whose clocks differ by up to an hour never lose an entry of an owner's index.
#[derive(Clone)]
pub struct RedisStore {
    connection: Connection,
    scripts: Arc<Scripts>,
    prefix: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// The longest life the server is told, some 140,000 years; it refuses more than a 64-bit clock can hold.
const LONGEST_TTL: Duration = Duration::from_millis(1 << 52);

impl RedisStore {
    /// Connects to one server, by a URL such as `redis://user:password@host:6379/0`.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`] for a URL that is none and a server that does not answer within five seconds.
    /// Later on a server that is down is a [`StoreError`], and the store recovers by itself.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, RedisConnectError> {
        let target = Target::node(url.as_ref())?;
        Connection::to(target).await.map(Self::new)
    }

    /// Connects to a cluster, by the URLs of some of its nodes; it finds the others.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), if none of the nodes answers.
    pub async fn connect_cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, RedisConnectError> {
        let target = Target::cluster(urls)?;
        Connection::to(target).await.map(Self::new)
    }

    /// Uses the application's own connection to one server, made with version 1 of the `redis` crate, with its
    /// timeouts and retries.
    ///
    /// It is renewed only by the driver, when it breaks, and so remains with a server that becomes a replica or
    /// that hangs while its name moves on. [`connect`](Self::connect) makes connections that are replaced then.
    pub fn from_connection_manager(manager: ConnectionManager) -> Self {
        Self::new(Connection::new(Line::node(manager), None))
    }

    /// Uses the application's own connection to a cluster, made with version 1 of the `redis` crate.
    ///
    /// Build its client with `.retries(0)`. The store follows redirections itself and repeats what is
    /// safe to repeat; a client that repeats a save whose answer was lost may find another save on top of
    /// it and report a conflict, and what the save did is then done twice. A primary that hangs is missed for as
    /// long as it does, though a replica took over; [`connect_cluster`](Self::connect_cluster) follows the
    /// replica.
    pub fn from_cluster_connection(cluster: ClusterConnection) -> Self {
        Self::new(Connection::new(Line::cluster(cluster), None))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            scripts: Arc::new(Scripts::new()),
            prefix: Arc::from("axum-typed-session:"),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets what every key of the store begins with. Default: `axum-typed-session:`.
    ///
    /// Applications that share a server need prefixes of their own, or an `audience` of their own: with
    /// neither, each accepts the other's sessions.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into().into();
        self
    }

    /// Sets where now comes from, to compute how long a row has to live. Default: the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    fn row_key(&self, key: &StoreKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"row:", key.as_bytes()].concat()
    }

    /// Returns how long `instant` is away, in milliseconds as the server reads them.
    fn ttl(&self, instant: Timestamp) -> String {
        let left = instant.saturating_since(self.clock.now().into());
        left.min(LONGEST_TTL).as_millis().to_string()
    }

    async fn run(
        &self,
        script: &SourceAndName,
        key: &[u8],
        arguments: &[&[u8]],
    ) -> Result<Reply, StoreError> {
        let reply = script.run(&self.connection, key, arguments).await;
        reply.map_err(store_error)
    }

    async fn call<R: FromRedisValue>(&self, command: &Cmd) -> Result<R, StoreError> {
        let value = self.connection.call(command, &mut None).await;
        // The driver's own error would quote the reply, which may be session data.
        redis::from_redis_value(value.map_err(store_error)?).map_err(|_| unexpected_reply())
    }

    /// Runs the save script, which declines if the first `head` bytes of the row's record are not those of
    /// `record`.
    async fn save_row(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
        head: usize,
    ) -> Result<Reply, StoreError> {
        let row = row::encode(record);
        let ttl = self.ttl(record.expires_at());
        let expected = match &write {
            Write::Create => &[][..],
            Write::Update { expected } => expected.as_bytes(),
        };
        let head = head.to_string();
        let arguments = [&row, ttl.as_bytes(), expected, head.as_bytes()];
        let key = self.row_key(key);
        self.run(&self.scripts.save, &key, &arguments).await
    }

    /// Removes a row and says whether there was one.
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

    /// Entry before row, at no cost when there is an entry already.
    ///
    /// A row whose owner's index lacks it would survive `destroy_by_owner`, so the entry is written first;
    /// row and index lie on different nodes of a cluster, so no script can write both. Nobody knows the
    /// row's present owner but the row. So an update asks the script to write only if the record's head, in
    /// which owner and absolute end stand, is what the row has: whoever wrote that row wrote its entry
    /// before. Only if the script declines, the entry is written and the script asked again, without that
    /// condition. A head that differs for another reason costs the same detour and does no harm.
    async fn save(
        &self,
        key: &StoreKey,
        record: &Record,
        write: Write,
    ) -> Result<SaveOutcome, StoreError> {
        if let Some(owner) = record.owner() {
            if let Write::Update { .. } = write {
                let head = row::head_len(record);
                let reply = self.save_row(key, record, write, head).await?;
                if reply.value != Value::Int(DECLINED) {
                    return outcome(reply);
                }
            }
            self.index(&owner, key, record.absolute_end()).await?;
        }
        let reply = self.save_row(key, record, write, 0).await?;
        if let (Some(owner), true) = (record.owner(), reply.lost.is_some()) {
            // What the first try wrote may have been ended, row and entry, before the second wrote again.
            self.index(&owner, key, record.absolute_end()).await?;
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
        let ttl = self.ttl(expires_at);
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

/// Reads the answer of a script that writes a row.
fn outcome(reply: Reply) -> Result<SaveOutcome, StoreError> {
    match (reply.value, reply.lost) {
        (Value::Int(SAVED), _) => Ok(SaveOutcome::Saved),
        (Value::Nil, _) => Ok(SaveOutcome::Gone),
        // Perhaps the first try was carried out and another save came on top of it. Calling that a
        // conflict would have the caller merge, or count, the same change twice.
        (Value::BulkString(_), Some(lost)) => Err(StoreError::unavailable(lost)),
        (Value::BulkString(row), None) => row::decode(row).map(SaveOutcome::Conflict),
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
    StoreError::unavailable("Redis gave an answer of an unexpected type")
}
