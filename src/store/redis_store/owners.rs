//! The index of an owner's sessions: a sorted set of their keys, each with its session's absolute end.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{RedisStore, row};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
};

/// How far the clocks of an application's nodes may be apart before an owner's index loses an entry early.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// How many commands run at once for one owner's sessions.
const CONCURRENCY: usize = 64;

/// How many entries are looked at before the sessions among them end.
const PAGE: usize = 1_000;

/// What an entry of an owner's index leads to.
enum Found {
    /// A live session of the owner.
    Session,
    /// What a session leaves that got a new id.
    Tombstone,
    /// No row, or somebody else's.
    Nothing,
}

impl RedisStore {
    /// Enters a row that is about to be written into its owner's index.
    pub(super) async fn index(
        &self,
        owner: &OwnerKey,
        key: &StoreKey,
        end: Timestamp,
    ) -> Result<(), StoreError> {
        let past = Timestamp::from(self.clock.now()).as_unix_millis();
        let past = past.saturating_sub(1000 * CLOCK_SKEW.as_secs()).to_string();
        let ttl = self.ttl(end.saturating_add(CLOCK_SKEW));
        let end = end.as_unix_millis().to_string();
        let arguments = [key.as_bytes(), end.as_bytes(), past.as_bytes(), ttl.as_bytes()];
        let index = self.index_key(owner);
        self.run(&self.scripts.index, &index, &arguments).await?;
        Ok(())
    }

    /// Lists the owner's sessions; entries are left alone, also those whose row is missing.
    ///
    /// A session may get a new id between the reading of the index and the asking for its row. Its new
    /// entry is written before its old row becomes a tombstone, so whoever met the tombstone finds the
    /// entry by reading the index again.
    pub(super) async fn sessions(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let mut tombstones = HashSet::new();
        loop {
            let entries = self.entries(owner, usize::MAX).await?;
            let (mut sessions, known) = (Vec::new(), tombstones.len());
            let mut found = pin!(self.found(&entries, owner));
            while let Some((key, found)) = found.try_next().await? {
                match found {
                    Found::Session => sessions.push(key),
                    Found::Tombstone => drop(tombstones.insert(key)),
                    Found::Nothing => {}
                }
            }
            if tombstones.len() == known {
                return Ok(sessions);
            }
        }
    }

    /// Ends the owner's sessions but one, the newest first, and returns how many.
    ///
    /// It ends when it met neither a session nor, as above, a tombstone in the whole index.
    pub(super) async fn end_sessions(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let mut ended = 0;
        // An index too long to be read in time still has its newest sessions ended.
        let mut most = PAGE;
        loop {
            let entries = self.entries(owner, most).await?;
            let mut is_last = entries.len() < most;
            most = usize::MAX;
            for page in entries.chunks(PAGE) {
                let (mut sessions, mut over) = (Vec::new(), Vec::new());
                let mut found = pin!(self.found(page, owner));
                while let Some((key, found)) = found.try_next().await? {
                    match found {
                        Found::Session if Some(&key) != keep => sessions.push(key),
                        Found::Tombstone => over.push(key),
                        Found::Session | Found::Nothing => {}
                    }
                }
                is_last &= sessions.is_empty() && over.is_empty();
                let removals = stream::iter(sessions);
                let removals = removals.map(async move |key| (key, self.remove(&key).await));
                let mut removals = pin!(removals.buffered(CONCURRENCY));
                while let Some((key, removed)) = removals.next().await {
                    if removed? {
                        ended += 1;
                        over.push(key);
                    }
                }
                self.forget(owner, &over).await?;
            }
            if is_last {
                return Ok(ended);
            }
        }
    }

    /// Returns so many of the owner's entries, those that end last before the others, and those of
    /// sessions that ended included; all as of one moment.
    async fn entries(&self, owner: &OwnerKey, most: usize) -> Result<Vec<StoreKey>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        let last = i64::try_from(most).map_or(-1, |most| most - 1);
        command.arg(self.index_key(owner)).arg(0).arg(last).arg("REV");
        let members: Vec<Vec<u8>> = self.call(&command).await?;
        let keys = members.into_iter().flat_map(<[u8; 32]>::try_from);
        Ok(keys.map(StoreKey::from_bytes).collect())
    }

    /// Drops entries whose row can never be the owner's session again: it was destroyed, or is a
    /// tombstone. One that is merely missing, or has another owner, may be about to be written.
    async fn forget(&self, owner: &OwnerKey, over: &[StoreKey]) -> Result<(), StoreError> {
        if over.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZREM");
        command.arg(self.index_key(owner));
        for key in over {
            command.arg(key.as_bytes());
        }
        self.call(&command).await
    }

    /// Asks for the rows of entries, and says in their order what each is to the owner.
    fn found<'a>(
        &'a self,
        entries: &'a [StoreKey],
        owner: &'a OwnerKey,
    ) -> impl Stream<Item = Result<(StoreKey, Found), StoreError>> + 'a {
        let rows = stream::iter(entries).map(async move |key| {
            let found = self.row_of(key, owner).await?;
            Ok((*key, found))
        });
        rows.buffered(CONCURRENCY)
    }

    async fn row_of(&self, key: &StoreKey, owner: &OwnerKey) -> Result<Found, StoreError> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(self.row_key(key)).arg(0).arg(row::LAST_OF_HEAD);
        match self.call(&command).await.and_then(row::decode) {
            Ok(head) if head.is_tombstone() => Ok(Found::Tombstone),
            Ok(head) if head.owner() == Some(*owner) => Ok(Found::Session),
            // Nobody's session, or no row, which reads as an empty string.
            Ok(_) | Err(StoreError::Corrupt) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    fn index_key(&self, owner: &OwnerKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"owner:", owner.as_bytes()].concat()
    }
}
