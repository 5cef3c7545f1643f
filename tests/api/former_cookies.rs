//! A cookie that changed its name, Path, Domain or Partitioned between two releases: sessions go on in today's cookie,
//! and the former one disappears.

use std::collections::BTreeMap;

use axum::{
    Router,
    response::{AppendHeaders, IntoResponse},
    routing::{get, post},
};
use axum_typed_session::{
    AutoCommitLayer, Key, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    SessionManagerBuilder, Transport,
    cookie::{Cookie, CookieBuilder, SameSite},
    testing::ManualClock,
};
use http::{Request, StatusCode, header};

use crate::{
    logins::{app, logins},
    support::{Answer, Browser, DAY, HOUR, SECOND, Visits, key, scripted, send},
};

type Builder = SessionManagerBuilder<Visits>;

/// Where the data lives, and whether ids are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Cookie,
    CookieWithList,
    SealedId,
    PlainId,
}

const HOMES: [Home; 4] = [Home::Cookie, Home::CookieWithList, Home::SealedId, Home::PlainId];

impl Home {
    fn is_store(self) -> bool {
        matches!(self, Self::SealedId | Self::PlainId)
    }

    /// Returns `true` if a session that has ended opens no more.
    fn ends_sessions(self) -> bool {
        self != Self::Cookie
    }
}

/// A site whose nodes share keys, clock and store.
struct Site {
    home: Home,
    clock: ManualClock,
    store: MemoryStore,
}

impl Site {
    fn new(home: Home) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        Self { home, clock, store }
    }

    fn builder(&self) -> Builder {
        let (builder, store) =
            (SessionManager::builder().clock(self.clock.clone()), self.store.clone());
        match self.home {
            Home::Cookie => builder.keys(key()),
            Home::CookieWithList => builder.keys(key()).revocations(store),
            Home::SealedId => builder.keys(key()).store(store),
            Home::PlainId => builder.store(store),
        }
    }

    /// A node with this cookie and these former ones.
    fn node(&self, cookie: &Template, formers: &[&Template]) -> Router {
        scripted(self.sessions(cookie, formers))
    }

    fn sessions(&self, cookie: &Template, formers: &[&Template]) -> SessionManager<Visits> {
        let builder = self.builder().cookie(cookie.clone());
        let add = |builder: Builder, former: &&Template| builder.former_cookie((*former).clone());
        formers.iter().fold(builder, add).build().unwrap()
    }
}

type Template = CookieBuilder<'static>;

fn named(name: &'static str) -> Template {
    Cookie::build(name)
}

/// What a cookie was and what it is now.
fn moves() -> [(&'static str, Template, Template); 7] {
    [
        ("another name", named("id"), named("__Host-session")),
        ("a wider Path", named("id").path("/shop"), named("id")),
        ("a narrower Path", named("id"), named("id").path("/shop")),
        ("no Domain any more", named("id").domain("example.com"), named("id")),
        ("a Domain", named("id"), named("id").domain("example.com")),
        ("Partitioned", named("id").same_site(SameSite::None), partitioned()),
        (
            "another everything",
            named("old").domain("example.com").path("/shop").http_only(false),
            named("__Host-session").same_site(SameSite::Strict),
        ),
    ]
}

fn partitioned() -> Template {
    named("id").same_site(SameSite::None).partitioned(true)
}

/// What tells cookies apart in a browser: the name, Path, Domain and Partitioned.
type Identity = (String, String, String, bool);

/// Cookies as a browser keeps them at one host, which is below every Domain here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Jar(BTreeMap<Identity, String>);

impl Jar {
    /// Sends a request with the cookies of its path, those of longer Paths first, and keeps what comes.
    async fn send(&mut self, app: &Router, path: &str) -> Answer {
        let mut sent: Vec<_> =
            self.0.iter().filter(|((_, folder, ..), _)| path.starts_with(&**folder)).collect();
        sent.sort_by_key(|((_, path, ..), _)| std::cmp::Reverse(path.len()));
        let pairs: Vec<_> =
            sent.iter().map(|((name, ..), value)| format!("{name}={value}")).collect();
        let request = Request::post(path).header(header::COOKIE, pairs.join("; "));
        let answer = send(app, request).await.expect_status(StatusCode::OK);
        answer.set_cookies().into_iter().for_each(|cookie| self.keep(cookie));
        answer
    }

    /// Sends a request and expects its body.
    #[track_caller]
    fn expect(&mut self, app: &Router, path: &str, body: &str) -> impl Future<Output = Answer> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.send(app, path).await;
            assert_eq!(answer.body, body, "{path} at {caller}, then {self:?}");
            answer
        }
    }

    fn keep(&mut self, cookie: &str) {
        let mut attributes = cookie.split("; ");
        let (name, value) = attributes.next().unwrap().split_once('=').unwrap();
        let rest: Vec<_> = attributes.collect();
        let of = |attribute: &str| {
            let found = rest.iter().find_map(|part| part.strip_prefix(attribute));
            found.unwrap_or_default().to_owned()
        };
        let identity = (name.to_owned(), of("Path="), of("Domain="), rest.contains(&"Partitioned"));
        if rest.contains(&"Max-Age=0") {
            self.0.remove(&identity);
        } else {
            self.0.insert(identity, value.to_owned());
        }
    }

    /// The cookies of both.
    fn with(&self, other: &Self) -> Self {
        Self(self.0.clone().into_iter().chain(other.0.clone()).collect())
    }
}

