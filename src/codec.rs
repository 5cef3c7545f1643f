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
                && matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other))
    }
}

/// Says whether two texts may hold the same bytes in another order; cheap, and sure where it denies it.
fn may_be_reordered(one: &[u8], other: &[u8]) -> bool {
    let sums = |text: &[u8]| {
        text.iter().fold((0_u32, 0_u32), |(sum, squares), byte| {
            let byte = u32::from(*byte);
            (sum.wrapping_add(byte), squares.wrapping_add(byte * byte))
        })
    };
    one.len() == other.len() && sums(one) == sums(other)
}
