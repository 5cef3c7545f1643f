//! Pages of all rows, by `SCAN` on one primary after the other.

use bytes::{BufMut as _, Bytes};

use super::{
    RedisStore,
    line::{Address, Primaries},
    store_error, unexpected_reply,
};
use crate::{
    error::StoreError,
    id::StoreKey,
    store::{Cursor, KeyPage, take},
};

/// How many keys a server looks at for one page at most. Meanwhile it carries out no other command.
const MOST: u32 = 1_000;

/// The place at which a page begins.
struct Place {
    /// The cursor that `SCAN` returned. It is valid on one server only.
    cursor: u64,
    /// The number of the primary in [`Primaries`].
    primary: u16,
}

impl RedisStore {
    pub(super) async fn page(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<KeyPage, StoreError> {
        let primaries = self.connection.primaries().await.map_err(store_error)?;
        let place = match after {
            None => Place { cursor: 0, primary: 0 },
            Some(after) => Place::read(after, &primaries)?,
        };
        let node = primaries.addresses.get(usize::from(place.primary)).ok_or_else(foreign)?;
        let (cursor, keys) = self.scan(node.as_ref(), place.cursor, limit).await?;
        let primary = place.primary + u16::from(cursor == 0);
        let is_last = usize::from(primary) == primaries.addresses.len();
        let next = (!is_last).then(|| Place { cursor, primary }.write(&primaries));
        Ok(KeyPage { keys, next })
    }

    async fn scan(
        &self,
        node: Option<&Address>,
        cursor: u64,
        limit: u32,
    ) -> Result<(u64, Vec<StoreKey>), StoreError> {
        let start = self.row_key_of(&[]);
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern(&start));
        scan.arg("COUNT").arg(limit.clamp(1, MOST));
        let page = self.connection.call_at(&scan, node, &mut None).await.map_err(store_error)?;
        let page = redis::from_redis_value::<(u64, Vec<Vec<u8>>)>(page);
        let (cursor, keys) = page.map_err(|_| unexpected_reply())?;
        let keys =
            keys.iter().filter_map(|key| <[u8; 32]>::try_from(key.strip_prefix(&*start)?).ok());
        Ok((cursor, keys.map(StoreKey::from_bytes).collect()))
    }
}

impl Place {
    fn write(&self, primaries: &Primaries) -> Cursor {
        let mut bytes = Vec::with_capacity(18);
        bytes.put_u64(self.cursor);
        bytes.put_u16(self.primary);
        bytes.put_u64(primaries.fingerprint);
        Cursor::new(bytes)
    }

    fn read(cursor: &Cursor, primaries: &Primaries) -> Result<Self, StoreError> {
        let mut rest = Bytes::copy_from_slice(cursor.as_bytes());
        let cursor = take(&mut rest).map(u64::from_be_bytes).ok_or_else(foreign)?;
        let primary = take(&mut rest).map(u16::from_be_bytes).ok_or_else(foreign)?;
        if *rest == primaries.fingerprint.to_be_bytes() {
            return Ok(Self { cursor, primary });
        }
        Err(if rest.len() == 8 { moved() } else { foreign() })
    }
}

/// Returns the pattern of all keys with this start.
fn pattern(start: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(start.len() + 1);
    for &byte in start {
        if b"*?[]^\\".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

fn foreign() -> StoreError {
    StoreError::unavailable(
        "this cursor does not come from a list of this store; begin with the first page",
    )
}

fn moved() -> StoreError {
    StoreError::unavailable(
        "the slots of the Redis cluster have moved since the first page of this list; begin with the first page",
    )
}
