//! Cookies: reading candidates from a request, rendering set and removal.

mod domain;
pub(crate) mod plain_http;

use std::fmt;

use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, header};
use memchr::{memchr, memmem::Finder};

use crate::error::ConfigError;

/// The name and value of a cookie may take this many bytes together (RFC 6265bis, section 5.6).
pub(crate) const NAME_VALUE_LIMIT: usize = 4096;

/// Removes the double quotes around a value. RFC 6265 allows them, and some proxies add them.
fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Returns the values that arrived under a name, in the order of the request.
pub(crate) fn values_of<'h>(
    headers: &'h HeaderMap,
    name: &'h str,
) -> impl Iterator<Item = &'h [u8]> + 'h {
    let pairs = headers.get_all(header::COOKIE).into_iter();
    let pairs = pairs.flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(unquote(value.trim_ascii()))
    })
}

/// A checked cookie template. All but the value and Max-Age is rendered already.
pub(crate) struct CookieTemplate {
    pub(crate) name: String,
    /// The name, and Domain, Path and Partitioned where they are not the default. Browsers tell cookies apart by these.
    pub(crate) identity: String,
    /// `; Path=/; Secure` and so on.
    attributes: String,
    pub(crate) secure: bool,
    partitioned: bool,
    /// The `Set-Cookie` header that removes the cookie.
    pub(crate) removal: HeaderValue,
    /// Finds the name and `=` in a header. This search is faster than splitting the header into cookies.
    finder: Finder<'static>,
    /// The warnings about the attributes.
    pub(crate) risks: Vec<&'static str>,
}

impl CookieTemplate {
    /// Fills in the defaults and checks the rules of RFC 6265bis. An error names the option that gave the cookie.
    pub(crate) fn new(
        option: &str,
        mut cookie: Cookie<'static>,
        insecure_http: bool,
    ) -> Result<Self, ConfigError> {
        if insecure_http {
            let prefix = prefix_of(cookie.name()).len();
            let name = cookie.name().get(prefix..).unwrap_or_default().to_owned();
            cookie.set_name(name);
            cookie.set_secure(false);
        }
        fill_in_defaults(&mut cookie);
        check(&cookie).and_then(|()| Self::rendered(&cookie, insecure_http)).map_err(
            |mut problem| {
                if insecure_http && problem.ends_with("needs Secure") {
                    problem += ", which `.insecure_http(true)` takes away";
                }
                ConfigError::new(format!("`.{option}(..)`: {problem}"))
            },
        )
    }

    /// Makes the template of a cookie of another library, which is only removed. Its name may have characters that
    /// RFC 6265 does not allow, such as `koa:sess`.
    pub(crate) fn foreign(mut cookie: Cookie<'static>) -> Result<Self, ConfigError> {
        let invalid = |problem: &str| ConfigError::new(format!("`.import(..)`: {problem}"));
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b";,=\"".contains(&byte);
        if cookie.name().is_empty() || !cookie.name().bytes().all(is_plain) {
            return Err(invalid("a cookie to remove has a name that no browser sends"));
        }
        // Without Secure, the removal works over http and https. A prefix and these attributes need it.
        let needs_secure = cookie.partitioned() == Some(true)
            || cookie.same_site() == Some(SameSite::None)
            || !prefix_of(cookie.name()).is_empty();
        cookie.set_secure(cookie.secure() == Some(true) || needs_secure);
        let path = cookie.path().unwrap_or("/").to_owned();
        cookie.set_path(path);
        cookie.set_value("");
        cookie.unset_expires();
        cookie.set_max_age(None);
        Self::rendered(&cookie, false).map_err(|problem| invalid(&problem))
    }

