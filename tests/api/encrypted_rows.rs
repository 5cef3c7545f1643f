//! `.encrypt_rows(..)` hides data from readers of the store, and keyed hashes hide the names of owners.

use std::sync::Arc;

use axum_typed_session::{
    ConflictPolicy, Key, KeyRing, MemoryStore, SessionManager, SessionManagerBuilder,
    SessionStore as _, StoreKey, StoredSession,
    store::{Record, SaveOutcome, Version, Write},
    testing::{Fault, FaultyStore, Gate, ManualClock, Operation},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;

use crate::{
    logins::{FRESH, Login, expect_refusal, logins, router, without_keys},
    support::{Browser, COOKIE},
};

const SECRET: &str = "the note that nobody else reads";

struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::builder().clock(clock.clone()).build());
        Self { clock, store }
    }

    fn builder(&self, keys: impl Into<KeyRing>) -> SessionManagerBuilder<Login> {
        let builder = without_keys(&self.clock).keys(keys).store(self.store.clone());
        builder.owner(|login| login.user.clone())
    }

    fn encrypting(&self, keys: impl Into<KeyRing>) -> SessionManager<Login> {
        self.builder(keys).encrypt_rows(true).build().unwrap()
    }

    fn plain(&self, keys: impl Into<KeyRing>) -> SessionManager<Login> {
        self.builder(keys).build().unwrap()
    }

    async fn row(&self, key: StoreKey) -> Record {
        self.store.load(&key).await.unwrap().unwrap()
    }

    async fn is_readable(&self, key: StoreKey) -> bool {
        let row = self.row(key).await.to_bytes();
        row.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    }
}

async fn ann(sessions: &SessionManager<Login>) -> StoreKey {
    let login = Login { user: Some("ann".to_owned()), note: SECRET.to_owned() };
    sessions.create(login).await.unwrap().key()
}

async fn note(sessions: &SessionManager<Login>, key: StoreKey) -> Option<String> {
    sessions.load(key).await.unwrap().map(|session| session.note.clone())
}

#[tokio::test]
async fn no_data_can_be_read_in_the_store_and_the_application_reads_it() {
    let world = World::new();
    let sessions = world.encrypting(Key::generate());
    let key = ann(&sessions).await;
    assert!(!world.is_readable(key).await);
    assert_eq!(note(&sessions, key).await.as_deref(), Some(SECRET));
    sessions.update(key, |login| login.note.push('!')).await.unwrap();
    assert!(!world.is_readable(key).await);
    assert_eq!(note(&sessions, key).await.unwrap(), format!("{SECRET}!"));
}

#[tokio::test]
async fn two_rows_with_the_same_data_have_no_byte_of_payload_in_common_places() {
    let world = World::new();
    let sessions = world.encrypting(Key::generate());
    let (one, other) = (ann(&sessions).await, ann(&sessions).await);
    let (one, other) = (world.row(one).await, world.row(other).await);
    // The version and the id of the key come first.
    assert_eq!(one.payload()[..5], other.payload()[..5]);
    assert_ne!(one.payload()[5..], other.payload()[5..]);
    let plain =
        serde_json::to_vec(&Login { user: Some("ann".to_owned()), note: SECRET.to_owned() });
    assert_eq!(one.payload().len(), plain.unwrap().len() + 45);
}

#[tokio::test]
async fn a_row_that_is_copied_to_another_key_opens_as_nothing() {
    let world = World::new();
    let sessions = world.encrypting(Key::generate());
    let key = ann(&sessions).await;
    let copy = StoreKey::from_bytes([7; 32]);
    let _ = world.store.save(&copy, &world.row(key).await, Write::Create).await.unwrap();
    assert_eq!(note(&sessions, copy).await, None);
    assert_eq!(note(&sessions, key).await.as_deref(), Some(SECRET));
}

/// Rows and tokens have keys of their own, although all come from one key of the application.
#[tokio::test]
async fn a_row_opens_as_no_token() {
    let world = World::new();
    let ring = Key::generate();
    let sessions = world.encrypting(ring.clone());
    let row = world.row(ann(&sessions).await).await;
    let token = URL_SAFE_NO_PAD.encode(row.payload());
    for manager in [sessions, without_keys(&world.clock).keys(ring).build().unwrap()] {
        let mut browser = Browser::new(router(manager));
        browser.jar.insert(COOKIE.to_owned(), token.clone());
        browser.get("/").await.expect(StatusCode::OK, FRESH);
    }
}

