//! A connection of the driver. It recognizes the errors after which the store should connect again.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{
    Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{connect, sentinel::Primary};

/// How many commands a cluster's connection carries at once; the others wait their turn.
///
/// The driver runs a connection to a cluster as one task, which on a redirection pauses every command to
/// ask where the slots are. A command that tokio's budget of 128 steps stopped while it held the table of
/// slots would never let go of it, and the connection would be dead (redis 1.8.1, tokio 1.54.1). One command
/// takes four steps at most between two pauses of the task.
const CLUSTER_CONCURRENCY: usize = 24;

/// After so many commands in a row without an answer a connection to one server is given up.
///
/// The server may hang while its kernel still acknowledges, and its name lead to another by now.
const NODE_PATIENCE: u32 = 3;

/// As [`NODE_PATIENCE`], for a cluster. Its other nodes still answer, so answers do not reset the count.
const CLUSTER_PATIENCE: u32 = 1;

/// A command that its caller dropped counts as a command without an answer if it waited this long.
const LONG: Duration = Duration::from_millis(250);

/// The meaning of a redirection that comes from a server which was not connected as a cluster.
const NOT_ALONE: &str = "this server is a node of a cluster and does not hold this key; connect with \
                         `RedisStore::connect_cluster`";

/// The driver falls back to the address of the node that answers, which it does not tell.
const NO_ADDRESS: &str = "the nodes of this cluster announce no addresses, so its sessions cannot be listed; see \
                          `cluster-preferred-endpoint-type`";

/// A connection to one server or to a cluster.
pub(super) struct Line {
    wire: Wire,
    /// How many commands had no answer: in a row, or from a cluster since it was last looked at.
    unanswered: AtomicU32,
    /// A cluster redirected a command, so the driver asks which node serves which slots.
    was_redirected: AtomicBool,
    /// The connection to one server has ended, or the server wants another password.
    is_broken: AtomicBool,
}

enum Wire {
    Node {
        connection: MultiplexedConnection,
        /// The answer of the sentinels, if they named the server.
        primary: Option<Primary>,
    },
    /// A connection that the application made, and that the driver renews.
    Managed(ConnectionManager),
    Cluster {
        connection: ClusterConnection,
        /// Closed when the line is replaced.
        turns: Semaphore,
        /// The nodes and their slots, as the driver knows them.
        masters: Mutex<Masters>,
    },
}

/// Ranges of slots: first slot, last slot and the name of the node that serves them.
type Masters = Vec<(i64, i64, Value)>;

/// The primaries that together have all keys.
pub(super) struct Primaries {
    /// The one server has no address.
    pub(super) addresses: Vec<Option<Address>>,
    /// Changes if slots of the cluster move.
    pub(super) fingerprint: u64,
}

/// Host and port of a node, as the driver knows it.
pub(super) type Address = (String, u16);

impl Line {
    pub(super) fn node(connection: MultiplexedConnection) -> Self {
        Self::new(Wire::Node { connection, primary: None })
    }

    pub(super) fn primary_of_sentinels(
        connection: MultiplexedConnection,
        primary: Primary,
    ) -> Self {
        Self::new(Wire::Node { connection, primary: Some(primary) })
    }

    pub(super) fn managed(manager: ConnectionManager) -> Self {
        Self::new(Wire::Managed(manager))
    }

