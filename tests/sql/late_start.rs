//! Applications that start before their database.

use std::{
    fs,
    marker::PhantomData,
    time::{Duration, Instant},
};

use axum::{Router, response::IntoResponse, routing::post};
use axum_typed_session::{
    Session, SessionError, SessionManager, SessionStore as _, SqliteStore, StoreError, StoreKey,
    store::SqlStore,
};
use http::{Request, StatusCode};

use crate::{
    browser,
    common::assert_matches,
    engines::{Folder, Private, Remote, on_every_server, options},
    servers::{self, eventually},
};

/// A server that is down.
struct Down<E> {
    server: Private,
    engine: PhantomData<E>,
}

impl<E: Remote> Down<E> {
    async fn fresh() -> Option<Self> {
        let mut server = E::start()?;
        E::connect(server.port, options()).await.close().await;
        server.kill();
        Some(Self { server, engine: PhantomData })
    }
}

on_every_server! { Down;
    a_server_that_starts_later_needs_no_restart
    a_server_that_is_down_is_an_error_of_connect
}

async fn a_server_that_starts_later_needs_no_restart<E: Remote>(down: Down<E>) {
    async fn count(mut session: Session<u32>) -> Result<impl IntoResponse, SessionError> {
        *session += 1;
        let count = session.to_string();
        Ok((session.commit().await?, count))
    }
    let Down { mut server, .. } = down;
    let store = SqlStore::<E>::connect_lazy(E::url(server.port)).unwrap().migrate_lazy();
    let sessions = SessionManager::<u32>::builder().store(store.clone()).build().unwrap();
    let app = Router::new().route("/", post(count)).with_state(sessions);

    let started = Instant::now();
    let requests = (0..50).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { browser::send(&app, Request::post("/")).await })
    });
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.get("set-cookie").is_none());
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    let error = store.load(&StoreKey::from_bytes([1; 32])).await;
    let Err(StoreError::Unavailable(error)) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("the database is down"), "{error}");

    server.restart();
    let mut cookie = None;
    eventually("the application works", async || {
        let answer = browser::send(&app, Request::post("/")).await;
        cookie = answer.pair();
        answer.status == StatusCode::OK
    })
    .await;
    let request = Request::post("/").header("cookie", cookie.unwrap());
    assert_eq!(browser::send(&app, request).await.body, "2");
    // The table is the documented one, and a start of today's kind finds nothing left to do.
    let pool = E::connect(server.port, options()).await;
    assert!(E::number(&pool, "SELECT COUNT(*) FROM typed_sessions").await > 0);
    SqlStore::new(pool).migrate().await.unwrap();
}

async fn a_server_that_is_down_is_an_error_of_connect<E: Remote>(down: Down<E>) {
    let started = Instant::now();
    let port = down.server.port;
    let error = SqlStore::<E>::connect(E::url(port)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    let address = format!("cannot connect to the database at 127.0.0.1:{port}");
    assert_eq!(error.to_string(), address);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("refused"), "{source}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_made_later_needs_no_restart() {
    let folder = Folder(servers::folder("late-sqlite"));
    let later = folder.0.join("later");
    let url = format!("sqlite:{}/sessions.db", later.display());
    let store = SqliteStore::connect_lazy(&url).unwrap().migrate_lazy();
    let key = StoreKey::from_bytes([1; 32]);
    let Err(StoreError::Unavailable(error)) = store.load(&key).await else {
        panic!("there is no folder");
    };
    assert!(error.to_string().contains("its folder must exist"), "{error}");
    fs::create_dir(&later).unwrap();
    assert_matches!(store.load(&key).await, Ok(None));
}

/// Several tables in one database are made each for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_set_later_is_the_one_that_is_made() {
    let store = SqliteStore::connect_lazy("sqlite::memory:").unwrap().migrate_lazy();
    let other = store.clone().table_name("other_sessions").unwrap();
    for store in [&store, &other, &store] {
        assert_matches!(store.load(&StoreKey::from_bytes([1; 32])).await, Ok(None));
    }
}
