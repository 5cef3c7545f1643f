//! With a store, changes merge within one identity only: nobody gets what another person may.

use axum::response::IntoResponse as _;
use axum_typed_session::{
    Session, SessionError, SessionHandle, SessionId, SessionManager, StoreKey, testing::Gate,
    testing::ManualClock,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    requests::{Overlapped, Visit, change, in_every_order, overlap, run, seen, spawned, visited},
    support::{Answer, Browser, ProbeStore},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    user: Option<String>,
    elevated: bool,
    cart: Vec<String>,
}

impl Account {
    fn of(user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..Self::default() }
    }

    fn is(&self, user: &str) -> bool {
        self.user.as_deref() == Some(user)
    }
}

/// Whether the manager knows whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Known,
    Unknown,
}

fn accounts(owner: Owner) -> SessionManager<Account> {
    let clock = ManualClock::new();
    let builder = SessionManager::builder().store(ProbeStore::new(&clock)).clock(clock);
    let builder = match owner {
        Owner::Known => builder.owner(|account: &Account| account.user.clone()),
        Owner::Unknown => builder,
    };
    builder.build().unwrap()
}

/// A browser whose session holds `account`.
async fn browser_of(sessions: &SessionManager<Account>, account: Account) -> Browser {
    let mut browser = Browser::new(visited(sessions.clone()));
    let answer = change(&mut browser, |session: &mut Session<Account>| {
        **session = account;
        session.force_save();
    });
    assert_eq!(answer.await.status, StatusCode::OK);
    browser
}

type Act = fn(&mut Session<Account>);

/// What a page does that has asked ada for a second factor.
fn elevate_ada(session: &mut Session<Account>) {
    if session.is("ada") {
        session.elevated = true;
    }
}

/// Ways in which a session of ada becomes somebody else's, or nobody's.
const BOUNDARIES: [(&str, Act); 5] = [
    ("clear", Session::clear),
    ("clear and log in", |session| {
        session.clear();
        session.user = Some("bob".to_owned());
    }),
    ("clear and a new id", |session| {
        session.clear();
        session.regenerate();
    }),
    ("another user", |session| **session = Account::of("bob")),
    ("another user and a new id", |session| {
        **session = Account::of("bob");
        session.regenerate();
    }),
];

/// Those that are told by the owner alone.
const BY_OWNER: [(&str, Act); 2] = [
    ("nobody", |session| session.user = None),
    ("another user in one field", |session| session.user = Some("bob".to_owned())),
];

/// All boundaries that a manager notices.
fn boundaries(owner: Owner) -> Vec<(&'static str, Act)> {
    let mut boundaries = BOUNDARIES.to_vec();
    match owner {
        Owner::Known => boundaries.extend(BY_OWNER),
        // Without an owner nothing tells these from a change of any field.
        Owner::Unknown => boundaries.retain(|(name, _)| *name != "another user"),
    }
    boundaries
}

const OWNERS: [Owner; 2] = [Owner::Known, Owner::Unknown];

