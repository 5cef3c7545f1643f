//! A memory store whose clients want to push the sessions of others out. The docs of the store have these figures.

use axum::Router;
use axum_typed_session::{
    MemoryStore, SessionManager, SessionManagerBuilder, SessionStore as _, StoreKey,
    store::{SaveOutcome, Write},
    testing::{ManualClock, RecordBuilder},
};
use http::StatusCode;

use crate::support::{
    Answer, Browser, MILLISECOND, MINUTE, Visits, ends_within_a_minute, key, scripted,
};

const MEBIBYTE: usize = 1024 * 1024;

/// The most sessions of these tests that fit into a mebibyte.
const CAPACITY: usize = 2_716;

/// An application whose store takes one mebibyte.
struct Shop {
    app: Router,
    store: MemoryStore,
    clock: ManualClock,
}

type Options = SessionManagerBuilder<Visits>;

fn owner(visits: &Visits) -> Option<String> {
    (visits.count > 0).then(|| visits.count.to_string())
}

impl Shop {
    fn new(options: impl FnOnce(Options) -> Options) -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::builder().max_bytes(MEBIBYTE).clock(clock.clone()).build();
        let sessions = SessionManager::builder().store(store.clone()).clock(clock.clone());
        let app = scripted(options(sessions).build().unwrap());
        Self { app, store, clock }
    }

    /// A visitor who has a session and has come back with it.
    async fn visitor(&self) -> Browser {
        let mut browser = Browser::new(self.app.clone());
        browser.get("/add").await.expect(StatusCode::OK, "1");
        browser.get("/read").await.expect(StatusCode::OK, "1");
        self.clock.advance(MILLISECOND);
        browser
    }

    /// Sends so many requests without a cookie, each of which begins a session.
    async fn drive_by(&self, requests: usize) {
        for _ in 0..requests {
            Browser::new(self.app.clone()).get("/add").await.expect(StatusCode::OK, "1");
            self.clock.advance(MILLISECOND);
        }
    }
}

#[tokio::test]
async fn requests_without_a_cookie_push_no_session_out_that_came_back() {
    let shop = Shop::new(|options| options);
    let mut visitor = shop.visitor().await;
    shop.drive_by(3 * CAPACITY).await;
    assert_eq!(shop.store.len(), CAPACITY, "the store was not full");
    visitor.get("/read").await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn requests_without_a_cookie_push_no_session_out_that_was_saved_twice() {
    let shop = Shop::new(|options| options);
    let mut visitor = Browser::new(shop.app.clone());
    visitor.get("/add/commit/add").await.expect(StatusCode::OK, "2");
    shop.drive_by(3 * CAPACITY).await;
    visitor.get("/read").await.expect(StatusCode::OK, "2");
}

/// The only sessions that such requests push out, per mebibyte, are those of visitors who did not come back yet.
#[tokio::test]
async fn a_session_that_did_not_come_back_waits_for_as_many_others_as_there_is_room() {
    for (requests, is_left) in [(CAPACITY - 1, true), (CAPACITY, false)] {
        let shop = Shop::new(|options| options);
        let mut visitor = Browser::new(shop.app.clone());
        visitor.get("/add").await.expect(StatusCode::OK, "1");
        shop.clock.advance(MILLISECOND);
        shop.drive_by(requests).await;
        let count = if is_left { "1" } else { "0" };
        visitor.get("/read").await.expect(StatusCode::OK, count);
    }
}

/// A client that sends two requests for each of its sessions needs twice as many requests, and ends no session that
/// is in use.
#[tokio::test]
async fn two_requests_for_each_session_push_out_who_stays_away_longest() {
    for (sessions, is_left) in [(CAPACITY - 2, true), (CAPACITY - 1, false), (3 * CAPACITY, false)]
    {
        let shop = Shop::new(|options| options);
        let (mut away, mut active) = (shop.visitor().await, shop.visitor().await);
        for number in 0..sessions {
            shop.visitor().await;
            if number % 1_000 == 0 {
                shop.clock.advance(MINUTE);
                active.get("/read").await.expect(StatusCode::OK, "1");
            }
        }
        active.get("/read").await.expect(StatusCode::OK, "1");
        let count = if is_left { "1" } else { "0" };
        away.get("/read").await.expect(StatusCode::OK, count);
    }
}

#[tokio::test]
async fn a_client_that_regenerates_all_the_time_keeps_nobody_from_signing_in() {
    let shop = Shop::new(|options| options.owner(owner));
    let mut first = shop.visitor().await;
    let mut attacker = shop.visitor().await;
    for _ in 0..3 * CAPACITY {
        attacker.get("/regenerate").await.expect(StatusCode::OK, "1");
    }
    assert!(shop.store.len() > CAPACITY * 9 / 10, "the store was not full");
    shop.visitor().await;
    for browser in [&mut first, &mut attacker] {
        browser.get("/read").await.expect(StatusCode::OK, "1");
    }
}

#[tokio::test]
async fn an_old_id_whose_mark_was_deleted_is_an_unknown_id() {
    let shop = Shop::new(|options| options.owner(owner));
    let mut visitor = shop.visitor().await;
    let old = visitor.clone();
    visitor.get("/regenerate").await.expect(StatusCode::OK, "1");
    // While the mark is there, the old id is told from an unknown one.
    old.clone().get("/add").await.expect_status(StatusCode::CONFLICT);
    let mut attacker = shop.visitor().await;
    for _ in 0..3 * CAPACITY {
        attacker.get("/regenerate").await.expect(StatusCode::OK, "1");
    }
    let answer: Answer = old.clone().get("/add").await.expect(StatusCode::OK, "1");
    assert_ne!(answer.pair(), old.jar.iter().next().map(|(name, value)| format!("{name}={value}")));
    old.clone().get("/destroy").await.expect_status(StatusCode::OK);
    visitor.get("/read").await.expect(StatusCode::OK, "1");
}

#[tokio::test]
async fn a_full_store_deletes_no_entry_of_a_revocation_list() {
    let shop = Shop::new(|options| options);
    let in_cookies = SessionManager::<Visits>::builder().keys(key()).clock(shop.clock.clone());
    let in_cookies = scripted(in_cookies.revocations(shop.store.clone()).build().unwrap());
    let mut browser = Browser::new(in_cookies);
    browser.get("/add").await.expect(StatusCode::OK, "1");
    let mut stolen = browser.clone();
    browser.get("/destroy").await.expect_status(StatusCode::OK);
    for _ in 0..CAPACITY {
        shop.visitor().await;
    }
    stolen.get("/read").await.expect(StatusCode::OK, "0");
}

/// Stored as fast as others, chosen keys take a second. If each had to be compared with all others, they would take
/// many minutes.
#[test]
fn chosen_keys_are_stored_as_fast_as_others() {
    ends_within_a_minute(|| async {
        let (store, record) = (MemoryStore::new(), RecordBuilder::new().build());
        // The keys differ in their last bytes alone.
        for number in 0..150_000_u32 {
            let mut key = [7; 32];
            key[28..].copy_from_slice(&number.to_be_bytes());
            let saved = store.save(&StoreKey::from_bytes(key), &record, Write::Create).await;
            assert_eq!(saved.unwrap(), SaveOutcome::Saved);
        }
    });
}