/// A site before and after a change of its cookie.
struct Moved {
    case: String,
    site: Site,
    old: Router,
    new: Router,
    /// The new release without the option.
    careless: Router,
    is: Template,
    /// What removes the former cookie.
    removal: String,
}

/// All changes in all homes.
async fn all() -> Vec<Moved> {
    let mut all = Vec::new();
    for home in HOMES {
        for (change, was, is) in moves() {
            let site = Site::new(home);
            let (old, new) = (site.node(&was, &[]), site.node(&is, &[&was]));
            let careless = site.node(&is, &[]);
            let mut jar = Jar::default();
            jar.send(&old, "/shop/add").await;
            let removal = jar.send(&old, "/shop/destroy").await.set_cookie().to_owned();
            let case = format!("{change}, {home:?}");
            all.push(Moved { case, site, old, new, careless, is, removal });
        }
    }
    all
}

impl Moved {
    /// A browser of somebody who visited the old release.
    async fn visitor(&self, count: u32) -> Jar {
        let mut jar = Jar::default();
        for _ in 0..count {
            jar.send(&self.old, "/shop/add").await;
        }
        jar
    }

    /// Expects that the browser holds today's cookie alone.
    #[track_caller]
    fn expect_only_todays(&self, jar: &Jar) {
        let names: Vec<_> = jar.0.keys().collect();
        let is = self.is.clone().build();
        let path = is.path().unwrap_or("/").to_owned();
        let identity = (
            is.name().to_owned(),
            path,
            is.domain().unwrap_or_default().to_owned(),
            is.partitioned() == Some(true),
        );
        assert_eq!(names, [&identity], "{}", self.case);
    }

    /// Expects that a cookie signs nobody in any more, where sessions end for good.
    async fn expect_ended(&self, jar: &Jar, app: &Router) {
        if self.site.home.ends_sessions() {
            jar.clone().expect(app, "/shop/read", "0").await;
        }
    }
}

#[tokio::test]
async fn without_the_option_the_old_cookie_signs_nobody_in() {
    for moved in all().await {
        let mut jar = moved.visitor(1).await;
        jar.expect(&moved.careless, "/shop/read", "0").await.expect_no_cookie();
        jar.expect(&moved.old, "/shop/read", "1").await;
    }
}

#[tokio::test]
async fn an_untouched_commit_moves_the_session_into_todays_cookie_and_keeps_its_end() {
    for moved in all().await {
        let mut jar = moved.visitor(3).await;
        moved.site.clock.advance(HOUR);
        let answer = jar.expect(&moved.new, "/shop/read", "3").await;
        let [removal, set] = answer.set_cookies()[..] else { panic!("{answer:?}") };
        assert_eq!(removal, moved.removal, "{}", moved.case);
        let end = if moved.site.home.is_store() { 30 * DAY } else { DAY } - HOUR;
        assert!(set.ends_with(&format!("; Max-Age={}", end.as_secs())), "{}: {set}", moved.case);
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        moved.expect_only_todays(&jar);
        jar.expect(&moved.new, "/shop/read", "3").await.expect_no_cookie();
        moved.site.clock.advance(DAY - HOUR - SECOND);
        jar.expect(&moved.new, "/shop/read", "3").await;
        moved.site.clock.advance(SECOND);
        jar.expect(&moved.new, "/shop/read", "0").await;
    }
}

