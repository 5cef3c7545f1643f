//! Readers of a row, and of the index of an owner, while others write.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    RecordBuilder, StoreUnderTest, any_key, any_owner,
    expect::{answered, same, saved, update},
    parallel::{in_parallel, in_parallel_with},
    races::ROUNDS,
};
use crate::{
    id::StoreKey,
    store::{Record, SaveOutcome, Version, Write},
};

/// How often the row is read while another task writes it.
const READS: usize = 50;

/// More updates than a writer makes during the reads.
const MOST_UPDATES: u32 = 10_000;

/// How many rows of an owner are created at once.
const ROWS_AT_ONCE: usize = 4;

/// A record that is read while another task writes the row is the record of one save: from `load` and in a conflict.
pub async fn reads_return_no_mix_of_two_records(store: &StoreUnderTest) {
    let base = store.record();
    let first = numbered(&base, 1);
    let key = store.created(&first).await;
    let is_read = Arc::new(AtomicBool::new(false));
    let reading = {
        let (store, other, is_read) = (store.shared(), base.build(), is_read.clone());
        async move {
            let mut answers = Vec::new();
            for _ in 0..READS {
                let loaded = store.load(&key).await;
                answers.push((loaded, store.save(&key, &other, Write::Create).await));
            }
            is_read.store(true, Ordering::SeqCst);
            answers
        }
    };
    let writing = {
        let (store, base, mut current) = (store.shared(), base.clone(), first);
        async move {
            for number in 2..MOST_UPDATES {
                if is_read.load(Ordering::SeqCst) {
                    return;
                }
                let next = numbered(&base, number);
                let updated = store.save(&key, &next, update(&current)).await;
                saved(updated, "updating a row that another task reads");
                current = next;
            }
        }
    };
    let (answers, ()) = in_parallel_with(reading, writing).await;
    for (loaded, created) in answers {
        let doing = "loading a row that another task writes";
        let Some(found) = answered(loaded, doing) else {
            panic!("{doing}: expected the row, which load does not find");
        };
        same(&found, &numbered(&base, number_of(&found)), doing);
        let doing = "creating over a row that another task writes";
        let SaveOutcome::Conflict(found) = answered(created, doing) else {
            panic!("{doing}: expected Conflict");
        };
        same(&found, &numbered(&base, number_of(&found)), doing);
    }
}

/// Makes a record whose version tells what else is in it.
fn numbered(base: &RecordBuilder, number: u32) -> Record {
    let end = base.build().expires_at();
    let end = end.saturating_add(Duration::from_millis(number.into()));
    let version = Version::from_bytes(u128::from(number).to_be_bytes());
    base.clone().version(version).expires_at(end).payload(number.to_string()).build()
}

fn number_of(record: &Record) -> u32 {
    record.version().as_bytes().last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Rows of one owner that are created and destroyed at the same time leave no trace of each other in the index.
pub async fn the_owner_index_follows_concurrent_writes(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    for _ in 0..ROUNDS {
        let owner = any_owner();
        let record = store.record().owner(owner).build();
        let destroyed = store.created(&record).await;
        let created: BTreeSet<StoreKey> = (0..ROWS_AT_ONCE).map(|_| any_key()).collect();
        let tasks = created.iter().enumerate().map(|(task, key)| {
            let (store, key, record) = (store.shared(), *key, record.clone());
            async move {
                if task == 0 {
                    store.destroy(&destroyed).await?;
                }
                store.save(&key, &record, Write::Create).await
            }
        });
        for answer in in_parallel(tasks).await {
            saved(answer, "creating a row of an owner who gets other rows too");
        }
        let found = store.find_by_owner(&owner).await;
        let found: BTreeSet<StoreKey> =
            answered(found, "finding an owner after concurrent writes").into_iter().collect();
        assert_eq!(found, created, "the rows of an owner, which were created at the same time");
    }
}
