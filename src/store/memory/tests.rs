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

use super::{row::Class, slab::Slab, *};
use bytes::Bytes;

use crate::expiry::{IdleTimeout, Lifetime};

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

/// Compares what the store counts and its indices with its rows.
#[track_caller]
fn check(store: &MemoryStore) {
    let all = store.shared.parts.all();
    let (mut bytes, mut owned) = (0, 0);
    for rows in &all.parts {
        let slots = || (0..rows.slab.slots()).filter_map(|slot| Some((slot, rows.slab.get(slot)?)));
        for (slot, row) in slots() {
            assert_eq!(rows.get(&row.key).map(|(slot, _)| slot), Some(slot));
            assert!(row.indexed_at <= row.expires_at);
            assert!(rows.by_expiry.contains(&(row.indexed_at, slot)));
            bytes += row.size();
            owned += usize::from(row.owner().is_some());
        }
        assert_eq!(rows.by_key.len(), slots().count());
        assert_eq!(rows.by_expiry.len(), slots().count());
        for class in [Class::Mark, Class::New, Class::Returned] {
            let queue = rows.queues.of(class).unwrap();
            let mut queued = queue.slots(&rows.slab).collect::<Vec<_>>();
            queued.sort_unstable();
            let of_class = || slots().filter(|(_, row)| row.class == class);
            assert!(of_class().map(|(slot, _)| slot).eq(queued));
            assert_eq!(queue.bytes, of_class().map(|(_, row)| row.size()).sum::<usize>());
        }
    }
    assert_eq!(store.shared.parts.common.bytes(), bytes);
    assert_eq!(store.shared.parts.common.owned(), owned);
}

#[test]
fn what_is_counted_is_what_is_there() {
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let ada = OwnerKey::from_bytes([7; 32]);
    for key in 0..30 {
        let record = Record {
            owner: (key % 3 == 0).then_some(ada),
            tombstone: key % 5 == 0,
            payload: Bytes::from(vec![0; usize::from(key)]),
            ..record(u64::from(key))
        };
        save(&store, key, &record);
    }
    check(&store);
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
        let rows = store.shared.parts.of(&store_key(key));
        assert_eq!(rows.get(&store_key(key)).unwrap().1.record().unwrap(), record);
        drop(rows);
        check(&store);
    }
    for now in [5, 17, 29, 30] {
        clock.0.store(now, Ordering::SeqCst);
        assert!(poll_once(store.load(&store_key(28))).is_ready());
        check(&store);
        let again = record(now + 1);
        let _ = poll_once(store.save(&store_key(1), &again, Write::Create));
        check(&store);
        assert!(poll_once(store.delete_expired(100)).is_ready());
        check(&store);
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
    store.shared.parts.part(0).sweep(Timestamp::from_unix_millis(10), &mut 9);
    assert_eq!(store.len(), 4);
    assert_eq!(take(2).len(), 2);
    assert_eq!(store.len(), 2);
    clock.0.store(10 + HOUR, Ordering::SeqCst);
    save(&store, 4, &record(2 * HOUR));
    assert_eq!(store.len(), 2);
    assert_eq!(take(9), []);
}

fn touch(store: &MemoryStore, key: u16, record: &Record, expires_at: u64) {
    let expires_at = Timestamp::from_unix_millis(expires_at);
    let touched = poll_once(store.touch(&store_key(key), record.version, expires_at));
    assert!(matches!(touched, Poll::Ready(Ok(SaveOutcome::Saved))));
}

/// Stores 599 sessions that were extended to 1000, and one that ends at 10.
fn extended(store: &MemoryStore) {
    for key in 0..600 {
        let record = record(10);
        save(store, key, &record);
        if key != 300 {
            touch(store, key, &record, 1000);
        }
    }
    check(store);
}

#[test]
fn expired_sessions_are_found_behind_many_that_were_extended() {
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    extended(&store);
    clock.0.store(10, Ordering::SeqCst);
    let mut take = pin!(store.take_expired(100));
    let mut context = Context::from_waker(Waker::noop());
    assert!(take.as_mut().poll(&mut context).is_pending(), "it looked at all rows at once");
    check(&store);
    let taken = loop {
        if let Poll::Ready(taken) = take.as_mut().poll(&mut context) {
            break taken.unwrap();
        }
    };
    assert!(taken.iter().map(|(key, _)| *key).eq([store_key(300)]));
    check(&store);
    clock.0.store(1000, Ordering::SeqCst);
    assert!(matches!(poll_once(store.take_expired(1)), Poll::Ready(Ok(taken)) if taken.len() == 1));
}