#[tokio::test]
async fn no_order_of_two_requests_mixes_two_identities() {
    for owner in OWNERS {
        for (name, act) in boundaries(owner) {
            if BY_OWNER.iter().any(|(other, _)| *other == name) {
                // Such a handler keeps what it finds, so in one order it is the one that mixes.
                continue;
            }
            in_every_order(async |turns| {
                let sessions = accounts(owner);
                let browser = browser_of(&sessions, Account::of("ada")).await;
                let (mut one, mut other) = (browser.clone(), browser.clone());
                let (one_answer, other_answer) =
                    turns.race(change(&mut one, act), change(&mut other, elevate_ada)).await;
                let statuses = [one_answer.status, other_answer.status];
                let at = format!("{name}, {owner:?} owner, {turns:?}: {statuses:?}");
                let expected = [StatusCode::OK, StatusCode::CONFLICT];
                assert!(statuses.iter().all(|status| expected.contains(status)), "{at}");
                assert!(statuses.contains(&StatusCode::OK), "{at}");
                for browser in [&browser, &one, &other] {
                    let account = seen::<Account>(browser).await.unwrap_or_default();
                    assert!(account.is("ada") || !account.elevated, "{at}: {account:?}");
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_change_based_on_the_former_identity_is_refused() {
    for owner in OWNERS {
        for (name, act) in boundaries(owner) {
            let sessions = accounts(owner);
            let browser = browser_of(&sessions, Account::of("ada")).await;
            let Overlapped { slow, quick_browser, .. } =
                overlap(&browser, elevate_ada, async |browser| {
                    assert_eq!(change(browser, act).await.status, StatusCode::OK);
                })
                .await;
            assert_eq!(slow.status, StatusCode::CONFLICT, "{name}, {owner:?} owner");
            slow.expect_no_cookie();
            let account = seen::<Account>(&quick_browser).await.unwrap_or_default();
            assert!(!account.elevated, "{name}, {owner:?} owner: {account:?}");
        }
    }
}

#[tokio::test]
async fn a_clear_leaves_nothing_of_what_the_former_identity_was_acknowledged() {
    for owner in OWNERS {
        let sessions = accounts(owner);
        let browser = browser_of(&sessions, Account::of("ada")).await;
        let clear: Act = Session::clear;
        let Overlapped { slow, slow_browser, .. } = overlap(&browser, clear, async |browser| {
            assert_eq!(change(browser, elevate_ada).await.status, StatusCode::OK);
        })
        .await;
        assert_eq!(slow.status, StatusCode::OK, "{owner:?} owner");
        assert_eq!(seen(&slow_browser).await, Some(Account::default()), "{owner:?} owner");
    }
}

#[tokio::test]
async fn an_update_after_a_check_of_the_user_elevates_nobody_else() {
    for owner in OWNERS {
        for (name, act) in boundaries(owner) {
            let sessions = accounts(owner);
            let browser = browser_of(&sessions, Account::of("ada")).await;
            let gate = Gate::new();
            let waiting = gate.clone();
            let slow = spawned(&browser, async move |mut visit: Visit<Account>| {
                let mut session = visit.session().await?;
                assert!(session.is("ada"));
                waiting.pass().await;
                session.update(|account| account.elevated = true).await?;
                Ok(session.commit().await?.into_response())
            });
            gate.reached(1).await;
            let mut other = browser.clone();
            assert_eq!(change(&mut other, act).await.status, StatusCode::OK);
            gate.open();
            let (answer, _) = slow.await.unwrap();
            assert_eq!(answer.status, StatusCode::CONFLICT, "{name}, {owner:?} owner");
            for browser in [&browser, &other] {
                let account = seen::<Account>(browser).await.unwrap_or_default();
                assert!(!account.elevated, "{name}, {owner:?} owner: {account:?}");
            }
        }
    }
}

/// The handle that a socket would keep of the browser's session.
async fn handle_of(browser: &mut Browser) -> SessionHandle<Account> {
    let (sender, handle) = oneshot::channel();
    let answer = run(browser, async move |mut visit: Visit<Account>| {
        let session = visit.session().await?;
        sender.send(session.handle()?).unwrap();
        Ok(session.commit().await?.into_response())
    });
    assert_eq!(answer.await.status, StatusCode::OK);
    handle.await.unwrap()
}

async fn expect_gone(handle: &SessionHandle<Account>, at: &str) {
    let loaded = handle.load().await.map(|account| account.user.clone());
    assert!(matches!(loaded, Err(SessionError::Gone)), "load, {at}: {loaded:?}");
    let updated = handle.update(|account| account.elevated = true).await;
    assert!(matches!(updated, Err(SessionError::Gone)), "update, {at}: {updated:?}");
    let destroyed = handle.destroy().await;
    assert!(matches!(destroyed, Err(SessionError::Gone)), "destroy, {at}: {destroyed:?}");
}

#[tokio::test]
async fn a_handle_ends_with_the_identity_it_was_made_for() {
    for owner in OWNERS {
        for (name, act) in boundaries(owner) {
            let at = format!("{name}, {owner:?} owner");
            let sessions = accounts(owner);
            let mut browser = browser_of(&sessions, Account::of("ada")).await;
            let handle = handle_of(&mut browser).await;
            handle.update(|account| account.cart.push("tea".to_owned())).await.unwrap();
            assert_eq!(change(&mut browser, act).await.status, StatusCode::OK, "{at}");
            let before = seen::<Account>(&browser).await;
            assert!(before.is_some(), "{at}");
            expect_gone(&handle, &at).await;
            assert_eq!(seen::<Account>(&browser).await, before, "{at}");
            // A handle of the session there is now works.
            let handle = handle_of(&mut browser).await;
            handle.update(|account| account.cart.push("jam".to_owned())).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_handle_of_an_anonymous_session_ends_with_the_login() {
    for regenerates in [false, true] {
        let sessions = accounts(Owner::Known);
        let mut browser = browser_of(&sessions, Account::default()).await;
        let handle = handle_of(&mut browser).await;
        let login = move |session: &mut Session<Account>| log_in(session, "ada", regenerates);
        assert_eq!(change(&mut browser, login).await.status, StatusCode::OK);
        expect_gone(&handle, &format!("a new id: {regenerates}")).await;
        assert_eq!(seen(&browser).await, Some(Account::of("ada")));
    }
}

async fn key_of(browser: &mut Browser) -> StoreKey {
    let (sender, key) = oneshot::channel();
    run(browser, async move |mut visit: Visit<Account>| {
        let session = visit.session().await?;
        sender.send(session.id().map(SessionId::store_key).unwrap()).unwrap();
        Ok(session.commit().await?.into_response())
    })
    .await;
    key.await.unwrap()
}

#[tokio::test]
async fn an_update_by_the_bare_key_asks_for_no_identity() {
    for owner in OWNERS {
        for (name, act) in boundaries(owner) {
            if name.contains("new id") {
                continue;
            }
            let sessions = accounts(owner);
            let mut browser = browser_of(&sessions, Account::of("ada")).await;
            let key = key_of(&mut browser).await;
            change(&mut browser, act).await;
            sessions.update(key, |account| account.cart.push("tea".to_owned())).await.unwrap();
            assert_eq!(seen::<Account>(&browser).await.unwrap().cart, ["tea"], "{name}");
        }
    }
}

/// A login as handlers write it, with or without a new id.
fn log_in(session: &mut Session<Account>, user: &str, regenerates: bool) {
    session.user = Some(user.to_owned());
    if regenerates {
        session.regenerate();
    }
}

fn add_tea(session: &mut Session<Account>) {
    session.cart.push("tea".to_owned());
}

#[tokio::test]
async fn a_login_takes_over_what_the_anonymous_session_gathered_meanwhile() {
    for regenerates in [false, true] {
        let sessions = accounts(Owner::Known);
        let browser = browser_of(&sessions, Account::default()).await;
        let login = move |session: &mut Session<Account>| log_in(session, "ada", regenerates);
        let Overlapped { slow, slow_browser, .. } = overlap(&browser, login, async |browser| {
            assert_eq!(change(browser, add_tea).await.status, StatusCode::OK);
        })
        .await;
        assert_eq!(slow.status, StatusCode::OK, "a new id: {regenerates}");
        let account = seen::<Account>(&slow_browser).await.unwrap();
        assert_eq!((account.is("ada"), account.cart), (true, vec!["tea".to_owned()]));
    }
}

#[tokio::test]
async fn an_anonymous_request_that_commits_after_the_login_is_refused() {
    for regenerates in [false, true] {
        let sessions = accounts(Owner::Known);
        let browser = browser_of(&sessions, Account::default()).await;
        let Overlapped { slow, quick_browser, .. } = overlap(&browser, add_tea, async |browser| {
            let login = move |session: &mut Session<Account>| log_in(session, "ada", regenerates);
            assert_eq!(change(browser, login).await.status, StatusCode::OK);
        })
        .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "a new id: {regenerates}");
        slow.expect_no_cookie();
        assert_eq!(seen(&quick_browser).await, Some(Account::of("ada")));
    }
}

#[tokio::test]
async fn around_a_login_an_item_is_in_the_cart_or_was_refused() {
    for regenerates in [false, true] {
        in_every_order(async |turns| {
            let sessions = accounts(Owner::Known);
            let browser = browser_of(&sessions, Account::default()).await;
            let (mut visitor, mut shopper) = (browser.clone(), browser);
            let login = move |session: &mut Session<Account>| log_in(session, "ada", regenerates);
            let (login, add) =
                turns.race(change(&mut visitor, login), change(&mut shopper, add_tea)).await;
            assert_eq!(login.status, StatusCode::OK, "{turns:?}");
            let account = seen::<Account>(&visitor).await.unwrap();
            assert!(account.is("ada"), "{turns:?}: {account:?}");
            let expected =
                if account.cart.is_empty() { StatusCode::CONFLICT } else { StatusCode::OK };
            assert_eq!(add.status, expected, "{turns:?}, a new id: {regenerates}");
        })
        .await;
    }
}

#[tokio::test]
async fn of_two_people_who_log_in_at_once_one_is_refused() {
    in_every_order(async |turns| {
        let sessions = accounts(Owner::Known);
        let browser = browser_of(&sessions, Account::default()).await;
        let (mut ada, mut bob) = (browser.clone(), browser);
        // Both handlers have seen the anonymous session, and leave one of somebody alone.
        let log_in = |user: &'static str| {
            move |session: &mut Session<Account>| {
                if session.user.is_none() {
                    **session = Account { cart: vec![user.to_owned()], ..Account::of(user) };
                }
            }
        };
        let (one, other) =
            turns.race(change(&mut ada, log_in("ada")), change(&mut bob, log_in("bob"))).await;
        let account = seen::<Account>(&ada).await.unwrap();
        let user = account.user.as_deref();
        assert_eq!(account.cart.first().map(String::as_str), user, "{turns:?}");
        let winner = if user == Some("ada") { &one } else { &other };
        assert_eq!(winner.status, StatusCode::OK, "{turns:?}");
    })
    .await;
}

/// Nothing tells a login from a change of its id, so what others wrote is not taken over.
#[tokio::test]
async fn without_an_owner_a_new_id_takes_nothing_over() {
    for act in [
        |session: &mut Session<Account>| session.regenerate(),
        |session: &mut Session<Account>| log_in(session, "ada", true),
    ] {
        let sessions = accounts(Owner::Unknown);
        let browser = browser_of(&sessions, Account::default()).await;
        let Overlapped { slow, quick_browser, .. } = overlap(&browser, act, async |browser| {
            assert_eq!(change(browser, add_tea).await.status, StatusCode::OK);
        })
        .await;
        assert_eq!(slow.status, StatusCode::CONFLICT);
        slow.expect_no_cookie();
        // The session is as the acknowledged request left it.
        assert_eq!(seen::<Account>(&quick_browser).await.unwrap().cart, ["tea"]);
    }
}

#[tokio::test]
async fn with_an_owner_who_stays_a_new_id_takes_everything_over() {
    let sessions = accounts(Owner::Known);
    let browser = browser_of(&sessions, Account::of("ada")).await;
    let regenerate: Act = Session::regenerate;
    let Overlapped { slow, slow_browser, .. } = overlap(&browser, regenerate, async |browser| {
        assert_eq!(change(browser, add_tea).await.status, StatusCode::OK);
    })
    .await;
    assert_eq!(slow.status, StatusCode::OK);
    let account = seen::<Account>(&slow_browser).await.unwrap();
    assert_eq!((account.is("ada"), account.cart), (true, vec!["tea".to_owned()]));
}

#[tokio::test]
async fn a_change_of_one_login_is_refused_in_the_session_of_the_next() {
    for owner in OWNERS {
        let sessions = accounts(owner);
        let mut browser = browser_of(&sessions, Account::default()).await;
        // Each login begins an identity, so that neither has the one of the anonymous session.
        for user in ["bob", "ada"] {
            let answer = change(&mut browser, move |session: &mut Session<Account>| {
                session.clear();
                **session = Account::of(user);
            });
            assert_eq!(answer.await.status, StatusCode::OK);
        }
        let next: Act = |session| {
            session.clear();
            **session = Account::of("bob");
        };
        let Overlapped { slow, quick_browser, .. } =
            overlap(&browser, elevate_ada, async |browser| {
                assert_eq!(change(browser, next).await.status, StatusCode::OK);
            })
            .await;
        assert_eq!(slow.status, StatusCode::CONFLICT, "{owner:?} owner");
        assert_eq!(seen(&quick_browser).await, Some(Account::of("bob")), "{owner:?} owner");
    }
}

/// A request that has loaded its session, and acts and commits once the gate is open.
struct Slow {
    gate: Gate,
    request: JoinHandle<(Answer, Browser)>,
}

impl Slow {
    async fn begin(browser: &Browser, act: Act) -> Self {
        let gate = Gate::new();
        let waiting = gate.clone();
        let request = spawned(browser, async move |mut visit: Visit<Account>| {
            let mut session = visit.session().await?;
            waiting.pass().await;
            act(&mut session);
            Ok(session.commit().await?.into_response())
        });
        gate.reached(1).await;
        Self { gate, request }
    }

    async fn end(self) -> StatusCode {
        self.gate.open();
        self.request.await.unwrap().0.status
    }
}

const LOG_IN: Act = |session| session.user = Some("ada".to_owned());
const FILL: Act = |session| session.cart.push("tea".to_owned());

#[tokio::test]
async fn a_request_between_two_equal_logins_goes_on() {
    let mut browser = browser_of(&accounts(Owner::Known), Account::default()).await;
    let second = Slow::begin(&browser, LOG_IN).await;
    assert_eq!(change(&mut browser, LOG_IN).await.status, StatusCode::OK);
    let between = Slow::begin(&browser, FILL).await;
    assert_eq!(second.end().await, StatusCode::OK);
    assert_eq!(between.end().await, StatusCode::OK);
    let account = seen::<Account>(&browser).await.unwrap();
    assert_eq!((account.user.as_deref(), account.cart.len()), (Some("ada"), 1));
}

#[tokio::test]
async fn an_anonymous_request_is_refused_after_a_login_that_merged() {
    let mut browser = browser_of(&accounts(Owner::Known), Account::default()).await;
    let login = Slow::begin(&browser, LOG_IN).await;
    let anonymous = Slow::begin(&browser, |session| session.elevated = true).await;
    assert_eq!(change(&mut browser, FILL).await.status, StatusCode::OK);
    assert_eq!(login.end().await, StatusCode::OK);
    assert_eq!(anonymous.end().await, StatusCode::CONFLICT);
    let account = seen::<Account>(&browser).await.unwrap();
    assert_eq!((account.elevated, account.cart.len()), (false, 1));
}

#[tokio::test]
async fn a_clear_removes_what_another_request_added_also_if_the_session_held_the_default() {
    for owner in [Owner::Known, Owner::Unknown] {
        let browser = browser_of(&accounts(owner), Account::default()).await;
        let overlapped = overlap(&browser, Session::<Account>::clear, async |browser| {
            let add = |session: &mut Session<Account>| session.cart.push("tea".to_owned());
            assert_eq!(change(browser, add).await.status, StatusCode::OK);
        });
        assert_eq!(overlapped.await.slow.status, StatusCode::OK);
        assert_eq!(seen::<Account>(&browser).await, Some(Account::default()), "{owner:?}");
    }
}
