//! How the token travels.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{
    cookies::{CookieTemplate, visit_values},
    error::BoxError,
};

type Get = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type Set = dyn Fn(&mut HeaderMap, Option<&str>) + Send + Sync;

/// How the session token comes in and goes out. Default: in a cookie;
/// [`transport`](crate::SessionManagerBuilder::transport) sets another way.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Key, SessionManager, Transport};
///
/// let api = SessionManager::<u32>::builder()
///     .keys(Key::generate())
///     .transport(Transport::bearer())
///     .build()?;
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Transport {
    pub(crate) kind: Kind,
    /// The reason for which `build()` refuses it.
    problem: Option<&'static str>,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Cookie,
    Bearer,
    Header(HeaderName),
    Custom { get: Arc<Get>, set: Arc<Set> },
}

/// The response header that carries a new bearer token.
pub(crate) const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-session-token");

/// Headers that HTTP uses for something else, on the way in or out.
const RESERVED: &str = "accept-ranges age allow authorization cache-control connection content-encoding \
    content-length content-range content-type cookie date etag expires host last-modified link location \
    retry-after set-cookie te trailer transfer-encoding upgrade vary via www-authenticate";

impl Transport {
    /// Uses a cookie with the name and attributes of [`cookie`](crate::SessionManagerBuilder::cookie).
    pub const fn cookie() -> Self {
        Self::of(Kind::Cookie)
    }

    /// Reads the token from `Authorization: Bearer` (RFC 6750), and sends it in `X-Session-Token`.
    ///
    /// An empty `X-Session-Token` tells the client to forget its token.
    pub const fn bearer() -> Self {
        Self::of(Kind::Bearer)
    }

    /// Reads and sends the token in a header of this name, such as `"x-session"`.
    ///
    /// An empty header tells the client to forget its token. [`build`](crate::SessionManagerBuilder::build) refuses a
    /// name that no header can have, and the name of a header that HTTP uses for something else.
    pub fn header(name: impl TryInto<HeaderName>) -> Self {
        let Ok(name) = name.try_into() else {
            return Self {
                problem: Some("this is no header name; use letters, digits and `-`"),
                ..Self::cookie()
            };
        };
        Self {
            problem: RESERVED.split(' ').any(|reserved| reserved == name).then_some(
                "this header has a meaning of its own; use `Transport::cookie()`, `::bearer()` or a header \
                 such as `x-session`",
            ),
            kind: Kind::Header(name),
        }
    }

    /// Uses functions of the application: `get` finds the token in a request, `set` puts it into the headers of a
    /// response.
    ///
    /// `set` gets `None` if the client should forget its token. It is unknown which headers `get` reads, so responses
    /// carry `Vary: *`.
    pub fn custom(
        get: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
        set: impl Fn(&mut HeaderMap, Option<&str>) + Send + Sync + 'static,
    ) -> Self {
        Self::of(Kind::Custom { get: Arc::new(get), set: Arc::new(set) })
    }

    pub(crate) const fn is_cookie(&self) -> bool {
        matches!(self.kind, Kind::Cookie)
    }

    /// Returns the reason for which `build()` refuses it, if there is one.
    pub(crate) const fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, problem: None }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Cookie => f.write_str("Transport::cookie()"),
            Kind::Bearer => f.write_str("Transport::bearer()"),
            Kind::Header(name) => write!(f, "Transport::header({name:?})"),
            Kind::Custom { .. } => f.write_str("Transport::custom(..)"),
        }
    }
}

/// A transport, and the template of the cookie where it is a cookie.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    pub(crate) transport: Transport,
    pub(crate) template: Arc<CookieTemplate>,
}

impl Carrier {
    pub(crate) fn new(transport: Transport, template: CookieTemplate) -> Self {
        Self { transport, template: Arc::new(template) }
    }

    /// Returns the name of the cookie or header, which tokens are bound to and the size limit counts.
    pub(crate) fn name(&self) -> &str {
        match &self.transport.kind {
            Kind::Cookie => self.template.name(),
            Kind::Bearer => "authorization",
            Kind::Header(name) => name.as_str(),
            Kind::Custom { .. } => "custom",
        }
    }

