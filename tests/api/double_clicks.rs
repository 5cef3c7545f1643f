//! A form that is sent twice, and an answer that never arrived.

use axum_typed_session::{Session, SessionManager, testing::ManualClock};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    requests::{Overlapped, change, in_every_order, overlap, seen, visited},
    support::{Browser, MILLISECOND, ProbeStore, SECOND, key},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Form {
    user: Option<String>,
    cart: Vec<String>,
    flash: Option<String>,
}

/// Where an old id is told from an unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Owned,
    WithoutOwner,
    Revocations,
}

const KINDS: [Kind; 3] = [Kind::Owned, Kind::WithoutOwner, Kind::Revocations];

impl Kind {
    fn sessions(self, clock: &ManualClock) -> SessionManager<Form> {
        let builder = SessionManager::builder().clock(clock.clone());
        let builder = match self {
            Self::Owned => {
                let builder = builder.store(ProbeStore::new(clock));
                builder.owner(|form: &Form| form.user.clone())
            }
            Self::WithoutOwner => builder.store(ProbeStore::new(clock)),
            Self::Revocations => builder.keys(key()).revocations(ProbeStore::new(clock)),
        };
        builder.build().unwrap()
    }
}

fn log_in(session: &mut Session<Form>) {
    session.user = Some("ada".to_owned());
    session.regenerate();
}

fn add_tea(session: &mut Session<Form>) {
    session.cart.push("tea".to_owned());
}

/// As after a change of password: ada stays, her id does not.
fn renew_id(session: &mut Session<Form>) {
    if session.user.is_some() {
        session.regenerate();
    }
}

/// Logs out, and greets on the next page.
fn log_out_with_flash(session: &mut Session<Form>) {
    session.clear();
    session.regenerate();
    session.flash = Some("bye".to_owned());
}

async fn user(browser: &Browser) -> Option<String> {
    seen::<Form>(browser).await.and_then(|form| form.user)
}

/// A visitor who has a session already.
async fn visitor(sessions: &SessionManager<Form>) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    change(&mut browser, add_tea).await;
    browser
}

async fn ada(sessions: &SessionManager<Form>) -> Browser {
    let mut browser = visitor(sessions).await;
    assert_eq!(change(&mut browser, log_in).await.told(), "set");
    browser
}

