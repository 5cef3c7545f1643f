//! The same handlers with other crates.

use axum::{Router, response::IntoResponse, routing::get};

use crate::shopper::Shopper;

/// Makes the application of a side of another crate. Layers are put around the routes, as each crate asks.
pub async fn app(side: &str) -> Option<Router> {
    Some(match side {
        "jar" => jar::app(),
        "seshcookie" => seshcookie::app(),
        "tower-sessions" => tower::app(),
        "ruts" => ruts::app(),
        "axum_session" => axum_session::app().await,
        _ => return None,
    })
}

/// axum-extra's encrypted cookies, with the JSON by hand.
mod jar {
    use axum_extra::extract::cookie::{Cookie, Key, PrivateCookieJar};

    use super::*;

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

    pub fn app() -> Router {
        let key = Key::from(&(0..64).map(|byte| byte * 3).collect::<Vec<u8>>());
        Router::new()
            .route("/read", get(read_jar))
            .route("/write", get(write_jar))
            .route("/fill", get(fill_jar))
            .route("/untouched", get(async || "hello"))
            .with_state(key)
    }
}

/// seshcookie, whose sessions are in an encrypted cookie.
mod seshcookie {
    use ::seshcookie::{Session, SessionConfig, SessionKeys, SessionLayer};

    use super::*;

    async fn read(session: Session<Shopper>) -> String {
        session.get().await.unwrap_or_default().user
    }

    async fn write(session: Session<Shopper>) -> &'static str {
        session.modify(|shopper| shopper.get_or_insert_default().count += 1).await;
        "hello"
    }

    async fn fill(session: Session<Shopper>) -> &'static str {
        session.insert(Shopper::ann()).await;
        "hello"
    }

    pub fn app() -> Router {
        let keys = SessionKeys::new(&[7; 32]).unwrap();
        Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .route("/fill", get(fill))
            .route("/untouched", get(async || "hello"))
            .layer(SessionLayer::<Shopper>::new(keys, SessionConfig::default()).unwrap())
    }
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
            .route("/untouched", get(async || "hello"))
            .layer(SessionManagerLayer::new(MemoryStore::default()))
    }
}

/// ruts, with its store in memory.
mod ruts {
    use std::sync::Arc;

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
            .route("/untouched", get(async || "hello"))
            .layer(
                SessionLayer::new(store).with_cookie_options(options.max_age(DAY.cast_unsigned())),
            )
            .layer(CookieManagerLayer::new())
    }
}

/// axum_session, with its sessions in memory.
mod axum_session {
    use ::axum_session::{Session, SessionConfig, SessionLayer, SessionNullPool, SessionStore};

    use super::*;

    type MemorySession = Session<SessionNullPool>;

    const SHOPPER: &str = "shopper";

    fn shopper(session: &MemorySession) -> Shopper {
        session.get(SHOPPER).unwrap_or_default()
    }

    async fn read(session: MemorySession) -> String {
        shopper(&session).user
    }

    async fn write(session: MemorySession) -> &'static str {
        let mut shopper = shopper(&session);
        shopper.count += 1;
        session.set(SHOPPER, shopper);
        "hello"
    }

    async fn fill(session: MemorySession) -> &'static str {
        session.set(SHOPPER, Shopper::ann());
        "hello"
    }

    pub async fn app() -> Router {
        let store = SessionStore::<SessionNullPool>::new(None, SessionConfig::default());
        Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .route("/fill", get(fill))
            .route("/untouched", get(async || "hello"))
            .layer(SessionLayer::new(store.await.unwrap()))
    }
}
