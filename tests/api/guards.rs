//! Several guards in one request: they commit one after another and lose nothing.

use axum::{
    Router,
    extract::{FromRequestParts as _, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionCommit, SessionError, SessionManager, SessionManagerBuilder,
    testing::ManualClock,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Visit, change, run, seen, visited, with_guards},
    support::{Browser, DAY, HOUR, Log, Mode, ProbeStore, SECOND, in_both_modes},
};

in_both_modes! {
    a_middleware_may_write_after_the_handler_wrote,
    a_middleware_may_write_after_the_handler_logged_in,
    two_guards_of_a_fresh_session_make_one,
    two_guards_with_different_fields_both_land,
    two_guards_that_count_are_a_conflict,
    a_conflict_within_a_request_is_warned_of,
    a_stale_guard_goes_on_after_a_new_id_or_a_login,
    a_stale_guard_puts_nothing_into_another_identity,
    a_stale_guard_ends_the_session_there_is_now,
    a_stale_guard_sets_the_life_of_the_session_there_is_now,
    after_a_logout_every_write_is_gone,
    guards_dropped_under_the_layer_are_one_commit,
    guards_dropped_under_the_layer_that_exclude_each_other_change_nothing,
    a_discard_forgets_what_its_own_guard_did,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub user: Option<String>,
    pub last: String,
    pub cart: Vec<String>,
    pub count: u32,
}

impl Page {
    pub fn of(user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..Self::default() }
    }
}

/// Whether the manager knows whose a page is.
pub type WithOwner = bool;

pub fn pages(mode: Mode, clock: &ManualClock, owner: WithOwner) -> SessionManagerBuilder<Page> {
    let builder = mode.builder(clock);
    if owner { builder.owner(|page: &Page| page.user.clone()) } else { builder }
}

/// A browser whose session holds `page`.
pub async fn browser_of(sessions: &SessionManager<Page>, page: Page) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    let answer = change(&mut browser, |session: &mut Session<Page>| {
        **session = page;
        session.force_save();
    });
    assert_eq!(answer.await.told(), "set");
    browser
}

/// What a request to `path` leaves, behind a middleware that writes after the handler.
async fn written_after(mode: Mode, path: &str, layered: bool) -> Page {
    async fn note_last(
        State(sessions): State<SessionManager<Page>>,
        request: Request,
        next: Next,
    ) -> Result<Response, SessionError> {
        let (mut parts, body) = request.into_parts();
        let mut session = Session::<Page>::from_request_parts(&mut parts, &sessions).await?;
        let path = parts.uri.path().to_owned();
        let response = next.run(Request::from_parts(parts, body)).await;
        session.last = path;
        Ok((session.commit().await?, response).into_response())
    }
    async fn add(mut session: Session<Page>) -> Result<SessionCommit, SessionError> {
        session.cart.push("tea".to_owned());
        session.commit().await
    }
    async fn log_in(mut session: Session<Page>) -> Result<SessionCommit, SessionError> {
        session.user = Some("ada".to_owned());
        session.regenerate();
        session.commit().await
    }
    let sessions = pages(mode, &ManualClock::new(), true).build().unwrap();
    let app = Router::new()
        .route("/add", get(add))
        .route("/log-in", get(log_in))
        .layer(from_fn_with_state(sessions.clone(), note_last))
        .with_state(sessions.clone());
    let app = if layered { app.layer(AutoCommitLayer::new()) } else { app };
    let mut browser = Browser::new(app.fallback_service(visited(sessions)));
    for path in ["/add", path] {
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}, layered: {layered}");
    }
    seen(&browser).await.unwrap()
}

async fn a_middleware_may_write_after_the_handler_wrote(mode: Mode) {
    for layered in [false, true] {
        let page = written_after(mode, "/add", layered).await;
        let cart = vec!["tea".to_owned(); 2];
        assert_eq!(page, Page { last: "/add".to_owned(), cart, ..Page::default() });
    }
}

async fn a_middleware_may_write_after_the_handler_logged_in(mode: Mode) {
    for layered in [false, true] {
        let page = written_after(mode, "/log-in", layered).await;
        let cart = vec!["tea".to_owned()];
        assert_eq!(page, Page { last: "/log-in".to_owned(), cart, ..Page::of("ada") });
    }
}

pub type Act = fn(&mut Session<Page>);

pub const NOTE_LAST: Act = |session| "here".clone_into(&mut session.last);
pub const ADD_TEA: Act = |session| session.cart.push("tea".to_owned());
pub const COUNT: Act = |session| session.count += 1;

