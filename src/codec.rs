//! How session data becomes bytes.

use std::error::Error;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Turns session data into bytes and back; JSON unless `.codec(..)` sets another.
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

    /// Says whether two encodings mean the same, so that nothing needs saving.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }
}

/// The tag of [`JsonCodec`].
pub(crate) const JSON_TAG: u8 = 1;

/// Most sessions fit, so that their bytes are not copied again and again as a buffer grows.
const USUAL_BYTES: usize = 512;

/// The default codec, of `serde_json`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JsonCodec;

impl<T: Serialize + DeserializeOwned + 'static> Codec<T> for JsonCodec {
    fn tag(&self) -> u8 {
        JSON_TAG
    }

    fn encode(&self, data: &T) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, data)?;
        Ok(bytes)
    }

    /// One check of UTF-8 for the whole is cheaper than one for each string.
    fn decode(&self, bytes: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>> {
        Ok(serde_json::from_str(str::from_utf8(bytes)?)?)
    }

    /// A `HashMap` is written in another order each time, which is no change.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let parse = serde_json::from_slice::<Value>;
        one == other
            || (may_be_reordered(one, other)
                && matches!(
                    (parse(one), parse(other)),
                    (Ok(one), Ok(other)) if one == other && is_exact(&one)
                ))
    }
}

/// Says whether equal values were equal texts: `Value` rounds integers that 64 bits do not hold.
fn is_exact(value: &Value) -> bool {
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

/// Says whether two texts may hold the same bytes in another order; cheap, and sure where it denies it.
///
/// Compares the sums of their bytes and of the squares. Most changes are small, and a part that is the
/// same in both adds the same to either side, so only parts that differ are summed.
fn may_be_reordered(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let parts = one.chunks(PART).zip(other.chunks(PART));
    let differing = parts.filter(|(one, other)| one != other);
    let bytes = differing.flat_map(|(one, other)| one.iter().zip(other));
    let (sums, squares) = bytes.fold((0, 0), |(sums, squares), (one, other)| {
        let (one, other) = (i64::from(*one), i64::from(*other));
        (sums + one - other, squares + one * one - other * other)
    });
    sums == 0 && squares == 0
}

/// What is compared at once: long enough for the processor's wide registers.
const PART: usize = 32;
