//! A site that imports, and what every format has to pass.

use axum::{Json, Router, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Key, MemoryStore, Session, SessionManager,
    import::OldSessions,
    testing::ManualClock,
    time::{Duration, OffsetDateTime},
};
use http::{HeaderValue, Request, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::browser::{Answer, COOKIE, send};

/// All of the data of an old session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved(pub Option<Value>);

/// What readers of these tests take.
#[expect(clippy::unnecessary_wraps, reason = "a reader asks for an option")]
pub fn all(data: Value) -> Option<Moved> {
    Some(Moved(Some(data)))
}

pub struct Site {
    pub clock: ManualClock,
    app: Router,
}

impl Site {
    /// A site with the time of today, since other libraries have no manual clock.
    pub fn new(old: impl OldSessions<Moved>) -> Self {
        let now = OffsetDateTime::now_utc();
        let clock = ManualClock::at(now);
        let sessions = SessionManager::<Moved>::builder()
            .keys(Key::generate())
            .store(MemoryStore::builder().clock(clock.clone()).build())
            .clock(clock.clone())
            .import(now + Duration::days(30), old)
            .build()
            .unwrap();
        let show = async |session: Session<Moved>| Json(session.0.clone());
        let app = Router::new().route("/", get(show)).layer(AutoCommitLayer::new());
        Self { clock, app: app.with_state(sessions) }
    }

    pub async fn get(&self, cookies: impl TryInto<HeaderValue>) -> Answer {
        let cookies = cookies.try_into().unwrap_or_else(|_| panic!("not a header"));
        send(&self.app, Request::get("/").header(header::COOKIE, cookies)).await
    }

    /// Returns the data of the session that a request with these cookies has; `None` if nothing was imported.
    pub async fn moved(&self, cookies: impl TryInto<HeaderValue>) -> Option<Value> {
        let answer = self.get(cookies).await;
        assert_eq!(answer.status, StatusCode::OK);
        let data: Option<Value> = serde_json::from_str(&answer.body).unwrap();
        let is_set = answer.set_cookies().iter().any(|cookie| cookie.starts_with(COOKIE));
        assert_eq!(is_set, data.is_some());
        data
    }
}

/// Expects every session to go on with its data, and all old cookies to be removed.
pub async fn expect_all_move(site: &Site, headers: &[String], data: &[Value]) {
    for (cookies, data) in headers.iter().zip(data) {
        let answer = site.get(&**cookies).await;
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), *data);
        for pair in cookies.split("; ") {
            let removal = format!("{}=; Path=/; Max-Age=0;", pair.split_once('=').unwrap().0);
            let mut cookies = answer.set_cookies().into_iter();
            assert!(cookies.any(|cookie| cookie.starts_with(&removal)), "{removal}");
        }
    }
}

/// Expects every cookie with one other bit in a value to be refused. `is_same` names edits that change the spelling
/// alone.
pub async fn expect_no_edits(site: &Site, cookies: &str, is_same: impl Fn(&str) -> bool) {
    let mut edits = 0;
    for at in 0..cookies.len() {
        for bit in 0..8 {
            let mut edited = cookies.as_bytes().to_vec();
            edited[at] ^= 1 << bit;
            let is_spelling = str::from_utf8(&edited).is_ok_and(&is_same);
            // A server refuses a request with control characters before the session is asked.
            if let Ok(edited) = HeaderValue::from_bytes(&edited)
                && !is_spelling
            {
                assert_eq!(site.moved(edited.clone()).await, None, "{edited:?}");
                edits += 1;
            }
        }
    }
    assert!(edits > 5 * cookies.len(), "{edits} edits were tried");
    assert!(site.moved(cookies).await.is_some(), "the cookie as it was");
}

/// Expects the session to move once, and the old cookie to open nothing later.
pub async fn expect_once(site: &Site, cookies: &str) {
    assert!(site.moved(cookies).await.is_some());
    site.clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(site.moved(cookies).await, None, "a replay");
}

/// Expects the date of the import to end it.
pub async fn expect_end_at_the_date(site: &Site, cookies: &str) {
    site.clock.advance(std::time::Duration::from_secs(30 * 24 * 60 * 60));
    assert_eq!(site.moved(cookies).await, None, "after the date");
}

/// Expects a library to have found these data, except for a few sessions that it may have lost.
#[track_caller]
pub fn expect_found(found: &[Value], data: &[Value], most_lost: usize) {
    assert_eq!(found.len(), data.len());
    let mut lost = 0;
    for (found, data) in found.iter().zip(data) {
        if found.as_object().is_some_and(serde_json::Map::is_empty) {
            lost += 1;
        } else {
            assert_eq!(found, data);
        }
    }
    assert!(lost <= most_lost, "{lost} were lost");
}
