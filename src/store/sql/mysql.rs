use sqlx::{error::DatabaseError, mysql::MySqlDatabaseError};

use super::{
    SqlStore,
    engine::{Connect, ConnectOptions, Dialect, Reason, engine},
};

/// Keeps sessions in a table of MySQL 5.7 or later, or of MariaDB 10.3 or later.
///
/// [`SqlStore`] documents the methods and the rules for all engines. The tests of this crate run on MariaDB 10.11.
/// The default login of MySQL 8 needs TLS, or the feature `mysql-rsa` of your own `sqlx` dependency.
///
/// # Example
///
/// ```no_run
/// use axum_typed_session::{MySqlStore, store::Cleanup};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MySqlStore::connect("mysql://app@localhost/app").await?;
/// let store = store.table_name("app.sessions")?;
/// store.migrate().await?;
/// let cleanup = Cleanup::new(store.clone()).spawn();
/// # Ok(())
/// # }
/// ```
///
/// # Size and upkeep
///
/// A session of 243 bytes with an owner takes 964 bytes with its indices, measured with 100,000 sessions in MariaDB
/// 10.11. The keys are random, so the pages of the table are only half full. A [`Cleanup`](crate::store::Cleanup)
/// must delete expired sessions.
///
/// - `max_allowed_packet` must be larger than [`max_payload`](crate::SessionManagerBuilder::max_payload).
/// - `innodb_lock_wait_timeout` is 50 seconds by default. Set it below
///   [`store_timeout`](crate::SessionManagerBuilder::store_timeout), so that a row which another transaction locks
///   gives an error of its own instead of a time-out.
/// - `sql_mode`, the character set, the collation and the time zone do not matter.
///
/// # The table
///
/// ```sql
#[doc = include_str!("mysql.sql")]
/// ```
#[doc(alias("mariadb", "mysql", "database"))]
pub type MySqlStore = SqlStore<sqlx::MySql>;

engine!(
    sqlx::MySql,
    Dialect {
        schema: include_str!("mysql.sql"),
        count_indices: "SELECT COUNT(DISTINCT column_name) AS found \
             FROM information_schema.statistics \
             WHERE table_schema = COALESCE(NULLIF('{schema}', ''), DATABASE()) AND table_name = '{name}' \
             AND seq_in_index = 1 AND column_name IN ('expires_at', 'owner')",
        // One statement, which the engine makes atomic.
        before_schema: "",
        in_memory: None,
        quote: '`',
        has_schemas: true,
        numbers_values: false,
        // `UNIX_TIMESTAMP(NOW(3))` would err for an hour when the clocks of its time zone go back.
        now: "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000",
        later: "GREATEST",
        // `ON DUPLICATE KEY UPDATE` counts a new row and a row left alone alike, so it cannot tell.
        create: &[
            "INSERT INTO {table} (version, expires_at, owner, data, session_key) \
             VALUES (?, ?, ?, ?, ?)",
            "UPDATE {table} SET version = ?, expires_at = ?, owner = ?, data = ? \
             WHERE session_key = ? AND expires_at <= {now}",
        ],
        delete_expired: "DELETE FROM {table} WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?",
        returns_deleted: false,
        destroy_by_owner: "DELETE FROM {table} \
             WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT ?",
        reason: |error| match number(error) {
            // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, and MariaDB's ER_CHECKREAD
            Some(1205 | 1213 | 1020) => Reason::Transient,
            // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE
            Some(1290 | 1792 | 1836) => Reason::ReadOnly,
            Some(1146) => Reason::MissingTable,
            // ER_TRUNCATED_WRONG_VALUE_FOR_FIELD, which MySQL puts into no class of values.
            Some(1366) => Reason::Value,
            _ => Reason::of_class(error),
        },
        is_remote: true,
    }
);

impl Connect for sqlx::MySql {
    const SCHEMES: &[&str] = &["mysql", "mariadb"];
    const URL: &str = "mysql://[user[:password]@]host[:port]/database";

    fn address(options: &ConnectOptions<Self>) -> String {
        match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }
}

fn number(error: &dyn DatabaseError) -> Option<u16> {
    let error = error.try_downcast_ref::<MySqlDatabaseError>();
    error.map(MySqlDatabaseError::number)
}