#[tokio::test]
async fn the_layer_moves_a_session_that_is_only_read() {
    for moved in all().await {
        let was = moves().into_iter().find(|(change, ..)| moved.case.starts_with(change));
        let sessions = moved.site.sessions(&moved.is, &[&was.unwrap().1]);
        let read = async |session: Session<Visits>| session.count.to_string();
        let layered = Router::new()
            .route("/shop", post(read))
            .layer(AutoCommitLayer::new())
            .with_state(sessions);
        let mut jar = moved.visitor(1).await;
        let answer = jar.expect(&layered, "/shop", "1").await;
        assert_eq!(answer.set_cookies().len(), 2, "{}", moved.case);
        moved.expect_only_todays(&jar);
        jar.expect(&layered, "/shop", "1").await.expect_no_cookie();
    }
}

#[tokio::test]
async fn a_write_goes_on_from_the_former_session() {
    for moved in all().await {
        let mut jar = moved.visitor(2).await;
        jar.expect(&moved.new, "/shop/add", "3").await;
        moved.expect_only_todays(&jar);
        jar.expect(&moved.new, "/shop/add", "4").await;
    }
}

#[tokio::test]
async fn a_new_id_ends_the_one_in_the_former_cookie() {
    for moved in all().await {
        let former = moved.visitor(1).await;
        let mut jar = former.clone();
        jar.expect(&moved.new, "/shop/regenerate", "1").await;
        moved.expect_only_todays(&jar);
        jar.expect(&moved.new, "/shop/read", "1").await;
        moved.expect_ended(&former, &moved.new).await;
        moved.expect_ended(&former, &moved.old).await;
    }
}

#[tokio::test]
async fn a_logout_with_only_the_former_cookie_ends_its_session_and_removes_both() {
    for moved in all().await {
        let former = moved.visitor(1).await;
        let mut jar = former.clone();
        let answer = jar.expect(&moved.new, "/shop/destroy", "1").await;
        let [removal, todays] = answer.set_cookies()[..] else { panic!("{answer:?}") };
        assert_eq!(removal, moved.removal, "{}", moved.case);
        assert!(todays.contains("=; ") && todays.contains("Max-Age=0;"), "{todays}");
        assert_eq!(jar, Jar::default(), "{}", moved.case);
        moved.expect_ended(&former, &moved.new).await;
    }
}

#[tokio::test]
async fn a_logout_ends_the_session_that_both_cookies_hold() {
    for moved in all().await {
        let former = moved.visitor(1).await;
        let mut jar = former.clone();
        jar.send(&moved.new, "/shop/add").await;
        let todays = jar.clone();
        // As when a slower answer of an old node arrives.
        let mut jar = jar.with(&former);
        jar.expect(&moved.new, "/shop/read", "2").await;
        jar.expect(&moved.new, "/shop/destroy", "2").await;
        assert_eq!(jar, Jar::default(), "{}", moved.case);
        for cookies in [&former, &todays] {
            moved.expect_ended(cookies, &moved.new).await;
        }
    }
}

#[tokio::test]
async fn of_two_sessions_todays_counts_and_a_logout_ends_both() {
    for moved in all().await {
        let mut todays = Jar::default();
        todays.expect(&moved.new, "/shop/add", "1").await;
        moved.site.clock.advance(SECOND);
        let former = moved.visitor(5).await;
        let mut jar = todays.with(&former);
        assert_eq!(jar.0.len(), 2);
        jar.expect(&moved.new, "/shop/read", "1").await.expect_no_cookie();
        jar.expect(&moved.new, "/shop/destroy", "1").await;
        assert_eq!(jar, Jar::default(), "{}", moved.case);
        for cookies in [&former, &todays, &former.with(&todays)] {
            moved.expect_ended(cookies, &moved.new).await;
        }
    }
}

#[tokio::test]
async fn a_former_cookie_goes_with_the_next_write_wherever_it_came_from() {
    for moved in all().await {
        let mut todays = Jar::default();
        todays.send(&moved.new, "/shop/add").await;
        let mut jar = todays.with(&moved.visitor(5).await);
        // A store sends a cookie once for each id.
        jar.expect(&moved.new, "/shop/add/regenerate", "2").await;
        moved.expect_only_todays(&jar);
    }
}

