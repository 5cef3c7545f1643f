//! Cookies beside the session's.

use axum::{Form, response::Redirect};
use axum_extra::extract::{
    CookieJar, PrivateCookieJar,
    cookie::{Cookie, SameSite},
};
use axum_typed_session::time;
use serde::{Deserialize, Serialize};

use crate::session::now;

const YEAR: time::Duration = time::Duration::days(365);

#[derive(Clone, Copy, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the operating system has it.
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub fn of(jar: &CookieJar) -> Self {
        let name = jar.get("theme").map(Cookie::value);
        Self::ALL.into_iter().find(|theme| Some(theme.name()) == name).unwrap_or_default()
    }
}

#[derive(Deserialize)]
pub struct ThemeForm {
    theme: Theme,
}

/// A theme is no secret and scripts may read it, so it has a plain cookie. A forged form could only change a colour.
pub async fn set_theme(jar: CookieJar, Form(form): Form<ThemeForm>) -> (CookieJar, Redirect) {
    let cookie = Cookie::build(("theme", form.theme.name())).path("/").same_site(SameSite::Lax);
    (jar.add(cookie.max_age(YEAR)), Redirect::to("/"))
}

/// The time of the last visit with this browser, in a cookie that only this application can read and write.
///
/// It outlives the session, which is why it is not in there.
pub struct LastVisit;

impl LastVisit {
    /// Returns when the last visit was, in seconds since 1970, and notes this one.
    pub fn exchange(jar: PrivateCookieJar) -> (Option<i64>, PrivateCookieJar) {
        let last = jar.get("last-visit").and_then(|cookie| cookie.value().parse().ok());
        let cookie = Cookie::build(("last-visit", now().to_string()));
        let cookie = cookie.path("/").http_only(true).same_site(SameSite::Lax).max_age(YEAR);
        (last, jar.add(cookie))
    }
}
