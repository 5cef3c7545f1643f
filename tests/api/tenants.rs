//! Several tenants in one application: each request chooses its cookie, its audience and its store, and nothing of one
//! tenant means anything to another.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_typed_session::{
    AutoCommitLayer, EndReason, MemoryStore, Session, SessionError, SessionHandle, SessionManager,
    SessionManagerBuilder, SessionStore, StoreError, StoreKey, Transport,
    cookie::Cookie,
    testing::{ManualClock, TestSession},
};
use http::{Request, StatusCode, header, request::Parts};

use crate::{
    logins::{self, Login},
    support::{Answer, COOKIE, DAY, Log, MINUTE, Visits, key, scripted, send},
};

const A: &str = "a.example";
const B: &str = "b.example";

/// Where the data lives, and whether ids are sealed. All tenants share keys and store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Cookie,
    SealedId,
    PlainId,
}

const HOMES: [Home; 3] = [Home::Cookie, Home::SealedId, Home::PlainId];
const STORES: [Home; 2] = [Home::SealedId, Home::PlainId];

impl Home {
    fn builder<T>(self) -> SessionManagerBuilder<T>
    where
        T: Default + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let builder = SessionManager::builder();
        match self {
            Self::Cookie => builder.keys(key()),
            Self::SealedId => builder.keys(key()).store(MemoryStore::new()),
            Self::PlainId => builder.store(MemoryStore::new()),
        }
    }
}

fn host(parts: &Parts) -> String {
    parts.headers.get(header::HOST).unwrap().to_str().unwrap().to_owned()
}

fn cookie_of_host(parts: &Parts) -> Cookie<'static> {
    Cookie::build("id").domain(host(parts)).build()
}

fn request_to(host: &str) -> Parts {
    Request::builder().header(header::HOST, host).body(()).unwrap().into_parts().0
}

/// Sends a request to a host with a cookie.
async fn at(app: &Router, host: &str, path: &str, cookie: &str) -> Answer {
    let request = Request::get(path).header(header::HOST, host).header(header::COOKIE, cookie);
    send(app, request).await
}

/// Begins a session at a host and returns its cookie as a browser sends it.
async fn begin(app: &Router, host: &str) -> String {
    at(app, host, "/add", "").await.expect(StatusCode::OK, "1").pair().unwrap()
}

/// Applications whose tenants are told apart by audience, by the Domain of the cookie, or by both.
fn by_audience_or_domain(home: Home) -> [(String, Router); 3] {
    let builder = || home.builder::<Visits>();
    let builders = [
        ("audience", builder().audience_for(host)),
        ("domain", builder().cookie_for(cookie_of_host)),
        ("both", builder().audience_for(host).cookie_for(cookie_of_host)),
    ];
    builders
        .map(|(case, builder)| (format!("{case}, {home:?}"), scripted(builder.build().unwrap())))
}

#[tokio::test]
async fn a_cookie_of_one_tenant_means_nothing_to_another() {
    for home in HOMES {
        for (case, app) in by_audience_or_domain(home) {
            let cookie = begin(&app, A).await;
            at(&app, A, "/read", &cookie).await.expect(StatusCode::OK, "1").expect_no_cookie();
            at(&app, B, "/read", &cookie).await.expect(StatusCode::OK, "0").expect_no_cookie();
            at(&app, B, "/new", &cookie).await.expect(StatusCode::OK, "true");
            let own = at(&app, B, "/add", &cookie).await.expect(StatusCode::OK, "1");
            assert_ne!(own.pair().unwrap(), cookie, "{case}");
            // The cookie goes, as every cookie of the name does, and the session stays.
            at(&app, B, "/destroy", &cookie).await.expect(StatusCode::OK, "0");
            at(&app, A, "/add", &cookie).await.expect(StatusCode::OK, "2");
        }
    }
}

#[tokio::test]
async fn cookies_of_two_tenants_side_by_side_are_each_their_own() {
    for home in HOMES {
        for (case, app) in by_audience_or_domain(home) {
            let a = begin(&app, A).await;
            let b = begin(&app, B).await;
            let b = at(&app, B, "/add", &b).await.pair().unwrap_or(b);
            let both = format!("{a}; {b}");
            for (host, count) in [(A, "1"), (B, "2")] {
                let answer = at(&app, host, "/read", &both).await;
                assert_eq!((&*answer.body, answer.set_cookies().len()), (count, 0), "{case}");
            }
            at(&app, A, "/destroy", &both).await;
            at(&app, B, "/read", &both).await.expect(StatusCode::OK, "2");
            if home != Home::Cookie {
                at(&app, A, "/read", &both).await.expect(StatusCode::OK, "0");
            }
        }
    }
}

