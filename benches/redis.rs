//! Time of requests whose session is in Redis, beside the same requests with raw commands.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench redis` starts a private `redis-server`, or the program that
//! the variable `REDIS_SERVER` names, such as `valkey-server`. 32 clients send requests without a network in between,
//! in turns of a fraction of a second so that all sides see the same machine. For each side and each kind of request it
//! prints the median of its time as a multiple of the raw one, the fastest and the slowest quarter, the time of the
//! server in the same way, and the commands it sends for a request.
//!
//! `read` loads a session, `write` loads and saves one, and `new` begins one.

use std::time::{Duration, Instant};

use axum::{Router, body::Body, extract::State, response::IntoResponse, routing::get};
use axum_typed_session::{RedisStore, Session, SessionError, SessionManager};
use http::{HeaderMap, Request, header};
use redis::{AsyncCommands as _, SetExpiry, SetOptions, aio::ConnectionManager};
use shopper::Shopper;
use tower::ServiceExt as _;

#[allow(dead_code, reason = "each suite uses a part")]
#[path = "../tests/common/servers.rs"]
mod servers;
mod shopper;

const CLIENTS: usize = 32;
const REQUESTS: usize = 50;
const TURNS: usize = 21;
const DAY: u64 = 24 * 60 * 60;

async fn read(session: Session<Shopper>) -> Result<impl IntoResponse, SessionError> {
    let user = session.user.clone();
    Ok((session.commit().await?, user))
}

async fn write(mut session: Session<Shopper>) -> Result<impl IntoResponse, SessionError> {
    if session.is_new() {
        *session = Shopper::ann();
    }
    session.count += 1;
    Ok((session.commit().await?, "hello"))
}

async fn ours(url: &str) -> Router {
    let store = RedisStore::connect(url).await.unwrap();
    let sessions = SessionManager::<Shopper>::builder().store(store);
    Router::new()
        .route("/read", get(read))
        .route("/write", get(write))
        .with_state(sessions.build().unwrap())
}

/// What a handler does that needs no library: one id in the cookie, one key, one value.
mod raw {
    use super::*;

    async fn load(redis: &mut ConnectionManager, headers: &HeaderMap) -> Option<(String, Shopper)> {
        let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
        let id = cookies.split("; ").find_map(|pair| pair.strip_prefix("id="))?;
        let row: Option<Vec<u8>> = redis.get(id).await.unwrap();
        Some((id.to_owned(), serde_json::from_slice(&row?).unwrap()))
    }

    async fn read(State(mut redis): State<ConnectionManager>, headers: HeaderMap) -> String {
        let shopper = load(&mut redis, &headers).await;
        shopper.map(|(_, shopper)| shopper.user).unwrap_or_default()
    }

    async fn write(
        State(mut redis): State<ConnectionManager>,
        headers: HeaderMap,
    ) -> impl IntoResponse {
        let loaded = load(&mut redis, &headers).await;
        let (id, mut shopper) = loaded.unwrap_or_else(|| (fresh_id(), Shopper::ann()));
        shopper.count += 1;
        let row = serde_json::to_vec(&shopper).unwrap();
        let options = SetOptions::default().with_expiration(SetExpiry::EX(DAY));
        let () = redis.set_options(&id, row, options).await.unwrap();
        ([(header::SET_COOKIE, format!("id={id}; Path=/; Max-Age={DAY}"))], "hello")
    }

    fn fresh_id() -> String {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("{:043}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn app(url: &str) -> Router {
        let redis = redis::Client::open(url).unwrap().get_connection_manager().await.unwrap();
        Router::new().route("/read", get(read)).route("/write", get(write)).with_state(redis)
    }
}

mod tower_sessions {
    use ::tower_sessions::{Expiry, Session, SessionManagerLayer, cookie::time};
    use tower_sessions_redis_store::{RedisStore, fred::prelude::*};

    use super::*;

    const SHOPPER: &str = "shopper";

    async fn read(session: Session) -> String {
        let shopper: Option<Shopper> = session.get(SHOPPER).await.unwrap();
        shopper.unwrap_or_default().user
    }

    async fn write(session: Session) -> &'static str {
        let shopper: Option<Shopper> = session.get(SHOPPER).await.unwrap();
        let mut shopper = shopper.unwrap_or_else(Shopper::ann);
        shopper.count += 1;
        session.insert(SHOPPER, shopper).await.unwrap();
        "hello"
    }

