//! Redis servers and clusters of them, and what tests ask them directly.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::{LazyLock, OnceLock},
};

use axum_typed_session::{RedisStore, StoreKey, store::OwnerKey};
use redis::{Cmd, Connection, FromRedisValue, cmd};

pub use crate::browser::{DAY, HOUR, SECOND};
pub(crate) use crate::rows::{
    any_key, breakable, created, or_skip, record, saved, unavailable, update,
};
use crate::{
    proxy::Proxy,
    rows::random,
    servers::{self, Server, comes_true, wait_until},
};

/// The bus of a cluster node is so far above its port.
const BUS: u16 = 10_000;

/// A Redis server of this test alone, or one that tests share without disturbing each other.
pub struct Redis {
    server: Option<Server>,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    pub port: u16,
}

impl Redis {
    /// Starts a server that loses its data with its process; `None`, with a loud word, if there is no
    /// program to start.
    pub fn start() -> Option<Self> {
        Self::start_with(&[("--appendonly", "no")])
    }

    /// Starts a server that writes everything down before it answers.
    pub fn start_durable() -> Option<Self> {
        Self::start_with(&[("--appendonly", "yes"), ("--appendfsync", "always")])
    }

    /// Starts a server with settings of its own.
    pub fn start_with<S: AsRef<str>>(settings: &[(&str, S)]) -> Option<Self> {
        static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
            let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
            servers::find(&program, "redis")
        });
        let program = PROGRAM.clone()?;
        let port = servers::free_port(BUS);
        let folder = servers::folder("redis");
        let (at, inside) = (port.to_string(), folder.display().to_string());
        let common = [("--bind", "127.0.0.1"), ("--save", ""), ("--port", &at), ("--dir", &inside)];
        let settings = settings.iter().map(|(name, value)| (*name, value.as_ref()));
        let settings = common.into_iter().chain(settings);
        let arguments = settings.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]);
        let arguments = arguments.collect();
        let mut redis = Self { server: None, program, folder, arguments, port };
        redis.resume();
        Some(redis)
    }

    /// Starts the program again after [`kill`](Self::kill), with the data it wrote.
    pub fn resume(&mut self) {
        let program = self.program.display().to_string();
        let server = Server::start(&self.folder, &program, &self.arguments).expect("a shell");
        let pid = server.pid();
        self.server = Some(server);
        // Another process may have taken the port in the meantime, and answer in its place.
        let answers = comes_true(|| {
            let info = self.try_ask::<String>(cmd("INFO").arg("server"));
            info.is_ok_and(|info| info.contains(&format!("process_id:{pid}\r")))
        });
        let log = || self.server.as_ref().map(Server::log).unwrap_or_default();
        assert!(answers, "{program} does not start:\n{}", log());
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    pub fn signal(&self, signal: &str) {
        self.server.as_ref().expect("a running server").signal(signal);
    }

    /// The program of the server.
    pub fn program(&self) -> String {
        self.program.display().to_string()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn store(&self) -> RedisStore {
        RedisStore::connect(self.url()).await.expect("a connection")
    }

    /// Connects by way of a name that may move, over a wire that may fail.
    pub async fn proxied_store(&self) -> (Proxy, RedisStore) {
        let proxy = Proxy::start(self.port).await;
        let store = RedisStore::connect(format!("redis://127.0.0.1:{}", proxy.port)).await;
        (proxy, store.expect("a connection"))
    }

    pub fn connection(&self) -> redis::RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(SECOND)
    }

    fn try_ask<R: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<R> {
        command.query(&mut self.connection()?)
    }

    /// Runs a command over a connection of its own.
    #[track_caller]
    pub fn ask<R: FromRedisValue>(&self, command: &Cmd) -> R {
        self.try_ask(command).expect("an answer")
    }

    /// One number of `INFO`.
    pub fn info(&self, section: &str, field: &str) -> String {
        self.field(cmd("INFO").arg(section), field)
    }

    /// Ends the connections of all clients but the one that asks.
    pub fn hang_up(&self) {
        let mut command = cmd("CLIENT");
        command.arg("KILL").arg("TYPE").arg("normal");
        self.ask::<()>(&command);
    }

    /// Returns `true` if the server compares values in `SET .. IFEQ`.
    pub fn has_ifeq(&self) -> bool {
        let mut command = cmd("SET");
        command.arg("no such key").arg("new").arg("IFEQ").arg("old");
        self.try_ask::<Option<String>>(&command).is_ok()
    }

    /// Returns `true` if the server was built with TLS, or says loudly that it was not.
    #[cfg(feature = "redis-rustls")]
    pub fn has_tls(&self) -> bool {
        // Without a certificate it ends at once either way, and says why.
        let output = Command::new(&self.program)
            .args(["--port", "0", "--tls-port", &servers::free_port(0).to_string()])
            .output()
            .expect("a server");
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        let has_tls = output.contains("No tls-cert-file configured");
        if !has_tls {
            // Not `eprintln!`, which the test harness swallows.
            let program = self.program();
            let _ = writeln!(io::stderr(), "\n!!! SKIPPED: {program} was built without TLS !!!\n");
        }
        has_tls
    }

    /// Listens to the commands of all clients.
    pub fn monitor(&self) -> Monitor {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.write_all(b"MONITOR\r\n").expect("a monitor");
        let mut lines = BufReader::new(stream);
        lines.read_line(&mut String::new()).expect("an OK");
        Monitor { port: self.port, lines }
    }

    /// The keys there are.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.ask(cmd("KEYS").arg("*"))
    }
}