#[tokio::test]
async fn a_bearer_token_of_one_tenant_means_nothing_to_another() {
    for home in HOMES {
        let builder = home.builder::<Visits>().audience_for(host).transport(Transport::bearer());
        let app = scripted(builder.build().unwrap());
        let token = at(&app, A, "/add", "").await.header("x-session-token").unwrap();
        for (host, count) in [(A, "1"), (B, "0")] {
            let request = Request::get("/read")
                .header(header::HOST, host)
                .header(header::AUTHORIZATION, format!("Bearer {token}"));
            send(&app, request).await.expect(StatusCode::OK, count);
        }
    }
}

#[tokio::test]
async fn the_cookie_of_a_tenant_has_its_attributes_when_set_and_when_removed() {
    let sessions = Home::Cookie.builder::<Visits>().cookie_for(cookie_of_host).build().unwrap();
    let app = scripted(sessions);
    for host in [A, B] {
        let set = at(&app, host, "/add", "").await;
        let attributes =
            format!("; HttpOnly; SameSite=Lax; Secure; Path=/; Domain={host}; Max-Age=");
        assert!(set.set_cookie().contains(&attributes), "{set:?}");
        let removed = at(&app, host, "/destroy", &set.pair().unwrap()).await;
        assert!(removed.set_cookie().starts_with(&format!("id={attributes}0;")), "{removed:?}");
    }
}

#[tokio::test]
async fn tenants_change_nothing_for_caches() {
    for home in HOMES {
        for (case, app) in by_audience_or_domain(home) {
            let cookie = begin(&app, A).await;
            for (path, cache_control) in [("/read", "private"), ("/regenerate", "no-store")] {
                let answer = at(&app, A, path, &cookie).await;
                assert_eq!(answer.header("vary").as_deref(), Some("cookie"), "{case}");
                assert_eq!(answer.header("cache-control").as_deref(), Some(cache_control));
            }
        }
    }
}

/// Logins of each host, whose owner is the user.
fn logins_by_host(home: Home) -> SessionManager<Login> {
    let builder = home.builder().audience_for(host).owner(|login: &Login| login.user.clone());
    builder.build().unwrap()
}

async fn log_in(app: &Router, host: &str, user: &str) -> String {
    let request = Request::post(format!("/user?{user}")).header(header::HOST, host);
    send(app, request).await.expect_status(StatusCode::OK).pair().unwrap()
}

async fn is_logged_in(app: &Router, host: &str, cookie: &str) -> bool {
    let answer = at(app, host, "/", cookie).await.expect_status(StatusCode::OK);
    answer.body != logins::FRESH
}

#[tokio::test]
async fn an_owner_of_one_tenant_is_not_the_owner_of_that_name_at_another() {
    for home in STORES {
        let sessions = logins_by_host(home);
        let app = logins::router(sessions.clone());
        let [at_a, at_b] = [A, B].map(|host| sessions.for_request(&request_to(host)).unwrap());
        let a = [log_in(&app, A, "alice").await, log_in(&app, A, "alice").await];
        let b = log_in(&app, B, "alice").await;
        assert_eq!(at_a.sessions_of("alice").await.unwrap().len(), 2);
        let [of_b] = &at_b.sessions_of("alice").await.unwrap()[..] else { panic!("one session") };
        assert!(!at_a.destroy_of("alice", of_b.key()).await.unwrap());

        assert_eq!(at_a.destroy_all_of("alice").await.unwrap(), 2);
        for cookie in a {
            assert!(!is_logged_in(&app, A, &cookie).await);
        }
        assert!(is_logged_in(&app, B, &b).await);
        assert_eq!(at_b.destroy_others_of("alice", of_b.key()).await.unwrap(), 0);
        assert!(at_b.destroy_of("alice", of_b.key()).await.unwrap());
        assert!(!is_logged_in(&app, B, &b).await);
    }
}

