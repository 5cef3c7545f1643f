//! Two sessions in one application: a sign-in that ends with the browser, and preferences that stay for a year.
//!
//! ```text
//! export SESSION_KEY=$(openssl rand -hex 64)
//! cargo run --example two_sessions
//! ```
//!
//! Open <http://127.0.0.1:3000>, choose a language, sign in and sign out. The language stays.
//!
//! | | `Session<Login>` | `Session<Preferences>` |
//! |---|---|---|
//! | cookie | `__Host-login` holds an id | `__Host-preferences` holds the data |
//! | data | in this process's memory | in the cookie, encrypted |
//! | ends | with the browser, or 15 minutes after the last request | a year after the last change |
//! | sign-out | ends it at once | keeps it |
//!
//! The sign-in asks for no password; the example `login` is complete. `PORT` sets the port, and `INSECURE_HTTP=1` suits
//! browsers that refuse Secure cookies on `http://localhost`.

use std::{env, error::Error, time::Duration};

use axum::{
    Form, Router,
    extract::FromRef,
    http::header,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{
    ConfigError, IdleTimeout, KeyRing, MemoryStore, Session, SessionError, SessionManager,
    cookie::Cookie,
};
use maud::{DOCTYPE, Markup, html};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Login {
    user: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Preferences {
    language: Language,
    /// The name that the sign-in form suggests.
    last_user: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Language {
    #[default]
    English,
    German,
    Spanish,
}

/// A manager for each type. `FromRef` lets axum find the manager that a handler needs.
#[derive(Clone, FromRef)]
struct App {
    logins: SessionManager<Login>,
    preferences: SessionManager<Preferences>,
}

impl App {
    /// Both managers may share a key: each derives its own from it.
    fn new(keys: &KeyRing, insecure_http: bool) -> Result<Self, ConfigError> {
        const MINUTE: Duration = Duration::from_secs(60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let logins = SessionManager::builder()
            .keys(keys.clone())
            .cookie(Cookie::build("__Host-login"))
            .store(MemoryStore::new())
            .owner(|login: &Login| login.user.clone())
            .idle_timeout(IdleTimeout::BrowserSession(15 * MINUTE))
            .rolling(true)
            .absolute_timeout(DAY)
            .insecure_http(insecure_http)
            .build()?;
        let preferences = SessionManager::builder()
            .keys(keys.clone())
            .cookie(Cookie::build("__Host-preferences"))
            .idle_timeout(365 * DAY)
            .absolute_timeout(5 * 365 * DAY)
            .insecure_http(insecure_http)
            .build()?;
        Ok(Self { logins, preferences })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/language", post(choose_language))
            .route("/sign-in", post(sign_in))
            .route("/sign-out", post(sign_out))
            .with_state(self)
    }
}

/// Reads both sessions. The response takes both guards.
async fn index(
    login: Session<Login>,
    preferences: Session<Preferences>,
) -> Result<impl IntoResponse, SessionError> {
    let page = page(&login, &preferences);
    // The back button shows no name after sign-out, since the browser keeps no copy of the page.
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, login.commit().await?, preferences.commit().await?, page))
}

#[derive(Deserialize)]
struct Choice {
    language: Language,
}

/// Changes the preferences of any visitor. The login is neither loaded nor extended.
async fn choose_language(
    mut preferences: Session<Preferences>,
    Form(choice): Form<Choice>,
) -> Result<impl IntoResponse, SessionError> {
    preferences.language = choice.language;
    Ok((preferences.commit().await?, Redirect::to("/")))
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
}

/// The form asks for no longer name.
const LONGEST_NAME: usize = 40;

/// Changes both sessions. The login is committed first, since it is the one that must not fail unseen.
async fn sign_in(
    mut login: Session<Login>,
    mut preferences: Session<Preferences>,
    Form(form): Form<SignIn>,
) -> Result<impl IntoResponse, SessionError> {
    let name = form.name.trim();
    if (1..=LONGEST_NAME).contains(&name.chars().count()) {
        login.user = Some(name.to_owned());
        login.regenerate();
        name.clone_into(&mut preferences.last_user);
    }
    Ok((login.commit().await?, preferences.commit().await?, Redirect::to("/")))
}

/// Ends the login alone.
async fn sign_out(mut login: Session<Login>) -> Result<impl IntoResponse, SessionError> {
    login.destroy();
    Ok((login.commit().await?, Redirect::to("/")))
}

/// The texts of the page in one language.
struct Texts {
    code: &'static str,
    hello: &'static str,
    name: &'static str,
    sign_in: &'static str,
    sign_out: &'static str,
}

impl Language {
    const ALL: [(Self, &str, &str); 3] = [
        (Self::English, "english", "English"),
        (Self::German, "german", "Deutsch"),
        (Self::Spanish, "spanish", "Español"),
    ];

    fn texts(self) -> Texts {
        match self {
            Self::English => Texts {
                code: "en",
                hello: "Hello",
                name: "Your name",
                sign_in: "Sign in",
                sign_out: "Sign out",
            },
            Self::German => Texts {
                code: "de",
                hello: "Hallo",
                name: "Dein Name",
                sign_in: "Anmelden",
                sign_out: "Abmelden",
            },
            Self::Spanish => Texts {
                code: "es",
                hello: "Hola",
                name: "Tu nombre",
                sign_in: "Entrar",
                sign_out: "Salir",
            },
        }
    }
}

fn page(login: &Login, preferences: &Preferences) -> Markup {
    let texts = preferences.language.texts();
    html! {
        (DOCTYPE)
        html lang=(texts.code) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Two sessions" }
                style { (STYLE) }
            }
            body {
                main {
                    h1 id="hello" {
                        (texts.hello)
                        @if let Some(user) = &login.user { ", " (user) }
                    }
                    section {
                        h2 { code { "Session<Login>" } }
                        @if login.user.is_some() {
                            form method="post" action="/sign-out" {
                                button id="sign-out" { (texts.sign_out) }
                            }
                        } @else {
                            form method="post" action="/sign-in" {
                                input name="name" value=(preferences.last_user) placeholder=(texts.name)
                                    aria-label=(texts.name) maxlength=(LONGEST_NAME) required;
                                button id="sign-in" { (texts.sign_in) }
                            }
                        }
                    }
                    section {
                        h2 { code { "Session<Preferences>" } }
                        form method="post" action="/language" {
                            @for (language, value, name) in Language::ALL {
                                button.plain name="language" value=(value)
                                    aria-pressed=(language == preferences.language) { (name) }
                            }
                        }
                    }
                }
            }
        }
    }
}

