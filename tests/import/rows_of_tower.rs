//! tower-sessions, whose data is in Redis.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Extension, Router, routing::get};
use axum_typed_session::{cookie::Key, import::TowerSessions};
use http::{Request, StatusCode, header};
use serde_json::{Map, Value, json};
use tower_sessions::{
    Expiry, SessionManagerLayer, SessionStore,
    cookie::time::Duration as TimeDuration,
    session::{Id, Record},
    session_store,
};

use crate::{
    browser::send,
    random_json::sessions,
    redis_server::Redis,
    seal,
    site::{
        Moved, Site, all, expect_all_move, expect_end_at_the_date, expect_found, expect_no_edits,
        expect_once,
    },
    tower_stores::TowerStore,
};

/// The rows of tower-sessions, written as its Redis store writes them: the id as text, and the record in `MessagePack`.
#[derive(Clone)]
struct Rows(Arc<Mutex<redis::Connection>>);

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

#[async_trait::async_trait]
impl SessionStore for Rows {
    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let bytes = rmp_serde::to_vec(record).unwrap();
        let mut set = redis::cmd("SET");
        set.arg(record.id.to_string()).arg(bytes);
        set.arg("EXAT").arg(record.expiry_date.unix_timestamp());
        set.exec(&mut *self.0.lock().unwrap()).unwrap();
        Ok(())
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let mut get = redis::cmd("GET");
        let row: Option<Vec<u8>> =
            get.arg(id.to_string()).query(&mut *self.0.lock().unwrap()).unwrap();
        Ok(row.map(|row| rmp_serde::from_slice(&row).unwrap()))
    }

    async fn delete(&self, _: &Id) -> session_store::Result<()> {
        Ok(())
    }
}

/// How the cookie of tower-sessions is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cookies {
    Plain,
    Signed,
    Private,
}

/// An application with tower-sessions. Its handler inserts the object that comes as an extension of the request, or
/// returns what the session has under the names that come.
fn tower(redis: &Redis, cookies: Cookies, key: &Key) -> Router {
    let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let layer = SessionManagerLayer::new(Rows(Arc::new(Mutex::new(connection))))
        .with_path("/")
        .with_expiry(Expiry::OnInactivity(TimeDuration::hours(1)));
    let app = Router::new().route("/", get(insert).post(names));
    match cookies {
        Cookies::Plain => app.layer(layer),
        Cookies::Signed => app.layer(layer.with_signed(key.clone())),
        Cookies::Private => app.layer(layer.with_private(key.clone())),
    }
}

async fn insert(session: tower_sessions::Session, fields: Extension<Value>) {
    for (name, value) in fields.as_object().unwrap() {
        session.insert(name, value).await.unwrap();
    }
}

async fn names(session: tower_sessions::Session, fields: Extension<Value>) -> String {
    let mut data = Map::new();
    for name in fields.as_object().unwrap().keys() {
        data.insert(name.clone(), session.get_value(name).await.unwrap().unwrap_or_default());
    }
    Value::from(data).to_string()
}

/// Signs a visitor in with tower-sessions for each of these data. Returns the `Cookie` headers.
async fn sign_in(app: &Router, data: &[Value]) -> Vec<String> {
    let mut headers = Vec::new();
    for data in data {
        let answer = send(app, Request::get("/").extension(data.clone())).await;
        let answer = answer.expect_status(StatusCode::OK);
        headers.push(answer.set_cookie().split(';').next().unwrap().to_owned());
    }
    headers
}

/// The cookie of this id, written by these tests.
fn sealed(cookies: Cookies, key: &Key, id: i128) -> String {
    let id = seal::id_of_tower(id);
    let value = match cookies {
        Cookies::Plain => id,
        Cookies::Signed => seal::signed_by_jar(key, &id),
        Cookies::Private => seal::encrypted_by_jar(key, "id", &id),
    };
    format!("id={}", seal::encoded(&value))
}

