//! The index of an owner's sessions: a sorted set of their keys, each with its session's absolute end.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};

use super::{RedisStore, row};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
};

/// How far the clocks of an application's nodes may be apart before an owner's index loses an entry early.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// How many commands run at once for one owner's sessions.
pub(super) const CONCURRENCY: usize = 64;

/// What an entry of an owner's index leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
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
        let arguments = [
            key.as_bytes(),
            end.as_bytes(),
            past.as_bytes(),
            ttl.as_bytes(),
        ];
        let index = self.index_key(owner);
        self.run(&self.scripts.index, &index, &arguments).await?;
        Ok(())
    }

    /// Returns the owner's entries, those of sessions that ended included.
    pub(super) async fn entries(&self, owner: &OwnerKey) -> Result<Vec<StoreKey>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.index_key(owner)).arg(0).arg(-1);
        let members: Vec<Vec<u8>> = self.call(&command).await?;
        let keys = members.into_iter().flat_map(<[u8; 32]>::try_from);
        Ok(keys.map(StoreKey::from_bytes).collect())
    }

    /// Asks for the rows of entries, and says in their order what each is to the owner.
    pub(super) fn found<'a>(
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