    fn rendered(cookie: &Cookie<'static>, insecure_http: bool) -> Result<Self, String> {
        // `Expires` beside `Max-Age=0` is for the oldest clients.
        let removal = format!("{cookie}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        let removal = HeaderValue::try_from(removal).map_err(|error| error.to_string())?;
        let name = cookie.name().to_owned();
        // The value is empty, so the attributes follow the name and `=`.
        let attributes = cookie.to_string().split_off(name.len() + 1);
        Ok(Self {
            identity: identity_of(cookie),
            attributes,
            secure: cookie.secure() == Some(true),
            partitioned: cookie.partitioned() == Some(true),
            removal,
            finder: Finder::new(&format!("{name}=")).into_owned(),
            risks: risks_of(cookie, insecure_http),
            name,
        })
    }

    /// Calls `visit` with every value that arrived under the name, in the order of the request.
    ///
    /// Reads bytes, so that a header that is not UTF-8 hides no cookie; linear in the headers.
    pub(crate) fn visit_values(&self, headers: &HeaderMap, mut visit: impl FnMut(&[u8])) {
        for header in headers.get_all(header::COOKIE) {
            let header = header.as_bytes();
            for start in self.finder.find_iter(header) {
                let (before, found) = header.split_at(start);
                let before = before.trim_ascii_end();
                if let Some(rest) = found.get(self.finder.needle().len()..)
                    && (before.is_empty() || before.ends_with(b";"))
                {
                    let value = rest.get(..memchr(b';', rest).unwrap_or(rest.len()));
                    visit(unquote(value.unwrap_or_default().trim_ascii()));
                }
            }
        }
    }

    /// Returns `true` if a `Set-Cookie` header is one of those this template renders.
    pub(crate) fn renders(&self, header: &HeaderValue) -> bool {
        let header = header.as_bytes();
        let attributes = || header.get(memchr(b';', header)?..);
        let is_partitioned = || {
            let mut parts = attributes().unwrap_or_default().split(|byte| *byte == b';');
            parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(b"partitioned"))
        };
        header.starts_with(self.finder.needle()) && is_partitioned() == self.partitioned
    }

    /// Begins the text that sets the cookie to a value of this length. The value comes next.
    pub(crate) fn begin(&self, value_len: usize) -> String {
        let (name, attributes) = (&self.name, &self.attributes);
        let mut text = String::with_capacity(name.len() + value_len + attributes.len() + 32);
        text.extend([name, "="]);
        text
    }

    /// Finishes the text, for so many seconds or until the browser closes.
    pub(crate) fn finish(&self, text: &mut String, seconds: Option<u64>) -> fmt::Result {
        use fmt::Write as _;

        text.push_str(&self.attributes);
        seconds.map_or(Ok(()), |seconds| write!(text, "; Max-Age={seconds}"))
    }
}

/// Returns the text by which two cookies are the same cookie in a browser. No name holds a semicolon.
fn identity_of(cookie: &Cookie<'static>) -> String {
    let domain = cookie.domain().map(|domain| format!(";domain={}", domain.to_ascii_lowercase()));
    let path = cookie.path().filter(|path| *path != "/").map(|path| format!(";path={path}"));
    let partition = cookie.partitioned().filter(|is| *is).map(|_| ";partitioned".to_owned());
    [cookie.name().to_owned()].into_iter().chain(domain).chain(path).chain(partition).collect()
}

/// The name prefixes for which browsers make conditions, the longest first (RFC 6265bis, section 4.1.3; the prefixes
/// with `Http` came later).
const PREFIXES: [&str; 4] = ["__Host-Http-", "__Host-", "__Http-", "__Secure-"];

/// Returns the prefix of a name as [`PREFIXES`] spells it, or an empty text. Its case is ignored, as browsers do.
fn prefix_of(name: &str) -> &'static str {
    let starts_name = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    PREFIXES.into_iter().find(starts_name).unwrap_or_default()
}

fn fill_in_defaults(cookie: &mut Cookie<'static>) {
    let path = cookie.path().unwrap_or("/").to_owned();
    cookie.set_path(path);
    cookie.set_secure(cookie.secure().unwrap_or(true));
    cookie.set_http_only(cookie.http_only().unwrap_or(true));
    cookie.set_same_site(cookie.same_site().unwrap_or(SameSite::Lax));
}

