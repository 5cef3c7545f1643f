CREATE TABLE IF NOT EXISTS "typed_sessions" (
    session_key BLOB PRIMARY KEY NOT NULL,
    version BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    owner BLOB,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS "typed_sessions_expires_at" ON "typed_sessions" (expires_at);
CREATE INDEX IF NOT EXISTS "typed_sessions_owner" ON "typed_sessions" (owner) WHERE owner IS NOT NULL;
