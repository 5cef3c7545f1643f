//! Sessions of another library go on as sessions of this crate, once each, and with the time that they had left.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use axum_typed_session::{
    Counter, Key, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder, StoreError, Transport,
    cookie::Cookie,
    import::{OldSession, OldSessions},
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
    time::OffsetDateTime,
};
use http::{Request, StatusCode, header, request::Parts};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{
    logs::Log,
    options::same_shape,
    support::{
        Answer, Browser, COOKIE, Change, DAY, EventLog, HOUR, MINUTE, Mode, SECOND, Visits,
        changing, key, scripted, send,
    },
};

/// Where the data lives, and whether old sessions are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Cookie,
    CookieWithList,
    Store,
    EncryptedRows,
}

const HOMES: [Home; 4] = [Home::Cookie, Home::CookieWithList, Home::Store, Home::EncryptedRows];

/// Those that import an old session once.
const REMEMBERING: [Home; 3] = [Home::CookieWithList, Home::Store, Home::EncryptedRows];

/// A library whose cookie holds the count, in a form that nobody forges in these tests.
#[derive(Clone)]
struct Library {
    expires_at: Option<OffsetDateTime>,
    is_unique: bool,
    asked: Arc<AtomicUsize>,
    fails: Arc<Mutex<Option<Failure>>>,
}

#[derive(Clone, Copy)]
enum Failure {
    Down,
    Hangs,
}

impl Library {
    fn new(expires_at: Option<OffsetDateTime>) -> Self {
        Self { expires_at, is_unique: true, asked: Arc::default(), fails: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

fn old_cookie(headers: &http::HeaderMap) -> Option<String> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?.to_owned();
    let cookies = Cookie::split_parse(cookies).flatten();
    cookies.into_iter().find(|cookie| cookie.name() == "old:id").map(|old| old.value().to_owned())
}

#[async_trait::async_trait]
impl OldSessions<Visits> for Library {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![Cookie::new("old:id", ""), Cookie::build("old:id.sig").path("/shop").into()]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<Visits>>, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let fails = *self.fails.lock().unwrap();
        match fails {
            Some(Failure::Down) => return Err(StoreError::unavailable("the old store is down")),
            Some(Failure::Hangs) => std::future::pending().await,
            None => {}
        }
        let Some(text) = old_cookie(&request.headers) else { return Ok(None) };
        let Ok(count) = text.parse() else { return Ok(None) };
        let mut old = OldSession::new(Visits { count }, text);
        old.expires_at = self.expires_at;
        old.credential = old.credential.filter(|_| self.is_unique);
        Ok(Some(old))
    }
}

/// A site that imports from a [`Library`].
struct Site {
    home: Home,
    clock: ManualClock,
    store: MemoryStore,
    library: Library,
    events: EventLog,
    until: OffsetDateTime,
}

impl Site {
    fn new(home: Home) -> Self {
        Self::with(home, None)
    }

    /// A site whose old sessions have so long left.
    fn with(home: Home, left: Option<Duration>) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        let now = axum_typed_session::Clock::now(&clock);
        let library = Library::new(left.map(|left| now + left));
        Self { home, clock, store, library, events: EventLog::default(), until: now + 30 * DAY }
    }

    fn builder(&self, keys: impl Into<KeyRing>) -> SessionManagerBuilder<Visits> {
        let (builder, store) =
            (SessionManager::builder().clock(self.clock.clone()), self.store.clone());
        let builder = builder
            .keys(keys)
            .on_event(self.events.hook())
            .import(self.until, self.library.clone());
        match self.home {
            Home::Cookie => builder,
            Home::CookieWithList => builder.revocations(store),
            Home::Store => builder.store(store),
            Home::EncryptedRows => builder.store(store).encrypt_rows(true),
        }
    }

    fn app(&self) -> Router {
        scripted(self.builder(key()).build().unwrap())
    }

    /// The JSON of a [`Cart`].
    fn cart(items: i64) -> String {
        let mut cart = Cart::default();
        cart.items += items;
        serde_json::to_string(&cart).unwrap()
    }

