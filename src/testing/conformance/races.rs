//! Several writers of one row, each on its own thread.

use std::{sync::Arc, thread, time::Duration};

use super::{
    StoreUnderTest, any_key, any_owner,
    expect::{an_hour_after, answered, same, saved, update},
    parallel::{in_parallel, in_parallel_with},
};
use crate::{
    error::StoreError,
    id::{OwnerKey, StoreKey},
    store::{Record, SaveOutcome, SessionStore, Write},
};

const WRITERS: usize = 8;

/// A store can win a race by luck, so each race runs this often.
pub(super) const ROUNDS: usize = 25;

/// This often, a read of the index and the read of its rows meet a session that gets a new id in between.
const REGENERATIONS: u32 = 100;

/// The last of these sessions gets its id so long after the read began.
const LONGEST_START: Duration = Duration::from_millis(2);

const INCREMENTS: usize = 25;

/// More attempts than one writer needs: each conflict means that another increment was saved.
const MOST_ATTEMPTS: usize = 10 * WRITERS * INCREMENTS;

/// Of several concurrent creates of one key, exactly one is `Saved`. The others are `Conflict` with its row.
pub async fn concurrent_creates_save_one(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        one_of_many_is_saved(store, any_key(), None).await;
    }
}

/// Of several concurrent updates that expect the same version, exactly one is `Saved`. The others are `Conflict`
/// with its row.
pub async fn concurrent_updates_of_a_version_save_one(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        let base = store.record().payload("base").build();
        let key = store.created(&base).await;
        one_of_many_is_saved(store, key, Some(base)).await;
    }
}

/// Writes several records at once, all over the row of `base`, or all where no live row is.
pub(super) async fn one_of_many_is_saved(
    store: &StoreUnderTest,
    key: StoreKey,
    base: Option<Record>,
) {
    let write = if base.is_some() { "updates" } else { "creates" };
    let doing = format!("{WRITERS} concurrent {write}");
    let records: Vec<Record> =
        (0..WRITERS).map(|writer| store.record().payload(writer.to_string()).build()).collect();
    let writes = records.iter().map(|record| {
        let (store, record, base) = (store.shared(), record.clone(), base.clone());
        async move {
            let write = base.as_ref().map_or(Write::Create, update);
            store.save(&key, &record, write).await
        }
    });
    let mut winners = Vec::new();
    let mut losers = Vec::new();
    for (record, answer) in records.iter().zip(in_parallel(writes).await) {
        match answered(answer, &doing) {
            SaveOutcome::Saved => winners.push(record),
            SaveOutcome::Conflict(current) => losers.push(current),
            SaveOutcome::Gone => panic!("{doing}: got Gone, though nobody destroyed the row"),
        }
    }
    let [winner] = winners[..] else {
        panic!("{doing}: {} were answered Saved, of which all but one are lost", winners.len());
    };
    store.holds(&key, winner, &doing).await;
    for current in &losers {
        same(current, winner, &format!("{doing}: in a Conflict"));
    }
}

/// Several writers load, change and update a row at the version that they loaded. No change is lost.
pub async fn compare_and_swap_loses_nothing(store: &StoreUnderTest) {
    let zero = store.record().payload("0").build();
    let key = store.created(&zero).await;
    let writers = (0..WRITERS).map(|_| increments(store.shared(), key, zero.clone()));
    for answer in in_parallel(writers).await {
        answered(answer, "incrementing by compare and swap");
    }
    let count = count_in(&store.found(&key, "loading what was incremented").await);
    let wanted = WRITERS * INCREMENTS;
    assert_eq!(count, wanted, "increments by compare and swap that were answered Saved were lost");
}

async fn increments(
    store: Arc<dyn SessionStore>,
    key: StoreKey,
    mut current: Record,
) -> Result<(), StoreError> {
    let mut left = INCREMENTS;
    for _ in 0..MOST_ATTEMPTS {
        if left == 0 {
            return Ok(());
        }
        let next = next_record(&current);
        match store.save(&key, &next, update(&current)).await? {
            SaveOutcome::Saved => {
                current = next;
                left -= 1;
            }
            SaveOutcome::Conflict(theirs) => current = *theirs,
            SaveOutcome::Gone => {
                panic!("an update was answered Gone, though nobody destroyed the row")
            }
        }
    }
    panic!("updates at the version of the Conflict before them are Conflict again and again");
}

fn count_in(record: &Record) -> usize {
    let text = str::from_utf8(record.payload()).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn next_record(current: &Record) -> Record {
    super::RecordBuilder::new()
        .created_at(current.created_at())
        .expires_at(current.expires_at())
        .payload((count_in(current) + 1).to_string())
        .build()
}

/// A row that is destroyed while other writers update it is gone at the end.
pub async fn destroy_beats_racing_updates(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        let zero = store.record().payload("0").build();
        let key = store.created(&zero).await;
        let tasks = (0..4).map(|task| {
            let (store, current) = (store.shared(), zero.clone());
            async move {
                if task == 0 {
                    // Amid the updates, not before the first of them.
                    let next = next_record(&current);
                    let _ = store.save(&key, &next, update(&current)).await?;
                    return store.destroy(&key).await;
                }
                update_until_gone(&*store, &key, current).await
            }
        });
        for answer in in_parallel(tasks).await {
            answered(answer, "destroying a row that others update");
        }
        store.absent(&key, "loading a row that was destroyed while others updated it").await;
    }
}

async fn update_until_gone(
    store: &dyn SessionStore,
    key: &StoreKey,
    mut current: Record,
) -> Result<(), StoreError> {
    // The destroy comes in far fewer; a store that never answers Gone fails at the end.
    for _ in 0..200 {
        let next = next_record(&current);
        match store.save(key, &next, update(&current)).await? {
            SaveOutcome::Saved => current = next,
            SaveOutcome::Conflict(theirs) => current = *theirs,
            SaveOutcome::Gone => break,
        }
    }
    Ok(())
}

