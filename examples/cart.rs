//! A shopping cart on the server, in a store that you choose.
//!
//! The cart loses no item, however many requests of one shopper arrive at once. It survives the login, which gives the
//! session a new id. "Log out everywhere" ends the sessions of a shopper in all browsers.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example cart
//! ```
//!
//! In a second terminal:
//!
//! ```text
//! curl -w '\n' -c jar -b jar -d 'sku=tea&qty=2' http://127.0.0.1:3000/items
//! curl -c jar -b jar -d name=ann http://127.0.0.1:3000/login
//! curl -w '\n' -c jar -b jar http://127.0.0.1:3000/items
//!
//! # Twenty requests at once: all of them count.
//! seq 20 | xargs -P 20 -I {} curl -s -o /dev/null -w '%{http_code} ' -b jar -d 'sku=jam&qty=1' http://127.0.0.1:3000/items
//! curl -w '\n' -c jar -b jar http://127.0.0.1:3000/items
//!
//! # A second browser of the same shopper.
//! curl -c other -b other -d name=ann http://127.0.0.1:3000/login
//! curl -c other -b other -X POST http://127.0.0.1:3000/logout-everywhere
//! curl -c jar -b jar http://127.0.0.1:3000/me
//! ```
//!
//! `SESSION_STORE` names the store. `memory` is the default. The others need the feature of the same name, such as
//! `cargo run --example cart --features redis`:
//!
//! | `SESSION_STORE` | feature |
//! |---|---|
//! | `redis://127.0.0.1`, or the URLs of several nodes of a cluster between commas | `redis` |
//! | `memcached://127.0.0.1`, which cannot end all sessions of a user at once | `memcached` |
//! | `sqlite:sessions.db`, a file that is created if it is missing | `sqlite` |
//! | `postgres://user:password@127.0.0.1/shop` | `postgres` |
//! | `pgbouncer://user:password@127.0.0.1:6432/shop`, PostgreSQL behind a pooler in transaction mode | `postgres` |
//! | `mysql://user:password@127.0.0.1/shop` | `mysql` |
//!
//! This program asks for no password. The example `login` shows how to check it. `PORT` sets the port, and
//! `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.

use std::{collections::BTreeMap, env, error::Error, sync::Arc};

use axum::{
    Form, Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
#[cfg(feature = "memcached")]
use axum_typed_session::MemcachedStore;
#[cfg(feature = "mysql")]
use axum_typed_session::MySqlStore;
#[cfg(feature = "postgres")]
use axum_typed_session::PostgresStore;
#[cfg(feature = "redis")]
use axum_typed_session::RedisStore;
#[cfg(feature = "sqlite")]
use axum_typed_session::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
use axum_typed_session::store::{Cleanup, SqlEngine, SqlStore};
use axum_typed_session::{
    KeyRing, MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder,
    SessionStore,
};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Shopper {
    name: Option<String>,
    /// Quantities by article.
    items: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    qty: u32,
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

type Answer = Result<Response, SessionError>;

async fn list_items(session: Session<Shopper>) -> Answer {
    let items = Json(session.items.clone());
    Ok((session.commit().await?, items).into_response())
}

/// `update` reads the stored session, changes it and saves it. If another request saved first, it starts again, so no
/// item is lost.
async fn add_item(mut session: Session<Shopper>, Form(item): Form<Item>) -> Answer {
    session
        .update(|shopper| {
            let quantity = shopper.items.entry(item.sku.clone()).or_default();
            *quantity = quantity.saturating_add(item.qty);
        })
        .await?;
    let items = Json(session.items.clone());
    Ok((session.commit().await?, items).into_response())
}

async fn me(session: Session<Shopper>) -> Answer {
    let answer = match &session.name {
        Some(name) => (StatusCode::OK, format!("{name}\n")),
        None => (StatusCode::UNAUTHORIZED, "not logged in\n".to_owned()),
    };
    Ok((session.commit().await?, answer).into_response())
}

/// The cart stays. The id is new, so that nobody who learned the old one is signed in.
async fn login(mut session: Session<Shopper>, Form(login): Form<Login>) -> Answer {
    session.name = Some(login.name);
    session.regenerate();
    Ok((session.commit().await?, "logged in\n").into_response())
}

async fn logout(mut session: Session<Shopper>) -> Answer {
    session.destroy();
    Ok((session.commit().await?, "logged out\n").into_response())
}

async fn logout_everywhere(
    State(sessions): State<SessionManager<Shopper>>,
    mut session: Session<Shopper>,
) -> Answer {
    let ended = match &session.name {
        Some(name) => sessions.destroy_all_of(name).await?,
        None => 0,
    };
    session.destroy();
    let body = format!("sessions ended: {ended}\n");
    Ok((session.commit().await?, body).into_response())
}

fn sessions(store: impl SessionStore) -> SessionManagerBuilder<Shopper> {
    SessionManager::builder().store(store).owner(|shopper: &Shopper| shopper.name.clone())
}

fn app(sessions: SessionManager<Shopper>) -> Router {
    Router::new()
        .route("/items", get(list_items).post(add_item))
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/logout-everywhere", post(logout_everywhere))
        .with_state(sessions)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("cart: {}", with_causes(&*error));
        std::process::exit(1);
    }
}

/// Drivers put the reason into the source of their error, and some repeat it in the error itself.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

async fn run() -> Result<(), Box<dyn Error>> {
    let url = env::var("SESSION_STORE").unwrap_or_else(|_| "memory".to_owned());
    let sessions = sessions(open_store(&url).await?)
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(sessions)).await?;
    Ok(())
}

