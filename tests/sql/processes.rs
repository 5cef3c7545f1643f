//! Two processes of an application on one engine.

use sqlx::{MySql, Postgres};

use crate::{
    engines::{Private, Remote, options},
    pgbouncer, servers,
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
    let url = Postgres::url(server.port);
    two_processes_lose_nothing(&url);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_postgres_behind_pgbouncer_lose_nothing() {
    let Some(server) = ready::<Postgres>().await else {
        return;
    };
    if let Some(pooler) = pgbouncer::start(server.port, 4) {
        let url = Postgres::url(pooler.port).replacen("postgres", "pgbouncer", 1);
        two_processes_lose_nothing(&url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_mariadb_lose_nothing() {
    let Some(server) = ready::<MySql>().await else {
        return;
    };
    let url = MySql::url(server.port);
    two_processes_lose_nothing(&url);
}

#[test]
fn two_processes_on_one_sqlite_file_lose_nothing() {
    let folder = servers::folder("shops");
    let file = folder.join("shop.db");
    two_processes_lose_nothing(&format!("sqlite:{}", file.display()));
    let _ = std::fs::remove_dir_all(folder);
}
