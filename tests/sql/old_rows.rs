//! The tables of tower-sessions, written by its own stores, from which sessions are imported.

use std::fmt::Write as _;

use axum::{Json, Router, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionManager, StoreError,
    import::{OldRow, OldRows, TowerSessions, TowerTable},
    testing::ManualClock,
    time::{Duration, OffsetDateTime},
};
use http::{Request, StatusCode, header};
use serde_json::Value;
use sqlx::{Postgres, Sqlite};
use tower_sessions::session::{Id, Record};

use crate::{
    browser::{Answer, send},
    engines::{Database, Engine, Remote as _},
    random_json::sessions,
    tower_stores::TowerStore,
};

/// Inserts a row for each of these data, as the store of tower-sessions writes them. Returns the `Cookie` headers.
async fn insert<E: Engine>(
    database: &Database<E>,
    table: &str,
    end: &str,
    data: &[Value],
) -> Vec<String> {
    let in_an_hour = OffsetDateTime::now_utc() + Duration::HOUR;
    let mut sql = format!("insert into {table} (id, data, expiry_date) values ");
    let mut headers = Vec::new();
    for (number, data) in data.iter().enumerate() {
        let id = Id::default();
        let data = data.as_object().unwrap().clone();
        let record = Record { id, data: data.into_iter().collect(), expiry_date: in_an_hour };
        let hex =
            rmp_serde::to_vec(&record).unwrap().iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
        let comma = if number == 0 { "" } else { ", " };
        write!(sql, "{comma}('{id}', {}, {end})", E::blob(&hex)).unwrap();
        headers.push(format!("id={id}"));
    }
    database.execute(&sql).await;
    headers
}

/// An application that imports from this table, and its clock.
fn site(rows: impl OldRows) -> (Router, ManualClock) {
    let now = OffsetDateTime::now_utc();
    let clock = ManualClock::at(now);
    let sessions = SessionManager::<Option<Value>>::builder()
        .keys(Key::generate())
        .store(MemoryStore::builder().clock(clock.clone()).build())
        .clock(clock.clone())
        .import(now + Duration::DAY, TowerSessions::new(rows, |data| Some(Some(data))))
        .build()
        .unwrap();
    let show = async |session: Session<Option<Value>>| Json((*session).clone());
    let app = Router::new().route("/", get(show)).layer(AutoCommitLayer::new());
    (app.with_state(sessions), clock)
}

async fn ask(app: &Router, cookies: &str) -> Answer {
    send(app, Request::get("/").header(header::COOKIE, cookies)).await
}

/// What an engine has to pass. `end` is SQL for an hour from now, as the store of tower-sessions writes it.
async fn rows_move<E: Engine>(
    database: &Database<E>,
    store: &TowerStore,
    table: &str,
    end: &str,
    rows: impl Fn() -> Box<dyn OldRows>,
) {
    let data = sessions(1000);
    let headers = store.sign_in(&data);
    let (app, clock) = site(Rows(rows()));
    for (cookies, data) in headers.iter().zip(&data) {
        let answer = ask(&app, cookies).await;
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), *data);
    }
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(ask(&app, &headers[0]).await.body, "null", "a replay");
    for id in ["", "'", "AAAA", "' or 1=1 --", &Id::default().to_string()] {
        assert_eq!(ask(&app, &format!("id={id}")).await.body, "null", "{id}");
    }
    let (app, clock) = site(Rows(rows()));
    clock.advance(std::time::Duration::from_secs(60 * 60));
    assert_eq!(ask(&app, &headers[0]).await.body, "null", "expired");

    let headers = insert(database, table, end, &data).await;
    let found = store.read(&headers, &data);
    for (found, data) in found.iter().zip(&data) {
        assert_eq!(found, data, "read by the store");
    }
}

struct Rows(Box<dyn OldRows>);

#[async_trait::async_trait]
impl OldRows for Rows {
    async fn row(&self, key: &str) -> Result<Option<OldRow>, StoreError> {
        self.0.row(key).await
    }
}

#[tokio::test]
async fn rows_of_tower_sessions_in_sqlite_move() {
    let Some(database) = Database::<Sqlite>::fresh().await else { return };
    let options = database.pool.connect_options();
    let url = format!("sqlite:{}", options.get_filename().display());
    let store = TowerStore { kind: "sqlite", url };
    let end = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '+1 hour')";
    let rows = || -> Box<dyn OldRows> { Box::new(TowerTable::sqlite(database.pool.clone())) };
    rows_move(&database, &store, "tower_sessions", end, rows).await;
}

#[tokio::test]
async fn rows_of_tower_sessions_in_postgres_move() {
    let Some(database) = Database::<Postgres>::fresh().await else { return };
    let url = Postgres::url(Postgres::port(&database.pool));
    let store = TowerStore { kind: "postgres", url };
    let rows = || -> Box<dyn OldRows> { Box::new(TowerTable::postgres(database.pool.clone())) };
    let end = "now() + interval '1 hour'";
    rows_move(&database, &store, "tower_sessions.session", end, rows).await;
}

#[tokio::test]
async fn a_table_that_cannot_be_asked_signs_nobody_out() {
    let Some(database) = Database::<Sqlite>::fresh().await else { return };
    let (app, _) = site(TowerTable::sqlite(database.pool.clone()).named("missing"));
    let answer = ask(&app, &format!("id={}", Id::default())).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
