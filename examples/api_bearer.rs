//! A JSON API whose clients send `Authorization: Bearer`.
//!
//! A login begins a session. The response carries its token in the header `X-Session-Token`, and the client sends the
//! token as `Authorization: Bearer ..` from then on. `/refresh` replaces the token and `/logout` ends it. A request
//! without a valid token gets 401 and a JSON body from the extractor [`SignedIn`].
//!
//! A user can also make personal access tokens for scripts, and revoke each of them by its key.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example api_bearer
//! ```
//!
//! In a second terminal:
//!
//! ```text
//! TOKEN=$(curl -s --json '{"name":"ann"}' -o /dev/null -w '%header{x-session-token}' http://127.0.0.1:3000/login)
//! api() { curl -s -w '\n' -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:3000$@"; }
//! api /me
//! curl -w '\n' http://127.0.0.1:3000/me
//!
//! # A new token. The old one opens nothing any more.
//! OLD=$TOKEN
//! TOKEN=$(api /refresh -X POST -w '%header{x-session-token}')
//! api /me
//! curl -w '\n' -H "Authorization: Bearer $OLD" http://127.0.0.1:3000/me
//!
//! # A token for a script, and its end.
//! api /tokens --json '{"name":"backup"}'
//! api /tokens
//! KEY=$(api /tokens | sed 's/.*"key":"\([^"]*\)".*/\1/')
//! api "/tokens/$KEY" -X DELETE
//! api /tokens
//!
//! api /logout -X POST
//! api /me
//! ```
//!
//! This program asks for no password. The example `login` shows how to check it. `PORT` sets the port.

use std::{env, error::Error, time::Duration};

use axum::{
    Json, RequestPartsExt as _, Router,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use axum_typed_session::{
    ConfigError, KeyRing, MemoryStore, ProvidesSessions, Session, SessionCommit, SessionError,
    SessionManager, StoreKey, Transport,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    /// The name of a personal access token; `None` for a session that began with a login.
    token_name: Option<String>,
}

/// The session of a user. If nobody is signed in, the extractor answers 401.
struct SignedIn {
    user: String,
    session: Session<Login>,
}

impl<S: ProvidesSessions<Login>> FromRequestParts<S> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let session = parts.extract_with_state::<Session<Login>, S>(state).await?;
        match session.user.clone() {
            Some(user) => Ok(Self { user, session }),
            None => Err(ApiError::SignedOut(session.commit().await?)),
        }
    }
}

/// An error as clients see it: a status and a JSON body.
enum ApiError {
    /// The guard says that the response depends on the session.
    SignedOut(SessionCommit),
    Session(SessionError),
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::SignedOut(commit) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                let body = Json(json!({ "error": "sign in first" }));
                (StatusCode::UNAUTHORIZED, challenge, commit, body).into_response()
            }
            Self::Session(error) => {
                let status = error.status();
                tracing::error!(error = &error as &dyn Error, "session error");
                let reason = status.canonical_reason().unwrap_or("error");
                (status, Json(json!({ "error": reason }))).into_response()
            }
        }
    }
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
}

/// Check the password here, before the session changes.
async fn login(
    mut session: Session<Login>,
    Json(credentials): Json<Credentials>,
) -> Result<impl IntoResponse, ApiError> {
    *session = Login { user: Some(credentials.name), token_name: None };
    session.regenerate();
    session.set_idle_timeout(HOUR);
    let body = about(&session);
    Ok((session.commit().await?, body))
}

async fn me(SignedIn { session, .. }: SignedIn) -> Result<impl IntoResponse, ApiError> {
    let body = about(&session);
    Ok((session.commit().await?, body))
}

fn about(session: &Session<Login>) -> Json<serde_json::Value> {
    Json(json!({
        "user": session.user,
        "token_name": session.token_name,
        "expires_at": session.expires_at().unix_timestamp(),
    }))
}

/// The response carries the new token in `X-Session-Token`. The data stays.
async fn refresh(SignedIn { mut session, .. }: SignedIn) -> Result<SessionCommit, ApiError> {
    session.regenerate();
    Ok(session.commit().await?)
}

