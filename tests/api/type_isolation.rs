//! Two session types never open each other's sessions, whatever they share.

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use axum_typed_session::{
    Key, MemoryStore, Session, SessionError, SessionManager, SessionManagerBuilder, Transport,
    cookie::Cookie, testing::ManualClock,
};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::support::{Browser, COOKIE, Log, Mode, in_both_modes, key};

in_both_modes! {
    a_session_of_one_type_is_none_of_another_that_its_data_fits,
    a_session_of_one_type_is_none_of_another_that_its_data_does_not_fit,
    a_visit_to_another_type_ends_no_session,
    the_default_kind_is_the_short_name_of_the_type,
    two_types_of_one_kind_are_one_kind_of_session,
}

mod shop {
    use super::{Deserialize, Serialize};

    /// A type whose short name another module has too.
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Member {
        pub name: String,
    }
}

mod office {
    use super::{Deserialize, Serialize};

    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Member {
        pub name: String,
    }
}

/// A type that reads whatever a customer's session holds.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Administrator {
    name: String,
}

/// What every type of these tests can do.
trait Named: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    fn set_name(&mut self, name: &str);
    fn shown(&self) -> String;
}

macro_rules! named {
    ($($type:ty,)*) => {
        $(
            impl Named for $type {
                fn set_name(&mut self, name: &str) {
                    name.clone_into(&mut self.name);
                }

                fn shown(&self) -> String {
                    self.name.clone()
                }
            }
        )*
    };
}

named! { shop::Member, office::Member, Administrator, }

impl<T: Named> Named for Vec<T> {
    fn set_name(&mut self, name: &str) {
        let mut item = T::default();
        item.set_name(name);
        self.push(item);
    }

    fn shown(&self) -> String {
        self.iter().map(T::shown).collect()
    }
}

/// `/{step}` does one thing to the session and answers with what it holds, `-` for a fresh one.
fn app<T: Named>(sessions: SessionManager<T>) -> Router {
    async fn act<T: Named>(
        State(sessions): State<SessionManager<T>>,
        request: Request<Body>,
    ) -> Result<Response, SessionError> {
        use axum::extract::FromRequestParts as _;

        let (mut parts, _) = request.into_parts();
        let step = parts.uri.path().to_owned();
        if step == "/option" {
            let session = Option::<Session<T>>::from_request_parts(&mut parts, &sessions).await?;
            let shown = session.as_ref().map_or("none".to_owned(), |session| session.shown());
            return Ok(match session {
                Some(session) => (session.commit().await?, shown).into_response(),
                None => shown.into_response(),
            });
        }
        let mut session = Session::<T>::from_request_parts(&mut parts, &sessions).await?;
        match &*step {
            "/read" => {}
            "/destroy" => session.destroy(),
            "/regenerate" => session.regenerate(),
            "/save" => session.force_save(),
            name => session.set_name(&name[1..]),
        }
        let shown = if session.is_new() { "-".to_owned() } else { session.shown() };
        Ok((session.commit().await?, shown).into_response())
    }
    Router::new().fallback(act::<T>).with_state(sessions)
}

/// Managers of two types at their defaults, which share the key, or the store.
struct Pair {
    mode: Mode,
    clock: ManualClock,
    store: MemoryStore,
}

impl Pair {
    fn new(mode: Mode) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        Self { mode, clock, store }
    }

    fn builder<T: Named>(&self) -> SessionManagerBuilder<T> {
        let builder = SessionManager::builder().clock(self.clock.clone());
        match self.mode {
            Mode::Cookie => builder.keys(key()),
            Mode::Store => builder.store(self.store.clone()),
        }
    }

    fn app<T: Named>(&self) -> Router {
        app(self.builder::<T>().build().unwrap())
    }
}

async fn a_session_of_one_type_is_none_of_another_that_its_data_fits(mode: Mode) {
    let pair = Pair::new(mode);
    let mut customer = Browser::new(pair.app::<shop::Member>());
    customer.get("/ada").await;
    customer.get("/option").await.expect(StatusCode::OK, "ada");
    let admins = pair.app::<Administrator>();
    customer.at(&admins).get("/option").await.expect(StatusCode::OK, "none");
    customer.at(&admins).get("/read").await.expect(StatusCode::OK, "-").expect_no_cookie();
    let mut admin = Browser::new(admins);
    admin.get("/bob").await;
    let customers = pair.app::<shop::Member>();
    admin.at(&customers).get("/option").await.expect(StatusCode::OK, "none");
}

