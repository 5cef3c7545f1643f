//! How the time of a request grows.
//!
//! `cargo bench --manifest-path benches/speed/Cargo.toml --features others --bench growth` prints tables: with the bytes of
//! the data, the other cookies of a request, the sessions in the store, the tasks at once, and the bytes of data that two
//! requests changed. Names of tables as arguments print these alone.
//!
//! All times but those of `tasks` are microseconds a request above the same request to a handler without sessions. All
//! sides of a line take turns, as in `time`.

use std::{
    env,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::State, response::IntoResponse, routing::get};
use axum_typed_session::{MemoryStore, Session, SessionError, SessionManager, Set};
use http::{Request, header};
use measure::{Contestant, above_bare};
use serde::{Deserialize, Serialize};
use shopper::{LINES, Shopper, TEXT};
use sides::{app_of, prepared, send};
use tower::ServiceExt as _;

mod floor;
mod measure;
#[cfg(feature = "others")]
mod others;
#[path = "../shopper.rs"]
mod shopper;
#[allow(dead_code, reason = "each measurement uses a part")]
mod sides;

const IN_COOKIE: &[&str] = &[
    "floor-cookie",
    "cookie",
    #[cfg(feature = "others")]
    "jar",
    #[cfg(feature = "others")]
    "seshcookie",
];
const IN_MEMORY: &[&str] = &[
    "floor-memory",
    "memory",
    #[cfg(feature = "others")]
    "tower-sessions",
    #[cfg(feature = "others")]
    "ruts",
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = env::args().collect();
    let tables = ["data", "cookies", "sessions", "tasks", "merge"];
    let any_asked = args.iter().any(|arg| tables.contains(&&**arg));
    let asked = |table: &str| !any_asked || args.iter().any(|arg| arg == table);
    if asked("data") {
        with_data("data in a cookie", IN_COOKIE, &[0, 3, 14, 30]).await;
        with_data("data in memory", IN_MEMORY, &[0, 3, 14, 50, 170]).await;
        TEXT.store(9_500, Ordering::Relaxed);
        with_data("one text in memory", IN_MEMORY, &[3]).await;
        TEXT.store(0, Ordering::Relaxed);
    }
    if asked("cookies") {
        with_cookies().await;
    }
    if asked("sessions") {
        with_sessions().await;
    }
    if asked("tasks") {
        tokio::task::spawn_blocking(with_tasks).await.unwrap();
    }
    if asked("merge") {
        with_a_merge().await;
    }
}

fn head(title: &str, columns: impl IntoIterator<Item = String>) {
    print!("\n{title:24}");
    columns.into_iter().for_each(|column| print!("{column:>22}"));
    println!();
}

fn line(name: impl std::fmt::Display, times: &[f64]) {
    print!("{name:<24}");
    times.iter().for_each(|time| print!("{:>22.2}", time / 1000.0));
    println!();
}

fn read_and_write(sides: &[&str]) -> impl Iterator<Item = String> {
    sides.iter().flat_map(|side| ["read", "write"].map(|case| format!("{side} {case}")))
}

async fn with_data(title: &str, sides: &[&str], lines: &[usize]) {
    head(title, read_and_write(sides));
    for count in lines {
        LINES.store(*count, Ordering::Relaxed);
        let mut pairs = Vec::new();
        for side in sides {
            for case in ["read", "write"] {
                let (with, without) =
                    (Contestant::of(side, case, false), Contestant::of(side, case, true));
                pairs.push([with.await, without.await]);
            }
        }
        let bytes = serde_json::to_vec(&Shopper::ann()).unwrap().len();
        line(format!("{bytes} bytes"), &above_bare(&mut pairs).await);
    }
    LINES.store(3, Ordering::Relaxed);
}

async fn with_cookies() {
    let sides = [IN_COOKIE, &["memory"]].concat();
    head("other cookies", read_and_write(&sides));
    for count in [0, 1, 3, 10, 50] {
        let mut pairs = Vec::new();
        for side in &sides {
            for case in ["read", "write"] {
                let mut pair = Vec::new();
                for bare in [false, true] {
                    let (app, path, cookies) = prepared(side, case, bare).await;
                    let ours = cookies.split("; ").nth(1).unwrap();
                    let mut cookies: Vec<_> =
                        (0..count).map(|number| format!("_c{number}=GS1.1.1790{number}")).collect();
                    cookies.insert(count / 2, ours.to_owned());
                    pair.push(Contestant::new(app, path, vec![cookies.join("; ")]).await);
                }
                let Ok(pair) = pair.try_into() else { unreachable!("two were made") };
                pairs.push(pair);
            }
        }
        line(count, &above_bare(&mut pairs).await);
    }
}

async fn with_sessions() {
    // The store of `ruts` evicts.
    let sides = &IN_MEMORY[..IN_MEMORY.len().min(3)];
    head("sessions in the store", read_and_write(sides));
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        let mut times = Vec::new();
        // One after the other, so that they do not have to share the memory.
        for side in sides {
            let mut app = app_of(side).await;
            let mut cookies = Vec::with_capacity(count);
            for _ in 0..count {
                let response = send(&mut app, "/fill", "theme=dark").await;
                let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
                cookies.push(cookie.split(';').next().unwrap().to_owned());
            }
            for path in ["/read", "/write"] {
                let contestant =
                    |app: &Router| Contestant::new(app.clone(), path.to_owned(), cookies.clone());
                let bare = app_of("bare").await;
                let mut pairs = [[contestant(&app).await, contestant(&bare).await]];
                times.extend(above_bare(&mut pairs).await);
            }
        }
        line(count, &times);
    }
}