const STYLE: &str = "
    :root { color-scheme: light dark; --accent: light-dark(#2457c5, #8fb0ff); --line: light-dark(#dfe3ea, #333842) }
    body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.05rem/1.5 system-ui, sans-serif;
        background: light-dark(#f6f7f9, #14161a) }
    main { width: min(24rem, 92vw); display: grid; gap: 1rem; padding: 1rem 0 }
    h1 { font-size: 2rem; margin: 0; overflow-wrap: anywhere }
    h2 { font-size: .9rem; font-weight: 400; margin: 0 0 .8rem; opacity: .7 }
    section { background: light-dark(#fff, #1d2026); border: 1px solid var(--line); border-radius: .75rem;
        padding: 1rem 1.2rem 1.2rem }
    form { display: flex; gap: .6rem }
    input { flex: 1; min-width: 0 }
    input, button { font: inherit; padding: .5rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
        background: none; color: inherit }
    button { border-color: var(--accent); background: var(--accent); color: light-dark(#fff, #10182b); cursor: pointer }
    button.plain { flex: 1; border-color: var(--line); background: none; color: inherit }
    button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); font-weight: 600 }
";

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run().await {
        eprintln!("two_sessions: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let insecure_http = env::var("INSECURE_HTTP").is_ok_and(|value| value == "1");
    let app = App::new(&KeyRing::from_env("SESSION_KEY")?, insecure_http)?;
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT must be a number from 0 to 65535")?,
        Err(_) => 3000_u16,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; set PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.router()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use axum_typed_session::{Key, time::Duration};
    use tower::ServiceExt;

    use super::*;

    const LOGIN: &str = "__Host-login";
    const PREFERENCES: &str = "__Host-preferences";

    /// A browser, and what the last response said.
    struct Browser {
        app: Router,
        cookies: BTreeMap<String, String>,
        /// The cookies that the last response set or removed.
        received: Vec<Cookie<'static>>,
        page: String,
    }

    impl Browser {
        fn new() -> Self {
            let app = App::new(&Key::generate().into(), false).unwrap().router();
            Self { app, cookies: BTreeMap::new(), received: Vec::new(), page: String::new() }
        }

        async fn get(&mut self) -> &str {
            let status = self.send(Request::get("/").body(Body::empty()).unwrap()).await;
            assert_eq!(status, StatusCode::OK);
            &self.page
        }

        /// Sends a form, and returns the names of the cookies that the response sets or removes.
        async fn post(&mut self, path: &str, form: &str) -> Vec<&str> {
            let request = Request::post(path)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(form.to_owned()));
            assert_eq!(self.send(request.unwrap()).await, StatusCode::SEE_OTHER);
            self.received.iter().map(Cookie::name).collect()
        }

        async fn send(&mut self, mut request: Request<Body>) -> StatusCode {
            let cookies: Vec<_> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
            let response = self.app.clone().oneshot(request).await.unwrap();
            let lines = response.headers().get_all(header::SET_COOKIE).iter();
            let parse =
                |line: &header::HeaderValue| Cookie::parse(line.to_str().unwrap().to_owned());
            self.received = lines.map(|line| parse(line).unwrap()).collect();
            for cookie in &self.received {
                let (name, value) = (cookie.name().to_owned(), cookie.value().to_owned());
                if value.is_empty() {
                    self.cookies.remove(&name);
                } else {
                    self.cookies.insert(name, value);
                }
            }
            let status = response.status();
            let page = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            self.page = String::from_utf8(page.to_vec()).unwrap();
            status
        }
    }

    #[tokio::test]
    async fn each_session_has_a_cookie_and_a_lifetime_of_its_own() {
        let mut browser = Browser::new();
        assert_eq!(browser.post("/sign-in", "name=ann").await, [LOGIN, PREFERENCES]);
        let lifetimes: Vec<_> = browser.received.iter().map(Cookie::max_age).collect();
        assert_eq!(lifetimes, [None, Some(Duration::days(365))]);
        assert!(browser.get().await.contains("Hello, ann"));
    }

    #[tokio::test]
    async fn a_sign_out_ends_the_login_and_keeps_the_preferences() {
        let mut browser = Browser::new();
        browser.post("/sign-in", "name=ann").await;
        browser.post("/language", "language=spanish").await;
        let login = browser.cookies[LOGIN].clone();
        assert_eq!(browser.post("/sign-out", "").await, [LOGIN]);
        let page = browser.get().await;
        assert!(page.contains(">Hola</h1>") && page.contains("value=\"ann\""), "{page}");

        // The store has no such login any more, so a copy of the cookie is worth nothing.
        browser.cookies.insert(LOGIN.to_owned(), login);
        assert!(browser.get().await.contains(">Hola</h1>"));
    }

    #[tokio::test]
    async fn each_session_is_readable_without_the_other() {
        let mut browser = Browser::new();
        assert_eq!(browser.post("/language", "language=german").await, [PREFERENCES]);
        assert!(browser.get().await.contains(">Hallo</h1>"));

        browser.post("/sign-in", "name=bob").await;
        browser.cookies.remove(PREFERENCES);
        assert!(browser.get().await.contains("Hello, bob"));
    }

    #[tokio::test]
    async fn reading_and_a_name_that_is_too_long_save_nothing() {
        let mut browser = Browser::new();
        browser.get().await;
        assert!(browser.received.is_empty());
        let too_long = format!("name={}", "n".repeat(LONGEST_NAME + 1));
        for form in ["name=", "name=++", &too_long] {
            assert!(browser.post("/sign-in", form).await.is_empty(), "{form}");
        }
    }
}
