//! CSRF tokens: derived from the session's id, with nothing stored.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use axum::{
    Extension, Form, Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, MemoryStore, Session, SessionCommit, SessionError, SessionManager,
    SessionManagerBuilder, StoreKey, testing::ManualClock,
};
use http::{StatusCode, header};
use serde::Deserialize;
use tower::ServiceExt as _;

use crate::{
    common::assert_matches,
    requests::{Visit, change, run, visited},
    support::{Answer, Browser, EventLog, Log, Mode, ProbeStore, SECOND, Visits, in_both_modes},
};

in_both_modes! {
    a_form_of_a_fresh_visitor_is_accepted_and_saves_the_session_once,
    a_text_that_is_not_the_token_is_refused,
    the_token_of_another_session_is_refused,
    a_request_without_a_session_is_refused_and_begins_none,
    every_page_of_a_session_has_the_same_token_and_showing_it_writes_nothing,
    a_login_or_a_clear_without_a_new_id_keeps_the_token,
    after_a_regenerate_the_token_is_of_the_new_id,
    a_token_made_before_the_regenerate_is_refused,
    a_regenerate_that_is_committed_leaves_the_token_to_the_guards_before_it,
    all_guards_of_a_fresh_request_show_the_token_of_the_session_that_is_saved,
    a_guard_from_before_another_guards_commit_shows_the_token_of_what_was_committed,
    a_discarded_token_saves_nothing_and_stays_the_token_of_the_request,
    an_id_drawn_for_a_token_begins_one_session,
    a_token_of_a_session_that_was_destroyed_in_this_request_is_an_error,
    what_a_clear_or_a_new_id_does_to_a_fresh_session_leaves_its_token_good,
    an_id_generator_is_asked_once_for_the_token_and_the_session,
    under_the_layer_a_token_that_nobody_committed_is_good,
    under_the_layer_a_dropped_regenerate_is_known_to_the_next_token,
    under_the_layer_a_dropped_destroy_is_known_to_the_next_token,
    a_forged_request_logs_no_warning,
    a_token_on_a_page_without_a_guard_is_warned_of,
    kinds_have_tokens_of_their_own,
}

fn sessions(mode: Mode) -> SessionManager<Visits> {
    mode.builder(&ManualClock::new()).build().unwrap()
}

/// A browser over handlers that requests bring along.
fn browser(mode: Mode) -> Browser {
    Browser::new(visited(sessions(mode)))
}

/// As [`browser`], under the layer.
fn layered(mode: Mode) -> Browser {
    Browser::new(visited(sessions(mode)).layer(AutoCommitLayer::new()))
}

/// Loads a page that shows the token.
async fn page(browser: &mut Browser) -> Answer {
    let page = run(browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        let token = session.csrf_token()?;
        Ok((session.commit().await?, token).into_response())
    });
    page.await.expect_status(StatusCode::OK)
}

async fn token_of(browser: &mut Browser) -> String {
    page(browser).await.body
}

/// Sends a token back and counts if it is good.
async fn submit(browser: &mut Browser, token: &str) -> Answer {
    let token = token.to_owned();
    run(browser, async move |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.verify_csrf(&token)?;
        session.count += 1;
        let count = session.count.to_string();
        Ok((session.commit().await?, count).into_response())
    })
    .await
}

async fn expect_good(browser: &mut Browser, token: &str) {
    submit(browser, token).await.expect_status(StatusCode::OK);
}

async fn expect_refused(browser: &mut Browser, token: &str) {
    submit(browser, token).await.expect_error(StatusCode::FORBIDDEN).expect_no_cookie();
}

/// A browser with a session and the token of it.
async fn visitor(browser: &Browser) -> (Browser, String) {
    let mut browser = browser.clone();
    let token = token_of(&mut browser).await;
    (browser, token)
}