    /// A browser that brings the old session with the count 7.
    fn browser(&self) -> Browser {
        let mut browser = Browser::new(self.app());
        browser.jar.insert("old:id".to_owned(), "7".to_owned());
        browser
    }
}

/// Expects the session cookie to be set and the old ones to be removed.
#[track_caller]
fn expect_moved(answer: &Answer) {
    let mut cookies = answer.set_cookies();
    let set = cookies.iter().position(|cookie| cookie.starts_with(COOKIE)).expect("a session");
    assert!(!cookies.remove(set).contains("Max-Age=0;"));
    expect_removals(&cookies);
}

#[track_caller]
fn expect_removals(cookies: &[&str]) {
    let removal = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(
        cookies,
        [format!("old:id=; Path=/; {removal}"), format!("old:id.sig=; Path=/shop; {removal}")]
    );
}

#[tokio::test]
async fn an_unchanged_old_session_moves_with_the_first_commit() {
    for home in HOMES {
        let site = Site::new(home);
        let mut browser = site.browser();
        let answer = browser.get("/read").await.expect(StatusCode::OK, "7");
        expect_moved(&answer);
        assert_eq!(site.events.take(), ["imported"], "{home:?}");
        assert!(!browser.jar.contains_key("old:id"));
        browser.get("/add").await.expect(StatusCode::OK, "8");
        browser.get("/read").await.expect(StatusCode::OK, "8").expect_no_cookie();
        assert_eq!(site.events.take(), ["saved"]);
        assert_eq!(site.library.asked(), 1, "a valid session came in after the first request");
    }
}

#[tokio::test]
async fn an_old_session_is_no_new_one_and_moves_with_its_first_change() {
    for home in HOMES {
        let site = Site::new(home);
        let mut browser = site.browser();
        browser.get("/new").await.expect(StatusCode::OK, "false");
        let mut browser = Site::new(home).browser();
        expect_moved(&browser.get("/add/commit/add").await.expect(StatusCode::OK, "9"));
        browser.get("/read").await.expect(StatusCode::OK, "9");
    }
}

/// The id is derived with the key, so nobody can have planted it.
#[tokio::test]
async fn a_change_of_an_imported_session_does_not_warn_of_an_id_that_a_sign_in_keeps() {
    for home in HOMES {
        let mut browser = Site::new(home).browser();
        let log = Log::start();
        browser.get("/add").await.expect(StatusCode::OK, "8");
        let lines = log.take();
        assert!(!lines.iter().any(|line| line.contains("signed in")), "{home:?}: {lines:?}");
    }
}

#[tokio::test]
async fn a_handler_that_fails_before_its_commit_has_imported_nothing() {
    for home in HOMES {
        let site = Site::new(home);
        let mut browser = site.browser();
        browser.get("/add/fail").await.expect_no_cookie();
        assert!(site.store.is_empty(), "{home:?}");
        site.clock.advance(HOUR);
        expect_moved(&browser.get("/read").await.expect(StatusCode::OK, "7"));
    }
}

#[tokio::test]
async fn a_used_old_cookie_is_refused_after_the_grace() {
    for home in REMEMBERING {
        let site = Site::new(home);
        site.browser().get("/add").await.expect(StatusCode::OK, "8");
        site.events.take();
        site.clock.advance(Duration::from_secs(10));
        let answer = site.browser().get("/read").await.expect(StatusCode::OK, "0");
        answer.expect_no_cookie();
        assert_eq!(site.events.take(), ["revoked"], "{home:?}");
        site.clock.advance(25 * DAY);
        site.browser().get("/read").await.expect(StatusCode::OK, "0");
    }
}