#[allow(
    clippy::unused_async,
    unreachable_patterns,
    reason = "each store stands behind its feature"
)]
async fn open_store(url: &str) -> Result<Arc<dyn SessionStore>, Box<dyn Error>> {
    let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => redis(url).await,
        #[cfg(feature = "memcached")]
        "memcached" => Ok(Arc::new(MemcachedStore::connect(url).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => sql(SqliteStore::connect(url).await?).await,
        #[cfg(feature = "postgres")]
        "postgres" => sql(PostgresStore::connect(url).await?).await,
        #[cfg(feature = "postgres")]
        "pgbouncer" => {
            let store = PostgresStore::connect(url.replacen("pgbouncer", "postgres", 1)).await?;
            sql(store.without_prepared_statements()).await
        }
        #[cfg(feature = "mysql")]
        "mysql" => sql(MySqlStore::connect(url).await?).await,
        "redis" | "rediss" | "memcached" | "sqlite" | "postgres" | "pgbouncer" | "mysql" => {
            let feature = scheme.replace("rediss", "redis-rustls");
            let feature = feature.replace("pgbouncer", "postgres");
            Err(format!("SESSION_STORE: build with `--features {feature}` for `{scheme}:`").into())
        }
        _ => Err(
            "SESSION_STORE must be `memory`, or begin with `redis://`, `memcached://`, `sqlite:`, \
                  `postgres://` or `mysql://`"
                .into(),
        ),
    }
}

/// Connects to one server, or to a cluster if the text holds the URLs of several nodes.
#[cfg(feature = "redis")]
async fn redis(urls: &str) -> Result<Arc<dyn SessionStore>, Box<dyn Error>> {
    Ok(Arc::new(if urls.contains(',') {
        RedisStore::connect_cluster(urls.split(',')).await?
    } else {
        RedisStore::connect(urls).await?
    }))
}

/// Creates the table if it is missing, and deletes expired sessions as long as the program runs.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
async fn sql<E: SqlEngine>(store: SqlStore<E>) -> Result<Arc<dyn SessionStore>, Box<dyn Error>>
where
    SqlStore<E>: SessionStore,
{
    store.migrate().await?;
    tokio::spawn(Cleanup::new(store.clone()).run(std::future::pending()));
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request, header},
    };
    use axum_typed_session::Key;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// A browser with one cookie.
    #[derive(Clone)]
    struct Browser {
        app: Router,
        cookie: String,
    }

    impl Browser {
        fn new(app: &Router) -> Self {
            Self { app: app.clone(), cookie: String::new() }
        }

        async fn send(&mut self, method: Method, path: &str, form: &str) -> (StatusCode, String) {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::COOKIE, &self.cookie)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(form.to_owned()))
                .unwrap();
            let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
            if let Some(cookie) = parts.headers.get(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                pair.clone_into(&mut self.cookie);
            }
            let body = body.collect().await.unwrap().to_bytes();
            (parts.status, String::from_utf8(body.to_vec()).unwrap())
        }

        async fn get(&mut self, path: &str) -> (StatusCode, String) {
            self.send(Method::GET, path, "").await
        }

        async fn post(&mut self, path: &str, form: &str) -> String {
            let (status, body) = self.send(Method::POST, path, form).await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            body
        }
    }

    fn shop() -> Router {
        app(sessions(MemoryStore::new()).keys(Key::generate()).build().unwrap())
    }

    #[tokio::test]
    async fn the_cart_survives_the_login_and_the_id_does_not() {
        let mut browser = Browser::new(&shop());
        browser.post("/items", "sku=tea&qty=2").await;
        let mut stranger = browser.clone();
        browser.post("/login", "name=ann").await;
        assert_eq!(browser.get("/items").await.1, r#"{"tea":2}"#);
        assert_eq!(browser.get("/me").await, (StatusCode::OK, "ann\n".to_owned()));
        assert_eq!(stranger.get("/items").await.1, "{}");
        assert_eq!(stranger.get("/me").await.0, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_item_of_requests_at_once_is_lost() {
        let mut browser = Browser::new(&shop());
        browser.post("/items", "sku=tea&qty=1").await;
        let requests = (0..20).map(|_| {
            let mut tab = browser.clone();
            tokio::spawn(async move { tab.post("/items", "sku=tea&qty=1").await })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap();
        }
        assert_eq!(browser.get("/items").await.1, r#"{"tea":21}"#);
    }

    #[tokio::test]
    async fn a_logout_ends_one_session_and_a_logout_everywhere_all() {
        let shop = shop();
        let [mut first, mut second, mut third] = [(); 3].map(|()| Browser::new(&shop));
        for browser in [&mut first, &mut second, &mut third] {
            browser.post("/login", "name=ann").await;
        }
        first.post("/logout", "").await;
        assert_eq!(first.get("/me").await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(second.get("/me").await.0, StatusCode::OK);
        assert_eq!(second.post("/logout-everywhere", "").await, "sessions ended: 2\n");
        assert_eq!(third.get("/me").await.0, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_store_that_is_not_built_in_names_its_feature() {
        let stores = [
            ("redis://127.0.0.1", "redis", cfg!(feature = "redis")),
            ("memcached://127.0.0.1", "memcached", cfg!(feature = "memcached")),
            ("sqlite:file.db", "sqlite", cfg!(feature = "sqlite")),
            ("postgres://127.0.0.1", "postgres", cfg!(feature = "postgres")),
            ("pgbouncer://127.0.0.1", "postgres", cfg!(feature = "postgres")),
            ("mysql://127.0.0.1", "mysql", cfg!(feature = "mysql")),
        ];
        for (url, feature, _) in stores.into_iter().filter(|(_, _, is_built)| !is_built) {
            let error = open_store(url).await.err().unwrap().to_string();
            assert!(error.contains(&format!("--features {feature}")), "{error}");
        }
        let error = open_store("mongodb://127.0.0.1").await.err().unwrap().to_string();
        assert!(error.starts_with("SESSION_STORE must be"), "{error}");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_missing_sqlite_file_is_created() {
        let name = format!("axum-typed-session-cart-{}.db", std::process::id());
        let path = env::temp_dir().join(name);
        let store = open_store(&format!("sqlite:{}", path.display())).await;
        assert!(path.is_file());
        let mut browser = Browser::new(&app(sessions(store.unwrap()).build().unwrap()));
        browser.post("/items", "sku=tea&qty=2").await;
        assert_eq!(browser.get("/items").await.1, r#"{"tea":2}"#);
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.clone().into_os_string();
            file.push(suffix);
            let _ = std::fs::remove_file(file);
        }
    }
}
