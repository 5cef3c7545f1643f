//! Stores that make a pool of their own.

use std::{
    error::Error as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use axum_typed_session::{
    MySqlStore, PostgresStore, SessionStore as _, SqliteStore, StoreError, StoreKey,
    store::{SaveOutcome, SqlConnectError, SqlEngine, SqlStore, Write},
    testing::RecordBuilder,
};
use sqlx::{
    Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    common::assert_matches,
    engines::{Database, Engine as _, Folder, Remote, create, on_every_server},
    servers,
};

mod servers_of_others {
    use super::*;

    on_every_server! { Database;
        a_url_is_enough
        a_user_that_is_unknown_is_refused_and_no_password_shown
    }
}

async fn a_url_is_enough<E: Remote>(database: Database<E>) {
    let store = SqlStore::<E>::connect(E::url(E::port(&database.pool))).await.unwrap();
    let store = store.table_name(&database.table).unwrap();
    store.migrate().await.unwrap();
    create(&store, StoreKey::from_bytes([1; 32]), &RecordBuilder::new().build()).await;
    assert_eq!(database.rows().await, 1);
}

async fn a_user_that_is_unknown_is_refused_and_no_password_shown<E: Remote>(database: Database<E>) {
    let url = E::url(E::port(&database.pool));
    let (login, stranger) = (format!("//{}@", E::ADMIN), "//nobody-knows:s3cret@");
    let url = url.replacen(&login, stranger, 1);
    let error = SqlStore::<E>::connect(url).await.unwrap_err();
    assert_matches!(error, SqlConnectError::Refused { .. });
    let text = format!("{error} {:?} {error:?}", error.source().map(ToString::to_string));
    assert!(text.contains("nobody-knows") && !text.contains("s3cret"), "{text}");
    assert!(!text.contains("at line"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_made_with_a_write_ahead_log() {
    let folder = Folder(servers::folder("connect"));
    let file = folder.0.join("sessions.db");
    let url = format!("sqlite:{}", file.display());
    let key = StoreKey::from_bytes([1; 32]);
    let record = RecordBuilder::new().build();
    // Whatever the mode of a file that is not there says, it is not made.
    for mode in ["ro", "rw"] {
        let refused = SqliteStore::connect(format!("{url}?mode={mode}")).await;
        assert_matches!(refused, Err(SqlConnectError::Refused { .. }));
        assert!(!file.exists());
    }
    {
        let store = SqliteStore::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        create(&store, key, &record).await;
    }
    let again = SqliteStore::connect(&url).await.unwrap();
    assert_eq!(again.load(&key).await.unwrap(), Some(record));
    // The mode is a property of the file.
    let pool = SqlitePool::connect(&url).await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&pool).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_updates_of_a_file_by_its_url_lose_none() {
    let folder = Folder(servers::folder("connect"));
    let url = format!("sqlite:{}", folder.0.join("sessions.db").display());
    let store = SqliteStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let sessions = axum_typed_session::SessionManager::<u32>::builder().store(store.clone());
    let sessions = sessions.build().unwrap();
    let key = StoreKey::from_bytes([1; 32]);
    create(&store, key, &RecordBuilder::new().payload("1").build()).await;
    let updates = (0..100).map(|_| {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.update(key, |count| *count += 1).await })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.unwrap().unwrap();
    }
    assert_eq!(*sessions.load(key).await.unwrap().unwrap(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_file_is_an_error_of_its_own_within_the_store_timeout() {
    let folder = Folder(servers::folder("connect"));
    let url = format!("sqlite:{}", folder.0.join("sessions.db").display());
    let store = SqliteStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let pool = SqlitePool::connect(&url).await.unwrap();
    let mut lock = pool.acquire().await.unwrap();
    Sqlite::run_on(&mut lock, "BEGIN IMMEDIATE").await.unwrap();
    let started = Instant::now();
    let record = RecordBuilder::new().build();
    let saved = store.save(&StoreKey::from_bytes([1; 32]), &record, Write::Create).await;
    let took = started.elapsed();
    let Err(StoreError::Unavailable(error)) = saved else { panic!("{saved:?}") };
    assert_eq!(error.to_string(), "the database answered: database is locked (code 5)");
    let range = Duration::from_millis(900)..Duration::from_secs(2);
    assert!(range.contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_in_memory_is_one_for_all_operations() {
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://sessions?mode=memory"] {
        let store = SqliteStore::connect(url).await.unwrap();
        store.migrate().await.unwrap();
        let creates = (0..50).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let (key, record) = (StoreKey::from_bytes([number; 32]), RecordBuilder::new());
                let record = record.build();
                let saved = store.save(&key, &record, Write::Create).await;
                assert_eq!(saved.unwrap(), SaveOutcome::Saved);
                assert_eq!(store.load(&key).await.unwrap(), Some(record));
            })
        });
        for create in creates.collect::<Vec<_>>() {
            create.await.unwrap();
        }
        assert_eq!(store.list(None, 100).await.unwrap().keys.len(), 50, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_would_lose_a_database_in_memory_is_refused() {
    let one = || SqlitePoolOptions::new().max_connections(1);
    let lasting = || one().test_before_acquire(false).idle_timeout(None).max_lifetime(None);
    let options = [
        "sqlite::memory:".parse().unwrap(),
        "sqlite://sessions?mode=memory&cache=shared".parse().unwrap(),
        SqliteConnectOptions::new().filename(":memory:"),
        SqliteConnectOptions::new().in_memory(true).filename("named"),
        // A temporary file of one connection.
        SqliteConnectOptions::new().filename(""),
    ];
    for options in options {
        for pool in [
            SqlitePoolOptions::new(),
            one(),
            lasting().max_connections(2),
            lasting().test_before_acquire(true),
            lasting().idle_timeout(Duration::from_secs(600)),
            lasting().max_lifetime(Duration::from_secs(600)),
        ] {
            let store = SqliteStore::new(pool.connect_with(options.clone()).await.unwrap());
            let refused = store.migrate().await;
            let Err(StoreError::Unavailable(error)) = refused else { panic!("{refused:?}") };
            let text = error.to_string();
            assert!(text.contains("`SqliteStore::connect(\"sqlite::memory:\")`"), "{text}");
        }
        let store = SqliteStore::new(lasting().connect_with(options).await.unwrap());
        store.migrate().await.unwrap();
    }
}

async fn refusal<E: SqlEngine>(url: &str) -> SqlConnectError {
    let Err(error) = SqlStore::<E>::connect_lazy(url) else { panic!("{url} was taken") };
    let eager = SqlStore::<E>::connect(url).await.unwrap_err();
    assert_eq!(error.to_string(), eager.to_string());
    error
}

#[tokio::test]
async fn a_wrong_url_is_told_how_to_be_right_and_not_shown() {
    let of_postgres = [
        "",
        "localhost",
        "mysql://s3cret@host/db",
        "postgres://u:s3cret#1@host/db",
        "postgres://u:s3cret/1@host/db",
        "postgres://host/db?sslmode=s3cret",
    ];
    for url in of_postgres {
        expect_teaching(&refusal::<sqlx::Postgres>(url).await, "postgres://[user[:password]@]host");
    }
    for url in ["", "postgres://s3cret@host/db", "mysql://u:s3cret#1@host/db"] {
        expect_teaching(&refusal::<sqlx::MySql>(url).await, "mysql://[user[:password]@]host");
    }
    let of_sqlite = [
        "",
        "sessions.db",
        "postgres://s3cret@host/db",
        "sqlite:a.db?mode=x",
        "sqlite:a.db?key=s3cret",
    ];
    for url in of_sqlite {
        expect_teaching(&refusal::<Sqlite>(url).await, "sqlite:file.db");
    }
}

#[track_caller]
fn expect_teaching(error: &SqlConnectError, form: &str) {
    assert_matches!(error, SqlConnectError::Url { .. });
    let text = format!("{error} {:?} {error:?}", error.source().map(ToString::to_string));
    assert!(text.contains(form) && text.contains("percent-encode"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    // What a `main` shows that returns the error.
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[tokio::test]
async fn a_file_in_no_folder_names_the_remedy() {
    let folder = Folder(servers::folder("connect"));
    let url = format!("sqlite:{}/missing/sessions.db", folder.0.display());
    let error = SqliteStore::connect(url).await.unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("/missing/sessions.db"), "{text}");
    let source = error.source().unwrap().to_string();
    assert!(source.contains("its folder must exist"), "{source}");
    let shown = format!("{error:?}");
    assert!(shown.starts_with(&format!("{text}: {source}")), "{shown}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (postgres, mysql) = tokio::join!(
        PostgresStore::connect(format!("postgres://u@127.0.0.1:{port}/app")),
        MySqlStore::connect(format!("mysql://u@127.0.0.1:{port}/app")),
    );
    for error in [postgres.unwrap_err(), mysql.unwrap_err()] {
        let text = error.to_string();
        assert_eq!(text, format!("the database at 127.0.0.1:{port} did not answer within 5s"));
    }
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let error = PostgresStore::connect_lazy("postgres://localhost/app").unwrap_err();
    assert_matches!(error, SqlConnectError::NoRuntime);
}
