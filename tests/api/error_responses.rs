//! What the client sees of an error: a status, a sentence, and nothing of the inside.

use std::{collections::BTreeSet, error::Error, io, time::Duration};

use axum::{
    Router,
    extract::FromRef,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionError, SessionManager, StoreError,
    cookie::Cookie,
    testing::{Fault, FaultyStore, Operation},
};
use http::StatusCode;
use http_body_util::BodyExt as _;

use crate::{
    requests::{Overlapped, change, overlap, visited},
    support::{Answer, Browser, Visits, key, scripted, traced},
};

fn broken() -> Box<dyn Error + Send + Sync> {
    Box::new(io::Error::other("connection refused by 10.0.0.7"))
}

fn store_errors() -> [StoreError; 6] {
    [
        StoreError::unavailable(broken()),
        StoreError::Timeout { after: Duration::from_secs(2) },
        StoreError::Full,
        StoreError::Corrupt,
        StoreError::Newer,
        StoreError::Unsupported { operation: "find_by_owner" },
    ]
}

fn session_errors() -> Vec<SessionError> {
    let carrier = "cookie \"__Host-session\"".to_owned();
    let mut errors = vec![
        SessionError::Newer,
        SessionError::DuplicateName { carrier },
        SessionError::Conflict,
        SessionError::Gone,
        SessionError::TooLarge { actual: 5000, limit: 4096 },
        SessionError::Encode(broken()),
        SessionError::Closed,
        SessionError::IdInUse,
        SessionError::NoStore { operation: "load" },
        SessionError::NotSaved,
        SessionError::OtherType { asked: "shop::Cart", actual: "shop::Login" },
        SessionError::Csrf,
        SessionError::Uncommitted,
        SessionError::Random(broken()),
    ];
    errors.extend(store_errors().map(SessionError::from));
    errors
}

/// Asserts that a client can show this to somebody, and that no cache keeps it.
#[track_caller]
fn expect_face(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"), "{answer:?}");
    let content_type = answer.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{answer:?}");
    let sentence = answer.body.trim_end();
    assert!((10..=120).contains(&sentence.len()), "{answer:?}");
    assert!(sentence.starts_with(char::is_uppercase) && sentence.ends_with('.'), "{answer:?}");
    assert_eq!(sentence.matches(['.', '\n']).count(), 1, "one sentence: {answer:?}");
    let inside = [
        "`",
        "\"",
        "10.0.0.7",
        "refused",
        "5000",
        "4096",
        "store",
        "cookie",
        "codec",
        "Serialize",
        "random",
        "schema",
        "version",
        "merge",
        "axum",
        "commit",
    ];
    for word in inside {
        assert!(!sentence.contains(word), "{word:?} is of the inside: {answer:?}");
    }
}

