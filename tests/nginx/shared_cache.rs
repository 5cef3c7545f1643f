//! What a shared cache makes of the answers: nginx, told to keep every page for ten minutes.

use axum::{
    Router,
    extract::{FromRef, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionError, SessionManager, cookie::Cookie,
};

use crate::{
    CACHE, Nginx,
    readme::{Login, Visits, home, index, sign_in, sign_out},
    with_nginx,
};

#[derive(Clone, FromRef)]
struct Site {
    visits: SessionManager<Visits>,
    logins: SessionManager<Login>,
}

impl Site {
    fn new(in_store: bool) -> Self {
        let (visits, logins) = (SessionManager::builder(), SessionManager::builder());
        let logins = logins.cookie(Cookie::new("__Host-login", ""));
        // A status that caches keep.
        let logins = logins.error_response(|_| Html("please try again").into_response());
        let (visits, logins) = if in_store {
            (visits.store(MemoryStore::new()), logins.store(MemoryStore::new()))
        } else {
            (visits.keys(Key::generate()), logins.keys(Key::generate()))
        };
        Self { visits: visits.build().unwrap(), logins: logins.build().unwrap() }
    }
}

/// Who a page greets.
fn name_of(login: &Login) -> String {
    login.user.clone().unwrap_or_else(|| "nobody".to_owned())
}

async fn layered(session: Session<Login>) -> String {
    name_of(&session)
}

async fn wrapped(session: Session<Login>) -> Result<Response, SessionError> {
    let page = ([(header::CONTENT_LANGUAGE, "en")], name_of(&session));
    Ok(session.commit().await?.wrap(page))
}

async fn of_two_types(
    visits: Session<Visits>,
    login: Session<Login>,
) -> Result<impl IntoResponse, SessionError> {
    let body = name_of(&login);
    Ok((visits.commit().await?, login.commit().await?, body))
}

async fn missing(session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let body = name_of(&session);
    Ok((StatusCode::NOT_FOUND, session.commit().await?, body))
}

/// Names the cache itself, which then keeps a page for each `Cookie`.
async fn public(session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    let body = name_of(&session);
    Ok(([(header::CACHE_CONTROL, "public, max-age=600")], session.commit().await?, body))
}

/// Fails for one visitor only.
async fn fails_for_ada(session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    if session.user.as_deref() == Some("ada") {
        session.discard();
        return Err(SessionError::Conflict);
    }
    let body = name_of(&session);
    Ok((session.commit().await?, body))
}

/// Does the same, and renders the error itself.
async fn fails_and_renders(
    State(sessions): State<SessionManager<Login>>,
    session: Session<Login>,
) -> Response {
    let answer = fails_for_ada(session).await;
    answer.map_or_else(|error| sessions.error_response(&error), IntoResponse::into_response)
}

fn app(site: Site) -> Router {
    let under_the_layer = Router::new()
        .route("/layered", get(layered))
        .route("/fails/under-the-layer", get(fails_for_ada))
        .layer(AutoCommitLayer::new());
    Router::new()
        .route("/", get(index))
        .route("/logout", post(sign_out))
        .route("/login", post(sign_in))
        .route("/me", get(home))
        .route("/wrapped", get(wrapped))
        .route("/of-two-types", get(of_two_types))
        .route("/missing", get(missing))
        .route("/public", get(public))
        .route("/fails", get(fails_for_ada))
        .route("/fails/and-renders", get(fails_and_renders))
        .route("/logo", get(async || "the same for everybody"))
        .merge(under_the_layer)
        .with_state(site)
}

/// What a page says to a visitor of this name.
type Greeting = fn(&str) -> String;

/// Visits pages as two people and a stranger, and asserts what each gets. None comes out of the cache.
fn visit(nginx: &Nginx) {
    let [ada, bob] = ["ada", "bob"].map(|name| {
        let answer = nginx.send("POST", "/login", "", name);
        assert_eq!((answer.status, answer.cookies.len()), (200, 1));
        answer.cookies.concat()
    });
    let visitors = [(&*ada, "ada"), (&*bob, "bob"), ("", "nobody"), (&*ada, "ada"), ("", "nobody")];
    let fails = |name: &str| if name == "ada" { "please try again" } else { name }.to_owned();
    let greets = |name: &str| match name {
        "nobody" => "hello visitor".to_owned(),
        name => format!("hello {name}"),
    };
    let pages: [(_, Greeting); 7] = [
        ("/me", greets),
        ("/wrapped", str::to_owned),
        ("/of-two-types", str::to_owned),
        ("/missing", str::to_owned),
        ("/layered", str::to_owned),
        ("/fails/under-the-layer", fails),
        ("/fails/and-renders", fails),
    ];
    for (path, expected) in pages {
        for (cookies, name) in visitors {
            let answer = nginx.get(path, cookies);
            assert_eq!(answer.body, expected(name), "{path}: {}", answer.head);
            assert!(!answer.head.contains("x-cache: hit"), "{path}: {}", answer.head);
        }
    }
    for (cookies, name) in visitors {
        let answer = nginx.get("/fails", cookies);
        let status = if name == "ada" { 409 } else { 200 };
        assert_eq!(answer.status, status, "{name}: {}", answer.head);
        assert!(!answer.head.contains("x-cache: hit"), "{}", answer.head);
        // This page may come out of the cache, but only to the same visitor.
        assert_eq!(nginx.get("/public", cookies).body, name);
    }
}

/// Counts visits with the first program of the README, for two people whose requests take turns.
fn count_visits(nginx: &Nginx) {
    let mut people = [(); 2].map(|()| String::new());
    for round in 1..=3 {
        for cookies in &mut people {
            let answer = nginx.get("/", cookies);
            assert_eq!(answer.body, format!("{round} visits\n"), "{}", answer.head);
            if let [cookie] = &answer.cookies[..] {
                cookies.clone_from(cookie);
            }
        }
    }
    let [one, other] = &people;
    assert_eq!(nginx.send("POST", "/logout", one, "").cookies, ["__Host-session="]);
    assert_eq!(nginx.get("/", "").body, "1 visits\n");
    assert_eq!(nginx.get("/", other).body, "4 visits\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_no_page_of_one_visitor_to_another() {
    for in_store in [false, true] {
        let visits = |start: &dyn Fn(&str) -> Nginx| {
            let nginx = start(CACHE);
            // The cache works: the second visitor gets what the first one's request left there.
            for found in ["x-cache: miss", "x-cache: hit"] {
                assert!(nginx.get("/logo", "").head.contains(found));
            }
            visit(&nginx);
            count_visits(&nginx);
        };
        with_nginx(app(Site::new(in_store)), visits).await;
    }
}
