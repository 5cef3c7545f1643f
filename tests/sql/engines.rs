//! The three engines: a private server each, and a table of its own for every test.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum_typed_session::{
    SessionStore as _, StoreKey,
    store::{Record, SaveOutcome, SqlEngine, SqlStore, Write},
};
use sqlx::{
    AssertSqlSafe, MySql, Pool, Postgres, Sqlite,
    mysql::MySqlConnectOptions,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::servers::{self, Server, eventually, find, free_port, wait_until};

/// An engine, and what tests do to it that the store never does.
pub trait Engine: SqlEngine {
    /// Connects to the database that most tests share, or to a new SQLite file; to nothing where the
    /// engine is not installed.
    async fn open(options: PoolOptions<Self>) -> Option<(Pool<Self>, Option<Folder>)>;

    fn run_sql(
        pool: &Pool<Self>,
        sql: &str,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    fn run_on(
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn number(pool: &Pool<Self>, sql: &str) -> impl Future<Output = i64> + Send;

    async fn binary(pool: &Pool<Self>, sql: &str) -> Vec<u8>;

    /// Whether columns say how long keys and versions are.
    const HAS_FIXED_LENGTHS: bool = false;

    /// SQL for these bytes.
    fn blob(hex: &str) -> String {
        format!("x'{hex}'")
    }

    /// SQL of the first version that had a table. It stays as it is when later versions make another one.
    const FIRST_TABLE: &str;

    /// SQL for each isolation level of a connection, the highest last.
    const ISOLATION_LEVELS: &[&'static str];

    /// SQL that makes `count` rows without owner which expired long ago.
    fn expired_rows(table: &str, count: u32) -> String;
}

/// An engine with a server that can fail.
pub trait Remote: Engine {
    /// Starts a server of a test's own; nothing where the engine is not installed.
    fn start() -> Option<Private>;

    /// Connects as the one who may do everything.
    async fn connect(port: u16, options: PoolOptions<Self>) -> Pool<Self> {
        Self::connect_as(Self::ADMIN, port, options).await
    }

    const ADMIN: &str;

    async fn connect_as(user: &str, port: u16, options: PoolOptions<Self>) -> Pool<Self>;

    fn port(pool: &Pool<Self>) -> u16;

    /// The URL with which the one who may do everything connects.
    fn url(port: u16) -> String;

    /// SQL after which the server refuses to write, except for the admin of MySQL.
    const REFUSE_WRITES: &[&str];

    /// SQL for how many connections the pool of this user has.
    const COUNT_CONNECTIONS: &str;

    /// Kills every connection but the one it is called on.
    async fn kill_connections(pool: &Pool<Self>);
}

/// A pool, and a table that no other test has.
pub struct Database<E: Engine> {
    pub pool: Pool<E>,
    pub table: String,
    pub store: SqlStore<E>,
    /// Where an SQLite file is, which is removed with this.
    #[expect(dead_code, reason = "kept for its end")]
    folder: Option<Folder>,
}

impl<E: Engine> Database<E> {
    /// Makes a table in the shared database.
    pub async fn fresh() -> Option<Self> {
        Self::with_options(options()).await
    }

    pub async fn with_options(options: PoolOptions<E>) -> Option<Self> {
        let (pool, folder) = E::open(options).await?;
        Some(Self::migrated(pool, folder).await)
    }

    /// Runs `sql` first on every connection.
    pub async fn prepared(sql: &'static str) -> Option<Self> {
        let options = options::<E>().after_connect(move |connection, _| {
            Box::pin(async move { E::run_on(connection, sql).await })
        });
        Self::with_options(options).await
    }

    pub async fn in_pool(pool: Pool<E>) -> Self {
        Self::migrated(pool, None).await
    }

    async fn migrated(pool: Pool<E>, folder: Option<Folder>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let table = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let store = SqlStore::new(pool.clone()).table_name(&table).unwrap();
        store.migrate().await.unwrap();
        Self { pool, table, store, folder }
    }

    /// Runs SQL in which `{t}` is the table.
    pub async fn execute(&self, sql: &str) -> u64 {
        let sql = sql.replace("{t}", &self.table);
        E::run_sql(&self.pool, &sql).await.unwrap()
    }

    pub async fn number(&self, sql: &str) -> i64 {
        E::number(&self.pool, &sql.replace("{t}", &self.table)).await
    }

    pub async fn rows(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM {t}").await
    }
}

/// Creates a row.
pub async fn create<E: Engine>(store: &SqlStore<E>, key: StoreKey, record: &Record) {
    let created = store.save(&key, record, Write::Create).await;
    assert_eq!(created.unwrap(), SaveOutcome::Saved);
}

/// A server of one's own, which can fail in every way.
pub struct Private {
    pub port: u16,
    folder: PathBuf,
    command: Vec<String>,
    server: Option<Server>,
}

impl Private {
    pub fn start(folder: PathBuf, port: u16, command: Vec<String>) -> Self {
        let mut private = Self { port, folder, command, server: None };
        private.restart();
        private
    }

    /// Starts the server after [`kill`](Self::kill), with the data it wrote.
    pub fn restart(&mut self) {
        let (program, arguments) = self.command.split_first().unwrap();
        wait_until("the server to listen", || {
            let server = Server::start(&self.folder, program, arguments).unwrap();
            let listens = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            wait_until("an answer", || listens() || !is_running(&server));
            if is_running(&server) {
                self.server = Some(server);
            } else {
                // PostgreSQL does not start while a connection of its predecessor lives on.
                eprintln!("{}", server.log());
                server.kill();
            }
            self.server.is_some()
        });
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    /// Stops the server where it stands: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let server = self.server.as_ref().unwrap();
        server.signal(signal);
        // PostgreSQL serves each connection in a process of its own, some of which end meanwhile.
        let pid = server.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).args(children.split_whitespace());
        kill.stderr(Stdio::null()).status().unwrap();
    }
}

/// Whether the process is there and not only its exit status.
fn is_running(server: &Server) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", server.pid()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

/// Whom a server runs as, which must not be root.
pub struct User {
    /// Nothing to do unless the tests run as root.
    name_and_id: Option<(&'static str, u32)>,
}

impl User {
    pub fn named(name: &'static str) -> Self {
        let id = |whose: &[&str]| {
            let output = Command::new("id").arg("-u").args(whose).output().unwrap();
            let id = String::from_utf8(output.stdout).unwrap();
            id.trim().parse::<u32>().unwrap()
        };
        let is_root = id(&[]) == 0;
        Self { name_and_id: is_root.then(|| (name, id(&[name]))) }
    }

    /// Makes an empty folder that is the user's.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = servers::folder(name);
        std::os::unix::fs::chown(&folder, self.name_and_id.map(|(_, id)| id), None).unwrap();
        folder
    }

    pub fn command(&self, program: &Path, arguments: &[&str]) -> Vec<String> {
        let mut command = Vec::new();
        if let Some((name, _)) = self.name_and_id {
            command.extend(["setpriv", "--reuid", name, "--regid", name, "--clear-groups"]);
        }
        let program = text(program);
        command.push(&program);
        command.extend(arguments);
        command.into_iter().map(str::to_owned).collect()
    }

    /// Runs a program to its end.
    fn run(&self, program: &Path, arguments: &[&str]) {
        let command = self.command(program, arguments);
        let output = Command::new(&command[0]).args(&command[1..]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder that is removed with everything in it.
pub struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn options<E: Engine>() -> PoolOptions<E> {
    let options = PoolOptions::new().max_connections(8);
    options.acquire_timeout(Duration::from_secs(5))
}

macro_rules! talk {
    () => {
        async fn run_sql(pool: &Pool<Self>, sql: &str) -> Result<u64, sqlx::Error> {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql));
            Ok(sql.execute(pool).await?.rows_affected())
        }

        async fn run_on(
            connection: &mut Self::Connection,
            sql: &'static str,
        ) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(sql).execute(connection).await.map(drop)
        }

        async fn number(pool: &Pool<Self>, sql: &str) -> i64 {
            let number = sqlx::query_scalar(AssertSqlSafe(sql));
            number.fetch_one(pool).await.unwrap()
        }

        async fn binary(pool: &Pool<Self>, sql: &str) -> Vec<u8> {
            let binary = sqlx::query_scalar(AssertSqlSafe(sql));
            binary.fetch_one(pool).await.unwrap()
        }
    };
}

async fn open_shared<E: Remote>(
    server: &OnceLock<Option<Private>>,
    options: PoolOptions<E>,
) -> Option<(Pool<E>, Option<Folder>)> {
    let server = server.get_or_init(E::start).as_ref()?;
    Some((E::connect(server.port, options).await, None))
}

/// Connects as soon as the server is ready.
async fn patiently<E: Engine>(connect: impl AsyncFn() -> Result<Pool<E>, sqlx::Error>) -> Pool<E> {
    let mut pool = None;
    eventually("a connection", async || {
        let connected = connect().await;
        pool = connected.inspect_err(|error| eprintln!("cannot connect: {error}")).ok();
        pool.is_some()
    })
    .await;
    pool.unwrap()
}

impl Engine for Postgres {
    const FIRST_TABLE: &str = include_str!("first_table/postgres.sql");

    async fn open(options: PoolOptions<Self>) -> Option<(Pool<Self>, Option<Folder>)> {
        static SERVER: OnceLock<Option<Private>> = OnceLock::new();
        open_shared(&SERVER, options).await
    }

    talk!();

    fn blob(hex: &str) -> String {
        format!("'\\x{hex}'")
    }

    const ISOLATION_LEVELS: &[&'static str] = &[
        "SET default_transaction_isolation = 'read committed'",
        "SET default_transaction_isolation = 'repeatable read'",
        "SET default_transaction_isolation = 'serializable'",
    ];

    fn expired_rows(table: &str, count: u32) -> String {
        format!(
            "INSERT INTO {table} SELECT sha256(n::text::bytea), '\\x00112233445566778899aabbccddeeff', \
             n, NULL, '\\x01' FROM generate_series(1, {count}) AS n"
        )
    }
}

impl Remote for Postgres {
    fn start() -> Option<Private> {
        // Debian keeps each release in a folder of its own, off the path; the newest will do.
        let releases = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let programs = releases.flatten().map(|folder| folder.path().join("bin/postgres"));
        let program = programs.filter(|program| program.is_file()).max();
        let program = program.or_else(|| find("postgres", "PostgreSQL"))?;

        let user = User::named("postgres");
        let folder = user.folder("postgres");
        let data = text(&folder.join("data"));
        let setup = ["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"];
        user.run(&program.with_file_name("initdb"), &setup);
        let port = free_port(0);
        let port_text = port.to_string();
        let mut server = vec!["-D", &data, "-p", &port_text, "-h", "127.0.0.1", "-k", ""];
        server.extend(["-F", "-N", "200"]);
        // Fourteen hours ahead all year: nothing may depend on it.
        server.extend(["-c", "timezone=Pacific/Kiritimati"]);
        Some(Private::start(folder, port, user.command(&program, &server)))
    }

    const ADMIN: &str = "postgres";

    async fn connect_as(user: &str, port: u16, options: PoolOptions<Self>) -> Pool<Self> {
        let connect = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(user)
            .database("postgres");
        patiently(async || options.clone().connect_with(connect.clone()).await).await
    }

    fn port(pool: &Pool<Self>) -> u16 {
        pool.connect_options().get_port()
    }

    fn url(port: u16) -> String {
        format!("postgres://{}@127.0.0.1:{port}/postgres", Self::ADMIN)
    }

    // As a hot standby does.
    const REFUSE_WRITES: &[&str] =
        &["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"];

    const COUNT_CONNECTIONS: &str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";

    async fn kill_connections(pool: &Pool<Self>) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        Self::run_sql(pool, sql).await.unwrap();
    }
}

impl Engine for MySql {
    const FIRST_TABLE: &str = include_str!("first_table/mysql.sql");

    async fn open(options: PoolOptions<Self>) -> Option<(Pool<Self>, Option<Folder>)> {
        static SERVER: OnceLock<Option<Private>> = OnceLock::new();
        open_shared(&SERVER, options).await
    }

    talk!();

    const HAS_FIXED_LENGTHS: bool = true;

    const ISOLATION_LEVELS: &[&'static str] = &[
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ];

    fn expired_rows(table: &str, count: u32) -> String {
        format!(
            "INSERT INTO {table} SELECT UNHEX(SHA2(seq, 256)), UNHEX(MD5(seq)), seq, NULL, 'x' \
             FROM seq_1_to_{count}"
        )
    }
}

impl Remote for MySql {
    fn start() -> Option<Private> {
        // Not on everyone's path.
        let program = PathBuf::from("/usr/sbin/mariadbd");
        let program = Some(program).filter(|program| program.is_file());
        let program = program.or_else(|| find("mariadbd", "MariaDB"))?;

        let user = User::named("mysql");
        let folder = user.folder("mariadb");
        let path = |name: &str| text(&folder.join(name));
        let data = format!("--datadir={}", path("data"));
        let login = "--auth-root-authentication-method=normal";
        let temporary = format!("--tmpdir={}", text(&folder));
        let setup = ["--no-defaults", &data, &temporary, login, "--skip-test-db"];
        user.run(&find("mariadb-install-db", "MariaDB")?, &setup);
        fs::write(path("init.sql"), "CREATE DATABASE IF NOT EXISTS sessions;\n").unwrap();
        let port = free_port(0);
        let server = [
            "--no-defaults",
            &data,
            &temporary,
            &format!("--port={port}"),
            &format!("--socket={}", path("socket")),
            &format!("--pid-file={}", path("pid")),
            &format!("--init-file={}", path("init.sql")),
            "--bind-address=127.0.0.1",
            "--max-connections=200",
            "--max-allowed-packet=64M",
            "--innodb-buffer-pool-size=512M",
            // What was answered outlives the process, though not the machine.
            "--innodb-flush-log-at-trx-commit=2",
            // Neither the time of day, nor letters that fold, nor leniency may matter.
            "--default-time-zone=-11:30",
            "--character-set-server=latin1",
            "--collation-server=latin1_german2_ci",
            "--sql-mode=",
        ];
        let command = user.command(&program, &server);
        Some(Private::start(folder, port, command))
    }

    const ADMIN: &str = "root";

    async fn connect_as(user: &str, port: u16, options: PoolOptions<Self>) -> Pool<Self> {
        let connect = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(port)
            .username(user)
            .database("sessions")
            // The driver would set these to something harmless.
            .timezone(None)
            .set_names(false);
        patiently(async || options.clone().connect_with(connect.clone()).await).await
    }

    fn port(pool: &Pool<Self>) -> u16 {
        pool.connect_options().get_port()
    }

    fn url(port: u16) -> String {
        format!("mysql://{}@127.0.0.1:{port}/sessions", Self::ADMIN)
    }

    const REFUSE_WRITES: &[&str] = &["SET GLOBAL read_only = ON"];

    const COUNT_CONNECTIONS: &str =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'root'";

    async fn kill_connections(pool: &Pool<Self>) {
        let ids = "SELECT id FROM information_schema.processlist \
                   WHERE user = 'root' AND id <> CONNECTION_ID()";
        let ids: Vec<i64> = sqlx::query_scalar(ids).fetch_all(pool).await.unwrap();
        for id in ids {
            // It may have ended by itself.
            let _ = Self::run_sql(pool, &format!("KILL {id}")).await;
        }
    }
}

impl Engine for Sqlite {
    const FIRST_TABLE: &str = include_str!("first_table/sqlite.sql");

    async fn open(options: PoolOptions<Self>) -> Option<(Pool<Self>, Option<Folder>)> {
        let folder = Folder(servers::folder("sqlite"));
        let connect = SqliteConnectOptions::new()
            .filename(folder.0.join("sessions.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("cache_size", "-65536");
        let pool = options.connect_with(connect).await.unwrap();
        Some((pool, Some(folder)))
    }

    talk!();

    const ISOLATION_LEVELS: &[&'static str] = &["SELECT 1"];

    fn expired_rows(table: &str, count: u32) -> String {
        format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
             INSERT INTO {table} SELECT randomblob(32), randomblob(16), n, NULL, x'01' FROM numbers"
        )
    }
}

/// Makes a module for each engine with each of the given tests, which take a fresh [`Database`].
macro_rules! on_every_engine {
    ($($test:ident)*) => {
        crate::engines::on_every_server! { @on sqlite, Database<sqlx::Sqlite>; $($test)* }
        crate::engines::on_every_server! { Database; $($test)* }
    };
}

/// The same without SQLite, for tests of anything that is made by `fresh`, unless the engine is missing.
macro_rules! on_every_server {
    ($Fresh:ident; $($test:ident)*) => {
        crate::engines::on_every_server! { @on postgres, $Fresh<sqlx::Postgres>; $($test)* }
        crate::engines::on_every_server! { @on mariadb, $Fresh<sqlx::MySql>; $($test)* }
    };
    (@on $name:ident, $Fresh:ident<$Engine:ty>; $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(fresh) = super::$Fresh::<$Engine>::fresh().await {
                        super::$test(fresh).await;
                    }
                }
            )*
        }
    };
}

pub(crate) use {on_every_engine, on_every_server};
