//! What goes over the wire, and what lies in the server.

use axum_typed_session::{
    SessionStore as _,
    store::{OwnerKey, SaveOutcome},
};

use crate::support::{DAY, Memcached, created, or_skip, record, row_key, saved, update};

#[tokio::test]
async fn an_operation_takes_as_few_commands_as_documented() {
    let memcached = or_skip!(Memcached::start());
    let (store, other) = (memcached.store().await, memcached.store().await);
    let commands = || {
        let names = ["cmd_get", "cmd_set", "delete_hits", "delete_misses"];
        names.iter().map(|name| memcached.stat("", name)).sum::<u64>()
    };
    let mut sent = commands();
    let mut since_last_time = || {
        let before = std::mem::replace(&mut sent, commands());
        sent - before
    };
    let [first, second, third, fourth] = [(); 4].map(|()| record().build());

    let key = created(&store, &first).await;
    assert_eq!(since_last_time(), 1, "a create");
    store.load(&key).await.unwrap();
    assert_eq!(since_last_time(), 1, "a load");
    saved(store.save(&key, &second, update(&first)).await);
    assert_eq!(since_last_time(), 1, "an update after a load");
    saved(store.save(&key, &third, update(&second)).await);
    assert_eq!(since_last_time(), 1, "an update after an update");
    saved(other.save(&key, &fourth, update(&third)).await);
    assert_eq!(since_last_time(), 2, "an update by a node that did not load");
    let conflict = store.save(&key, &first, update(&third)).await.unwrap();
    assert_eq!(conflict, SaveOutcome::Conflict(fourth.clone().into()));
    assert_eq!(since_last_time(), 2, "a conflict");
    let later = fourth.expires_at().saturating_add(DAY);
    saved(store.touch(&key, fourth.version(), later).await);
    assert_eq!(since_last_time(), 2, "a touch");
    saved(store.touch(&key, fourth.version(), later).await);
    assert_eq!(since_last_time(), 1, "a touch that has nothing to do");
    saved(store.save(&key, &first, update(&fourth)).await);
    assert_eq!(since_last_time(), 1, "an update after a touch");
    saved(store.destroy_at(&key, first.version()).await);
    assert_eq!(since_last_time(), 1, "a logout");
    store.destroy(&key).await.unwrap();
    assert_eq!(since_last_time(), 1, "a destroy");
}

#[tokio::test]
async fn the_server_lets_rows_expire_and_knows_no_id() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    let row = record().payload("secret").build();
    let key = created(&store, &row).await;
    let left = || {
        let answer = memcached.ask(&format!("mg {} t", row_key(&key)), "\r\n");
        let left = answer.trim().strip_prefix("HD t").expect("a row with a time to live");
        left.parse::<u64>().expect("seconds")
    };
    let day = DAY.as_secs();
    assert!((day..=day + 61).contains(&left()), "{}", left());
    // More than thirty days.
    let later = row.expires_at().saturating_add(39 * DAY);
    saved(store.touch(&key, row.version(), later).await);
    assert!((40 * day..=40 * day + 62).contains(&left()), "{}", left());
    let keys = memcached.keys();
    assert_eq!(keys, [format!("axum-typed-session%3A{}", key.to_base64url())]);
    let shorter = record().build().with_expires_at(row.expires_at());
    saved(store.save(&key, &shorter, update(&row)).await);
    assert!(left() <= day + 61, "{}", left());
}

/// The documentation says so.
#[tokio::test]
async fn a_session_of_243_bytes_takes_480_bytes_of_memory() {
    let memcached = or_skip!(Memcached::start());
    let store = memcached.store().await;
    let owner = OwnerKey::from_bytes([7; 32]);
    for kind in [record(), record().owner(owner)] {
        memcached.ask("flush_all", "OK\r\n");
        let key = created(&store, &kind.payload([b'x'; 243]).build()).await;
        let item = memcached.ask(&format!("me {}", row_key(&key)), "\r\n");
        let class = item.split(' ').find_map(|field| field.strip_prefix("cls=")).unwrap();
        assert_eq!(memcached.stat("slabs", &format!("{class}:chunk_size")), 480, "{item}");
    }
}