#[tokio::test]
async fn a_logout_of_nobody_sends_nothing() {
    for moved in all().await {
        Jar::default().expect(&moved.new, "/shop/destroy", "0").await.expect_no_cookie();
        Jar::default().expect(&moved.new, "/shop/read", "0").await.expect_no_cookie();
    }
}

/// A browser does not send the cookie of `/shop` elsewhere.
#[tokio::test]
async fn a_former_cookie_of_another_path_goes_with_the_first_of_today_and_at_a_logout() {
    let (was, is) = (named("id").path("/shop"), named("id"));
    for home in HOMES {
        let site = Site::new(home);
        let (old, new) = (site.node(&was, &[]), site.node(&is, &[&was]));
        let mut former = Jar::default();
        former.send(&old, "/shop/add").await;

        let mut jar = former.clone();
        jar.expect(&new, "/about/add", "1").await;
        assert_eq!(jar.0.len(), 1, "the first of today removes it, {home:?}");

        // An old node set it meanwhile.
        let mut jar = jar.with(&former);
        let kept = jar.expect(&new, "/about/add", "2").await;
        assert!(kept.set_cookies().len() < 2, "nothing says that it is there, {home:?}");
        jar.expect(&new, "/about/destroy", "2").await;
        assert_eq!(jar, Jar::default(), "{home:?}");

        // A logout that goes on as somebody else is one, too.
        let mut jar = Jar::default();
        jar.send(&new, "/about/add").await;
        let mut jar = jar.with(&former);
        jar.expect(&new, "/about/destroy/commit/add", "1").await;
        assert_eq!(jar.0.len(), 1, "{home:?}");
    }
}

#[tokio::test]
async fn several_former_cookies_are_read_the_newest_first_and_all_removed() {
    let templates =
        [named("first"), named("id").path("/shop"), named("id").domain("example.com"), named("id")];
    let [first, second, third, today] = &templates;
    for home in HOMES {
        let site = Site::new(home);
        let new = site.node(today, &[first, second, third]);
        for newest in 0..3 {
            let mut jars = vec![Jar::default(); 3];
            for index in [(newest + 1) % 3, (newest + 2) % 3, newest] {
                site.clock.advance(SECOND);
                let old = site.node(&templates[index], &[]);
                for _ in 0..=index {
                    jars[index].send(&old, "/shop/add").await;
                }
            }
            let all = jars.iter().fold(Jar::default(), |all, jar| all.with(jar));
            let mut jar = all.clone();
            let body = (newest + 1).to_string();
            assert_eq!(jar.expect(&new, "/shop/read", &body).await.set_cookies().len(), 4);
            assert_eq!(jar.0.len(), 1, "{home:?}");

            let mut jar = all.clone();
            assert_eq!(jar.expect(&new, "/shop/destroy", &body).await.set_cookies().len(), 4);
            assert_eq!(jar, Jar::default(), "{home:?}");
            for former in jars {
                let seen = former.clone().send(&new, "/shop/read").await.body;
                assert!(seen == "0" || !home.ends_sessions(), "{home:?}: {seen}");
            }
        }
    }
}

#[tokio::test]
async fn a_removal_has_the_attributes_that_the_cookie_was_set_with() {
    let expires = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    let cases = [
        (named("old"), "old=; HttpOnly; SameSite=Lax; Secure; Path=/"),
        (
            named("id").path("/Shop/").domain(".Example.com"),
            "id=; HttpOnly; SameSite=Lax; Secure; Path=/Shop/; Domain=Example.com",
        ),
        (
            named("id").secure(false).http_only(false).same_site(SameSite::Strict).path("/a"),
            "id=; SameSite=Strict; Path=/a",
        ),
        (
            partitioned().path("/shop"),
            "id=; HttpOnly; SameSite=None; Partitioned; Secure; Path=/shop",
        ),
    ];
    for (was, removal) in cases {
        let new = Site::new(Home::Cookie).node(&named("id"), &[&was]);
        let answer = Jar::default().expect(&new, "/add", "1").await;
        assert_eq!(answer.set_cookies()[0], format!("{removal}; {expires}"));
    }
}

