use std::collections::BTreeMap;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header, request::Builder},
};
use axum_extra::extract::cookie::Key;
use axum_typed_session::cookie::Cookie;
use futures_util::stream;
use tower::ServiceExt;

use crate::{App, KEY_FORM, key_from_hex, session::local_path};

const PASSWORD: &str = "correct horse";

/// The application with the user `ann`.
async fn app() -> Router {
    let app = App::new(Key::generate(), false).unwrap();
    assert!(app.users.add("ann", PASSWORD).await.unwrap());
    app.router()
}

/// A browser: it keeps cookies, and fills the CSRF token of a page into the form that it sends.
#[derive(Clone)]
struct Browser {
    app: Router,
    cookies: BTreeMap<String, String>,
    page: Page,
}

#[derive(Clone)]
struct Page {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Page {
    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |location| location.to_str().unwrap())
    }

    /// The lines that set the cookie with this name.
    fn set_cookie(&self, name: &str) -> Cookie<'static> {
        let lines = self.headers.get_all(header::SET_COOKIE).iter();
        let mut cookies =
            lines.map(|line| Cookie::parse(line.to_str().unwrap().to_owned()).unwrap());
        cookies.find(|cookie| cookie.name() == name).expect("the cookie is set")
    }

    /// The value of the first hidden field `csrf`.
    fn csrf(&self) -> &str {
        let field = self.body.split_once("name=\"csrf\" value=\"").map_or("", |(_, rest)| rest);
        field.split_once('"').map_or("", |(value, _)| value)
    }
}

impl Browser {
    fn new(app: &Router) -> Self {
        let page = Page { status: StatusCode::OK, headers: HeaderMap::new(), body: String::new() };
        Self { app: app.clone(), cookies: BTreeMap::new(), page }
    }

    async fn signed_in(app: &Router) -> Self {
        let mut browser = Self::new(app);
        browser.sign_in("ann", PASSWORD, "").await;
        assert_eq!((browser.page.status, browser.page.location()), (StatusCode::SEE_OTHER, "/"));
        browser
    }

    async fn sign_in(&mut self, name: &str, password: &str, more: &str) {
        self.get("/sign-in").await;
        self.post("/sign-in", &format!("name={name}&password={password}{more}")).await;
    }

    async fn get(&mut self, path: &str) -> &Page {
        self.send(Request::get(path), Body::empty()).await
    }

    /// Sends a form with the token of the last page.
    async fn post(&mut self, path: &str, form: &str) -> &Page {
        let form = format!("csrf={}&{form}", self.page.csrf());
        self.post_form(path, form).await
    }

    async fn post_form(&mut self, path: &str, form: String) -> &Page {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux) Firefox/140.0");
        self.send(request, Body::from(form)).await
    }

    async fn send(&mut self, request: Builder, body: Body) -> &Page {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header(header::COOKIE, pairs.join("; ")).body(body).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for line in parts.headers.get_all(header::SET_COOKIE) {
            let cookie = Cookie::parse(line.to_str().unwrap()).unwrap();
            match cookie.max_age() {
                Some(age) if age.is_zero() => self.cookies.remove(cookie.name()),
                _ => self.cookies.insert(cookie.name().to_owned(), cookie.value().to_owned()),
            };
        }
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.page = Page { status: parts.status, headers: parts.headers, body };
        &self.page
    }
}