async fn a_session_of_one_type_is_none_of_another_that_its_data_does_not_fit(mode: Mode) {
    let pair = Pair::new(mode);
    let mut one = Browser::new(pair.app::<shop::Member>());
    one.get("/ada").await;
    let lists = pair.app::<Vec<shop::Member>>();
    one.at(&lists).get("/option").await.expect(StatusCode::OK, "none");
    let mut list = Browser::new(lists);
    list.get("/bob").await;
    let others = pair.app::<Vec<Administrator>>();
    list.at(&others).get("/option").await.expect(StatusCode::OK, "none");
}

async fn a_visit_to_another_type_ends_no_session(mode: Mode) {
    for step in ["/option", "/read", "/destroy", "/regenerate", "/save", "/bob"] {
        let pair = Pair::new(mode);
        let mut customer = Browser::new(pair.app::<shop::Member>());
        customer.get("/ada").await;
        let token = customer.token();
        for other in [pair.app::<Vec<shop::Member>>(), pair.app::<Administrator>()] {
            let answer = customer.at(&other).get(step).await;
            assert_eq!(answer.status, StatusCode::OK, "{step}");
            // Whatever the browser was told, the cookie it had still opens the session.
            customer.jar.insert(COOKIE.to_owned(), token.clone());
            customer.get("/option").await.expect(StatusCode::OK, "ada");
        }
    }
}

/// Says whether a token of `T` under its default kind opens under `kind`.
async fn opens_under<T: Named>(mode: Mode, kind: &str) -> bool {
    let pair = Pair::new(mode);
    let mut browser = Browser::new(pair.app::<T>());
    browser.get("/ada").await;
    let pinned = app(pair.builder::<T>().kind(kind).build().unwrap());
    browser.at(&pinned).get("/option").await.body == "ada"
}

async fn the_default_kind_is_the_short_name_of_the_type(mode: Mode) {
    assert!(opens_under::<shop::Member>(mode, "Member").await);
    assert!(opens_under::<Vec<shop::Member>>(mode, "Vec<Member>").await);
    assert!(opens_under::<Vec<Vec<Administrator>>>(mode, "Vec<Vec<Administrator>>").await);
    assert!(!opens_under::<shop::Member>(mode, COOKIE).await, "nor the name of the cookie");
    assert!(!opens_under::<Vec<shop::Member>>(mode, "Vec").await);
}

/// A type that gets another name keeps its sessions by `.kind(..)`; so do two types that want to be one.
async fn two_types_of_one_kind_are_one_kind_of_session(mode: Mode) {
    let pair = Pair::new(mode);
    let mut customer = Browser::new(pair.app::<shop::Member>());
    customer.get("/ada").await;
    let renamed = app(pair.builder::<Administrator>().kind("Member").build().unwrap());
    customer.at(&renamed).get("/option").await.expect(StatusCode::OK, "ada");
}

type One = SessionManagerBuilder<shop::Member>;
type Other = SessionManagerBuilder<Administrator>;

/// Builds two managers that both live, and returns the warnings of the second `build`.
///
/// The audience is the test's own, since other tests of this process have managers too.
fn warnings(
    audience: &str,
    one: impl FnOnce(One) -> One,
    other: impl FnOnce(Other) -> Other,
) -> Vec<String> {
    let log = Log::start();
    let builder = SessionManager::builder().keys(key()).audience(audience).kind("x");
    let first = one(builder).build().unwrap();
    assert_eq!(log.take_all(), <[&str; 0]>::default());
    let builder = SessionManager::builder().keys(key()).audience(audience).kind("x");
    let second = other(builder).build().unwrap();
    drop((first, second));
    log.take_all()
}

#[track_caller]
fn expect_one_warning(lines: &[String], names: [&str; 3]) {
    let [line] = lines else {
        panic!("expected one line, got {lines:?}");
    };
    assert!(line.contains("WARN"), "{line}");
    for name in names {
        assert!(line.contains(name), "{name} is missing in {line}");
    }
}

#[test]
fn two_live_managers_of_one_kind_but_two_types_are_a_warning_that_names_both() {
    let lines = warnings("one kind", |one| one, |other| other);
    expect_one_warning(&lines, ["shop::Member", "Administrator", ".kind("]);
    // The store does not tell them apart: two stores today are one tomorrow.
    let store = |builder: Other| builder.store(MemoryStore::new());
    let lines = warnings("one kind, a store", |one| one.store(MemoryStore::new()), store);
    expect_one_warning(&lines, ["shop::Member", "Administrator", ".kind("]);
}

#[test]
fn two_types_of_one_short_name_are_a_warning_too() {
    let log = Log::start();
    let (audience, key) = ("one short name", key());
    let shop = SessionManager::<shop::Member>::builder().keys(key.clone()).audience(audience);
    let office = SessionManager::<office::Member>::builder().keys(key).audience(audience);
    let (shop, office) = (shop.build().unwrap(), office.build().unwrap());
    expect_one_warning(&log.take_all(), ["shop::Member", "office::Member", ".kind("]);
    drop((shop, office));
}

