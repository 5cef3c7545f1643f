//! The scripts that the server runs in one step. Each uses one key, so that a cluster can run them.

use redis::{Cmd, RedisError, Script, ServerErrorKind, Value};

use super::connection::Connection;

/// Writes a row if the present row is as the write expects.
///
/// `KEYS[1]` is the row; `ARGV` the new value, its life in milliseconds, the version to replace (empty:
/// there must be no row), and how many bytes of the record must stay as they are (see
/// [`head_len`](super::row::head_len)). Answers [`SAVED`], [`DECLINED`], the row in the way, or nil if
/// there is none to update.
///
/// `pcall`, so that an error comes back with its own code from every version of the server.
const SAVE: &str = "\
local row = redis.pcall('GET', KEYS[1])
if type(row) == 'table' then return row end
local value, ttl, expected, head = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if row then
  local version = row:sub(1, 16)
  if version == value:sub(1, 16) then return 1 end
  if expected == '' or version ~= expected then return row end
  if row:sub(25, 24 + head) ~= value:sub(25, 24 + head) then return 2 end
elseif expected ~= '' then
  return nil
end
local done
if ttl == '0' then
  done = redis.pcall('DEL', KEYS[1])
else
  done = redis.pcall('SET', KEYS[1], value, 'PX', ttl)
end
if type(done) == 'table' and done.err then return done end
return 1";

/// Moves a row's expiry later if it has the version expected.
///
/// `KEYS[1]` is the row; `ARGV` the version, the expiry as the row holds it, and the life that remains in
/// milliseconds. Answers [`SAVED`], the row in the way, or nil if there is none.
const TOUCH: &str = "\
local row = redis.pcall('GET', KEYS[1])
if type(row) == 'table' or not row then return row end
if row:sub(1, 16) ~= ARGV[1] then return row end
if struct.unpack('>I8', row:sub(17, 24)) < struct.unpack('>I8', ARGV[2]) then
  local done = redis.pcall('SETRANGE', KEYS[1], 16, ARGV[2])
  if type(done) == 'table' then return done end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1";

/// Removes a row if it has the version expected.
///
/// `KEYS[1]` is the row, `ARGV[1]` the version. Answers [`SAVED`], the row in the way, or nil if there is
/// none.
const DESTROY: &str = "\
local row = redis.pcall('GET', KEYS[1])
if type(row) == 'table' or not row then return row end
if row:sub(1, 16) ~= ARGV[1] then return row end
redis.call('DEL', KEYS[1])
return 1";

/// Adds a session to the index of its owner and removes the entries whose time is over.
///
/// `KEYS[1]` is the index; `ARGV` the session's key, its absolute end, the end of the entries to drop, and
/// how long the index must live at least. Neither an entry's end nor the index's is ever moved earlier.
const INDEX: &str = "\
local done = redis.pcall('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
if type(done) == 'table' then return done end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1";

/// The answer of a script.
pub(super) struct Reply {
    pub(super) value: Value,
    /// The error of an earlier try that may have been carried out: its answer was lost with its connection.
    pub(super) lost: Option<RedisError>,
}

/// The row is written or removed.
pub(super) const SAVED: i64 = 1;

/// Nothing was written: the row's head is not the record's.
pub(super) const DECLINED: i64 = 2;

/// The scripts with their names on the server.
pub(super) struct Scripts {
    pub(super) save: SourceAndName,
    pub(super) touch: SourceAndName,
    pub(super) destroy: SourceAndName,
    pub(super) index: SourceAndName,
}

pub(super) struct SourceAndName {
    source: &'static str,
    name: String,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            save: SourceAndName::new(SAVE),
            touch: SourceAndName::new(TOUCH),
            destroy: SourceAndName::new(DESTROY),
            index: SourceAndName::new(INDEX),
        }
    }
}

impl SourceAndName {
    fn new(source: &'static str) -> Self {
        let name = Script::new(source).get_hash().to_owned();
        Self { source, name }
    }

    /// Runs the script by its name if the server knows it.
    ///
    /// If the server does not know it (because it is new, restarted, promoted or flushed), it gets the source and
    /// remembers it. `SCRIPT LOAD` would have to reach every node of a cluster, also nodes that are down.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        key: &[u8],
        arguments: &[&[u8]],
    ) -> Result<Reply, RedisError> {
        let mut lost = None;
        let by_name = command("EVALSHA", &self.name, key, arguments);
        let answer = match connection.call(&by_name, &mut lost).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let by_source = command("EVAL", self.source, key, arguments);
                connection.call(&by_source, &mut lost).await
            }
            answer => answer,
        };
        answer.map(|value| Reply { value, lost })
    }
}

fn command(verb: &str, script: &str, key: &[u8], arguments: &[&[u8]]) -> Cmd {
    let size = arguments.iter().map(|argument| argument.len()).sum::<usize>();
    let size = size + verb.len() + script.len() + key.len() + 1;
    let mut command = Cmd::with_capacity(4 + arguments.len(), size);
    command.arg(verb).arg(script).arg(1).arg(key).arg(arguments);
    command
}