#[tokio::test]
async fn a_user_signs_in_and_out() {
    let mut browser = Browser::signed_in(&app().await).await;
    assert!(browser.get("/").await.body.contains("Hello, ann"));
    assert_eq!(browser.post("/sign-out", "").await.location(), "/?signed_out=true");
    assert!(!browser.cookies.contains_key("__Host-session"), "the cookie is removed");
    let page = browser.get("/?signed_out=true").await;
    assert!(
        page.body.contains("You have signed out.") && !page.body.contains("ann"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let app = app().await;
    for (name, password) in [("ann", "wrong"), ("eve", PASSWORD)] {
        let mut browser = Browser::new(&app);
        browser.sign_in(name, password, "").await;
        assert_eq!(browser.page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(browser.page.body.contains("The name or the password is wrong."));
        assert!(!browser.get("/").await.body.contains("Hello"));
    }
}

#[tokio::test]
async fn a_visitor_comes_back_to_the_page_after_sign_in() {
    let mut browser = Browser::new(&app().await);
    let page = browser.get("/account/devices?sort=name").await;
    assert_eq!(page.location(), "/sign-in?next=%2Faccount%2Fdevices%3Fsort%3Dname");
    let form = browser.page.location().to_owned();
    assert!(browser.get(&form).await.body.contains("value=\"/account/devices?sort=name\""));
    let next = "&next=/account/devices?sort=name";
    browser.post("/sign-in", &format!("name=ann&password={PASSWORD}{next}")).await;
    assert_eq!(browser.page.location(), "/account/devices?sort=name");
}

#[test]
fn next_leads_to_no_other_host() {
    for path in ["/", "/account/devices?a=b", "/a%0Ab"] {
        assert_eq!(local_path(path), path);
    }
    let others = [
        "",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "https://evil.test",
        "/\t/evil.test",
        "evil",
    ];
    for url in others {
        assert_eq!(local_path(url), "/", "{url:?}");
    }
}

#[tokio::test]
async fn a_form_without_the_token_is_refused() {
    let app = app().await;
    let mut stranger = Browser::new(&app);
    stranger.post("/sign-in", &format!("name=ann&password={PASSWORD}")).await;
    assert_eq!(stranger.page.location(), "/sign-in?refused=true&next=%2F");
    let form = stranger.page.location().to_owned();
    assert!(stranger.get(&form).await.body.contains("The form was too old"));
    assert!(!stranger.get("/").await.body.contains("Hello"));

    let mut ann = Browser::signed_in(&app).await;
    for path in ["/sign-out", "/account/devices/sign-out-others", "/account/devices/sign-out-all"] {
        // The last page was a redirect, so there is no token to fill in.
        assert_eq!(ann.post(path, "").await.status, StatusCode::FORBIDDEN, "{path}");
        assert!(ann.page.body.contains("This form is too old."), "{}", ann.page.body);
    }
    assert!(ann.get("/").await.body.contains("Hello, ann"));
}

#[tokio::test]
async fn a_message_is_shown_once() {
    let mut browser = Browser::signed_in(&app().await).await;
    assert!(browser.get("/").await.body.contains("Welcome, ann."));
    assert!(!browser.get("/").await.body.contains("Welcome, ann."));
}

#[tokio::test]
async fn only_keep_me_signed_in_makes_a_cookie_that_outlives_the_browser() {
    let app = app().await;
    let mut browser = Browser::new(&app);
    browser.sign_in("ann", PASSWORD, "").await;
    let cookie = browser.page.set_cookie("__Host-session");
    assert_eq!((cookie.max_age(), cookie.http_only()), (None, Some(true)));

    browser.post("/sign-out", "").await;
    browser.cookies.clear();
    browser.sign_in("ann", PASSWORD, "&keep=true").await;
    let age = browser.page.set_cookie("__Host-session").max_age().unwrap();
    assert!(age.whole_days() >= 29, "{age}");
}

#[tokio::test]
async fn devices_are_listed_and_signed_out() {
    let app = app().await;
    let mut here = Browser::signed_in(&app).await;
    let mut phone = Browser::signed_in(&app).await;
    let mut work = Browser::signed_in(&app).await;
    let page = here.get("/account/devices").await;
    assert_eq!(page.body.matches("Firefox on Linux").count(), 3);
    assert_eq!(page.body.matches("this device").count(), 1);

    // This device comes first in the list.
    let others: Vec<_> = page.body.split("action=\"/account/devices/").skip(2).collect();
    let one = others[0].split_once('"').unwrap().0.to_owned();
    assert_eq!(
        here.post(&format!("/account/devices/{one}"), "").await.location(),
        "/account/devices"
    );
    let mut left = 0;
    for browser in [&mut phone, &mut work] {
        left += usize::from(browser.get("/").await.body.contains("Hello, ann"));
    }
    assert_eq!(left, 1);

    let page = here.get("/account/devices").await;
    assert!(page.body.contains("The device is signed out."));
    here.post("/account/devices/sign-out-others", "").await;
    assert!(here.get("/account/devices").await.body.contains("One other device is signed out."));
    for browser in [&mut phone, &mut work] {
        assert!(!browser.get("/").await.body.contains("Hello, ann"));
    }

    here.post("/account/devices/sign-out-all", "").await;
    assert!(!here.cookies.contains_key("__Host-session"), "the cookie is removed");
    assert!(!here.get("/").await.body.contains("Hello, ann"));
}

#[tokio::test]
async fn a_user_cannot_sign_out_a_device_of_somebody_else() {
    let app = app().await;
    let mut ann = Browser::signed_in(&app).await;
    let page = ann.get("/account/devices").await.body.clone();
    let path = page.split("action=\"/account/devices/").nth(1).unwrap().split_once('"').unwrap().0;

    let mut bob = Browser::new(&app);
    bob.get("/sign-up").await;
    bob.post("/sign-up", "name=bob&password=battery+staple").await;
    bob.get("/").await;
    bob.post(&format!("/account/devices/{path}"), "").await;
    assert!(ann.get("/").await.body.contains("Hello, ann"));
}

#[tokio::test]
async fn a_new_password_signs_out_the_other_devices() {
    let app = app().await;
    let mut here = Browser::signed_in(&app).await;
    let mut other = Browser::signed_in(&app).await;
    here.get("/account/password").await;
    let old_cookie = here.cookies["__Host-session"].clone();
    here.post("/account/password", "old=wrong&new=battery+staple").await;
    assert!(here.page.body.contains("The old password is wrong."));
    here.post("/account/password", &format!("old={PASSWORD}&new=battery+staple")).await;
    assert_eq!(here.page.location(), "/account/devices", "{}", here.page.body);
    assert_ne!(here.cookies["__Host-session"], old_cookie);
    assert!(here.get("/").await.body.contains("Hello, ann"));
    assert!(!other.get("/").await.body.contains("Hello, ann"));

    other.sign_in("ann", PASSWORD, "").await;
    assert_eq!(other.page.status, StatusCode::UNPROCESSABLE_ENTITY);
    other.sign_in("ann", "battery+staple", "").await;
    assert_eq!(other.page.location(), "/");
}

#[tokio::test]
async fn a_visitor_signs_up_once() {
    let app = app().await;
    let mut browser = Browser::new(&app);
    browser.get("/sign-up").await;
    for (form, problem) in [
        ("name=ann&password=battery+staple", "This name is taken."),
        ("name=no+name&password=battery+staple", "A name has 1 to 30 letters and digits."),
        ("name=bob&password=short", "A password has at least 8 characters."),
    ] {
        assert!(browser.post("/sign-up", form).await.body.contains(problem), "{form}");
    }
    browser.post("/sign-up", "name=bob&password=battery+staple").await;
    assert!(browser.get("/").await.body.contains("Hello, bob"));
}

#[tokio::test]
async fn theme_and_last_visit_have_cookies_of_their_own() {
    let mut browser = Browser::signed_in(&app().await).await;
    assert!(browser.get("/").await.body.contains("This is your first visit"));
    let last_visit = browser.page.set_cookie("last-visit");
    assert!(last_visit.value().parse::<i64>().is_err(), "it is encrypted");
    browser.post("/theme", "theme=dark").await;
    assert_eq!(browser.page.set_cookie("theme").http_only(), None);
    let page = browser.get("/").await;
    assert!(page.body.contains("Your last visit with this browser was just now."), "{}", page.body);
    assert!(page.body.contains("data-theme=\"dark\""));
    assert!(page.body.contains("Hello, ann"));
    browser.post("/sign-out", "").await;
    assert!(browser.get("/").await.body.contains("data-theme=\"dark\""));
}

#[tokio::test]
async fn pages_are_not_stored_and_run_no_scripts() {
    let mut browser = Browser::signed_in(&app().await).await;
    for path in ["/", "/account/devices", "/nothing"] {
        let page = browser.get(path).await;
        assert_eq!(page.headers[header::CACHE_CONTROL], "no-store", "{path}");
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
    }
    assert_eq!(browser.page.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn of_two_clicks_on_sign_in_the_second_ends_signed_in_too() {
    let mut browser = Browser::new(&app().await);
    browser.get("/sign-in").await;
    let (cookies, form) = (browser.cookies.clone(), format!("name=ann&password={PASSWORD}"));
    let csrf = browser.page.csrf().to_owned();
    assert_eq!(browser.post("/sign-in", &form).await.location(), "/");
    let signed_in = std::mem::replace(&mut browser.cookies, cookies);
    // The second click was sent with the cookie of the first, and its response changes nothing of it.
    let page = browser.post_form("/sign-in", format!("csrf={csrf}&{form}")).await;
    let form = page.location().to_owned();
    assert_eq!(form, "/sign-in?refused=true&next=%2F");
    assert!(page.headers.get(header::SET_COOKIE).is_none());
    browser.cookies = signed_in;
    assert_eq!(browser.get(&form).await.location(), "/");
}

/// The two clicks of a double click, of which the second has loaded the session when the first one is answered.
async fn double_click(browser: &Browser, path: &str, form: &str) -> [Browser; 2] {
    let (mut first, mut second) = (browser.clone(), browser.clone());
    let (answered, is_answered) = tokio::sync::oneshot::channel();
    let body = format!("csrf={}&{form}", browser.page.csrf());
    // Handlers extract the session before they read the body.
    let body = Body::from_stream(stream::once(async move { is_answered.await.map(|()| body) }));
    let request =
        Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    tokio::join!(second.send(request, body), async {
        first.post(path, form).await;
        answered.send(()).unwrap();
    });
    [first, second]
}

#[tokio::test]
async fn of_two_clicks_the_second_ends_where_the_first_does() {
    let app = app().await;
    let here = "/account/devices";
    for (page, form, fields, leads_to, is_signed_in) in [
        ("/sign-in", "/sign-in", "name=ann&password=correct+horse", "/", true),
        ("/sign-up", "/sign-up", "name=bob&password=battery+staple", "/", true),
        (here, "/account/devices/sign-out-others", "", here, true),
        ("/", "/sign-out", "", "/?signed_out=true", false),
        (here, "this device", "", "/?signed_out=true", false),
        (here, "/account/devices/sign-out-all", "", "/?signed_out=true", false),
        (
            "/account/password",
            "/account/password",
            "old=correct+horse&new=battery+staple",
            here,
            true,
        ),
    ] {
        let is_for_visitors = ["/sign-in", "/sign-up"].contains(&page);
        let mut browser =
            if is_for_visitors { Browser::new(&app) } else { Browser::signed_in(&app).await };
        let body = browser.get(page).await.body.clone();
        let path = if form == "this device" {
            let action = body.split("action=\"/account/devices/").nth(1).unwrap();
            format!("/account/devices/{}", action.split_once('"').unwrap().0)
        } else {
            form.to_owned()
        };
        let [first, mut second] = double_click(&browser, &path, fields).await;
        for page in [&first.page, &second.page] {
            assert_eq!(page.location(), leads_to, "{form}: {}", page.body);
        }
        // Cookies of the first response are there as well, unless the second replaces or removes them.
        if second.page.headers.get(header::SET_COOKIE).is_none() {
            second.cookies = first.cookies;
        }
        let hello = second.get("/").await.body.contains("Hello, ");
        assert_eq!(hello, is_signed_in, "{form}");
    }
}

#[tokio::test]
async fn a_user_who_is_signed_in_stays_so_until_sign_out() {
    let app = app().await;
    let mut bob = Browser::new(&app);
    bob.get("/sign-up").await;
    bob.post("/sign-up", "name=bob&password=battery+staple").await;
    let mut browser = Browser::signed_in(&app).await;
    for (path, form) in [
        ("/sign-in", "name=bob&password=battery+staple"),
        ("/sign-up", "name=eve&password=battery+staple"),
    ] {
        // A page with a token that is valid.
        browser.get("/").await;
        assert_eq!(browser.post(path, form).await.status, StatusCode::SEE_OTHER);
        assert!(browser.get("/").await.body.contains("Hello, ann"), "{path}");
    }
}

#[test]
fn the_key_is_read_from_hex() {
    let hex: String = (0..64).fold(String::new(), |hex, byte: u8| format!("{hex}{byte:02x}"));
    let bytes: Vec<u8> = (0..64).collect();
    assert_eq!(key_from_hex(&format!("{hex}\n")).unwrap().master(), bytes);
    for text in ["", &hex[..126], &"+f".repeat(64), &"correct horse ".repeat(10)] {
        assert_eq!(key_from_hex(text).err(), Some(KEY_FORM), "{text}");
    }
}

/// Time passes only where the `testing` feature gives tests a clock.
#[cfg(feature = "testing")]
mod lifetimes {
    use std::time::Duration;

    use axum_typed_session::testing::ManualClock;

    use super::*;
    use crate::{session::options, users::Users};

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Signs `ann` in, and returns how many of 20 visits still find her signed in, with `pause` before each.
    async fn visits(more: &str, pause: Duration) -> usize {
        let (key, clock) = (Key::generate(), ManualClock::new());
        let sessions = options(axum_typed_session::Key::generate(), false)
            .clock(clock.clone())
            .build()
            .unwrap();
        let app = App { sessions, users: Users::default(), key };
        assert!(app.users.add("ann", PASSWORD).await.unwrap());
        let mut browser = Browser::new(&app.router());
        browser.sign_in("ann", PASSWORD, more).await;
        for visit in 0..20 {
            clock.advance(pause);
            if !browser.get("/").await.body.contains("Hello, ann") {
                return visit;
            }
        }
        20
    }

    #[tokio::test]
    async fn without_keep_a_session_ends_after_two_hours_unused_and_after_a_day() {
        assert_eq!(visits("", 2 * HOUR + Duration::from_secs(1)).await, 0);
        assert_eq!(visits("", HOUR + HOUR / 2).await, 15, "22.5 hours");
    }

    #[tokio::test]
    async fn with_keep_a_session_ends_after_thirty_days_unused_and_after_180_days() {
        assert_eq!(visits("&keep=true", 30 * DAY + HOUR).await, 0);
        assert_eq!(visits("&keep=true", 29 * DAY).await, 6, "174 days");
    }
}
