//! How the token travels.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{
    cookies::{CookieTemplate, plain_http},
    error::{BoxError, ConfigError},
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
pub struct Transport(Result<Kind, &'static str>);

/// A transport that `build()` does not refuse.
#[derive(Clone)]
pub(crate) enum Kind {
    Cookie,
    /// `scheme` stands before the token in a request.
    Header {
        request: HeaderName,
        scheme: &'static str,
        response: HeaderName,
    },
    Custom {
        get: Arc<Get>,
        set: Arc<Set>,
    },
}

/// The scheme of bearer tokens (RFC 6750).
const BEARER: &str = "Bearer ";

/// Headers that HTTP uses for something else, on the way in or out.
const RESERVED: &str = "accept-ranges age allow authorization cache-control connection content-encoding \
    content-length content-range content-type cookie date etag expires host last-modified link location \
    retry-after set-cookie te trailer transfer-encoding upgrade vary via www-authenticate";

impl Transport {
    /// Uses a cookie with the name and attributes of [`cookie`](crate::SessionManagerBuilder::cookie).
    pub const fn cookie() -> Self {
        Self(Ok(Kind::Cookie))
    }

    /// Reads the token from `Authorization: Bearer` (RFC 6750), and sends it in `X-Session-Token`.
    ///
    /// An empty `X-Session-Token` tells the client to forget its token. A token that comes with a response replaces
    /// the one the client has:
    ///
    /// | | without a store | with a store |
    /// |---|---|---|
    /// | a new token comes | with every save, and with what `rolling` extends | with the first save and every `regenerate`; now and then another for the same id, as after a change of keys |
    /// | an earlier token | is old data: it opens the session as it was, until it expires | is the session as it is now, until it ends or gets a new id |
    ///
    /// # CORS
    ///
    /// A script of another origin sees `X-Session-Token` only if the response exposes it, and sends `Authorization`
    /// only if the server allows it. With `tower-http`:
    ///
    /// ```
    /// use axum::{Router, http::{HeaderName, HeaderValue, header}};
    /// use tower_http::cors::CorsLayer;
    ///
    /// let cors = CorsLayer::new()
    ///     .allow_origin(HeaderValue::from_static("https://app.example"))
    ///     .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
    ///     .expose_headers([HeaderName::from_static("x-session-token")]);
    /// let app: Router = Router::new().layer(cors);
    /// ```
    ///
    /// # Answering 401
    ///
    /// A missing or bad token is no error but an anonymous session, so the handler answers. RFC 6750 asks for
    /// `WWW-Authenticate: Bearer`:
    ///
    /// ```
    /// use axum::{extract::State, http::{StatusCode, header}, response::{IntoResponse, Response}};
    /// use axum_typed_session::{Session, SessionError, SessionManager};
    ///
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// async fn me(
    ///     State(sessions): State<SessionManager<Login>>,
    ///     session: Option<Session<Login>>,
    /// ) -> Result<Response, SessionError> {
    ///     let user = session.as_ref().and_then(|session| session.user.clone());
    ///     let guard = match session {
    ///         Some(session) => session.commit().await?,
    ///         None => sessions.no_session(),
    ///     };
    ///     Ok(guard.wrap(match user {
    ///         Some(user) => format!("hello {user}").into_response(),
    ///         None => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response(),
    ///     }))
    /// }
    /// ```
    pub const fn bearer() -> Self {
        Self(Ok(Kind::Header {
            request: header::AUTHORIZATION,
            scheme: BEARER,
            response: HeaderName::from_static("x-session-token"),
        }))
    }

    /// Reads and sends the token in a header of this name, such as `"x-session"`.
    ///
    /// An empty header tells the client to forget its token. [`build`](crate::SessionManagerBuilder::build) refuses a
    /// name that no header can have, and the name of a header that HTTP uses for something else.
    pub fn header(name: impl TryInto<HeaderName>) -> Self {
        let Ok(name) = name.try_into() else {
            return Self(Err("this is no header name; use letters, digits and `-`"));
        };
        if RESERVED.split(' ').any(|reserved| reserved == name) {
            return Self(Err(
                "this header has a meaning of its own; use `Transport::cookie()`, `::bearer()` or a header \
                 such as `x-session`",
            ));
        }
        Self(Ok(Kind::Header { request: name.clone(), scheme: "", response: name }))
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
        Self(Ok(Kind::Custom { get: Arc::new(get), set: Arc::new(set) }))
    }

    pub(crate) const fn is_cookie(&self) -> bool {
        matches!(self.0, Ok(Kind::Cookie))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(Kind::Cookie) => f.write_str("Transport::cookie()"),
            Ok(Kind::Header { scheme: BEARER, .. }) => f.write_str("Transport::bearer()"),
            Ok(Kind::Header { request, .. }) => write!(f, "Transport::header({request:?})"),
            Ok(Kind::Custom { .. }) => f.write_str("Transport::custom(..)"),
            Err(problem) => write!(f, "Transport::header(..): {problem}"),
        }
    }
}