async fn logout(SignedIn { mut session, .. }: SignedIn) -> Result<impl IntoResponse, ApiError> {
    session.destroy();
    Ok((StatusCode::NO_CONTENT, session.commit().await?, ()))
}

#[derive(Deserialize)]
struct NewToken {
    name: String,
}

/// `create` begins a session of its own beside the session of this request. The answer is the only place where its
/// token is ever shown.
async fn create_token(
    State(sessions): State<SessionManager<Login>>,
    SignedIn { user, session }: SignedIn,
    Json(new): Json<NewToken>,
) -> Result<impl IntoResponse, ApiError> {
    let created = sessions.create(Login { user: Some(user), token_name: Some(new.name) }).await?;
    let body = Json(json!({
        "token": created.token(),
        "key": created.key().to_base64url(),
        "name": created.token_name,
        "expires_at": created.expires_at().unix_timestamp(),
    }));
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, no_store, session.commit().await?, body))
}

async fn list_tokens(
    State(sessions): State<SessionManager<Login>>,
    SignedIn { user, session }: SignedIn,
) -> Result<impl IntoResponse, ApiError> {
    let all = sessions.sessions_of(&user).await?;
    let tokens = all.iter().filter(|session| session.token_name.is_some());
    let tokens = tokens.map(|token| {
        json!({
            "key": token.key().to_base64url(),
            "name": token.token_name,
            "expires_at": token.expires_at().unix_timestamp(),
        })
    });
    let body = Json(tokens.collect::<Vec<_>>());
    Ok((session.commit().await?, body))
}

/// `destroy_of` ends the session only if it belongs to this user.
async fn revoke_token(
    State(sessions): State<SessionManager<Login>>,
    SignedIn { user, session }: SignedIn,
    Path(key): Path<String>,
) -> Result<Response, ApiError> {
    let is_revoked = match key.parse::<StoreKey>() {
        Ok(key) => sessions.destroy_of(&user, key).await?,
        Err(_) => false,
    };
    let commit = session.commit().await?;
    Ok(if is_revoked {
        commit.wrap(StatusCode::NO_CONTENT)
    } else {
        commit.wrap((StatusCode::NOT_FOUND, Json(json!({ "error": "you have no such token" }))))
    })
}

/// A personal access token lives for 30 days. `login` gives its sessions a shorter idle timeout.
///
/// Logins and tokens of a user count together, and the oldest end first. So the limit is high enough that the logins of
/// a month end no token. The guide shows tokens with a type of their own, which logins cannot end at all.
fn sessions(keys: impl Into<KeyRing>) -> Result<SessionManager<Login>, ConfigError> {
    SessionManager::builder()
        .keys(keys)
        .store(MemoryStore::new())
        .transport(Transport::bearer())
        .owner(|login: &Login| login.user.clone())
        .idle_timeout(30 * 24 * HOUR)
        .max_sessions_per_owner(1_000)
        .build()
}

