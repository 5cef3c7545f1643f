//! Instructions a request costs, counted under valgrind: repeatable, whatever else the machine does.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench cost` prints thousands of instructions a request above
//! the same request to a handler without sessions, which gets the same cookies and answers the same. The session is 318 bytes of JSON in one
//! of four cookies; without a cookie, `new` saves a default one with a changed number and `fill` a whole one.
//!
//! It needs Debian's package `valgrind`, whose processor has instructions for AES and none for SHA-256: the key
//! of a stored session is one block of it, and counts 3.5.

use std::{env, hint::black_box, process::Command, sync::Arc};

use ::tower::Service as _;
use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_extra::extract::cookie::{Cookie, PrivateCookieJar};
use axum_typed_session::{Key, MemoryStore, Session, SessionError, SessionManager};
use http::{Request, header};
use shopper::Shopper;

mod shopper;

const SIDES: [&str; 5] = ["cookie", "memory", "jar", "tower-sessions", "ruts"];
const CASES: [&str; 5] = ["untouched", "read", "write", "new", "fill"];
/// Past the first thousand saves of a manager, which are all read back.
const FEW: usize = 1200;
const MANY: usize = 2200;

async fn untouched() -> &'static str {
    "hello"
}

async fn user() -> String {
    "ann.example".to_owned()
}

async fn ann() -> &'static str {
    black_box(Shopper::ann());
    "hello"
}

async fn read(session: Session<Shopper>) -> Result<impl IntoResponse, SessionError> {
    let user = session.user.clone();
    Ok((session.commit().await?, user))
}

async fn write(mut session: Session<Shopper>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    Ok((session.commit().await?, "hello"))
}

async fn fill(mut session: Session<Shopper>) -> Result<impl IntoResponse, SessionError> {
    *session = Shopper::ann();
    Ok((session.commit().await?, "hello"))
}

async fn fill_jar(jar: PrivateCookieJar) -> impl IntoResponse {
    (jar.add(cookie(&Shopper::ann())), "hello")
}

async fn read_jar(jar: PrivateCookieJar) -> String {
    shopper(&jar).map(|shopper| shopper.user).unwrap_or_default()
}

async fn write_jar(jar: PrivateCookieJar) -> impl IntoResponse {
    let mut shopper = shopper(&jar).unwrap_or_default();
    shopper.count += 1;
    (jar.add(cookie(&shopper)), "hello")
}

fn cookie(shopper: &Shopper) -> Cookie<'static> {
    let value = serde_json::to_string(shopper).unwrap();
    let cookie = Cookie::build(("__Host-session", value)).path("/");
    cookie.secure(true).http_only(true).build()
}

fn shopper(jar: &PrivateCookieJar) -> Option<Shopper> {
    serde_json::from_str(jar.get("__Host-session")?.value()).ok()
}

/// tower-sessions, with its store in memory.
mod tower {
    use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

    use super::*;

    const SHOPPER: &str = "shopper";

    async fn shopper(session: &Session) -> Shopper {
        let shopper = session.get(SHOPPER).await.unwrap();
        shopper.unwrap_or_default()
    }

    async fn read(session: Session) -> String {
        shopper(&session).await.user
    }

    async fn write(session: Session) -> &'static str {
        let mut shopper = shopper(&session).await;
        shopper.count += 1;
        session.insert(SHOPPER, shopper).await.unwrap();
        "hello"
    }

    async fn fill(session: Session) -> &'static str {
        session.insert(SHOPPER, Shopper::ann()).await.unwrap();
        "hello"
    }

    pub fn app() -> Router {
        Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .route("/fill", get(fill))
            .route("/untouched", get(untouched))
            .layer(SessionManagerLayer::new(MemoryStore::default()))
    }
}

/// ruts, with its store in memory.
mod ruts {
    use ::ruts::{
        CookieOptions, Session, SessionLayer,
        store::{
            Ttl,
            moka::{MokaStore, MokaStoreBuilder},
        },
    };
    use tower_cookies::CookieManagerLayer;

    use super::*;

    type MokaSession = Session<MokaStore>;

    const SHOPPER: &str = "shopper";
    const DAY: i64 = 24 * 60 * 60;

    async fn shopper(session: &MokaSession) -> Shopper {
        let shopper = session.get(SHOPPER).await.unwrap();
        shopper.unwrap_or_default()
    }

