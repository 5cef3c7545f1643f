//! Field types whose concurrent changes merge.
//!
//! Each is a serde newtype struct, so the JSON holds the value alone: an existing field can become one of these
//! without a migration, and no data can pretend to be one. The merge knows them by the name that their
//! `Deserialize` asks for.

mod counter;
mod latest;
mod once;
mod set;

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de::Visitor};

pub use self::{counter::Counter, latest::Latest, once::Once, set::Set};

pub(crate) const COUNTER: &str = "axum_typed_session::Counter";
pub(crate) const LATEST: &str = "axum_typed_session::Latest";
pub(crate) const ONCE: &str = "axum_typed_session::Once";
pub(crate) const SET: &str = "axum_typed_session::Set";

/// Reads the value inside the newtype struct of this name.
fn read<'de, D, V>(deserializer: D, name: &'static str) -> Result<V, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_newtype_struct(name, Inside(PhantomData))
}

struct Inside<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Inside<V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a newtype struct")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V, D::Error> {
        V::deserialize(inner)
    }
}
