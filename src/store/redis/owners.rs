//! The index of an owner's sessions: a sorted set of their keys, each with its session's absolute end.

use std::time::Duration;

use super::{RedisStore, row};
use crate::{
    clock::Timestamp,
    error::StoreError,
    id::{OwnerKey, StoreKey},
};

/// How far the clocks of an application's nodes may be apart before an owner's index loses an entry early.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

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

    /// Says whether the row under `key` is a live session of the owner.
    pub(super) async fn belongs_to(
        &self,
        key: &StoreKey,
        owner: &OwnerKey,
    ) -> Result<bool, StoreError> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(self.row_key(key)).arg(0).arg(row::LAST_OF_HEAD);
        match self.call(&command).await.and_then(row::decode) {
            Ok(head) => Ok(head.owner() == Some(*owner) && !head.is_tombstone()),
            // No row, which reads as an empty string, or nobody's session.
            Err(StoreError::Corrupt) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn index_key(&self, owner: &OwnerKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"owner:", owner.as_bytes()].concat()
    }
}
