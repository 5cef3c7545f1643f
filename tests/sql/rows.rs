//! What a row holds, and what a row that is not as it should be does.

use axum_typed_session::{
    Clock as _, SessionError, SessionManager, SessionStore as _, StoreError, StoreKey,
    store::{OwnerKey, SaveOutcome, Timestamp, Write},
    testing::{ManualClock, RecordBuilder, TestSession},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    browser::{MILLISECOND, MINUTE},
    common::assert_matches,
    engines::{Database, Engine, create, on_every_engine},
};

on_every_engine! {
    a_row_holds_neither_the_id_nor_the_owners_name
    a_damaged_row_is_corrupt_and_stays
    a_foreign_key_is_corrupt
    expired_rows_that_cannot_be_read_are_deleted_and_left_out
    a_row_of_a_newer_format_is_newer_and_stays
    a_damaged_row_is_nobodys_session
    a_payload_is_never_cut
    instants_no_database_holds_become_the_latest
    a_replaced_id_is_not_found_by_its_owner
    a_test_moves_time
}

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

async fn a_row_holds_neither_the_id_nor_the_owners_name<E: Engine>(database: Database<E>) {
    let manager = SessionManager::<String>::builder()
        .store(database.store.clone())
        .owner(|data| Some("ada@example.org".to_owned()).filter(|_| !data.is_empty()))
        .build()
        .unwrap();
    let session = TestSession::start(&manager, "the payload".to_owned()).await.unwrap();
    let (_, cookie) = session.header();
    let id = cookie.to_str().unwrap().split_once('=').unwrap().1.to_owned();
    let secret = URL_SAFE_NO_PAD.decode(&id).unwrap();
    assert_eq!(secret.len(), 32);

    assert_eq!(database.rows().await, 1);
    let mut row = Vec::new();
    for column in ["session_key", "version", "owner", "data"] {
        let sql = format!("SELECT {column} FROM {}", database.table);
        row.extend(E::binary(&database.pool, &sql).await);
    }
    let contains = |needle: &[u8]| row.windows(needle.len()).any(|window| window == needle);
    assert!(contains(b"the payload"), "this would find what is there");
    assert!(!contains(&secret) && !contains(id.as_bytes()));
    assert!(!contains(b"ada") && !contains(b"example"));
}

async fn a_damaged_row_is_corrupt_and_stays<E: Engine>(database: Database<E>) {
    let mut damages = vec![
        format!("data = {}", E::blob("")),
        format!("data = {}", E::blob("01")),
        "data = SUBSTR(data, 1, 18)".to_owned(),
    ];
    if !E::HAS_FIXED_LENGTHS {
        damages.push(format!("version = {}", E::blob("0123")));
    }
    for damage in damages {
        create(&database.store, KEY, &RecordBuilder::new().build()).await;
        database.execute(&format!("UPDATE {{t}} SET {damage}")).await;

        let loaded = database.store.load(&KEY).await;
        assert_matches!(loaded, Err(StoreError::Corrupt), "{damage}");
        let other = RecordBuilder::new().build();
        for write in [Write::Create, Write::Update { loaded: &other }] {
            let saved = database.store.save(&KEY, &RecordBuilder::new().build(), write).await;
            assert_matches!(saved, Err(StoreError::Corrupt), "{damage}");
        }
        assert_eq!(database.store.delete_expired(100).await.unwrap(), 0);
        assert_eq!(database.rows().await, 1, "{damage}");
        database.store.destroy(&KEY).await.unwrap();
        assert_eq!(database.rows().await, 0, "{damage}");
    }
}

async fn a_foreign_key_is_corrupt<E: Engine>(database: Database<E>) {
    if E::HAS_FIXED_LENGTHS {
        return;
    }
    let owner = OwnerKey::from_bytes([9; 32]);
    create(&database.store, KEY, &RecordBuilder::new().owner(owner).build()).await;
    let damage = format!("UPDATE {{t}} SET session_key = {}", E::blob("0123"));
    database.execute(&damage).await;
    assert_matches!(database.store.find_by_owner(&owner).await, Err(StoreError::Corrupt));
    // What cannot be named can still be ended.
    assert_eq!(database.store.destroy_by_owner(&owner, None).await.unwrap(), 1);
}

async fn a_row_of_a_newer_format_is_newer_and_stays<E: Engine>(database: Database<E>) {
    create(&database.store, KEY, &RecordBuilder::new().build()).await;
    database.execute(&format!("UPDATE {{t}} SET data = {}", E::blob("1fffff"))).await;
    assert_matches!(database.store.load(&KEY).await, Err(StoreError::Newer));
    let other = RecordBuilder::new().build();
    assert_matches!(database.store.save(&KEY, &other, Write::Create).await, Err(StoreError::Newer));
    assert_eq!(database.rows().await, 1);
}