async fn key_of(browser: &mut Browser) -> Option<StoreKey> {
    let tell = run(browser, async |mut visit: Visit<Visits>| {
        let session = visit.session().await?;
        let key = session.key().map(|key| key.to_base64url()).unwrap_or_default();
        Ok((session.commit().await?, key).into_response())
    });
    tell.await.body.parse().ok()
}

async fn a_form_of_a_fresh_visitor_is_accepted_and_saves_the_session_once(mode: Mode) {
    #[derive(Deserialize)]
    struct Fields {
        csrf: String,
    }
    async fn form(
        mut session: Session<Visits>,
    ) -> Result<(SessionCommit, Html<String>), SessionError> {
        let csrf = session.csrf_token()?;
        let html = format!("<form method=post><input type=hidden name=csrf value={csrf}></form>");
        Ok((session.commit().await?, Html(html)))
    }
    async fn count(
        mut session: Session<Visits>,
        Form(fields): Form<Fields>,
    ) -> Result<(SessionCommit, String), SessionError> {
        session.verify_csrf(&fields.csrf)?;
        session.count += 1;
        let count = session.count.to_string();
        Ok((session.commit().await?, count))
    }
    let app = Router::new().route("/", get(form).post(count)).with_state(sessions(mode));
    let page = Browser::new(app.clone()).get("/").await;
    assert_eq!(page.header("cache-control").as_deref(), Some("no-store"));
    let token = page.body.split("value=").nth(1).unwrap().split('>').next().unwrap();
    assert_eq!(token.len(), 43);
    let post = |token: &str| {
        http::Request::post("/")
            .header(header::COOKIE, page.pair().unwrap())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("csrf={token}")))
            .unwrap()
    };
    let response = app.clone().oneshot(post(token)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let response = app.oneshot(post("")).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

async fn a_text_that_is_not_the_token_is_refused(mode: Mode) {
    let (mut browser, token) = visitor(&browser(mode)).await;
    let last = token.chars().last().unwrap();
    // The bits beyond the 32 bytes make another text of the same bytes.
    let next = char::from_u32(u32::from(last) + 1).unwrap();
    let start = &token[..42];
    for text in [
        "",
        "x",
        start,
        &format!("{token}="),
        &format!(" {token}"),
        &format!("{token}A"),
        &format!("{start}{next}"),
        &token.to_lowercase(),
        &token.replace(|_| true, "A"),
        &"A".repeat(100_000),
        "é\0\n",
    ] {
        expect_refused(&mut browser, text).await;
    }
    submit(&mut browser, &token).await.expect(StatusCode::OK, "1");
}

async fn the_token_of_another_session_is_refused(mode: Mode) {
    let browser = browser(mode);
    let (mut ada, hers) = visitor(&browser).await;
    let (mut bob, his) = visitor(&browser).await;
    assert_ne!(hers, his);
    expect_refused(&mut ada, &his).await;
    expect_refused(&mut bob, &hers).await;
    expect_good(&mut ada, &hers).await;
}

async fn a_request_without_a_session_is_refused_and_begins_none(mode: Mode) {
    let mut browser = browser(mode);
    let (_, token) = visitor(&browser).await;
    expect_refused(&mut browser, &token).await;
    expect_refused(&mut browser, "").await;
    assert!(!browser.has_session());
}

async fn every_page_of_a_session_has_the_same_token_and_showing_it_writes_nothing(mode: Mode) {
    let log = EventLog::default();
    let sessions = mode.builder::<Visits>(&ManualClock::new()).on_event(log.hook());
    let mut browser = Browser::new(visited(sessions.build().unwrap()));
    let first = page(&mut browser).await;
    assert_eq!((first.told(), &*log.take()), ("set", &["created"][..]));
    for _ in 0..2 {
        let again = page(&mut browser).await.expect_no_cookie();
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("cache-control").as_deref(), Some("private"));
    }
    assert!(log.take().is_empty());
}

