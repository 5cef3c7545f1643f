//! What other session libraries do where the comparison in README.md says so.
//!
//! `cargo test --manifest-path benches/Cargo.toml --test others`. `koa/` has the same for koa-session.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpResponse, dev::Service, test as actix};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    routing::{get, post},
};
use http::{HeaderMap, Request, StatusCode, header};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// Holds requests that have loaded their session until the test lets them write.
#[derive(Clone)]
struct Gate(Arc<(Semaphore, Semaphore)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((Semaphore::new(0), Semaphore::new(0))))
    }

    /// Called by a handler between loading and writing.
    async fn pass(&self) {
        self.0.0.add_permits(1);
        self.0.1.acquire().await.unwrap().forget();
    }

    async fn wait_for(&self, requests: u32) {
        self.0.0.acquire_many(requests).await.unwrap().forget();
    }

    fn open_for(&self, requests: usize) {
        self.0.1.add_permits(requests);
    }
}

/// An application with the routes `POST /start`, `POST /set/{field}`, `POST /sign-out` and `GET /fields`.
trait App {
    /// Sends a request with the cookie, and returns the status, the cookie of the response and the body.
    async fn send(&self, request: &str, cookie: &str) -> (StatusCode, String, String);
}

impl App for Router {
    async fn send(&self, request: &str, cookie: &str) -> (StatusCode, String, String) {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
        let response = self.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, cookie) = (response.status(), cookie_of(response.headers()));
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, cookie, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn cookie_of(headers: &HeaderMap) -> String {
    let cookies = headers.get_all(header::SET_COOKIE).iter();
    let pairs =
        cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
    pairs.collect::<Vec<_>>().join("; ")
}

/// The fields that are left when two requests load a session at once, each on a node of its own, and each sets a
/// field of its own.
async fn two_changes_at_once(nodes: &[impl App; 2], gate: &Gate) -> String {
    let [first, second] = nodes;
    let (_, cookie, _) = first.send("POST /start", "").await;
    let open = async {
        gate.wait_for(2).await;
        gate.open_for(2);
    };
    let (a, b, ()) =
        tokio::join!(first.send("POST /set/a", &cookie), second.send("POST /set/b", &cookie), open);
    assert!(a.0.is_success() && b.0.is_success(), "{a:?} {b:?}");
    first.send("GET /fields", &cookie).await.2
}

/// The fields that a browser sees when a request loads a session, the user signs out, and the request sets a field.
async fn change_during_sign_out(nodes: &[impl App; 2], gate: &Gate) -> String {
    let [first, second] = nodes;
    let (_, cookie, _) = first.send("POST /start", "").await;
    let sign_out = async {
        gate.wait_for(1).await;
        let signed_out = second.send("POST /sign-out", &cookie).await;
        gate.open_for(1);
        signed_out
    };
    let (change, signed_out) = tokio::join!(first.send("POST /set/a", &cookie), sign_out);
    assert!(signed_out.0.is_success(), "{signed_out:?}");
    let cookie = if change.1.is_empty() { cookie } else { change.1 };
    second.send("GET /fields", &cookie).await.2
}

mod ours {
    use axum_typed_session::{MemoryStore, Session, SessionCommit, SessionError, SessionManager};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    struct Fields {
        user: u32,
        a: u32,
        b: u32,
    }

    #[derive(Clone, axum::extract::FromRef)]
    struct AppState {
        sessions: SessionManager<Fields>,
        gate: Gate,
    }

    async fn start(mut session: Session<Fields>) -> Result<SessionCommit, SessionError> {
        session.user = 1;
        session.commit().await
    }

    async fn set(
        State(gate): State<Gate>,
        Path(field): Path<String>,
        mut session: Session<Fields>,
    ) -> Result<SessionCommit, SessionError> {
        gate.pass().await;
        match field.as_str() {
            "a" => session.a = 1,
            _ => session.b = 1,
        }
        session.commit().await
    }

    async fn sign_out(mut session: Session<Fields>) -> Result<SessionCommit, SessionError> {
        session.destroy();
        session.commit().await
    }

    async fn fields(session: Session<Fields>) -> Result<(SessionCommit, String), SessionError> {
        let fields = [(session.user, "user"), (session.a, "a"), (session.b, "b")];
        let set = fields.iter().filter(|field| field.0 == 1).map(|field| field.1);
        let body = set.collect::<Vec<_>>().join(" ");
        Ok((session.commit().await?, body))
    }

    fn nodes(gate: &Gate) -> [Router; 2] {
        let store = Arc::new(MemoryStore::new());
        [node(gate, store.clone()), node(gate, store)]
    }