#[tokio::test]
async fn requests_sent_with_the_old_cookie_before_the_new_one_came_reach_the_same_session() {
    for home in REMEMBERING {
        let site = Site::new(home);
        let id = site.browser().get("/read/id").await.body;
        let again = site.browser().get("/add/id").await;
        assert_eq!(again.body, id, "{home:?}");
        expect_moved(&again);
        assert_eq!(site.events.take(), ["imported", "saved"]);
    }
    // In a store the second request sees what the first has written.
    let site = Site::new(Home::Store);
    site.browser().get("/add").await;
    expect_moved(&site.browser().get("/read").await.expect(StatusCode::OK, "8"));
}

#[tokio::test]
async fn two_old_cookies_become_two_sessions_and_other_keys_make_other_ids() {
    let site = Site::new(Home::Cookie);
    let (app, other) = (site.app(), scripted(site.builder(Key::generate()).build().unwrap()));
    for app in [&app, &other] {
        let request = |old: &str| Request::get("/id").header(header::COOKIE, old.to_owned());
        let one = send(app, request("old:id=7")).await.body;
        let two = send(app, request("old:id=8")).await.body;
        assert_ne!(one, two);
        assert_eq!(send(app, request("old:id=7")).await.body, one);
    }
    let request = || Request::get("/id").header(header::COOKIE, "old:id=7");
    assert_ne!(send(&app, request()).await.body, send(&other, request()).await.body);
}

#[tokio::test]
async fn sessions_that_cannot_be_told_apart_are_not_shared() {
    for home in HOMES {
        let mut site = Site::new(home);
        site.library.is_unique = false;
        let (mut one, mut two) = (site.browser(), site.browser());
        let (first, second) = (one.get("/add/id").await, two.get("/add/id").await);
        assert_ne!(first.body, second.body, "{home:?}");
        expect_moved(&second);
        for browser in [&mut one, &mut two] {
            browser.get("/add").await.expect(StatusCode::OK, "9");
        }
        let events = site.events.take();
        assert_eq!(events.iter().filter(|event| **event == "imported").count(), 2);
        site.clock.advance(MINUTE);
        site.browser().get("/destroy").await.expect(StatusCode::OK, "7");
    }
}

