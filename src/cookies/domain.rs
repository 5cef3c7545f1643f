//! The Domain of a cookie: which values browsers keep, and for which hosts.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Returns what is wrong with a Domain that browsers do not keep, such as `holds a port`.
pub(super) fn problem(domain: &str) -> Option<&'static str> {
    if is_address(domain) {
        return None;
    }
    let is_blank = |letter: char| letter == ' ' || letter.is_ascii_control();
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let labels = || domain.split('.');
    let ends_in_number = labels().next_back().is_some_and(|last| last.parse::<u32>().is_ok());
    let is_long = domain.len() > 253 || labels().any(|label| label.len() > 63);
    let rules = [
        (domain.is_empty(), "is empty"),
        (domain.contains("://"), "is a URL"),
        (domain.contains(['/', '\\']), "holds a path, which belongs into `.path(..)`"),
        (domain.parse::<Ipv6Addr>().is_ok(), "is an IPv6 address without brackets"),
        (domain.contains(':'), "holds a port, but a cookie is for all ports of a host"),
        (domain.contains('*'), "holds a `*`, but a Domain includes all hosts below it"),
        // Chromium does; RFC 6265bis does not (section 5.7).
        (!domain.is_ascii(), "holds non-ASCII letters instead of punycode (`xn--..`)"),
        (domain.contains(is_blank), "holds a space or a control character"),
        (!domain.chars().all(is_of_name), "holds a character that is not allowed in a host name"),
        (labels().any(str::is_empty), "begins or ends with a dot, or holds two dots in a row"),
        (ends_in_number, "ends in a number but is not an IP address"),
        (is_long, "is longer than 253 characters, or than 63 between two dots"),
    ];
    rules.into_iter().find_map(|(is_broken, problem)| is_broken.then_some(problem))
}

/// Returns `true` if browsers keep a cookie of this Domain for the host of that name and no host below it.
pub(super) fn is_one_host(domain: &str) -> bool {
    !domain.contains('.') || is_address(domain)
}

fn is_address(domain: &str) -> bool {
    let bracketed = domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']'));
    domain.parse::<Ipv4Addr>().is_ok()
        || bracketed.is_some_and(|domain| domain.parse::<Ipv6Addr>().is_ok())
}
