//! How session data becomes bytes.

use std::{cell::Cell, error::Error, io};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{
    Serializer, Value,
    ser::{CompactFormatter, Formatter},
};

use crate::{
    error::BoxError,
    sets::{Sets, is_alike},
};

#[cfg(test)]
mod tests;

/// Turns session data into bytes and back; JSON unless `.codec(..)` sets another.
///
/// `T` must read back from what it writes, or the next request would find no session. What does not is
/// [`SessionError::Encode`](crate::SessionError::Encode) before anything is stored or sent:
///
/// - floats that are NaN or infinite, which JSON writes as `null`;
/// - more than 127 levels of JSON;
/// - anything else, such as `skip_serializing_if` without `#[serde(default)]`, but only in builds with debug
///   assertions, which decode all data before they save it. Others decode JSON where it is deep or holds a
///   `null`.
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

/// What the manager asks of a codec.
pub(crate) trait Encoding<T>: Send + Sync {
    fn tag(&self) -> u8;
    fn encode(&self, data: &T) -> Result<Encoded, BoxError>;
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError>;
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool;
}

/// Encoded data.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    /// It holds what might not decode.
    pub(crate) is_doubtful: bool,
}

/// A codec of the application's, which is trusted.
pub(crate) struct Custom<C>(pub(crate) C);

impl<T, C: Codec<T>> Encoding<T> for Custom<C> {
    fn tag(&self) -> u8 {
        self.0.tag()
    }

    fn encode(&self, data: &T) -> Result<Encoded, BoxError> {
        Ok(Encoded { bytes: self.0.encode(data)?.into(), is_doubtful: false })
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        self.0.decode(bytes)
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        self.0.is_same(one, other)
    }
}

/// The default codec, of `serde_json`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JsonCodec;

impl<T: Serialize + DeserializeOwned> Encoding<T> for JsonCodec {
    fn tag(&self) -> u8 {
        JSON_TAG
    }

    fn encode(&self, data: &T) -> Result<Encoded, BoxError> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        let is_doubtful = Cell::new(false);
        let watch = Watch { depth: 0, is_doubtful: &is_doubtful };
        data.serialize(&mut Serializer::with_formatter(&mut bytes, watch))?;
        Ok(Encoded { bytes: bytes.into(), is_doubtful: is_doubtful.get() })
    }

    /// One check of UTF-8 for the whole is cheaper than one for each string.
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_str(str::from_utf8(bytes)?)?)
    }

    /// A `HashMap` or `HashSet` is written in another order each time, which is no change.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        if one == other {
            return true;
        }
        if !may_be_reordered(one, other) {
            return false;
        }
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
        let (Ok(mut before), Ok(mut after)) = (parse(one), parse(other)) else {
            return false;
        };
        if before != after && is_alike(&before, &after) {
            let mut sets = Sets::default();
            sets.find(&before, [&after; 2], || {
                let data: T = self.decode(one).ok()?;
                parse(&self.encode(&data).ok()?.bytes).ok()
            });
            sets.sort(&mut before);
            sets.sort(&mut after);
        }
        before == after && is_exact(&before)
    }
}

/// Writes compact JSON, and notes what may not read back.
struct Watch<'a> {
    depth: u32,
    is_doubtful: &'a Cell<bool>,
}

/// `serde_json` reads no more levels than these.
const MAX_DEPTH: u32 = 127;

impl Watch<'_> {
    fn enter(&mut self) {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            self.is_doubtful.set(true);
        }
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

impl Formatter for Watch<'_> {
    /// `None`, but also a float that is not finite.
    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.is_doubtful.set(true);
        CompactFormatter.write_null(writer)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter();
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.leave();
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter();
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.leave();
        CompactFormatter.end_object(writer)
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