async fn a_login_or_a_clear_without_a_new_id_keeps_the_token(mode: Mode) {
    let (mut browser, token) = visitor(&browser(mode)).await;
    for act in [
        |session: &mut Session<Visits>| session.count = 7,
        |session: &mut Session<Visits>| session.clear(),
    ] {
        change(&mut browser, act).await.expect_status(StatusCode::OK);
        assert_eq!(token_of(&mut browser).await, token);
        expect_good(&mut browser, &token).await;
    }
}

async fn after_a_regenerate_the_token_is_of_the_new_id(mode: Mode) {
    let (mut browser, old) = visitor(&browser(mode)).await;
    let login = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.regenerate();
        let token = session.csrf_token()?;
        assert_eq!(session.csrf_token()?, token);
        Ok((session.commit().await?, token).into_response())
    });
    let new = login.await.expect_status(StatusCode::OK).body;
    assert_ne!(new, old);
    assert_eq!(token_of(&mut browser).await, new);
    expect_refused(&mut browser, &old).await;
    expect_good(&mut browser, &new).await;
}

async fn a_token_made_before_the_regenerate_is_refused(mode: Mode) {
    let (mut browser, old) = visitor(&browser(mode)).await;
    let login = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        let token = session.csrf_token()?;
        session.regenerate();
        Ok((session.commit().await?, token).into_response())
    });
    assert_eq!(login.await.body, old);
    expect_refused(&mut browser, &old).await;
}

/// A request proves itself by what it came with, whatever another part of it has done meanwhile.
async fn a_regenerate_that_is_committed_leaves_the_token_to_the_guards_before_it(mode: Mode) {
    let (mut browser, token) = visitor(&browser(mode)).await;
    let both = run(&mut browser, async move |mut visit: Visit<Visits>| {
        let (before, mut session) = (visit.session().await?, visit.session().await?);
        session.regenerate();
        let guard = session.commit().await?;
        before.verify_csrf(&token)?;
        let after = visit.session().await?;
        assert_matches!(after.verify_csrf(&token), Err(SessionError::Csrf));
        drop((before, after));
        Ok(guard.into_response())
    });
    both.await.expect_status(StatusCode::OK);
}

async fn all_guards_of_a_fresh_request_show_the_token_of_the_session_that_is_saved(mode: Mode) {
    let mut browser = browser(mode);
    let both = run(&mut browser, async |mut visit: Visit<Visits>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        let token = one.csrf_token()?;
        assert_eq!(other.csrf_token()?, token);
        other.count = 3;
        let guards = (other.commit().await?, one.commit().await?);
        Ok((guards.0, guards.1, token).into_response())
    });
    let answer = both.await.expect_status(StatusCode::OK);
    submit(&mut browser, &answer.body).await.expect(StatusCode::OK, "4");
}

async fn a_guard_from_before_another_guards_commit_shows_the_token_of_what_was_committed(
    mode: Mode,
) {
    let mut browser = browser(mode);
    for act in [
        |session: &mut Session<Visits>| session.count = 3,
        |session: &mut Session<Visits>| session.regenerate(),
        |session: &mut Session<Visits>| {
            session.clear();
            session.regenerate();
        },
    ] {
        let both = run(&mut browser, async move |mut visit: Visit<Visits>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            act(&mut one);
            let guard = one.commit().await?;
            let token = other.csrf_token()?;
            Ok((guard, other.commit().await?, token).into_response())
        });
        let answer = both.await.expect_status(StatusCode::OK);
        expect_good(&mut browser, &answer.body).await;
    }
}

async fn a_discarded_token_saves_nothing_and_stays_the_token_of_the_request(mode: Mode) {
    let mut browser = browser(mode);
    let discard = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.csrf_token()?;
        session.discard();
        Ok(visit.session().await?.commit().await?.into_response())
    });
    discard.await.expect_status(StatusCode::OK).expect_no_cookie();

    let mixed = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        let token = session.csrf_token()?;
        session.discard();
        let mut session = visit.session().await?;
        session.count = 1;
        Ok((session.commit().await?, token).into_response())
    });
    let answer = mixed.await.expect_status(StatusCode::OK);
    expect_good(&mut browser, &answer.body).await;
}

