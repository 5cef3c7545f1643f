//! The address of a server, and connections to it.

use std::{path::Path, time::Duration};

use async_memcached::{Client, Error};

use crate::{error::BoxError, store::connect_error::debug_is_text};

const DEFAULT_PORT: u16 = 11_211;

/// The error of [`MemcachedStore::connect`](super::MemcachedStore::connect) and
/// [`MemcachedStore::connect_lazy`](super::MemcachedStore::connect_lazy).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum MemcachedConnectError {
    /// The text is not the URL of a memcached server.
    #[error(
        "this is not the URL of a memcached server; write memcached://host[:port] with a name or an IPv4 address, or \
         unix:///path; passwords, TLS, IPv6 addresses and several servers are not supported"
    )]
    Url,

    /// The server refused the connection, nothing listens there, or it is not memcached 1.6 or later.
    #[error("cannot use memcached at {address}")]
    Refused {
        /// Host and port, or the path of a socket.
        address: String,
        /// The reason.
        source: BoxError,
    },

    /// The server did not answer in time.
    #[error("memcached at {address} did not answer within {after:?}")]
    Timeout {
        /// Host and port, or the path of a socket.
        address: String,
        /// The time that was exceeded.
        after: Duration,
    },
}

debug_is_text!(MemcachedConnectError);

/// The server to connect to, as often as needed.
pub(super) struct Server {
    /// `tcp://host:port` or `unix:///path`, as the driver reads it.
    url: String,
}

impl Server {
    pub(super) fn parse(url: &str) -> Result<Self, MemcachedConnectError> {
        let url = if let Some(path) = url.strip_prefix("unix://") {
            Path::new(path).is_absolute().then(|| url.to_owned())
        } else {
            let rest = url.strip_prefix("memcached://");
            rest.and_then(authority).map(|authority| format!("tcp://{authority}"))
        };
        url.map(|url| Self { url }).ok_or(MemcachedConnectError::Url)
    }

    /// Connects once. The driver resolves the name of the host each time.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        Client::new(&self.url).await
    }

    pub(super) fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, address)| address)
    }
}

/// Reads `host[:port]` with or without a slash at its end. The driver opens IPv4 sockets only.
fn authority(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, DEFAULT_PORT),
    };
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_of_a_name)).then(|| format!("{host}:{port}"))
}
