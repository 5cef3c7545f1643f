//! What errors say, and what they do not show.

use std::error::Error;

use axum_typed_session::{
    SessionStore as _, StoreError, StoreKey,
    store::{SqlStore, Write},
    testing::RecordBuilder,
};
use sqlx::{Database as _, MySql};

use crate::engines::{Database, Engine, Remote, on_every_engine, on_every_server, options};

on_every_engine! {
    a_refused_value_is_not_shown
}

mod servers {
    use super::*;

    on_every_server! { Database;
        a_refusal_is_told_in_the_words_of_the_database
    }
}

const KEY: StoreKey = StoreKey::from_bytes([7; 32]);

const SECRET: &str = "what ann bought";

/// Every text that an operator could come to see.
fn texts(error: &StoreError) -> String {
    let mut texts = format!("{error:?}");
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        texts = format!("{texts}\n{error}\n{error:?}");
        next = error.source();
    }
    texts
}

async fn a_refusal_is_told_in_the_words_of_the_database<E: Remote>(database: Database<E>) {
    database.execute("CREATE USER {t}_stranger").await;
    let user = format!("{}_stranger", database.table);
    if E::NAME == MySql::NAME {
        // Somebody who may not use a database may not name it either.
        database.execute("GRANT INSERT ON {t} TO {t}_stranger").await;
    }
    let pool = E::connect_as(&user, E::port(&database.pool), options()).await;
    let store = SqlStore::new(pool).table_name(&database.table).unwrap();
    let error = store.load(&KEY).await.unwrap_err();
    let text = texts(&error);
    assert!(text.contains("the database answered: "), "{text}");
    assert!(text.contains("denied") && text.contains("(code 42"), "{text}");
    assert!(!text.contains("at line"), "{text}");
    // The file and the routine of the server.
    assert!(!text.contains("aclchk"), "{text}");
}

async fn a_refused_value_is_not_shown<E: Engine>(database: Database<E>) {
    database.execute("DROP TABLE {t}").await;
    let mut schema = database.store.schema_sql().to_owned();
    for column in ["data BYTEA NOT NULL", "data BLOB NOT NULL", "data LONGBLOB NOT NULL"] {
        schema = schema.replace(column, &format!("{column} CHECK (length(data) < 3)"));
    }
    E::run_sql(&database.pool, &schema).await.unwrap();
    let record = RecordBuilder::new().payload(SECRET).build();
    let error = database.store.save(&KEY, &record, Write::Create).await.unwrap_err();
    expect_a_refused_value(&error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_column_of_mysql_shows_no_bytes() {
    let strict = "SET SESSION sql_mode = 'STRICT_ALL_TABLES'";
    let Some(database) = Database::<MySql>::prepared(strict).await else {
        return;
    };
    database.execute("ALTER TABLE {t} MODIFY data TEXT CHARACTER SET utf8mb4 NOT NULL").await;
    let payload = [b"\xff\xfe".as_slice(), SECRET.as_bytes()].concat();
    let record = RecordBuilder::new().payload(payload).build();
    let error = database.store.save(&KEY, &record, Write::Create).await.unwrap_err();
    expect_a_refused_value(&error);
}

#[track_caller]
fn expect_a_refused_value(error: &StoreError) {
    let text = texts(error);
    assert!(text.contains("refuses a value") && text.contains("`schema_sql()`"), "{text}");
    let hex: Vec<_> = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let hex = hex.concat();
    for shown in [SECRET, &hex, &hex.to_uppercase(), "\\x", "xFF"] {
        assert!(!text.contains(shown), "{text}");
    }
}
