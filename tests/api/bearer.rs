//! What the docs of `Transport::bearer()` say to those who write a client.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder, Transport,
    testing::ManualClock,
};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use tower_http::cors::CorsLayer;

use crate::{
    logins::{FRESH, Login, app, logins},
    support::{Answer, HOUR, SECOND, send},
};

const TOKEN: &str = "x-session-token";

fn without_a_store(clock: &ManualClock) -> SessionManagerBuilder<Login> {
    logins(clock).transport(Transport::bearer())
}

fn with_a_store(clock: &ManualClock) -> SessionManagerBuilder<Login> {
    without_a_store(clock).store(MemoryStore::builder().clock(clock.clone()).build())
}

async fn post(app: &Router, path: &str, token: &str) -> Answer {
    let request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    send(app, request).await
}

/// What `GET /` answers to the bearer of a token.
async fn read(app: &Router, token: &str) -> String {
    let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
    send(app, request).await.body
}

async fn first_token(app: &Router) -> String {
    send(app, Request::post("/note?one")).await.header(TOKEN).unwrap()
}

#[tokio::test]
async fn without_a_store_every_save_sends_a_token_and_an_earlier_one_is_old_data() {
    let app = app(without_a_store(&ManualClock::new()));
    let first = first_token(&app).await;
    let second = post(&app, "/note?two", &first).await.header(TOKEN).unwrap();
    let third = post(&app, "/save", &second).await.header(TOKEN).unwrap();
    assert_eq!(post(&app, "/commit", &third).await.header(TOKEN), None, "nothing to save");
    for (token, note) in [(first, "one"), (second, "two"), (third, "two")] {
        assert_eq!(read(&app, &token).await, note);
    }
}

#[tokio::test]
async fn without_a_store_what_rolling_extends_sends_a_token_too() {
    let clock = ManualClock::new();
    let app = app(without_a_store(&clock).rolling(true));
    let first = first_token(&app).await;
    clock.advance(12 * HOUR);
    let second = post(&app, "/commit", &first).await.header(TOKEN).unwrap();
    clock.advance(13 * HOUR);
    assert_eq!([read(&app, &first).await, read(&app, &second).await], [FRESH, "one"]);
}

#[tokio::test]
async fn with_a_store_the_first_token_stays_good() {
    let clock = ManualClock::new();
    let app = app(with_a_store(&clock).rolling(true));
    let token = first_token(&app).await;
    for (path, note) in [("/note?two", "two"), ("/save", "two"), ("/commit", "two")] {
        clock.advance(12 * HOUR);
        assert_eq!(post(&app, path, &token).await.header(TOKEN), None, "{path}");
        assert_eq!(read(&app, &token).await, note, "{path}");
    }
}

#[tokio::test]
async fn with_a_store_regenerate_sends_a_token_and_an_earlier_one_is_nobodys() {
    let clock = ManualClock::new();
    let app = app(with_a_store(&clock));
    let first = first_token(&app).await;
    let second = post(&app, "/regenerate", &first).await.header(TOKEN).unwrap();
    for wait in [SECOND, HOUR] {
        assert_eq!([read(&app, &first).await, read(&app, &second).await], [FRESH, "one"]);
        clock.advance(wait);
    }
}

/// The example in the docs.
#[tokio::test]
async fn a_script_of_another_origin_sees_the_token_where_cors_exposes_it() {
    let cors = CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([HeaderName::from_static("x-session-token")]);
    let app = app(without_a_store(&ManualClock::new())).layer(cors);
    let request = Request::post("/note?one").header(header::ORIGIN, "https://app.example");
    let answer = send(&app, request).await;
    assert!(answer.header(TOKEN).is_some());
    assert_eq!(answer.header("access-control-expose-headers").as_deref(), Some(TOKEN));
    let preflight = Request::options("/note").header(header::ORIGIN, "https://app.example");
    let preflight = preflight.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    let allowed = send(&app, preflight).await.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
}

/// The handler in the docs.
async fn me(
    State(sessions): State<SessionManager<Login>>,
    session: Option<Session<Login>>,
) -> Result<Response, SessionError> {
    let user = session.as_ref().and_then(|session| session.user.clone());
    let guard = match session {
        Some(session) => session.commit().await?,
        None => sessions.no_session(),
    };
    Ok(guard.wrap(match user {
        Some(user) => format!("hello {user}").into_response(),
        None => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response(),
    }))
}

#[tokio::test]
async fn who_is_not_logged_in_is_answered_401_with_the_scheme() {
    for manager in [without_a_store(&ManualClock::new()), with_a_store(&ManualClock::new())] {
        let sessions = manager.build().unwrap();
        let me = Router::new().route("/me", get(me)).with_state(sessions.clone());
        let app = me.merge(crate::logins::router(sessions));
        let anonymous = first_token(&app).await;
        let ask = |token: Option<String>| {
            let request = Request::get("/me");
            let request = match token {
                Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
                None => request,
            };
            send(&app, request)
        };
        for token in [None, Some("garbage".to_owned()), Some(anonymous.clone())] {
            let answer = ask(token).await.expect(StatusCode::UNAUTHORIZED, "");
            assert_eq!(answer.header("www-authenticate").as_deref(), Some("Bearer"));
            assert_eq!(answer.header("vary").as_deref(), Some("authorization"));
            assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
        }
        let ada = post(&app, "/user?ada", &anonymous).await.header(TOKEN).unwrap_or(anonymous);
        ask(Some(ada)).await.expect(StatusCode::OK, "hello ada");
    }
}
