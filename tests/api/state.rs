//! Managers come from the router's state, whatever its shape.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    MemoryStore, Session, SessionError, SessionManager, Transport, cookie::Cookie,
    testing::ManualClock,
};
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::support::{Browser, Mode, Visits, in_both_modes};

#[derive(Default, Serialize, Deserialize)]
struct Cart {
    items: u32,
}

async fn count(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = session.count.to_string();
    Ok((session.commit().await?, body))
}

async fn buy(mut cart: Session<Cart>) -> Result<impl IntoResponse, SessionError> {
    cart.items += 10;
    let body = cart.items.to_string();
    Ok((cart.commit().await?, body))
}

async fn count_and_buy(
    mut session: Session<Visits>,
    mut cart: Session<Cart>,
) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    cart.items += 10;
    let body = format!("{} {}", session.count, cart.items);
    Ok((cart.commit().await?, session.commit().await?, body))
}

fn visits(mode: Mode) -> SessionManager<Visits> {
    mode.builder(&ManualClock::new()).build().unwrap()
}

fn carts(mode: Mode) -> SessionManager<Cart> {
    let builder = mode.builder(&ManualClock::new());
    builder.cookie(Cookie::new("__Host-cart", "")).build().unwrap()
}

in_both_modes! {
    the_manager_alone_is_a_state,
    one_field_of_the_state_is_the_manager,
    a_state_in_an_arc_is_a_state,
    two_session_types_in_one_handler_each_have_their_cookie,
    nested_routers_have_states_of_their_own,
}

async fn the_manager_alone_is_a_state(mode: Mode) {
    let app = Router::new().route("/", get(count)).with_state(visits(mode));
    let mut browser = Browser::new(app);
    browser.get("/").await.expect(StatusCode::OK, "1");
    browser.get("/").await.expect(StatusCode::OK, "2");
}

async fn one_field_of_the_state_is_the_manager(mode: Mode) {
    #[derive(Clone, FromRef)]
    struct AppState {
        visits: SessionManager<Visits>,
        greeting: &'static str,
    }
    let state = AppState { visits: visits(mode), greeting: "hello" };
    let mut browser = Browser::new(Router::new().route("/", get(count)).with_state(state));
    browser.get("/").await.expect(StatusCode::OK, "1");
    browser.get("/").await.expect(StatusCode::OK, "2");
}

async fn a_state_in_an_arc_is_a_state(mode: Mode) {
    /// Not `Clone`: the `Arc` is.
    #[derive(FromRef)]
    struct AppState {
        visits: SessionManager<Visits>,
        carts: SessionManager<Cart>,
        #[from_ref(skip)]
        greeting: String,
    }
    async fn greet(
        State(state): State<Arc<AppState>>,
        State(visits): State<SessionManager<Visits>>,
        session: Option<Session<Visits>>,
    ) -> Result<impl IntoResponse, SessionError> {
        let guard = match session {
            Some(session) => session.commit().await?,
            None => visits.no_session(),
        };
        Ok((guard, state.greeting.clone()))
    }
    let state = AppState { visits: visits(mode), carts: carts(mode), greeting: "hello".to_owned() };
    let app = Router::new()
        .route("/", get(count))
        .route("/both", get(count_and_buy))
        .route("/greet", get(greet));
    let mut browser = Browser::new(app.with_state(Arc::new(state)));
    browser.get("/greet").await.expect(StatusCode::OK, "hello");
    browser.get("/").await.expect(StatusCode::OK, "1");
    browser.get("/both").await.expect(StatusCode::OK, "2 10");
    browser.get("/greet").await.expect(StatusCode::OK, "hello");
}

#[derive(Clone, FromRef)]
struct Shop {
    visits: SessionManager<Visits>,
    carts: SessionManager<Cart>,
}