/// Thousands of requests in a second, of tasks that each have a session of their own.
fn with_tasks() {
    let sides = ["bare", "floor-cookie", "cookie", "floor-memory", "memory"];
    head("tasks, requests in a ms", read_and_write(&sides));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    for count in [1, 2, 8, 64] {
        let mut rates = Vec::new();
        for side in sides {
            for case in ["read", "write"] {
                let rate = runtime.block_on(async {
                    let (app, path, _) = prepared(
                        if side == "bare" { "memory" } else { side },
                        case,
                        side == "bare",
                    )
                    .await;
                    let tasks: Vec<_> = (0..count)
                        .map(|_| tokio::spawn(requests(app.clone(), path.clone(), side == "bare")))
                        .collect();
                    let mut rate = 0.0;
                    for task in tasks {
                        rate += task.await.unwrap();
                    }
                    rate
                });
                rates.push(rate);
            }
        }
        line(count, &rates);
    }
}

/// Sends requests for a while, and returns how many in a second.
async fn requests(mut app: Router, path: String, bare: bool) -> f64 {
    let mut cookies = "theme=dark".to_owned();
    if !bare {
        let response = send(&mut app, "/fill", &cookies).await;
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        cookies = cookie.split(';').next().unwrap().to_owned();
    }
    let (started, mut requests) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(1) {
        for _ in 0..64 {
            send(&mut app, &path, &cookies).await;
        }
        requests += 64;
        tokio::task::yield_now().await;
    }
    f64::from(requests) / started.elapsed().as_secs_f64()
}

/// Data of a shape that is dear to merge.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Heap {
    items: Vec<String>,
    set: Set<String>,
    map: std::collections::BTreeMap<String, Vec<String>>,
    deep: serde_json::Value,
    count: u32,
}

impl Heap {
    fn new(shape: &str, bytes: usize) -> Self {
        let names = |share: usize| (0..bytes / share).map(|number| format!("{number:05}"));
        let mut heap = Self::default();
        match shape {
            "list" => heap.items = names(8).collect(),
            "set" => heap.set = names(8).collect(),
            "map" => heap.map = names(20).map(|name| (name.clone(), vec![name])).collect(),
            // Lists in lists, as deep as `serde_json` reads them.
            _ => {
                let leaf = serde_json::Value::from_iter(names(8));
                heap.deep = (0..100).fold(leaf, |inner, _| serde_json::json!([inner]));
            }
        }
        heap
    }

    /// Makes a change that another one of the same place conflicts with or has to be merged with.
    fn change(&mut self, name: &str) {
        self.items.extend([name.to_owned()]);
        self.set.insert(name.to_owned());
        self.map.insert(name.to_owned(), vec![name.to_owned()]);
        if let Some(mut inner) = Some(&mut self.deep).filter(|deep| deep.is_array()) {
            while inner[0].is_array() {
                inner = &mut inner[0];
            }
            inner[0] = name.into();
        }
    }
}

type Heaps = SessionManager<Heap>;

/// Changes a session, with another change in between if the path says so.
async fn change(
    State(sessions): State<Heaps>,
    request: http::Uri,
    mut session: Session<Heap>,
) -> Result<impl IntoResponse, SessionError> {
    session.change("ours");
    if request.path() == "/merge"
        && let Some(key) = session.key()
    {
        sessions.update(key, |heap| heap.change("theirs")).await?;
    }
    Ok(session.commit().await.map(|commit| (commit, "hello")))
}

async fn with_a_merge() {
    let sizes = [8, 16, 32, 64].map(|kibibytes| kibibytes * 1024);
    head(
        "change, ms",
        sizes.iter().flat_map(|size| [format!("alone {size}"), format!("merge {size}")]),
    );
    for shape in ["list", "set", "map", "deep"] {
        let mut times = Vec::new();
        for size in sizes {
            let sessions =
                Heaps::builder().store(MemoryStore::new()).max_payload(1 << 20).build().unwrap();
            let key = sessions.create(Heap::new(shape, size)).await.unwrap();
            let cookie = format!("__Host-session={}", key.token());
            let app = Router::new()
                .route("/alone", get(change))
                .route("/merge", get(change))
                .with_state(sessions.clone());
            for path in ["/alone", "/merge"] {
                let mut fastest = f64::MAX;
                for _ in 0..15 {
                    sessions
                        .update(key.key(), |heap| *heap = Heap::new(shape, size))
                        .await
                        .unwrap();
                    let request = Request::get(path).header(header::COOKIE, &cookie);
                    let request = request.body(Body::empty()).unwrap();
                    let started = Instant::now();
                    let response = app.clone().oneshot(request).await.unwrap();
                    assert!(!response.status().is_server_error(), "{}", response.status());
                    fastest = fastest.min(started.elapsed().as_secs_f64() * 1e6);
                }
                times.push(fastest);
            }
        }
        line(shape, &times);
    }
}
