//! How session data becomes bytes.

use std::error::Error;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::BoxError;

/// Turns session data into bytes and back; JSON unless `.codec(..)` sets another.
///
/// `T` must read back from what it writes, or the next request would find no session. The manager checks that
/// before it stores or sends anything: at every save in builds with debug assertions, and in others at the first
/// 1,000 saves and every 64th after. Data that does not read back is
/// [`SessionError::Encode`](crate::SessionError::Encode). In JSON:
///
/// | data | result |
/// |---|---|
/// | NaN or infinity in an `f64` | written as `null`, which does not read back |
/// | NaN or infinity in an `Option<f64>` | comes back as `None` |
/// | `Some(None)` | comes back as `None` |
/// | integers beyond 64 bits | kept exactly, but data that holds one does not merge: of two requests that change it at once one is a [`Conflict`](crate::SessionError::Conflict) |
/// | more than 127 levels | does not read back |
/// | `skip_serializing_if` without `#[serde(default)]` | does not read back where the field was left out |
///
/// Object-safe. An implementation must not panic on any bytes.
pub trait Codec<T>: Send + Sync + 'static {
    /// Returns the number that marks this encoding in tokens and rows; JSON is 1.
    ///
    /// Data under another tag is read as corrupt, so choose one of your own and keep it.
    fn tag(&self) -> u8;

    /// Encodes the data.
    ///
    /// # Errors
    ///
    /// Whatever the encoding cannot express; it becomes [`SessionError::Encode`](crate::SessionError::Encode).
    fn encode(&self, data: &T) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;

    /// Decodes data that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// Anything else; the session then counts as corrupt and a fresh one starts.
    fn decode(&self, bytes: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>>;

    /// Returns `true` if two encodings mean the same, so that nothing needs saving.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }
}

/// The tag of [`JsonCodec`].
pub(crate) const JSON_TAG: u8 = 1;

/// Most sessions fit, so that their bytes are not copied again and again as a buffer grows.
const USUAL_BYTES: usize = 512;

/// The default codec, of `serde_json`.
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

    /// One check of UTF-8 for the whole is cheaper than one for each string.
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_str(str::from_utf8(bytes)?)?)
    }

    /// A `HashMap` is written in another order each time, which is no change. The order of a list is one.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        if one == other {
            return true;
        }
        if !may_be_reordered(one, other) {
            return false;
        }
        let parse = serde_json::from_slice::<Value>;
        matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other && is_exact(&one))
    }
}

/// Returns `true` if two texts may hold the same bytes in another order; `false` is certain, and cheap.
fn may_be_reordered(one: &[u8], other: &[u8]) -> bool {
    // Most of two texts is equal, and long parts are compared many bytes at a time.
    let parts = one.chunks(32).zip(other.chunks(32)).filter(|(one, other)| one != other);
    let bytes = parts.flat_map(|(one, other)| one.iter().zip(other));
    let difference: i64 = bytes.map(|(one, other)| i64::from(*one) - i64::from(*other)).sum();
    one.len() == other.len() && difference == 0
}

/// Returns `true` if a value holds all that its text did: `Value` rounds integers beyond 64 bits.
pub(crate) fn is_exact(value: &Value) -> bool {
    /// Up to here a double holds every integer.
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
