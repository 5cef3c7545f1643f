//! A JSON API with tokens in a header: sign-in, an extractor that answers 401, and personal access tokens.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example api_bearer
//! ```
//!
//! A token comes in the response header `x-session-token`, and is sent as `Authorization: Bearer ..`:
//!
//! ```text
//! curl -i --json '{"name": "ann", "password": "correct horse"}' http://127.0.0.1:3000/session
//! export TOKEN=..
//! curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:3000/me
//! curl -H "Authorization: Bearer $TOKEN" -X POST http://127.0.0.1:3000/tokens
//! curl -H "Authorization: Bearer $TOKEN" -X DELETE http://127.0.0.1:3000/session
//! ```
//!
//! `PORT` sets the port.

use std::{env, error::Error, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use axum_typed_session::{
    AutoCommitLayer, ConfigError, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    StoreKey, Transport,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
    /// The session is a personal access token.
    is_token: bool,
}

#[derive(Clone, FromRef)]
struct App {
    sessions: SessionManager<Login>,
}

impl App {
    fn new(keys: KeyRing) -> Result<Self, ConfigError> {
        let sessions = SessionManager::<Login>::builder()
            .keys(keys)
            .store(MemoryStore::new())
            .transport(Transport::bearer())
            .owner(|login| login.user.clone())
            .idle_timeout(30 * DAY)
            .rolling(true)
            .absolute_timeout(90 * DAY)
            .error_response(|error: &SessionError| match error {
                SessionError::Store(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "try again"),
                SessionError::Conflict | SessionError::Gone => {
                    problem(StatusCode::CONFLICT, "another request changed the session")
                }
                _ => problem(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong"),
            })
            .build()?;
        Ok(Self { sessions })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/session", post(sign_in).delete(sign_out))
            .route("/me", get(me))
            .route("/tokens", get(tokens).post(new_token))
            .route("/tokens/{key}", delete(revoke_token))
            // Commits for all handlers, and makes JSON of session errors.
            .layer(AutoCommitLayer::new())
            .with_state(self)
    }
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// The name of the user who sent the request. Other requests are answered with 401.
struct CurrentUser(String);

impl FromRequestParts<App> for CurrentUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let session = Session::<Login>::from_request_parts(parts, app).await;
        let session = session.map_err(IntoResponse::into_response)?;
        let user = session.user.clone().map(Self);
        user.ok_or_else(|| problem(StatusCode::UNAUTHORIZED, "sign in first"))
    }
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

/// The example `login` has real passwords.
async fn sign_in(mut session: Session<Login>, Json(sent): Json<Credentials>) -> Response {
    if sent.password != "correct horse" {
        return problem(StatusCode::UNAUTHORIZED, "the name or the password is wrong");
    }
    session.user = Some(sent.name);
    session.regenerate();
    StatusCode::NO_CONTENT.into_response()
}

async fn sign_out(mut session: Session<Login>) -> StatusCode {
    session.destroy();
    StatusCode::NO_CONTENT
}

async fn me(CurrentUser(name): CurrentUser) -> Json<String> {
    Json(name)
}

/// Makes a token that lives beside this session. It is shown only here.
async fn new_token(
    CurrentUser(name): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
) -> Result<Response, SessionError> {
    let created = sessions.create(Login { user: Some(name), is_token: true }).await?;
    let answer = json!({ "token": created.token(), "key": created.key().to_base64url() });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn tokens(
    CurrentUser(name): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
) -> Result<Json<Vec<String>>, SessionError> {
    let sessions = sessions.sessions_of(&name).await?;
    let tokens = sessions.iter().filter(|session| session.is_token);
    Ok(Json(tokens.map(|token| token.key().to_base64url()).collect()))
}

/// Ends a token of this user, and of no other.
async fn revoke_token(
    CurrentUser(name): CurrentUser,
    State(sessions): State<SessionManager<Login>>,
    Path(key): Path<String>,
) -> Result<Response, SessionError> {
    let ended = match key.parse::<StoreKey>() {
        Ok(key) => sessions.destroy_of(&name, key).await?,
        Err(_) => false,
    };
    Ok(match ended {
        true => StatusCode::NO_CONTENT.into_response(),
        false => problem(StatusCode::NOT_FOUND, "there is no such token"),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let app = App::new(KeyRing::from_env("SESSION_KEY")?)?;
    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.router()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, header},
    };
    use axum_typed_session::Key;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    /// Sends a request with a token, and returns the status, the token of the response and its JSON.
    async fn send(app: &Router, request: &str, token: &str, body: Value) -> (u16, String, Value) {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json");
        let body = Body::from(body.to_string());
        let response = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let token = response.headers().get("x-session-token");
        let token = token.map_or("none", |token| token.to_str().unwrap()).to_owned();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, token, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn app() -> Router {
        App::new(Key::generate().into()).unwrap().router()
    }

    async fn signed_in(app: &Router) -> String {
        let ann = json!({ "name": "ann", "password": "correct horse" });
        let (status, token, _) = send(app, "POST /session", "", ann).await;
        assert_eq!(status, 204);
        token
    }

    #[tokio::test]
    async fn a_token_comes_with_sign_in_and_ends_with_sign_out() {
        let app = app();
        let sign_in = json!({ "error": "sign in first" });
        assert_eq!(send(&app, "GET /me", "", Value::Null).await, (401, "none".into(), sign_in));
        let wrong = json!({ "name": "ann", "password": "wrong" });
        assert_eq!(send(&app, "POST /session", "", wrong).await.0, 401);

        let token = signed_in(&app).await;
        let (status, _, name) = send(&app, "GET /me", &token, Value::Null).await;
        assert_eq!((status, name), (200, json!("ann")));
        let (status, removed, _) = send(&app, "DELETE /session", &token, Value::Null).await;
        assert_eq!((status, removed.as_str()), (204, ""));
        assert_eq!(send(&app, "GET /me", &token, Value::Null).await.0, 401);
    }

    #[tokio::test]
    async fn a_personal_access_token_outlives_the_session_until_it_is_revoked() {
        let app = app();
        let token = signed_in(&app).await;
        let (status, _, created) = send(&app, "POST /tokens", &token, Value::Null).await;
        assert_eq!(status, 201);
        let (personal, key) =
            (created["token"].as_str().unwrap(), created["key"].as_str().unwrap());
        send(&app, "DELETE /session", &token, Value::Null).await;
        assert_eq!(send(&app, "GET /me", personal, Value::Null).await.2, json!("ann"));

        let token = signed_in(&app).await;
        assert_eq!(send(&app, "GET /tokens", &token, Value::Null).await.2, json!([key]));
        let revoke = format!("DELETE /tokens/{key}");
        assert_eq!(send(&app, &revoke, &token, Value::Null).await.0, 204);
        assert_eq!(send(&app, &revoke, &token, Value::Null).await.0, 404);
        assert_eq!(send(&app, "GET /me", personal, Value::Null).await.0, 401);
    }
}
