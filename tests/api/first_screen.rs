//! The program of the README.

use axum::{
    Router,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{Session, SessionError, testing::ManualClock};
use http::StatusCode;

use crate::support::{Browser, COOKIE, Visits, cookie_mode, get_with_cookies};

async fn index(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.count += 1;
    let body = format!("{} visits", session.count);
    Ok((session.commit().await?, body))
}

async fn logout(mut session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
    session.destroy();
    Ok((session.commit().await?, Redirect::to("/")))
}

fn app() -> Router {
    let sessions = cookie_mode(&ManualClock::new()).build().unwrap();
    Router::new().route("/", get(index)).route("/logout", post(logout)).with_state(sessions)
}

#[tokio::test]
async fn three_visits_count_one_two_three() {
    let mut browser = Browser::new(app());
    for count in 1..=3 {
        let body = format!("{count} visits");
        browser.get("/").await.expect(StatusCode::OK, &body);
    }
}

#[tokio::test]
async fn logout_removes_the_cookie_and_starts_again_at_one() {
    let mut browser = Browser::new(app());
    browser.get("/").await;
    let answer = browser.post("/logout").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(!browser.has_session());
    browser.get("/").await.expect(StatusCode::OK, "1 visits");
}

#[tokio::test]
async fn any_edited_byte_of_the_cookie_starts_again_at_one() {
    let app = app();
    let mut browser = Browser::new(app.clone());
    browser.get("/").await;
    let token = browser.token();
    for index in 0..token.len() {
        let mut edited = token.clone().into_bytes();
        edited[index] = if edited[index] == b'A' { b'B' } else { b'A' };
        let cookie = format!("{COOKIE}={}", String::from_utf8(edited).unwrap());
        let answer = get_with_cookies(&app, &cookie).await;
        answer.expect(StatusCode::OK, "1 visits");
    }
}
