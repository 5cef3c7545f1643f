//! What is saved reads back, and means the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use axum::{Router, response::IntoResponse as _, routing::get};
use axum_typed_session::{
    AutoCommitLayer, Session, SessionError, SessionManager, SessionManagerBuilder,
    testing::ManualClock,
};
use http::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    requests::{Overlapped, Visit, change, overlap, run, seen, visited},
    support::{Browser, Log, Mode, in_both_modes},
};

in_both_modes! {
    a_key_that_a_user_chose_and_that_collides_with_a_field_is_refused,
    a_number_that_a_tagged_enum_does_not_read_is_refused,
    data_that_the_validator_refuses_is_refused_at_the_commit,
    a_new_session_that_the_validator_refuses_is_not_made,
    under_the_layer_data_that_the_validator_refuses_replaces_the_response,
    what_before_save_spoils_for_the_validator_is_refused,
    what_the_validator_accepts_is_saved,
    a_hash_set_is_warned_of_once,
    what_is_encoded_in_one_order_is_not_warned_of,
}

/// What `serde` writes twice where a user names an extra setting `name`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    name: String,
    #[serde(flatten)]
    extra: BTreeMap<String, String>,
}

/// What `serde` reads through a buffer that holds no integer of 128 bits.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Payment {
    #[default]
    Open,
    Card {
        number: u128,
    },
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Wallet {
    note: String,
    payment: Payment,
}

/// Sends a request that changes its session; returns the answer, and what the commit came to.
async fn committed<T: Send + Sync + 'static>(
    browser: &mut Browser,
    change: impl FnOnce(&mut Session<T>) + Send + 'static,
) -> (crate::support::Answer, Result<(), SessionError>) {
    let (sender, outcome) = oneshot::channel();
    let answer = run(browser, async move |mut visit: Visit<T>| {
        let mut session = visit.session().await?;
        change(&mut session);
        let outcome = session.commit().await;
        let status = outcome.as_ref().map_or_else(SessionError::status, |_| StatusCode::OK);
        let response = match &outcome {
            Ok(_) => status.into_response(),
            Err(_) => (status, "refused").into_response(),
        };
        match outcome {
            Ok(guard) => {
                sender.send(Ok(())).unwrap();
                Ok((guard, response).into_response())
            }
            Err(error) => {
                sender.send(Err(error)).unwrap();
                Ok(response)
            }
        }
    })
    .await;
    (answer, outcome.await.unwrap())
}

/// A browser whose session holds `start`.
async fn browser_of<T>(sessions: &SessionManager<T>, start: T) -> Browser
where
    T: Serialize + Clone + Send + Sync + 'static,
{
    let mut browser = Browser::new(visited(sessions.clone()));
    let answer = change(&mut browser, |session: &mut Session<T>| **session = start);
    assert_eq!(answer.await.told(), "set");
    browser
}

/// Asserts that such a change is refused, and that the session is as it was.
async fn refused<T>(
    builder: SessionManagerBuilder<T>,
    start: T,
    change: impl FnOnce(&mut Session<T>) + Send + 'static,
) -> SessionError
where
    T: std::fmt::Debug + PartialEq + Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let sessions = builder.build().unwrap();
    let mut browser = browser_of(&sessions, start.clone()).await;
    let before = browser.jar.clone();
    let (answer, outcome) = committed(&mut browser, change).await;
    let error = outcome.expect_err("what does not read back is saved");
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{error}");
    answer.expect_no_cookie();
    assert_eq!((seen(&browser).await, browser.jar), (Some(start), before));
    error
}

async fn a_key_that_a_user_chose_and_that_collides_with_a_field_is_refused(mode: Mode) {
    let start = Settings { name: "ada".to_owned(), ..Settings::default() };
    let add = |key: &'static str| {
        move |session: &mut Session<Settings>| {
            session.extra.insert(key.to_owned(), "dark".to_owned());
        }
    };
    let error = refused(mode.builder(&ManualClock::new()), start.clone(), add("name")).await;
    assert!(matches!(error, SessionError::Encode(_)), "{error}");
    // Every other key is as good as any.
    let sessions = mode.builder(&ManualClock::new()).build().unwrap();
    let mut browser = browser_of(&sessions, start).await;
    assert_eq!(change(&mut browser, add("theme")).await.status, StatusCode::OK);
    assert_eq!(seen::<Settings>(&browser).await.unwrap().extra["theme"], "dark");
}

