//! Private servers for tests: their own port, data in a temporary folder, gone when the tests end.
//!
//! A server that is already running on the machine is never touched.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

/// A program and its arguments, to start again after it was stopped.
type CommandLine = Vec<String>;

/// One running server.
///
/// A shell watches over it: when this program ends, in whatever way, the shell's input ends, and it kills
/// the server and removes the folder.
pub struct Server {
    pub port: u16,
    folder: PathBuf,
    command: CommandLine,
    watched: Option<Watched>,
}

struct Watched {
    shell: Child,
    input: ChildStdin,
    pid: u32,
}

const WATCH: &str = r#"
folder=$1
shift
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
echo "$server"
read -r keep
kill -KILL "$server" $(cat "/proc/$server/task/$server/children") 2>/dev/null
wait "$server" 2>/dev/null
[ -n "$keep" ] || rm -rf "$folder"
"#;

impl Server {
    /// Starts a server that listens on `port` and keeps everything in `folder`.
    pub fn start(folder: PathBuf, port: u16, command: CommandLine) -> Self {
        let mut server = Self {
            port,
            folder,
            command,
            watched: None,
        };
        server.restart();
        server
    }

    /// Starts the server again after [`kill`](Self::kill), on the same port and data.
    pub fn restart(&mut self) {
        assert!(self.watched.is_none(), "the server runs already");
        let mut shell = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(&self.folder)
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not killed together with this program by an interrupt from the terminal.
            .process_group(0)
            .spawn()
            .unwrap();
        let input = shell.stdin.take().unwrap();
        let mut pid = String::new();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        output.read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().unwrap();
        self.watched = Some(Watched { shell, input, pid });
        self.await_port();
    }

    /// Kills the server, as a power cut would, and keeps its data.
    pub fn kill(&mut self) {
        let mut watched = self.watched.take().expect("a running server");
        watched.input.write_all(b"keep\n").unwrap();
        watched.shell.wait().unwrap();
    }

    /// Stops the server where it stands: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.watched.as_ref().expect("a running server").pid;
        // PostgreSQL serves each connection in a process of its own.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let mut kill = Command::new("kill");
        kill.args([signal, &pid.to_string()]);
        // A child may have ended meanwhile, which is as good.
        let kill = kill.args(children.split_whitespace()).stderr(Stdio::null());
        kill.status().unwrap();
    }

    fn await_port(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("{:?} does not listen:\n{log}", self.command);
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(Watched {
            mut shell, input, ..
        }) = self.watched.take()
        {
            drop(input);
            let _ = shell.wait();
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Returns what `start` makes of an installed `program`; without it says which `suite` does not run,
/// which is a failure where `CI` is set.
pub fn installed<R>(suite: &str, program: Option<PathBuf>, start: impl FnOnce(&Path) -> R) -> Option<R> {
    if let Some(program) = program {
        return Some(start(&program));
    }
    let skipped = format!("SKIPPED: no {suite} test runs, its server is not installed");
    assert!(std::env::var_os("CI").is_none(), "{skipped}");
    eprintln!("\n{skipped}\n");
    None
}

/// Finds a program where Debian puts it, on the path or not.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/bin"]);
    let mut files = folders.map(|folder| Path::new(folder).join(program));
    files.find(|file| file.is_file())
}

/// Makes an empty folder of its own that `owner` may write to.
pub fn new_folder(owner: Option<u32>) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("axum-typed-session-{}-{count}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, owner, None).unwrap();
    folder
}

/// Finds a port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Whom a server that refuses to run as root shall run as; nobody else unless this program is root.
pub struct RunAs {
    pub uid: Option<u32>,
    prefix: CommandLine,
}

impl RunAs {
    pub fn user(name: &str) -> Self {
        let id = |arguments: &[&str]| {
            let output = Command::new("id").arg("-u").args(arguments).output();
            let output = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
            output.and_then(|id| id.trim().parse::<u32>().ok())
        };
        if id(&[]) != Some(0) {
            return Self {
                uid: None,
                prefix: Vec::new(),
            };
        }
        let user = ["--reuid", name, "--regid", name, "--clear-groups"];
        Self {
            uid: id(&[name]),
            prefix: words(&["setpriv"], &user),
        }
    }

    /// Returns the command line of `program` under this user.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> CommandLine {
        let program = program.to_str().unwrap();
        let mut command = self.prefix.clone();
        command.extend(words(&[program], arguments));
        command
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &CommandLine) {
    let (program, arguments) = command.split_first().unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{text}");
}

fn words(first: &[&str], rest: &[&str]) -> CommandLine {
    first.iter().chain(rest).map(|&word| word.to_owned()).collect()
}
