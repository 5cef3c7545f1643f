//! The SQL text of one store.

use std::sync::Arc;

use base64_simd::STANDARD;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::engine::{Query, SqlEngine, Value};
use crate::error::ConfigError;

/// The name in the schema files.
const DEFAULT_TABLE: &str = "typed_sessions";

/// PostgreSQL cuts names after 63 bytes, and the names of its indices are the name of the table and 11 bytes.
const LONGEST_NAME: usize = 48;

/// A checked table name. It cannot end the quotes around it.
pub(super) struct TableName<'a> {
    schema: Option<&'a str>,
    name: &'a str,
}

impl Default for TableName<'_> {
    fn default() -> Self {
        Self { schema: None, name: DEFAULT_TABLE }
    }
}

impl<'a> TableName<'a> {
    pub(super) fn parse<E: SqlEngine>(text: &'a str) -> Result<Self, ConfigError> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let problem = if schema.is_some() && !E::DIALECT.has_schemas {
            "the name has a schema, but this engine has no schemas"
        } else if !is_identifier(name) || !schema.is_none_or(is_identifier) {
            "each part must have only ASCII letters, digits and `_`, not begin with a digit, and have at most 48 characters"
        } else {
            return Ok(Self { schema, name });
        };
        Err(ConfigError::new(format!("`.table_name(..)`: {problem}")))
    }

    fn quoted(&self, quote: char) -> String {
        let parts = self.schema.into_iter().chain([self.name]);
        let parts: Vec<_> = parts.map(|part| format!("{quote}{part}{quote}")).collect();
        parts.join(".")
    }
}

