//! Session data without its type, so that only this file and the public methods are compiled for each type.

use std::{any::Any, sync::Arc};

use http::request::Parts;
use serde_json::Value;

use crate::{codec::Codec, error::BoxError, event::EndReason, merge::Shape};

/// The data of a session.
pub(crate) type Data = dyn Any + Send + Sync;

/// The type of a session's data, with the options that depend on it.
pub(crate) trait DataType: Any + Send + Sync {
    fn default(&self) -> Box<Data>;
    fn encode(&self, data: &Data) -> Result<Vec<u8>, BoxError>;
    fn decode(&self, bytes: &[u8]) -> Result<Box<Data>, BoxError>;
    /// Returns `true` if two encodings hold the same data.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool;
    /// Calls `validate_data`, and with a request `validate`.
    fn is_valid(&self, data: &Data, parts: Option<&Parts>) -> bool;
    /// Runs `before_save`; `false` if there is none.
    fn prepare(&self, data: &mut Data) -> bool;
    fn owner(&self, data: &Data) -> Option<String>;
    /// Returns how these documents merge.
    fn shape(&self, documents: [&Value; 3]) -> Shape;
    /// Returns `true` if there is an `on_end`.
    fn is_told_ends(&self) -> bool;
    fn tell_end(&self, data: Box<Data>, why: EndReason);
}

/// The options that depend on the data type.
pub(crate) struct DataOptions<T> {
    pub(crate) default: fn() -> T,
    pub(crate) shape: fn([&Value; 3]) -> Shape,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) validate: Box<Validate<T>>,
    pub(crate) validate_data: Box<ValidateData<T>>,
    pub(crate) before_save: Option<Box<BeforeSave<T>>>,
    pub(crate) owner: Box<Owner<T>>,
    pub(crate) on_end: Option<Box<OnEnd<T>>>,
}

type Validate<T> = dyn Fn(&Parts, &T) -> bool + Send + Sync;
type ValidateData<T> = dyn Fn(&T) -> bool + Send + Sync;
type BeforeSave<T> = dyn Fn(&mut T) + Send + Sync;
type Owner<T> = dyn Fn(&T) -> Option<String> + Send + Sync;
type OnEnd<T> = dyn Fn(T, EndReason) + Send + Sync;

impl<T: Send + Sync + 'static> DataType for DataOptions<T> {
    fn default(&self) -> Box<Data> {
        Box::new((self.default)())
    }

    fn encode(&self, data: &Data) -> Result<Vec<u8>, BoxError> {
        self.codec.encode(data.downcast_ref().ok_or("the data has another type than the manager")?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<Data>, BoxError> {
        Ok(Box::new(self.codec.decode(bytes)?))
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        self.codec.is_same(one, other)
    }

    fn is_valid(&self, data: &Data, parts: Option<&Parts>) -> bool {
        data.downcast_ref().is_some_and(|data| {
            (self.validate_data)(data) && parts.is_none_or(|parts| (self.validate)(parts, data))
        })
    }

    fn prepare(&self, data: &mut Data) -> bool {
        let before_save = self.before_save.as_ref().zip(data.downcast_mut());
        before_save.map(|(before_save, data)| before_save(data)).is_some()
    }

    fn owner(&self, data: &Data) -> Option<String> {
        data.downcast_ref().and_then(|data| (self.owner)(data))
    }

    fn shape(&self, documents: [&Value; 3]) -> Shape {
        (self.shape)(documents)
    }

    fn is_told_ends(&self) -> bool {
        self.on_end.is_some()
    }

    fn tell_end(&self, data: Box<Data>, why: EndReason) {
        if let (Some(on_end), Ok(data)) = (&self.on_end, data.downcast()) {
            on_end(*data, why);
        }
    }
}
