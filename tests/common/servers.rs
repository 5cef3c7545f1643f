//! Private servers for tests: on free loopback ports, with data in a temporary folder, gone with the test
//! process whatever ends it. Nothing here touches a server that was running before.

use std::{
    env, fs, io,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A server process and its folder. Dropping it kills the process and removes the folder.
pub struct Server {
    /// A shell that outlives the test process just long enough to clean up after it.
    keeper: Child,
    /// Closed by the operating system when the test process ends, which is how the keeper learns of it.
    leash: Option<ChildStdin>,
    pid: u32,
    folder: PathBuf,
}

/// Starts the program in its folder, prints its process id, waits for the end of the test or a word, and
/// leaves nothing behind unless the word is `keep`.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >>"$folder/log" 2>&1 </dev/null &
echo $!
read -r word
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
[ "$word" = keep ] || rm -rf "$folder"
"#;

impl Server {
    /// Starts a program; its output goes to `log` in the folder.
    pub fn start<S: AsRef<str>>(folder: &Path, program: &str, arguments: &[S]) -> io::Result<Self> {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(folder)
            .arg(program)
            .args(arguments.iter().map(AsRef::as_ref))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the terminal ends the test process, not its keepers.
            .process_group(0)
            .spawn()?;
        let leash = keeper.stdin.take();
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut pid)?;
        Ok(Self {
            keeper,
            leash,
            pid: pid.trim().parse().map_err(io::Error::other)?,
            folder: folder.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, by name.
    pub fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{signal}");
        if signal == "STOP" {
            self.wait_until_stopped();
        }
    }

    /// A process stops thread by thread, so the last one may still answer for a moment.
    fn wait_until_stopped(&self) {
        let threads = format!("/proc/{}/task", self.pid);
        let is_stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name of the program.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        // Other systems than Linux have no such folder.
        while let Ok(threads) = fs::read_dir(&threads) {
            if threads.flatten().all(is_stopped) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the process at once and keeps its folder.
    pub fn kill(mut self) -> PathBuf {
        let mut leash = self.leash.take().expect("a running server");
        let _ = leash.write_all(b"keep\n");
        let _ = self.keeper.wait();
        self.folder.clone()
    }

    /// What the program printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.leash.take().is_some() {
            let _ = self.keeper.wait();
        }
    }
}

/// Finds a program, or says loudly that the suite is skipped; in CI that is a failure.
pub fn find(program: &str, suite: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        assert!(
            env::var_os("CI").is_none_or(|ci| ci.is_empty() || ci == "false"),
            "{program} is not installed, which CI needs for the {suite} suite"
        );
        // Not `eprintln!`, which the test harness swallows.
        let _ = writeln!(
            io::stderr(),
            "\n!!! SKIPPED: the {suite} suite needs `{program}`, which is not on PATH !!!\n"
        );
    }
    found
}

/// Makes an empty folder that no other test has.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder =
        env::temp_dir().join(format!("axum-typed-session-{name}-{}-{count}", process::id()));
    fs::create_dir(&folder).expect("a temporary folder");
    folder
}

/// Returns a loopback port that was free a moment ago, as was the one `also` above it.
pub fn free_port(also: u16) -> u16 {
    loop {
        let on = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let first = on(0).expect("a free port");
        let port = first.local_addr().expect("an address").port();
        if port.checked_add(also).is_some_and(|second| also == 0 || on(second).is_ok()) {
            return port;
        }
    }
}

/// How long something may take that is only a matter of time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is yes; returns `false` if it never is.
pub fn comes_true(mut ready: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Asks again and again until the answer is yes; says what it waited for if it never is.
#[track_caller]
pub fn wait_until(what: &str, ready: impl FnMut() -> bool) {
    assert!(comes_true(ready), "waited {PATIENCE:?} for {what}");
}

/// Does the same without blocking the thread.
pub async fn eventually(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !ready().await {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