fn is_identifier(name: &str) -> bool {
    let rest = name.trim_start_matches(|c: char| c == '_' || c.is_ascii_alphabetic());
    name.len() <= LONGEST_NAME
        && name.len() > rest.len()
        && rest.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// A statement that takes values.
pub(super) struct Statement {
    sql: SqlStr,
    /// The text before, between and after the values.
    pieces: Vec<String>,
}

impl Statement {
    fn new<E: SqlEngine>(table: &str, template: &str) -> Self {
        // The clock is the database's unless a value says otherwise.
        let now = format!("COALESCE(?, {})", E::DIALECT.now);
        let text = template.replace("{table}", table).replace("{now}", &now);
        let pieces: Vec<_> = text.split('?').map(str::to_owned).collect();
        let sql = joined(&pieces, |number| {
            if E::DIALECT.numbers_values { format!("${number}") } else { "?".to_owned() }
        });
        Self { sql: safe(sql), pieces }
    }

    /// Adds the values that the statement takes: the first so many.
    pub(super) fn with<'a>(&self, values: &'a [Value<'a>]) -> Query<'a> {
        let values = values.get(..self.pieces.len() - 1).unwrap_or(values);
        Query { sql: self.sql.clone(), values: Some(values) }
    }

    /// Writes the values into the text, so that nothing has to be prepared. Only PostgreSQL understands it.
    pub(super) fn script_with(&self, values: &[Value<'_>]) -> Query<'static> {
        let value = |number: usize| values.get(number - 1).map_or_else(String::new, literal);
        // The driver reads no other form. The setting ends with the implicit transaction of the script.
        let sql = format!("SET LOCAL bytea_output = 'hex'; {}", joined(&self.pieces, value));
        Query { sql: safe(sql), values: None }
    }
}

/// Puts a text for each value between the pieces. Values count from 1.
fn joined(pieces: &[String], value: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            text += &value(number);
        }
        text += piece;
    }
    text
}

/// Has neither a quote nor a backslash inside of the quotes, so no setting of the server changes its meaning.
fn literal(value: &Value<'_>) -> String {
    match *value {
        Value::Bytes(Some(bytes)) => {
            format!("decode('{}', 'base64')", STANDARD.encode_to_string(bytes))
        }
        Value::Integer(Some(integer)) => format!("CAST('{integer}' AS BIGINT)"),
        Value::Bytes(None) => "CAST(NULL AS BYTEA)".to_owned(),
        Value::Integer(None) => "CAST(NULL AS BIGINT)".to_owned(),
    }
}

/// The text holds only SQL of this crate, a [`TableName`] and texts of [`literal`].
fn safe(sql: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}

pub(super) struct Statements {
    /// The table's name, quoted.
    pub(super) table: String,
    pub(super) schema: String,
    pub(super) count_indices: Statement,
    pub(super) in_memory: Option<Statement>,
    pub(super) migration: SqlStr,
    pub(super) load: Statement,
    /// Tried in order until one takes effect.
    pub(super) create: Vec<Statement>,
    pub(super) update: Vec<Statement>,
    pub(super) touch: Vec<Statement>,
    pub(super) destroy: Statement,
    pub(super) destroy_at: Vec<Statement>,
    pub(super) delete_expired: Statement,
    /// Deletes the expired rows that it returns, or only finds them if there is a `delete_found`.
    pub(super) take_expired: Statement,
    /// Deletes one expired row, unless another node has deleted or replaced it.
    pub(super) delete_found: Option<Statement>,
    pub(super) list: Statement,
    pub(super) find_by_owner: Statement,
    pub(super) destroy_by_owner: Statement,
    pub(super) is_owner_left: Statement,
}

impl Statements {
    pub(super) fn new<E: SqlEngine>(name: &TableName<'_>) -> Self {
        let dialect = E::DIALECT;
        let table = name.quoted(dialect.quote);
        let statement = |template: &str| Statement::new::<E>(&table, template);
        let schema = schema::<E>(name);
        let count_indices = dialect.count_indices.replace("{name}", name.name);
        let count_indices = count_indices.replace("{schema}", name.schema.unwrap_or_default());
        let columns = "session_key, version, expires_at, data";
        let (take_expired, delete_found) = if dialect.returns_deleted {
            (format!("{} RETURNING {columns}", dialect.delete_expired), None)
        } else {
            let find = format!(
                "SELECT {columns} FROM {{table}} \
                 WHERE expires_at <= {{now}} ORDER BY expires_at LIMIT ?"
            );
            let delete = "DELETE FROM {table} \
                          WHERE session_key = ? AND version = ? AND expires_at <= {now}";
            (find, Some(delete))
        };
        Self {
            count_indices: statement(&count_indices),
            in_memory: dialect.in_memory.map(statement),
            migration: safe(format!("{}{schema}", dialect.before_schema)),
            load: statement(
                "SELECT version, expires_at, data, {now} AS now_millis FROM {table} \
                 WHERE session_key = ?",
            ),
            create: dialect.create.iter().copied().map(statement).collect(),
            update: vec![statement(
                "UPDATE {table} SET version = ?, expires_at = ?, owner = ?, data = ? \
                 WHERE session_key = ? AND version = ? AND expires_at > {now}",
            )],
            touch: vec![statement(&format!(
                "UPDATE {{table}} SET expires_at = {}(expires_at, ?) \
                 WHERE session_key = ? AND version = ? AND expires_at > {{now}}",
                dialect.later
            ))],
            destroy: statement("DELETE FROM {table} WHERE session_key = ?"),
            destroy_at: vec![statement(
                "DELETE FROM {table} \
                 WHERE session_key = ? AND version = ? AND expires_at > {now}",
            )],
            delete_expired: statement(dialect.delete_expired),
            take_expired: statement(&take_expired),
            delete_found: delete_found.map(statement),
            list: statement(
                "SELECT session_key FROM {table} \
                 WHERE session_key > ? AND expires_at > {now} ORDER BY session_key LIMIT ?",
            ),
            find_by_owner: statement(
                "SELECT session_key FROM {table} WHERE owner = ? AND expires_at > {now}",
            ),
            destroy_by_owner: statement(dialect.destroy_by_owner),
            is_owner_left: statement(
                "SELECT 1 FROM {table} \
                 WHERE owner = ? AND session_key <> ? AND expires_at > {now} LIMIT 1",
            ),
            schema,
            table,
        }
    }
}

/// Puts the table's name into the schema, and into the names of the indices.
fn schema<E: SqlEngine>(name: &TableName<'_>) -> String {
    let quote = E::DIALECT.quote;
    let index = format!("{quote}{DEFAULT_TABLE}_");
    let table = TableName::default().quoted(quote);
    E::DIALECT
        .schema
        .replace(&index, &format!("{quote}{}_", name.name))
        .replace(&table, &name.quoted(quote))
}
