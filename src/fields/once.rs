use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ONCE, read};

/// An `Option` that only one of two concurrent requests may change: the later commit is a
/// [`Conflict`](crate::SessionError::Conflict), even if both made the same of it.
///
/// For what is used once: a challenge, a coupon, a form's token. Two requests that both `take` it do not both
/// succeed. The JSON is that of the `Option`, so an `Option<V>` can become a `Once<V>` without a migration;
/// other than an `Option`, it needs `#[serde(default)]` where the data may lack the field.
///
/// It holds as a field of the session's own type and as a value of a map in it. A nested struct, an enum, a
/// list and all that `#[serde(flatten)]` brings in are one value each, in which it is a part.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Once, Session, SessionCommit, SessionError};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Login { challenge: Once<String> }
///
/// async fn prove(mut session: Session<Login>) -> Result<SessionCommit, SessionError> {
///     let _challenge = session.challenge.take();
///     session.commit().await  // an error if another request has taken it
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Once<V>(Option<V>);

impl<V> Default for Once<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> Deref for Once<V> {
    type Target = Option<V>;

    fn deref(&self) -> &Option<V> {
        &self.0
    }
}

impl<V> DerefMut for Once<V> {
    fn deref_mut(&mut self) -> &mut Option<V> {
        &mut self.0
    }
}

impl<V> From<V> for Once<V> {
    fn from(value: V) -> Self {
        Self(Some(value))
    }
}

impl<V> From<Option<V>> for Once<V> {
    fn from(value: Option<V>) -> Self {
        Self(value)
    }
}

impl<V: Serialize> Serialize for Once<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ONCE, &self.0)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Once<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, ONCE).map(Self)
    }
}
