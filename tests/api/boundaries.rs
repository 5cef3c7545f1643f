//! Each limit of time a millisecond before it, at it, and a millisecond after it, wherever the data lives.

use std::time::Duration;

use axum_typed_session::{Rolling, SessionManagerBuilder, testing::ManualClock};

use crate::{
    logins::{FRESH, Login, app},
    support::{Browser, HOUR, MILLISECOND, MINUTE, Mode, SECOND, in_both_modes},
};

type Options = fn(SessionManagerBuilder<Login>) -> SessionManagerBuilder<Login>;

/// A session of one hour, unless the options say otherwise, that these requests made in the first millisecond.
async fn begun(mode: Mode, options: Options, requests: &[&str]) -> (ManualClock, Browser) {
    let clock = ManualClock::new();
    let mut browser = Browser::new(app(options(mode.builder(&clock).idle_timeout(HOUR))));
    for request in requests {
        browser.post(request).await;
    }
    (clock, browser)
}

/// The times around a limit.
fn around(limit: Duration) -> [Duration; 3] {
    [limit - MILLISECOND, limit, limit + MILLISECOND]
}

in_both_modes! {
    a_session_is_there_until_the_millisecond_of_its_end,
    nothing_moves_the_absolute_end_by_a_millisecond,
    a_session_is_extended_from_its_limit_on,
    a_commit_in_the_last_millisecond_extends_and_the_next_is_too_late,
}

async fn a_session_is_there_until_the_millisecond_of_its_end(mode: Mode) {
    let with_owner: Options =
        |manager| manager.owner(|login: &Login| login.user.clone()).anonymous_idle_timeout(MINUTE);
    let cases: [(&str, Options, &[&str], Duration); 5] = [
        ("idle", |manager| manager, &["/note?a"], HOUR),
        ("of a visitor", with_owner, &["/note?a"], MINUTE),
        ("of a user", with_owner, &["/user?ada", "/note?a"], HOUR),
        ("of its own", |manager| manager, &["/note?a", "/max-age?60"], MINUTE),
        ("of a browser session", |manager| manager, &["/note?a", "/browser?90"], 90 * SECOND),
    ];
    for (name, options, requests, end) in cases {
        for (time, is_there) in around(end).into_iter().zip([true, false, false]) {
            let (clock, mut browser) = begun(mode, options, requests).await;
            clock.advance(time);
            let body = browser.get("/").await.body;
            assert_eq!(body != FRESH, is_there, "{name}, after {time:?}");
        }
    }
}

async fn nothing_moves_the_absolute_end_by_a_millisecond(mode: Mode) {
    const ABSOLUTE: Duration = Duration::from_secs(70 * 60);
    let options: Options = |manager| manager.absolute_timeout(ABSOLUTE).rolling(true);
    for action in ["commit", "save", "note?b", "max-age?4200", "regenerate"] {
        for (time, is_there) in around(ABSOLUTE).into_iter().zip([true, false, false]) {
            let (clock, mut browser) = begun(mode, options, &["/note?a"]).await;
            clock.advance(HOUR - MILLISECOND);
            browser.post(&format!("/{action}")).await;
            clock.advance(time + MILLISECOND - HOUR);
            let body = browser.get("/").await.body;
            assert_eq!(body != FRESH, is_there, "{action}, after {time:?}");
        }
    }
}

async fn a_session_is_extended_from_its_limit_on(mode: Mode) {
    // A cookie is sent anew only if it lives longer by a twentieth. A row is extended by any time.
    let step = if mode == Mode::Cookie { HOUR / 20 } else { MILLISECOND };
    let cases: [(&str, Options, Duration, [bool; 3]); 3] = [
        ("rolling", |manager| manager.rolling(true), step, [false, true, true]),
        (
            "below half",
            |manager| manager.rolling(Rolling::BelowHalf),
            HOUR / 2,
            [false, false, true],
        ),
        ("not", |manager| manager, HOUR / 2, [false, false, false]),
    ];
    for (name, options, limit, extends) in cases {
        for (time, extends) in around(limit).into_iter().zip(extends) {
            let (clock, mut browser) = begun(mode, options, &["/note?a"]).await;
            clock.advance(time);
            browser.post("/commit").await;
            let end = if extends { time + HOUR } else { HOUR };
            let times = format!("0 {}", end.as_millis());
            assert_eq!(browser.get("/times").await.body, times, "{name}, after {time:?}");
        }
    }
}

async fn a_commit_in_the_last_millisecond_extends_and_the_next_is_too_late(mode: Mode) {
    for (time, is_there) in around(HOUR).into_iter().zip([true, false, false]) {
        let (clock, mut browser) = begun(mode, |manager| manager.rolling(true), &["/note?a"]).await;
        clock.advance(time);
        browser.post("/commit").await;
        clock.advance(HOUR - MILLISECOND);
        assert_eq!(browser.get("/").await.body != FRESH, is_there, "after {time:?}");
    }
}