/// Without a tenant, "log out everywhere" would end nothing and say so to nobody, a save would move the session to
/// another owner, and the token of a new session would open nowhere.
#[tokio::test]
async fn an_operation_of_one_tenant_that_is_told_none_is_an_error() {
    for home in STORES {
        let sessions = logins_by_host(home);
        let app = logins::router(sessions.clone());
        let cookie = log_in(&app, A, "alice").await;
        let at_a = sessions.for_request(&request_to(A)).unwrap();
        let key = at_a.sessions_of("alice").await.unwrap()[0].key();
        let errors = [
            ("sessions_of", sessions.sessions_of("alice").await.err()),
            ("destroy_of", sessions.destroy_of("alice", key).await.err()),
            ("destroy_all_of", sessions.destroy_all_of("alice").await.err()),
            ("destroy_others_of", sessions.destroy_others_of("alice", key).await.err()),
            ("create", sessions.create(Login::default()).await.err()),
            ("sessions", sessions.sessions(None, 10).await.err()),
            ("update", sessions.update(key, |login| login.note = "x".to_owned()).await.err()),
            ("load", sessions.load(key).await.err()),
            ("destroy", sessions.destroy(key).await.err()),
        ];
        for (operation, error) in errors {
            assert_eq!(
                error.unwrap().to_string(),
                format!(
                    "`{operation}` needs a tenant, since `.audience_for(..)` is set; call it on \
                     `manager.for_request(..)`"
                )
            );
        }
        assert!(is_logged_in(&app, A, &cookie).await);
        let created = at_a.create(Login::default()).await.unwrap();
        let made = format!("{COOKIE}={}", created.token());
        assert!(is_logged_in(&app, A, &made).await && !is_logged_in(&app, B, &made).await);
        at_a.update(key, |login| login.note = "seen".to_owned()).await.unwrap();
        assert_eq!(at_a.sessions_of("alice").await.unwrap()[0].note, "seen");
        let at_b = sessions.for_request(&request_to(B)).unwrap();
        assert!(at_b.load(key).await.unwrap().is_none());
        at_b.destroy(key).await.unwrap_err();
        at_a.destroy(key).await.unwrap();
        assert!(!is_logged_in(&app, A, &cookie).await);
    }
}

#[tokio::test]
async fn expired_sessions_of_every_tenant_are_told_to_the_manager_of_all() {
    let (clock, ends) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let (told, store) = (ends.clone(), MemoryStore::builder().clock(clock.clone()).build());
    let sessions = SessionManager::<Login>::builder().clock(clock.clone()).store(store);
    let sessions = sessions.audience_for(host).on_end(move |login, why| {
        told.lock().unwrap().push((login.note, why));
    });
    let sessions = sessions.build().unwrap();
    for host in [A, B] {
        let login = Login { note: host.to_owned(), ..Login::default() };
        let _ = sessions.for_request(&request_to(host)).unwrap().create(login).await.unwrap();
    }
    clock.advance(2 * DAY);
    assert_eq!(sessions.delete_expired(10).await.unwrap(), 2);
    let mut told = std::mem::take(&mut *ends.lock().unwrap());
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(told, [A, B].map(|host| (host.to_owned(), EndReason::Expired)));
}

#[tokio::test]
async fn a_key_of_another_session_type_reaches_nothing_through_a_tenant() {
    for home in STORES {
        let store = MemoryStore::new();
        let builder = match home {
            Home::PlainId => SessionManager::<Visits>::builder(),
            Home::Cookie | Home::SealedId => SessionManager::<Visits>::builder().keys(key()),
        };
        let visits = builder.store(store.clone()).audience_for(host).build().unwrap();
        let logins = SessionManager::<Login>::builder().store(store).build().unwrap();
        let login = logins.create(Login::default()).await.unwrap().key();
        let at_a = visits.for_request(&request_to(A)).unwrap();
        assert!(at_a.load(login).await.unwrap().is_none());
        assert!(matches!(at_a.update(login, |_| ()).await, Err(SessionError::Gone)));
        assert!(matches!(at_a.destroy(login).await, Err(SessionError::Gone)));
        assert!(logins.load(login).await.unwrap().is_some());
    }
}

/// A store of each tenant.
#[derive(Clone, Default)]
struct Stores {
    a: MemoryStore,
    b: MemoryStore,
}

impl Stores {
    fn choose(self) -> impl Fn(&Parts) -> Result<Arc<dyn SessionStore>, StoreError> {
        move |parts| match &*host(parts) {
            A => Ok(Arc::new(self.a.clone())),
            B => Ok(Arc::new(self.b.clone())),
            other => Err(StoreError::unavailable(format!("no tenant at {other}"))),
        }
    }
}