#[test]
fn what_tells_two_types_apart_needs_no_warning() {
    let none = <[&str; 0]>::default();
    let kind = warnings("another kind", |one| one, |other| other.kind("y"));
    assert_eq!(kind, none, "another kind");
    let audience = warnings("an audience", |one| one, |other| other.audience("another audience"));
    assert_eq!(audience, none, "another audience");
    let cookie = Cookie::new("__Host-admin", "");
    let name = warnings("another name", |one| one, |other| other.cookie(cookie));
    assert_eq!(name, none, "another cookie");
    let header = |other: Other| other.transport(Transport::bearer());
    assert_eq!(warnings("another transport", |one| one, header), none, "another transport");
}

/// A plain id is not bound to the cookie or header that it was sent in.
#[test]
fn managers_without_keys_that_accept_each_others_ids_are_a_warning() {
    let build = |audience: &str, builder: One| {
        builder.audience(audience).store(MemoryStore::new()).build().unwrap()
    };
    let builder = SessionManager::<shop::Member>::builder;
    let cookie = || builder().cookie(Cookie::new("__Host-admin", ""));
    let cases = [
        ("keyless bearer", builder().transport(Transport::bearer()), "x-session-token"),
        ("keyless cookies", cookie(), "__Host-admin"),
    ];
    for (audience, other, name) in cases {
        let log = Log::start();
        let managers = [build(audience, builder()), build(audience, other)];
        expect_one_warning(&log.take_all(), ["__Host-session", name, ".keys("]);
        drop(managers);
    }
}

#[test]
fn several_managers_of_one_type_need_no_warning() {
    let log = Log::start();
    let build = || SessionManager::<shop::Member>::builder().keys(key()).audience("one type");
    let managers = [build().build().unwrap(), build().build().unwrap()];
    assert_eq!(log.take_all(), <[&str; 0]>::default());
    drop(managers);
}

#[test]
fn a_manager_that_was_dropped_warns_of_nothing() {
    let log = Log::start();
    let builder = SessionManager::<shop::Member>::builder().keys(key());
    let first = builder.audience("dropped").build().unwrap();
    let clone = first.clone();
    drop((first, clone));
    let builder = SessionManager::<Administrator>::builder().keys(key());
    let second = builder.audience("dropped").kind("Member").build().unwrap();
    assert_eq!(log.take_all(), <[&str; 0]>::default());
    drop(second);
}

#[test]
fn a_clone_keeps_its_manager_alive() {
    let log = Log::start();
    let builder = SessionManager::<shop::Member>::builder().keys(key());
    let first = builder.audience("a clone").build().unwrap();
    let clone = first.clone();
    drop(first);
    let builder = SessionManager::<Administrator>::builder().keys(key());
    let second = builder.audience("a clone").kind("Member").build().unwrap();
    expect_one_warning(&log.take_all(), ["shop::Member", "Administrator", ".kind("]);
    drop((clone, second));
}

/// A key from a form or a list may be of another type that happens to read.
#[tokio::test]
async fn an_operation_by_key_touches_no_session_of_another_type() {
    #[derive(Default, Serialize, Deserialize)]
    struct Login {
        user: Option<String>,
    }
    #[derive(Default, Serialize, Deserialize)]
    struct Settings {
        #[serde(default)]
        theme: String,
    }
    let store = MemoryStore::new();
    let logins = SessionManager::<Login>::builder().store(store.clone()).build().unwrap();
    let settings = SessionManager::<Settings>::builder().store(store.clone()).build().unwrap();
    let login = logins.create(Login { user: Some("ada".to_owned()) }).await.unwrap();
    assert!(settings.load(login.key()).await.unwrap().is_none());
    let updated = settings.update(login.key(), |settings| settings.theme = "dark".to_owned()).await;
    assert!(matches!(updated, Err(SessionError::Gone)), "{updated:?}");
    let destroyed = settings.destroy(login.key()).await;
    assert!(matches!(destroyed, Err(SessionError::Gone)), "{destroyed:?}");
    let kept = logins.load(login.key()).await.unwrap().unwrap();
    assert_eq!(kept.user.as_deref(), Some("ada"));

    // Also if the keys of the other manager do not open its row.
    let sealed = SessionManager::<Login>::builder().store(store).keys(Key::generate());
    let logins = sealed.encrypt_rows(true).build().unwrap();
    let login = logins.create(Login { user: Some("ada".to_owned()) }).await.unwrap();
    let destroyed = settings.destroy(login.key()).await;
    assert!(matches!(destroyed, Err(SessionError::Gone)), "{destroyed:?}");
    assert!(logins.load(login.key()).await.unwrap().is_some());
}
