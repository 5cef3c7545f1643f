//! A transport as its client sees it, for tests: tokens come in responses and go out in requests.

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::{
    error::BoxError,
    transport::{Carrier, Kind, sensitive},
};

/// The effect of a response on the token of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Nothing,
    Token(String),
    Removal,
}

impl Carrier {
    /// Reads a response as a client would.
    pub(super) fn receive(&self, response: &HeaderMap) -> Received {
        match &self.kind {
            Kind::Cookie => {
                let cookies = response.get_all(header::SET_COOKIE).iter();
                // Removals of former cookies come before the cookie itself.
                let ours = cookies.filter(|cookie| self.template.renders(cookie)).last();
                let pair =
                    ours.and_then(|cookie| cookie.as_bytes().split(|byte| *byte == b';').next());
                let value = pair.and_then(|pair| pair.get(self.template.name.len() + 1..));
                Received::of_value(value)
            }
            Kind::Header { response: name, .. } => {
                Received::of_value(response.get(name).map(HeaderValue::as_bytes))
            }
            Kind::Custom { get, .. } => {
                let (mut parts, ()) = Request::new(()).into_parts();
                parts.headers = response.clone();
                Received::of_value(get(&parts).as_deref().map(str::as_bytes))
            }
        }
    }

    /// Renders the request header that carries a token.
    pub(super) fn request_header(
        &self,
        token: &str,
    ) -> Result<(HeaderName, HeaderValue), BoxError> {
        match &self.kind {
            Kind::Cookie => {
                let cookie = format!("{}={token}", self.template.name);
                Ok((header::COOKIE, sensitive(cookie)?))
            }
            Kind::Header { request, scheme, .. } => {
                Ok((request.clone(), sensitive(format!("{scheme}{token}"))?))
            }
            Kind::Custom { set, .. } => {
                let mut headers = HeaderMap::new();
                set(&mut headers, Some(token));
                let first = headers.iter().next();
                let (name, value) =
                    first.ok_or("the `set` function of the transport wrote no header")?;
                Ok((name.clone(), value.clone()))
            }
        }
    }
}

impl Received {
    fn of_value(value: Option<&[u8]>) -> Self {
        match value.map(str::from_utf8) {
            Some(Ok("")) => Self::Removal,
            Some(Ok(token)) => Self::Token(token.to_owned()),
            Some(Err(_)) | None => Self::Nothing,
        }
    }
}