#[tokio::test]
async fn each_tenant_may_have_its_own_store_too() {
    for sealed in [true, false] {
        let stores = Stores::default();
        let builder = SessionManager::<Visits>::builder()
            .store_for(stores.clone().choose())
            .audience_for(host)
            .cookie_for(cookie_of_host);
        let builder = if sealed { builder.keys(key()) } else { builder };
        let sessions = builder.build().unwrap();
        let app = scripted(sessions.clone());
        let cookie = begin(&app, A).await;
        assert_eq!((stores.a.len(), stores.b.len()), (1, 0));
        at(&app, B, "/add", &cookie).await.expect(StatusCode::OK, "1");
        assert_eq!((stores.a.len(), stores.b.len()), (1, 1));

        let key: StoreKey = at(&app, A, "/id", &cookie).await.body.parse().unwrap();
        let [at_a, at_b] = [A, B].map(|host| sessions.for_request(&request_to(host)).unwrap());
        assert_eq!(at_a.load(key).await.unwrap().unwrap().count, 1);
        assert!(at_b.load(key).await.unwrap().is_none());
        assert!(matches!(sessions.load(key).await, Err(SessionError::NoStore { .. })));
        let elsewhere = sessions.for_request(&request_to("c.example"));
        assert!(matches!(elsewhere, Err(SessionError::Store(_))));

        // A row that came into the store of another tenant opens there by no cookie of this one.
        let moved = at_a.with_store(stores.b.clone());
        assert!(moved.load(key).await.unwrap().is_none());
        at(&app, A, "/destroy", &cookie).await;
        assert_eq!((stores.a.len(), stores.b.len()), (0, 1));
    }
}

#[tokio::test]
async fn a_handle_outlives_the_response_and_keeps_to_its_tenant() {
    type Kept = Arc<Mutex<Option<SessionHandle<Login>>>>;
    async fn keep(
        Extension(kept): Extension<Kept>,
        mut session: Session<Login>,
    ) -> Result<impl IntoResponse, SessionError> {
        session.user = Some("alice".to_owned());
        let commit = session.commit().await?;
        Ok((commit, kept.lock().unwrap().is_some().to_string()))
    }
    async fn hold(Extension(kept): Extension<Kept>, session: Session<Login>) -> Response {
        *kept.lock().unwrap() = Some(session.handle().unwrap());
        session.commit().await.into_response()
    }
    let (kept, stores) = (Kept::default(), Stores::default());
    let sessions = SessionManager::<Login>::builder()
        .store_for(stores.clone().choose())
        .audience_for(host)
        .owner(|login: &Login| login.user.clone())
        .build()
        .unwrap();
    let app = Router::new()
        .route("/keep", get(keep))
        .route("/hold", get(hold))
        .with_state(sessions.clone())
        .merge(logins::router(sessions.clone()))
        .layer(Extension(kept.clone()));
    let cookie = at(&app, A, "/keep", "").await.pair().unwrap();
    at(&app, A, "/hold", &cookie).await.expect_status(StatusCode::OK);
    let handle = kept.lock().unwrap().clone().unwrap();
    handle.update(|login| login.note = "later".to_owned()).await.unwrap();
    assert_eq!(handle.load().await.unwrap().note, "later");
    at(&app, A, "/", &cookie).await.expect(StatusCode::OK, "later");
    assert_eq!((stores.a.len(), stores.b.len()), (1, 0));
    // The owner is still the tenant's.
    let at_a = sessions.for_request(&request_to(A)).unwrap();
    assert_eq!(at_a.sessions_of("alice").await.unwrap().len(), 1);
    handle.destroy().await.unwrap();
    assert_eq!(stores.a.len(), 0);
    assert!(matches!(handle.load().await, Err(SessionError::Gone)));
}

#[tokio::test]
async fn a_test_logs_in_at_a_tenant() {
    for home in HOMES {
        let builder = home.builder::<Visits>().audience_for(host).cookie_for(cookie_of_host);
        let sessions = builder.build().unwrap();
        let app = scripted(sessions.clone());
        let at_a = sessions.for_request(&request_to(A)).unwrap();
        let mut visitor = TestSession::start(&at_a, Visits { count: 41 }).await.unwrap();
        let mut send_to = async |host: &str, path: &str| {
            let (name, value) = visitor.header();
            let request = Request::get(path).header(header::HOST, host).header(name, value);
            let answer = send(&app, request).await;
            (answer.body, visitor.after(&answer.headers).await.unwrap())
        };
        assert_eq!(send_to(B, "/read").await, ("0".to_owned(), Some(Visits { count: 41 })));
        assert_eq!(send_to(A, "/add").await, ("42".to_owned(), Some(Visits { count: 42 })));
        assert_eq!(send_to(A, "/destroy").await, ("42".to_owned(), None));
    }
}

