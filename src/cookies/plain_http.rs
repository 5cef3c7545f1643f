//! Browsers that came over plain http to a host where they drop Secure cookies.

use std::net::Ipv4Addr;

use http::{header, request::Parts, uri::Scheme};

/// Parts of headers that only requests over TLS carry, to this server or to a proxy in front of it.
///
/// Browsers offer `br` over TLS and to localhost only, as they send `Sec-Fetch-*` there only.
const OF_TLS: [(&str, &str); 5] = [
    ("forwarded", "https"),
    ("x-forwarded-proto", "https"),
    ("origin", "https:"),
    ("referer", "https:"),
    ("accept-encoding", "br"),
];

/// Parts of headers by which a proxy reports plain http.
const OF_PLAIN_HTTP: [(&str, &str); 3] =
    [("forwarded", "proto=http"), ("forwarded", "proto=\"http"), ("x-forwarded-proto", "http")];

/// No browser can open a longer host.
const LONGEST_HOST: usize = 253;

/// At most so many bytes of a header are searched, because a client can send a long header.
const MOST_BYTES: usize = 1024;

/// Returns the host, without its port, of a browser's request that came over plain http to another host than
/// localhost.
///
/// A wrong guess would warn about a site that works. So three things are required: the `User-Agent` of a browser, no
/// sign of TLS, and evidence of plain http. Evidence is a header of a proxy, an `Origin` or `Referer` of this host over
/// http, or the header that browsers send with each page they open and bots seldom send. Behind a proxy that ends TLS
/// and adds no header, a current browser still sends `Sec-Fetch-*`. A bot that looks like a browser lacks the evidence
/// or offers `br`.
pub(crate) fn host(parts: &Parts) -> Option<&str> {
    let says = |(name, part): (&str, &str)| {
        let values = parts.headers.get_all(name).iter();
        let windows = values.flat_map(|value| value.as_bytes().windows(part.len()));
        windows.take(MOST_BYTES).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
    };
    let has = |name| parts.headers.contains_key(name);
    if !says(("user-agent", "mozilla/")) || has("sec-fetch-site") || has("sec-fetch-mode") {
        return None;
    }
    let authority = match parts.headers.get(header::HOST) {
        Some(host) => host.to_str().ok()?,
        None => parts.uri.authority()?.as_str(),
    };
    let host = name_of(authority)?;
    let is_tls = || parts.uri.scheme() == Some(&Scheme::HTTPS) || OF_TLS.into_iter().any(says);
    if is_localhost(host) || is_tls() {
        return None;
    }
    let is_page = |name| {
        let page = parts.headers.get(name).and_then(|page| page.to_str().ok()).unwrap_or_default();
        let rest = page.strip_prefix("http://").and_then(|page| page.strip_prefix(host));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    };
    // A proxy that removes `Accept-Encoding` may remove a sign of TLS.
    let opens_page = || has("upgrade-insecure-requests") && has("accept-encoding");
    let is_plain = OF_PLAIN_HTTP.into_iter().any(says)
        || is_page(header::ORIGIN)
        || is_page(header::REFERER)
        || opens_page();
    is_plain.then_some(host)
}

/// Returns a host without its port, or `None` if the text is not a host, because clients may send any text.
fn name_of(authority: &str) -> Option<&str> {
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let host = port.map_or(authority, |(host, _)| host);
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let is_host = !host.is_empty() && host.len() <= LONGEST_HOST && host.bytes().all(is_of_host);
    is_host.then_some(host)
}

/// Returns `true` for the hosts at which browsers trust plain http as they trust TLS.
fn is_localhost(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}
