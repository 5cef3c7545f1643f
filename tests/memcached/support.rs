//! memcached servers, and what tests ask them directly.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::{LazyLock, OnceLock},
};

use axum_typed_session::{MemcachedStore, StoreKey};

pub use crate::browser::{DAY, SECOND};
pub(crate) use crate::rows::{
    any_key, breakable, created, gone, or_skip, record, saved, unavailable, update,
};
use crate::{
    proxy::Proxy,
    servers::{self, Server, comes_true, wait_until},
};

/// A memcached server of this test alone, or one that tests share without disturbing each other.
pub struct Memcached {
    server: Option<Server>,
    program: PathBuf,
    pub folder: PathBuf,
    arguments: Vec<String>,
    pub port: u16,
}

impl Memcached {
    /// Starts a server; `None`, with a loud word, if there is no program to start.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with options of its own.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        static PROGRAM: LazyLock<Option<PathBuf>> =
            LazyLock::new(|| servers::find("memcached", "memcached"));
        let program = PROGRAM.clone()?;
        let (port, folder) = (servers::free_port(0), servers::folder("memcached"));
        let at = port.to_string();
        // As root it insists on a user.
        let common = ["-u", "root", "-l", "127.0.0.1", "-U", "0", "-p", &at];
        let arguments = common.iter().chain(options).map(|&argument| argument.to_owned()).collect();
        let mut memcached = Self { server: None, program, folder, arguments, port };
        memcached.resume();
        Some(memcached)
    }

    /// Starts the program again after [`kill`](Self::kill), with nothing in it.
    pub fn resume(&mut self) {
        let program = self.program.display().to_string();
        let server = Server::start(&self.folder, &program, &self.arguments).expect("a shell");
        let pid = server.pid();
        self.server = Some(server);
        // Another process may have taken the port in the meantime, and answer in its place.
        let answers = comes_true(|| {
            let stats = self.try_ask("stats", &["END\r\n"]);
            stats.is_ok_and(|stats| stats.contains(&format!("STAT pid {pid}\r")))
        });
        let log = || self.server.as_ref().map(Server::log).unwrap_or_default();
        assert!(answers, "memcached does not start:\n{}", log());
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Lets the process hang, and returns when its last thread does.
    pub fn hang(&self) {
        let server = self.server.as_ref().expect("a running server");
        server.signal("STOP");
        let threads = PathBuf::from(format!("/proc/{}/task", server.pid()));
        let hangs = |thread: io::Result<fs::DirEntry>| {
            let status = thread.and_then(|thread| fs::read_to_string(thread.path().join("status")));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        wait_until("all threads to hang", || fs::read_dir(&threads).unwrap().all(hangs));
    }

    /// Lets the process go on after [`hang`](Self::hang).
    pub fn go_on(&self) {
        self.server.as_ref().expect("a running server").signal("CONT");
    }

    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    pub async fn store(&self) -> MemcachedStore {
        MemcachedStore::connect(self.url()).await.expect("a connection")
    }

    /// Connects over a wire that may fail.
    pub async fn proxied_store(&self) -> (Proxy, MemcachedStore) {
        let proxy = Proxy::start(self.port).await;
        let store = MemcachedStore::connect(format!("memcached://127.0.0.1:{}", proxy.port)).await;
        (proxy, store.expect("a connection"))
    }

    /// Sends a command over a connection of its own and reads an answer that has one of these ends.
    fn try_ask(&self, command: impl AsRef<[u8]>, ends: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(10 * SECOND))?;
        stream.write_all(&[command.as_ref(), b"\r\n"].concat())?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
        while !ends.iter().any(|end| answer.ends_with(end.as_bytes())) {
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => answer.extend_from_slice(&buffer[..len]),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[track_caller]
    pub fn ask(&self, command: &str, end: &str) -> String {
        self.try_ask(command, &[end]).expect("an answer")
    }

    /// Puts a value under a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let head = format!("ms {key} {}\r\n", value.len());
        let answer = self.try_ask([head.as_bytes(), value].concat(), &["\r\n"]);
        assert_eq!(answer.expect("an answer"), "HD\r\n");
    }

    /// One number of `stats`, or of `stats` with an argument.
    pub fn stat(&self, of: &str, name: &str) -> u64 {
        let stats = self.ask(&format!("stats {of}"), "END\r\n");
        let mut lines = stats.lines().filter_map(|line| line.strip_prefix("STAT "));
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {stats}")).parse().expect("a number")
    }

    /// The keys there are. Characters other than letters, digits, `-`, `_` and `.` are percent-encoded.
    pub fn keys(&self) -> Vec<String> {
        let mut answer = String::new();
        // One client at a time is served.
        let is_answered = comes_true(|| {
            let asked = self.try_ask("lru_crawler metadump hash", &["END\r\n", "request\r\n"]);
            answer = asked.unwrap_or_default();
            answer.ends_with("END\r\n")
        });
        assert!(is_answered, "{answer}");
        let keys = answer.lines().filter_map(|line| line.strip_prefix("key=")?.split(' ').next());
        keys.map(str::to_owned).collect()
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        if self.server.is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A server all tests share that only use keys of their own.
pub fn shared() -> Option<&'static Memcached> {
    static SHARED: OnceLock<Option<Memcached>> = OnceLock::new();
    SHARED.get_or_init(Memcached::start).as_ref()
}

/// An error and its sources, as the log shows them.
pub fn text_of(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", text_of(source)));
    format!("{error}{}", source.unwrap_or_default())
}

/// The key that a store with the default prefix uses.
pub fn row_key(key: &StoreKey) -> String {
    format!("axum-typed-session:{}", key.to_base64url())
}