#[tokio::test]
async fn a_row_with_any_flipped_bit_opens_as_nothing() {
    let world = World::new();
    let sessions = world.encrypting(Key::generate());
    let key = ann(&sessions).await;
    let row = world.row(key).await;
    let bytes = row.to_bytes();
    let start = bytes.len() - row.payload().len();
    for bit in start * 8..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let forged = Record::from_bytes(row.version(), row.expires_at(), bytes).unwrap();
        world.store.destroy(&key).await.unwrap();
        let _ = world.store.save(&key, &forged, Write::Create).await.unwrap();
        assert_eq!(note(&sessions, key).await, None, "bit {bit}");
    }
}

#[tokio::test]
async fn rows_from_before_the_option_are_read_and_encrypted_at_their_next_save() {
    let (world, keys) = (World::new(), Key::generate());
    let key = ann(&world.plain(keys.clone())).await;
    assert!(world.is_readable(key).await);
    let sessions = world.encrypting(keys);
    assert_eq!(note(&sessions, key).await.as_deref(), Some(SECRET));
    assert!(world.is_readable(key).await);
    sessions.update(key, |login| login.note.push('!')).await.unwrap();
    assert!(!world.is_readable(key).await);
}

#[tokio::test]
async fn without_the_option_encrypted_rows_are_read_and_written_as_plain_rows() {
    let (world, keys) = (World::new(), Key::generate());
    let key = ann(&world.encrypting(keys.clone())).await;
    let sessions = world.plain(keys);
    assert_eq!(note(&sessions, key).await.as_deref(), Some(SECRET));
    sessions.update(key, |login| login.note.push('!')).await.unwrap();
    assert!(world.is_readable(key).await);
}

#[tokio::test]
async fn a_row_of_a_former_key_is_encrypted_again_at_the_next_commit_keeping_its_expiry() {
    let (world, old, new) = (World::new(), Key::generate(), Key::generate());
    let first = world.encrypting(old.clone());
    let mut browser = Browser::new(router(first.clone()));
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    let [session] = &first.sessions_of("ann").await.unwrap()[..] else { panic!("one session") };
    let (key, end) = (session.key(), session.expires_at());

    let both = KeyRing::new(new.clone()).accept_former(old);
    let mut browser = browser.at(&router(world.encrypting(both)));
    world.clock.advance(std::time::Duration::from_secs(60));
    browser.post("/commit").await.expect(StatusCode::OK, "");

    let last = world.encrypting(new);
    let session = last.load(key).await.unwrap().unwrap();
    assert_eq!((session.user.as_deref(), session.expires_at()), (Some("ann"), end));
    assert_eq!(last.sessions_of("ann").await.unwrap().len(), 1);
    assert_eq!(last.destroy_all_of("ann").await.unwrap(), 1);
}

#[tokio::test]
async fn what_a_node_that_is_behind_in_a_rotation_saves_is_written_with_todays_key() {
    let (world, old, new) = (World::new(), Key::generate(), Key::generate());
    let behind = world.encrypting(KeyRing::new(old.clone()).accept_next(new.clone()));
    let ahead = world.encrypting(KeyRing::new(new.clone()).accept_former(old));
    // The cookie has the new key from the start, and the row gets the old key.
    let mut browser = Browser::new(router(ahead.clone()));
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    let [session] = &ahead.sessions_of("ann").await.unwrap()[..] else { panic!("one session") };
    let key = session.key();
    browser = browser.at(&router(behind));
    browser.post("/note?later").await.expect(StatusCode::OK, "later").expect_no_cookie();

    // A request that only reads is enough.
    browser = browser.at(&router(ahead));
    let version = world.row(key).await.version();
    browser.post("/commit").await.expect(StatusCode::OK, "later").expect_no_cookie();
    assert_ne!(world.row(key).await.version(), version);
    let version = world.row(key).await.version();
    browser.post("/commit").await.expect(StatusCode::OK, "later").expect_no_cookie();
    assert_eq!(world.row(key).await.version(), version, "once");

    let last = world.encrypting(new);
    browser.at(&router(last.clone())).get("/").await.expect(StatusCode::OK, "later");
    assert_eq!(last.destroy_all_of("ann").await.unwrap(), 1);
}

