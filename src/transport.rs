//! The way of the token: a cookie, a header, or functions of the application.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{
    cookies::{CookieTemplate, plain_http},
    error::{BoxError, ConfigError},
    seal::Context,
};

type Get = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type Set = dyn Fn(&mut HeaderMap, Option<&str>) + Send + Sync;

/// The way in which the session token comes in and goes out, for
/// [`transport`](crate::SessionManagerBuilder::transport). Default: [`cookie`](Self::cookie).
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
///
/// [`guide::api_tokens`](crate::guide::api_tokens) shows an API with bearer tokens.
#[doc(alias("externalKey", "ContextStore"))]
#[derive(Clone)]
pub struct Transport(Result<Kind, &'static str>);

/// A transport that `build()` accepts.
#[derive(Clone)]
pub(crate) enum Kind {
    Cookie,
    /// `scheme` precedes the token in a request.
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

/// Headers that HTTP uses for another purpose, in requests or responses.
const RESERVED: &str = "accept accept-encoding accept-language accept-ranges age allow authorization cache-control \
    connection content-encoding content-length content-range content-type cookie date etag expect expires forwarded \
    host if-match if-modified-since if-none-match if-range last-modified link location max-forwards origin \
    proxy-authenticate proxy-authorization range referer retry-after server set-cookie te trailer \
    transfer-encoding upgrade user-agent vary via www-authenticate";

impl Transport {
    /// Uses a cookie, with the name and the attributes that [`cookie`](crate::SessionManagerBuilder::cookie) sets.
    /// That method has an example.
    pub const fn cookie() -> Self {
        Self(Ok(Kind::Cookie))
    }

    /// Reads the token from `Authorization: Bearer` (RFC 6750), and sends it in the response header
    /// `X-Session-Token`.
    ///
    /// An empty `X-Session-Token` tells the client to forget its token. A token in a response replaces the token
    /// that the client has:
    ///
    /// | | without a store | with a store |
    /// |---|---|---|
    /// | a response has a new token | after every save, and if [`rolling`](crate::SessionManagerBuilder::rolling) extends the session | after the first save and every [`regenerate`](crate::Session::regenerate); at times another token for the same id, as after a change of keys |
    /// | an earlier token | opens the session with its old data, until it expires | opens the session as it is now, until the session ends or gets a new id |
    ///
    /// See the [example](Self#example). [`guide::api_tokens`](crate::guide::api_tokens) has a whole API.
    ///
    /// # CORS
    ///
    /// A script of another origin can read `X-Session-Token` only if the response exposes it, and can send
    /// `Authorization` only if the server allows it. With `tower-http`:
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
    /// A missing or bad token is not an error: the session is fresh, which means that it was not loaded from the
    /// request. So the handler decides about the response. RFC 6750 asks for `WWW-Authenticate: Bearer`:
    ///
    /// ```
    /// use axum::{http::{StatusCode, header}, response::{IntoResponse, Response}};
    /// use axum_typed_session::{Session, SessionError};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn me(session: Session<Login>) -> Result<Response, SessionError> {
    ///     let body = match &session.user {
    ///         Some(user) => format!("hello {user}").into_response(),
    ///         None => {
    ///             let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
    ///             (StatusCode::UNAUTHORIZED, scheme).into_response()
    ///         }
    ///     };
    ///     Ok(session.commit().await?.wrap(body))
    /// }
    /// ```
    #[doc(alias("Authorization", "api token", "jwt"))]
    pub const fn bearer() -> Self {
        Self(Ok(Kind::Header {
            request: header::AUTHORIZATION,
            scheme: BEARER,
            response: HeaderName::from_static("x-session-token"),
        }))
    }

    /// Reads and sends the token in the header `name`, such as `"x-session"`.
    ///
    /// An empty header tells the client to forget its token. [`build`](crate::SessionManagerBuilder::build) refuses
    /// an invalid header name, and a header that HTTP uses for another purpose.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Key, SessionManager, Transport};
    ///
    /// let sessions = SessionManager::<u32>::builder()
    ///     .keys(Key::generate())
    ///     .transport(Transport::header("x-session"))
    ///     .build()?;
    /// # Ok::<(), axum_typed_session::ConfigError>(())
    /// ```
    pub fn header(name: impl TryInto<HeaderName>) -> Self {
        let Ok(name) = name.try_into() else {
            return Self(Err("the text is not a header name; use letters, digits and `-`"));
        };
        if RESERVED.split(' ').any(|reserved| reserved == name) {
            return Self(Err(
                "HTTP uses this header for another purpose; use `Transport::cookie()`, `Transport::bearer()` or a \
                 header such as `x-session`",
            ));
        }
        Self(Ok(Kind::Header { request: name.clone(), scheme: "", response: name }))
    }

    /// Uses functions of the application. `get` returns the token of a request. `set` puts the token into the
    /// headers of a response.
    ///
    /// `set` gets `None` if the client should forget its token. It is called for each guard in a response and by
    /// [`AutoCommitLayer`](crate::AutoCommitLayer), so it must replace what an earlier call wrote. The crate does not
    /// know the headers that `get` reads, so responses have `Vary: *`.
    ///
    /// # Example
    ///
    /// Requests have `Authorization: Session <token>`, and responses have the header `x-session`:
    ///
    /// ```
    /// use axum::http::{HeaderMap, HeaderValue, request::Parts};
    /// use axum_typed_session::Transport;
    ///
    /// fn get(parts: &Parts) -> Option<String> {
    ///     let value = parts.headers.get("authorization")?.to_str().ok()?;
    ///     value.strip_prefix("Session ").map(str::to_owned)
    /// }
    ///
    /// fn set(headers: &mut HeaderMap, token: Option<&str>) {
    ///     if let Ok(value) = HeaderValue::from_str(token.unwrap_or_default()) {
    ///         headers.insert("x-session", value);
    ///     }
    /// }
    ///
    /// let transport = Transport::custom(get, set);
    /// ```
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

/// A checked transport, with the facts about it that every request needs.
pub(crate) struct Carrier {
    pub(crate) kind: Kind,
    /// Used only where the transport is a cookie.
    pub(crate) template: CookieTemplate,
    /// The cookies that tokens were sent in before.
    pub(crate) formers: Vec<FormerCookie>,
    /// The cookie or header that contains the token, such as `cookie "__Host-session"`.
    pub(crate) description: String,
    /// The name of the transport. Tokens are bound to it, so that no other transport accepts them.
    pub(crate) name: &'static str,
    pub(crate) binding: Binding,
    /// The request header that responses depend on.
    vary: HeaderValue,
}

/// The tie of a token to the cookie or header that carries it. No other cookie or header opens it.
pub(crate) struct Binding {
    /// The associated data of a sealed token.
    pub(crate) context: Context,
    /// The text behind a plain id.
    pub(crate) suffix: String,
}

pub(crate) struct FormerCookie {
    pub(crate) template: CookieTemplate,
    /// `None` for a cookie of another library, which is only removed.
    pub(crate) binding: Option<Binding>,
}

impl Carrier {
    /// `bind` ties tokens to a transport, and to a cookie or header of it.
    pub(crate) fn new(
        transport: Transport,
        template: CookieTemplate,
        formers: Vec<(CookieTemplate, bool)>,
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
        let bound = |(template, has_tokens): (CookieTemplate, bool)| {
            let binding = has_tokens.then(|| bind(name, &template.identity));
            FormerCookie { template, binding }
        };
        let formers = formers.into_iter().map(bound).collect();
        let binding = bind(name, identity);
        Ok(Self { kind, template, formers, description, name, binding, vary })
    }

    /// Returns the cookie or header of two carriers that cannot be in one response, since one of them would replace
    /// or remove the token of the other.
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

    /// Returns the bytes of the name, which count towards the limit of a cookie.
    pub(crate) fn name_len(&self) -> usize {
        match &self.kind {
            Kind::Cookie => self.template.name.len(),
            Kind::Header { request, .. } => request.as_str().len(),
            Kind::Custom { .. } => 0,
        }
    }

    /// Calls `visit` with every token that arrived and its binding, in the order of the request. Tokens of former
    /// cookies come last, with `true`.
    ///
    /// An empty header is not a token, since it tells a client to forget its token. An empty cookie is a token.
    pub(crate) fn visit_tokens(&self, parts: &Parts, mut visit: impl FnMut(&[u8], &Binding, bool)) {
        let mut visit_current = |token: &[u8]| visit(token, &self.binding, false);
        match &self.kind {
            Kind::Cookie => self.template.visit_values(&parts.headers, visit_current),
            Kind::Header { request, scheme, .. } => {
                let values = parts.headers.get_all(request).iter();
                let tokens = values.filter_map(|value| token_behind(scheme, value.as_bytes()));
                tokens.for_each(visit_current);
            }
            Kind::Custom { get, .. } => {
                if let Some(token) = get(parts).filter(|token| !token.is_empty()) {
                    visit_current(token.as_bytes());
                }
            }
        }
        for FormerCookie { template, binding } in &self.formers {
            if let Some(binding) = binding {
                template.visit_values(&parts.headers, |token| visit(token, binding, true));
            }
        }
    }

    /// Returns the cookie that contains the token, unless it travels in another way.
    fn cookie(&self) -> Option<&CookieTemplate> {
        matches!(self.kind, Kind::Cookie).then_some(&self.template)
    }

    /// Returns the host of a request from a browser that will drop the cookie, since the cookie is Secure and the
    /// request came over plain http.
    pub(crate) fn host_that_drops<'p>(&self, parts: &'p Parts) -> Option<&'p str> {
        self.cookie().filter(|cookie| cookie.secure).and_then(|_| plain_http::host(parts))
    }

    /// Begins the text of the header that sets a token of this length. The token comes next.
    pub(crate) fn begin(&self, token_len: usize) -> String {
        self.cookie()
            .map_or_else(|| String::with_capacity(token_len), |cookie| cookie.begin(token_len))
    }

    /// Makes the header value from the text with the token, for `seconds` or until the browser closes.
    pub(crate) fn finish(
        &self,
        mut text: String,
        seconds: Option<u64>,
    ) -> Result<HeaderValue, BoxError> {
        if let Some(cookie) = self.cookie() {
            cookie.finish(&mut text, seconds)?;
        }
        sensitive(text)
    }

    /// Returns the header value that removes a token, which is empty except for cookies.
    pub(crate) fn removal(&self) -> HeaderValue {
        self.cookie().map_or(HeaderValue::from_static(""), |cookie| cookie.removal.clone())
    }

    /// Puts the header that sets or removes the token into a response, and with `removes_formers` and `removes_old` the
    /// headers that remove former cookies and the cookies of another library.
    ///
    /// It replaces the header of an earlier commit of the same request. `None` only removes that header.
    pub(crate) fn put(
        &self,
        told: Option<HeaderValue>,
        (removes_formers, removes_old): (bool, bool),
        headers: &mut HeaderMap,
    ) {
        match &self.kind {
            Kind::Cookie => {
                let is_removed = |former: &&FormerCookie| {
                    let removes =
                        if former.binding.is_some() { removes_formers } else { removes_old };
                    removes && told.is_some()
                };
                let removed = self.formers.iter().filter(is_removed);
                let removals: Vec<_> =
                    removed.map(|former| former.template.removal.clone()).collect();
                // As when the guard is in the response already.
                if removals.is_empty() && headers.get_all(header::SET_COOKIE).iter().eq(&told) {
                    return;
                }
                let cookies = self.take_others(headers).into_iter().chain(removals).chain(told);
                headers.extend(cookies.map(|cookie| (header::SET_COOKIE, cookie)));
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

    /// Takes all cookies out of a response, and returns those that this carrier neither set nor removed.
    fn take_others(&self, headers: &mut HeaderMap) -> Vec<HeaderValue> {
        let is_other = |cookie: &HeaderValue| {
            let removes = |former: &FormerCookie| former.template.removal == *cookie;
            !self.template.renders(cookie) && !self.formers.iter().any(removes)
        };
        let header::Entry::Occupied(entry) = headers.entry(header::SET_COOKIE) else {
            return Vec::new();
        };
        entry.remove_entry_mult().1.filter(is_other).collect()
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
    /// Appends the request header it depends on to `Vary` (RFC 9110, section 12.5.5). Sets `Cache-Control:
    /// no-store` if the response sets or removes a token and the handler did not forbid shared caches, and removes
    /// headers such as `CDN-Cache-Control` then. Otherwise sets a missing `Cache-Control` to `private`.
    pub(crate) fn mark(&self, is_told: bool, headers: &mut HeaderMap) {
        if is_told {
            forget_other_caches(headers);
        }
        let is_forbidden = lists(headers, &header::CACHE_CONTROL, [b"no-store", b"private"]);
        if is_told && !is_forbidden {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        } else if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        if !lists(headers, &header::VARY, [b"*", self.vary.as_bytes()]) {
            headers.append(header::VARY, self.vary.clone());
        }
    }
}

/// Removes the headers that name one kind of cache, such as `CDN-Cache-Control`. That kind obeys its header and
/// ignores `Cache-Control` (RFC 9213).
fn forget_other_caches(headers: &mut HeaderMap) {
    let is_other = |name: &str| name.ends_with("-cache-control") || name == "surrogate-control";
    let others: Vec<_> = headers.keys().filter(|name| is_other(name.as_str())).cloned().collect();
    others.iter().map(|name| headers.remove(name)).for_each(drop);
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

/// Returns `true` if a header that is a list has one of these members, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, members: [&[u8]; 2]) -> bool {
    let values = headers.get_all(name).iter();
    let mut listed = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    listed.any(|text| members.iter().any(|member| text.trim_ascii().eq_ignore_ascii_case(member)))
}