#[tokio::test]
async fn two_identical_logins_at_once_are_both_signed_in() {
    for kind in KINDS {
        in_every_order(async |turns| {
            let sessions = kind.sessions(&ManualClock::new());
            let mut one = visitor(&sessions).await;
            let mut other = one.clone();
            let answers = turns.race(change(&mut one, log_in), change(&mut other, log_in)).await;
            for (answer, browser) in [(answers.0, one), (answers.1, other)] {
                let at = format!("{kind:?}, {turns:?}");
                assert_eq!(answer.status, StatusCode::OK, "{at}");
                assert_eq!(answer.told(), "set", "{at}");
                assert_eq!(user(&browser).await.as_deref(), Some("ada"), "{at}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_login_that_another_overtakes_is_signed_in() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = visitor(&sessions).await;
        let Overlapped { slow, slow_browser, quick_browser } =
            overlap(&browser, log_in, async |browser| {
                assert_eq!(change(browser, log_in).await.status, StatusCode::OK);
            })
            .await;
        assert_eq!((slow.status, slow.told()), (StatusCode::OK, "set"), "{kind:?}");
        assert_ne!(slow_browser.token(), quick_browser.token());
        for browser in [&slow_browser, &quick_browser] {
            assert_eq!(user(browser).await.as_deref(), Some("ada"), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_new_id_never_undoes_a_logout_that_keeps_a_flash() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let Overlapped { slow, slow_browser, quick_browser } =
            overlap(&browser, renew_id, async |browser| {
                assert_eq!(change(browser, log_out_with_flash).await.status, StatusCode::OK);
            })
            .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "{kind:?}");
        slow.expect_no_cookie();
        assert_eq!(user(&slow_browser).await, None, "{kind:?}");
        let form = seen::<Form>(&quick_browser).await.unwrap();
        assert_eq!((form.user, form.flash.as_deref()), (None, Some("bye")), "{kind:?}");
        if kind == Kind::Owned {
            assert!(sessions.sessions_of("ada").await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_new_id_never_undoes_the_logout_of_another_new_id() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let Overlapped { slow, slow_browser, .. } = overlap(&browser, renew_id, async |browser| {
            assert_eq!(change(browser, renew_id).await.told(), "set");
            let logout: fn(&mut Session<Form>) = Session::destroy;
            assert_eq!(change(browser, logout).await.told(), "removed");
        })
        .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "{kind:?}");
        slow.expect_no_cookie();
        assert_eq!(user(&slow_browser).await, None, "{kind:?}");
        if kind == Kind::Owned {
            assert!(sessions.sessions_of("ada").await.unwrap().is_empty());
        }
    }
}

/// Else a request of before the sign-in would go on beside it, without an owner whose sessions can be ended.
#[tokio::test]
async fn a_new_id_does_not_follow_one_whose_session_has_got_an_owner() {
    let sessions = Kind::Owned.sessions(&ManualClock::new());
    let browser = visitor(&sessions).await;
    let rotate = |session: &mut Session<Form>| session.regenerate();
    let Overlapped { slow, quick_browser, .. } = overlap(&browser, rotate, async |browser| {
        assert_eq!(change(browser, rotate).await.told(), "set");
        change(browser, |form: &mut Session<Form>| form.user = Some("ada".to_owned())).await;
    })
    .await;
    slow.expect_error(StatusCode::CONFLICT).expect_no_cookie();
    assert_eq!(user(&quick_browser).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn of_two_logouts_at_once_that_keep_a_flash_the_later_is_gone_and_nobody_is_signed_in() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let Overlapped { slow, quick_browser, .. } =
            overlap(&browser, log_out_with_flash, async |browser| {
                assert_eq!(change(browser, log_out_with_flash).await.status, StatusCode::OK);
            })
            .await;
        slow.expect_error(StatusCode::CONFLICT).expect_no_cookie();
        let form = seen::<Form>(&quick_browser).await.unwrap();
        assert_eq!((form.user, form.flash.as_deref()), (None, Some("bye")), "{kind:?}");
        assert_eq!(user(&browser).await, None, "{kind:?}");
    }
}

#[tokio::test]
async fn two_logouts_at_once_that_destroy_the_session_both_succeed() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let Overlapped { slow, slow_browser, quick_browser } = overlap(
            &browser,
            |session: &mut Session<Form>| session.destroy(),
            async |browser| {
                let destroy = |session: &mut Session<Form>| session.destroy();
                assert_eq!(change(browser, destroy).await.status, StatusCode::OK);
            },
        )
        .await;
        assert_eq!(slow.status, StatusCode::OK, "{kind:?}");
        for browser in [slow_browser, quick_browser, browser] {
            assert_eq!(user(&browser).await, None, "{kind:?}");
        }
    }
}

/// The session goes on under the id that came first, so "logged out" would be a lie.
#[tokio::test]
async fn a_logout_that_keeps_a_flash_and_comes_after_a_new_id_is_refused() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let Overlapped { slow, quick_browser, .. } =
            overlap(&browser, log_out_with_flash, async |browser| {
                assert_eq!(change(browser, renew_id).await.told(), "set");
            })
            .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "{kind:?}");
        slow.expect_no_cookie();
        assert_eq!(user(&quick_browser).await.as_deref(), Some("ada"), "{kind:?}");
        // A request that comes after the new id, with the old cookie, is judged in the same way.
        let late = change(&mut browser.clone(), log_out_with_flash).await;
        assert_eq!(late.status, StatusCode::CONFLICT, "{kind:?}");
        late.expect_no_cookie();
        // A login in its place is one.
        let log_in_anew = |session: &mut Session<Form>| {
            session.clear();
            log_in(session);
        };
        let login = change(&mut browser.clone(), log_in_anew).await;
        let expected = match kind {
            Kind::Owned => StatusCode::OK,
            // Nothing tells it from a logout.
            Kind::WithoutOwner | Kind::Revocations => StatusCode::CONFLICT,
        };
        assert_eq!(login.status, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn no_order_of_a_new_id_and_a_logout_leaves_ada_two_sessions() {
    in_every_order(async |turns| {
        let sessions = Kind::Owned.sessions(&ManualClock::new());
        let browser = ada(&sessions).await;
        let (mut one, mut other) = (browser.clone(), browser);
        let (renewed, logout) =
            turns.race(change(&mut one, renew_id), change(&mut other, log_out_with_flash)).await;
        let left = sessions.sessions_of("ada").await.unwrap().len();
        assert!(left <= 1, "{turns:?}");
        // One that is left was handed to somebody.
        let told = !renewed.set_cookies().is_empty();
        assert_eq!(left == 1, told, "{turns:?}: {} and {}", renewed.status, logout.status);
        assert_eq!(user(&one).await.is_some(), told, "{turns:?}");
    })
    .await;
}

/// Else a slow request that carries the old id would begin a session there, whose cookie takes the login away.
#[tokio::test]
async fn a_node_whose_clock_is_half_a_minute_ahead_remembers_a_replaced_id() {
    let (here, ahead) = (ManualClock::new(), ManualClock::new());
    ahead.advance(30 * SECOND);
    let store = ProbeStore::new(&here);
    let node = |clock: &ManualClock| {
        let builder = SessionManager::builder().clock(clock.clone()).store(store.clone());
        visited(builder.owner(|form: &Form| form.user.clone()).build().unwrap())
    };
    let mut browser = Browser::new(node(&here));
    change(&mut browser, add_tea).await;
    let mut slow = browser.at(&node(&ahead));
    assert_eq!(change(&mut browser, log_in).await.told(), "set");
    let answer = change(&mut slow, add_tea).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    answer.expect_no_cookie();
    let logout: fn(&mut Session<Form>) = Session::destroy;
    assert_eq!(change(&mut slow, logout).await.told(), "removed");
    assert_eq!(user(&browser).await, None);
}

/// A browser that sent a login and never got the answer, and the one that got it.
async fn lost_answer(sessions: &SessionManager<Form>) -> (Browser, Browser) {
    let old = visitor(sessions).await;
    let mut signed_in = old.clone();
    assert_eq!(change(&mut signed_in, log_in).await.told(), "set");
    (old, signed_in)
}

#[tokio::test]
async fn when_the_answer_to_a_login_was_lost_the_old_cookie_is_anonymous() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let (mut old, signed_in) = lost_answer(&sessions).await;
        assert_eq!(seen::<Form>(&old).await, None, "{kind:?}");
        let answer = change(&mut old, |_: &mut Session<Form>| {}).await;
        answer.expect(StatusCode::OK, "").expect_no_cookie();
        assert_eq!(user(&signed_in).await.as_deref(), Some("ada"), "{kind:?}");
    }
}

#[tokio::test]
async fn when_the_answer_to_a_login_was_lost_the_old_cookie_signs_out() {
    for kind in KINDS {
        for (later, still_signed_in) in [(0, false), (10, true)] {
            let clock = ManualClock::new();
            let sessions = kind.sessions(&clock);
            let (old, signed_in) = lost_answer(&sessions).await;
            clock.advance(later * SECOND);
            let logout: fn(&mut Session<Form>) = Session::destroy;
            let answer = change(&mut old.clone(), logout).await;
            assert_eq!((answer.status, answer.told()), (StatusCode::OK, "removed"), "{kind:?}");
            // Within ten seconds it is said of the session that goes on, and ends it.
            assert_eq!(user(&signed_in).await.is_some(), still_signed_in, "{kind:?} {later}");
            assert_eq!(seen::<Form>(&old).await, None, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn when_the_answer_to_a_login_was_lost_the_old_cookie_writes_again_after_ten_seconds() {
    for kind in KINDS {
        let clock = ManualClock::new();
        let sessions = kind.sessions(&clock);
        let (old, signed_in) = lost_answer(&sessions).await;
        for wait in [SECOND, 9 * SECOND - MILLISECOND] {
            clock.advance(wait);
            let answer = change(&mut old.clone(), add_tea).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{kind:?}");
            answer.expect_no_cookie();
        }
        clock.advance(MILLISECOND);
        let mut old = old;
        let answer = change(&mut old, add_tea).await;
        assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"), "{kind:?}");
        let form = seen::<Form>(&old).await.unwrap();
        assert_eq!((form.user, form.cart), (None, vec!["tea".to_owned()]), "{kind:?}");
        assert_eq!(user(&signed_in).await.as_deref(), Some("ada"), "{kind:?}");
    }
}

#[tokio::test]
async fn when_the_answer_to_a_login_was_lost_it_can_be_sent_again() {
    for kind in KINDS {
        let sessions = kind.sessions(&ManualClock::new());
        let (mut old, signed_in) = lost_answer(&sessions).await;
        let answer = change(&mut old, log_in).await;
        assert_eq!((answer.status, answer.told()), (StatusCode::OK, "set"), "{kind:?}");
        for browser in [&old, &signed_in] {
            assert_eq!(user(browser).await.as_deref(), Some("ada"), "{kind:?}");
        }
    }
}