    /// Returns the name of the transport for tokens to be bound to, so that no token moves to another transport.
    pub(crate) fn binding(&self) -> &'static str {
        match &self.transport.kind {
            Kind::Cookie => "cookie",
            Kind::Bearer => "bearer",
            Kind::Header(_) => "header",
            Kind::Custom { .. } => "custom",
        }
    }

    /// Returns `true` if two carriers would read each other's tokens in one request.
    pub(crate) fn clashes_with(&self, other: &Self) -> bool {
        let custom = |carrier: &Self| matches!(carrier.transport.kind, Kind::Custom { .. });
        !custom(self)
            && !custom(other)
            && self.binding() == other.binding()
            && self.name() == other.name()
    }

    pub(crate) fn describe(&self) -> String {
        if self.transport.is_cookie() {
            format!("cookie {:?}", self.name())
        } else {
            format!("header {:?}", self.name())
        }
    }

    /// Calls `visit` with every token that arrived, in the order of the request.
    ///
    /// An empty header is no token, since it tells a client to forget its token. An empty cookie is a token.
    pub(crate) fn visit_tokens(&self, parts: &Parts, mut visit: impl FnMut(&[u8])) {
        match &self.transport.kind {
            Kind::Cookie => visit_values(&parts.headers, self.template.name(), visit),
            Kind::Bearer => {
                for value in parts.headers.get_all(header::AUTHORIZATION) {
                    if let Some(token) = bearer_token(value.as_bytes()) {
                        visit(token);
                    }
                }
            }
            Kind::Header(name) => {
                for value in parts.headers.get_all(name) {
                    let token = value.as_bytes().trim_ascii();
                    if !token.is_empty() {
                        visit(token);
                    }
                }
            }
            Kind::Custom { get, .. } => {
                if let Some(token) = get(parts).filter(|token| !token.is_empty()) {
                    visit(token.as_bytes());
                }
            }
        }
    }

    /// Renders the headers that set a token, for `seconds` or until the browser closes.
    pub(crate) fn set(&self, token: String, seconds: Option<u64>) -> Result<Delivery, BoxError> {
        Ok(Delivery(match &self.transport.kind {
            Kind::Cookie => {
                Rendered::Cookie(self.template.clone(), self.template.set(&token, seconds)?)
            }
            Kind::Bearer => Rendered::Header(SESSION_TOKEN, sensitive(token)?),
            Kind::Header(name) => Rendered::Header(name.clone(), sensitive(token)?),
            Kind::Custom { set, .. } => Rendered::Custom(set.clone(), Some(token)),
        }))
    }

    /// Returns the headers that remove a token.
    pub(crate) fn removal(&self) -> Delivery {
        Delivery(match &self.transport.kind {
            Kind::Cookie => {
                Rendered::Cookie(self.template.clone(), self.template.removal().clone())
            }
            Kind::Bearer => Rendered::Header(SESSION_TOKEN, HeaderValue::from_static("")),
            Kind::Header(name) => Rendered::Header(name.clone(), HeaderValue::from_static("")),
            Kind::Custom { set, .. } => Rendered::Custom(set.clone(), None),
        })
    }

    /// Removes from a response the token that an earlier commit of the same request put in.
    pub(crate) fn retract(&self, headers: &mut HeaderMap) {
        match &self.transport.kind {
            Kind::Cookie => remove_cookies(headers, &self.template),
            Kind::Bearer => _ = headers.remove(SESSION_TOKEN),
            Kind::Header(name) => _ = headers.remove(name),
            Kind::Custom { set, .. } => set(headers, None),
        }
    }

    /// Marks a response as private to one visitor, so that no shared cache serves it to another.
    ///
    /// Appends the request header it depends on to `Vary` (RFC 9110, section 12.5.5), and sets
    /// `Cache-Control: private` where the header is missing.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        let name = match &self.transport.kind {
            Kind::Cookie => HeaderValue::from_static("cookie"),
            Kind::Bearer => HeaderValue::from_static("authorization"),
            Kind::Header(name) => HeaderValue::from(name.clone()),
            Kind::Custom { .. } => HeaderValue::from_static("*"),
        };
        let name_or_all =
            |field: &[u8]| field == b"*" || field.eq_ignore_ascii_case(name.as_bytes());
        if !lists(headers, &header::VARY, name_or_all) {
            headers.append(header::VARY, name);
        }
    }
}

/// Returns `true` if a header is a list with such a member.
fn lists(headers: &HeaderMap, name: &HeaderName, is_sought: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut members = value.as_bytes().split(|byte| *byte == b',');
        members.any(|member| is_sought(member.trim_ascii()))
    })
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

pub(crate) fn sensitive(token: String) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Rendered headers that set or remove a token. Putting them into a response cannot fail.
#[derive(Clone)]
pub(crate) struct Delivery(Rendered);

#[derive(Clone)]
enum Rendered {
    Cookie(Arc<CookieTemplate>, HeaderValue),
    Header(HeaderName, HeaderValue),
    Custom(Arc<Set>, Option<String>),
}

impl Delivery {
    /// Puts the token into a response, replaces an earlier token, and keeps caches from storing the response.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        match self.0 {
            Rendered::Cookie(template, cookie) => {
                remove_cookies(headers, &template);
                if let Some(twin) = template.twin_removal() {
                    headers.append(header::SET_COOKIE, twin.clone());
                }
                headers.append(header::SET_COOKIE, cookie);
            }
            Rendered::Header(name, value) => {
                headers.insert(name, value);
            }
            Rendered::Custom(set, token) => set(headers, token.as_deref()),
        }
        forbid_caching(headers);
    }
}

fn remove_cookies(headers: &mut HeaderMap, template: &CookieTemplate) {
    let earlier = headers.get_all(header::SET_COOKIE);
    if !earlier.iter().any(|cookie| template.renders(cookie)) {
        return;
    }
    let others: Vec<_> =
        earlier.iter().filter(|cookie| !template.renders(cookie)).cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in others {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// Sets `no-store`, unless the handler already forbade shared caches.
fn forbid_caching(headers: &mut HeaderMap) {
    let forbidden = lists(headers, &header::CACHE_CONTROL, |directive| {
        directive.eq_ignore_ascii_case(b"no-store") || directive.eq_ignore_ascii_case(b"private")
    });
    if !forbidden {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
