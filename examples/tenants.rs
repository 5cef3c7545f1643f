//! Several tenants in one application, told apart by the host name.
//!
//! A middleware finds the tenant of each request and answers 404 where there is none. The session manager then takes
//! the store, the audience and the cookie of that tenant. A session of one tenant is nothing to another tenant, even
//! if a client sends its cookie there.
//!
//! An operator ends all sessions of a user at one tenant. This job belongs to no request, so it makes a request for
//! the tenant and asks the manager with `for_request`.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! INSECURE_HTTP=1 cargo run --example tenants
//! ```
//!
//! curl sends Secure cookies over http only to the host `localhost`, so these commands need `INSECURE_HTTP=1`. In a
//! second terminal:
//!
//! ```text
//! curl -c jar -b jar -d name=ann http://acme.localhost:3000/login
//! curl -c jar -b jar http://acme.localhost:3000/
//! curl http://other.localhost:3000/
//!
//! # The cookie of acme, sent to globex by hand.
//! COOKIE=$(awk '$6 == "session" { print $7 }' jar)
//! curl -b "session=$COOKIE" http://acme.localhost:3000/
//! curl -b "session=$COOKIE" http://globex.localhost:3000/
//!
//! # The operator's job, on a listener of its own.
//! curl -X POST http://127.0.0.1:3001/acme/sign-out/ann
//! curl -c jar -b jar http://acme.localhost:3000/
//! ```
//!
//! `PORT` and `ADMIN_PORT` set the ports.

use std::{collections::HashMap, env, error::Error, sync::Arc};