    fn node(gate: &Gate, store: Arc<MemoryStore>) -> Router {
        let sessions = SessionManager::builder().store(store).build().unwrap();
        Router::new()
            .route("/start", post(start))
            .route("/set/{field}", post(set))
            .route("/sign-out", post(sign_out))
            .route("/fields", get(fields))
            .with_state(AppState { sessions, gate: gate.clone() })
    }

    #[tokio::test]
    async fn two_changes_at_once_are_both_kept() {
        let gate = Gate::new();
        assert_eq!(two_changes_at_once(&nodes(&gate), &gate).await, "user a b");
    }

    #[tokio::test]
    async fn a_session_stays_ended() {
        let gate = Gate::new();
        assert_eq!(change_during_sign_out(&nodes(&gate), &gate).await, "");
    }
}

mod tower_sessions {
    use ::tower_sessions::{MemoryStore, Session, SessionManagerLayer};

    use super::*;

    async fn start(session: Session) {
        session.insert("user", 1).await.unwrap();
    }

    async fn set(State(gate): State<Gate>, Path(field): Path<String>, session: Session) {
        assert_eq!(session.get::<u32>("user").await.unwrap(), Some(1));
        gate.pass().await;
        session.insert(&field, 1).await.unwrap();
    }

    async fn sign_out(session: Session) {
        session.flush().await.unwrap();
    }

    async fn fields(session: Session) -> String {
        let mut set = Vec::new();
        for field in ["user", "a", "b"] {
            set.extend(session.get::<u32>(field).await.unwrap().map(|_| field));
        }
        set.join(" ")
    }

    fn routes(gate: &Gate) -> Router {
        Router::new()
            .route("/start", post(start))
            .route("/set/{field}", post(set))
            .route("/sign-out", post(sign_out))
            .route("/fields", get(fields))
            .with_state(gate.clone())
    }

    fn nodes(gate: &Gate) -> [Router; 2] {
        let store = MemoryStore::default();
        [(); 2].map(|()| routes(gate).layer(SessionManagerLayer::new(store.clone())))
    }

    #[tokio::test]
    async fn of_two_changes_at_once_the_last_is_kept() {
        let gate = Gate::new();
        let left = two_changes_at_once(&nodes(&gate), &gate).await;
        assert!(left == "user a" || left == "user b", "{left}");
    }

    #[tokio::test]
    async fn a_request_in_flight_brings_an_ended_session_back() {
        let gate = Gate::new();
        assert_eq!(change_during_sign_out(&nodes(&gate), &gate).await, "user a");
    }

