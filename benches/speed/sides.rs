//! The applications that are compared: sessions of this crate and of others, the floor, and none.

use std::hint::black_box;

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionError, SessionManager,
};
use http::{Request, header};
use tower::Service as _;

#[cfg(feature = "others")]
use crate::others;
use crate::{floor, shopper::Shopper};

/// The floors do the same work without a library. A side `-identity` has a layer that does nothing.
pub const SIDES: &[&str] = &[
    "floor-cookie",
    "cookie",
    "cookie-identity",
    "cookie-layer",
    "signed",
    "signed-layer",
    "floor-memory",
    "memory",
    "memory-layer",
    "sealed-id",
    "encrypted-rows",
    #[cfg(feature = "others")]
    "jar",
    #[cfg(feature = "others")]
    "seshcookie",
    #[cfg(feature = "others")]
    "tower-sessions",
    #[cfg(feature = "others")]
    "ruts",
    #[cfg(feature = "others")]
    "axum_session",
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

/// A handler of each case over a side; `bare` has no sessions.
fn app(side: &str) -> Router {
    if let Some(side) = side.strip_suffix("-layer") {
        return app(side).layer(AutoCommitLayer::new());
    }
    if let Some(side) = side.strip_suffix("-identity") {
        return app(side).layer(tower::layer::util::Identity::new());
    }
    let key = Key::try_from(&*(0..64).map(|byte| byte * 3).collect::<Vec<u8>>()).unwrap();
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
        // Room for a million sessions, of which none is evicted.
        "memory" => {
            let store = MemoryStore::builder().max_bytes(usize::MAX).build();
            routes().with_state(sessions.store(store).build().unwrap())
        }
        "sealed-id" => {
            routes().with_state(sessions.store(MemoryStore::new()).keys(key).build().unwrap())
        }
        "encrypted-rows" => {
            let sessions = sessions.store(MemoryStore::new()).keys(key).encrypt_rows(true);
            routes().with_state(sessions.build().unwrap())
        }
        "floor-cookie" => floor::in_cookie(),
        "floor-memory" => floor::in_memory(),
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

/// Makes the application of a side.
pub async fn app_of(side: &str) -> Router {
    #[cfg(feature = "others")]
    if let Some(app) = others::app(side).await {
        return app;
    }
    app(side)
}

/// Makes the application of a side, and the path and the cookies of a request of a case.
///
/// With `bare` the requests are the same, and the application has no sessions.
pub async fn prepared(side: &str, case: &str, bare: bool) -> (Router, String, String) {
    let mut app = app_of(side).await;
    let others = "theme=dark; locale=en-GB; consent=none";
    let mut cookies = others.to_owned();
    if case != "new" && case != "fill" {
        let response = send(&mut app, "/fill", others).await;
        let set = response.headers().get_all(header::SET_COOKIE).iter();
        let set = set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
        let set = set.collect::<Vec<_>>().join("; ");
        cookies = format!("theme=dark; {set}; locale=en-GB; consent=none");
    }
    if bare {
        app = self::app("bare");
    }
    (app, format!("/{}", if case == "new" { "write" } else { case }), cookies)
}