fn app(sessions: SessionManager<Login>) -> Router {
    Router::new()
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/refresh", post(refresh))
        .route("/logout", post(logout))
        .route("/tokens", get(list_tokens).post(create_token))
        .route("/tokens/{key}", delete(revoke_token))
        .with_state(sessions)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("api_bearer: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let app = app(sessions(KeyRing::from_env("SESSION_KEY")?)?);
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{HeaderMap, Method, Request},
    };
    use axum_typed_session::{Key, StoreError};
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    struct Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: Value,
    }

    impl Answer {
        /// The token that the client has to send from now on.
        #[track_caller]
        fn token(&self) -> String {
            self.headers["x-session-token"].to_str().unwrap().to_owned()
        }

        #[track_caller]
        fn text(&self, field: &str) -> String {
            self.body[field].as_str().unwrap().to_owned()
        }
    }

    fn api() -> Router {
        app(sessions(Key::generate()).unwrap())
    }

    async fn send(app: &Router, method: Method, path: &str, token: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn log_in(app: &Router, name: &str) -> String {
        let login = send(app, Method::POST, "/login", "", json!({ "name": name })).await;
        assert_eq!(login.status, StatusCode::OK);
        login.token()
    }

    async fn status_of(app: &Router, token: &str) -> StatusCode {
        send(app, Method::GET, "/me", token, Value::Null).await.status
    }

    #[tokio::test]
    async fn a_login_gives_a_token_that_opens_the_session() {
        let app = api();
        let token = log_in(&app, "ann").await;
        let me = send(&app, Method::GET, "/me", &token, Value::Null).await;
        assert_eq!((me.status, me.text("user")), (StatusCode::OK, "ann".to_owned()));
        assert!(!me.headers.contains_key("x-session-token"), "the token stays the same");
    }

    #[tokio::test]
    async fn a_request_without_a_session_is_401_in_json() {
        let app = api();
        let routes = [
            (Method::GET, "/me"),
            (Method::POST, "/refresh"),
            (Method::POST, "/logout"),
            (Method::GET, "/tokens"),
            (Method::POST, "/tokens"),
            (Method::DELETE, "/tokens/some-key"),
        ];
        for (method, path) in routes {
            let answer = send(&app, method, path, "forged", json!({ "name": "x" })).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer", "{path}");
            assert_eq!(answer.text("error"), "sign in first", "{path}");
        }
    }

    #[tokio::test]
    async fn a_refresh_replaces_the_token() {
        let app = api();
        let old = log_in(&app, "ann").await;
        let new = send(&app, Method::POST, "/refresh", &old, Value::Null).await.token();
        assert_eq!(status_of(&app, &old).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status_of(&app, &new).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_logout_ends_the_token() {
        let app = api();
        let token = log_in(&app, "ann").await;
        let logout = send(&app, Method::POST, "/logout", &token, Value::Null).await;
        assert_eq!((logout.status, &*logout.token()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(status_of(&app, &token).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_personal_token_outlives_the_login_until_it_is_revoked() {
        let app = api();
        let token = log_in(&app, "ann").await;
        let created =
            send(&app, Method::POST, "/tokens", &token, json!({ "name": "backup" })).await;
        assert_eq!(created.status, StatusCode::CREATED);
        assert_eq!(created.headers[header::CACHE_CONTROL], "no-store");
        let (personal, key) = (created.text("token"), created.text("key"));
        send(&app, Method::POST, "/logout", &token, Value::Null).await;

        let me = send(&app, Method::GET, "/me", &personal, Value::Null).await;
        assert_eq!([me.text("user"), me.text("token_name")], ["ann", "backup"]);

        let token = log_in(&app, "ann").await;
        let listed = send(&app, Method::GET, "/tokens", &token, Value::Null).await.body;
        assert_eq!(listed.as_array().unwrap().len(), 1, "logins are not listed: {listed}");
        assert_eq!(listed[0]["key"], key);

        let revoke = format!("/tokens/{key}");
        let revoked = send(&app, Method::DELETE, &revoke, &token, Value::Null).await;
        assert_eq!(revoked.status, StatusCode::NO_CONTENT);
        assert_eq!(status_of(&app, &personal).await, StatusCode::UNAUTHORIZED);
        let again = send(&app, Method::DELETE, &revoke, &token, Value::Null).await;
        assert_eq!(again.status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn nobody_revokes_the_token_of_another_user() {
        let app = api();
        let ann = log_in(&app, "ann").await;
        let created = send(&app, Method::POST, "/tokens", &ann, json!({ "name": "backup" })).await;
        let bob = log_in(&app, "bob").await;
        let revoke = format!("/tokens/{}", created.text("key"));
        let refused = send(&app, Method::DELETE, &revoke, &bob, Value::Null).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND);
        assert_eq!(status_of(&app, &created.text("token")).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_store_that_is_down_is_503_in_json() {
        let sessions = SessionManager::builder()
            .store_for(|_| Err(StoreError::unavailable("down")))
            .transport(Transport::bearer())
            .build();
        let answer = send(&app(sessions.unwrap()), Method::GET, "/me", "any", Value::Null).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.text("error"), "Service Unavailable");
    }
}
