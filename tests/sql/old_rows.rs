//! The tables of tower-sessions, from which sessions are imported.

use std::fmt::Write as _;

use axum::{Json, Router, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionManager, StoreError,
    import::{OldRow, OldRows, TowerSessions, TowerTable},
    testing::ManualClock,
    time::{Duration, OffsetDateTime},
};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use sqlx::{Postgres, Sqlite};
use tower_sessions::session::{Id, Record};

use crate::{
    browser::{Answer, send},
    engines::{Database, Engine},
};

const ROWS: i64 = 1000;

/// What tower-sessions-sqlx-store makes: the statements of its `migrate`.
const SQLITE: &str = "create table if not exists tower_sessions
    (id text primary key not null, data blob not null, expiry_date integer not null)";
const POSTGRES: &str = "create schema if not exists \"tower_sessions\";
    create table if not exists \"tower_sessions\".\"session\"
    (id text primary key not null, data bytea not null, expiry_date timestamptz not null)";

fn data(number: i64) -> Value {
    json!({"number": number, "text": "é \" \\ 日 🙂", "list": [null, true, {"deep": [number]}]})
}

/// Inserts rows as the store of tower-sessions writes them. Returns the ids as their cookies hold them.
async fn insert<E: Engine>(database: &Database<E>, table: &str, end: &str) -> Vec<String> {
    let in_an_hour = OffsetDateTime::now_utc() + Duration::HOUR;
    let mut sql = format!("insert into {table} (id, data, expiry_date) values ");
    let mut ids = Vec::new();
    for number in 0..ROWS {
        let id = Id::default();
        let data = data(number).as_object().unwrap().clone();
        let record = Record { id, data: data.into_iter().collect(), expiry_date: in_an_hour };
        let hex =
            rmp_serde::to_vec(&record).unwrap().iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
        let comma = if number == 0 { "" } else { ", " };
        write!(sql, "{comma}('{id}', {}, {end})", E::blob(&hex)).unwrap();
        ids.push(id.to_string());
    }
    database.execute(&sql).await;
    ids
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

async fn ask(app: &Router, id: &str) -> Answer {
    send(app, Request::get("/").header(header::COOKIE, format!("id={id}"))).await
}

async fn rows_move(table: impl Fn() -> Box<dyn OldRows>, ids: &[String]) {
    let (app, clock) = site(Rows(table()));
    for (id, number) in ids.iter().zip(0..) {
        let answer = ask(&app, id).await;
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), data(number));
    }
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(ask(&app, &ids[0]).await.body, "null", "a replay");
    assert_eq!(ask(&app, &Id::default().to_string()).await.body, "null", "an unknown id");
    for id in ["", "'", "AAAA", "' or 1=1 --"] {
        assert_eq!(ask(&app, id).await.body, "null", "{id}");
    }
    let (app, clock) = site(Rows(table()));
    clock.advance(std::time::Duration::from_secs(60 * 60));
    assert_eq!(ask(&app, &ids[0]).await.body, "null", "expired");
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
    database.execute(SQLITE).await;
    let ids = insert(&database, "tower_sessions", "4000000000").await;
    rows_move(|| Box::new(TowerTable::sqlite(database.pool.clone())), &ids).await;
}

#[tokio::test]
async fn rows_of_tower_sessions_in_postgres_move() {
    let Some(database) = Database::<Postgres>::fresh().await else { return };
    database.execute(POSTGRES).await;
    let table = "tower_sessions.session";
    let ids = insert(&database, table, "now() + interval '1 hour'").await;
    rows_move(|| Box::new(TowerTable::postgres(database.pool.clone())), &ids).await;
}

#[tokio::test]
async fn a_table_that_cannot_be_asked_signs_nobody_out() {
    let Some(database) = Database::<Sqlite>::fresh().await else { return };
    let (app, _) = site(TowerTable::sqlite(database.pool.clone()).named("missing"));
    let answer = ask(&app, &Id::default().to_string()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
