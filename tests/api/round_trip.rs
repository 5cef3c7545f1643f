//! Nothing is acknowledged that the next request cannot read back.

use std::{
    error::Error,
    sync::{Arc, Mutex},
};

use axum::Router;
use axum_typed_session::{
    Codec, ConflictPolicy, Session, SessionError, SessionId, SessionManager, SessionManagerBuilder,
    StoreKey,
    testing::{ManualClock, TestSession},
};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    common::assert_matches,
    support::{
        Answer, Browser, Change, EventLog, Mode, ProbeStore, changing, in_both_modes, key, send,
    },
};

in_both_modes! {
    a_number_that_is_not_finite_is_refused,
    nesting_that_is_not_read_again_is_refused,
    a_field_that_is_left_out_but_missed_is_refused_in_a_debug_build,
    any_codec_is_tried_in_a_debug_build,
    what_before_save_spoils_is_refused,
    what_reads_back_is_saved,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Player {
    name: Option<String>,
    score: f64,
    best: f32,
    tree: Tree,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tree(Vec<Self>);

impl Tree {
    fn of(levels: usize) -> Self {
        let empty = || Self(Vec::new());
        (1..levels).fold(empty(), |tree, _| Self(vec![tree]))
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cart {
    count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    items: Vec<u32>,
}

/// The count alone, of which it reads no more than a digit.
struct OneDigit;

impl Codec<Cart> for OneDigit {
    fn tag(&self) -> u8 {
        200
    }

    fn encode(&self, cart: &Cart) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        Ok(cart.count.to_string().into())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Cart, Box<dyn Error + Send + Sync>> {
        let [digit @ b'0'..=b'9'] = bytes else {
            return Err("more than a digit".into());
        };
        Ok(Cart { count: u32::from(digit - b'0'), ..Cart::default() })
    }
}

/// A session of `start`, then a change of it: the answer, and whether it left anything changed.
async fn changed<T>(
    builder: SessionManagerBuilder<T>,
    start: T,
    change: impl Fn(&mut T) + Send + Sync + 'static,
) -> (Answer, Vec<&'static str>, bool)
where
    T: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let events = EventLog::default();
    let sessions = builder.on_event(events.hook()).build().unwrap();
    let mut browser = Browser::new(changing(sessions));
    let fill = Change::new(move |session: &mut Session<T>| **session = start.clone());
    browser.send_with(Request::post("/"), fill).await.expect_status(StatusCode::OK);
    events.take();
    let before = browser.get("/").await.body;
    let change = Change::new(move |session: &mut Session<T>| change(session));
    let answer = browser.send_with(Request::post("/"), change).await;
    let told = events.take();
    let after = browser.get("/").await.body;
    assert!(events.take().is_empty(), "the session was not read back");
    (answer, told, before != after)
}

async fn refused<T>(
    builder: SessionManagerBuilder<T>,
    start: T,
    change: impl Fn(&mut T) + Send + Sync + 'static,
) where
    T: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (answer, told, is_changed) = changed(builder, start, change).await;
    answer.expect_status(StatusCode::INTERNAL_SERVER_ERROR).expect_no_cookie();
    assert_eq!((told, is_changed), (vec![], false));
}

fn player() -> Player {
    Player { name: Some("ann".to_owned()), ..Player::default() }
}

fn cart() -> Cart {
    Cart { count: 1, items: vec![1] }
}

async fn a_number_that_is_not_finite_is_refused(mode: Mode) {
    let clock = ManualClock::new();
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(mode.builder(&clock), player(), move |player| {
            player.score = number;
        })
        .await;
    }
    refused(mode.builder(&clock), player(), |player| {
        player.best = f32::NAN;
    })
    .await;
}

async fn nesting_that_is_not_read_again_is_refused(mode: Mode) {
    // The session's own object is the first level.
    for levels in [127, 128, 200] {
        let builder = mode.builder(&ManualClock::new());
        let nest = move |player: &mut Player| player.tree = Tree::of(levels);
        refused(builder, player(), nest).await;
    }
}

async fn what_reads_back_is_saved(mode: Mode) {
    let changes: [fn(&mut Player); 3] = [
        |player| player.name = None,
        |player| player.score = f64::MAX,
        |player| player.tree = Tree::of(126),
    ];
    for change in changes {
        let (answer, told, is_changed) =
            changed(mode.builder(&ManualClock::new()), player(), change).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!((told, is_changed), (vec!["saved"], true));
    }
}

async fn a_field_that_is_left_out_but_missed_is_refused_in_a_debug_build(mode: Mode) {
    if cfg!(debug_assertions) {
        let builder = mode.builder(&ManualClock::new());
        refused(builder, cart(), |cart| cart.items.clear()).await;
    }
}

async fn any_codec_is_tried_in_a_debug_build(mode: Mode) {
    if cfg!(debug_assertions) {
        let mut builder = mode.builder(&ManualClock::new()).codec(OneDigit);
        if mode == Mode::Store {
            builder = builder.on_conflict(ConflictPolicy::Reject);
        }
        refused(builder, cart(), |cart| cart.count = 10).await;
    }
}

async fn what_before_save_spoils_is_refused(mode: Mode) {
    let spoil = |player: &mut Player| player.score /= player.score;
    let builder = mode.builder::<Player>(&ManualClock::new());
    let start = Player { score: 1.0, ..player() };
    refused(builder.before_save(spoil), start, |player| {
        player.score = 0.0;
    })
    .await;
}

#[tokio::test]
async fn no_update_stores_what_would_not_read_back() {
    let clock = ManualClock::new();
    let sessions = SessionManager::<Player>::builder()
        .store(ProbeStore::new(&clock))
        .clock(clock)
        .build()
        .unwrap();
    let seen = Arc::new(Mutex::new(None::<StoreKey>));
    let app = Router::new().fallback({
        let seen = seen.clone();
        move |mut session: Session<Player>| async move {
            *seen.lock().unwrap() = session.id().map(SessionId::store_key);
            let handle = session.handle()?;
            let by_handle = handle.update(|player| player.score = f64::NAN).await;
            assert_matches!(by_handle, Err(SessionError::Encode(_)));
            let by_session = session.update(|player| player.score = f64::NAN).await;
            assert_matches!(by_session, Err(SessionError::Encode(_)));
            // The guard goes on as it was.
            session.name = Some("bob".to_owned());
            session.commit().await
        }
    });
    let session = TestSession::start(&sessions, player()).await.unwrap();
    let (name, value) = session.header();
    let request = Request::get("/").header(name, value);
    let app = app.with_state(sessions.clone());
    send(&app, request).await.expect_status(StatusCode::OK);
    let key = seen.lock().unwrap().unwrap();
    let outside = sessions.update(key, |player| player.score = f64::NAN).await;
    assert_matches!(outside, Err(SessionError::Encode(_)));
    let data = session.data().await.unwrap().unwrap();
    assert_eq!((data.name.as_deref(), data.score), (Some("bob"), 0.0));
}

#[tokio::test]
async fn the_refusal_says_what_to_look_for_and_nothing_of_the_data() {
    let sessions = SessionManager::<Player>::builder().keys(key()).build().unwrap();
    let data = Player { score: f64::NAN, ..player() };
    let error = TestSession::start(&sessions, data).await.unwrap_err();
    let source = error.source().unwrap();
    assert_eq!(
        source.to_string(),
        "the session data does not read back from its own encoding, so it was not saved; look for a float that is NaN \
         or infinite, for more than 127 levels of nesting, and for `skip_serializing_if` without `#[serde(default)]`"
    );
    assert!(source.source().is_none());
}
