//! A shopping cart on the server: logins, carts that lose no item, and "log out everywhere".
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example cart
//! curl -c jar -b jar -d 'sku=tea&qty=2' http://127.0.0.1:3000/items
//! curl -c jar -b jar -d 'name=ann' http://127.0.0.1:3000/login
//! curl -c jar -b jar http://127.0.0.1:3000/items
//! ```
//!
//! `SESSION_STORE` names the store: `memory`, or with the feature of the same name `redis://host` (a cluster
//! where several stand between commas), `sqlite:file.db`, `postgres://..` or `mysql://..`. `PORT` sets the
//! port, and `INSECURE_HTTP=1` suits browsers that refuse Secure cookies on `http://localhost`.

use std::{collections::BTreeMap, env, error::Error, sync::Arc};

use axum::{
    Form, Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
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
    KeyRing, MemoryStore, Session, SessionError, SessionManager, SessionStore,
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

type Answer = Result<axum::response::Response, SessionError>;

async fn list_items(session: Session<Shopper>) -> Answer {
    let items = Json(session.items.clone());
    Ok((session.commit().await?, items).into_response())
}

/// `update` runs again on the fresh row until its write lands, so no item is lost however many requests
/// of one shopper arrive at once.
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
        Some(name) => (StatusCode::OK, name.clone()),
        None => (StatusCode::UNAUTHORIZED, "not logged in".to_owned()),
    };
    Ok((session.commit().await?, answer).into_response())
}

/// The cart stays; the id does not, so that one learnt before the login is worth nothing after it.
async fn login(mut session: Session<Shopper>, Form(login): Form<Login>) -> Answer {
    session.name = Some(login.name);
    session.regenerate();
    Ok((session.commit().await?, "logged in").into_response())
}

async fn logout(mut session: Session<Shopper>) -> Answer {
    session.destroy();
    Ok((session.commit().await?, "logged out").into_response())
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
    let body = format!("{ended} sessions ended");
    Ok((session.commit().await?, body).into_response())
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprint!("cart: {error}");
        let mut cause = error.source();
        let mut told = error.to_string();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.contains(&text) {
                eprint!(": {text}");
                told.push_str(&text);
            }
            cause = error.source();
        }
        eprintln!();
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let url = env::var("SESSION_STORE").unwrap_or_else(|_| "memory".to_owned());
    let sessions = SessionManager::<Shopper>::builder()
        .keys(KeyRing::from_env("SESSION_KEY")?)
        .store(open_store(&url).await?)
        .owner(|shopper| shopper.name.clone())
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let app = Router::new()
        .route("/items", get(list_items).post(add_item))
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/logout-everywhere", post(logout_everywhere))
        .with_state(sessions);
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
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
        #[cfg(feature = "sqlite")]
        "sqlite" => sql(SqliteStore::new(connect(url).await?)).await,
        #[cfg(feature = "postgres")]
        "postgres" => sql(PostgresStore::new(connect(url).await?)).await,
        #[cfg(feature = "mysql")]
        "mysql" => sql(MySqlStore::new(connect(url).await?)).await,
        "redis" | "rediss" | "sqlite" | "postgres" | "mysql" => {
            let feature = scheme.replace("rediss", "redis-rustls");
            Err(format!("SESSION_STORE: build with `--features {feature}` for `{scheme}:`").into())
        }
        _ => Err("SESSION_STORE must be `memory`, or begin with `redis://`, `sqlite:`, `postgres://` or \
                  `mysql://`"
            .into()),
    }
}

/// One server, or a cluster where the URLs of several nodes stand between commas.
#[cfg(feature = "redis")]
async fn redis(urls: &str) -> Result<Arc<dyn SessionStore>, Box<dyn Error>> {
    Ok(Arc::new(if urls.contains(',') {
        RedisStore::connect_cluster(urls.split(',')).await?
    } else {
        RedisStore::connect(urls).await?
    }))
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
async fn connect<DB: sqlx::Database>(url: &str) -> Result<sqlx::Pool<DB>, Box<dyn Error>> {
    let pool = sqlx::pool::PoolOptions::new().acquire_timeout(std::time::Duration::from_secs(5));
    let pool = pool.connect(url).await;
    pool.map_err(|error| {
        // The pool keeps trying while nobody listens there, and then speaks of itself.
        let problem = if matches!(error, sqlx::Error::PoolTimedOut) {
            "no answer within 5 seconds".to_owned()
        } else {
            error.to_string()
        };
        format!("SESSION_STORE: cannot connect to the database: {problem}").into()
    })
}

/// The table is made where it is missing, and expired sessions are deleted as long as the program runs.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
async fn sql<E: SqlEngine>(store: SqlStore<E>) -> Result<Arc<dyn SessionStore>, Box<dyn Error>>
where
    SqlStore<E>: SessionStore,
{
    store.migrate().await?;
    tokio::spawn(Cleanup::new(store.clone()).run(std::future::pending()));
    Ok(Arc::new(store))
}