    /// Takes the connection of a cluster that is never replaced, even if a replica takes over.
    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self::of_masters(connection, Vec::new())
    }

    pub(super) async fn replaceable_cluster(connection: ClusterConnection) -> RedisResult<Self> {
        let masters = masters(connection.clone()).await?;
        Ok(Self::of_masters(connection, masters))
    }

    fn of_masters(connection: ClusterConnection, masters: Masters) -> Self {
        Self::new(Wire::Cluster {
            connection,
            turns: Semaphore::new(CLUSTER_CONCURRENCY),
            masters: Mutex::new(masters),
        })
    }

    fn new(wire: Wire) -> Self {
        Self {
            wire,
            unanswered: AtomicU32::new(0),
            was_redirected: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Sends a command, on a cluster to the node, or else to the primary of the command's key. Returns `None` if the
    /// line was closed before it was the command's turn.
    pub(super) async fn send(
        &self,
        command: &Cmd,
        node: Option<&Address>,
    ) -> Option<RedisResult<Value>> {
        match &self.wire {
            Wire::Node { connection, .. } => {
                Some(self.send_over(&mut connection.clone(), command).await)
            }
            Wire::Managed(manager) => Some(self.send_over(&mut manager.clone(), command).await),
            Wire::Cluster { connection, turns, .. } => {
                let _turn = turns.acquire().await.ok()?;
                Some(Box::pin(self.send_to_cluster(connection.clone(), command, node)).await)
            }
        }
    }

    async fn send_to_cluster(
        &self,
        mut cluster: ClusterConnection,
        command: &Cmd,
        node: Option<&Address>,
    ) -> RedisResult<Value> {
        let waiting = Waiting::on(self);
        let sent = match node {
            Some(node) => cluster.route_command(command.clone(), to(node)).await,
            None => command.query_async(&mut cluster).await,
        };
        let answer = match sent {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {
                ask(cluster, command, error).await
            }
            answer => answer,
        };
        waiting.end(&answer);
        if answer.as_ref().is_err_and(is_redirection) {
            self.was_redirected.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn send_over(
        &self,
        connection: &mut impl ConnectionLike,
        command: &Cmd,
    ) -> RedisResult<Value> {
        let waiting = Waiting::on(self);
        let answer = command.query_async(connection).await;
        waiting.end(&answer);
        answer.map_err(|error| self.judge(error))
    }

    /// Notes errors that only a new connection can fix: this one has ended, the server became a replica, or it wants
    /// another password.
    fn judge(&self, error: RedisError) -> RedisError {
        let kind = error.kind();
        let is_moved = kind == ErrorKind::Server(ServerErrorKind::Moved);
        if is_moved || kind == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            self.unanswered.store(NODE_PATIENCE, Ordering::Relaxed);
        }
        if error.is_unrecoverable_error() || connect::is_unauthenticated(&error) {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        if is_moved {
            return RedisError::from(io::Error::other(NOT_ALONE));
        }
        error
    }

    /// Returns `true` if no command can be carried out over this connection again.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.wire, Wire::Node { .. }) && self.is_broken.load(Ordering::Relaxed)
    }

    /// Returns `true` if a command may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_broken() && !self.primary().is_some_and(Primary::is_outdated)
    }

    /// Returns `true` if it is time to ask the sentinels again.
    pub(super) fn is_due(&self) -> bool {
        self.primary().is_some_and(Primary::is_due)
    }

    pub(super) fn primary(&self) -> Option<&Primary> {
        match &self.wire {
            Wire::Node { primary, .. } => primary.as_ref(),
            Wire::Managed(_) | Wire::Cluster { .. } => None,
        }
    }

    /// Returns `true` if a new connection might answer where this one does not, or if a cluster has changed.
    pub(super) fn is_doubtful(&self) -> bool {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        match self.wire {
            Wire::Node { .. } => unanswered >= NODE_PATIENCE,
            Wire::Managed(_) => false,
            Wire::Cluster { .. } => {
                unanswered >= CLUSTER_PATIENCE || self.was_redirected.load(Ordering::Relaxed)
            }
        }
    }

    /// Returns `true` if a doubtful line is as good as a new one, since its driver knows all masters of the cluster.
    ///
    /// A new one would then only lack the connection to the node that hangs, and look for that before it
    /// sends anything to the others.
    pub(super) async fn is_up_to_date(&self) -> bool {
        let Wire::Cluster { connection, masters: known, .. } = &self.wire else {
            return false;
        };
        let timed_out = self.unanswered.swap(0, Ordering::Relaxed) > 0;
        let was_redirected = self.was_redirected.swap(false, Ordering::Relaxed);
        match masters(connection.clone()).await {
            Ok(masters) if timed_out => masters == *lock(known),
            Ok(masters) => {
                *lock(known) = masters;
                true
            }
            Err(_) => {
                self.was_redirected.fetch_or(was_redirected, Ordering::Relaxed);
                !timed_out
            }
        }
    }

    /// Returns the primaries. A cluster is asked for them.
    pub(super) async fn primaries(&self) -> RedisResult<Primaries> {
        match &self.wire {
            Wire::Node { .. } | Wire::Managed(_) => {
                Ok(Primaries { addresses: vec![None], fingerprint: 0 })
            }
            Wire::Cluster { connection, .. } => primaries(connection.clone()).await,
        }
    }

    /// Returns `true` if this line leads elsewhere than `old`, or to the same server over a new connection.
    pub(super) fn improves(&self, old: &Self) -> bool {
        match (&self.wire, &old.wire) {
            (Wire::Cluster { masters: new, .. }, Wire::Cluster { masters: known, .. }) => {
                *lock(new) != *lock(known)
            }
            _ => true,
        }
    }

    /// Sends the commands that wait for their turn elsewhere; those under way end here.
    pub(super) fn close(&self) {
        if let Wire::Cluster { turns, .. } = &self.wire {
            turns.close();
        }
    }
}

/// A command under way, which counts as unanswered if its caller drops it.
struct Waiting<'a> {
    line: &'a Line,
    since: Instant,
    is_answered: bool,
}