async fn answer_of(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

#[test]
fn every_error_is_a_plain_sentence_that_no_cache_keeps() {
    let check = async {
        for error in session_errors() {
            let status = error.status();
            expect_face(&answer_of(error.into_response()).await, status);
        }
    };
    // The operator reads the rest in the log.
    let ((), log) = traced(check);
    assert!(log.contains("10.0.0.7"), "{log}");
}

#[test]
fn the_sentence_tells_no_more_than_the_status() {
    let check = async {
        let mut sentences = BTreeSet::new();
        for error in session_errors() {
            // A conflict can be sent again, and what has ended cannot.
            if error.status() != StatusCode::CONFLICT {
                let answer = answer_of(error.into_response()).await;
                sentences.insert((answer.status, answer.body));
            }
        }
        sentences
    };
    let (sentences, _) = traced(check);
    let statuses: Vec<_> = sentences.iter().map(|(status, _)| status.as_u16()).collect();
    assert_eq!(statuses, [403, 500, 503], "{sentences:?}");
}

fn faulty() -> (FaultyStore<MemoryStore>, SessionManager<Visits>) {
    let store = FaultyStore::new(MemoryStore::new());
    let sessions = SessionManager::builder().store(store.clone()).build().unwrap();
    (store, sessions)
}

/// Routes that never commit.
fn layered(sessions: SessionManager<Visits>) -> Router {
    let add = async |mut session: Session<Visits>| {
        session.count += 1;
        "not to be seen"
    };
    Router::new().route("/add", get(add)).layer(AutoCommitLayer::new()).with_state(sessions)
}

#[tokio::test]
async fn a_store_that_is_down_has_a_face() {
    let (store, sessions) = faulty();
    let mut browser = Browser::new(scripted(sessions.clone()));
    browser.get("/add").await;
    for operation in [Operation::Load, Operation::Save] {
        for app in [scripted(sessions.clone()), layered(sessions.clone())] {
            store.inject_next(1, operation, Fault::Fail);
            let answer = browser.at(&app).get("/add").await;
            expect_face(&answer, StatusCode::SERVICE_UNAVAILABLE);
            answer.expect_no_cookie();
        }
    }
}

#[tokio::test]
async fn a_conflict_and_a_session_that_ended_have_a_face() {
    let (_, sessions) = faulty();
    let mut browser = Browser::new(visited(sessions));
    change(&mut browser, |session: &mut Session<Visits>| session.count = 1).await;
    let count = |session: &mut Session<Visits>| session.count += 1;
    let Overlapped { slow, .. } = overlap(&browser, count, async |browser| {
        change(browser, count).await;
    })
    .await;
    expect_face(&slow, StatusCode::CONFLICT);
    let Overlapped { slow, .. } = overlap(&browser, count, async |browser| {
        let logout: fn(&mut Session<Visits>) = Session::destroy;
        change(browser, logout).await;
    })
    .await;
    expect_face(&slow, StatusCode::CONFLICT);
}

#[tokio::test]
async fn data_that_does_not_fit_has_a_face() {
    let sessions = SessionManager::<Visits>::builder().store(MemoryStore::new()).max_payload(10);
    let sessions = sessions.build().unwrap();
    for app in [scripted(sessions.clone()), layered(sessions)] {
        let answer = Browser::new(app).get("/add").await;
        expect_face(&answer, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

// Needs `SessionManagerBuilder::error_response` and `SessionManager::error_response`.
mod of_the_application {
    use axum::extract::State;
    use axum_typed_session::SessionCommit;
    use http::header;

    use super::*;

    /// A page of the application's own.
    fn page(error: &SessionError) -> Response {
        let is_race = matches!(error, SessionError::Conflict | SessionError::Gone);
        let text = if is_race { "<p>Please try again" } else { "<p>Sorry" };
        (error.status(), [(header::CONTENT_TYPE, "text/html")], text).into_response()
    }

    fn with_page() -> (FaultyStore<MemoryStore>, SessionManager<Visits>) {
        let store = FaultyStore::new(MemoryStore::new());
        let builder = SessionManager::builder().store(store.clone()).error_response(page);
        (store, builder.max_payload(1_000).build().unwrap())
    }

    #[track_caller]
    fn expect_page(answer: &Answer, status: StatusCode, text: &str) {
        assert_eq!((answer.status, &*answer.body), (status, text), "{answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("text/html"), "{answer:?}");
    }

    async fn count(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
        session.count += 1;
        session.commit().await
    }

    async fn add(mut session: Session<Visits>) -> &'static str {
        session.count += 1;
        "not to be seen"
    }

    async fn conflicts(session: Session<Visits>) -> Result<&'static str, SessionError> {
        drop(session);
        Err(SessionError::Conflict)
    }

    /// Renders the error as the application does, without the layer.
    async fn renders(
        State(sessions): State<SessionManager<Visits>>,
        mut session: Session<Visits>,
    ) -> Response {
        session.count += 1;
        match session.commit().await {
            Ok(guard) => guard.into_response(),
            Err(error) => sessions.error_response(&error),
        }
    }

    fn app(sessions: &SessionManager<Visits>) -> Browser {
        let app = Router::new()
            .route("/add", get(add))
            .route("/count", get(count))
            .route("/conflicts", get(conflicts))
            .route("/none", get(async || StatusCode::CONFLICT))
            .layer(AutoCommitLayer::new())
            .route("/renders", get(renders))
            .route("/without-layer", get(count))
            .with_state(sessions.clone());
        Browser::new(app)
    }

    #[tokio::test]
    async fn the_layer_answers_with_the_applications_page() {
        let (store, sessions) = with_page();
        let mut browser = app(&sessions);
        browser.get("/count").await.expect(StatusCode::OK, "");
        let down = StatusCode::SERVICE_UNAVAILABLE;
        // Of the layer's own commit, of a commit in the handler, and of an extractor.
        for (path, operation) in [
            ("/add", Operation::Save),
            ("/count", Operation::Save),
            ("/add", Operation::Load),
            ("/count", Operation::Load),
        ] {
            store.inject_next(1, operation, Fault::Fail);
            let answer = browser.get(path).await;
            expect_page(&answer, down, "<p>Sorry");
            answer.expect_no_cookie();
        }
        let answer = browser.get("/conflicts").await;
        expect_page(&answer, StatusCode::CONFLICT, "<p>Please try again");
    }

    #[tokio::test]
    async fn the_layer_leaves_the_handlers_own_errors_alone() {
        let (_, sessions) = with_page();
        app(&sessions).get("/none").await.expect(StatusCode::CONFLICT, "");
    }

    #[tokio::test]
    async fn a_page_of_the_layer_keeps_the_cookie_of_a_commit_that_succeeded() {
        async fn commits_then_fails(
            mut one: Session<Visits>,
            mut other: Session<Visits>,
        ) -> Result<(), SessionError> {
            one.count += 1;
            drop(one.commit().await?);
            other.count += 1;
            other.commit().await.map(drop)
        }
        let (_, sessions) = with_page();
        let app = Router::new().route("/", get(commits_then_fails)).layer(AutoCommitLayer::new());
        let answer = Browser::new(app.with_state(sessions)).get("/").await;
        expect_page(&answer, StatusCode::CONFLICT, "<p>Please try again");
        assert_eq!(answer.told(), "set");
    }

    #[tokio::test]
    async fn a_handler_can_answer_with_the_applications_page() {
        let (store, sessions) = with_page();
        let mut browser = app(&sessions);
        browser.get("/renders").await.expect(StatusCode::OK, "");
        store.inject_next(1, Operation::Save, Fault::Fail);
        let answer = browser.get("/renders").await;
        expect_page(&answer, StatusCode::SERVICE_UNAVAILABLE, "<p>Sorry");
        let answer = answer_of(sessions.error_response(&SessionError::Gone)).await;
        expect_page(&answer, StatusCode::CONFLICT, "<p>Please try again");
    }

    /// It may be a 200, which a shared cache would keep for every visitor.
    #[tokio::test]
    async fn a_page_that_a_handler_renders_is_private() {
        let (_, sessions) = with_page();
        let answer = answer_of(sessions.error_response(&SessionError::Gone)).await;
        assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
        assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
    }

    #[tokio::test]
    async fn without_the_option_a_manager_answers_with_the_sentence() {
        let (_, sessions) = faulty();
        for error in session_errors() {
            let answer = answer_of(sessions.error_response(&error)).await;
            expect_face(&answer, error.status());
        }
    }

    /// An answer that the application does not render still has a sentence.
    #[tokio::test]
    async fn without_the_layer_a_handlers_error_is_the_sentence() {
        let (store, sessions) = with_page();
        let mut browser = app(&sessions);
        browser.get("/count").await;
        store.inject_next(1, Operation::Save, Fault::Fail);
        let answer = browser.get("/without-layer").await;
        expect_face(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_page_is_that_of_the_manager_whose_error_came_last() {
        #[derive(Clone, FromRef)]
        struct Managers {
            numbers: SessionManager<u32>,
            texts: SessionManager<String>,
        }
        async fn accepts_the_first(
            numbers: Result<Session<u32>, SessionError>,
            mut text: Session<String>,
        ) {
            assert!(numbers.is_err());
            text.push('x');
        }
        let store = FaultyStore::new(MemoryStore::new());
        let numbers = SessionManager::builder().keys(key()).store(store.clone());
        let numbers = numbers.error_response(|_| "numbers".into_response());
        let texts = SessionManager::<String>::builder().keys(key()).validate_data(String::is_empty);
        let texts = texts.cookie(Cookie::new("__Host-text", ""));
        let texts = texts.error_response(|_| "texts".into_response());
        let managers =
            Managers { numbers: numbers.build().unwrap(), texts: texts.build().unwrap() };
        let created = managers.numbers.create(1).await.unwrap();
        let app = Router::new().route("/", get(accepts_the_first)).layer(AutoCommitLayer::new());
        let mut browser = Browser::new(app.with_state(managers));
        browser.jar.insert("__Host-session".to_owned(), created.token().to_owned());
        store.inject_next(1, Operation::Load, Fault::Fail);
        browser.get("/").await.expect(StatusCode::OK, "texts");
    }

    #[tokio::test]
    async fn two_managers_with_one_cookie_are_an_error_of_the_second() {
        #[derive(Clone, FromRef)]
        struct Managers {
            numbers: SessionManager<u32>,
            texts: SessionManager<String>,
        }
        async fn takes_both(_: Session<u32>, _: Session<String>) {}
        let numbers =
            SessionManager::builder().keys(key()).error_response(|_| "numbers".into_response());
        let texts =
            SessionManager::builder().keys(key()).error_response(|_| "texts".into_response());
        let managers =
            Managers { numbers: numbers.build().unwrap(), texts: texts.build().unwrap() };
        let app = Router::new().route("/", get(takes_both)).layer(AutoCommitLayer::new());
        let mut browser = Browser::new(app.with_state(managers));
        browser.get("/").await.expect(StatusCode::OK, "texts");
    }
}
