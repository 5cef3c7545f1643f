//! The memory store under threads that shuttle runs in random orders of all that they do with locks and atomic numbers.

mod orders;

use std::sync::{Arc, Mutex};

use axum_typed_session::{
    MemoryStore, SessionStore, StoreError, StoreKey,
    store::{OwnerKey, Record, SaveOutcome, Timestamp, Version, Write},
};
use shuttle::{future::block_on, thread};

use self::orders::{Still, in_random_orders};

const END: u64 = 1_000_000;

fn store(max_bytes: usize) -> MemoryStore {
    MemoryStore::builder().max_bytes(max_bytes).clock(Still).build()
}

fn key(number: u8) -> StoreKey {
    let mut bytes = [number; 32];
    // The store has 32 parts, by the first bits. Numbers that differ by 32 are in one part.
    bytes[0] = number.wrapping_mul(8);
    StoreKey::from_bytes(bytes)
}

fn owner(number: u8) -> OwnerKey {
    OwnerKey::from_bytes([number; 32])
}

/// Makes a record of the format that `src/store/record.rs` describes.
fn record(version: u8, owner: Option<OwnerKey>, payload: &[u8]) -> Record {
    let end = &END.to_be_bytes()[2..];
    let flags = if owner.is_some() { 2 } else { 0 };
    let mut bytes = [&[4, flags, 1, 0, 0, 0, 1][..], &[0; 6], end].concat();
    bytes.extend(owner.iter().flat_map(OwnerKey::as_bytes));
    bytes.extend(payload);
    let version = Version::from_bytes([version; 16]);
    Record::from_bytes(version, Timestamp::from_unix_millis(END), bytes).unwrap()
}

fn create(store: &MemoryStore, number: u8, record: &Record) {
    let saved = block_on(store.save(&key(number), record, Write::Create));
    assert_eq!(saved.unwrap(), SaveOutcome::Saved);
}

fn load(store: &MemoryStore, number: u8) -> Option<Record> {
    block_on(store.load(&key(number))).unwrap()
}