async fn a_number_that_a_tagged_enum_does_not_read_is_refused(mode: Mode) {
    for number in [7, u128::MAX] {
        let pay = move |session: &mut Session<Wallet>| session.payment = Payment::Card { number };
        let start = Wallet { note: "dear".to_owned(), ..Wallet::default() };
        let error = refused(mode.builder(&ManualClock::new()), start, pay).await;
        assert!(matches!(error, SessionError::Encode(_)), "{error}");
    }
}

/// A basket that holds three things at most.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Small {
    things: Vec<String>,
}

impl Small {
    fn of(count: usize) -> Self {
        Self { things: vec!["tea".to_owned(); count] }
    }

    fn is_valid(&self) -> bool {
        self.things.len() <= 3
    }
}

fn small(mode: Mode) -> SessionManagerBuilder<Small> {
    mode.builder(&ManualClock::new()).validate_data(Small::is_valid)
}

async fn data_that_the_validator_refuses_is_refused_at_the_commit(mode: Mode) {
    let changes: [fn(&mut Session<Small>); 4] = [
        |session| **session = Small::of(4),
        |session| {
            **session = Small::of(4);
            session.regenerate();
        },
        |session| {
            session.clear();
            **session = Small::of(5);
        },
        |session| {
            session.force_save();
            session.things.extend(Small::of(3).things);
        },
    ];
    for change in changes {
        refused(small(mode), Small::of(1), change).await;
    }
}

async fn a_new_session_that_the_validator_refuses_is_not_made(mode: Mode) {
    let sessions = small(mode).build().unwrap();
    let mut browser = Browser::new(visited(sessions));
    let fill = |session: &mut Session<Small>| **session = Small::of(4);
    let (answer, outcome) = committed(&mut browser, fill).await;
    assert!(outcome.is_err());
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    answer.expect_no_cookie();
}

async fn under_the_layer_data_that_the_validator_refuses_replaces_the_response(mode: Mode) {
    let sessions = small(mode).build().unwrap();
    let mut browser = browser_of(&sessions, Small::of(2)).await;
    let fill = async |mut session: Session<Small>| {
        session.things.extend(Small::of(2).things);
        "not to be seen"
    };
    let app = Router::new().route("/fill", get(fill)).layer(AutoCommitLayer::new());
    let answer = browser.at(&app.with_state(sessions)).get("/fill").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.body.contains("not to be seen"));
    answer.expect_no_cookie();
    assert_eq!(seen(&browser).await, Some(Small::of(2)));
    assert_eq!(
        change(&mut browser, |session: &mut Session<Small>| session.things.clear()).await.status,
        StatusCode::OK
    );
}

async fn what_before_save_spoils_for_the_validator_is_refused(mode: Mode) {
    let builder = small(mode).before_save(|small: &mut Small| {
        if small.things.len() == 3 {
            small.things.push("a gift".to_owned());
        }
    });
    refused(builder, Small::of(2), |session| **session = Small::of(3)).await;
}

async fn what_the_validator_accepts_is_saved(mode: Mode) {
    let sessions = small(mode).build().unwrap();
    let mut browser = browser_of(&sessions, Small::of(1)).await;
    let fill = |session: &mut Session<Small>| **session = Small::of(3);
    assert_eq!(change(&mut browser, fill).await.status, StatusCode::OK);
    assert_eq!(seen(&browser).await, Some(Small::of(3)));
}

