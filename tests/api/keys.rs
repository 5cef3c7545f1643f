//! Keys come and go without logging anyone out, and bad ones are refused.

use axum::Router;
use axum_typed_session::{Key, KeyRing, MemoryStore, testing::ManualClock};
use http::StatusCode;

use crate::{
    logins::{FRESH, app, expect_refusal, logins, without_keys},
    support::{Browser, DAY, EventLog, HOUR, MILLISECOND},
};

pub fn node(clock: &ManualClock, keys: impl Into<KeyRing>) -> Router {
    app(logins(clock).keys(keys))
}

/// A browser with a session that a node sealed.
pub async fn logged_in(node: &Router) -> Browser {
    let mut browser = Browser::new(node.clone());
    browser.post("/note?mine").await.expect(StatusCode::OK, "mine");
    browser
}

#[tokio::test]
async fn a_key_accepted_next_opens_without_resealing() {
    let (clock, old, new) = (ManualClock::new(), Key::generate(), Key::generate());
    let browser = logged_in(&node(&clock, new.clone())).await;
    let accepting = node(&clock, KeyRing::new(old.clone()).accept_next(new.clone()));
    let mut browser = browser.at(&accepting);
    browser.get("/").await.expect(StatusCode::OK, "mine");
    browser.post("/commit").await.expect_no_cookie();
    browser.post("/note?later").await.set_cookie();
    let mut elsewhere = browser.at(&node(&clock, old));
    elsewhere.get("/").await.expect(StatusCode::OK, "later");
    let mut elsewhere = browser.at(&node(&clock, new));
    elsewhere.get("/").await.expect(StatusCode::OK, FRESH);
}

#[tokio::test]
async fn a_token_of_a_retired_key_is_sealed_again_at_the_next_commit_keeping_its_expiry() {
    let (clock, old, new) = (ManualClock::new(), Key::generate(), Key::generate());
    let browser = logged_in(&node(&clock, old.clone())).await;
    let retiring = node(&clock, KeyRing::new(new.clone()).accept_former(old.clone()));
    let mut browser = browser.at(&retiring);
    clock.advance(HOUR);
    browser.get("/").await.expect_no_cookie();
    let resealed = browser.post("/commit").await;
    assert_eq!(resealed.max_age(), Some(23 * 3600));
    browser.get("/times").await.expect(StatusCode::OK, "0 86400000");
    browser.post("/commit").await.expect_no_cookie();

    browser.at(&node(&clock, old)).get("/").await.expect(StatusCode::OK, FRESH);
    let mut browser = browser.at(&node(&clock, new));
    clock.advance(DAY.checked_sub(HOUR).unwrap().checked_sub(MILLISECOND).unwrap());
    browser.get("/").await.expect(StatusCode::OK, "mine");
    clock.advance(MILLISECOND);
    browser.get("/").await.expect(StatusCode::OK, FRESH);
}

#[tokio::test]
async fn sealing_again_is_neither_a_save_nor_a_touch() {
    let (clock, log) = (ManualClock::new(), EventLog::default());
    let (old, new) = (Key::generate(), Key::generate());
    let browser = logged_in(&node(&clock, old.clone())).await;
    let keys = KeyRing::new(new).accept_former(old);
    let saved = |login: &mut crate::logins::Login| login.note.push_str(", saved");
    let manager = logins(&clock).keys(keys).on_event(log.hook()).before_save(saved);
    let mut browser = browser.at(&app(manager));
    browser.post("/commit").await.set_cookie();
    assert!(log.take().is_empty());
    browser.get("/").await.expect(StatusCode::OK, "mine");
}

#[tokio::test]
async fn sealing_again_keeps_a_browser_session_one() {
    let (clock, old, new) = (ManualClock::new(), Key::generate(), Key::generate());
    let mut browser = logged_in(&node(&clock, old.clone())).await;
    browser.post("/browser?3600").await;
    let mut browser = browser.at(&node(&clock, KeyRing::new(new).accept_former(old)));
    assert_eq!(browser.post("/commit").await.max_age(), None);
}

#[tokio::test]
async fn a_sealed_id_of_a_retired_key_is_sealed_again_too() {
    let (clock, old, new) = (ManualClock::new(), Key::generate(), Key::generate());
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let node = |keys: KeyRing| app(logins(&clock).store(store.clone()).keys(keys));
    let browser = logged_in(&node(old.clone().into())).await;
    let mut browser = browser.at(&node(KeyRing::new(new.clone()).accept_former(old)));
    clock.advance(HOUR);
    let resealed = browser.post("/commit").await;
    // Until the absolute end, which the row may live to.
    assert_eq!(resealed.max_age(), Some((30 * DAY - HOUR).as_secs()));
    browser.get("/times").await.expect(StatusCode::OK, "0 86400000");
    browser.post("/commit").await.expect_no_cookie();
    browser.at(&node(new.into())).get("/").await.expect(StatusCode::OK, "mine");
}

