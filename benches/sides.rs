//! The applications that are compared: sessions of this crate and of others, the floor, and none.

use std::{hint::black_box, sync::Arc};

use ::tower::Service as _;
use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_extra::extract::cookie::{Cookie, PrivateCookieJar};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionError, SessionManager,
};
use http::{Request, header};

use crate::{floor, shopper::Shopper};

/// Sides that this crate does not have do the same work with another library or with none.
pub const SIDES: [&str; 13] = [
    "floor-cookie",
    "cookie",
    "cookie-identity",
    "cookie-layer",
    "signed",
    "jar",
    "floor-memory",
    "memory",
    "memory-layer",
    "sealed-id",
    "encrypted-rows",
    "tower-sessions",
    "ruts",
];
pub const CASES: [&str; 5] = ["untouched", "read", "write", "new", "fill"];

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

/// A handler of each case over a side; `bare` has no sessions.
fn app(side: &str) -> Router {
    if let Some(side) = side.strip_suffix("-layer") {
        return app(side).layer(AutoCommitLayer::new());
    }
    if let Some(side) = side.strip_suffix("-identity") {
        return app(side).layer(::tower::layer::util::Identity::new());
    }
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
        "signed" => routes().with_state(sessions.keys(key).signed(true).build().unwrap()),
        "memory" => routes().with_state(sessions.store(MemoryStore::new()).build().unwrap()),
        "sealed-id" => {
            routes().with_state(sessions.store(MemoryStore::new()).keys(key).build().unwrap())
        }
        "encrypted-rows" => {
            let sessions = sessions.store(MemoryStore::new()).keys(key).encrypt_rows(true);
            routes().with_state(sessions.build().unwrap())
        }
        "floor-cookie" => floor::in_cookie(),
        "floor-memory" => floor::in_memory(),
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

pub async fn send(app: &mut Router, path: &str, cookies: &str) -> Response {
    let request = Request::get(path).header(header::COOKIE, cookies);
    let response = app.call(request.body(Body::empty()).unwrap()).await.unwrap();
    assert!(response.status().is_success());
    response
}

/// Makes the application of a side, and the path and the cookies of a request of a case.
///
/// With `bare` the requests are the same, and the application has no sessions.
pub async fn prepared(side: &str, case: &str, bare: bool) -> (Router, String, String) {
    let mut app = app(side);
    let others = "theme=dark; locale=en-GB; consent=none";
    let mut cookies = others.to_owned();
    if case != "new" && case != "fill" {
        let response = send(&mut app, "/fill", others).await;
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap();
        cookies = format!("theme=dark; {cookie}; locale=en-GB; consent=none");
    }
    if bare {
        app = self::app("bare");
    }
    (app, format!("/{}", if case == "new" { "write" } else { case }), cookies)
}
