use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{row::Class, *};
use bytes::Bytes;

use crate::expiry::Lifetime;

/// A clock that stands until it is set, since the manual one is behind a feature.
#[derive(Clone, Default)]
struct At(Arc<AtomicU64>);

impl Clock for At {
    fn now(&self) -> time::OffsetDateTime {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst)).into()
    }
}

fn record(expires_at: u64) -> Record {
    let at = Timestamp::from_unix_millis;
    Record {
        version: Version::unique(),
        schema: 1,
        codec: 1,
        owner: None,
        lifetime: Lifetime {
            created_at: at(0),
            expires_at: at(expires_at),
            absolute_end: at(expires_at),
            has_own_end: false,
            idle_timeout: None,
        },
        epoch: 0,
        kind: 0,
        tombstone: false,
        is_sealed: false,
        opened_from: None,
        payload: Bytes::new(),
    }
}

/// Polls a future of this store, which never waits for anyone.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn store_key(key: u16) -> StoreKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&key.to_be_bytes());
    StoreKey::from_bytes(bytes)
}

fn save(store: &MemoryStore, key: u16, record: &Record) {
    let saved = poll_once(store.save(&store_key(key), record, Write::Create));
    assert!(matches!(saved, Poll::Ready(Ok(SaveOutcome::Saved))));
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen within a minute");
        thread::yield_now();
    }
}

#[test]
fn a_thread_sweeps_a_store_that_nobody_uses() {
    let clock = At::default();
    let store =
        MemoryStoreBuilder { sweep_every: Duration::from_millis(1), ..MemoryStore::builder() };
    let store = store.clock(clock.clone()).build();
    for key in 0..1000 {
        save(&store, key, &record(10));
    }
    assert_eq!(store.len(), 1000);
    clock.0.store(10, Ordering::SeqCst);
    wait_until(|| store.is_empty());
}

#[test]
fn the_thread_does_not_keep_the_store_alive() {
    let store = MemoryStore::new();
    save(&store, 0, &record(u64::MAX));
    let shared = Arc::downgrade(&store.shared);
    drop(store.clone());
    assert!(shared.upgrade().is_some());
    drop(store);
    assert!(shared.upgrade().is_none());
}

#[test]
fn the_thread_ends_with_the_store() {
    let store = MemoryStore::new();
    let (stop, stopped) = mpsc::channel();
    store.shared.stop.set(stop).unwrap();
    let shared = Arc::downgrade(&store.shared);
    // Far longer than the test: only the end of the store ends it.
    let every = Duration::from_secs(60 * 60);
    let thread = thread::spawn(move || sweep_until(&stopped, every, &shared));
    assert!(!thread.is_finished());
    drop(store);
    thread.join().unwrap();
}

#[test]
fn a_long_sweep_gives_way_to_others() {
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    for key in 0..600 {
        save(&store, key, &record(10));
    }
    clock.0.store(10, Ordering::SeqCst);
    let mut sweep = pin!(store.delete_expired(u32::MAX));
    let mut lens = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let deleted = loop {
        match sweep.as_mut().poll(&mut context) {
            Poll::Ready(deleted) => break deleted.unwrap(),
            Poll::Pending => lens.push(store.len()),
        }
    };
    assert_eq!((deleted, lens), (600, vec![344, 88]));
}

