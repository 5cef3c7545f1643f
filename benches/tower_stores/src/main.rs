//! An application with a store of tower-sessions: `tower-stores redis|sqlite|postgres <url>`.
//!
//! Each line of the input is a request, in JSON. `{"data": {..}}` begins a session with these data, and its `Cookie`
//! header is printed. `{"cookie": "..", "names": [..]}` prints the data that the session has under these names, as JSON.

use std::{error::Error, io, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    http::{Request, StatusCode, header},
    routing::get,
};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use tower::ServiceExt as _;
use tower_sessions::{
    Expiry, Session, SessionManagerLayer, SessionStore, cookie::time::Duration, session,
};
use tower_sessions_redis_store::{RedisStore, fred::prelude::*};
use tower_sessions_sqlx_store::{
    PostgresStore, SqliteStore,
    sqlx::{PgPool, SqlitePool},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [store, url] = &arguments[..] else { return Err("expected a store and a URL".into()) };
    match &**store {
        "redis" => {
            let client = Builder::from_config(Config::from_url(url)?).build()?;
            let _task = client.init().await?;
            serve(RedisStore::new(client)).await
        }
        "sqlite" => {
            let store = SqliteStore::new(SqlitePool::connect(url).await?);
            store.migrate().await?;
            serve(store).await
        }
        "postgres" => {
            let store = PostgresStore::new(PgPool::connect(url).await?);
            store.migrate().await?;
            serve(store).await
        }
        _ => Err(format!("{store} is no store").into()),
    }
}

/// Answers the requests of the input.
async fn serve(store: impl SessionStore + Clone) -> Result<()> {
    let layer =
        SessionManagerLayer::new(store).with_expiry(Expiry::OnInactivity(Duration::hours(1)));
    let app = Router::new().route("/", get(handler)).layer(layer);
    for line in io::stdin().lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let cookie = line["cookie"].as_str().unwrap_or_default().to_owned();
        let request = Request::get("/").header(header::COOKIE, cookie).extension(Arc::new(line));
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        if response.status() != StatusCode::OK {
            return Err(response.status().to_string().into());
        }
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            println!("{}", cookie.to_str()?.split(';').next().unwrap_or_default());
        } else {
            let body = response.into_body().collect().await?.to_bytes();
            println!("{}", str::from_utf8(&body)?);
        }
    }
    Ok(())
}

async fn handler(
    session: Session,
    Extension(line): Extension<Arc<Value>>,
) -> std::result::Result<Json<Value>, (StatusCode, String)> {
    let failed = |error: session::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    for (name, value) in line["data"].as_object().into_iter().flatten() {
        session.insert(name, value).await.map_err(failed)?;
    }
    let mut data = Map::new();
    for name in line["names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if let Some(value) = session.get_value(name).await.map_err(failed)? {
            data.insert(name.to_owned(), value);
        }
    }
    Ok(Json(data.into()))
}
