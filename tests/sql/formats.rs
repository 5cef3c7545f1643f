//! Rows of every format so far, in tables as earlier versions made them.

use axum_typed_session::store::SqlStore;

use crate::{
    common::formats::{all_rows, goes_on, then},
    engines::{Database, Engine, on_every_engine},
};

on_every_engine! {
    rows_of_every_format_go_on_in_the_first_table
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

async fn rows_of_every_format_go_on_in_the_first_table<E: Engine>(database: Database<E>) {
    let table = format!("first_{}", database.table);
    database.execute(&E::FIRST_TABLE.replace("typed_sessions", &table)).await;
    let store = SqlStore::new(database.pool.clone()).table_name(&table).unwrap();
    store.migrate().await.unwrap();
    let store = store.clock(then());
    for row in all_rows() {
        let owner = row.record().owner().filter(|_| !row.record().is_tombstone());
        let owner = owner.map_or("NULL".to_owned(), |owner| E::blob(&hex(owner.as_bytes())));
        let [key, version] = [&row.key.as_bytes()[..], row.version().as_bytes()].map(hex);
        let (key, version, data) = (E::blob(&key), E::blob(&version), E::blob(&hex(row.data())));
        let expires_at = row.expires_at().as_unix_millis();
        let sql = format!(
            "INSERT INTO {table} (session_key, version, expires_at, owner, data)
             VALUES ({key}, {version}, {expires_at}, {owner}, {data})"
        );
        database.execute(&sql).await;
        goes_on(&store, &row).await;
    }
}