    #[tokio::test]
    async fn a_missing_layer_is_found_by_the_first_request() {
        let (status, ..) = routes(&Gate::new()).send("POST /start", "").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

mod axum_session {
    use ::axum_session::{SessionConfig, SessionLayer, SessionStore};
    use axum_session_redispool::{SessionRedisPool, SessionRedisSession as Session};

    use super::*;

    async fn start(session: Session) {
        session.set("user", 1);
    }

    async fn set(State(gate): State<Gate>, Path(field): Path<String>, session: Session) {
        assert_eq!(session.get::<u32>("user"), Some(1));
        gate.pass().await;
        session.set(&field, 1);
    }

    async fn sign_out(session: Session) {
        session.destroy();
    }

    async fn fields(session: Session) -> String {
        let set =
            ["user", "a", "b"].into_iter().filter(|field| session.get::<u32>(field).is_some());
        set.collect::<Vec<_>>().join(" ")
    }

    fn routes(gate: &Gate) -> Router {
        Router::new()
            .route("/start", post(start))
            .route("/set/{field}", post(set))
            .route("/sign-out", post(sign_out))
            .route("/fields", get(fields))
            .with_state(gate.clone())
    }

    async fn nodes(gate: &Gate, redis: &Redis) -> [Router; 2] {
        [node(gate, redis).await, node(gate, redis).await]
    }

    async fn node(gate: &Gate, redis: &Redis) -> Router {
        let pool = redis_pool::RedisPool::from(redis::Client::open(redis.url()).unwrap());
        let pool = Some(SessionRedisPool::from(pool));
        let store = SessionStore::new(pool, SessionConfig::default()).await.unwrap();
        routes(gate).layer(SessionLayer::new(store))
    }

    #[tokio::test]
    async fn of_two_changes_at_once_on_two_nodes_one_is_lost() {
        let (gate, redis) = (Gate::new(), Redis::start().await);
        let left = two_changes_at_once(&nodes(&gate, &redis).await, &gate).await;
        assert!(left == "user a" || left == "user b", "{left}");
    }

    #[tokio::test]
    async fn a_request_in_flight_on_another_node_brings_an_ended_session_back() {
        let (gate, redis) = (Gate::new(), Redis::start().await);
        let left = change_during_sign_out(&nodes(&gate, &redis).await, &gate).await;
        assert_eq!(left, "user a");
    }

    #[tokio::test]
    async fn a_missing_layer_is_found_by_the_first_request() {
        let (status, ..) = routes(&Gate::new()).send("POST /start", "").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

mod actix_session {
    use ::actix_session::{Session, SessionMiddleware, storage::RedisSessionStore};
    use actix_web::{
        App as ActixApp,
        body::MessageBody,
        cookie::Key,
        dev::ServiceResponse,
        web::{self, ServiceConfig},
    };

    use super::*;

    async fn start(session: Session) -> HttpResponse {
        session.insert("user", 1).unwrap();
        HttpResponse::Ok().finish()
    }

    async fn set(
        gate: web::Data<Gate>,
        field: web::Path<String>,
        session: Session,
    ) -> HttpResponse {
        assert_eq!(session.get::<u32>("user").unwrap(), Some(1));
        gate.pass().await;
        session.insert(field.into_inner(), 1).unwrap();
        HttpResponse::Ok().finish()
    }

    async fn sign_out(session: Session) -> HttpResponse {
        session.purge();
        HttpResponse::Ok().finish()
    }

    async fn fields(session: Session) -> String {
        let fields = ["user", "a", "b"].into_iter();
        let set = fields.filter(|field| session.get::<u32>(field).unwrap().is_some());
        set.collect::<Vec<_>>().join(" ")
    }

    fn routes(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) {
        let gate = web::Data::new(gate.clone());
        move |config| {
            config
                .app_data(gate)
                .route("/start", web::post().to(start))
                .route("/set/{field}", web::post().to(set))
                .route("/sign-out", web::post().to(sign_out))
                .route("/fields", web::get().to(fields));
        }
    }

    struct Actix<S>(S);

    impl<S, B> App for Actix<S>
    where
        S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
        B: MessageBody,
    {
        async fn send(&self, request: &str, cookie: &str) -> (StatusCode, String, String) {
            let (method, path) = request.split_once(' ').unwrap();
            let request = actix::TestRequest::with_uri(path)
                .method(method.parse().unwrap())
                .insert_header(("cookie", cookie));
            let response = actix::call_service(&self.0, request.to_request()).await;
            let status = StatusCode::from_u16(response.status().as_u16()).unwrap();
            let cookies = response.headers().get_all("set-cookie");
            let pairs = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
            let cookie = pairs.collect::<Vec<_>>().join("; ");
            let body = actix::read_body(response).await;
            (status, cookie, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    async fn store(redis: &Redis) -> RedisSessionStore {
        RedisSessionStore::new(redis.url()).await.unwrap()
    }

    // The type of a service cannot be written.
    macro_rules! node {
        ($gate:expr, $redis:expr, $key:expr) => {{
            let sessions = SessionMiddleware::new(store(&$redis).await, $key.clone());
            let app = ActixApp::new().wrap(sessions).configure(routes(&$gate));
            Actix(actix::init_service(app).await)
        }};
    }

    macro_rules! nodes {
        ($gate:expr, $redis:expr) => {{
            let key = Key::generate();
            [node!($gate, $redis, key), node!($gate, $redis, key)]
        }};
    }

    #[actix_web::test]
    async fn of_two_changes_at_once_the_last_is_kept() {
        let (gate, redis) = (Gate::new(), Redis::start().await);
        let left = two_changes_at_once(&nodes!(gate, redis), &gate).await;
        assert!(left == "user a" || left == "user b", "{left}");
    }

    #[actix_web::test]
    async fn a_request_in_flight_gives_an_ended_session_a_new_cookie() {
        let (gate, redis) = (Gate::new(), Redis::start().await);
        assert_eq!(change_during_sign_out(&nodes!(gate, redis), &gate).await, "user a");
    }

    #[actix_web::test]
    async fn a_missing_middleware_is_silent() {
        let app = Actix(actix::init_service(ActixApp::new().configure(routes(&Gate::new()))).await);
        let (status, cookie, _) = app.send("POST /start", "").await;
        assert_eq!((status, cookie.as_str()), (StatusCode::OK, ""));
    }
}

/// A Redis server of one test.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                "/tmp",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("install redis-server");
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, port }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
