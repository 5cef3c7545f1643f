use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LATEST, read};

/// A value that may be overwritten: of two concurrent changes the later commit's stands.
///
/// For a page number, a filter or a time that was last seen. A plain `String` merges so by itself. The JSON
/// is the value alone, so a field of type `V` can become a `Latest<V>` without a migration.
///
/// It does so as a field of the session's own type and as a value of a map in it. Inside a nested struct, an
/// enum, a list or below `#[serde(flatten)]` it is a part of that one value.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Latest, Session, SessionCommit, SessionError};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Visits { page: Latest<u32> }
///
/// async fn turn(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
///     *session.page = 7;
///     session.commit().await  // no conflict with a request that turns to page 8
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Latest<V>(V);

impl<V> Latest<V> {
    /// Returns the value.
    pub fn into_inner(self) -> V {
        self.0
    }
}

impl<V> Deref for Latest<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0
    }
}

impl<V> DerefMut for Latest<V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.0
    }
}

impl<V> From<V> for Latest<V> {
    fn from(value: V) -> Self {
        Self(value)
    }
}

impl<V: Serialize> Serialize for Latest<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(LATEST, &self.0)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Latest<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, LATEST).map(Self)
    }
}
