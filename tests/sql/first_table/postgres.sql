CREATE TABLE IF NOT EXISTS "typed_sessions" (
    session_key BYTEA PRIMARY KEY,
    version BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    owner BYTEA,
    data BYTEA NOT NULL
);
CREATE INDEX IF NOT EXISTS "typed_sessions_expires_at" ON "typed_sessions" (expires_at);
CREATE INDEX IF NOT EXISTS "typed_sessions_owner" ON "typed_sessions" (owner) WHERE owner IS NOT NULL;