#[test]
fn what_is_counted_is_what_is_there() {
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let ada = OwnerKey::from_bytes([7; 32]);
    for key in 0..30 {
        let record = Record {
            owner: (key % 3 == 0).then_some(ada),
            epoch: 0,
            kind: 0,
            tombstone: key % 5 == 0,
            is_sealed: false,
            opened_from: None,
            payload: Bytes::from(vec![0; usize::from(key)]),
            ..record(u64::from(key))
        };
        save(&store, key, &record);
    }
    let check = |rows: &Rows| {
        let (indices, all) = (&rows.indices, || rows.by_key.iter());
        let evictable = || all().filter(|(_, row)| row.class != Class::Kept);
        assert_eq!(indices.bytes, all().map(|(_, row)| row.size()).sum::<usize>());
        let bytes = evictable().map(|(_, row)| row.size()).sum::<usize>();
        assert_eq!(indices.queues.bytes(), bytes);
        assert_eq!(indices.queues.len(), evictable().count());
        let owned = all().filter(|(_, row)| row.owner().is_some());
        assert_eq!(indices.by_owner.len(), owned.count());
        assert_eq!(indices.by_expiry.len(), rows.by_key.len());
        for (key, row) in all() {
            assert!(indices.by_expiry.contains(&(row.expires_at, *key)));
            assert!(row.class == Class::Kept || indices.queues.contains(key, row));
        }
    };
    check(&store.shared.rows());
    for key in 1..30_u16 {
        let Poll::Ready(Ok(Some(held))) = poll_once(store.load(&store_key(key))) else {
            panic!("the row is not there");
        };
        let mut record = Record {
            version: Version::unique(),
            payload: Bytes::from(vec![0; 40 - usize::from(key)]),
            ..held.clone()
        };
        match key % 4 {
            0 => record.owner = record.owner.is_none().then_some(ada),
            1 => record.lifetime.expires_at = Timestamp::from_unix_millis(30 - u64::from(key)),
            2 => record.tombstone = !record.tombstone,
            _ => {}
        }
        let saved =
            poll_once(store.save(&store_key(key), &record, Write::Update { loaded: &held }));
        assert!(matches!(saved, Poll::Ready(Ok(SaveOutcome::Saved))));
        assert_eq!(
            store.shared.rows().by_key.get(&store_key(key)).unwrap().record().unwrap(),
            record
        );
        check(&store.shared.rows());
    }
    for now in [5, 17, 29, 30] {
        clock.0.store(now, Ordering::SeqCst);
        assert!(poll_once(store.load(&store_key(28))).is_ready());
        check(&store.shared.rows());
        let again = record(now + 1);
        let _ = poll_once(store.save(&store_key(1), &again, Write::Create));
        check(&store.shared.rows());
        assert!(poll_once(store.delete_expired(100)).is_ready());
        check(&store.shared.rows());
    }
    assert_eq!(store.len(), 1);
}

#[test]
fn once_expired_rows_are_handed_out_the_store_leaves_them_alone_for_an_hour() {
    const HOUR: u64 = 60 * 60 * 1000;
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let take = |limit| match poll_once(store.take_expired(limit)) {
        Poll::Ready(taken) => taken.unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        Poll::Pending => panic!("taking expired rows waited"),
    };
    assert_eq!(take(0), []);
    for key in 0..3 {
        save(&store, key, &record(10));
    }
    clock.0.store(10, Ordering::SeqCst);
    let loaded = poll_once(store.load(&store_key(0)));
    assert!(matches!(loaded, Poll::Ready(Err(StoreError::Expired))));
    save(&store, 3, &record(2 * HOUR));
    assert_eq!(store.shared.rows().sweep(Timestamp::from_unix_millis(10), 9), 0);
    assert_eq!(take(2).len(), 2);
    assert_eq!(store.len(), 2);
    clock.0.store(10 + HOUR, Ordering::SeqCst);
    save(&store, 4, &record(2 * HOUR));
    assert_eq!(store.len(), 2);
    assert_eq!(take(9), []);
}

#[test]
fn a_page_has_a_thousand_keys_at_most_in_their_order() {
    let store = MemoryStore::new();
    for key in 0..2500 {
        save(&store, key, &record(u64::MAX));
    }
    let (mut after, mut listed) = (None, Vec::new());
    for expected in [1000, 1000, 500] {
        let Poll::Ready(page) = poll_once(store.list(after.as_ref(), u32::MAX)) else {
            panic!("listing waited");
        };
        let page = page.unwrap();
        assert_eq!(page.keys.len(), expected);
        listed.extend(page.keys);
        after = page.next;
    }
    assert_eq!(after, None);
    assert!(listed.iter().copied().eq((0..2500).map(store_key)));
}