async fn an_id_drawn_for_a_token_begins_one_session(mode: Mode) {
    let mut browser = browser(mode);
    let many = run(&mut browser, async |mut visit: Visit<Visits>| {
        let (mut keys, mut tokens) = (HashSet::new(), HashSet::new());
        let mut last = String::new();
        for _ in 0..3 {
            let mut session = visit.session().await?;
            last = session.csrf_token()?;
            tokens.insert(last.clone());
            keys.insert(session.commit().await?.key().unwrap());
            let mut session = visit.session().await?;
            session.regenerate();
            last = session.csrf_token()?;
            tokens.insert(last.clone());
            keys.insert(session.commit().await?.key().unwrap());
            let mut session = visit.session().await?;
            session.destroy();
            drop(session.commit().await?);
            // A session without a token draws an id of its own.
            let mut session = visit.session().await?;
            session.count = 1;
            let guard = session.commit().await?;
            keys.insert(guard.key().unwrap());
            drop(guard);
            let mut session = visit.session().await?;
            session.destroy();
            drop(session.commit().await?);
        }
        assert_eq!((keys.len(), tokens.len()), (9, 6), "{last}");
        Ok(().into_response())
    });
    many.await.expect_status(StatusCode::OK);
}

async fn a_token_of_a_session_that_was_destroyed_in_this_request_is_an_error(mode: Mode) {
    let (mut browser, _) = visitor(&browser(mode)).await;
    let logout = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.destroy();
        assert_matches!(session.csrf_token(), Err(SessionError::Gone));
        drop(session.commit().await?);
        // A page for whoever comes next has a session of its own.
        let mut session = visit.session().await?;
        let token = session.csrf_token()?;
        Ok((session.commit().await?, token).into_response())
    });
    let answer = logout.await.expect_status(StatusCode::OK);
    expect_good(&mut browser, &answer.body).await;
}

async fn what_a_clear_or_a_new_id_does_to_a_fresh_session_leaves_its_token_good(mode: Mode) {
    for act in [
        |session: &mut Session<Visits>| session.clear(),
        |session: &mut Session<Visits>| session.regenerate(),
    ] {
        let mut browser = browser(mode);
        let first = run(&mut browser, async move |mut visit: Visit<Visits>| {
            let mut session = visit.session().await?;
            session.count = 1;
            let token = session.csrf_token()?;
            act(&mut session);
            Ok((session.commit().await?, token).into_response())
        });
        let answer = first.await.expect_status(StatusCode::OK);
        expect_good(&mut browser, &answer.body).await;
    }
}

async fn an_id_generator_is_asked_once_for_the_token_and_the_session(mode: Mode) {
    let draws = Arc::new(AtomicU8::new(0));
    let count = draws.clone();
    let sessions = mode
        .builder::<Visits>(&ManualClock::new())
        .id_generator(move |_| [count.fetch_add(1, Ordering::SeqCst) + 1; 32]);
    let mut browser = Browser::new(visited(sessions.build().unwrap()));
    expect_refused(&mut browser, "x").await;
    assert_eq!(draws.load(Ordering::SeqCst), 0, "a check draws nothing");
    let token = token_of(&mut browser).await;
    assert_eq!(draws.load(Ordering::SeqCst), 1);
    expect_good(&mut browser, &token).await;
    let tell = run(&mut browser, async |mut visit: Visit<Visits>| {
        let session = visit.session().await?;
        assert_eq!(session.id().unwrap().as_bytes()[..16], [1; 16]);
        Ok(session.commit().await?.into_response())
    });
    tell.await.expect_status(StatusCode::OK);
    assert_eq!(draws.load(Ordering::SeqCst), 1);
}