fn reader(redis: &Redis, cookies: Cookies, key: &Key) -> TowerSessions<Moved> {
    let old = TowerSessions::new(redis.store(), all);
    match cookies {
        Cookies::Plain => old,
        Cookies::Signed => old.signed(key.clone()),
        Cookies::Private => old.private(key.clone()),
    }
}

const ALL: [Cookies; 3] = [Cookies::Plain, Cookies::Signed, Cookies::Private];

#[tokio::test]
async fn sessions_of_tower_sessions_move() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (sessions(1000), Key::generate());
    for cookies in ALL {
        let headers = sign_in(&tower(&redis, cookies, &key), &data).await;
        let site = |key: &Key| Site::new(reader(&redis, cookies, key));
        expect_all_move(&site(&key), &headers, &data).await;
        let honest: Vec<_> = percent_encoding::percent_decode_str(&headers[0]).collect();
        let is_same = |edited: &str| {
            percent_encoding::percent_decode_str(edited).collect::<Vec<_>>() == honest
        };
        if cookies == Cookies::Plain {
            assert_eq!(site(&key).moved("id=AAAAAAAAAAAAAAAAAAAAAA").await, None);
        } else {
            assert_eq!(site(&Key::generate()).moved(&*headers[0]).await, None);
        }
        expect_no_edits(&site(&key), &headers[0], is_same).await;
        expect_once(&site(&key), &headers[1]).await;
        expect_end_at_the_date(&site(&key), &headers[1]).await;
        let late = site(&key);
        late.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(late.moved(&*headers[2]).await, None, "expired");
    }
}

#[tokio::test]
async fn tower_sessions_reads_what_these_tests_write() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (sessions(1000), Key::generate());
    let ids: Vec<i128> = data.iter().map(|_| rand::random()).collect();
    let mut rows = redis::pipe();
    for (id, data) in ids.iter().zip(&data) {
        rows.set_ex(seal::id_of_tower(*id), seal::row_of_tower(*id, data), 3600);
    }
    redis.ask_all(&rows);
    for cookies in ALL {
        let headers: Vec<_> = ids.iter().map(|id| sealed(cookies, &key, *id)).collect();
        let app = tower(&redis, cookies, &key);
        for (header, data) in headers.iter().zip(&data) {
            let request = Request::post("/").header(header::COOKIE, header);
            let answer = send(&app, request.extension(data.clone())).await;
            assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), *data);
        }
    }
}

#[tokio::test]
async fn rows_of_its_own_redis_store_move() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (sessions(1000), Key::generate());
    let store = TowerStore { kind: "redis", url: redis.url() };
    let headers = store.sign_in(&data);
    let site = || Site::new(reader(&redis, Cookies::Plain, &key));
    expect_all_move(&site(), &headers, &data).await;
    expect_once(&site(), &headers[1]).await;
    let late = site();
    late.clock.advance(Duration::from_secs(60 * 60));
    assert_eq!(late.moved(&*headers[2]).await, None, "expired");

    let ids: Vec<i128> = data.iter().map(|_| rand::random()).collect();
    let mut rows = redis::pipe();
    for (id, data) in ids.iter().zip(&data) {
        rows.set_ex(seal::id_of_tower(*id), seal::row_of_tower(*id, data), 3600);
    }
    redis.ask_all(&rows);
    let headers: Vec<_> = ids.iter().map(|id| sealed(Cookies::Plain, &key, *id)).collect();
    expect_found(&store.read(&headers, &data), &data, 0);
}

#[tokio::test]
async fn a_redis_that_is_down_signs_nobody_out() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (vec![json!({"user": 1})], Key::generate());
    let headers = sign_in(&tower(&redis, Cookies::Plain, &key), &data).await;
    let site = Site::new(reader(&redis, Cookies::Plain, &key));
    drop(redis);
    let answer = site.get(&*headers[0]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.set_cookies().is_empty());
}
