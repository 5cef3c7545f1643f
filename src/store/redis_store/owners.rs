//! The index of an owner's sessions: a sorted set of their keys, each with its session's absolute end.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{RedisStore, row};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
};

/// The clocks of the nodes may differ by this much before the index of an owner loses an entry early.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// How many commands run at once for one owner's sessions.
const CONCURRENCY: usize = 64;

/// How many entries are looked at before the sessions among them end.
const PAGE: usize = 1_000;

/// The row of an entry in the index of an owner.
enum Found {
    /// A session of the owner, with its absolute end. A row that cannot be read is one too, as the index says, and
    /// its end is unknown.
    Session(Option<Timestamp>),
    /// The mark of a session that got a new id.
    Tombstone,
    /// No row, or the row of another owner.
    Nothing,
}

impl RedisStore {
    /// Adds a row that is about to be written to the index of its owner.
    pub(super) async fn index(
        &self,
        owner: &OwnerKey,
        key: &StoreKey,
        end: Timestamp,
    ) -> Result<(), StoreError> {
        let past = self.now().as_unix_millis();
        let past = past.saturating_sub(1000 * CLOCK_SKEW.as_secs()).to_string();
        let ttl = self.ttl(end.saturating_add(CLOCK_SKEW)).to_string();
        let end = end.as_unix_millis().to_string();
        let arguments = [key.as_bytes(), end.as_bytes(), past.as_bytes(), ttl.as_bytes()];
        let index = self.index_key(owner);
        self.run(&self.scripts.index, &index, &arguments).await?;
        Ok(())
    }

    /// Lists the sessions of the owner. It changes no entry, even if the row of an entry is missing.
    ///
    /// A session may get a new id after the index is read and before its row is read. Its new entry is written
    /// before its old row becomes a tombstone. So when a tombstone is found, the new entry is found by reading the
    /// index again.
    pub(super) async fn sessions(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let mut tombstones = HashSet::new();
        loop {
            let entries = self.entries(owner, usize::MAX).await?;
            let (mut sessions, known) = (Vec::new(), tombstones.len());
            let mut found = pin!(self.found(&entries, owner));
            while let Some((key, found)) = found.try_next().await? {
                match found {
                    Found::Session(_) => sessions.push(key),
                    Found::Tombstone => drop(tombstones.insert(key)),
                    Found::Nothing => {}
                }
            }
            if tombstones.len() == known {
                return Ok(sessions);
            }
        }
    }

    /// Ends all sessions of the owner but one, the newest first, and returns how many.
    ///
    /// It stops when the whole index led to no session and to no tombstone that it did not know.
    pub(super) async fn end_sessions(
        &self,
        owner: &OwnerKey,
        keep: Option<&StoreKey>,
    ) -> Result<u64, StoreError> {
        let (mut ended, mut tombstones) = (0, HashSet::new());
        // An index too long to be read in time still has its newest sessions ended.
        let mut most = PAGE;
        loop {
            let entries = self.entries(owner, most).await?;
            let mut is_last = entries.len() < most;
            most = usize::MAX;
            for page in entries.chunks(PAGE) {
                let (mut sessions, mut over, known) = (Vec::new(), Vec::new(), tombstones.len());
                let mut found = pin!(self.found(page, owner));
                while let Some((key, found)) = found.try_next().await? {
                    match found {
                        Found::Session(_) if Some(&key) != keep => sessions.push(key),
                        // Its entry stays: the session comes back under this id if its new id cannot be completed.
                        Found::Tombstone => drop(tombstones.insert(key)),
                        Found::Session(_) | Found::Nothing => {}
                    }
                }
                is_last &= sessions.is_empty() && tombstones.len() == known;
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

    /// Returns so many entries of the owner as of one moment, the latest end first. Entries of ended sessions are
    /// included.
    async fn entries(&self, owner: &OwnerKey, most: usize) -> Result<Vec<StoreKey>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        let last = i64::try_from(most).map_or(-1, |most| most - 1);
        command.arg(self.index_key(owner)).arg(0).arg(last).arg("REV");
        let members: Vec<Vec<u8>> = self.call(&command).await?;
        let keys = members.into_iter().flat_map(<[u8; 32]>::try_from);
        Ok(keys.map(StoreKey::from_bytes).collect())
    }

    /// Removes entries whose row was destroyed. An entry whose row is missing or has another owner stays, because its
    /// row may be about to be written.
    ///
    /// A create whose answer was lost may write its row once more, and its entry, before the entry is removed here. So
    /// the rows are read again, and what is there gets its entry back.
    async fn forget(&self, owner: &OwnerKey, over: &[StoreKey]) -> Result<(), StoreError> {
        if over.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZREM");
        command.arg(self.index_key(owner));
        for key in over {
            command.arg(key.as_bytes());
        }
        let () = self.call(&command).await?;
        let mut found = pin!(self.found(over, owner));
        while let Some((key, found)) = found.try_next().await? {
            if let Found::Session(Some(end)) = found {
                self.index(owner, &key, end).await?;
            }
        }
        Ok(())
    }

    /// Reads the rows of entries, and returns in their order what each row is to the owner.
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
        let head: Vec<u8> = match self.call(&command).await {
            // It is not a string, so it is not a row.
            Err(StoreError::Corrupt) => return Ok(Found::Nothing),
            head => head?,
        };
        let is_absent = head.is_empty();
        Ok(match row::decode(head) {
            // No row reads as an empty string.
            Err(_) if is_absent => Found::Nothing,
            Ok(head) if head.is_tombstone() => Found::Tombstone,
            Ok(head) if head.owner() == Some(*owner) => Found::Session(Some(head.absolute_end())),
            Ok(_) => Found::Nothing,
            Err(_) => Found::Session(None),
        })
    }

    fn index_key(&self, owner: &OwnerKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"owner:", owner.as_bytes()].concat()
    }
}