    pub async fn app(url: &str) -> Router {
        let pool = Pool::new(Config::from_url(url).unwrap(), None, None, None, 1).unwrap();
        pool.init().await.unwrap();
        let expiry = Expiry::OnInactivity(time::Duration::days(1));
        let layer = SessionManagerLayer::new(RedisStore::new(pool)).with_expiry(expiry);
        Router::new().route("/read", get(read)).route("/write", get(write)).layer(layer)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Read,
    Write,
    New,
}

/// An application and the cookies of its clients.
struct Side {
    name: &'static str,
    app: Router,
    cookies: Vec<String>,
}

impl Side {
    async fn start(name: &'static str, app: Router) -> Self {
        let mut cookies = Vec::new();
        for _ in 0..CLIENTS {
            let response = send(&app, "/write", "theme=dark").await;
            let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
            let pair = cookie.split(';').next().unwrap();
            cookies.push(format!("theme=dark; {pair}; locale=en-GB; consent=none"));
        }
        Self { name, app, cookies }
    }

    /// The time all clients take for all their requests.
    async fn turn(&self, kind: Kind) -> Duration {
        let started = Instant::now();
        let clients = self.cookies.iter().map(|cookie| {
            let path = if kind == Kind::Read { "/read" } else { "/write" };
            let cookie = if kind == Kind::New { "theme=dark; locale=en-GB" } else { cookie };
            let (app, cookie) = (self.app.clone(), cookie.to_owned());
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    send(&app, path, &cookie).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        started.elapsed()
    }
}

async fn send(app: &Router, path: &str, cookies: &str) -> http::Response<Body> {
    let request = Request::get(path).header(header::COOKIE, cookies);
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap());
    let response = response.await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response
}

/// What a server says of itself.
struct Server {
    connection: redis::Connection,
}

impl Server {
    fn at(url: &str) -> Self {
        Self { connection: redis::Client::open(url).unwrap().get_connection().unwrap() }
    }

    fn info(&mut self, section: &str, field: &str) -> f64 {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).unwrap();
        let fields = info.lines().filter_map(|line| line.trim().split_once(':'));
        let mut values = fields.filter(|(name, _)| *name == field).map(|(_, value)| value);
        values.next().unwrap().parse().unwrap()
    }

    /// Commands that it has run, those within scripts included.
    fn commands(&mut self) -> f64 {
        self.info("stats", "total_commands_processed")
    }

    /// Seconds of a core that it has used.
    fn seconds(&mut self) -> f64 {
        self.info("cpu", "used_cpu_user") + self.info("cpu", "used_cpu_sys")
    }
}

/// Median, fastest quarter and slowest quarter.
fn spread(mut numbers: Vec<f64>) -> [f64; 3] {
    numbers.sort_by(f64::total_cmp);
    [2, 1, 3].map(|quarter| numbers[(numbers.len() - 1) * quarter / 4])
}

async fn compare(url: &str) {
    let sides = [
        Side::start("raw commands", raw::app(url).await).await,
        Side::start("axum-typed-session", ours(url).await).await,
        Side::start("tower-sessions", tower_sessions::app(url).await).await,
    ];
    let mut server = Server::at(url);
    println!("{:29}{:>22}{:>15}{:>10}", "", "time", "server's time", "commands");
    for kind in [Kind::Read, Kind::Write, Kind::New] {
        let mut measured = [const { [const { Vec::new() }; 3] }; 3];
        for turn in 0..=TURNS {
            let mut now = Vec::new();
            for side in &sides {
                let (seconds, commands) = (server.seconds(), server.commands());
                let time = side.turn(kind).await.as_secs_f64();
                // Asking costs a command each time.
                let commands = server.commands() - commands - 1.0;
                now.push([time, server.seconds() - seconds, commands]);
            }
            // The first turn warms up.
            for (measured, side) in measured.iter_mut().zip(&now).filter(|_| turn > 0) {
                measured[0].push(side[0] / now[0][0]);
                measured[1].push(side[1] / now[0][1]);
                measured[2].push(side[2] / (CLIENTS * REQUESTS) as f64);
            }
        }
        for (side, [times, seconds, commands]) in sides.iter().zip(measured) {
            let kind = format!("{kind:?}").to_lowercase();
            let ([time, fast, slow], [seconds, ..]) = (spread(times), spread(seconds));
            let [commands, ..] = spread(commands);
            let time = format!("{time:.2} ({fast:.2}-{slow:.2})");
            println!("{:21}{kind:8}{time:>22}{seconds:>15.2}{commands:>10.2}", side.name);
        }
    }
}

fn main() {
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let Some(program) = servers::find(&program, "benchmark") else {
        return;
    };
    let (port, folder) = (servers::free_port(0).to_string(), servers::folder("bench"));
    let program = program.display().to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", ""];
    let _server = servers::Server::start(&folder, &program, &arguments).unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    servers::wait_until("Redis", || redis::Client::open(&*url).unwrap().get_connection().is_ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(compare(&url));
}
