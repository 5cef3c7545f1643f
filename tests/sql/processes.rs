//! Two processes of an application on one engine.

use sqlx::{MySql, Postgres};

use crate::{
    engines::{Private, Remote, options},
    servers,
    shops::two_processes_lose_nothing,
};

/// Starts a server and waits until it takes connections.
async fn ready<E: Remote>() -> Option<Private> {
    let server = E::start()?;
    E::connect(server.port, options()).await.close().await;
    Some(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_postgres_lose_nothing() {
    let Some(server) = ready::<Postgres>().await else {
        return;
    };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
    two_processes_lose_nothing(&url);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_mariadb_lose_nothing() {
    let Some(server) = ready::<MySql>().await else {
        return;
    };
    let url = format!("mysql://root@127.0.0.1:{}/sessions", server.port);
    two_processes_lose_nothing(&url);
}

#[test]
fn two_processes_on_one_sqlite_file_lose_nothing() {
    let folder = servers::folder("shops");
    let file = folder.join("shop.db");
    two_processes_lose_nothing(&format!("sqlite:{}?mode=rwc", file.display()));
    let _ = std::fs::remove_dir_all(folder);
}
