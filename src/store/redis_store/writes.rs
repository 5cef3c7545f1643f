//! The writes of a row. Each replies as the scripts do.

use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, RedisError, Value};

use super::{
    RedisStore, row,
    scripts::{Reply, SAVED},
};
use crate::store::Record;

/// The commands that the server is known to lack.
///
/// Valkey 8.1 and Redis 8.4 compare and replace a value in one plain command, `SET .. IFEQ`. A server that does not
/// know it refuses the first update, and the store uses its script from then on.
#[derive(Default)]
pub(super) struct Abilities {
    lacks_ifeq: AtomicBool,
}

impl RedisStore {
    /// Writes a row where none is. A row that is over already is not written.
    pub(super) async fn create(&self, key: &[u8], record: &Record) -> Result<Reply, RedisError> {
        let (row, ttl) = (row::encode(record), self.ttl(record.expires_at()));
        let mut lost = None;
        loop {
            if ttl > 0 {
                let set = set_if(key, &row, ttl, &[b"NX"]);
                if self.connection.call(&set, &mut lost).await? != Value::Nil {
                    return Ok(Reply { value: Value::Int(SAVED), lost });
                }
            }
            let mut get = redis::cmd("GET");
            get.arg(key);
            let found = Box::pin(self.connection.call(&get, &mut None)).await?;
            if found == Value::Nil && ttl > 0 {
                // The row in the way ended meanwhile.
                continue;
            }
            let is_own =
                matches!(&found, Value::BulkString(found) if row::have_same_version(found, &row));
            let value = if is_own || found == Value::Nil { Value::Int(SAVED) } else { found };
            return Ok(Reply { value, lost });
        }
    }

    /// Replaces the row that was loaded.
    pub(super) async fn update(
        &self,
        key: &[u8],
        record: &Record,
        loaded: &Record,
    ) -> Result<Reply, RedisError> {
        let (row, ttl) = (row::encode(record), self.ttl(record.expires_at()));
        let mut lost = None;
        if ttl > 0 && !self.abilities.lacks_ifeq.load(Ordering::Relaxed) {
            let set = set_if(key, &row, ttl, &[b"IFEQ", &row::encode(loaded)]);
            match self.connection.call(&set, &mut lost).await {
                // The row has another version or only another expiry, or there is none: the script tells.
                Ok(Value::Nil) => {}
                Ok(_) => return Ok(Reply { value: Value::Int(SAVED), lost }),
                // A syntax error, so the command was not carried out.
                Err(error) if error.code() == Some("ERR") => {
                    self.abilities.lacks_ifeq.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        let (expected, ttl) = (loaded.version(), ttl.to_string());
        let arguments = [&expected.as_bytes()[..], &row, ttl.as_bytes()];
        self.scripts.update.run(&self.connection, key, &arguments, lost).await
    }
}

/// `SET` with a condition.
fn set_if(key: &[u8], row: &[u8], ttl: u64, condition: &[&[u8]]) -> Cmd {
    let size = condition.iter().map(|argument| argument.len()).sum::<usize>();
    let mut set = Cmd::with_capacity(5 + condition.len(), key.len() + row.len() + size + 32);
    set.arg("SET").arg(key).arg(row).arg(condition).arg("PX").arg(ttl);
    set
}
