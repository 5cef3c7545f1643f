//! The cookie of another library, and what may be read from it.

use std::{borrow::Cow, str};

use base64::{
    Engine as _,
    alphabet::Alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use cookie::Cookie;
use http::HeaderMap;
use serde_json::Value;

use crate::cookies::{NAME_VALUE_LIMIT, values_of};

/// More values of one name are not tried. An honest browser sends one, or one for each Path and Domain.
const MOST_VALUES: usize = 4;

/// The most levels of JSON that are read.
pub(super) const MOST_LEVELS: usize = 64;

/// The function of the application that takes what it needs from the data of an old session.
pub(super) type Take<T> = Box<dyn Fn(Value) -> Option<T> + Send + Sync>;

/// The cookie of another library.
pub(super) struct OldCookie(pub(super) Cookie<'static>);

impl OldCookie {
    pub(super) fn named(name: &'static str) -> Self {
        Self(Cookie::new(name, ""))
    }

    /// Returns the values that a request brought, each of which may be the session.
    pub(super) fn values<'h>(&'h self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
        values(headers, self.0.name())
    }

    /// Returns the cookie with this value behind its name.
    pub(super) fn with(&self, value: &str) -> Cookie<'static> {
        Cookie::new(self.0.name().to_owned(), value.to_owned())
    }

    /// Returns the name of the cookie that holds the signature of this one.
    pub(super) fn signature_name(&self) -> String {
        format!("{}.sig", self.0.name())
    }

    /// Returns the cookie and the cookie of its signature, to be removed.
    pub(super) fn with_signature(&self) -> Vec<Cookie<'static>> {
        let mut signature = self.0.clone();
        signature.set_name(self.signature_name());
        vec![self.0.clone(), signature]
    }
}

/// Returns the first values that came under a name and that a browser could have kept.
pub(super) fn values<'h>(
    headers: &'h HeaderMap,
    name: &'h str,
) -> impl Iterator<Item = &'h str> + 'h {
    let values = values_of(headers, name).take(MOST_VALUES);
    values
        .filter(|value| value.len() <= NAME_VALUE_LIMIT)
        .filter_map(|value| str::from_utf8(value).ok().filter(|value| !value.is_empty()))
}

/// Decodes base64 with or without padding. Every text of the same bytes is read, so the bytes identify the session.
pub(super) fn decode(alphabet: &Alphabet, text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

/// Undoes the percent-encoding of a value.
pub(super) fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(value).decode_utf8().ok()
}

/// Reads JSON that is not too deep.
pub(super) fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(|value| is_shallow(value, MOST_LEVELS))
}

/// Returns `true` if a value has at most so many levels.
pub(super) fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_shallow(item, below)),
        Value::Object(fields) => fields.values().all(|field| is_shallow(field, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
