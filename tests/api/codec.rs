//! Data that JSON writes in its own way is kept or refused as the docs of `Codec` say.

use std::{collections::HashMap, error::Error};

use axum_typed_session::{
    Codec, ConflictPolicy, MemoryStore, Session, SessionError, SessionManager, SessionStore as _,
    StoreKey,
    store::{SaveOutcome, Write},
    testing::{Gate, ManualClock, RecordBuilder},
};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use crate::support::{Browser, Change, EventLog, Mode, Visits, changing, in_both_modes};

in_both_modes! {
    odd_values_are_refused_or_kept_as_the_docs_say,
    an_integer_beyond_64_bits_that_changed_by_two_digits_is_saved,
    a_sorted_list_and_exchanged_values_of_a_map_are_changes,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Odd {
    score: f64,
    best: Option<f64>,
    #[allow(clippy::option_option, reason = "what it comes back as is the question")]
    answer: Option<Option<u32>>,
    large: u128,
    negative: i128,
    tree: Tree,
    list: Vec<u32>,
    map: HashMap<u32, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tree(Vec<Self>);

type Edit = fn(&mut Odd);

/// A browser whose session holds something, and the events since.
async fn browser(mode: Mode) -> (Browser, EventLog) {
    let events = EventLog::default();
    let sessions = mode.builder::<Odd>(&ManualClock::new()).on_event(events.hook()).build();
    let mut browser = Browser::new(changing(sessions.unwrap()));
    let status = edited(&mut browser, |odd| {
        odd.best = Some(1.0);
        odd.answer = Some(Some(1));
        odd.list = vec![3, 1, 2];
        odd.map = (0..9).map(|number| (number, number)).collect();
    });
    assert_eq!(status.await, StatusCode::OK);
    events.take();
    (browser, events)
}

async fn edited(browser: &mut Browser, edit: Edit) -> StatusCode {
    let change = Change::new(move |session: &mut Session<Odd>| edit(session));
    browser.send_with(Request::post("/"), change).await.status
}

async fn data(browser: &mut Browser) -> Odd {
    serde_json::from_str(&browser.get("/").await.body).unwrap()
}

async fn odd_values_are_refused_or_kept_as_the_docs_say(mode: Mode) {
    /// The session's own struct is one level more.
    fn nest(odd: &mut Odd, levels: usize) {
        odd.tree = (1..levels).fold(Tree::default(), |tree, _| Tree(vec![tree]));
    }
    // An edit, and what it comes back as: `None` if it is refused.
    let cases: [(&str, Edit, Option<Edit>); 8] = [
        ("NaN", |odd| odd.score = f64::NAN, None),
        ("infinity", |odd| odd.score = f64::INFINITY, None),
        ("Some(NaN)", |odd| odd.best = Some(f64::NAN), Some(|odd| odd.best = None)),
        ("Some(infinity)", |odd| odd.best = Some(f64::NEG_INFINITY), Some(|odd| odd.best = None)),
        ("Some(None)", |odd| odd.answer = Some(None), Some(|odd| odd.answer = None)),
        ("large integers", keep_large_integers, Some(keep_large_integers)),
        ("127 levels", |odd| nest(odd, 126), Some(|odd| nest(odd, 126))),
        ("128 levels", |odd| nest(odd, 127), None),
    ];
    for (name, edit, kept) in cases {
        let (mut browser, _) = browser(mode).await;
        let mut expected = data(&mut browser).await;
        let status = edited(&mut browser, edit).await;
        if let Some(kept) = kept {
            kept(&mut expected);
            assert_eq!(status, StatusCode::OK, "{name}");
        } else {
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{name}");
        }
        assert_eq!(data(&mut browser).await, expected, "{name}");
    }
}

fn keep_large_integers(odd: &mut Odd) {
    odd.large = u128::MAX;
    odd.negative = i128::MIN;
}

async fn an_integer_beyond_64_bits_that_changed_by_two_digits_is_saved(mode: Mode) {
    let (mut browser, _) = browser(mode).await;
    let edits: [Edit; 2] = [
        |odd| odd.large = 100_000_000_000_000_000_000_000_000_000_000_012,
        |odd| odd.large = 100_000_000_000_000_000_000_000_000_000_000_021,
    ];
    for edit in edits {
        let mut expected = data(&mut browser).await;
        edit(&mut expected);
        assert_eq!(edited(&mut browser, edit).await, StatusCode::OK);
        assert_eq!(data(&mut browser).await, expected);
    }
}

async fn a_sorted_list_and_exchanged_values_of_a_map_are_changes(mode: Mode) {
    let (mut browser, events) = browser(mode).await;
    edited(&mut browser, |odd| odd.list.sort_unstable()).await;
    assert_eq!(events.take(), ["saved"]);
    assert_eq!(data(&mut browser).await.list, [1, 2, 3]);
    // As many bytes as before, and of the same kinds.
    edited(&mut browser, |odd| odd.map.extend([(1, 2), (2, 1)])).await;
    assert_eq!(events.take(), ["saved"]);
}

#[tokio::test]
async fn data_with_an_integer_beyond_64_bits_does_not_merge() {
    let (mut browser, _) = browser(Mode::Store).await;
    assert_eq!(edited(&mut browser, keep_large_integers).await, StatusCode::OK);
    let gate = Gate::new();
    let slow = Change::behind(gate.clone(), |session: &mut Session<Odd>| session.score = 1.0);
    let mut slow_browser = browser.clone();
    let slow =
        tokio::spawn(async move { slow_browser.send_with(Request::post("/"), slow).await.status });
    gate.reached(1).await;
    assert_eq!(edited(&mut browser, |odd| odd.best = Some(2.0)).await, StatusCode::OK);
    gate.open();
    assert_eq!(slow.await.unwrap(), StatusCode::CONFLICT);
    let kept = data(&mut browser).await;
    assert_eq!((kept.large, kept.best, kept.score), (u128::MAX, Some(2.0), 0.0));
}

/// A codec to which no bytes are data too.
struct Decimal;

impl Codec<Visits> for Decimal {
    fn tag(&self) -> u8 {
        77
    }

    fn encode(&self, visits: &Visits) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        Ok(visits.count.to_string().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Visits, Box<dyn Error + Send + Sync>> {
        let text = str::from_utf8(bytes)?;
        Ok(Visits { count: if text.is_empty() { 0 } else { text.parse()? } })
    }
}

#[tokio::test]
async fn a_replaced_id_is_no_session_although_the_codec_decodes_no_bytes() {
    let store = MemoryStore::new();
    let builder = SessionManager::<Visits>::builder().store(store.clone()).codec(Decimal);
    let sessions = builder.on_conflict(ConflictPolicy::Reject).build().unwrap();
    let created = sessions.create(Visits::default()).await.unwrap();
    assert_eq!(sessions.load(created.key()).await.unwrap().unwrap().count, 0);
    let key = StoreKey::from_bytes([7; 32]);
    let tombstone = RecordBuilder::new().codec_tag(77).tombstone().build();
    let saved = store.save(&key, &tombstone, Write::Create).await.unwrap();
    assert_eq!(saved, SaveOutcome::Saved);
    assert!(sessions.load(key).await.unwrap().is_none());
    let updated = sessions.update(key, |visits| visits.count += 1).await;
    assert!(matches!(updated, Err(SessionError::Gone)));
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Balances(HashMap<u32, u64>);

/// The map is written in another order at the next request, and a `f64` does not hold these numbers.
#[tokio::test]
async fn numbers_above_2_to_the_53_are_no_change_when_a_map_is_borrowed() {
    let events = EventLog::default();
    let sessions = Mode::Store.builder::<Balances>(&ManualClock::new()).on_event(events.hook());
    let mut browser = Browser::new(changing(sessions.build().unwrap()));
    let fill = Change::new(|session: &mut Session<Balances>| {
        session.0 = (0..20).map(|number| (number, (1 << 53) + 1 + u64::from(number))).collect();
    });
    browser.send_with(Request::post("/"), fill).await.expect_status(StatusCode::OK);
    assert_eq!(events.take(), ["created"]);
    for _ in 0..5 {
        let borrow = Change::new(|session: &mut Session<Balances>| _ = session.0.get_mut(&7));
        browser.send_with(Request::post("/"), borrow).await.expect_status(StatusCode::OK);
        assert_eq!(events.take(), [""; 0]);
    }
    // A change in the last bit is one.
    let add = Change::new(|session: &mut Session<Balances>| *session.0.get_mut(&7).unwrap() += 1);
    browser.send_with(Request::post("/"), add).await.expect_status(StatusCode::OK);
    assert_eq!(events.take(), ["saved"]);
}