/// One tenant still has the cookie that the others had before.
#[tokio::test]
async fn former_cookies_go_with_the_tenant() {
    fn cookie(parts: &Parts) -> Cookie<'static> {
        Cookie::new(if host(parts) == A { "id" } else { "old" }, "")
    }
    for home in HOMES {
        let store = MemoryStore::new();
        let builder = || {
            let builder = SessionManager::<Visits>::builder().audience_for(host);
            match home {
                Home::Cookie => builder.keys(key()),
                Home::SealedId => builder.keys(key()).store(store.clone()),
                Home::PlainId => builder.store(store.clone()),
            }
        };
        let old = scripted(builder().cookie(Cookie::new("old", "")).build().unwrap());
        let new = builder().cookie_for(cookie).former_cookie(Cookie::new("old", ""));
        let new = scripted(new.build().unwrap());
        let former = begin(&old, A).await;
        let moved = at(&new, A, "/read", &former).await.expect(StatusCode::OK, "1");
        let [removal, todays] = moved.set_cookies()[..] else { panic!("{moved:?}") };
        assert!(removal.starts_with("old=;") && todays.starts_with("id="), "{moved:?}");
        at(&new, B, "/read", &former).await.expect(StatusCode::OK, "0").expect_no_cookie();
        let todays = todays.split(';').next().unwrap();
        at(&new, B, "/read", todays).await.expect(StatusCode::OK, "0");
        let ended = at(&new, A, "/destroy", todays).await;
        assert_eq!(ended.set_cookies().len(), 2, "{ended:?}");

        let kept = begin(&old, B).await;
        at(&new, B, "/read", &kept).await.expect(StatusCode::OK, "1").expect_no_cookie();
        let ended = at(&new, B, "/destroy", &kept).await;
        assert!(ended.set_cookie().starts_with("old=;"), "{ended:?}");
    }
}

/// What each host chooses, good or bad.
fn choosing(layered: bool) -> Router {
    fn cookie(parts: &Parts) -> Cookie<'static> {
        match &*host(parts) {
            "url" => Cookie::build("id").domain("https://example.com").build(),
            "value" => Cookie::new("id", "value"),
            "name" => Cookie::new("", ""),
            "prefix" => Cookie::build("__Host-id").path("/app").build(),
            _ => Cookie::new("id", ""),
        }
    }
    let audience = |parts: &Parts| host(parts).replace("empty", "");
    let sessions = Home::Cookie
        .builder::<Visits>()
        .cookie_for(cookie)
        .audience_for(audience)
        .error_response(|error| (error.status(), format!("page: {error}")).into_response())
        .build()
        .unwrap();
    let text = async |session: Result<Session<Visits>, SessionError>| match session {
        Ok(session) => session.commit().await.into_response(),
        Err(error) => error.to_string().into_response(),
    };
    let error = async |session: Session<Visits>| session.commit().await;
    let option = async |session: Option<Session<Visits>>| session.is_some().to_string();
    let guard = async |State(sessions): State<SessionManager<Visits>>| sessions.no_session();
    let router = Router::new()
        .route("/text", get(text))
        .route("/error", get(error))
        .route("/option", get(option))
        .route("/guard", get(guard))
        .with_state(sessions);
    if layered { router.layer(AutoCommitLayer::new()) } else { router }
}

const BAD: [(&str, &str); 5] = [
    (
        "url",
        "`.cookie_for(..)`: Domain is a URL, so browsers drop the cookie; write only the host, such as \
         `example.com`, or remove Domain",
    ),
    ("value", "`.cookie_for(..)`: the value must be empty, because the session sets it"),
    (
        "name",
        "`.cookie_for(..)`: the name must have at least one character, and only letters, digits and !#$%&'*+-.^_`|~",
    ),
    ("prefix", "`.cookie_for(..)`: the prefix `__Host-` needs Path=/"),
    ("empty", "`.audience_for(..)`: the name is empty; return a name for every request"),
];