#[tokio::test]
async fn a_destroy_ends_the_old_session_for_good() {
    for home in REMEMBERING {
        for path in ["/destroy", "/add/destroy", "/read/commit/destroy"] {
            let site = Site::new(home);
            let mut browser = site.browser();
            let answer = browser.get(path).await;
            let mut cookies = answer.set_cookies();
            let removed = cookies.pop().unwrap();
            assert!(removed.starts_with(COOKIE) && removed.contains("Max-Age=0;"), "{removed}");
            expect_removals(&cookies);
            // At once, and later.
            for _ in 0..2 {
                site.browser().get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
                site.clock.advance(MINUTE);
            }
            assert!(!site.events.take().contains(&"created"), "{home:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_new_session_that_imports_nothing_leaves_old_cookies_to_the_old_application() {
    for home in HOMES {
        let site = Site::new(home);
        let mut browser = Browser::new(site.app());
        browser.jar.insert("old:id".to_owned(), "what the reader does not take".to_owned());
        for path in ["/add", "/add", "/regenerate"] {
            let answer = browser.get(path).await;
            let others = answer.set_cookies().into_iter().filter(|set| !set.starts_with(COOKIE));
            assert_eq!(others.count(), 0, "{home:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_former_cookie_takes_no_old_cookie_with_it() {
    let site = Site::new(Home::Store);
    let builder = site.builder(key()).former_cookie(Cookie::new("sid", ""));
    let sessions = builder.build().unwrap();
    let created = sessions.create(Visits { count: 1 }).await.unwrap();
    let mut browser = Browser::new(scripted(sessions));
    browser.jar.insert("old:id".to_owned(), "what the reader does not take".to_owned());
    let answer = browser.get("/add").await;
    let headers = created.headers().get_all(header::SET_COOKIE).iter();
    let headers = headers.map(|value| value.to_str().unwrap());
    for set in answer.set_cookies().into_iter().chain(headers) {
        assert!(!set.starts_with("old:"), "{set}");
    }
}

#[tokio::test]
async fn a_destroy_of_a_later_request_removes_old_cookies_too() {
    for home in HOMES {
        let site = Site::new(home);
        let mut browser = site.browser();
        browser.get("/add").await;
        if home != Home::Cookie {
            let answer = browser.get("/destroy").await;
            expect_removals(&answer.set_cookies()[..2]);
            site.browser().get("/read").await.expect(StatusCode::OK, "0");
        }
        let mut nobody = Browser::new(site.app());
        nobody.jar.insert("old:id".to_owned(), "forged".to_owned());
        let answer = nobody.get("/destroy").await;
        expect_removals(&answer.set_cookies()[..2]);
    }
}

/// Sends a request that imports the old session, and waits at the gate before it makes this change and commits.
async fn slow_import(site: &Site, change: fn(&mut Session<Visits>)) -> (Gate, JoinHandle<Answer>) {
    let gate = Gate::new();
    let change = Change::behind(gate.clone(), change);
    let mut browser = site.browser().at(&changing(site.builder(key()).build().unwrap()));
    let answer = tokio::spawn(async move { browser.send_with(Request::post("/"), change).await });
    gate.reached(1).await;
    (gate, answer)
}

#[tokio::test]
async fn a_session_that_was_signed_out_is_not_brought_back_by_a_slow_request() {
    for home in REMEMBERING {
        let site = Site::new(home);
        let (gate, slow) = slow_import(&site, |visits| visits.count += 1).await;
        let mut fast = site.browser();
        fast.get("/add").await.expect(StatusCode::OK, "8");
        fast.get("/destroy").await;
        gate.open();
        slow.await.unwrap().expect_error(StatusCode::CONFLICT);
        site.browser().get("/read").await.expect(StatusCode::OK, "0");
    }
}

#[tokio::test]
async fn an_unchanged_slow_request_does_not_bring_it_back_either() {
    let site = Site::new(Home::Store);
    let (gate, slow) = slow_import(&site, |_| {}).await;
    let mut fast = site.browser();
    fast.get("/read").await.expect(StatusCode::OK, "7");
    fast.get("/destroy").await;
    gate.open();
    slow.await.unwrap().expect_no_cookie();
    site.browser().get("/read").await.expect(StatusCode::OK, "0");
}

#[tokio::test]
async fn an_unchanged_slow_request_does_not_bring_back_an_id_that_was_replaced() {
    let site = Site::new(Home::Store);
    let (gate, slow) = slow_import(&site, |_| {}).await;
    expect_moved(&site.browser().get("/add/regenerate").await.expect(StatusCode::OK, "8"));
    gate.open();
    slow.await.unwrap().expect_status(StatusCode::OK).expect_no_cookie();
}

#[tokio::test]
async fn a_node_answers_503_where_a_newer_one_has_imported_the_session() {
    for home in [Home::Store, Home::EncryptedRows] {
        let site = Site::new(home);
        let newer = site.builder(key()).schema_version(2).migrate(same_shape).build().unwrap();
        site.browser().at(&scripted(newer)).get("/add").await.expect(StatusCode::OK, "8");
        let answer = site.browser().get("/read").await;
        answer.expect_error(StatusCode::SERVICE_UNAVAILABLE).expect_no_cookie();
    }
}

/// Data whose parallel changes add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Counter,
}

struct Carts;

#[async_trait::async_trait]
impl OldSessions<Cart> for Carts {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![Cookie::new("old:id", "")]
    }

    async fn find(&self, request: &Parts) -> Result<Option<OldSession<Cart>>, StoreError> {
        let old = old_cookie(&request.headers);
        Ok(old.map(|old| {
            let mut cart = Cart::default();
            cart.items += old.parse::<i64>().unwrap();
            OldSession::new(cart, old)
        }))
    }
}

#[tokio::test]
async fn parallel_imports_with_changes_are_merged() {
    let clock = ManualClock::new();
    let until = axum_typed_session::Clock::now(&clock) + DAY;
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let sessions = SessionManager::<Cart>::builder()
        .clock(clock)
        .keys(key())
        .store(store)
        .import(until, Carts)
        .build()
        .unwrap();
    let app = changing(sessions);
    let gate = Gate::new();
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let add = Change::behind(gate.clone(), |cart: &mut Session<Cart>| cart.items += 1);
            let mut browser = Browser::new(app.clone());
            browser.jar.insert("old:id".to_owned(), "7".to_owned());
            tokio::spawn(async move {
                browser.send_with(Request::post("/"), add).await.expect_status(StatusCode::OK);
                browser
            })
        })
        .collect();
    gate.reached(3).await;
    gate.open();
    let mut browsers = Vec::new();
    for task in tasks {
        browsers.push(task.await.unwrap());
    }
    for mut browser in browsers {
        assert_eq!(browser.get("/").await.body, Site::cart(10));
    }
    let mut last = Browser::new(app);
    last.jar.insert("old:id".to_owned(), "7".to_owned());
    assert_eq!(last.get("/").await.body, Site::cart(10), "also in the grace");
}

#[tokio::test]
async fn a_login_at_once_gets_a_new_id_and_ends_the_derived_one() {
    for home in REMEMBERING {
        let site = Site::new(home);
        let mut browser = site.browser();
        let before = site.browser().get("/read/id").await.body;
        let answer = browser.get("/add/regenerate").await.expect(StatusCode::OK, "8");
        expect_moved(&answer);
        let after = browser.get("/read/id").await.body;
        assert_ne!(before, after, "{home:?}");
        // A request that is late reaches the tombstone, and cannot overwrite the login.
        site.browser().get("/add").await.expect_error(StatusCode::CONFLICT);
        site.browser().get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
        browser.get("/read").await.expect(StatusCode::OK, "8");
    }
}

#[tokio::test]
async fn a_session_lives_for_the_time_that_the_old_one_had_left() {
    for home in HOMES {
        let site = Site::with(home, Some(HOUR));
        let mut browser = site.browser();
        browser.get("/read").await.expect(StatusCode::OK, "7");
        site.clock.advance(HOUR - SECOND);
        browser.get("/read").await.expect(StatusCode::OK, "7");
        site.clock.advance(SECOND);
        browser.get("/read").await.expect(StatusCode::OK, "0");

        let site = Site::with(home, Some(HOUR));
        let mut saved = site.browser();
        saved.get("/add").await;
        site.clock.advance(DAY - SECOND);
        saved.get("/read").await.expect(StatusCode::OK, "8");
    }
}

#[tokio::test]
async fn a_session_lives_no_longer_than_the_options_allow() {
    for home in HOMES {
        let site = Site::with(home, Some(25 * DAY));
        let mut browser = site.browser();
        browser.get("/read").await.expect(StatusCode::OK, "7");
        site.clock.advance(DAY);
        browser.get("/read").await.expect(StatusCode::OK, "0");
    }
}

#[tokio::test]
async fn expired_old_sessions_and_those_after_the_date_are_not_imported() {
    for home in HOMES {
        let site = Site::with(home, Some(HOUR));
        site.clock.advance(HOUR);
        site.browser().get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
        assert_eq!(site.events.take(), ["expired"]);

        let site = Site::new(home);
        site.clock.advance(30 * DAY - SECOND);
        site.browser().get("/read").await.expect(StatusCode::OK, "7");
        assert_eq!(site.library.asked(), 1);
        site.clock.advance(SECOND);
        site.browser().get("/read").await.expect(StatusCode::OK, "0");
        assert_eq!(site.library.asked(), 0);
    }
}

#[tokio::test]
async fn only_a_request_with_an_old_cookie_and_without_a_session_asks() {
    let site = Site::new(Home::Store);
    let mut nobody = Browser::new(site.app());
    nobody.get("/add").await.expect(StatusCode::OK, "1");
    assert_eq!(site.library.asked(), 0, "no old cookie came");
    nobody.jar.insert("old:id".to_owned(), "7".to_owned());
    nobody.get("/add").await.expect(StatusCode::OK, "2");
    assert_eq!(site.library.asked(), 0, "a session came");
    nobody.jar.insert(COOKIE.to_owned(), "forged".to_owned());
    nobody.get("/read").await.expect(StatusCode::OK, "7");
    assert_eq!(site.library.asked(), 1);
}

#[tokio::test]
async fn a_request_whose_id_was_replaced_imports_nothing() {
    let site = Site::new(Home::Store);
    let mut browser = Browser::new(site.app());
    browser.get("/add").await;
    let mut late = browser.clone();
    browser.get("/regenerate").await;
    late.jar.insert("old:id".to_owned(), "7".to_owned());
    late.get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
    assert_eq!(site.library.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_library_that_cannot_be_asked_signs_nobody_out() {
    for failure in [Failure::Down, Failure::Hangs] {
        let site = Site::new(Home::Store);
        *site.library.fails.lock().unwrap() = Some(failure);
        let mut browser = site.browser();
        browser.get("/read").await.expect_error(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(site.events.take(), ["store_error"]);
        *site.library.fails.lock().unwrap() = None;
        browser.get("/read").await.expect(StatusCode::OK, "7");
    }
}

#[tokio::test]
async fn a_store_that_fails_in_the_middle_loses_no_old_session() {
    for home in [Home::CookieWithList, Home::Store] {
        for fails_at in 0..6 {
            let mut site = Site::new(home);
            let store = FaultyStore::new(site.store.clone());
            site.home = Home::Cookie;
            let builder = site.builder(key());
            let builder = if home == Home::Store {
                builder.store(store.clone())
            } else {
                builder.revocations(store.clone())
            };
            let mut browser = site.browser().at(&scripted(builder.build().unwrap()));
            store.inject_next(fails_at, Operation::all(), Fault::Pass);
            // A write is tried twice.
            store.inject_next(2, Operation::all(), Fault::Fail);
            let _ = browser.get("/add").await;
            store.heal();
            let answer = browser.get("/read").await.expect_status(StatusCode::OK);
            assert!(["7", "8"].contains(&&*answer.body), "{home:?} {fails_at}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn rejected_data_is_not_imported() {
    for home in HOMES {
        let site = Site::new(home);
        let sessions = site
            .builder(key())
            .validate(|parts, visits| parts.uri.path() != "/read" || visits.count != 7);
        let app = scripted(sessions.build().unwrap());
        let mut browser = site.browser().at(&app);
        browser.get("/read").await.expect(StatusCode::OK, "0").expect_no_cookie();
        assert_eq!(site.events.take(), ["invalid"]);
        browser.get("/add").await.expect(StatusCode::OK, "8");
        let site = Site::new(home);
        let sessions = site.builder(key()).validate_data(|visits| visits.count != 7);
        let app = scripted(sessions.build().unwrap());
        site.browser().at(&app).get("/read").await.expect(StatusCode::OK, "0");
    }
}

#[tokio::test]
async fn update_saves_an_imported_session_first() {
    for home in HOMES {
        let site = Site::new(home);
        let sessions = site.builder(key()).build().unwrap();
        let update = |mut session: Session<Visits>| async move {
            let count = session.update(|visits| {
                visits.count += 1;
                visits.count
            });
            let body = count.await?.to_string();
            Ok::<_, SessionError>((session.commit().await?, body))
        };
        let app = Router::new().route("/", post(update)).with_state(sessions.clone());
        let mut browser = site.browser().at(&app);
        expect_moved(&browser.post("/").await.expect(StatusCode::OK, "8"));
        browser.post("/").await.expect(StatusCode::OK, "9");
    }
}

#[tokio::test]
async fn a_node_with_other_keys_first_finds_the_imported_session_and_its_mark() {
    let (old, new) = (Key::generate(), Key::generate());
    for home in REMEMBERING {
        let site = Site::new(home);
        let before = KeyRing::new(old.clone()).accept_next(new.clone());
        let after = KeyRing::new(new.clone()).accept_former(old.clone());
        let before = scripted(site.builder(before).build().unwrap());
        let after = scripted(site.builder(after).build().unwrap());
        let one = site.browser().at(&before).get("/id").await.body;
        let two = site.browser().at(&after).get("/id").await.body;
        assert_eq!(one, two, "{home:?}");
        site.clock.advance(MINUTE);
        site.browser().at(&after).get("/read").await.expect(StatusCode::OK, "0");
    }
}

/// An application whose old session fits into no cookie of its own.
#[tokio::test]
async fn an_old_session_that_fits_into_no_cookie_stays_where_it_is() {
    let site = Site::new(Home::CookieWithList);
    let mut browser = site.browser().at(&long(&site, 4_000));
    let answer = browser.get("/").await.expect(StatusCode::OK, "4000");
    answer.expect_no_cookie();
    assert!(site.store.is_empty());
    browser.post("/").await.expect_error(StatusCode::INTERNAL_SERVER_ERROR);
    assert!(site.store.is_empty());
    browser.get("/").await.expect(StatusCode::OK, "4000");
    let mut browser = site.browser().at(&long(&site, 1_000));
    expect_moved(&browser.get("/").await.expect(StatusCode::OK, "1000"));
}

struct Long(usize);

#[async_trait::async_trait]
impl OldSessions<String> for Long {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        Library::new(None).cookies()
    }

    async fn find(&self, _: &Parts) -> Result<Option<OldSession<String>>, StoreError> {
        Ok(Some(OldSession::new("a".repeat(self.0), "7")))
    }
}

/// An app whose old sessions are texts of this length.
fn long(site: &Site, len: usize) -> Router {
    let sessions = SessionManager::<String>::builder()
        .clock(site.clock.clone())
        .keys(key())
        .revocations(site.store.clone())
        .import(site.until, Long(len))
        .build()
        .unwrap();
    let get = async |session: Session<String>| {
        let body = session.len().to_string();
        Ok::<_, SessionError>((session.commit().await?, body))
    };
    let post = async |mut session: Session<String>| {
        session.push('a');
        session.commit().await
    };
    Router::new().route("/", axum::routing::get(get).post(post)).with_state(sessions)
}

/// A library with a cookie of this name.
struct Same(&'static str);

#[async_trait::async_trait]
impl OldSessions<Visits> for Same {
    fn cookies(&self) -> Vec<Cookie<'static>> {
        vec![Cookie::new(self.0, "")]
    }

    async fn find(&self, _: &Parts) -> Result<Option<OldSession<Visits>>, StoreError> {
        Ok(None)
    }
}

#[test]
fn imports_need_keys_and_a_cookie_of_another_name() {
    let clock = ManualClock::new();
    let until = axum_typed_session::Clock::now(&clock) + DAY;
    let refusal = |builder: SessionManagerBuilder<Visits>| {
        let builder = builder.import(until, Library::new(None));
        builder.build().map(|_| ()).unwrap_err().to_string()
    };
    let cookie = || Mode::Cookie.builder::<Visits>(&clock);
    assert_eq!(
        refusal(Mode::Store.builder(&clock)),
        "`.import(..)` needs `.keys(..)`, from which it derives the ids of imported sessions"
    );
    assert_eq!(
        refusal(cookie().transport(Transport::bearer())),
        "`.import(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
    );
    for (name, text) in [
        (
            "session",
            "`.import(..)` would remove the session cookie, since the old cookie is called \"session\" too; give the \
             session another name with `.cookie(..)`",
        ),
        ("", "`.import(..)`: a cookie to remove has a name that no browser sends"),
        ("a;b", "`.import(..)`: a cookie to remove has a name that no browser sends"),
    ] {
        let builder = cookie().cookie(Cookie::new("session", "")).import(until, Same(name));
        assert_eq!(builder.build().map(|_| ()).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_site_without_a_place_for_marks_is_warned() {
    let warning = "keeps no note of the sessions that it imported";
    for home in HOMES {
        let log = Log::start();
        drop(Site::new(home).builder(key()).build().unwrap());
        assert_eq!(log.text().contains(warning), home == Home::Cookie, "{home:?}");
    }
}