/// The page's frame shows the token, and the handler knows nothing of it.
async fn under_the_layer_a_token_that_nobody_committed_is_good(mode: Mode) {
    #[derive(Clone)]
    struct Token(String);
    async fn frame(
        State(_): State<SessionManager<Visits>>,
        mut session: Session<Visits>,
        mut request: Request,
        next: Next,
    ) -> Result<Response, SessionError> {
        let token = session.csrf_token()?;
        drop(session);
        request.extensions_mut().insert(Token(token));
        Ok(next.run(request).await)
    }
    async fn reads(Extension(Token(token)): Extension<Token>) -> String {
        token
    }
    async fn counts(
        Extension(Token(token)): Extension<Token>,
        mut session: Session<Visits>,
    ) -> Result<String, SessionError> {
        session.count += 1;
        assert_eq!(session.csrf_token()?, token);
        Ok(token)
    }
    let sessions = sessions(mode);
    let app = Router::new()
        .route("/reads", get(reads))
        .route("/counts", get(counts))
        .layer(from_fn_with_state(sessions.clone(), frame))
        .layer(AutoCommitLayer::new())
        .with_state(sessions.clone());
    for path in ["/reads", "/counts"] {
        let mut browser = Browser::new(app.clone());
        let token = browser.get(path).await.expect_status(StatusCode::OK).body;
        let mut browser = browser.at(&visited(sessions.clone()));
        expect_good(&mut browser, &token).await;
    }
}

async fn under_the_layer_a_dropped_regenerate_is_known_to_the_next_token(mode: Mode) {
    let (mut browser, old) = visitor(&layered(mode)).await;
    let login = run(&mut browser, async |mut visit: Visit<Visits>| {
        visit.session().await?.regenerate();
        Ok(visit.session().await?.csrf_token()?.into_response())
    });
    let new = login.await.expect_status(StatusCode::OK).body;
    expect_refused(&mut browser, &old).await;
    expect_good(&mut browser, &new).await;
}

async fn under_the_layer_a_dropped_destroy_is_known_to_the_next_token(mode: Mode) {
    let (mut browser, old) = visitor(&layered(mode)).await;
    let logout = run(&mut browser, async |mut visit: Visit<Visits>| {
        visit.session().await?.destroy();
        Ok(visit.session().await?.csrf_token()?.into_response())
    });
    let new = logout.await.expect_status(StatusCode::OK).body;
    expect_refused(&mut browser, &old).await;
    expect_good(&mut browser, &new).await;
}

async fn a_forged_request_logs_no_warning(mode: Mode) {
    let (mut browser, _) = visitor(&browser(mode)).await;
    let log = Log::start();
    let forged = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.count += 1;
        session.verify_csrf("forged")?;
        Ok(session.commit().await?.into_response())
    });
    forged.await.expect_error(StatusCode::FORBIDDEN);
    assert_eq!(log.take(), <[&str; 0]>::default());
}

/// A shared cache would serve the token of one visitor to another.
async fn a_token_on_a_page_without_a_guard_is_warned_of(mode: Mode) {
    let (mut browser, _) = visitor(&browser(mode)).await;
    let log = Log::start();
    let careless = run(&mut browser, async |mut visit: Visit<Visits>| {
        Ok(visit.session().await?.csrf_token()?.into_response())
    });
    careless.await.expect_status(StatusCode::OK);
    let lines = log.take();
    assert!(matches!(&lines[..], [line] if line.contains("guard")), "{lines:?}");
}

