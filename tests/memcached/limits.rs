//! What memcached does not keep: rows that are too large, a full server, and keys of other kinds.

use axum_typed_session::{
    MemcachedStore, SessionStore as _, StoreError,
    store::{Cursor, Write},
    testing::RecordBuilder,
};

use crate::{
    common::assert_matches,
    support::{
        DAY, Memcached, any_key, created, gone, or_skip, record, row_key, saved, shared, text_of,
        unavailable, update,
    },
};

/// The longest payload of a record without owner and idle timeout: a row of 1,048,064 bytes.
const LONGEST_PAYLOAD: usize = 1_048_064 - 24 - 19;

fn record_of(bytes: usize) -> RecordBuilder {
    record().payload(vec![b'x'; bytes])
}

#[tokio::test]
async fn the_longest_row_is_kept_whole_and_a_longer_one_is_refused_and_changes_nothing() {
    let memcached = or_skip!(shared());
    let longest_prefix = "p".repeat(200);
    for store in [memcached.store().await, memcached.store().await.prefix(longest_prefix).unwrap()]
    {
        let longest = record_of(LONGEST_PAYLOAD).build();
        let key = created(&store, &longest).await;
        assert!(store.load(&key).await.unwrap().as_ref() == Some(&longest));
        let longer = record_of(LONGEST_PAYLOAD + 1).build();
        let error = store.save(&key, &longer, update(&longest)).await.unwrap_err();
        let text = text_of(&error);
        assert!(text.contains("1048065 bytes") && text.contains("1048064 are allowed"), "{text}");
        assert!(text.contains(".max_payload(..)"), "{text}");
        assert!(store.load(&key).await.unwrap() == Some(longest));
    }
}

#[tokio::test]
async fn a_server_with_a_lower_limit_refuses_clearly_and_the_session_is_over() {
    let memcached = or_skip!(Memcached::start_with(&["-I", "512k"]));
    let store = memcached.store().await;
    let (small, large) = (record().build(), record_of(600_000).build());
    let key = created(&store, &small).await;
    let error = store.save(&key, &large, update(&small)).await.unwrap_err();
    let text = text_of(&error);
    assert!(text.contains("too large") && text.contains("`-I 1m`"), "{text}");
    assert_eq!(store.load(&key).await.unwrap(), None);
    gone(store.save(&key, &small, update(&small)).await);
    // The connection is still in order.
    created(&store, &small).await;
}

#[tokio::test]
async fn an_evicted_session_has_ended_and_nothing_brings_it_back() {
    let memcached = or_skip!(Memcached::start_with(&["-m", "2", "-I", "512k"]));
    let store = memcached.store().await;
    let (row, next) = (record_of(10_000).build(), record_of(10_000).build());
    let key = created(&store, &row).await;
    let mut last = key;
    for _ in 0..600 {
        last = created(&store, &record_of(10_000).build()).await;
    }
    assert!(memcached.stat("", "evictions") > 0);
    assert_eq!(store.load(&key).await.unwrap(), None);
    gone(store.save(&key, &next, update(&row)).await);
    gone(store.touch(&key, row.version(), row.expires_at().saturating_add(DAY)).await);
    gone(store.destroy_at(&key, row.version()).await);
    assert_eq!(store.load(&key).await.unwrap(), None);
    assert!(store.load(&last).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_server_that_may_not_evict_is_full_and_ends_the_session_it_could_not_save() {
    let memcached = or_skip!(Memcached::start_with(&["-M", "-m", "2", "-I", "512k"]));
    let store = memcached.store().await;
    let row = record_of(10_000).build();
    let key = created(&store, &row).await;
    let error = loop {
        let (key, row) = (any_key(), record_of(10_000).build());
        if let Err(error) = store.save(&key, &row, Write::Create).await {
            break error;
        }
    };
    assert_matches!(error, StoreError::Full);
    assert_eq!(store.load(&key).await.unwrap().as_ref(), Some(&row));
    let next = record_of(10_000).build();
    assert_matches!(store.save(&key, &next, update(&row)).await, Err(StoreError::Full));
    assert_eq!(store.load(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_without_compare_and_swap_is_refused_at_every_session() {
    let memcached = or_skip!(Memcached::start_with(&["-C"]));
    let store = memcached.store().await;
    let row = record().build();
    let key = any_key();
    let error = store.save(&key, &row, Write::Create).await.unwrap_err();
    assert!(text_of(&error).contains("without `-C`"), "{}", text_of(&error));
    unavailable(store.load(&key).await);
    unavailable(store.save(&key, &record().build(), update(&row)).await);
    unavailable(store.touch(&key, row.version(), row.expires_at().saturating_add(DAY)).await);
    unavailable(store.destroy_at(&key, row.version()).await);
    store.destroy(&key).await.unwrap();
}

#[tokio::test]
async fn a_foreign_value_is_corrupt_and_stays() {
    let memcached = or_skip!(shared());
    let store = memcached.store().await;
    let key = any_key();
    for value in ["", "text"] {
        memcached.put(&row_key(&key), value);
        let row = record().build();
        assert_matches!(store.load(&key).await, Err(StoreError::Corrupt));
        assert_matches!(store.save(&key, &row, Write::Create).await, Err(StoreError::Corrupt));
        assert_matches!(store.save(&key, &row, update(&row)).await, Err(StoreError::Corrupt));
        assert_matches!(store.destroy_at(&key, row.version()).await, Err(StoreError::Corrupt));
        let found = memcached.ask(&format!("mg {} v", row_key(&key)), "\r\n");
        assert!(found.starts_with(&format!("VA {}\r\n{value}", value.len())), "{found}");
        store.destroy(&key).await.unwrap();
        assert_eq!(store.load(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn prefixes_keep_applications_apart() {
    let memcached = or_skip!(shared());
    let [ours, theirs] =
        [memcached.store().await, memcached.store().await.prefix("shop:").unwrap()];
    let row = record().build();
    let key = created(&ours, &row).await;
    assert_eq!(theirs.load(&key).await.unwrap(), None);
    saved(theirs.save(&key, &record().build(), Write::Create).await);
    assert_eq!(ours.load(&key).await.unwrap(), Some(row));
}

#[test]
fn a_prefix_that_no_key_can_have_is_refused() {
    let long = "p".repeat(201);
    for prefix in ["with space", "line\r\nflush_all", "\0", "käse", &long] {
        let store = MemcachedStore::connect_lazy("memcached://127.0.0.1").unwrap();
        let text = store.prefix(prefix).unwrap_err().to_string();
        assert!(text.starts_with("`.prefix(..)`: ") && text.contains("at most 200"), "{text}");
    }
}

#[tokio::test]
async fn what_memcached_cannot_do_is_unsupported() {
    let store = MemcachedStore::connect_lazy("memcached://127.0.0.1").unwrap();
    assert!(!store.indexes_owners() && !store.lists_sessions() && !store.returns_expired());
    assert!(!store.survives_restart());
    let cursor = Cursor::new([1]);
    assert_matches!(store.list(Some(&cursor), 10).await, Err(StoreError::Unsupported { .. }));
    assert_matches!(store.take_expired(10).await, Err(StoreError::Unsupported { .. }));
    assert_eq!(store.delete_expired(10).await.unwrap(), 0);
}
