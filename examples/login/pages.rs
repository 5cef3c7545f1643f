//! The HTML. `maud` escapes everything that is put into a page.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use axum_extra::extract::CookieJar;
use axum_typed_session::{Session, SessionError};
use maud::{DOCTYPE, Markup, html};

use crate::{
    cookies::Theme,
    session::{self, Login, now},
};

/// The parts that all pages share: the theme, the user, a message and the CSRF token.
#[derive(Default)]
pub struct Frame {
    theme: Theme,
    user: Option<String>,
    flash: Option<String>,
    csrf: String,
}

impl Frame {
    /// Takes the message of the session, so that the next page no longer shows it.
    pub fn new(session: &mut Session<Login>, jar: &CookieJar) -> Result<Self, SessionError> {
        session::touch(session);
        let csrf = match session.user {
            Some(_) => session.csrf_token()?,
            None => String::new(),
        };
        // An unchanged session is not borrowed mutably, and so costs no comparison.
        let flash = if session.flash.is_some() { session.flash.take() } else { None };
        Ok(Self { theme: Theme::of(jar), user: session.user.clone(), flash, csrf })
    }

    /// For a page with a form for visitors. Its token saves an anonymous session.
    pub fn with_form(session: &mut Session<Login>, jar: &CookieJar) -> Result<Self, SessionError> {
        Ok(Self { csrf: session.csrf_token()?, ..Self::new(session, jar)? })
    }

    fn csrf_field(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(self.csrf); }
    }

    fn around(&self, title: &str, content: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" data-theme=(self.theme.name()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · Login example" }
                    link rel="stylesheet" href="/style.css";
                }
                body {
                    header { (self.navigation()) }
                    main {
                        @if let Some(flash) = &self.flash { p.flash role="status" { (flash) } }
                        (content)
                    }
                    footer { (self.theme_form()) }
                }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            nav {
                a.brand href="/" { "Login example" }
                @if let Some(user) = &self.user {
                    a href="/account/devices" { "Devices" }
                    a href="/account/password" { "Password" }
                    form method="post" action="/sign-out" {
                        (self.csrf_field())
                        button.link id="sign-out" title={ "Signed in as " (user) } { "Sign out" }
                    }
                } @else {
                    a href="/sign-in" { "Sign in" }
                    a href="/sign-up" { "Sign up" }
                }
            }
        }
    }

    fn theme_form(&self) -> Markup {
        html! {
            form method="post" action="/theme" {
                span { "Theme" }
                @for theme in Theme::ALL {
                    button.link name="theme" value=(theme.name()) disabled[theme == self.theme] {
                        (theme.name())
                    }
                }
            }
        }
    }
}

pub fn welcome(frame: &Frame, signed_out: bool) -> Markup {
    let content = html! {
        @if signed_out { p.flash role="status" { "You have signed out." } }
        h1 { "Welcome" }
        p { "Sign in to see your account, or sign up for a new one." }
        p.actions {
            a.button href="/sign-in" { "Sign in" }
            a.button.plain href="/sign-up" { "Sign up" }
        }
    };
    frame.around("Welcome", &content)
}

pub fn home(frame: &Frame, last_visit: Option<i64>) -> Markup {
    let user = frame.user.clone().unwrap_or_default();
    let content = html! {
        h1 id="hello" { "Hello, " (user) }
        p {
            @match last_visit {
                Some(time) => { "Your last visit with this browser was " (ago(time)) "." }
                None => { "This is your first visit with this browser." }
            }
        }
        p.actions {
            a.button href="/account/devices" { "Your devices" }
            a.button.plain href="/account/password" { "Change password" }
        }
    };
    frame.around("Home", &content)
}

pub fn sign_in(frame: &Frame, next: &str, problem: &str) -> Markup {
    let content = html! {
        h1 { "Sign in" }
        form.card method="post" action="/sign-in" {
            (frame.csrf_field())
            input type="hidden" name="next" value=(next);
            (problem_text(problem))
            label { "Name" input name="name" autocomplete="username" required autofocus; }
            label { "Password"
                input name="password" type="password" autocomplete="current-password" required;
            }
            label.check { input name="keep" type="checkbox" value="true"; "Keep me signed in" }
            button id="submit" { "Sign in" }
        }
        p { "No account yet? " a href="/sign-up" { "Sign up" } "." }
    };
    frame.around("Sign in", &content)
}

pub fn sign_up(frame: &Frame, problem: &str) -> Markup {
    let content = html! {
        h1 { "Sign up" }
        form.card method="post" action="/sign-up" {
            (frame.csrf_field())
            (problem_text(problem))
            label { "Name" input name="name" autocomplete="username" required autofocus; }
            label { "Password"
                input name="password" type="password" autocomplete="new-password" minlength="8" required;
            }
            button id="submit" { "Sign up" }
        }
    };
    frame.around("Sign up", &content)
}

pub struct Device {
    pub key: String,
    pub is_this: bool,
    pub user_agent: String,
    pub signed_in: i64,
    pub last_seen: i64,
}

pub fn devices(frame: &Frame, devices: &[Device]) -> Markup {
    let content = html! {
        h1 { "Your devices" }
        ul.devices {
            @for device in devices {
                li.card.this[device.is_this] {
                    div {
                        strong { (browser_name(&device.user_agent)) }
                        @if device.is_this { " " span.badge { "this device" } }
                        small {
                            "Signed in " (ago(device.signed_in)) " · last seen " (ago(device.last_seen))
                        }
                    }
                    form method="post" action={ "/account/devices/" (device.key) "/sign-out" } {
                        (frame.csrf_field())
                        button.plain { "Sign out" }
                    }
                }
            }
        }
        div.actions {
            form method="post" action="/account/devices/sign-out-others" {
                (frame.csrf_field())
                button id="sign-out-others" { "Sign out all others" }
            }
            form method="post" action="/account/devices/sign-out-all" {
                (frame.csrf_field())
                button.plain id="sign-out-all" { "Sign out everywhere" }
            }
        }
    };
    frame.around("Your devices", &content)
}

pub fn password(frame: &Frame, problem: &str) -> Markup {
    let content = html! {
        h1 { "Change password" }
        form.card method="post" action="/account/password" {
            (frame.csrf_field())
            (problem_text(problem))
            label { "Old password"
                input name="old" type="password" autocomplete="current-password" required autofocus;
            }
            label { "New password"
                input name="new" type="password" autocomplete="new-password" minlength="8" required;
            }
            button id="submit" { "Change password" }
        }
        p { "Your other devices will be signed out." }
    };
    frame.around("Change password", &content)
}

pub fn error(status: StatusCode, text: &str) -> Response {
    let content = html! {
        h1 { (status.as_u16()) }
        p { (text) }
        p.actions { a.button href="/" { "Home" } }
    };
    (status, Frame::default().around("Error", &content)).into_response()
}

pub async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "There is no such page.")
}

fn problem_text(problem: &str) -> Markup {
    html! { @if !problem.is_empty() { p.problem role="alert" { (problem) } } }
}

/// A time in seconds since 1970, as a person would say it.
fn ago(time: i64) -> String {
    let seconds = now().saturating_sub(time);
    let (count, unit) = match seconds {
        ..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Browsers name several others in their user agent, themselves last.
fn browser_name(user_agent: &str) -> String {
    const BROWSERS: [(&str, &str); 5] = [
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    ];
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => user_agent.to_owned(),
    }
}