    async fn keep(session: &MokaSession, shopper: &Shopper) {
        let day = Ttl::new(DAY).unwrap();
        session.set(SHOPPER, shopper, day, None).await.unwrap();
    }

    async fn read(session: MokaSession) -> String {
        shopper(&session).await.user
    }

    async fn write(session: MokaSession) -> &'static str {
        let mut shopper = shopper(&session).await;
        shopper.count += 1;
        keep(&session, &shopper).await;
        "hello"
    }

    async fn fill(session: MokaSession) -> &'static str {
        keep(&session, &Shopper::ann()).await;
        "hello"
    }

    pub fn app() -> Router {
        let options = CookieOptions::build().name("session").path("/");
        let store = Arc::new(MokaStoreBuilder::new().build());
        Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .route("/fill", get(fill))
            .route("/untouched", get(untouched))
            .layer(
                SessionLayer::new(store).with_cookie_options(options.max_age(DAY.cast_unsigned())),
            )
            .layer(CookieManagerLayer::new())
    }
}

fn app(side: &str) -> Router {
    let key = Key::from(&(0..64).map(|byte| byte * 3).collect::<Vec<u8>>());
    let sessions = SessionManager::<Shopper>::builder();
    let routes = || {
        Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .route("/fill", get(fill))
    };
    let app = match side {
        "cookie" => routes().with_state(sessions.keys(key).build().unwrap()),
        "memory" => routes().with_state(sessions.store(MemoryStore::new()).build().unwrap()),
        "jar" => Router::new()
            .route("/read", get(read_jar))
            .route("/write", get(write_jar))
            .route("/fill", get(fill_jar))
            .with_state(key),
        "tower-sessions" => return tower::app(),
        "ruts" => return ruts::app(),
        _ => Router::new()
            .route("/read", get(user))
            .route("/write", get(untouched))
            .route("/fill", get(ann)),
    };
    app.route("/untouched", get(untouched))
}

async fn send(app: &mut Router, path: &str, cookies: &str) -> Response {
    let request = Request::get(path).header(header::COOKIE, cookies);
    let response = app.call(request.body(Body::empty()).unwrap()).await.unwrap();
    assert!(response.status().is_success());
    response
}

/// What valgrind counts: so many requests of one kind, or the same requests to handlers without sessions.
fn run(side: &str, case: &str, requests: usize, bare: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut app = app(side);
        let others = "theme=dark; locale=en-GB; consent=none";
        let mut cookies = others.to_owned();
        if case != "new" && case != "fill" {
            let response = send(&mut app, "/fill", others).await;
            let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
            cookies = format!(
                "theme=dark; {}; locale=en-GB; consent=none",
                cookie.split(';').next().unwrap()
            );
        }
        if bare {
            app = self::app("bare");
        }
        let path = format!("/{}", if case == "new" { "write" } else { case });
        for _ in 0..requests {
            send(&mut app, &path, &cookies).await;
        }
    });
}

/// Instructions for one request: the difference of many and few, so that the start does not count.
fn count(side: &str, case: &str, bare: bool) -> f64 {
    let total = |requests: usize| -> u64 {
        let output = Command::new("valgrind")
            .args(["--tool=none", "--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().unwrap())
            .args(["run", side, case, &requests.to_string(), &bare.to_string()])
            .output()
            .expect("valgrind: install Debian's package `valgrind`");
        let text = String::from_utf8_lossy(&output.stderr);
        let collected = text.split("Collected : ").nth(1).unwrap_or_else(|| panic!("{text}"));
        collected.split_whitespace().next().unwrap().parse().unwrap()
    };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let difference = (total(MANY) - total(FEW)) as f64;
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    let requests = (MANY - FEW) as f64;
    difference / requests / 1000.0
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, run_word, side, case, requests, bare] = &args[..]
        && run_word == "run"
    {
        let bare = bare.parse().unwrap();
        return run(side, case, requests.parse().unwrap(), bare);
    }
    println!("{} bytes of JSON", serde_json::to_string(&Shopper::ann()).unwrap().len());
    println!(
        "{:15}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", CASES[0], CASES[1], CASES[2], CASES[3], CASES[4]
    );
    for side in SIDES {
        print!("{side:15}");
        for case in CASES {
            let cost = count(side, case, false) - count(side, case, true);
            print!("{cost:>12.1}");
        }
        println!();
    }
}