use axum::{
    Extension, Form, Router,
    extract::{FromRef, Path, Request, State},
    http::{StatusCode, header, request::Parts, uri::Authority},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_typed_session::{
    KeyRing, MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder,
    SessionStore, StoreError,
    cookie::{Cookie, SameSite},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
}

#[derive(Clone)]
struct Tenant {
    name: String,
    host: String,
    /// A store for each tenant suits tenants that have a database each. In one store for all of them the audience
    /// keeps their sessions apart.
    store: Arc<dyn SessionStore>,
    cookie: Cookie<'static>,
}

impl Tenant {
    fn new(name: &str, cookie: impl Into<Cookie<'static>>) -> Self {
        Self {
            name: name.to_owned(),
            host: format!("{name}.localhost"),
            store: Arc::new(MemoryStore::new()),
            cookie: cookie.into(),
        }
    }
}

/// The tenants by their names. A real program reads them from its configuration.
type Tenants = Arc<HashMap<String, Tenant>>;

fn tenants() -> Tenants {
    let acme = Tenant::new("acme", Cookie::new("__Host-session", ""));
    let globex = Cookie::build("__Host-session").same_site(SameSite::Strict);
    let globex = Tenant::new("globex", globex);
    Arc::new([acme, globex].into_iter().map(|tenant| (tenant.name.clone(), tenant)).collect())
}

#[derive(Clone, FromRef)]
struct AppState {
    sessions: SessionManager<Login>,
    tenants: Tenants,
}

/// Puts the tenant of a request into its extensions.
async fn find_tenant(State(tenants): State<Tenants>, mut request: Request, next: Next) -> Response {
    let host = host(&request);
    let tenant = tenants.values().find(|tenant| Some(&tenant.host) == host.as_ref());
    let Some(tenant) = tenant.cloned() else {
        return (StatusCode::NOT_FOUND, "there is no such tenant\n").into_response();
    };
    request.extensions_mut().insert(tenant);
    next.run(request).await
}

/// Returns the host without its port. HTTP/2 has it in the URI, HTTP/1 in a header.
fn host(request: &Request) -> Option<String> {
    let header = request.headers().get(header::HOST);
    let header = header.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = request.uri().authority().cloned().or(header)?;
    Some(authority.host().to_ascii_lowercase())
}

fn tenant_of(request: &Parts) -> Option<&Tenant> {
    request.extensions.get()
}

/// A request that `find_tenant` has not seen is an error: it has no store, and an empty audience is refused.
fn sessions(keys: impl Into<KeyRing>) -> SessionManagerBuilder<Login> {
    SessionManager::builder()
        .keys(keys)
        .store_for(|request| {
            let tenant = tenant_of(request).ok_or("the request has no tenant");
            Ok(tenant.map_err(StoreError::unavailable)?.store.clone())
        })
        .audience_for(|request| {
            tenant_of(request).map(|tenant| tenant.name.clone()).unwrap_or_default()
        })
        .cookie_for(|request| {
            let cookie = tenant_of(request).map(|tenant| tenant.cookie.clone());
            cookie.unwrap_or(Cookie::new("__Host-session", ""))
        })
        .owner(|login: &Login| login.user.clone())
}

async fn index(
    Extension(tenant): Extension<Tenant>,
    session: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    let user = session.user.as_deref().unwrap_or("nobody");
    let body = format!("{}: {user} is signed in\n", tenant.name);
    Ok((session.commit().await?, body))
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
}

/// Check the password here. The example `login` shows how.
async fn login(
    mut session: Session<Login>,
    Form(credentials): Form<Credentials>,
) -> Result<impl IntoResponse, SessionError> {
    let body = format!("hello {}\n", credentials.name);
    session.user = Some(credentials.name);
    session.regenerate();
    Ok((session.commit().await?, body))
}

/// Ends every session that a user has at one tenant, and returns how many it ended.
async fn sign_out_everywhere(
    sessions: &SessionManager<Login>,
    tenant: &Tenant,
    user: &str,
) -> Result<u64, SessionError> {
    // `store_for`, `audience_for` and `cookie_for` look at this request.
    let (mut request, ()) = Request::new(()).into_parts();
    request.extensions.insert(tenant.clone());
    sessions.for_request(&request)?.destroy_all_of(user).await
}

/// Deletes what has expired at every tenant. The store alone decides what that is, so `with_store` is enough.
async fn delete_expired(
    sessions: &SessionManager<Login>,
    tenants: &Tenants,
) -> Result<u64, SessionError> {
    let mut deleted = 0;
    for tenant in tenants.values() {
        let sessions = sessions.with_store(tenant.store.clone());
        deleted += sessions.delete_expired(1_000).await?;
    }
    Ok(deleted)
}

async fn admin_sign_out(
    State(state): State<AppState>,
    Path((tenant, user)): Path<(String, String)>,
) -> Result<Response, SessionError> {
    let Some(tenant) = state.tenants.get(&tenant) else {
        return Ok((StatusCode::NOT_FOUND, "there is no such tenant\n").into_response());
    };
    let ended = sign_out_everywhere(&state.sessions, tenant, &user).await?;
    Ok(format!("sessions ended: {ended}\n").into_response())
}

async fn admin_delete_expired(State(state): State<AppState>) -> Result<String, SessionError> {
    let deleted = delete_expired(&state.sessions, &state.tenants).await?;
    Ok(format!("expired sessions deleted: {deleted}\n"))
}

fn app(state: AppState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/login", post(login))
        .layer(from_fn_with_state(state.clone(), find_tenant))
        .with_state(state)
}

/// Nobody but operators may reach these routes, so they have a listener of their own.
fn admin(state: AppState) -> Router {
    Router::new()
        .route("/{tenant}/sign-out/{user}", post(admin_sign_out))
        .route("/delete-expired", post(admin_delete_expired))
        .layer(from_fn(refuse_pages))
        .with_state(state)
}

/// A page of any site in the browser of an operator can post to this listener. Browsers say so with `Origin`.
async fn refuse_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return StatusCode::FORBIDDEN.into_response();
    }
    next.run(request).await
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("tenants: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let sessions = sessions(KeyRing::from_env("SESSION_KEY")?)
        .insecure_http(env::var("INSECURE_HTTP").is_ok_and(|value| value == "1"))
        .build()?;
    let state = AppState { sessions, tenants: tenants() };
    let listener = listen("PORT", 3000).await?;
    let admin_listener = listen("ADMIN_PORT", 3001).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("operators on http://{}", admin_listener.local_addr()?);
    tokio::try_join!(
        axum::serve(listener, app(state.clone())).into_future(),
        axum::serve(admin_listener, admin(state)).into_future(),
    )?;
    Ok(())
}