/// The commands a server receives, those of its scripts excepted.
pub struct Monitor {
    port: u16,
    lines: BufReader<TcpStream>,
}

impl Monitor {
    /// The names of the commands since the last call.
    pub fn since_last_time(&mut self) -> Vec<String> {
        let mut marker = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        marker.write_all(b"ECHO marker\r\n").expect("a marker");
        let mut names = Vec::new();
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("a line");
            let name = line.split('"').nth(1).expect("a command").to_owned();
            match &*name {
                "ECHO" => return names,
                _ if line.contains(" lua]") => {}
                _ => names.push(name),
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A server all tests share that only use keys of their own.
pub fn shared() -> Option<&'static Redis> {
    static SHARED: OnceLock<Option<Redis>> = OnceLock::new();
    SHARED.get_or_init(Redis::start).as_ref()
}

/// Masters that share the slots, each with so many replicas.
pub struct Cluster {
    pub masters: Vec<Redis>,
    pub replicas: Vec<Redis>,
}

pub const SLOTS: u16 = 16_384;

impl Cluster {
    /// Starts three masters, and a replica for each if asked to.
    pub fn start(with_replicas: bool) -> Option<Self> {
        let node = || {
            Redis::start_with(&[
                ("--appendonly", "no"),
                ("--cluster-enabled", "yes"),
                ("--cluster-node-timeout", "1000"),
                ("--repl-diskless-sync-delay", "0"),
            ])
        };
        let nodes = |count| (0..count).map(|_| node()).collect::<Option<Vec<_>>>();
        let cluster =
            Self { masters: nodes(3)?, replicas: nodes(if with_replicas { 3 } else { 0 })? };
        let share = SLOTS.div_ceil(3);
        for (index, master) in (0..).zip(&cluster.masters) {
            let (first, last) = (index * share, (index * share + share - 1).min(SLOTS - 1));
            let slots: Vec<u16> = (first..=last).collect();
            master.ask::<()>(cmd("CLUSTER").arg("ADDSLOTS").arg(slots));
            master.ask::<()>(cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(index + 1));
        }
        let first = &cluster.masters[0];
        for node in cluster.nodes().skip(1) {
            node.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(first.port));
        }
        let count = cluster.nodes().count();
        for node in cluster.nodes() {
            wait_until("the nodes to meet", || {
                let nodes: String = node.ask(cmd("CLUSTER").arg("NODES"));
                nodes.lines().count() == count && !nodes.contains("handshake")
            });
        }
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            replica.ask::<()>(cmd("CLUSTER").arg("REPLICATE").arg(master.id()));
        }
        for node in cluster.nodes() {
            wait_until("the cluster to be up", || node.cluster_info("cluster_state") == "ok");
        }
        for replica in &cluster.replicas {
            wait_until("a replica to follow", || {
                replica.info("replication", "master_link_status") == "up"
            });
        }
        Some(cluster)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.masters.iter().chain(&self.replicas)
    }

    pub async fn store(&self) -> RedisStore {
        let urls = self.masters.iter().map(Redis::url);
        RedisStore::connect_cluster(urls).await.expect("a connection")
    }
}

impl Redis {
    /// The node's name in its cluster.
    pub fn id(&self) -> String {
        self.ask(cmd("CLUSTER").arg("MYID"))
    }

    pub fn cluster_info(&self, field: &str) -> String {
        self.field(cmd("CLUSTER").arg("INFO"), field)
    }

    fn field(&self, command: &Cmd, field: &str) -> String {
        let lines: String = self.ask(command);
        let mut fields = lines.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| *name == field);
        found.map(|(_, value)| value).unwrap_or_default().to_owned()
    }

    /// The slot of a key.
    pub fn slot(&self, key: impl redis::ToRedisArgs) -> u16 {
        self.ask(cmd("CLUSTER").arg("KEYSLOT").arg(key))
    }
}

/// A cluster all tests share that only use keys of their own.
pub fn shared_cluster() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(false)).as_ref()
}

pub fn any_owner() -> OwnerKey {
    OwnerKey::from_bytes(random())
}

/// The keys a store with the default prefix uses.
pub fn row_key(key: &StoreKey) -> Vec<u8> {
    [b"axum-typed-session:row:", &key.as_bytes()[..]].concat()
}

pub fn index_key(owner: &OwnerKey) -> Vec<u8> {
    [b"axum-typed-session:owner:", &owner.as_bytes()[..]].concat()
}