/// What an outcome is called in these tests.
pub fn word(outcome: &Result<SessionCommit, SessionError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(SessionError::Conflict) => "conflict",
        Err(SessionError::Gone) => "gone",
        Err(error) => panic!("{error}"),
    }
}

/// What two guards of one request came to, the second extracted before the first was committed.
struct TwoGuards {
    words: String,
    told: &'static str,
    /// What the browser's session holds afterwards.
    page: Option<Page>,
    browser: Browser,
    clock: ManualClock,
}

async fn two_guards(
    mode: Mode,
    owner: WithOwner,
    start: Option<Page>,
    first: Act,
    second: Act,
) -> TwoGuards {
    let clock = ManualClock::new();
    let sessions = pages(mode, &clock, owner).build().unwrap();
    let mut browser = match start {
        Some(page) => browser_of(&sessions, page).await,
        None => Browser::new(visited(sessions)),
    };
    clock.advance(SECOND);
    let answer = run(&mut browser, async move |mut visit: Visit<Page>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        first(&mut one);
        second(&mut other);
        let outcomes = [one.commit().await, other.commit().await];
        let words = outcomes.each_ref().map(word).join(" ");
        let guards = outcomes.into_iter().filter_map(Result::ok);
        Ok((with_guards(guards).into_parts().0, words).into_response())
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    let (told, page) = (answer.told(), seen(&browser).await);
    TwoGuards { words: answer.body, told, page, browser, clock }
}

async fn two_guards_of_a_fresh_session_make_one(mode: Mode) {
    let sessions = pages(mode, &ManualClock::new(), false).build().unwrap();
    let mut browser = Browser::new(visited(sessions));
    let answer = run(&mut browser, async |mut visit: Visit<Page>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        NOTE_LAST(&mut one);
        ADD_TEA(&mut other);
        let first = one.commit().await?;
        let id = first.id();
        let last = other.commit().await?;
        assert!(id.is_some() && id == last.id());
        Ok(with_guards([first, last]))
    })
    .await;
    assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"));
    let page = seen::<Page>(&browser).await.unwrap();
    assert_eq!((&*page.last, page.cart.len()), ("here", 1));
}

async fn two_guards_with_different_fields_both_land(mode: Mode) {
    for (first, second, last, count) in [
        (NOTE_LAST, ADD_TEA, "here", 7),
        (ADD_TEA, NOTE_LAST, "here", 7),
        (COUNT, ADD_TEA, "there", 8),
        (ADD_TEA, COUNT, "there", 8),
    ] {
        let start = Page { last: "there".to_owned(), count: 7, ..Page::of("ada") };
        let done = two_guards(mode, true, Some(start), first, second).await;
        let cart = vec!["tea".to_owned()];
        let page = Page { last: last.to_owned(), count, cart, ..Page::of("ada") };
        assert_eq!((&*done.words, done.page), ("ok ok", Some(page)));
    }
}

async fn two_guards_that_count_are_a_conflict(mode: Mode) {
    for start in [None, Some(Page::of("ada")), Some(Page { count: 7, ..Page::default() })] {
        let count = start.as_ref().map_or(0, |page| page.count);
        let done = two_guards(mode, true, start, COUNT, COUNT).await;
        assert_eq!((&*done.words, done.page.unwrap().count), ("ok conflict", count + 1));
    }
}

async fn a_conflict_within_a_request_is_warned_of(mode: Mode) {
    let log = Log::start();
    two_guards(mode, true, Some(Page::of("ada")), COUNT, COUNT).await;
    let lines = log.take();
    assert!(matches!(&lines[..], [line] if line.contains("request")), "{lines:?}");
}

const LOG_IN: Act = |session| session.user = Some("ada".to_owned());
pub const LOG_IN_WITH_NEW_ID: Act = |session| {
    session.user = Some("ada".to_owned());
    session.regenerate();
};

/// It is one client in one order.
async fn a_stale_guard_goes_on_after_a_new_id_or_a_login(mode: Mode) {
    for owner in [true, false] {
        for (name, start, first) in [
            ("a new id", Page::of("ada"), (|session| session.regenerate()) as Act),
            ("a login", Page::default(), LOG_IN),
            ("a login and a new id", Page::default(), LOG_IN_WITH_NEW_ID),
        ] {
            let at = format!("{name}, with an owner: {owner}");
            let done = two_guards(mode, owner, Some(start), first, NOTE_LAST).await;
            let page = Page { last: "here".to_owned(), ..Page::of("ada") };
            assert_eq!((&*done.words, done.page), ("ok ok", Some(page)), "{at}");
            // And again under the id there is now.
            let mut browser = done.browser;
            assert_eq!(change(&mut browser, ADD_TEA).await.status, StatusCode::OK, "{at}");
        }
    }
}