/// Checks that the template leaves the value and the lifetime to the session, and that browsers keep the cookie.
fn check(cookie: &Cookie<'static>) -> Result<(), String> {
    let (name, secure) = (cookie.name(), cookie.secure() == Some(true));
    let is_token = |byte: u8| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?={}"#.contains(&byte);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b';' && byte != b',';
    let (path, prefix) = (cookie.path().unwrap_or_default(), prefix_of(name));
    let (host, http) = (prefix.starts_with("__Host-"), prefix.ends_with("Http-"));
    let rules = [
        (!cookie.value().is_empty(), "the value must be empty, because the session sets it"),
        (cookie.max_age().is_some(), "Max-Age must not be set; use `.idle_timeout(..)`"),
        (
            cookie.expires().is_some(),
            "Expires must not be set; use `.idle_timeout(..)` or `.idle_timeout(IdleTimeout::BrowserSession(..))`",
        ),
        (
            name.is_empty() || !name.bytes().all(is_token),
            "the name must have at least one character, and only letters, digits and !#$%&'*+-.^_`|~",
        ),
        (
            !path.starts_with('/'),
            "Path must start with `/`, such as `/` or `/app`; browsers replace any other Path by the folder of the request",
        ),
        (
            !path.bytes().all(is_plain),
            "Path must not hold a space, comma, semicolon, control character or non-ASCII letter; percent-encode it, such as `%20` for a space",
        ),
        (host && !secure, "the prefix `__Host-` needs Secure"),
        (host && path != "/", "the prefix `__Host-` needs Path=/"),
        (host && cookie.domain().is_some(), "the prefix `__Host-` allows no Domain"),
        (prefix == "__Secure-" && !secure, "the prefix `__Secure-` needs Secure"),
        (prefix == "__Http-" && !secure, "the prefix `__Http-` needs Secure"),
        (
            http && cookie.http_only() != Some(true),
            "the prefixes `__Http-` and `__Host-Http-` need HttpOnly",
        ),
        (cookie.same_site() == Some(SameSite::None) && !secure, "SameSite=None needs Secure"),
        (cookie.partitioned() == Some(true) && !secure, "Partitioned needs Secure"),
    ];
    if let Some((_, problem)) = rules.into_iter().find(|(is_broken, _)| *is_broken) {
        return Err(problem.to_owned());
    }
    cookie.domain().and_then(domain::problem).map_or(Ok(()), |problem| {
        Err(format!(
            "Domain {problem}, so browsers drop the cookie; write only the host, such as `example.com`, or remove \
             Domain"
        ))
    })
}

fn risks_of(cookie: &Cookie<'static>, insecure_http: bool) -> Vec<&'static str> {
    let is_readable = cookie.secure() != Some(true) && !insecure_http;
    let risks = [
        (
            insecure_http,
            "`.insecure_http(true)` sends session cookies over plain http; never use it in production",
        ),
        (is_readable, "the session cookie is not Secure; anyone on the network can read it"),
        (
            cookie.http_only() == Some(false),
            "the session cookie is not HttpOnly; any script on the page can read it",
        ),
        (
            cookie.path().is_some_and(|path| path.len() > 1 && path.ends_with('/')),
            "the Path of the session cookie ends with `/`, so browsers do not send it to the path without that `/`, \
             such as `/app` of an axum router nested there; remove the `/`",
        ),
        (
            cookie.domain().is_some_and(domain::is_one_host),
            "the Domain of the session cookie is an IP address or a name without a dot, so browsers keep the cookie \
             for that host alone and drop it at every other host; remove Domain",
        ),
    ];
    risks.into_iter().filter(|(is_taken, _)| *is_taken).map(|(_, risk)| risk).collect()
}

#[cfg(test)]
mod tests;
