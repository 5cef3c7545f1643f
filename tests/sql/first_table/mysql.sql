CREATE TABLE IF NOT EXISTS `typed_sessions` (
    session_key BINARY(32) NOT NULL PRIMARY KEY,
    version BINARY(16) NOT NULL,
    expires_at BIGINT NOT NULL,
    owner BINARY(32),
    data LONGBLOB NOT NULL,
    INDEX expires_at (expires_at),
    INDEX owner (owner)
) ENGINE = InnoDB;
