//! A browser over a router.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

pub const COOKIE: &str = "__Host-session";
pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What came back for one request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The `Set-Cookie` headers, as text.
    pub fn set_cookies(&self) -> Vec<&str> {
        let cookies = self.headers.get_all(header::SET_COOKIE).iter();
        cookies.map(|cookie| cookie.to_str().unwrap()).collect()
    }

    /// The one `Set-Cookie` header.
    #[track_caller]
    pub fn set_cookie(&self) -> &str {
        match self.set_cookies()[..] {
            [cookie] => cookie,
            ref cookies => panic!("expected one Set-Cookie, got {cookies:?}"),
        }
    }

    /// The name and value of the one `Set-Cookie` header, if there is one, as a browser sends them back.
    #[track_caller]
    pub fn pair(&self) -> Option<String> {
        let has_one = !self.set_cookies().is_empty();
        has_one.then(|| self.set_cookie().split(';').next().unwrap().to_owned())
    }

    /// What `Set-Cookie` says of the one cookie: nothing, set or removed.
    #[track_caller]
    pub fn told(&self) -> &'static str {
        match self.set_cookies()[..] {
            [] => "nothing",
            [cookie] if cookie.contains("Max-Age=0;") => "removed",
            _ => {
                self.set_cookie();
                "set"
            }
        }
    }

    /// The value of the one `Set-Cookie` header.
    #[track_caller]
    pub fn token(&self) -> String {
        self.pair().expect("a cookie").split_once('=').unwrap().1.to_owned()
    }

    /// The `Max-Age` of the one `Set-Cookie` header, in seconds.
    #[track_caller]
    pub fn max_age(&self) -> Option<u64> {
        let mut attributes = self.set_cookie().split("; ");
        let seconds = attributes.find_map(|attribute| attribute.strip_prefix("Max-Age="))?;
        Some(seconds.parse().unwrap())
    }

    /// One header's values, joined as HTTP allows.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        let texts = values.iter().map(|value| value.to_str().unwrap());
        (!values.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
    }

    #[track_caller]
    pub fn expect(self, status: StatusCode, body: &str) -> Self {
        assert_eq!((self.status, &*self.body), (status, body));
        self
    }

    /// Expects a session error, which tells the client nothing of the inside.
    #[track_caller]
    pub fn expect_error(self, status: StatusCode) -> Self {
        assert_eq!(self.header("cache-control").as_deref(), Some("no-store"));
        self.expect(status, sentence_of(status))
    }

    #[track_caller]
    pub fn expect_status(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_no_cookie(self) -> Self {
        assert_eq!(self.set_cookies(), Vec::<&str>::new());
        self
    }
}

/// What a client reads of a session error.
pub fn sentence_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::CONFLICT => "Your session changed in the meantime, please try again.\n",
        StatusCode::FORBIDDEN => "This page is out of date, please load it again.\n",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The service is unavailable at the moment, please try again.\n"
        }
        _ => "The session could not be handled.\n",
    }
}

/// A client with a cookie jar, which keeps what a browser would until it is told to go.
#[derive(Clone)]
pub struct Browser {
    app: Router,
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(app: Router) -> Self {
        Self { app, jar: BTreeMap::new() }
    }

    /// The same jar in front of another node.
    pub fn at(&self, app: &Router) -> Self {
        Self { app: app.clone(), jar: self.jar.clone() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path)).await
    }

    pub async fn post(&mut self, path: &str) -> Answer {
        self.send(Request::post(path)).await
    }

    /// Sends a request with something in its extensions for the handler.
    pub async fn send_with(
        &mut self,
        request: http::request::Builder,
        extension: impl Clone + Send + Sync + 'static,
    ) -> Answer {
        self.send(request.extension(extension)).await
    }

    pub async fn send(&mut self, mut request: http::request::Builder) -> Answer {
        if !self.jar.is_empty() {
            let pairs = self.jar.iter().map(|(name, value)| format!("{name}={value}"));
            let pairs: Vec<_> = pairs.collect();
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        let answer = send(&self.app, request).await;
        for cookie in answer.set_cookies() {
            let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// The session cookie's value.
    #[track_caller]
    pub fn token(&self) -> String {
        self.jar.get(COOKIE).expect("a session cookie").clone()
    }

    pub fn has_session(&self) -> bool {
        self.jar.contains_key(COOKIE)
    }
}

/// Sends a request without a jar.
pub async fn send(app: &Router, request: http::request::Builder) -> Answer {
    let request = request.body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}
