//! How much session data gets through nginx, which reads the headers of an answer into one buffer.
//!
//! The docs of `.max_cookie_bytes(..)` have the figures.

use axum::{Router, extract::Path, response::IntoResponse, routing::get};
use axum_typed_session::{Key, Session, SessionError, SessionManager, SessionManagerBuilder};

use crate::{Answer, CACHE, Nginx, with_nginx};

/// The bytes of JSON that the docs call safe.
const SAFE: usize = 2_724;

/// The same for a `location` with `proxy_cache`, whose key stands in the buffer too.
const SAFE_IN_A_CACHE: usize = 2_450;

/// The most bytes of JSON that the default cookie holds.
const MOST: usize = 2_969;

async fn keep(
    mut session: Session<String>,
    Path(bytes): Path<usize>,
) -> Result<impl IntoResponse, SessionError> {
    // JSON puts the text into quotes.
    *session = "n".repeat(bytes - 2);
    Ok((session.commit().await?, "kept"))
}

fn app(options: fn(SessionManagerBuilder<String>) -> SessionManagerBuilder<String>) -> Router {
    let sessions = options(SessionManager::builder().keys(Key::generate())).build().unwrap();
    Router::new().route("/keep/{bytes}", get(keep)).with_state(sessions)
}

/// Asks for a session with so many bytes of data.
fn ask(nginx: &Nginx, bytes: usize) -> Answer {
    nginx.get(&format!("/keep/{bytes}"), "")
}

#[track_caller]
fn expect_kept(nginx: &Nginx, bytes: usize) {
    let answer = ask(nginx, bytes);
    assert_eq!((answer.status, &*answer.body), (200, "kept"), "{bytes} bytes");
    assert_eq!(answer.cookies.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_answers_502_to_the_largest_sessions_unless_its_buffer_is_raised() {
    let visits = |start: &dyn Fn(&str) -> Nginx| {
        for (settings, safe) in
            [("", SAFE), ("proxy_http_version 1.1;", SAFE), (CACHE, SAFE_IN_A_CACHE)]
        {
            let nginx = start(settings);
            expect_kept(&nginx, safe);
            assert_eq!(ask(&nginx, MOST).status, 502, "{settings}");
            assert_eq!(ask(&nginx, MOST + 1).status, 500, "the application refuses it: {settings}");
        }
        for settings in ["proxy_buffer_size 8k;", &format!("proxy_buffer_size 8k; {CACHE}")] {
            expect_kept(&start(settings), MOST);
        }
    };
    with_nginx(app(|manager| manager), visits).await;
}

/// The example in the docs of the option.
#[tokio::test(flavor = "multi_thread")]
async fn with_max_cookie_bytes_the_application_answers_before_nginx_does() {
    let visits = |start: &dyn Fn(&str) -> Nginx| {
        let nginx = start("");
        let most = (2_000..MOST).find(|bytes| ask(&nginx, bytes + 1).status != 200).unwrap();
        assert_eq!(most, 2_672);
        expect_kept(&nginx, most);
        assert_eq!(ask(&nginx, most + 1).status, 500);
        assert_eq!(ask(&nginx, MOST).status, 500);
    };
    with_nginx(app(|manager| manager.max_cookie_bytes(3_700)), visits).await;
}