impl<'a> Waiting<'a> {
    fn on(line: &'a Line) -> Self {
        Self { line, since: Instant::now(), is_answered: false }
    }

    fn end(mut self, answer: &RedisResult<Value>) {
        if answer.as_ref().is_err_and(RedisError::is_timeout) {
            return;
        }
        self.is_answered = true;
        let is_node = matches!(self.line.wire, Wire::Node { .. });
        // Writing only where there is something to write leaves the counter in every core's cache.
        if is_node && answer.is_ok() && self.line.unanswered.load(Ordering::Relaxed) > 0 {
            self.line.unanswered.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.since.elapsed() >= LONG {
            self.line.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock(masters: &Mutex<Masters>) -> MutexGuard<'_, Masters> {
    masters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns `true` if the driver asks the cluster after this error which node serves which slots.
fn is_redirection(error: &RedisError) -> bool {
    let kind = error.kind();
    kind == ErrorKind::Server(ServerErrorKind::Moved)
        || kind == ErrorKind::ClusterConnectionNotFound
}

/// Asks any node of a cluster which node serves which slots.
async fn masters(cluster: ClusterConnection) -> RedisResult<Masters> {
    let ranges = ranges(cluster).await?;
    // Each node may know the others under other hosts.
    Ok(ranges.into_iter().map(|(first, last, [.., name])| (first, last, name)).collect())
}

/// Asks any node of a cluster for the primaries, in the order of their first slots.
async fn primaries(cluster: ClusterConnection) -> RedisResult<Primaries> {
    let (mut addresses, mut known) = (Vec::new(), HashSet::new());
    let mut hasher = DefaultHasher::new();
    for (first, last, [host, port, name]) in ranges(cluster).await? {
        let name = format!("{name:?}");
        (first, last, &name).hash(&mut hasher);
        if known.insert(name) {
            let host: Option<String> = redis::from_redis_value(host)?;
            let host = host.filter(|host| !host.is_empty());
            let host = host.ok_or_else(|| RedisError::from(io::Error::other(NO_ADDRESS)))?;
            addresses.push(Some((host, redis::from_redis_value(port)?)));
        }
    }
    Ok(Primaries { addresses, fingerprint: hasher.finish() })
}

/// The first slot, the last slot, and host, port and name of the primary.
type Range = (i64, i64, [Value; 3]);

async fn ranges(mut cluster: ClusterConnection) -> RedisResult<Vec<Range>> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let anyone = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let ranges = cluster.route_command(command, anyone).await?;
    let ranges: Vec<Vec<Value>> = redis::from_redis_value(ranges)?;
    let ranges = ranges.iter().filter_map(|range| match &range[..] {
        [Value::Int(first), Value::Int(last), Value::Array(primary), ..] => {
            Some((*first, *last, primary.first_chunk()?.clone()))
        }
        _ => None,
    });
    let mut ranges: Vec<Range> = ranges.collect();
    ranges.sort_unstable_by_key(|(first, ..)| *first);
    Ok(ranges)
}

fn to((host, port): &Address) -> RoutingInfo {
    let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
    RoutingInfo::SingleNode(node)
}

/// Follows the redirection for a slot that is being moved. The key is already on the other node, or does not exist
/// yet.
async fn ask(
    mut cluster: ClusterConnection,
    command: &Cmd,
    redirection: RedisError,
) -> RedisResult<Value> {
    let Some(node) = redirection.redirect_node().and_then(|(node, _slot)| {
        let (host, port) = node.rsplit_once(':')?;
        Some(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port: port.parse().ok()? })
    }) else {
        return Err(redirection);
    };
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").add_command(command.clone());
    let mut answers = cluster.route_pipeline(pipeline, 0, 2, node).await?;
    match answers.pop() {
        Some(answer) => answer.extract_error(),
        None => Err(redirection),
    }
}