async fn two_session_types_in_one_handler_each_have_their_cookie(mode: Mode) {
    let state = Shop { visits: visits(mode), carts: carts(mode) };
    let app = Router::new()
        .route("/both", get(count_and_buy))
        .route("/count", get(count))
        .route("/buy", get(buy))
        .with_state(state);
    let mut browser = Browser::new(app);
    let answer = browser.get("/both").await.expect(StatusCode::OK, "1 10");
    assert_eq!(answer.set_cookies().len(), 2);
    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
    let names: Vec<_> = browser.jar.keys().cloned().collect();
    assert_eq!(names, ["__Host-cart", "__Host-session"]);
    browser.get("/count").await.expect(StatusCode::OK, "2");
    browser.get("/both").await.expect(StatusCode::OK, "3 20");
    // Under the other's name, neither is anything.
    let session = browser.jar["__Host-session"].clone();
    let cart = browser.jar.insert("__Host-cart".to_owned(), session).unwrap();
    browser.jar.insert("__Host-session".to_owned(), cart);
    browser.get("/both").await.expect(StatusCode::OK, "1 10");
}

async fn nested_routers_have_states_of_their_own(mode: Mode) {
    let shop = Router::new().route("/", get(buy)).with_state(carts(mode));
    let app = Router::new().route("/", get(count)).nest("/cart", shop).with_state(visits(mode));
    let mut browser = Browser::new(app);
    browser.get("/").await.expect(StatusCode::OK, "1");
    browser.get("/cart").await.expect(StatusCode::OK, "10");
    browser.get("/cart").await.expect(StatusCode::OK, "20");
    browser.get("/").await.expect(StatusCode::OK, "2");
}

#[tokio::test]
async fn two_managers_of_one_cookie_name_in_one_request_are_an_error_that_names_the_option() {
    async fn second(_: Session<Visits>, cart: Result<Session<Cart>, SessionError>) -> String {
        cart.unwrap_err().to_string()
    }
    let state = Shop {
        visits: visits(Mode::Cookie),
        carts: Mode::Cookie.builder(&ManualClock::new()).build().unwrap(),
    };
    let app = Router::new()
        .route("/", get(second))
        .route("/both", get(count_and_buy))
        .route("/count", get(count))
        .with_state(state);
    let mut browser = Browser::new(app);
    let answer = browser.get("/").await;
    assert!(answer.body.contains(".cookie"), "{}", answer.body);
    assert!(answer.body.contains("__Host-session"), "{}", answer.body);
    let answer = browser.get("/both").await;
    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    // Apart they do no harm.
    browser.get("/count").await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn two_managers_that_send_their_tokens_in_one_header_are_an_error_too() {
    async fn second(_: Session<Visits>, cart: Result<Session<Cart>, SessionError>) -> String {
        cart.unwrap_err().to_string()
    }
    let clock = ManualClock::new();
    let header = Transport::header(HeaderName::from_static("x-session-token"));
    for [one, other] in [[Transport::bearer(), header.clone()], [header, Transport::bearer()]] {
        let state = Shop {
            visits: Mode::Cookie.builder(&clock).transport(one).build().unwrap(),
            carts: Mode::Cookie.builder(&clock).transport(other).build().unwrap(),
        };
        let app = Router::new().route("/", get(second)).with_state(state);
        let answer = Browser::new(app).get("/").await;
        let expected = "use the header \"x-session-token\"";
        assert!(answer.body.contains(expected), "{}", answer.body);
        assert!(answer.body.contains(".transport"), "{}", answer.body);
    }
}

#[tokio::test]
async fn two_managers_of_one_type_and_name_in_one_request_are_an_error_too() {
    async fn outer(_: Session<Visits>, request: Request, next: Next) -> Response {
        next.run(request).await
    }
    let one = visits(Mode::Store);
    let elsewhere = one.with_store(MemoryStore::new());
    for (what, other, status) in [
        ("the same", one.clone(), StatusCode::OK),
        ("another", visits(Mode::Store), StatusCode::INTERNAL_SERVER_ERROR),
        ("the same over another store", elsewhere, StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let layer = from_fn_with_state(one.clone(), outer);
        let app = Router::new().route("/", get(count)).layer(layer);
        let answer = Browser::new(app.with_state(other)).get("/").await;
        assert_eq!(answer.status, status, "{what}");
    }
}
