//! Making connections, and what is said of those that cannot be made.

use axum_typed_session::{MemcachedStore, SessionStore as _, store::MemcachedConnectError};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::Instant};

use crate::{
    common::assert_matches,
    servers,
    support::{
        Memcached, SECOND, any_key, created, or_skip, record, shared, text_of, unavailable, update,
    },
};

#[tokio::test]
async fn the_urls_of_a_server_are_accepted() {
    let memcached = or_skip!(shared());
    for url in [
        memcached.url(),
        memcached.url() + "/",
        format!("memcached://localhost:{}", memcached.port),
    ] {
        let store = MemcachedStore::connect(&url).await.unwrap();
        created(&store, &record().build()).await;
    }
    for url in ["memcached://cache.example", "memcached://10.0.0.1/", "unix:///run/memcached.sock"]
    {
        MemcachedStore::connect_lazy(url).unwrap();
    }
}

#[tokio::test]
async fn a_unix_socket_works() {
    let folder = servers::folder("memcached-socket");
    let path = folder.join("socket");
    let path = path.to_str().unwrap();
    let arguments = ["-u", "root", "-s", path];
    let program = or_skip!(servers::find("memcached", "memcached"));
    let _server = servers::Server::start(&folder, program.to_str().unwrap(), &arguments).unwrap();
    servers::wait_until("a socket", || std::os::unix::net::UnixStream::connect(path).is_ok());
    let store = MemcachedStore::connect(format!("unix://{path}")).await.unwrap();
    let row = record().build();
    let key = created(&store, &row).await;
    assert_eq!(store.load(&key).await.unwrap(), Some(row));
}

#[test]
fn a_text_that_is_no_url_of_a_server_is_refused_without_showing_it() {
    for url in [
        "",
        "127.0.0.1:11211",
        "redis://127.0.0.1",
        "memcached://",
        "memcached://:11211",
        "memcached://user:hunter2@host",
        "memcached://host:",
        "memcached://host:port",
        "memcached://host:70000",
        "memcached://host/0",
        "memcached://host?timeout=1",
        "memcached://one,two",
        "memcached://[::1]:11211",
        "unix://relative",
        "unix://",
    ] {
        let error = MemcachedStore::connect_lazy(url).unwrap_err();
        assert_matches!(error, MemcachedConnectError::Url, "for {url}");
        assert!(!text_of(&error).contains("hunter2"));
    }
}

#[tokio::test]
async fn connect_refuses_a_server_that_is_down_and_connect_lazy_waits_for_it() {
    let mut memcached = or_skip!(Memcached::start());
    memcached.kill();
    let error = MemcachedStore::connect(memcached.url()).await.unwrap_err();
    let address = format!("127.0.0.1:{}", memcached.port);
    assert_matches!(&error, MemcachedConnectError::Refused { .. });
    assert!(text_of(&error).contains(&address), "{}", text_of(&error));
    assert!(text_of(&error).contains("refused"), "{}", text_of(&error));

    let store = MemcachedStore::connect_lazy(memcached.url()).unwrap();
    unavailable(store.load(&any_key()).await);
    memcached.resume();
    created(&store, &record().build()).await;
}

#[tokio::test]
async fn connect_gives_up_on_a_server_that_hangs() {
    let memcached = or_skip!(Memcached::start());
    memcached.hang();
    let started = Instant::now();
    let error = MemcachedStore::connect(memcached.url()).await.unwrap_err();
    assert_matches!(&error, MemcachedConnectError::Timeout { .. });
    assert!(started.elapsed() < 6 * SECOND, "{:?}", started.elapsed());
    memcached.go_on();
}

/// Answers every command with the same bytes.
async fn impostor(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("memcached://127.0.0.1:{port}")
}

#[tokio::test]
async fn a_server_before_1_6_is_told_apart() {
    let url = impostor(b"ERROR\r\n").await;
    let error = MemcachedStore::connect(&url).await.unwrap_err();
    assert!(text_of(&error).contains("memcached 1.6 or later"), "{}", text_of(&error));
    let store = MemcachedStore::connect_lazy(&url).unwrap();
    let error = store.load(&any_key()).await.unwrap_err();
    assert!(text_of(&error).contains("memcached 1.6 or later"), "{}", text_of(&error));
}

#[tokio::test]
async fn answers_of_another_protocol_are_errors() {
    for answer in [
        &b"-ERR unknown command\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VA 10 c1 \r\nshort\r\n",
        b"VA 99999999999999999999 c1\r\n\r\n",
        b"VA 1 cmany\r\nx\r\n",
        b"VA 1\r\nx\r\n",
        b"VA 1 c0\r\nx\r\n",
        b"VA 1 c1\r\nxyz",
        b"HD \xff\xff\r\n",
        b"SERVER_ERROR \xff\r\n",
        b"SERVER_ERROR busy\r\n",
        b"\r\n",
        b"\0\0\0\0",
    ] {
        let store = MemcachedStore::connect_lazy(impostor(answer).await).unwrap();
        let (key, row) = (any_key(), record().build());
        let shown = String::from_utf8_lossy(answer);
        assert!(store.load(&key).await.is_err(), "loading by {shown:?}");
        let saved = store.save(&key, &row, update(&row)).await;
        assert!(saved.is_err(), "saving by {shown:?}");
    }
}