/// A checked transport, and the facts of it that every request needs.
pub(crate) struct Carrier {
    pub(crate) kind: Kind,
    /// Used only where the transport is a cookie.
    pub(crate) template: CookieTemplate,
    /// The cookies that tokens were sent in before.
    pub(crate) formers: Vec<FormerCookie>,
    /// What tokens are sent in, such as `cookie "__Host-session"`.
    pub(crate) description: String,
    /// The name of the transport, which tokens are bound to, so that none moves to another transport.
    pub(crate) name: &'static str,
    pub(crate) binding: Binding,
    /// The request header that responses depend on.
    vary: HeaderValue,
}

/// The tie of a token to the cookie or header that carries it. No token is read out of another one.
pub(crate) struct Binding {
    /// The associated data of a sealed token.
    pub(crate) context: Vec<u8>,
    /// The text behind a plain id.
    pub(crate) suffix: String,
}

pub(crate) struct FormerCookie {
    pub(crate) template: CookieTemplate,
    pub(crate) binding: Binding,
}

impl Carrier {
    /// `bind` ties tokens to a transport, and to a cookie or header of it.
    pub(crate) fn new(
        transport: Transport,
        template: CookieTemplate,
        formers: Vec<CookieTemplate>,
        bind: impl Fn(&str, &str) -> Binding,
    ) -> Result<Self, ConfigError> {
        let invalid = |problem| ConfigError::new(format!("`.transport(..)`: {problem}"));
        let kind = transport.0.map_err(invalid)?;
        let (name, identity, vary) = match &kind {
            Kind::Cookie => ("cookie", &*template.identity, header::COOKIE.into()),
            Kind::Header { request, scheme, .. } => {
                let name = if scheme.is_empty() { "header" } else { "bearer" };
                (name, request.as_str(), request.clone().into())
            }
            Kind::Custom { .. } => ("custom", "custom", HeaderValue::from_static("*")),
        };
        let description = match &kind {
            Kind::Cookie => format!("cookie {:?}", template.name),
            Kind::Header { response, .. } => format!("header {:?}", response.as_str()),
            Kind::Custom { .. } => "custom transport".to_owned(),
        };
        let bound = |template: CookieTemplate| {
            let binding = bind(name, &template.identity);
            FormerCookie { template, binding }
        };
        let formers = formers.into_iter().map(bound).collect();
        let binding = bind(name, identity);
        Ok(Self { kind, template, formers, description, name, binding, vary })
    }

    /// Returns the cookie or header of two carriers that cannot be in one response: the one would replace or remove the
    /// token of the other.
    pub(crate) fn clash_with<'c>(&'c self, other: &'c Self) -> Option<&'c str> {
        let removes = |one: &Self, other: &Self| {
            let is_other = |former: &FormerCookie| former.template.name == other.template.name;
            matches!(other.kind, Kind::Cookie) && one.formers.iter().any(is_other)
        };
        let is_same = self.description == other.description;
        if removes(self, other) || (is_same && !matches!(self.kind, Kind::Custom { .. })) {
            Some(&other.description)
        } else {
            removes(other, self).then_some(&*self.description)
        }
    }

    /// Returns how many bytes of the cookie's limit are the name's.
    pub(crate) fn name_len(&self) -> usize {
        match &self.kind {
            Kind::Cookie => self.template.name.len(),
            Kind::Header { request, .. } => request.as_str().len(),
            Kind::Custom { .. } => 0,
        }
    }

    /// Calls `visit` with every token that arrived and what it has to be bound to, in the order of the request; those
    /// of former cookies last, and with `true`.
    ///
    /// An empty header is no token, since it tells a client to forget its token. An empty cookie is a token.
    pub(crate) fn visit_tokens(&self, parts: &Parts, mut visit: impl FnMut(&[u8], &Binding, bool)) {
        self.visit_current(parts, |token| visit(token, &self.binding, false));
        for FormerCookie { template, binding } in &self.formers {
            template.visit_values(&parts.headers, |token| visit(token, binding, true));
        }
    }

    fn visit_current(&self, parts: &Parts, mut visit: impl FnMut(&[u8])) {
        match &self.kind {
            Kind::Cookie => self.template.visit_values(&parts.headers, visit),
            Kind::Header { request, scheme, .. } => {
                let values = parts.headers.get_all(request).iter();
                values.filter_map(|value| token_behind(scheme, value.as_bytes())).for_each(visit);
            }
            Kind::Custom { get, .. } => {
                if let Some(token) = get(parts).filter(|token| !token.is_empty()) {
                    visit(token.as_bytes());
                }
            }
        }
    }

