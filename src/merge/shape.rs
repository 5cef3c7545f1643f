//! The shape of session data: which of its places are maps, lists, texts or field types, and which are one value.
//!
//! JSON does not tell a struct from a map or an enum. A `Deserialize` asks for each by a method of its own,
//! and for the field types by name. So [`Shape::of`] decodes data once more, through a [`Deserializer`] that
//! notes what is asked for:
//!
//! | asked for | shape |
//! |---|---|
//! | a struct, by the data's own type | members |
//! | a map, by that type or in such members | members |
//! | a sequence | list |
//! | an owned string or a character | text |
//! | a newtype struct with the name of a field type | that type |
//! | anything, as by untagged enums and for flattened members | untyped |
//! | an enum | enum, which merges as a value |
//! | anything else: a nested struct, a tuple, a number, a borrowed string, as by a number written as a text | value |
//!
//! `Option`s and newtypes are looked through, but a struct in an `Option` counts as nested. Nothing is noted
//! within a list, a value or a field type.

use std::{collections::HashMap, mem::discriminant};

use serde::{
    de::{
        DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor,
        value::BorrowedStrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value, map};

#[cfg(test)]
mod tests;

/// How the data at one place merges.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Shape {
    /// Not asked for, or an `Option` that was `None`.
    #[default]
    Unknown,
    Untyped,
    Value,
    /// The enum of this name.
    Enum(&'static str),
    Text,
    List,
    Counter,
    /// A `Latest`, and the shape of the value in it.
    Latest(Box<Self>),
    Set,
    Once,
    Members(Members),
}

/// The members of a struct or map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Members {
    pub(super) kind: Kind,
    pub(super) shapes: HashMap<String, Shape>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Struct,
    /// The keys are data.
    Map,
    /// A struct with `#[serde(flatten)]`, which asks for a map and then for names.
    Flattening,
}

impl Shape {
    /// Decodes three documents, and returns what `T` asked for in any of them.
    ///
    /// After an error the rest of a document is unknown.
    pub(crate) fn of<T: DeserializeOwned>(documents: [&Value; 3]) -> Self {
        let mut shape = Self::Unknown;
        for data in documents {
            let _ = T::deserialize(Tracer { data, shape: &mut shape, is_top: true });
        }
        shape
    }

    /// Notes one question. A place that is asked for in two ways is a plain value.
    fn note(&mut self, asked: Self) {
        if *self == Self::Unknown {
            *self = asked;
        } else if discriminant(self) != discriminant(&asked) {
            *self = Self::Value;
        }
    }
}

impl Members {
    /// Returns `true` unless `#[serde(flatten)]` takes this member in.
    pub(super) fn is_separate(&self, key: &str) -> bool {
        self.kind != Kind::Flattening
            || !matches!(self.shapes.get(key), None | Some(Shape::Untyped))
    }
}

/// Hands these methods of [`Deserializer`] on to another one.
macro_rules! forward {
    ($self:ident => $other:expr; $($method:ident($($name:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            $self,
            $($name: $type,)*
            visitor: V,
        ) -> Result<V::Value, Error> {
            $other.$method($($name,)* visitor)
        }
    )*};
}

/// Decodes `data`, and notes in `shape` how it is asked for.
struct Tracer<'de, 's> {
    data: &'de Value,
    shape: &'s mut Shape,
    /// This is the type itself, or a newtype of it.
    is_top: bool,
}

impl<'de> Tracer<'de, '_> {
    fn note(self, asked: Shape) -> &'de Value {
        self.shape.note(asked);
        self.data
    }

    fn members<V: Visitor<'de>>(
        self,
        kind: Kind,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.shape.note(Shape::Members(Members { kind, shapes: HashMap::new() }));
        let (Shape::Members(members), Value::Object(object)) = (&mut *self.shape, self.data) else {
            *self.shape = Shape::Value;
            return self.data.deserialize_any(visitor);
        };
        let decoded =
            visitor.visit_map(MembersAccess { members, entries: object.iter(), entry: None });
        // An adjacently tagged enum asks for a struct of its own name, and in that for itself as the tag.
        let is_enum = members.shapes.values().any(|shape| *shape == Shape::Enum(name));
        if is_enum || (members.kind == Kind::Flattening && !self.is_top) {
            *self.shape = Shape::Value;
        }
        decoded
    }
}

impl<'de> Deserializer<'de> for Tracer<'de, '_> {
    type Error = Error;

    forward! { self => self.note(Shape::Untyped); deserialize_any() deserialize_ignored_any() }

    forward! { self => self.note(Shape::Text);
        deserialize_char() deserialize_string()
    }

    forward! { self => self.note(Shape::List); deserialize_seq() }

    forward! { self => self.note(Shape::Value);
        deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64()
        deserialize_str() deserialize_bytes() deserialize_byte_buf() deserialize_identifier()
        deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
    }

    forward! { self => self.note(Shape::Enum(name));
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.data.is_null() {
            return visitor.visit_none();
        }
        visitor.visit_some(Self { is_top: false, ..self })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.shape.note(match name {
            "axum_typed_session::Counter" => Shape::Counter,
            "axum_typed_session::Latest" => Shape::Latest(Box::default()),
            "axum_typed_session::Set" => Shape::Set,
            "axum_typed_session::Once" => Shape::Once,
            _ => return visitor.visit_newtype_struct(self),
        });
        if let Shape::Latest(shape) = self.shape {
            return visitor.visit_newtype_struct(Tracer { shape, is_top: false, ..self });
        }
        visitor.visit_newtype_struct(self.data)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.members(Kind::Map, "", visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.is_top {
            self.members(Kind::Struct, name, visitor)
        } else {
            self.note(Shape::Value).deserialize_struct(name, fields, visitor)
        }
    }
}

struct MembersAccess<'de, 's> {
    members: &'s mut Members,
    entries: map::Iter<'de>,
    /// The entry whose key was read last.
    entry: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for MembersAccess<'de, '_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.entry = self.entries.next();
        let key = self.entry.map(|(text, _)| Key { text, kind: &mut self.members.kind });
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (key, data) =
            self.entry.take().ok_or_else(|| Error::custom("a value without a key"))?;
        let shape = self.members.shapes.entry(key.clone()).or_default();
        seed.deserialize(Tracer { data, shape, is_top: false })
    }
}

/// Decodes a key as `serde_json` does, and notes if it is asked for as the name of a field.
struct Key<'de, 's> {
    text: &'de str,
    kind: &'s mut Kind,
}

impl<'de> Deserializer<'de> for Key<'de, '_> {
    type Error = Error;

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if *self.kind == Kind::Map {
            *self.kind = Kind::Flattening;
        }
        visitor.visit_borrowed_str(self.text)
    }

    forward! { self => BorrowedStrDeserializer::new(self.text);
        deserialize_any()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct ignored_any
    }

    forward! { self => serde_json::Deserializer::from_str(self.text);
        deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }
}