#[tokio::test]
async fn a_request_that_only_reads_fails_for_no_write_with_todays_key() {
    for meanwhile in ["/note?later", "/destroy", "/regenerate"] {
        let (world, old, new) = (World::new(), Key::generate(), Key::generate());
        let store = FaultyStore::new(world.store.clone());
        let builder = |keys: KeyRing| world.builder(keys).encrypt_rows(true).store(store.clone());
        let mut browser = Browser::new(router(builder(old.clone().into()).build().unwrap()));
        browser.post("/user?ann").await.expect(StatusCode::OK, "");

        let both = builder(KeyRing::new(new).accept_former(old));
        let both = both.on_conflict(ConflictPolicy::Reject).build().unwrap();
        let mut reader = browser.at(&router(both));
        let mut other = reader.clone();
        let gate = Gate::new();
        store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
        let acts = async {
            gate.reached(1).await;
            let status = other.post(meanwhile).await.status;
            gate.open();
            status
        };
        let (read, acted) = tokio::join!(reader.post("/commit"), acts);
        assert_eq!((read.status, acted), (StatusCode::OK, StatusCode::OK), "{meanwhile}");
    }
}

#[tokio::test]
async fn a_sign_out_ends_a_session_that_nobody_can_open() {
    let world = World::new();
    let store = FaultyStore::new(world.store.clone());
    let sessions = world.builder(Key::generate()).encrypt_rows(true).store(store.clone());
    let sessions = sessions.build().unwrap();
    let mut browser = Browser::new(router(sessions.clone()));
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    let [session] = &sessions.sessions_of("ann").await.unwrap()[..] else { panic!("one session") };
    let key = session.key();

    let gate = Gate::new();
    store.inject_next(1, Operation::Destroy, Fault::Pause(gate.clone()));
    let signs_out = browser.post("/destroy");
    let replaces = async {
        gate.reached(1).await;
        let row = world.row(key).await;
        let mut bytes = row.to_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        let version = Version::from_bytes([9; 16]);
        let foreign = Record::from_bytes(version, row.expires_at(), bytes).unwrap();
        let write = Write::Update { loaded: &row };
        assert_eq!(store.save(&key, &foreign, write).await.unwrap(), SaveOutcome::Saved);
        gate.open();
    };
    let (signed_out, ()) = tokio::join!(signs_out, replaces);
    signed_out.expect(StatusCode::OK, "");
    assert!(store.load(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn sessions_of_an_owner_are_found_under_every_key_of_the_ring() {
    let (world, old, new) = (World::new(), Key::generate(), Key::generate());
    let before = world.plain(KeyRing::new(old.clone()).accept_next(new.clone()));
    let after = world.plain(KeyRing::new(new).accept_former(old));
    let (one, other) = (ann(&before).await, ann(&after).await);
    for sessions in [&before, &after] {
        assert_eq!(sessions.sessions_of("ann").await.unwrap().len(), 2);
        assert_eq!(sessions.sessions_of("bob").await.unwrap().len(), 0);
    }
    assert!(!after.destroy_of("bob", one).await.unwrap());
    assert!(after.destroy_of("ann", one).await.unwrap());
    assert_eq!(before.destroy_all_of("ann").await.unwrap(), 1);
    assert_eq!(note(&before, other).await, None);
}

#[tokio::test]
async fn a_save_under_another_key_of_the_ring_is_no_other_login() {
    let (world, old, new) = (World::new(), Key::generate(), Key::generate());
    let before = world.plain(KeyRing::new(old.clone()).accept_next(new.clone()));
    let after = world.plain(KeyRing::new(new).accept_former(old));
    let key = ann(&before).await;
    let begun = before.load(key).await.unwrap().unwrap().created_at();
    world.clock.advance(std::time::Duration::from_secs(60));
    for sessions in [&after, &before] {
        sessions.update(key, |login| login.note.push('!')).await.unwrap();
        let session = sessions.load(key).await.unwrap().unwrap();
        assert_eq!(session.created_at(), begun);
        assert_eq!(sessions.destroy_others_of("ann", key).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_hash_of_an_owner_tells_nothing_without_the_key() {
    let hash_of = async |keyed: bool| {
        let world = World::new();
        let builder = without_keys(&world.clock).store(world.store.clone());
        let builder = builder.owner(|login| login.user.clone());
        let builder = if keyed { builder.keys(Key::generate()) } else { builder };
        let sessions = builder.build().unwrap();
        world.row(ann(&sessions).await).await.owner().unwrap()
    };
    assert_eq!(hash_of(false).await, hash_of(false).await);
    assert_ne!(hash_of(true).await, hash_of(false).await);
    assert_ne!(hash_of(true).await, hash_of(true).await);
}

#[tokio::test]
async fn parallel_changes_of_an_encrypted_session_merge() {
    let world = World::new();
    let app = router(world.encrypting(Key::generate()));
    let mut browser = Browser::new(app);
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    let mut other = browser.clone();
    let (one, two) = tokio::join!(browser.post("/note?one"), other.post("/commit"));
    one.expect(StatusCode::OK, "one");
    assert_eq!(two.status, StatusCode::OK);
    browser.get("/").await.expect(StatusCode::OK, "one");
}

#[tokio::test]
async fn a_node_without_the_key_of_a_row_sees_no_session_and_keeps_the_row() {
    let world = World::new();
    let key = ann(&world.encrypting(Key::generate())).await;
    let stranger = world.encrypting(Key::generate());
    assert_eq!(note(&stranger, key).await, None);
    assert!(world.store.load(&key).await.unwrap().is_some());
    let mut browser = Browser::new(router(stranger));
    browser.get("/").await.expect(StatusCode::OK, FRESH);
}

#[test]
fn encrypt_rows_needs_a_store_and_keys() {
    let clock = ManualClock::new();
    let text = "`.encrypt_rows(..)` encrypts the data in a store, so it needs `.store(..)` and `.keys(..)`";
    expect_refusal(logins(&clock).encrypt_rows(true), text);
    expect_refusal(without_keys(&clock).store(MemoryStore::new()).encrypt_rows(true), text);
}

#[tokio::test]
async fn a_list_of_all_sessions_leaves_rows_of_other_managers_out_whatever_sealed_them() {
    let world = World::new();
    let sessions = world.encrypting(Key::generate());
    let others = world.builder(Key::generate()).encrypt_rows(true).kind("Other").build().unwrap();
    let key = ann(&sessions).await;
    let other = ann(&others).await;
    for (manager, own) in [(&sessions, key), (&others, other)] {
        let page = manager.sessions(None, 100).await.unwrap();
        assert_eq!(page.iter().map(StoredSession::key).collect::<Vec<_>>(), [own]);
        assert_eq!((page.unreadable.len(), page.next), (0, None));
    }
    // Rows of the same kind that a lost key sealed are this manager's, and cannot be read.
    let page = world.encrypting(Key::generate()).sessions(None, 100).await.unwrap();
    assert_eq!((page.len(), page.unreadable), (0, vec![key]));
}

#[tokio::test]
async fn a_request_that_only_reads_writes_an_owner_with_todays_key() {
    let (world, old, new) = (World::new(), Key::generate(), Key::generate());
    let mut browser = Browser::new(router(world.plain(old.clone())));
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    let both = KeyRing::new(new.clone()).accept_former(old);
    let browser = &mut browser.at(&router(world.plain(both)));
    browser.post("/commit").await.expect(StatusCode::OK, "");
    assert_eq!(world.plain(new).destroy_all_of("ann").await.unwrap(), 1);
}

#[tokio::test]
async fn a_session_that_is_ended_before_its_new_id_is_complete_is_gone() {
    let (world, keys) = (World::new(), Key::generate());
    let store = FaultyStore::new(world.store.clone());
    let sessions = world.builder(keys).store(store.clone()).build().unwrap();
    let mut browser = Browser::new(router(sessions.clone()));
    browser.post("/user?ann").await.expect(StatusCode::OK, "");
    // The third save of a new id gives the new row its life.
    let gate = Gate::new();
    store.inject_next(2, [Operation::Save], Fault::Pass);
    store.inject_next(1, Operation::Save, Fault::Pause(gate.clone()));
    let ends = async {
        gate.reached(1).await;
        let [session] = &sessions.sessions_of("ann").await.unwrap()[..] else {
            panic!("one session")
        };
        store.inner().destroy(&session.key()).await.unwrap();
        gate.open();
    };
    let (answer, ()) = tokio::join!(browser.post("/regenerate"), ends);
    answer.expect_error(StatusCode::CONFLICT).expect_no_cookie();
}

#[tokio::test]
async fn an_owner_ends_no_row_of_another_owner_that_nobody_can_open() {
    let world = World::new();
    let bob = Login { user: Some("bob".to_owned()), note: SECRET.to_owned() };
    let key = world.encrypting(Key::generate()).create(bob).await.unwrap().key();
    let other_keys = world.encrypting(Key::generate());
    assert!(!other_keys.destroy_of("ann", key).await.unwrap());
    assert!(world.store.load(&key).await.unwrap().is_some());
}