#[test]
fn a_full_store_evicts_no_session_while_an_expired_one_is_behind_many_that_were_extended() {
    let clock = At::default();
    let size = Row::new(&store_key(0), &record(10), Timestamp::from_unix_millis(0)).size();
    let store = MemoryStore::builder().max_bytes(600 * size).clock(clock.clone()).build();
    extended(&store);
    clock.0.store(10, Ordering::SeqCst);
    save(&store, u16::MAX, &record(1000));
    check(&store);
    assert_eq!(store.len(), 600);
    for key in (0..600).filter(|key| *key != 300) {
        assert!(matches!(poll_once(store.load(&store_key(key))), Poll::Ready(Ok(Some(_)))));
    }
}

#[test]
fn an_expiry_moves_to_an_earlier_time_too() {
    let clock = At::default();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let held = record(100);
    save(&store, 0, &held);
    touch(&store, 0, &held, 200);
    let write = Write::Update { loaded: &held };
    assert!(poll_once(store.save(&store_key(0), &record(50), write)).is_ready());
    check(&store);
    clock.0.store(50, Ordering::SeqCst);
    assert!(matches!(poll_once(store.delete_expired(9)), Poll::Ready(Ok(1))));
}

/// The write found the store full, and another one came before it had all parts to itself.
#[test]
fn a_write_that_conflicts_in_a_full_store_ends_no_session_to_make_room() {
    let now = Timestamp::from_unix_millis(0);
    let store = MemoryStore::builder().max_bytes(20_000).clock(At::default()).build();
    let sized = |len| Record { payload: vec![0; len].into(), ..record(9) };
    let loaded = sized(0);
    save(&store, 1, &sized(0));
    save(&store, 2, &sized(15_000));
    let write = Write::Update { loaded: &loaded };
    let saved = store.shared.parts.save_in_full(&store_key(1), &sized(10_000), write, now);
    assert!(matches!(saved, Ok(SaveOutcome::Conflict(_))));
    assert_eq!(store.len(), 2);
}

#[test]
fn a_store_without_a_free_slot_is_full_until_a_session_ends() {
    let store = MemoryStore::new();
    store.shared.parts.part(0).slab = Slab::new(2);
    save(&store, 0, &record(u64::MAX));
    save(&store, 1, &record(u64::MAX));
    let third = || poll_once(store.save(&store_key(2), &record(u64::MAX), Write::Create));
    assert!(matches!(third(), Poll::Ready(Err(StoreError::Full))));
    check(&store);
    assert!(poll_once(store.destroy(&store_key(0))).is_ready());
    assert!(matches!(third(), Poll::Ready(Ok(SaveOutcome::Saved))));
    check(&store);
}

fn list(store: &MemoryStore, after: Option<&Cursor>, limit: u32) -> KeyPage {
    match poll_once(store.list(after, limit)) {
        Poll::Ready(page) => page.unwrap(),
        Poll::Pending => panic!("listing waited"),
    }
}

#[test]
fn a_page_looks_at_a_thousand_slots_at_most() {
    let store = MemoryStore::new();
    for key in 0..2500 {
        save(&store, key, &record(u64::MAX));
    }
    let pages = || {
        let mut pages = vec![list(&store, None, u32::MAX)];
        while let Some(next) = pages.last().unwrap().next.clone() {
            pages.push(list(&store, Some(&next), u32::MAX));
        }
        pages
    };
    let full = pages();
    assert!(full.iter().map(|page| page.keys.len()).eq([1000, 1000, 500]));
    let mut listed = full.into_iter().flat_map(|page| page.keys).collect::<Vec<_>>();
    listed.sort_unstable();
    assert!(listed.into_iter().eq((0..2500).map(store_key)));
    for key in 0..2400 {
        assert!(poll_once(store.destroy(&store_key(key))).is_ready());
    }
    assert!(pages().iter().map(|page| page.keys.len()).eq([0, 0, 100]));
}

