//! The encoding of session data as bytes.

use std::error::Error;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::BoxError;

/// Encodes session data as bytes and decodes it. Default: JSON. [`codec`](crate::SessionManagerBuilder::codec) sets
/// another codec.
///
/// `T` must read back from its own encoding; otherwise the next request would find no session. The manager checks
/// this before it stores or sends data. Builds with debug assertions check every save. Other builds check the first
/// 1,000 saves and every 64th save after them. Data that does not read back is
/// [`SessionError::Encode`](crate::SessionError::Encode). In JSON:
///
/// | data | result |
/// |---|---|
/// | NaN or infinity in an `f64` | is written as `null`, which does not read back |
/// | NaN or infinity in an `Option<f64>` | reads back as `None` |
/// | `Some(None)` | reads back as `None` |
/// | integers beyond 64 bits | are kept exactly, but data that contains one does not merge: the later of two concurrent changes is a [`Conflict`](crate::SessionError::Conflict) |
/// | more than 127 levels of nesting | does not read back |
/// | another order of the keys of a map | of a `HashMap` it is no change; of a map that keeps the order, such as `IndexMap`, it is saved, unless the type contains a `HashMap` too, and a merge sorts the keys: use a `Vec` of pairs if the order matters |
/// | `skip_serializing_if` without `#[serde(default)]` | does not read back if the field was left out |
///
/// Only data in JSON [merges](crate::guide::parallel_requests). The trait is object-safe.
///
/// # Example
///
/// ```
/// use axum_typed_session::Codec;
///
/// struct Visits { count: u32 }
/// struct Decimal;
/// type Error = Box<dyn std::error::Error + Send + Sync>;
///
/// impl Codec<Visits> for Decimal {
///     fn tag(&self) -> u8 { 200 }
///     fn encode(&self, visits: &Visits) -> Result<Vec<u8>, Error> {
///         Ok(visits.count.to_string().into_bytes())
///     }
///     fn decode(&self, bytes: &[u8]) -> Result<Visits, Error> {
///         Ok(Visits { count: str::from_utf8(bytes)?.parse()? })
///     }
/// }
/// ```
#[doc(alias("serializer", "encode", "decode", "postcard", "MessagePack"))]
pub trait Codec<T>: Send + Sync + 'static {
    /// Returns the number that marks this encoding in tokens and stored sessions. JSON is 1.
    ///
    /// Data with another tag counts as damaged. So choose a number of your own, and do not change it.
    fn tag(&self) -> u8;

    /// Encodes the data.
    ///
    /// # Errors
    ///
    /// Return an error if the encoding cannot express the data. It becomes
    /// [`SessionError::Encode`](crate::SessionError::Encode).
    fn encode(&self, data: &T) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;

    /// Decodes data that [`encode`](Self::encode) wrote. It must not panic, whatever the bytes are.
    ///
    /// # Errors
    ///
    /// Return an error for all other bytes. The session then counts as damaged, and a fresh session starts: a new
    /// session that was not loaded from the request.
    fn decode(&self, bytes: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>>;

    /// Returns `true` if two encodings hold the same data, so that no save is needed. Default: `true` if the bytes
    /// are equal.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }
}

/// The tag of [`JsonCodec`].
pub(crate) const JSON_TAG: u8 = 1;

/// Most sessions fit into this many bytes, so the buffer rarely grows.
const USUAL_BYTES: usize = 512;

/// The default codec, by `serde_json`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonCodec;

impl<T: Serialize + DeserializeOwned> Codec<T> for JsonCodec {
    fn tag(&self) -> u8 {
        JSON_TAG
    }

    fn encode(&self, data: &T) -> Result<Vec<u8>, BoxError> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, data)?;
        Ok(bytes)
    }

    /// Checks UTF-8 once for the whole text, which costs less than once for each string.
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_str(str::from_utf8(bytes)?)?)
    }

    /// A `HashMap` is written in another order each time, so the order of its members is no change. The order of a
    /// list, and of the members of other maps, is a change. Equal bytes never come here.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        if !may_be_reordered(one, other) {
            return false;
        }
        let parse = serde_json::from_slice::<Value>;
        matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other && is_exact(&one))
            && is_shuffled::<T>([one, other])
    }
}

/// Returns `true` if `T` writes the data of these texts in another order. Two members of a `HashMap` have the same
/// order in all of these attempts once in 2^16.
fn is_shuffled<T: Serialize + DeserializeOwned>(texts: [&[u8]; 2]) -> bool {
    let again = |text| JsonCodec.decode(text).and_then(|data: T| JsonCodec.encode(&data));
    (0..8).flat_map(|_| texts).any(|text| again(text).is_ok_and(|again| again != text))
}

/// Returns `false` if two texts certainly do not hold the same bytes in another order. Cheaper than parsing.
fn may_be_reordered(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // Most of two texts is equal, and arrays are compared many bytes at a time. The last part may be shorter.
    let differ = |one: &[u8], other: &[u8]| one.first_chunk::<32>() != other.first_chunk();
    let parts = one.chunks(32).zip(other.chunks(32));
    let parts = parts.filter(|(one, other)| one.len() < 32 || differ(one, other));
    let bytes = parts.flat_map(|(one, other)| one.iter().zip(other));
    bytes.map(|(one, other)| i64::from(*one) - i64::from(*other)).sum::<i64>() == 0
}

/// Returns `true` if a value has the exact numbers of its text. `Value` rounds integers beyond 64 bits.
pub(crate) fn is_exact(value: &Value) -> bool {
    /// A double holds every integer up to this one.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().is_some_and(|number| number.abs() < LARGEST)
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
