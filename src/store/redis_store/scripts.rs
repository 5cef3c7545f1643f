//! The scripts that the server runs in one step. Each uses one key, so that a cluster can run them.
//!
//! A command that may be refused is a `pcall`, and its error goes through `failure`, so that the code of the error
//! comes back from every version of the server.

use redis::{Cmd, RedisError, Script, ServerErrorKind, Value};

use super::connection::Connection;

/// Returns the error that an answer is; nil if it is none. Redis 6.2 puts the place in the script before some errors,
/// as in `@user_script: 4: -READONLY ..`.
const FAILURE: &str = "\
local function failure(answer)
  if type(answer) ~= 'table' or not answer.err then return nil end
  answer.err = answer.err:gsub('^@user_script: %d+: %-', '')
  return answer
end
";

/// Replaces a row if it has the version expected.
///
/// `KEYS[1]` is the row; `ARGV` the version expected, the new value, and its life in milliseconds. Answers [`SAVED`],
/// the row in the way, or nil if there is none.
const UPDATE: &str = "\
local version = redis.pcall('GETRANGE', KEYS[1], 0, 15)
if version == ARGV[1] then
  local done
  if ARGV[3] == '0' then
    done = redis.pcall('DEL', KEYS[1])
  else
    done = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  return failure(done) or 1
end
if version == ARGV[2]:sub(1, 16) then return 1 end
return failure(version) or redis.call('GET', KEYS[1])";

/// Moves a row's expiry later if it has the version expected.
///
/// `KEYS[1]` is the row; `ARGV` the version, the expiry as the row holds it, and the life that remains in
/// milliseconds. Answers [`SAVED`], the row in the way, or nil if there is none.
const TOUCH: &str = "\
local head = redis.pcall('GETRANGE', KEYS[1], 0, 23)
if type(head) == 'table' then return failure(head) end
if #head < 24 or head:sub(1, 16) ~= ARGV[1] then return redis.call('GET', KEYS[1]) end
if struct.unpack('>I8', head:sub(17)) < struct.unpack('>I8', ARGV[2]) then
  local failed = failure(redis.pcall('SETRANGE', KEYS[1], 16, ARGV[2]))
  if failed then return failed end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1";

/// Removes a row if it has the version expected.
///
/// `KEYS[1]` is the row, `ARGV[1]` the version. Answers [`SAVED`], the row in the way, or nil if there is
/// none.
const DESTROY: &str = "\
local version = redis.pcall('GETRANGE', KEYS[1], 0, 15)
if version == ARGV[1] then return failure(redis.pcall('DEL', KEYS[1])) or 1 end
return failure(version) or redis.call('GET', KEYS[1])";

/// Adds a session to the index of its owner and removes the entries whose time is over.
///
/// `KEYS[1]` is the index; `ARGV` the session's key, its absolute end, the end of the entries to drop, and
/// how long the index must live at least. Neither an entry's end nor the index's is ever moved earlier.
const INDEX: &str = "\
local failed = failure(redis.pcall('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1]))
if failed then return failed end
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

/// The scripts with their names on the server.
pub(super) struct Scripts {
    pub(super) update: SourceAndName,
    pub(super) touch: SourceAndName,
    pub(super) destroy: SourceAndName,
    pub(super) index: SourceAndName,
}

pub(super) struct SourceAndName {
    source: String,
    name: String,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            update: SourceAndName::new(UPDATE),
            touch: SourceAndName::new(TOUCH),
            destroy: SourceAndName::new(DESTROY),
            index: SourceAndName::new(INDEX),
        }
    }
}

impl SourceAndName {
    fn new(script: &str) -> Self {
        let source = [FAILURE, script].concat();
        let name = Script::new(&source).get_hash().to_owned();
        Self { source, name }
    }

    /// Runs the script by its name if the server knows it. `lost` is the error of an earlier try by another command.
    ///
    /// If the server does not know it (because it is new, restarted, promoted or flushed), it gets the source and
    /// remembers it. `SCRIPT LOAD` would have to reach every node of a cluster, also nodes that are down.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        key: &[u8],
        arguments: &[&[u8]],
        mut lost: Option<RedisError>,
    ) -> Result<Reply, RedisError> {
        let by_name = command("EVALSHA", &self.name, key, arguments);
        let answer = match connection.call(&by_name, &mut lost).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let by_source = command("EVAL", &self.source, key, arguments);
                Box::pin(connection.call(&by_source, &mut lost)).await
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