#[tokio::test]
async fn a_token_of_a_removed_key_starts_a_fresh_session() {
    let (clock, log) = (ManualClock::new(), EventLog::default());
    let browser = logged_in(&node(&clock, Key::generate())).await;
    let manager = logins(&clock).on_event(log.hook());
    let mut browser = browser.at(&app(manager));
    browser.get("/").await.expect(StatusCode::OK, FRESH).expect_no_cookie();
    assert_eq!(log.take(), ["unknown_key"]);
}

#[tokio::test]
async fn accept_seal_retire_logs_nobody_out_while_nodes_are_at_different_steps() {
    let (clock, old, new) = (ManualClock::new(), Key::generate(), Key::generate());
    roll_out(&[
        node(&clock, old.clone()),
        node(&clock, KeyRing::new(old.clone()).accept_next(new.clone())),
        node(&clock, KeyRing::new(new.clone()).accept_former(old)),
        node(&clock, new),
    ])
    .await;
}

/// Visits the nodes of each step and the next in any order, as during a rollout, and expects one session throughout.
pub async fn roll_out(steps: &[Router]) {
    let mut browser = logged_in(&steps[0]).await;
    for pair in steps.windows(2) {
        for node in [&pair[1], &pair[0], &pair[1]] {
            browser = browser.at(node);
            browser.post("/commit").await.expect(StatusCode::OK, "mine");
        }
    }
}

#[tokio::test]
async fn keys_that_differ_in_any_byte_open_nothing_of_each_other() {
    let clock = ManualClock::new();
    let bytes = *Key::generate().as_bytes();
    let browser = logged_in(&node(&clock, Key::from(bytes))).await;
    for index in 0..64 {
        let mut bytes = bytes;
        bytes[index] ^= 1;
        let mut browser = browser.at(&node(&clock, Key::from(bytes)));
        browser.get("/").await.expect(StatusCode::OK, FRESH);
    }
}

#[test]
fn weak_and_duplicate_keys_are_refused_wherever_they_stand() {
    const WEAK: &str = "a key in `.keys(..)` is not random; make a key with `openssl rand -hex 64`";
    const TWICE: &str = "`.keys(..)` contains a key twice; list each key once";
    let good = Key::generate();
    let weak = |bytes: &[u8]| Key::try_from(bytes).unwrap();
    let half = &Key::generate().as_bytes()[..32].to_vec();
    // Seven different bytes in no pattern.
    let few_values: Vec<u8> =
        (0..64_u8).map(|index| b'a' + index.count_ones().to_be_bytes()[3]).collect();
    let cases = [
        (weak(&[0; 64]), WEAK),
        (weak(&[0xff; 64]), WEAK),
        (weak(&b"ab".repeat(32)), WEAK),
        (weak(&b"changeme".repeat(8)), WEAK),
        (weak(&b"0123456789abcdef".repeat(4)), WEAK),
        (weak(&b"a passphrase of 23 bytes".repeat(3)), WEAK),
        (weak(&half.repeat(2)), WEAK),
        (weak(&few_values), WEAK),
        (good.clone(), TWICE),
    ];
    for (bad, text) in cases {
        let good = || KeyRing::new(good.clone());
        let mut rings = vec![good().accept_former(bad.clone()), good().accept_next(bad.clone())];
        if text == WEAK {
            rings.push(KeyRing::new(bad));
        }
        for ring in rings {
            expect_refusal(logins(&ManualClock::new()).keys(ring), text);
        }
    }
    assert!(logins(&ManualClock::new()).keys(good).build().is_ok());
}

#[test]
fn a_key_in_hexadecimal_digits_is_not_weak() {
    let digits = b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert!(logins(&ManualClock::new()).keys(Key::from(*digits)).build().is_ok());
}

#[test]
fn a_cookie_session_without_keys_is_refused() {
    let text =
        "set `.keys(..)` to keep sessions in a cookie, or `.store(..)` to keep them on the server";
    expect_refusal(without_keys(&ManualClock::new()), text);
}

#[test]
fn two_keys_of_one_key_id_are_refused() {
    // Found by trying: one pair in 2^32 derives the same four bytes for encryption.
    let [one, other] = [59_708_u32, 66_623].map(|start| {
        let rest = (0..60_u8).map(|index| index.wrapping_mul(37));
        Key::try_from(&*start.to_be_bytes().into_iter().chain(rest).collect::<Vec<_>>()).unwrap()
    });
    let ring = KeyRing::new(one).accept_former(other);
    let text = "two keys in `.keys(..)` share a key id; replace one of them";
    expect_refusal(logins(&ManualClock::new()).keys(ring.clone()), text);
    assert!(logins(&ManualClock::new()).keys(ring).signed(true).build().is_ok());
}