#[tokio::test]
async fn no_update_stores_what_the_validator_refuses() {
    let sessions = small(Mode::Store).build().unwrap();
    let mut browser = browser_of(&sessions, Small::of(1)).await;
    let outside = sessions.clone();
    let answer = run(&mut browser, async move |mut visit: Visit<Small>| {
        let mut session = visit.session().await?;
        let fill = |small: &mut Small| *small = Small::of(4);
        let key = session.id().unwrap().store_key();
        let outcomes = [
            session.update(fill).await,
            session.handle()?.update(fill).await,
            outside.update(key, fill).await,
        ];
        for outcome in outcomes {
            let status = outcome.as_ref().map_or_else(SessionError::status, |()| StatusCode::OK);
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{outcome:?}");
        }
        // The guard goes on as it was.
        session.things.push("jam".to_owned());
        Ok(session.commit().await?.into_response())
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(seen::<Small>(&browser).await.unwrap().things, ["tea", "jam"]);
}

// Needs `SessionError::Invalid`.
#[tokio::test]
async fn what_the_validator_refuses_is_an_error_of_its_own() {
    for mode in [Mode::Cookie, Mode::Store] {
        let fill = |session: &mut Session<Small>| **session = Small::of(4);
        let error = refused(small(mode), Small::of(1), fill).await;
        assert!(matches!(error, SessionError::Invalid), "{error}");
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(error.to_string().contains("validate_data"), "{error}");
    }
}

fn words() -> impl Iterator<Item = String> {
    (0..50).map(|number| format!("word {number}"))
}

/// Saves data twice, and returns what was logged.
async fn saved_twice<T>(mode: Mode, fill: fn(&mut T), change_it: fn(&mut T)) -> Vec<String>
where
    T: Default + Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let log = Log::start();
    let sessions = mode.builder::<T>(&ManualClock::new()).build().unwrap();
    let mut browser = Browser::new(visited(sessions));
    for act in [fill, change_it] {
        let answer = change(&mut browser, move |session: &mut Session<T>| act(session)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    log.take()
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Hashed {
    words: HashSet<String>,
    note: String,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Ordered {
    words: BTreeSet<String>,
    list: Vec<String>,
    map: HashMap<String, String>,
    note: String,
}

/// It is encoded in another order each time, so every request seems to change it.
async fn a_hash_set_is_warned_of_once(mode: Mode) {
    if !cfg!(debug_assertions) {
        return;
    }
    let fill = |hashed: &mut Hashed| hashed.words.extend(words());
    let lines = saved_twice::<Hashed>(mode, fill, |hashed| hashed.note.push('x')).await;
    let [line] = &lines[..] else {
        panic!("expected one line, got {lines:?}");
    };
    for text in ["WARN", "BTreeSet", "Set<", "Hashed"] {
        assert!(line.contains(text), "{text} is missing in {line}");
    }
    assert!(!line.contains("word 7"), "{line}");
}

async fn what_is_encoded_in_one_order_is_not_warned_of(mode: Mode) {
    let fill = |ordered: &mut Ordered| {
        ordered.words.extend(words());
        ordered.list.extend(words());
        ordered.map.extend(words().map(|word| (word, String::new())));
    };
    let lines = saved_twice::<Ordered>(mode, fill, |ordered| ordered.note.push('x')).await;
    assert_eq!(lines, <[&str; 0]>::default());
}

/// Nobody touched it, so it is no conflict.
#[tokio::test]
async fn a_hash_set_that_nobody_touched_makes_no_conflict() {
    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    struct Tagged {
        words: HashSet<String>,
        note: String,
        count: u32,
    }
    let sessions = Mode::Store.builder::<Tagged>(&ManualClock::new()).build().unwrap();
    let start = Tagged { words: words().collect(), ..Tagged::default() };
    let browser = browser_of(&sessions, start.clone()).await;
    let write = |session: &mut Session<Tagged>| session.note.push('x');
    let Overlapped { slow, slow_browser, .. } = overlap(&browser, write, async |browser| {
        change(browser, |session: &mut Session<Tagged>| session.count += 1).await;
    })
    .await;
    assert_eq!(slow.status, StatusCode::OK);
    let expected = Tagged { note: "x".to_owned(), count: 1, ..start };
    assert_eq!(seen(&slow_browser).await, Some(expected));
}