fn run(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn no_update_is_lost_and_none_lands_twice() {
    in_random_orders(|| {
        let store = store(usize::MAX);
        create(&store, 0, &record(0, None, &[]));
        let add = |number: u8| {
            let store = store.clone();
            let add = move || {
                let mut held = load(&store, 0).unwrap();
                loop {
                    let next = [held.payload(), &[number]].concat();
                    let next = record(number, None, &next);
                    let write = Write::Update { loaded: &held };
                    match block_on(store.save(&key(0), &next, write)).unwrap() {
                        SaveOutcome::Saved => return,
                        SaveOutcome::Conflict(newer) => held = *newer,
                        SaveOutcome::Gone => panic!("nobody ends the session"),
                    }
                }
            };
            Box::new(add) as Box<dyn FnOnce() + Send>
        };
        run((1..=3).map(add).collect());
        let mut added = load(&store, 0).unwrap().payload().to_vec();
        added.sort_unstable();
        assert_eq!(added, [1, 2, 3]);
    });
}

#[test]
fn a_destroyed_session_stays_destroyed() {
    in_random_orders(|| {
        let store = store(usize::MAX);
        let held = record(0, Some(owner(1)), &[]);
        create(&store, 0, &held);
        let (ending, writing, touching) = (store.clone(), store.clone(), store.clone());
        let (loaded, touched) = (held.clone(), held.version());
        run(vec![
            Box::new(move || {
                block_on(ending.destroy(&key(0))).unwrap();
                assert_eq!(load(&ending, 0), None);
            }),
            Box::new(move || {
                let next = record(1, Some(owner(2)), &[1]);
                let write = Write::Update { loaded: &loaded };
                let _ = block_on(writing.save(&key(0), &next, write)).unwrap();
            }),
            Box::new(move || {
                let later = Timestamp::from_unix_millis(END + 1);
                let _ = block_on(touching.touch(&key(0), touched, later)).unwrap();
            }),
        ]);
        assert_eq!((load(&store, 0), store.len()), (None, 0));
        for number in [1, 2] {
            assert_eq!(block_on(store.find_by_owner(&owner(number))).unwrap(), []);
        }
    });
}

#[test]
fn an_owner_finds_a_session_while_others_come_and_go_in_its_slot() {
    in_random_orders(|| {
        let store = store(usize::MAX);
        create(&store, 0, &record(0, Some(owner(1)), &[]));
        create(&store, 1, &record(1, Some(owner(1)), &[]));
        let (moving, coming, looking) = (store.clone(), store.clone(), store.clone());
        let loaded = load(&store, 0).unwrap();
        run(vec![
            Box::new(move || {
                let next = record(2, Some(owner(2)), &[]);
                let write = Write::Update { loaded: &loaded };
                let saved = block_on(moving.save(&key(0), &next, write)).unwrap();
                assert_eq!(saved, SaveOutcome::Saved);
            }),
            Box::new(move || {
                create(&coming, 2, &record(3, Some(owner(1)), &[]));
                block_on(coming.destroy(&key(2))).unwrap();
                create(&coming, 32, &record(4, Some(owner(3)), &[]));
            }),
            Box::new(move || {
                let of_first = block_on(looking.find_by_owner(&owner(1))).unwrap();
                let of_second = block_on(looking.find_by_owner(&owner(2))).unwrap();
                assert!(of_first.contains(&key(1)));
                assert!(of_first.contains(&key(0)) || of_second.contains(&key(0)));
                assert!(!of_first.contains(&key(32)) && !of_second.contains(&key(1)));
            }),
        ]);
        assert_eq!(block_on(store.find_by_owner(&owner(1))).unwrap(), [key(1)]);
        assert_eq!(block_on(store.find_by_owner(&owner(2))).unwrap(), [key(0)]);
        assert_eq!(block_on(store.find_by_owner(&owner(3))).unwrap(), [key(32)]);
    });
}

#[test]
fn of_two_creates_of_one_id_one_succeeds() {
    in_random_orders(|| {
        let store = store(usize::MAX);
        let saved = Arc::new(Mutex::new(Vec::new()));
        let create = |number: u8| {
            let (store, saved) = (store.clone(), saved.clone());
            let create = move || {
                let record = record(number, Some(owner(number)), &[number]);
                match block_on(store.save(&key(0), &record, Write::Create)).unwrap() {
                    SaveOutcome::Saved => saved.lock().unwrap().push(record),
                    SaveOutcome::Conflict(_) => {}
                    SaveOutcome::Gone => panic!("nobody ends the session"),
                }
            };
            Box::new(create) as Box<dyn FnOnce() + Send>
        };
        run((1..=3).map(create).collect());
        let saved = saved.lock().unwrap();
        assert_eq!(saved.len(), 1);
        assert_eq!(load(&store, 0).as_ref(), saved.first());
    });
}

/// The most sessions that a store of these bytes holds.
fn room(store: &MemoryStore) -> usize {
    let fits = |number: &u8| {
        let record = record(*number, Some(owner(*number)), &[0; 40]);
        match block_on(store.save(&key(*number), &record, Write::Create)) {
            Ok(saved) => saved == SaveOutcome::Saved,
            Err(StoreError::Full) => false,
            Err(error) => panic!("{error}"),
        }
    };
    (100..120).take_while(fits).count()
}

#[test]
fn a_full_store_counts_every_byte_once() {
    in_random_orders(|| {
        let store = store(2000);
        let expected = room(&store);
        assert!(expected > 2);
        (100..120).for_each(|number| block_on(store.destroy(&key(number))).unwrap());
        let churn = |number: u8| {
            let store = store.clone();
            let churn = move || {
                for version in 0..3 {
                    let record = record(version, None, &vec![0; usize::from(number) * 150]);
                    let own = key(number + 10 * version);
                    let saved = block_on(store.save(&own, &record, Write::Create));
                    assert!(matches!(saved, Ok(SaveOutcome::Saved) | Err(StoreError::Full)));
                    if version == 1 {
                        block_on(store.destroy(&own)).unwrap();
                    }
                    let _ = block_on(store.delete_expired(1)).unwrap();
                }
            };
            Box::new(churn) as Box<dyn FnOnce() + Send>
        };
        run((1..=3).map(churn).collect());
        (0..40).for_each(|number| block_on(store.destroy(&key(number))).unwrap());
        assert_eq!((store.len(), room(&store)), (0, expected));
    });
}