#[test]
fn a_session_that_stays_is_listed_while_the_slots_of_others_are_used_again() {
    let store = MemoryStore::new();
    for key in 0..300 {
        save(&store, key, &record(u64::MAX));
    }
    let (mut listed, mut after) = (Vec::new(), None);
    for round in 0.. {
        let page = list(&store, after.as_ref(), 10);
        listed.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
        // Each third session stays. The others end one by one, and new sessions take their slots.
        let ended = (0..300).filter(|key| key % 3 != 0).nth(round % 200).unwrap();
        assert!(poll_once(store.destroy(&store_key(ended))).is_ready());
        save(&store, 1000 + u16::try_from(round).unwrap(), &record(u64::MAX));
        check(&store);
    }
    assert!((0..300).step_by(3).all(|key| listed.contains(&store_key(key))));
}

#[test]
fn a_cursor_of_another_store_begins_somewhere() {
    let store = MemoryStore::new();
    save(&store, 0, &record(u64::MAX));
    for bytes in [&b""[..], b"\xff", b"\xff\xff\xff\xff", b"0123456789"] {
        let page = list(&store, Some(&Cursor::new(bytes)), 10);
        assert!(page.keys.len() <= 1 && page.next.is_none());
    }
}

/// The threads meet in each part and in a store that is full most of the time.
#[test]
fn threads_leave_the_store_in_order() {
    let size = Row::new(&store_key(0), &record(0), Timestamp::from_unix_millis(0)).size();
    let clock = At::default();
    let store = MemoryStore::builder().max_bytes(200 * size).clock(clock.clone()).build();
    let work = |thread: u16| {
        for step in 0..4000_u16 {
            let number = step.wrapping_mul(40_503).wrapping_add(thread) / 64 * 64;
            let key = store_key(number);
            let owner = OwnerKey::from_bytes([u8::try_from(number >> 8).unwrap(); 32]);
            let owner = (step % 7 == 0).then_some(owner);
            let record = Record { owner, ..record(u64::from(step) + 500) };
            let _ = poll_once(store.save(&key, &record, Write::Create));
            if step % 3 == 0 {
                let _ = poll_once(store.load(&key));
            }
            if let Some(owner) = &owner {
                let _ = poll_once(store.find_by_owner(owner));
            }
            if step % 5 == 0 {
                let _ =
                    poll_once(store.touch(&key, record.version, Timestamp::from_unix_millis(9000)));
                let _ = poll_once(store.take_expired(2));
            }
            if step % 11 == 0 {
                let _ = poll_once(store.destroy(&key));
            }
            clock.0.fetch_max(u64::from(step), Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || work(thread));
        }
    });
    check(&store);
    assert!(store.len() <= 200, "{}", store.len());
    assert!(!store.is_empty());
}

/// Records with every part that a record may lack, and without.
fn records_of_all_parts() -> impl Iterator<Item = Record> {
    (0..32).map(|parts: u32| {
        let has = |part: u32| parts & part != 0;
        let mut record = Record {
            owner: has(1).then(|| OwnerKey::from_bytes([1; 32])),
            epoch: u64::from(has(2)),
            kind: u32::from(has(4)),
            tombstone: has(8),
            payload: Bytes::from_static(&[7; 50]),
            ..record(1)
        };
        record.lifetime.idle_timeout =
            has(16).then_some(IdleTimeout::Persistent(Duration::from_secs(1)));
        record
    })
}

#[test]
fn the_length_of_a_record_is_known_before_it_is_written() {
    for record in records_of_all_parts() {
        assert_eq!(record.to_bytes().len(), record.encoded_len());
    }
}

#[test]
fn only_a_session_with_an_owner_is_in_the_index_of_owners() {
    let store = MemoryStore::builder().clock(At::default()).build();
    let mut owned = 0;
    for (key, record) in (0..).zip(records_of_all_parts()) {
        owned += usize::from(record.owner().is_some() && !record.is_tombstone());
        let saved = poll_once(store.save(&store_key(key), &record, Write::Create));
        assert!(matches!(saved, Poll::Ready(Ok(SaveOutcome::Saved))));
        assert_eq!(store.shared.parts.common.owned(), owned);
    }
}