/// A touch that runs at the same time as an update undoes no part of the update.
pub async fn touch_undoes_no_racing_update(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        let base = store.record().payload("base").build();
        let next = store.record().payload("next").build();
        let key = store.created(&base).await;
        let later = an_hour_after(&base);
        let tasks = (0..4).map(|task| {
            let (store, next, loaded) = (store.shared(), next.clone(), base.clone());
            async move {
                if task == 0 {
                    store.save(&key, &next, Write::Update { loaded: &loaded }).await
                } else {
                    store.touch(&key, loaded.version(), later).await
                }
            }
        });
        let mut answers = in_parallel(tasks).await.into_iter();
        let update =
            answers.next().map(|answer| answered(answer, "updating a row that others touch"));
        for answer in answers {
            let touch = answered(answer, "touching a row that another updates");
            assert!(
                touch != SaveOutcome::Gone,
                "a touch was answered Gone, though nobody destroyed the row"
            );
        }
        let found = store.found(&key, "loading a row that was updated and touched").await;
        let wanted = match update {
            Some(SaveOutcome::Saved) => &next,
            // A touch came first and gave the row another version.
            Some(SaveOutcome::Conflict(_)) => &base,
            Some(SaveOutcome::Gone) | None => {
                panic!("an update was answered Gone, though nobody destroyed the row")
            }
        };
        assert!(
            found.payload() == wanted.payload(),
            "a touch that raced an update undid it, or made it while the update was a Conflict"
        );
    }
}

/// A touch that runs at the same time as a destroy does not bring the row back.
pub async fn touch_revives_no_destroyed_row(store: &StoreUnderTest) {
    for _ in 0..ROUNDS {
        let record = store.record().payload("ended").build();
        let key = store.created(&record).await;
        let later = an_hour_after(&record);
        let tasks = (0..4).map(|task| {
            let (store, version) = (store.shared(), record.version());
            async move {
                if task == 0 {
                    return store.destroy(&key).await;
                }
                store.touch(&key, version, later).await.map(drop)
            }
        });
        for answer in in_parallel(tasks).await {
            answered(answer, "destroying a row that others touch");
        }
        store.absent(&key, "loading a row that was destroyed while others touched it").await;
    }
}

/// If a session gets a new id during `find_by_owner`, the call lists it under one of its two keys.
pub async fn find_by_owner_follows_a_new_id(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    for round in 0..REGENERATIONS {
        let regenerated = Regenerated::create(store).await;
        let finding = {
            let (store, owner) = (store.shared(), regenerated.owner);
            async move { store.find_by_owner(&owner).await }
        };
        let (found, outcome) = regenerated.against(store, round, finding).await;
        assert_eq!(
            outcome,
            SaveOutcome::Saved,
            "replacing a row by a tombstone while its owner is looked for"
        );
        let found = answered(found, "finding the owner of a row that gets a new key");
        let ids = [regenerated.old, regenerated.new];
        assert!(
            !found.is_empty() && found.iter().all(|key| ids.contains(key)),
            "find_by_owner missed a session that got a new key meanwhile: found {found:?} of {ids:?}"
        );
    }
}

/// If a session gets a new id during `destroy_by_owner`, the session ends: either the new row is removed, or the
/// old row is removed before it can become a tombstone.
pub async fn destroy_by_owner_follows_a_new_id(store: &StoreUnderTest) {
    if !store.indexes_owners() {
        return;
    }
    for round in 0..REGENERATIONS {
        let regenerated = Regenerated::create(store).await;
        let destroying = {
            let (store, owner) = (store.shared(), regenerated.owner);
            async move { store.destroy_by_owner(&owner, None).await }
        };
        let (destroyed, outcome) = regenerated.against(store, round, destroying).await;
        answered(destroyed, "destroying the rows of an owner, one of which gets a new key");
        if outcome == SaveOutcome::Saved {
            let doing =
                "loading the new row of a session whose owner's rows were destroyed meanwhile";
            store.absent(&regenerated.new, doing).await;
        }
    }
}

/// A session with an owner that is about to get a new id.
struct Regenerated {
    owner: OwnerKey,
    old: StoreKey,
    new: StoreKey,
    row: Record,
}

impl Regenerated {
    async fn create(store: &StoreUnderTest) -> Self {
        let owner = any_owner();
        let row = store.record().owner(owner).build();
        Self { owner, old: store.created(&row).await, new: any_key(), row }
    }

    /// Creates the new row and replaces the old one by a tombstone, at the same time as `other`. It begins a little
    /// later in each round, so that it falls into the middle of `other` in fast and in slow stores.
    async fn against<R: Send + 'static>(
        &self,
        store: &StoreUnderTest,
        round: u32,
        other: impl Future<Output = R> + Send + 'static,
    ) -> (R, SaveOutcome) {
        let (old, new, loaded) = (self.old, self.new, self.row.clone());
        let moved = store.record().owner(self.owner).build();
        let tombstone = store.record().tombstone().build();
        let shared = store.shared();
        let regenerating = async move {
            // This task has a thread of its own.
            thread::sleep(LONGEST_START * round / REGENERATIONS);
            saved(
                shared.save(&new, &moved, Write::Create).await,
                "creating the new row of a session",
            );
            let outcome = shared.save(&old, &tombstone, Write::Update { loaded: &loaded });
            answered(outcome.await, "replacing a session's old row by a tombstone")
        };
        in_parallel_with(other, regenerating).await
    }
}