    /// Returns the host of a request from a browser that will drop the cookie, which is Secure, since it came over
    /// plain http.
    pub(crate) fn host_that_drops<'p>(&self, parts: &'p Parts) -> Option<&'p str> {
        let is_secure = matches!(self.kind, Kind::Cookie) && self.template.secure;
        if is_secure { plain_http::host(parts) } else { None }
    }

    /// Renders the header value that sets a token, for `seconds` or until the browser closes.
    pub(crate) fn set(&self, token: String, seconds: Option<u64>) -> Result<HeaderValue, BoxError> {
        sensitive(match self.kind {
            Kind::Cookie => self.template.set(&token, seconds)?,
            Kind::Header { .. } | Kind::Custom { .. } => token,
        })
    }

    /// Returns the header value that removes a token, which is empty except for cookies.
    pub(crate) fn removal(&self) -> HeaderValue {
        match self.kind {
            Kind::Cookie => self.template.removal.clone(),
            Kind::Header { .. } | Kind::Custom { .. } => HeaderValue::from_static(""),
        }
    }

    /// Puts what sets or removes the token into a response, and if `removes_formers` what removes former cookies.
    ///
    /// It replaces what an earlier commit of the same request put in. `None` only takes that out.
    pub(crate) fn put(
        &self,
        told: Option<HeaderValue>,
        removes_formers: bool,
        headers: &mut HeaderMap,
    ) {
        match &self.kind {
            Kind::Cookie => {
                self.remove_cookies(headers);
                if let Some(cookie) = told {
                    let formers = self.formers.iter().filter(|_| removes_formers);
                    let removals = formers.map(|former| former.template.removal.clone());
                    for cookie in removals.chain([cookie]) {
                        headers.append(header::SET_COOKIE, cookie);
                    }
                }
            }
            Kind::Header { response, .. } => match told {
                Some(token) => _ = headers.insert(response, token),
                None => _ = headers.remove(response),
            },
            Kind::Custom { set, .. } => {
                let token = told.as_ref().and_then(|token| token.to_str().ok());
                set(headers, token.filter(|token| !token.is_empty()));
            }
        }
    }

    fn remove_cookies(&self, headers: &mut HeaderMap) {
        let is_other = |cookie: &HeaderValue| {
            let removes = |former: &FormerCookie| former.template.removal == *cookie;
            !self.template.renders(cookie) && !self.formers.iter().any(removes)
        };
        if let header::Entry::Occupied(entry) = headers.entry(header::SET_COOKIE) {
            let (_, earlier) = entry.remove_entry_mult();
            let others: Vec<_> = earlier.filter(is_other).collect();
            for cookie in others {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
    }

    /// Returns the bytes that all cookies of a response take as headers, or the token where it has a header of its own.
    pub(crate) fn bytes_in(&self, headers: &HeaderMap) -> usize {
        let name = match &self.kind {
            Kind::Header { response, .. } => response,
            Kind::Cookie | Kind::Custom { .. } => &header::SET_COOKIE,
        };
        let values = headers.get_all(name).iter();
        values.map(|value| name.as_str().len() + ": \r\n".len() + value.len()).sum()
    }

    /// Marks a response as private to one visitor, so that no shared cache serves it to another.
    ///
    /// Appends the request header it depends on to `Vary` (RFC 9110, section 12.5.5). Sets `Cache-Control: no-store`
    /// where the client is told of a token and the handler did not forbid shared caches, and otherwise `private`
    /// where the header is missing.
    pub(crate) fn mark(&self, is_told: bool, headers: &mut HeaderMap) {
        let is_forbidden = members(headers, &header::CACHE_CONTROL).any(|directive| {
            directive.eq_ignore_ascii_case(b"no-store")
                || directive.eq_ignore_ascii_case(b"private")
        });
        if is_told && !is_forbidden {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        } else if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        let is_listed = members(headers, &header::VARY)
            .any(|field| field == b"*" || field.eq_ignore_ascii_case(self.vary.as_bytes()));
        if !is_listed {
            headers.append(header::VARY, self.vary.clone());
        }
    }
}

/// Returns the token behind a scheme such as `Bearer `, if there is one.
fn token_behind<'v>(scheme: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    let (start, token) = value.trim_ascii().split_at_checked(scheme.len())?;
    let is_token = start.eq_ignore_ascii_case(scheme.as_bytes()) && !token.is_empty();
    is_token.then(|| token.trim_ascii())
}

pub(crate) fn sensitive(token: String) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns the members of a header that is a list.
fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let values = headers.get_all(name).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