#[tokio::test]
async fn the_applications_own_cookies_stay() {
    const OWN: [&str; 3] = ["theme=dark", "old=1; Path=/other", "old_theme=; Max-Age=0"];
    async fn add(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
        session.count += 1;
        let own = AppendHeaders(OWN.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok((own, session.commit().await?, "added"))
    }
    for home in HOMES {
        let sessions = Site::new(home).sessions(&named("id"), &[&named("old")]);
        let bare = Router::new().route("/", post(add)).with_state(sessions);
        for app in [bare.clone(), bare.layer(AutoCommitLayer::new())] {
            let answer = Jar::default().expect(&app, "/", "added").await;
            let cookies = answer.set_cookies();
            assert_eq!(cookies[..3], OWN);
            assert_eq!(cookies.len(), 5, "{cookies:?}");
        }
    }
}

#[tokio::test]
async fn two_commits_of_one_response_say_everything_once() {
    let scripts = [
        ("read/commit/add", 2, false),
        ("add/commit/add/commit/read", 2, false),
        ("add/commit/regenerate", 2, false),
        ("read/commit/destroy", 2, true),
        ("add/commit/destroy", 2, true),
        ("destroy/commit/add", 2, false),
        ("destroy/commit/read", 2, true),
        ("add/commit/destroy/reverse", 2, true),
    ];
    for moved in all().await {
        for (script, cookies, ends) in scripts {
            let mut jar = moved.visitor(1).await;
            let answer = jar.send(&moved.new, &format!("/shop/{script}")).await;
            let case = format!("{script}, {}: {answer:?}", moved.case);
            assert_eq!(answer.set_cookies().len(), cookies, "{case}");
            assert_eq!(answer.set_cookies()[0], moved.removal, "{case}");
            assert_eq!(jar.0.is_empty(), ends, "{case}");
            if !ends {
                moved.expect_only_todays(&jar);
            }
        }
        // What was set and removed within one response was never there.
        let answer = Jar::default().send(&moved.new, "/shop/add/commit/destroy").await;
        answer.expect_no_cookie();
    }
}

#[tokio::test]
async fn nothing_of_a_former_cookie_overwrites_a_new_id_that_is_on_its_way() {
    for home in [Home::CookieWithList, Home::SealedId, Home::PlainId] {
        let (was, is) = (named("old"), named("id"));
        let site = Site::new(home);
        let (old, new) = (site.node(&was, &[]), site.node(&is, &[&was]));
        let (mut former, mut todays) = (Jar::default(), Jar::default());
        former.send(&old, "/add").await;
        todays.expect(&new, "/add/add", "2").await;
        let mut both = todays.with(&former);
        // The answer with the new id is still on its way when the next request is sent.
        let mut later = todays.clone();
        later.expect(&new, "/regenerate", "2").await;
        both.clone().expect(&new, "/read", "0").await.expect_no_cookie();
        later.expect(&new, "/read", "2").await;
        // A logout ends all of them.
        both.expect(&new, "/destroy", "0").await;
        for mut cookies in [former, todays, later] {
            cookies.expect(&new, "/read", "0").await;
        }
    }
}

#[tokio::test]
async fn twins_of_todays_cookie_do_not_hide_a_former_one() {
    let formers = [named("id").path("/shop"), named("id").domain("example.com")];
    for home in [Home::Cookie, Home::SealedId] {
        let site = Site::new(home);
        let mut jar = Jar::default();
        jar.send(&site.node(&formers[1], &[]), "/add").await;
        let token = jar.0.into_values().next().unwrap();
        let twin = format!("{}AAAA", &token[..token.len() - 4]);
        let new = site.node(&named("id"), &[&formers[0], &formers[1]]);
        for place in [0, 90, 180] {
            let mut tokens = vec![&*twin; 180];
            tokens.insert(place, &token);
            let pairs: Vec<_> = tokens.iter().map(|token| format!("id={token}")).collect();
            let request = Request::post("/read").header(header::COOKIE, pairs.join("; "));
            assert_eq!(send(&new, request).await.body, "1", "{home:?}, {place}");
        }
    }
}

#[tokio::test]
async fn keys_and_cookie_may_change_in_one_release() {
    let (was, is) = (named("id").path("/shop"), named("__Host-session"));
    let new_key = Key::generate();
    for home in [Home::Cookie, Home::CookieWithList, Home::SealedId] {
        let site = Site::new(home);
        let old = site.node(&was, &[]);
        let ring = KeyRing::new(new_key.clone()).accept_former(key());
        let builder = site.builder().keys(ring).cookie(is.clone()).former_cookie(was.clone());
        let new = scripted(builder.build().unwrap());
        let last = site.builder().keys(new_key.clone()).cookie(is.clone());
        let last = scripted(last.build().unwrap());

        let mut jar = Jar::default();
        jar.send(&old, "/shop/add").await;
        assert_eq!(jar.expect(&new, "/shop/read", "1").await.set_cookies().len(), 2);
        jar.expect(&new, "/shop/read", "1").await.expect_no_cookie();
        jar.expect(&last, "/read", "1").await.expect_no_cookie();
    }
}

#[tokio::test]
async fn over_plain_http_former_cookies_lose_secure_and_prefix_too() {
    let site = Site::new(Home::Cookie);
    let insecure = || site.builder().insecure_http(true);
    let old = scripted(insecure().cookie(named("__Secure-old").path("/shop")).build().unwrap());
    let new = insecure().former_cookie(named("__Secure-old").path("/shop"));
    let new = scripted(new.build().unwrap());
    let mut jar = Jar::default();
    jar.send(&old, "/shop/add").await;
    let answer = jar.expect(&new, "/shop/read", "1").await;
    assert!(answer.set_cookies()[0].starts_with("old=; HttpOnly; SameSite=Lax; Path=/shop; "));
    assert!(answer.set_cookies()[1].starts_with("session="), "{answer:?}");
}

/// In production only the prefix tells the two apart.
#[tokio::test]
async fn over_plain_http_a_former_cookie_may_be_todays_without_its_prefix() {
    let builder = Site::new(Home::Cookie).builder().former_cookie(named("session"));
    let app = scripted(builder.insecure_http(true).build().unwrap());
    let mut jar = Jar::default();
    jar.expect(&app, "/add", "1").await.set_cookie();
    jar.expect(&app, "/add", "2").await.set_cookie();
    jar.expect(&app, "/destroy", "2").await.set_cookie();
    assert_eq!(jar, Jar::default());
}

/// First every node learns to read the next cookie, then the nodes go over to it one by one.
#[tokio::test]
async fn a_rolling_release_loses_no_session_between_old_and_new_nodes() {
    for home in HOMES {
        for (change, was, is) in moves() {
            let site = Site::new(home);
            let (old, new) = (site.node(&was, &[&is]), site.node(&is, &[&was]));
            let mut jar = Jar::default();
            for count in 1..=6 {
                let node = if count % 2 == 0 { &new } else { &old };
                jar.expect(node, "/shop/add", &count.to_string()).await;
                assert_eq!(jar.0.len(), 1, "{change}, {home:?}");
            }
            let kept = jar.clone();
            jar.expect(&old, "/shop/destroy", "6").await;
            assert_eq!(jar, Jar::default(), "{change}, {home:?}");
            if home.ends_sessions() {
                kept.clone().expect(&new, "/shop/read", "0").await;
            }
        }
    }
}

#[tokio::test]
async fn the_move_to_partitioned_cookies_is_that_of_a_former_cookie() {
    for home in HOMES {
        let site = Site::new(home);
        let old = site.node(&named("id").same_site(SameSite::None), &[]);
        let new = site.builder().cookie(partitioned()).remove_unpartitioned(true);
        let new = scripted(new.build().unwrap());
        let mut jar = Jar::default();
        jar.send(&old, "/add").await;
        let former = jar.clone();
        assert_eq!(jar.expect(&new, "/read", "1").await.set_cookies().len(), 2);
        assert_eq!(jar.0.len(), 1);
        jar.expect(&new, "/regenerate", "1").await.set_cookie();
        let mut jar = jar.with(&former);
        assert_eq!(jar.expect(&new, "/destroy", "1").await.set_cookies().len(), 2);
        assert_eq!(jar, Jar::default());
    }
}

#[tokio::test]
async fn a_name_belongs_to_one_manager_of_a_request() {
    async fn both(
        visits: Session<Visits>,
        notes: Session<String>,
    ) -> Result<impl IntoResponse, SessionError> {
        Ok((visits.commit().await?, notes.commit().await?))
    }
    async fn turned(
        notes: Session<String>,
        visits: Session<Visits>,
    ) -> Result<impl IntoResponse, SessionError> {
        Ok((notes.commit().await?, visits.commit().await?))
    }
    #[derive(Clone, axum::extract::FromRef)]
    struct Both {
        visits: SessionManager<Visits>,
        notes: SessionManager<String>,
    }
    for note in [named("old"), named("old").path("/elsewhere").domain("example.com")] {
        let notes = SessionManager::builder().keys(key()).cookie(note).build().unwrap();
        let visits = Site::new(Home::Cookie).sessions(&named("id"), &[&named("old")]);
        let text = async |_: Session<Visits>, notes: Result<Session<String>, SessionError>| {
            notes.map_or_else(|error| error.to_string(), |_| String::new())
        };
        let app = Router::new()
            .route("/both", get(both))
            .route("/turned", get(turned))
            .route("/text", get(text))
            .with_state(Both { visits, notes });
        for path in ["/both", "/turned"] {
            let answer = send(&app, Request::get(path)).await;
            answer.expect_error(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let text = send(&app, Request::get("/text")).await.body;
        assert_eq!(
            text,
            "two session managers in one request use the cookie \"old\"; give one of them another `.cookie(..)`, \
             `.former_cookie(..)` or `.transport(..)`"
        );
    }
}

#[track_caller]
fn expect_refusal(builder: Builder, text: &str) {
    match builder.build() {
        Ok(_) => panic!("accepted, but expected: {text}"),
        Err(error) => assert_eq!(error.to_string(), text),
    }
}

#[test]
fn former_cookies_that_make_no_sense_are_refused() {
    let with = |cookie: Template| Site::new(Home::Cookie).builder().former_cookie(cookie);
    let cases = [
        (
            named("old").path("shop"),
            "Path must start with `/`, such as `/` or `/app`; browsers replace any other Path by the folder of the \
             request",
        ),
        (Cookie::build(("old", "value")), "the value must be empty, because the session sets it"),
        (
            named("a b"),
            "the name must have at least one character, and only letters, digits and !#$%&'*+-.^_`|~",
        ),
        (named("__Host-old").path("/shop"), "the prefix `__Host-` needs Path=/"),
        (named("old").partitioned(true).secure(false), "Partitioned needs Secure"),
        (
            named("old").domain("https://example.com"),
            "Domain is a URL, so browsers drop the cookie; write only the host, such as `example.com`, or remove \
             Domain",
        ),
    ];
    for (template, problem) in cases {
        expect_refusal(with(template), &format!("`.former_cookie(..)`: {problem}"));
    }
    let twice = "`.former_cookie(..)` has the name, Domain, Path and Partitioned of the current cookie or of another \
                 former cookie; remove it";
    let today = named("__Host-session").same_site(SameSite::Strict).http_only(false);
    expect_refusal(with(today), twice);
    expect_refusal(with(named("old")).former_cookie(named("old").secure(false)), twice);
    expect_refusal(
        with(named("old").domain("Example.com")).cookie(named("old").domain(".example.com")),
        twice,
    );
    let moved = || with(named("id").same_site(SameSite::None)).cookie(partitioned());
    assert!(moved().build().is_ok());
    expect_refusal(moved().remove_unpartitioned(true), twice);
    expect_refusal(
        with(named("old")).remove_unpartitioned(true),
        "`.remove_unpartitioned(..)` needs a `.cookie(..)` with the attribute Partitioned",
    );
    let text = "`.former_cookie(..)` needs the cookie as the transport; remove it, or set `Transport::cookie()`";
    for transport in [Transport::bearer(), Transport::header("x-session")] {
        expect_refusal(with(named("old")).transport(transport), text);
    }
}

/// Browsers would drop it, and the former one with the session would be gone.
#[tokio::test]
async fn a_session_that_does_not_fit_under_the_longer_name_stays_in_the_former_cookie() {
    let clock = ManualClock::new();
    let former = Cookie::new("s", "");
    let mut old = Browser::new(app(logins(&clock).cookie(former.clone())));
    let mut length = 2_800;
    while old.post(&format!("/note?{}", "x".repeat(length))).await.status == StatusCode::OK {
        length += 1;
    }
    let today = app(logins(&clock).former_cookie(former).rolling(true));
    let mut browser = old.at(&today);
    for later in [0, 6] {
        clock.advance(later * HOUR);
        browser.post("/commit").await.expect_status(StatusCode::OK).expect_no_cookie();
        assert_eq!(browser.get("/").await.body.len(), length - 1);
    }
    // Once it is shorter, it moves.
    browser.post("/note?short").await.expect_status(StatusCode::OK);
    assert!(browser.jar.keys().eq(["__Host-session"]), "{:?}", browser.jar.keys());
}
