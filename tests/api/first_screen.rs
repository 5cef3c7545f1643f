//! The program of the README.

use axum::{
    Router,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_typed_session::{Session, SessionError, testing::ManualClock};
use http::StatusCode;

use crate::support::{Browser, Visits, cookie_mode};

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
    browser.post("/logout").await.expect_status(StatusCode::SEE_OTHER);
    assert!(!browser.has_session());
    browser.get("/").await.expect(StatusCode::OK, "1 visits");
}