async fn a_damaged_row_is_nobodys_session<E: Engine>(database: Database<E>) {
    let manager = SessionManager::<u32>::builder().store(database.store.clone());
    let manager = manager.build().unwrap();
    create(&database.store, KEY, &RecordBuilder::new().payload("5").build()).await;
    assert_eq!(*manager.load(KEY).await.unwrap().unwrap(), 5);

    database.execute(&format!("UPDATE {{t}} SET data = {}", E::blob("1fffff"))).await;
    let newer = manager.load(KEY).await;
    let is_newer = matches!(newer, Err(SessionError::Newer));
    assert!(is_newer, "{newer:?}");

    database.execute(&format!("UPDATE {{t}} SET data = {}", E::blob("01"))).await;
    assert!(manager.load(KEY).await.unwrap().is_none());
}

async fn a_payload_is_never_cut<E: Engine>(database: Database<E>) {
    // More than MySQL's MEDIUMBLOB, where a lenient server would cut.
    let payload = vec![b'x'; (16 << 20) + 1];
    let record = RecordBuilder::new().payload(&payload).build();
    create(&database.store, KEY, &record).await;
    let loaded = database.store.load(&KEY).await.unwrap().unwrap();
    assert!(loaded == record);
}

async fn instants_no_database_holds_become_the_latest<E: Engine>(database: Database<E>) {
    let end = Timestamp::from_unix_millis(u64::MAX);
    let record = RecordBuilder::new().expires_at(end).build();
    create(&database.store, KEY, &record).await;
    let loaded = database.store.load(&KEY).await.unwrap().unwrap();
    assert_eq!(loaded.expires_at().as_unix_millis(), i64::MAX.unsigned_abs());
    let touched = database.store.touch(&KEY, record.version(), end).await;
    assert_eq!(touched.unwrap(), SaveOutcome::Saved);
}

async fn a_replaced_id_is_not_found_by_its_owner<E: Engine>(database: Database<E>) {
    // The manager writes tombstones without owner; a record may say otherwise.
    let owner = OwnerKey::from_bytes([9; 32]);
    let record = RecordBuilder::new().owner(owner).tombstone().owner(owner).build();
    create(&database.store, KEY, &record).await;
    assert_eq!(database.store.find_by_owner(&owner).await.unwrap(), []);
    assert_eq!(database.store.destroy_by_owner(&owner, None).await.unwrap(), 0);
    assert!(database.store.load(&KEY).await.unwrap().is_some());
}

async fn a_test_moves_time<E: Engine>(database: Database<E>) {
    let clock = ManualClock::new();
    let store = database.store.clone().clock(clock.clone());
    let soon = Timestamp::from(clock.now()).saturating_add(MINUTE);
    let record = RecordBuilder::new().expires_at(soon).build();
    create(&store, KEY, &record).await;
    clock.advance(59_999 * MILLISECOND);
    assert!(store.load(&KEY).await.unwrap().is_some());
    assert_eq!(store.delete_expired(1).await.unwrap(), 0);
    clock.advance(MILLISECOND);
    assert!(matches!(store.load(&KEY).await, Err(StoreError::Expired)));
    let gone = Write::Update { loaded: &record };
    let update = store.save(&KEY, &RecordBuilder::new().build(), gone).await;
    assert_eq!(update.unwrap(), SaveOutcome::Gone);
    assert_eq!(store.delete_expired(0).await.unwrap(), 0);
    assert_eq!(store.delete_expired(1).await.unwrap(), 1);
    assert_eq!(database.rows().await, 0);
}

/// They fill more than a page, behind which one can be read.
async fn expired_rows_that_cannot_be_read_are_deleted_and_left_out<E: Engine>(
    database: Database<E>,
) {
    database.execute(&E::expired_rows("{t}", 7)).await;
    let (key, live) = (StoreKey::from_bytes([1; 32]), StoreKey::from_bytes([2; 32]));
    let record = RecordBuilder::new().build();
    create(&database.store, key, &record).await;
    create(&database.store, live, &record).await;
    let expire = format!(
        "UPDATE {{t}} SET expires_at = 1000 WHERE session_key = {}",
        E::blob(&"01".repeat(32))
    );
    database.execute(&expire).await;
    let taken = database.store.take_expired(2).await.unwrap();
    assert_eq!(taken.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key]);
    assert_eq!(taken[0].1.version(), record.version());
    assert_eq!(database.store.take_expired(2).await.unwrap(), []);
    assert_eq!(database.rows().await, 1);
    assert_eq!(database.store.load(&live).await.unwrap(), Some(record));
}
