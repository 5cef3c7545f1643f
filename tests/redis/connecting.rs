//! URLs, passwords and servers that are not there.

use std::{
    error::Error,
    net::TcpListener,
    time::{Duration, Instant},
};

use axum_typed_session::{
    RedisStore, SessionStore as _,
    store::{SaveOutcome, Write},
};
use redis::{aio::ConnectionManager, cluster::ClusterClient, cmd};

use crate::{
    servers,
    support::{Redis, SECOND, any_key, created, or_skip, record, saved, shared, shared_cluster},
};

/// What an operator reads: the error and its sources, in one line.
pub fn line(error: &dyn Error) -> String {
    let sources = std::iter::successors(Some(error), |&error| error.source());
    let texts: Vec<_> = sources.map(ToString::to_string).collect();
    texts.join(": ")
}

#[tokio::test]
async fn a_bad_url_is_one_line_without_its_password() {
    for url in [
        "",
        "localhost",
        "http://user:hunter2@localhost/",
        "postgres://user:hunter2@localhost/",
        "redis://user:hunter2@local host/",
        "redis://user:hunter2@localhost:99999/",
        "redis://user:hunter2@localhost/notanumber",
        // Passwords that end the host: one is a port until there, and the last would be a server elsewhere.
        "redis://user:hunter2/5@localhost",
        "redis://user:hunter2?5@localhost",
        "redis://user:hunter2#5@localhost",
        "redis://:hunter2/5@localhost",
        "redis://user:5/hunter2@localhost",
        "redis://user:5?hunter2@localhost",
        "redis://user:5#hunter2@localhost",
        "redis://user:hunter2%ff@localhost",
    ] {
        let error = RedisStore::connect(url).await.expect_err(url);
        let text = line(&error);
        assert!(
            text.starts_with("this is not the URL of a Redis server; write redis://"),
            "{url}: {text}"
        );
        assert!(!format!("{text} {error:?}").contains("hunter2"), "{url}: {text}");
        assert!(text.contains("percent-encode"), "{url}: {text}");
        assert_eq!(text.lines().count(), 1);
        let others = [
            RedisStore::connect_lazy(url).expect_err(url),
            RedisStore::connect_cluster([url]).await.expect_err(url),
            RedisStore::connect_sentinel([url], "redis://shop").await.expect_err(url),
            RedisStore::connect_sentinel(["redis://localhost"], url).await.expect_err(url),
        ];
        for error in others {
            assert_eq!(line(&error), text);
        }
    }
}

#[cfg(not(feature = "redis-rustls"))]
#[tokio::test]
async fn tls_without_its_feature_names_the_feature() {
    let error = RedisStore::connect("rediss://localhost").await.expect_err("no TLS");
    assert_eq!(
        line(&error),
        "a rediss:// URL needs TLS; enable the feature `redis-rustls` of axum-typed-session"
    );
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let port = servers::free_port(0);
    let started = Instant::now();
    let error = RedisStore::connect(format!("redis://:hunter2@127.0.0.1:{port}")).await;
    let text = line(&error.expect_err("nobody"));
    assert!(text.starts_with(&format!("cannot connect to Redis at 127.0.0.1:{port}: ")), "{text}");
    let error = RedisStore::connect_cluster([format!("redis://:hunter2@127.0.0.1:{port}")]).await;
    let text = line(&error.expect_err("nobody"));
    assert!(text.starts_with(&format!("cannot connect to Redis at 127.0.0.1:{port}: ")), "{text}");
    assert!(!text.contains("hunter2"));
    // A wait for an answer would take five seconds.
    assert!(started.elapsed() < 4 * SECOND);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", silent.local_addr().expect("an address"));
    let started = Instant::now();
    let text = line(&RedisStore::connect(&url).await.expect_err("silence"));
    assert!(text.contains("timed out"), "{text}");
    let text = line(&RedisStore::connect_cluster([&url]).await.expect_err("silence"));
    assert!(text.contains("timed out"), "{text}");
    assert!(started.elapsed() < 6 * SECOND, "{:?}", started.elapsed());
}

/// Every character that a URL gives a meaning to.
#[tokio::test]
async fn a_password_is_what_its_percent_encoding_says() {
    let redis = or_skip!(Redis::start());
    let password = "p%/?#@: &+\u{e4}";
    redis.ask::<()>(cmd("ACL").arg(&[
        "SETUSER",
        "shop",
        "on",
        &format!(">{password}"),
        "~*",
        "+@all",
    ]));
    let encoded = "p%25%2F%3F%23%40%3A%20%26%2B%C3%A4";
    let url = format!("redis://shop:{encoded}@127.0.0.1:{}", redis.port);
    created(&RedisStore::connect(url).await.unwrap(), &record().build()).await;
}