#[tokio::test]
async fn a_bad_choice_is_a_500_whose_text_names_the_option() {
    for layered in [false, true] {
        let app = choosing(layered);
        for (host, text) in BAD {
            at(&app, host, "/text", "").await.expect(StatusCode::OK, text).expect_no_cookie();
            for path in ["/error", "/option"] {
                let answer = at(&app, host, path, "id=anything").await.expect_no_cookie();
                if layered {
                    let page = format!("page: {text}");
                    let answer = answer.expect(StatusCode::INTERNAL_SERVER_ERROR, &page);
                    assert_eq!(answer.header("vary").as_deref(), Some("cookie"));
                    assert_eq!(answer.header("cache-control").as_deref(), Some("private"));
                } else {
                    answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
            at(&app, host, "/guard", "").await.expect(StatusCode::OK, "");
        }
        at(&app, A, "/error", "").await.expect(StatusCode::OK, "");
    }
}

#[test]
fn a_bad_choice_outside_a_request_is_the_same_error() {
    let sessions = Home::Cookie.builder::<Visits>().audience_for(|_| String::new());
    let error = sessions.build().unwrap().for_request(&request_to(A)).unwrap_err();
    assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(matches!(error, SessionError::Config(_)));
    assert_eq!(error.to_string(), BAD[4].1);
}

#[tokio::test]
async fn a_store_that_cannot_be_chosen_has_the_applications_face_under_the_layer() {
    let sessions = SessionManager::<Visits>::builder()
        .store_for(Stores::default().choose())
        .error_response(|error| (error.status(), "page").into_response())
        .build()
        .unwrap();
    let app = scripted(sessions).layer(AutoCommitLayer::new());
    at(&app, "c.example", "/add", "").await.expect(StatusCode::SERVICE_UNAVAILABLE, "page");
    at(&app, A, "/add", "").await.expect(StatusCode::OK, "1");
}

#[test]
fn a_cookie_that_is_chosen_needs_a_transport_that_is_one() {
    let builder = Home::Cookie.builder::<Visits>().cookie_for(cookie_of_host);
    let error = builder.transport(Transport::bearer()).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`.cookie_for(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`"
    );
}

#[tokio::test]
async fn the_functions_run_once_in_a_request_with_a_session_and_never_in_another() {
    let calls: [Arc<AtomicU32>; 3] = Default::default();
    let count = |index: usize| {
        let calls: Arc<AtomicU32> = calls[index].clone();
        move || calls.fetch_add(1, Ordering::Relaxed)
    };
    let (stores, cookies, audiences) = (count(0), count(1), count(2));
    let choose = Stores::default().choose();
    let sessions = SessionManager::<Visits>::builder()
        .store_for(move |parts| {
            stores();
            choose(parts)
        })
        .cookie_for(move |parts| {
            cookies();
            cookie_of_host(parts)
        })
        .audience_for(move |parts| {
            audiences();
            host(parts)
        })
        .build()
        .unwrap();
    assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 0), "build() calls none");
    let many =
        async |one: Session<Visits>, _: Option<Session<Visits>>, mut last: Session<Visits>| {
            last.count += 1;
            Ok::<_, SessionError>((one.commit().await?, last.commit().await?))
        };
    let none =
        async |State(sessions): State<SessionManager<Visits>>| (sessions.no_session(), "none");
    let app = Router::new()
        .route("/many", get(many))
        .route("/none", get(none))
        .with_state(sessions.clone());
    let scripted = scripted(sessions);
    let cases = [
        (&app, "/many", 1),
        (&app, "/none", 0),
        (&scripted, "/add/commit/add/commit/destroy", 1),
        (&scripted, "/read", 1),
    ];
    for (app, path, expected) in cases {
        for app in [app.clone(), app.clone().layer(AutoCommitLayer::new())] {
            for calls in &calls {
                calls.store(0, Ordering::Relaxed);
            }
            at(&app, A, path, "").await.expect_status(StatusCode::OK);
            let seen = calls.each_ref().map(|calls| calls.load(Ordering::Relaxed));
            assert_eq!(seen, [expected; 3], "{path}");
        }
    }
}

#[tokio::test]
async fn a_choice_that_weakens_the_cookie_warns_once_a_minute() {
    let clock = ManualClock::new();
    let builder = Home::Cookie.builder::<Visits>().clock(clock.clone());
    let cookie = |_: &Parts| Cookie::build("id").http_only(false).build();
    let app = scripted(builder.cookie_for(cookie).build().unwrap());
    let log = Log::start();
    for _ in 0..3 {
        at(&app, A, "/read", "").await;
    }
    let lines = log.take();
    let [line] = &lines[..] else { panic!("expected one line: {lines:?}") };
    assert!(line.contains("not HttpOnly"), "{line}");
    clock.advance(MINUTE);
    at(&app, A, "/read", "").await;
    assert_eq!(log.take().len(), 1);
}
