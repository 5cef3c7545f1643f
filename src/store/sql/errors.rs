//! The errors of the SQL stores. Their texts show neither a value of a row nor a password.

use sqlx::error::DatabaseError;

use super::engine::{Reason, SqlEngine};
use crate::error::{BoxError, StoreError};

/// Turns an error of the driver into one of the store, for the table of this name.
pub(super) fn unavailable<E: SqlEngine>(table: &str, error: sqlx::Error) -> StoreError {
    StoreError::unavailable(readable::<E>(table, error))
}

/// Replaces errors of the driver that say too much or too little.
///
/// The driver's error for an answer of the database is not kept as a source. Its texts show values of a row, and a line
/// of the database's own source code.
pub(super) fn readable<E: SqlEngine>(table: &str, error: sqlx::Error) -> BoxError {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return NoConnection.into();
    }
    let sqlx::Error::Database(error) = error else {
        return error.into();
    };
    let source = Answer::new(&*error);
    match (E::DIALECT.reason)(&*error) {
        Reason::MissingTable => MissingTable { table: table.to_owned(), source }.into(),
        Reason::Value => RefusedValue { table: table.to_owned(), code: source.code }.into(),
        Reason::Statement => LostStatement { source }.into(),
        Reason::File => ClosedFile { source }.into(),
        Reason::Transient | Reason::ReadOnly | Reason::Other => source.into(),
    }
}

/// An error that the database answered.
#[derive(Debug, thiserror::Error)]
#[error("the database answered: {message} (code {code})")]
struct Answer {
    message: String,
    code: String,
}

impl Answer {
    fn new(error: &dyn DatabaseError) -> Self {
        let code = error.code().unwrap_or("unknown".into());
        Self { message: error.message().to_owned(), code: code.into_owned() }
    }
}

/// The error for which `migrate` is the way out.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} does not exist; call `migrate()` at the start or `migrate_lazy()` on the store, or run the SQL \
     of `schema_sql()`"
)]
struct MissingTable {
    table: String,
    source: Answer,
}

/// Has no source, since the text of the database may show the value.
#[derive(Debug, thiserror::Error)]
#[error(
    "a column or a constraint of the table {table} refuses a value (code {code}); make the table with `migrate()` or \
     with the SQL of `schema_sql()`"
)]
struct RefusedValue {
    table: String,
    code: String,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the connection to the server is another than the one on which a statement was prepared, as behind PgBouncer in \
     transaction mode; call `without_prepared_statements()` on the store"
)]
struct LostStatement {
    source: Answer,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the file cannot be opened; its folder must exist, and this program needs the right to write there"
)]
struct ClosedFile {
    source: Answer,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the pool had no connection in time; the database is down or cannot be reached, or all connections \
     (`max_connections`) are in use"
)]
struct NoConnection;

/// The case that `IF NOT EXISTS` accepts silently.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table {table} lacks its index on `expires_at` or on `owner`; make the table with `schema_sql()`, and \
     give no other table or index the name of that index"
)]
pub(super) struct MissingIndex {
    pub(super) table: String,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the pool would lose the database, which is in memory and ends with its connection; use \
     `SqliteStore::connect(\"sqlite::memory:\")`, or set `max_connections(1)`, `test_before_acquire(false)`, \
     `idle_timeout(None)` and `max_lifetime(None)` on the pool"
)]
pub(super) struct Forgetful;

#[derive(Debug, thiserror::Error)]
#[error("other writers created and removed the row again and again while it was written")]
pub(super) struct Unsettled;

#[derive(Debug, thiserror::Error)]
#[error(
    "the owner still has sessions after 64 rounds of ending them, because new sessions keep beginning"
)]
pub(super) struct StillComing;