async fn listen(variable: &str, default: u16) -> Result<TcpListener, Box<dyn Error>> {
    let port = match env::var(variable) {
        Ok(port) => {
            port.parse().map_err(|_| format!("{variable} must be a number from 0 to 65535"))?
        }
        Err(_) => default,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    Ok(listener
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set {variable}"))?)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderMap};
    use axum_typed_session::Key;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    const ACME: &str = "acme.localhost:3000";
    const GLOBEX: &str = "globex.localhost:3000";

    fn state() -> AppState {
        let sessions = sessions(Key::generate()).build();
        AppState { sessions: sessions.unwrap(), tenants: tenants() }
    }

    struct Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: String,
    }

    async fn send(app: Router, request: Request) -> Answer {
        let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let body = String::from_utf8(body).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn read(state: &AppState, host: &str, cookie: &str) -> Answer {
        let request = Request::get("/").header(header::HOST, host).header(header::COOKIE, cookie);
        send(app(state.clone()), request.body(Body::empty()).unwrap()).await
    }

    /// Returns `Set-Cookie`.
    async fn log_in(state: &AppState, host: &str) -> String {
        let request = Request::post("/login")
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from("name=ann"));
        let answer = send(app(state.clone()), request.unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned()
    }

    fn pair(set_cookie: &str) -> &str {
        set_cookie.split(';').next().unwrap()
    }

    async fn operate(state: &AppState, path: &str) -> Answer {
        send(admin(state.clone()), Request::post(path).body(Body::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn no_page_of_a_browser_operates() {
        let state = state();
        let set_cookie = log_in(&state, ACME).await;
        let request = Request::post("/acme/sign-out/ann").header("origin", "https://evil.example");
        let answer = send(admin(state.clone()), request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(read(&state, ACME, pair(&set_cookie)).await.body, "acme: ann is signed in\n");
    }

    #[tokio::test]
    async fn a_session_of_one_tenant_is_nothing_to_another() {
        let state = state();
        let set_cookie = log_in(&state, ACME).await;
        let cookie = pair(&set_cookie);
        assert_eq!(read(&state, ACME, cookie).await.body, "acme: ann is signed in\n");
        assert_eq!(read(&state, GLOBEX, cookie).await.body, "globex: nobody is signed in\n");
    }

    #[tokio::test]
    async fn every_tenant_has_its_own_cookie() {
        let state = state();
        assert!(log_in(&state, ACME).await.contains("SameSite=Lax"));
        assert!(log_in(&state, GLOBEX).await.contains("SameSite=Strict"));
    }

    #[tokio::test]
    async fn an_unknown_tenant_is_404() {
        for host in ["other.localhost", "acme.localhost.evil.example", "localhost", "?"] {
            let answer = read(&state(), host, "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}");
        }
    }

    #[tokio::test]
    async fn host_names_are_compared_without_case_and_port() {
        let answer = read(&state(), "ACME.localhost:8080", "").await;
        assert_eq!(answer.body, "acme: nobody is signed in\n");
    }

    #[tokio::test]
    async fn an_operator_ends_the_sessions_of_one_tenant_alone() {
        let state = state();
        let (acme, globex) = (log_in(&state, ACME).await, log_in(&state, GLOBEX).await);
        assert_eq!(operate(&state, "/acme/sign-out/ann").await.body, "sessions ended: 1\n");
        assert_eq!(read(&state, ACME, pair(&acme)).await.body, "acme: nobody is signed in\n");
        assert_eq!(read(&state, GLOBEX, pair(&globex)).await.body, "globex: ann is signed in\n");
        let unknown = operate(&state, "/other/sign-out/ann").await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn live_sessions_of_every_tenant_outlast_the_deletion_of_expired_ones() {
        let state = state();
        let cookie = log_in(&state, ACME).await;
        let answer = operate(&state, "/delete-expired").await;
        assert_eq!(answer.body, "expired sessions deleted: 0\n");
        assert_eq!(read(&state, ACME, pair(&cookie)).await.body, "acme: ann is signed in\n");
    }

    #[tokio::test]
    async fn without_the_middleware_no_session_is_made() {
        let app = Router::new().route("/login", post(login)).with_state(state());
        let request = Request::post("/login")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from("name=ann"));
        let answer = send(app, request.unwrap()).await;
        assert!(answer.status.is_server_error(), "{}", answer.status);
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
}
