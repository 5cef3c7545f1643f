//! Time of requests whose session is in Redis, beside the same requests with raw commands.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench redis` starts a private `redis-server`, lets 32
//! clients send requests without a network in between, in turns of a fraction of a second so that all sides
//! see the same machine, and prints for each side the median of its time as a multiple of the raw one, and
//! the commands it sends for a request.

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

async fn read(session: Session<Shopper>) -> String {
    session.user.clone()
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
    async fn turn(&self, path: &'static str) -> Duration {
        let started = Instant::now();
        let clients = self.cookies.iter().map(|cookie| {
            let (app, cookie) = (self.app.clone(), cookie.clone());
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

/// Commands the server has run, those within scripts included.
fn commands(url: &str) -> f64 {
    let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
    let stats: String = redis::cmd("INFO").arg("stats").query(&mut redis).unwrap();
    let (_, count) = stats.split_once("total_commands_processed:").unwrap();
    count.lines().next().unwrap().trim().parse().unwrap()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

async fn compare(url: &str) {
    let sides = [
        Side::start("raw commands", raw::app(url).await).await,
        Side::start("axum-typed-session", ours(url).await).await,
        Side::start("tower-sessions", tower_sessions::app(url).await).await,
    ];
    for path in ["/read", "/write"] {
        let mut ratios = [const { Vec::new() }; 3];
        let mut sent = [0.0; 3];
        for turn in 0..=TURNS {
            let mut times = Vec::new();
            for (side, sent) in sides.iter().zip(&mut sent) {
                let before = commands(url);
                times.push(side.turn(path).await.as_secs_f64());
                // Asking for the count costs one.
                *sent = commands(url) - before - 1.0;
            }
            // The first turn warms up.
            for (ratios, time) in ratios.iter_mut().zip(&times).filter(|_| turn > 0) {
                ratios.push(time / times[0]);
            }
        }
        for ((side, ratios), sent) in sides.iter().zip(ratios).zip(sent) {
            let per_request = sent / (CLIENTS * REQUESTS) as f64;
            let ratio = median(ratios);
            println!("{:20}{path:8}{ratio:8.2} x{per_request:8.2} commands", side.name);
        }
    }
}

fn main() {
    let Some(program) = servers::find("redis-server", "benchmark") else {
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