/// What ends an identity but not the session; whether it takes an owner to be seen; what it leaves.
fn boundaries() -> [(&'static str, bool, Act, Page); 4] {
    [
        ("clear", false, Session::clear, Page::default()),
        (
            "clear and a new id",
            false,
            |session| {
                session.clear();
                session.regenerate();
            },
            Page::default(),
        ),
        ("another user", true, |session| session.user = Some("bob".to_owned()), Page::of("bob")),
        ("no user", true, |session| session.user = None, Page::default()),
    ]
}

async fn a_stale_guard_puts_nothing_into_another_identity(mode: Mode) {
    for (name, needs_owner, first, left) in boundaries() {
        for owner in [true, needs_owner] {
            for second in [NOTE_LAST, ADD_TEA, COUNT] {
                let done = two_guards(mode, owner, Some(Page::of("ada")), first, second).await;
                let expected = ("ok conflict", Some(left.clone()));
                assert_eq!((&*done.words, done.page), expected, "{name}, with an owner: {owner}");
            }
        }
    }
}

async fn a_stale_guard_ends_the_session_there_is_now(mode: Mode) {
    let others: [(&str, Act); 3] =
        [("a new id", Session::regenerate), ("a change", COUNT), ("a logout", Session::destroy)];
    let boundaries = boundaries().map(|(name, _, first, _)| (name, first));
    for (name, first) in boundaries.into_iter().chain(others) {
        let done = two_guards(mode, true, Some(Page::of("ada")), first, Session::destroy).await;
        assert_eq!((&*done.words, done.told), ("ok ok", "removed"), "{name}");
        assert_eq!(done.page, None, "{name}");
    }
}

async fn a_stale_guard_sets_the_life_of_the_session_there_is_now(mode: Mode) {
    for (name, _, first, left) in boundaries() {
        let longer: Act = |session| session.set_idle_timeout(2 * DAY);
        let done = two_guards(mode, true, Some(Page::of("ada")), first, longer).await;
        assert_eq!((&*done.words, &done.page), ("ok ok", &Some(left.clone())), "{name}");
        done.clock.advance(DAY + HOUR);
        assert_eq!(seen(&done.browser).await, Some(left), "{name}");
        done.clock.advance(DAY);
        assert_eq!(seen::<Page>(&done.browser).await, None, "{name}");
    }
}

async fn after_a_logout_every_write_is_gone(mode: Mode) {
    let writes: [(&str, Act); 5] = [
        ("a change", COUNT),
        ("a new id with a change", LOG_IN_WITH_NEW_ID),
        ("a save", Session::force_save),
        ("another life", |session| session.set_idle_timeout(2 * DAY)),
        ("clear with a change", |session| {
            session.clear();
            session.count = 9;
        }),
    ];
    for (name, second) in writes {
        let start = Page { count: 3, ..Page::of("ada") };
        let logout: Act = Session::destroy;
        let done = two_guards(mode, true, Some(start), logout, second).await;
        assert_eq!((&*done.words, done.told), ("ok gone", "removed"), "{name}");
        assert_eq!(done.page, None, "{name}");
    }
}

/// A session in a store that lists its calls, on a clock that stands still.
pub async fn probed(page: Page) -> (ProbeStore, SessionManager<Page>, Browser) {
    let clock = ManualClock::new();
    let store = ProbeStore::new(&clock);
    let builder = SessionManager::builder().store(store.clone()).clock(clock);
    let sessions = builder.owner(|page: &Page| page.user.clone()).build().unwrap();
    let browser = browser_of(&sessions, page).await;
    store.take_calls();
    (store, sessions, browser)
}

#[tokio::test]
async fn a_stale_guard_that_changed_nothing_does_nothing() {
    let (store, _, mut browser) = probed(Page::of("ada")).await;
    let answer = run(&mut browser, async |mut visit: Visit<Page>| {
        let (mut one, other) = (visit.session().await?, visit.session().await?);
        NOTE_LAST(&mut one);
        Ok(with_guards([one.commit().await?, other.commit().await?]))
    });
    assert_eq!(answer.await.status, StatusCode::OK);
    assert_eq!(store.take_calls(), ["load", "save"]);
}

/// The handler drops two guards under the layer, the first one first, after these did something.
fn dropped(browser: &Browser, sessions: &SessionManager<Page>, acts: [Act; 2]) -> Browser {
    let handler = move |mut one: Session<Page>, mut other: Session<Page>| async move {
        acts[0](&mut one);
        acts[1](&mut other);
        drop(one);
        drop(other);
    };
    let app = Router::new().route("/drop", get(handler)).layer(AutoCommitLayer::new());
    browser.at(&app.with_state(sessions.clone()).fallback_service(visited(sessions.clone())))
}

async fn guards_dropped_under_the_layer_are_one_commit(mode: Mode) {
    let clear: Act = Session::clear;
    for (name, acts, told, expected) in [
        ("two fields", [NOTE_LAST, ADD_TEA], "saved", Some((Some("ada"), "here", 1))),
        ("a new id", [Session::regenerate, ADD_TEA], "set", Some((Some("ada"), "", 1))),
        ("a new id later", [ADD_TEA, Session::regenerate], "set", Some((Some("ada"), "", 1))),
        ("a logout", [ADD_TEA, Session::destroy], "removed", None),
        ("a clear", [ADD_TEA, clear], "saved", Some((None, "", 0))),
    ] {
        let sessions = pages(mode, &ManualClock::new(), true).build().unwrap();
        let browser = browser_of(&sessions, Page::of("ada")).await;
        let mut browser = dropped(&browser, &sessions, acts);
        let answer = browser.get("/drop").await;
        assert_eq!(answer.status, StatusCode::OK, "{name}");
        let told_of_a_save = if mode == Mode::Cookie { "set" } else { "nothing" };
        let told = if told == "saved" { told_of_a_save } else { told };
        assert_eq!(answer.told(), told, "{name}");
        let page = seen::<Page>(&browser).await;
        let page = page.as_ref().map(|page| (page.user.as_deref(), &*page.last, page.cart.len()));
        assert_eq!(page, expected, "{name}");
    }
}

#[tokio::test]
async fn guards_dropped_under_the_layer_are_one_save() {
    for (acts, calls) in [
        ([NOTE_LAST, ADD_TEA], &["load", "save"][..]),
        ([ADD_TEA, NOTE_LAST], &["load", "save"]),
        ([ADD_TEA, |session| session.set_idle_timeout(2 * DAY)], &["load", "save"]),
        ([ADD_TEA, Session::destroy], &["load", "destroy"]),
    ] {
        let (store, sessions, browser) = probed(Page::of("ada")).await;
        let mut browser = dropped(&browser, &sessions, acts);
        assert_eq!(browser.get("/drop").await.status, StatusCode::OK);
        assert_eq!(store.take_calls(), calls);
    }
}

async fn guards_dropped_under_the_layer_that_exclude_each_other_change_nothing(mode: Mode) {
    let sessions = pages(mode, &ManualClock::new(), true).build().unwrap();
    let start = Page { count: 3, ..Page::of("ada") };
    let browser = browser_of(&sessions, start.clone()).await;
    for acts in [[COUNT, COUNT], [Session::clear, ADD_TEA]] {
        let mut browser = dropped(&browser, &sessions, acts);
        let answer = browser.get("/drop").await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        answer.expect_no_cookie();
        assert_eq!(seen(&browser).await.as_ref(), Some(&start));
    }
}

/// A middleware leaves a change to the layer, and the handler discards its own.
async fn a_discard_forgets_what_its_own_guard_did(mode: Mode) {
    async fn adds(mut session: Session<Page>, request: Request, next: Next) -> Response {
        session.cart.push("tea".to_owned());
        drop(session);
        next.run(request).await
    }
    let sessions = pages(mode, &ManualClock::new(), true).build().unwrap();
    let browser = browser_of(&sessions, Page::of("ada")).await;
    let discards = async |mut session: Session<Page>| {
        session.count = 9;
        let seen = session.cart.len().to_string();
        session.discard();
        seen
    };
    let app = Router::new()
        .route("/discard", get(discards))
        .layer(from_fn_with_state(sessions.clone(), adds))
        .layer(AutoCommitLayer::new())
        .with_state(sessions.clone());
    let mut browser = browser.at(&app.fallback_service(visited(sessions)));
    browser.get("/discard").await.expect(StatusCode::OK, "1");
    let page = seen::<Page>(&browser).await.unwrap();
    assert_eq!((page.cart.len(), page.count), (1, 0));
}