async fn kinds_have_tokens_of_their_own(mode: Mode) {
    // Of RFC 5869 with SHA-256: the salt is `axum-typed-session v1`, the info `axum-typed-session v1 csrf`, audience
    // and kind, each of these two behind its length in eight bytes.
    let tokens = match mode {
        Mode::Cookie => [
            "PONoybcpoZVBRZSb4HJJtg5QTPXzwisny1WIPm2XALM",
            "4LFzimoJwpX-wnzWGgUlTRyWBUy5n30SO5VOvfeu8Xc",
        ],
        Mode::Store => [
            "jCTmjGkXpzQh52CMFJpi1HDvIc6LAdYNZa5hkHRGSmQ",
            "7FTQdGWhEPxrPGPElgkU-YYCzw9Si9a9LVKP1utvPBg",
        ],
    };
    for (kind, token) in ["visits", "carts"].into_iter().zip(tokens) {
        let sessions = mode.builder::<Visits>(&ManualClock::new()).audience("shop").kind(kind);
        let sessions = sessions.id_generator(|_| [7; 32]).build().unwrap();
        assert_eq!(token_of(&mut Browser::new(visited(sessions))).await, token);
    }
}

fn over(store: &ProbeStore, clock: &ManualClock) -> SessionManagerBuilder<Visits> {
    SessionManager::builder().clock(clock.clone()).store(store.clone())
}

#[tokio::test]
async fn showing_and_checking_a_token_costs_no_store_call() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let browser = Browser::new(visited(over(&store, &clock).build().unwrap()));
    let (mut browser, token) = visitor(&browser).await;
    assert_eq!(store.take_calls(), ["save"]);
    page(&mut browser).await;
    expect_refused(&mut browser, "x").await;
    assert_eq!(store.take_calls(), ["load", "load"]);
    expect_good(&mut browser, &token).await;
}

/// No token of this request could be good: the client has another session, whose id only it knows.
#[tokio::test]
async fn a_page_of_an_id_that_was_just_replaced_is_gone() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let browser = Browser::new(visited(over(&store, &clock).build().unwrap()));
    let (mut browser, _) = visitor(&browser).await;
    let mut old = browser.clone();
    change(&mut browser, |session: &mut Session<Visits>| session.regenerate()).await;
    let late = run(&mut old, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        let token = session.csrf_token()?;
        Ok((session.commit().await?, token).into_response())
    });
    late.await.expect_error(StatusCode::CONFLICT).expect_no_cookie();
    // A login of this request proves itself, and its page has the token of what it begins.
    let login = run(&mut old, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        session.regenerate();
        let token = session.csrf_token()?;
        Ok((session.commit().await?, token).into_response())
    });
    let token = login.await.expect_status(StatusCode::OK).body;
    expect_good(&mut old, &token).await;
}

#[tokio::test]
async fn a_save_that_fails_uses_its_id_up() {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let mut browser = Browser::new(visited(over(&store, &clock).build().unwrap()));
    store.fail("save");
    let twice = run(&mut browser, async |mut visit: Visit<Visits>| {
        let mut session = visit.session().await?;
        let first = session.csrf_token()?;
        assert_matches!(session.commit().await, Err(SessionError::Store(_)));
        let second = visit.session().await?.csrf_token()?;
        assert_ne!(first, second, "the row may be there");
        Ok(().into_response())
    });
    twice.await.expect_status(StatusCode::OK);
}

#[tokio::test]
async fn an_expired_session_proves_nothing() {
    let clock = ManualClock::new();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let sessions = SessionManager::<Visits>::builder().clock(clock.clone()).store(store);
    let browser = Browser::new(visited(sessions.idle_timeout(SECOND).build().unwrap()));
    let (mut browser, token) = visitor(&browser).await;
    clock.advance(SECOND);
    expect_refused(&mut browser, &token).await;
}

#[tokio::test]
async fn the_token_shows_nothing_of_the_id() {
    let (mut browser, token) = visitor(&browser(Mode::Store)).await;
    let cookie = browser.token();
    let key = key_of(&mut browser).await.unwrap().to_base64url();
    let pieces = |text: &str| -> HashSet<String> {
        text.as_bytes().windows(6).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
    };
    assert!(pieces(&token).is_disjoint(&pieces(&cookie)));
    assert!(pieces(&token).is_disjoint(&pieces(&key)));
}