#[tokio::test]
async fn a_server_that_wants_a_password_is_told_at_once() {
    let redis = or_skip!(Redis::start());
    redis.ask::<()>(cmd("CONFIG").arg(&["SET", "requirepass", "right"]));
    let error = RedisStore::connect(redis.url()).await.expect_err("no password");
    let text = line(&error);
    assert!(text.contains("NOAUTH"), "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let redis = or_skip!(Redis::start());
    redis.ask::<()>(cmd("ACL").arg(&["SETUSER", "shop", "on", ">right", "~*", "+@all"]));
    let url = |password| format!("redis://shop:{password}@127.0.0.1:{}", redis.port);
    let error = RedisStore::connect(url("hunter2")).await.expect_err("a wrong password");
    assert!(!format!("{} {error:?}", line(&error)).contains("hunter2"));
    let store = RedisStore::connect(url("right")).await.expect("a connection");
    assert!(!format!("{store:?}").contains("right"));
    assert_eq!(store.load(&any_key()).await.unwrap(), None);
}

#[tokio::test]
async fn an_application_may_bring_its_own_connection() {
    let redis = or_skip!(shared());
    let client = redis::Client::open(redis.url()).unwrap();
    let manager = ConnectionManager::new(client).await.unwrap();
    let (key, record) = (any_key(), record().build());
    let store = RedisStore::from_connection_manager(manager);
    saved(store.save(&key, &record, Write::Create).await);
    assert_eq!(redis.store().await.load(&key).await.unwrap(), Some(record));
}

#[tokio::test]
async fn an_application_may_bring_its_own_cluster_connection() {
    let cluster = or_skip!(shared_cluster());
    let nodes = cluster.masters.iter().map(Redis::url);
    let client = ClusterClient::builder(nodes).retries(0).build().unwrap();
    let store = RedisStore::from_cluster_connection(client.get_async_connection().await.unwrap());
    let (key, record) = (any_key(), record().build());
    saved(store.save(&key, &record, Write::Create).await);
    assert_eq!(cluster.store().await.load(&key).await.unwrap(), Some(record));
}

#[tokio::test]
async fn one_node_is_enough_to_find_the_cluster() {
    let cluster = or_skip!(shared_cluster());
    let store = RedisStore::connect_cluster([cluster.masters[1].url()]).await.unwrap();
    for _ in 0..20 {
        created(&store, &record().build()).await;
    }
}

#[tokio::test]
async fn a_store_that_knows_one_node_of_a_cluster_says_how_to_connect() {
    let cluster = or_skip!(shared_cluster());
    let store = RedisStore::connect(cluster.masters[0].url()).await.unwrap();
    let mut fastest = None;
    for _ in 0..20 {
        let started = Instant::now();
        let (key, row) = (any_key(), record().build());
        match store.save(&key, &row, Write::Create).await {
            Ok(outcome) => assert_eq!(outcome, SaveOutcome::Saved),
            Err(error) => {
                let text = line(&error);
                assert!(text.contains("`RedisStore::connect_cluster`"), "{text}");
                let took = started.elapsed();
                fastest = Some(fastest.map_or(took, |fastest: Duration| fastest.min(took)));
            }
        }
    }
    // If the store tried again, the fastest would be slow too.
    assert!(fastest.is_some_and(|took| took < SECOND / 5), "{fastest:?}");
}

/// A certificate authority of its own, a server with a certificate of it, and this test binary once more,
/// which trusts it.
#[cfg(feature = "redis-rustls")]
mod tls {
    use std::{
        env, fs,
        path::Path,
        process::{Command, Stdio},
    };

    use super::*;

    use crate::sentinel::{Sentinel, Watched};

    const URL: &str = "AXUM_TYPED_SESSION_TLS_URL";
    const SENTINEL_URL: &str = "AXUM_TYPED_SESSION_TLS_SENTINEL_URL";

    fn openssl(folder: &Path, arguments: &str) {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "openssl {arguments}");
    }

    fn make_certificates(folder: &Path) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(
            folder,
            &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-authority"),
        );
        openssl(
            folder,
            &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
        );
        fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
        openssl(
            folder,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
             -out server.pem",
        );
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_its_certificate() {
        or_skip!(servers::find("openssl", "redis TLS"));
        if !or_skip!(shared()).has_tls() {
            return;
        }
        let folder = servers::folder("tls");
        make_certificates(&folder);
        let port = servers::free_port(0).to_string();
        let file = |name| folder.join(name).display().to_string();
        let redis = or_skip!(Redis::start_with(&[
            ("--tls-port", port.clone()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ]));
        let url = format!("rediss://localhost:{port}");
        let settings = [
            ("tls-cert-file", file("server.pem")),
            ("tls-key-file", file("server.key")),
            ("tls-ca-cert-file", file("ca.pem")),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
            ("tls-port", servers::free_port(0).to_string()),
            ("sentinel resolve-hostnames", "yes".to_owned()),
            ("sentinel announce-hostnames", "yes".to_owned()),
        ];
        let tls_port = settings[5].1.clone();
        let address = format!("localhost {port}");
        let sentinel = Sentinel::start_with(&redis.program(), &address, 1, &settings);
        // The system does not know the authority.
        let text = line(&RedisStore::connect(&url).await.expect_err("a stranger"));
        assert!(text.contains("certificate"), "{text}");

        let trusting = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--ignored", "connecting::tls::over_tls"])
            .env("SSL_CERT_FILE", file("ca.pem"))
            .env(URL, &url)
            .env(SENTINEL_URL, format!("rediss://localhost:{tls_port}"))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&trusting.stdout);
        assert!(trusting.status.success() && output.contains("1 passed"), "{output}");
        assert_eq!(redis.keys().len(), 2);
        drop(sentinel);
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    #[ignore = "run by the test above, with its certificate"]
    async fn over_tls() {
        let Ok(url) = env::var(URL) else { return };
        let store = RedisStore::connect(url).await.expect("a connection");
        let (key, row) = (any_key(), record().build());
        saved(store.save(&key, &row, Write::Create).await);
        assert_eq!(store.load(&key).await.unwrap(), Some(row.clone()));
        let service = Watched::service_url().replace("redis:", "rediss:");
        let store = RedisStore::connect_sentinel([env::var(SENTINEL_URL).unwrap()], service).await;
        let store = store.expect("a connection");
        assert_eq!(store.load(&key).await.unwrap(), Some(row));
        created(&store, &record().build()).await;
    }
}
