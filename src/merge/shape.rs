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
//! | a string or character | text |
//! | a newtype struct with the name of a field type | that type |
//! | anything, as by untagged enums and for flattened members | untyped |
//! | anything else: a nested struct, an enum, a tuple, a number | value |
//!
//! `Option`s and newtypes are looked through, but a struct in an `Option` counts as nested. Nothing is noted
//! within a list, a value or a field type.

use std::{collections::HashMap, fmt};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor,
};
use serde_json::{Error, Value, map};

use crate::fields;

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
    Text,
    List,
    Counter,
    Latest,
    Set,
    Once,
    Members(Members),
}

/// The members of a struct or map.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(super) kind: Kind,
    pub(super) shapes: HashMap<String, Shape>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Struct,
    /// The keys are data.
    #[default]
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
            let _ = T::deserialize(Tracer { data, shape: &mut shape, is_top: true, parent: None });
        }
        shape
    }

    /// Notes one question. A place that is asked for in two ways is a plain value.
    fn note(&mut self, asked: Self) {
        if *self == Self::Unknown {
            *self = asked;
        } else if *self != asked {
            *self = Self::Value;
        }
    }

    fn note_members(&mut self, kind: Kind) -> Option<&mut Members> {
        if *self == Self::Unknown {
            *self = Self::Members(Members { kind, ..Members::default() });
        }
        if let Self::Members(members) = self {
            return Some(members);
        }
        *self = Self::Value;
        None
    }

    fn is_flattening(&self) -> bool {
        matches!(self, Self::Members(members) if members.kind == Kind::Flattening)
    }
}

impl Members {
    /// Returns `true` for a field of the struct, as opposed to a member that `#[serde(flatten)]` takes in.
    pub(super) fn is_field(&self, key: &str) -> bool {
        !matches!(self.shapes.get(key), None | Some(Shape::Untyped))
    }
}

/// Hands these methods of [`Deserializer`] on to the one that `$inner` returns.
macro_rules! forward {
    ($inner:ident: $($method:ident($($name:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($name: $type,)*
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.$inner().$method($($name,)* visitor)
        }
    )*};
}

/// Hands on all methods that ask for one value, without names or keys of members in it.
macro_rules! forward_values {
    ($inner:ident) => {
        forward! { $inner:
            deserialize_bool()
            deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
            deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
            deserialize_f32() deserialize_f64()
            deserialize_bytes() deserialize_byte_buf()
            deserialize_unit() deserialize_unit_struct(name: &'static str)
            deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        }
    };
}

/// Decodes `data`, and notes in `shape` how it is asked for.
struct Tracer<'de, 's> {
    data: &'de Value,
    shape: &'s mut Shape,
    /// This is the type itself, or a newtype of it.
    is_top: bool,
    /// The name of the struct that this is a member of, and whether that turned out to be an enum.
    parent: Option<(&'static str, &'s mut bool)>,
}

impl<'de> Tracer<'de, '_> {
    fn note(self, asked: Shape) -> &'de Value {
        self.shape.note(asked);
        self.data
    }

    fn untyped(self) -> &'de Value {
        self.note(Shape::Untyped)
    }

    fn value(self) -> &'de Value {
        self.note(Shape::Value)
    }

    fn text(self) -> &'de Value {
        self.note(Shape::Text)
    }

    fn list(self) -> &'de Value {
        self.note(Shape::List)
    }

    fn members<V: Visitor<'de>>(
        self,
        kind: Kind,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Object(object) = self.data else {
            return self.value().deserialize_map(visitor);
        };
        let Some(members) = self.shape.note_members(kind) else {
            return self.data.deserialize_map(visitor);
        };
        let entries = object.iter();
        let mut is_enum = false;
        let parent = (name, &mut is_enum);
        let decoded =
            self.data.deserialize_map(MembersVisitor { visitor, entries, members, parent });
        if is_enum || (!self.is_top && self.shape.is_flattening()) {
            *self.shape = Shape::Value;
        }
        decoded
    }
}

