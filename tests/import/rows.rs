//! express-session and tower-sessions, whose data is in Redis.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use axum_typed_session::{
    RedisStore,
    cookie::Key,
    import::{ExpressSessions, TowerSessions},
};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower_sessions::{
    Expiry, SessionManagerLayer, SessionStore,
    cookie::time::Duration as TimeDuration,
    session::{Id, Record},
    session_store,
};

use crate::{
    browser::send,
    node::{Options, sessions, sign_in},
    servers::{self, Server, comes_true, find, free_port},
    site::{Site, all, expect_all_move, expect_no_edits, expect_once},
};

/// A Redis server of one test.
struct Redis {
    port: u16,
    _server: Server,
}

impl Redis {
    fn start() -> Option<Self> {
        let program = find("redis-server", "import")?;
        let (port, folder) = (free_port(0), servers::folder("import"));
        let at = port.to_string();
        let arguments = ["--bind", "127.0.0.1", "--save", "", "--port", &at];
        let server = Server::start(&folder, &program.display().to_string(), &arguments).unwrap();
        let redis = Self { port, _server: server };
        let ping = || redis.try_ask::<String>(&redis::cmd("PING")).is_ok();
        assert!(comes_true(ping), "redis-server does not answer");
        Some(redis)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_ask<R: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<R> {
        command.query(&mut redis::Client::open(self.url())?.get_connection()?)
    }

    fn ask<R: redis::FromRedisValue>(&self, command: &redis::Cmd) -> R {
        self.try_ask(command).unwrap()
    }

    fn store(&self) -> RedisStore {
        RedisStore::connect_lazy(self.url()).unwrap()
    }
}

fn express(redis: &Redis, secret: &str) -> ExpressSessions<crate::site::Moved> {
    ExpressSessions::new(redis.store(), ["newest", secret], all)
}

#[tokio::test]
async fn sessions_of_express_session_move() {
    let Some(redis) = Redis::start() else { return };
    let (data, url) = (sessions(1000), redis.url());
    let options =
        Options { format: "express", keys: &["new", "old"], max_age: "3600000", redis: Some(&url) };
    let Some(headers) = sign_in(&options, &data) else { return };
    expect_all_move(&Site::new(express(&redis, "new")), &headers, &data).await;
    for secret in ["other", ""] {
        let site = Site::new(express(&redis, secret));
        assert_eq!(site.moved(&*headers[0]).await, None);
    }
    let decoded =
        |text: &str| text.replace("%3a", "%3A").replace("%2b", "%2B").replace("%2f", "%2F");
    let is_same = |edited: &str| decoded(edited) == headers[0];
    expect_no_edits(&Site::new(express(&redis, "new")), &headers[0], is_same).await;
    expect_once(&Site::new(express(&redis, "new")), &headers[1]).await;

    // Its row has ended, or has an hour left.
    let row = |header: &str| {
        let id = header.strip_prefix("connect.sid=s%3A").unwrap().split('.').next().unwrap();
        format!("sess:{id}")
    };
    let site = Site::new(express(&redis, "new"));
    site.clock.advance(Duration::from_secs(2 * 60 * 60));
    redis.ask::<()>(redis::cmd("DEL").arg(row(&headers[2])));
    assert_eq!(site.moved(&*headers[2]).await, None);
    // A row without an end of its own ends at the date in it.
    redis.ask::<()>(redis::cmd("PERSIST").arg(row(&headers[3])));
    assert_eq!(site.moved(&*headers[3]).await, None);
    let site = Site::new(express(&redis, "new"));
    assert!(site.moved(&*headers[3]).await.is_some());
    // Not signed, or not with an id.
    for cookies in ["connect.sid=s%3A.", "connect.sid=s%3Aid", "connect.sid=id", "connect.sid=s:"] {
        assert_eq!(site.moved(cookies).await, None, "{cookies}");
    }
}

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

    async fn load(&self, _: &Id) -> session_store::Result<Option<Record>> {
        Ok(None)
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

/// Signs a visitor in with tower-sessions for each of these data. Returns the `Cookie` headers.
async fn sign_in_at_tower(
    redis: &Redis,
    cookies: Cookies,
    key: &Key,
    data: &[Value],
) -> Vec<String> {
    let insert = async |session: tower_sessions::Session, fields: axum::Extension<Value>| {
        for (name, value) in fields.as_object().unwrap() {
            session.insert(name, value).await.unwrap();
        }
    };
    let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let layer = SessionManagerLayer::new(Rows(Arc::new(Mutex::new(connection))))
        .with_path("/")
        .with_expiry(Expiry::OnInactivity(TimeDuration::hours(1)));
    let app = Router::new().route("/", get(insert));
    let app = match cookies {
        Cookies::Plain => app.layer(layer),
        Cookies::Signed => app.layer(layer.with_signed(key.clone())),
        Cookies::Private => app.layer(layer.with_private(key.clone())),
    };
    let mut headers = Vec::new();
    for data in data {
        let answer = send(&app, Request::get("/").extension(data.clone())).await;
        let answer = answer.expect_status(StatusCode::OK);
        headers.push(answer.set_cookie().split(';').next().unwrap().to_owned());
    }
    headers
}

#[tokio::test]
async fn sessions_of_tower_sessions_move() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (sessions(1000), Key::generate());
    for cookies in [Cookies::Plain, Cookies::Signed, Cookies::Private] {
        let headers = sign_in_at_tower(&redis, cookies, &key, &data).await;
        let reader = |key: &Key| {
            let old = TowerSessions::new(redis.store(), all);
            match cookies {
                Cookies::Plain => old,
                Cookies::Signed => old.signed(key.clone()),
                Cookies::Private => old.private(key.clone()),
            }
        };
        expect_all_move(&Site::new(reader(&key)), &headers, &data).await;
        let honest: Vec<_> = percent_encoding::percent_decode_str(&headers[0]).collect();
        let is_same = |edited: &str| {
            percent_encoding::percent_decode_str(edited).collect::<Vec<_>>() == honest
        };
        if cookies == Cookies::Plain {
            assert_eq!(Site::new(reader(&key)).moved("id=AAAAAAAAAAAAAAAAAAAAAA").await, None);
        } else {
            let site = Site::new(reader(&Key::generate()));
            assert_eq!(site.moved(&*headers[0]).await, None);
            expect_no_edits(&Site::new(reader(&key)), &headers[0], is_same).await;
        }
        expect_once(&Site::new(reader(&key)), &headers[1]).await;
        let site = Site::new(reader(&key));
        site.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(site.moved(&*headers[2]).await, None, "expired");
    }
}

#[tokio::test]
async fn a_redis_that_is_down_signs_nobody_out() {
    let Some(redis) = Redis::start() else { return };
    let (data, key) = (vec![json!({"user": 1})], Key::generate());
    let headers = sign_in_at_tower(&redis, Cookies::Plain, &key, &data).await;
    let site = Site::new(TowerSessions::new(redis.store(), all));
    drop(redis);
    let answer = site.get(&*headers[0]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.set_cookies().is_empty());
}