impl<'de> Deserializer<'de> for Tracer<'de, '_> {
    type Error = Error;

    forward! { untyped: deserialize_any() deserialize_ignored_any() }

    forward! { text: deserialize_char() deserialize_str() deserialize_string() }

    forward! { list: deserialize_seq() }

    forward! { value: deserialize_identifier() }

    forward_values! { value }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // An adjacently tagged enum asks for a struct of its own name, and in that for itself as the tag.
        if let Some((parent, is_enum)) = &mut self.parent {
            **is_enum |= *parent == name;
        }
        self.value().deserialize_enum(name, variants, visitor)
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
        let shape = match name {
            fields::COUNTER => Shape::Counter,
            fields::LATEST => Shape::Latest,
            fields::SET => Shape::Set,
            fields::ONCE => Shape::Once,
            _ => return visitor.visit_newtype_struct(self),
        };
        visitor.visit_newtype_struct(self.note(shape))
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
        if self.is_top && self.data.is_object() {
            self.members(Kind::Struct, name, visitor)
        } else {
            self.value().deserialize_struct(name, fields, visitor)
        }
    }
}

/// Visits a map beside its entries, since a [`MapAccess`] does not tell the keys.
struct MembersVisitor<'de, 's, V> {
    visitor: V,
    entries: map::Iter<'de>,
    members: &'s mut Members,
    parent: (&'static str, &'s mut bool),
}

impl<'de, V: Visitor<'de>> Visitor<'de> for MembersVisitor<'de, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { visitor, entries, members, parent } = self;
        visitor.visit_map(MembersAccess { access, entries, entry: None, members, parent })
    }
}

struct MembersAccess<'de, 's, A> {
    access: A,
    entries: map::Iter<'de>,
    /// The entry whose key was read last.
    entry: Option<(&'de String, &'de Value)>,
    members: &'s mut Members,
    parent: (&'static str, &'s mut bool),
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for MembersAccess<'de, '_, A> {
    type Error = A::Error;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error>
    where
        K: DeserializeSeed<'de>,
    {
        self.entry = self.entries.next();
        self.access.next_key_seed(KeyTracer { key: seed, kind: &mut self.members.kind })
    }

    fn next_value_seed<S>(&mut self, seed: S) -> Result<S::Value, A::Error>
    where
        S: DeserializeSeed<'de>,
    {
        self.access.next_value::<IgnoredAny>()?;
        let (key, data) =
            self.entry.take().ok_or_else(|| A::Error::custom("a value without a key"))?;
        let parent = Some((self.parent.0, &mut *self.parent.1));
        let shape = self.members.shapes.entry(key.clone()).or_default();
        seed.deserialize(Tracer { data, shape, is_top: false, parent }).map_err(A::Error::custom)
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint()
    }
}

/// Decodes a key, and notes if it is asked for as the name of a field.
struct KeyTracer<'s, K> {
    key: K,
    kind: &'s mut Kind,
}

impl<K> KeyTracer<'_, K> {
    fn any_key(self) -> K {
        self.key
    }

    fn name(self) -> K {
        if *self.kind == Kind::Map {
            *self.kind = Kind::Flattening;
        }
        self.key
    }
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeyTracer<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<K::Value, D::Error> {
        self.key.deserialize(KeyTracer { key, kind: self.kind })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for KeyTracer<'_, D> {
    type Error = D::Error;

    forward! { name: deserialize_identifier() }

    forward! { any_key:
        deserialize_any() deserialize_ignored_any()
        deserialize_char() deserialize_str() deserialize_string()
        deserialize_option() deserialize_newtype_struct(name: &'static str)
        deserialize_seq() deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }

    forward! { any_key: deserialize_enum(name: &'static str, variants: &'static [&'static str]) }

    forward_values! { any_key }
}
