use std::{
    fmt,
    ops::{AddAssign, Deref, DerefMut, SubAssign},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{COUNTER, read};

/// A number whose concurrent changes add up: two requests that each count one leave two more.
///
/// The JSON is the plain number, so a field of an integer type can become a `Counter` without a migration.
/// Setting it is a change by the difference: while one request sets 5 to 0, another may still count one, and
/// 1 is left. A sum beyond 64 bits is a [`Conflict`](crate::SessionError::Conflict).
///
/// It adds up as a field of the session's own type and as a value of a map in it. Inside a nested struct, an
/// enum, a list or below `#[serde(flatten)]` it is a part of that one value.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Counter, Session, SessionCommit, SessionError};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Visits { count: Counter }
///
/// async fn index(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
///     session.count += 1;     // a hundred requests at once count a hundred
///     session.commit().await
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter(i64);

impl AddAssign<i64> for Counter {
    fn add_assign(&mut self, more: i64) {
        self.0 += more;
    }
}

impl SubAssign<i64> for Counter {
    fn sub_assign(&mut self, less: i64) {
        self.0 -= less;
    }
}

impl Deref for Counter {
    type Target = i64;

    fn deref(&self) -> &i64 {
        &self.0
    }
}

impl DerefMut for Counter {
    fn deref_mut(&mut self) -> &mut i64 {
        &mut self.0
    }
}

impl From<i64> for Counter {
    fn from(count: i64) -> Self {
        Self(count)
    }
}

impl PartialEq<i64> for Counter {
    fn eq(&self, other: &i64) -> bool {
        self.0 == *other
    }
}

impl PartialOrd<i64> for Counter {
    fn partial_cmp(&self, other: &i64) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(other)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(COUNTER, &self.0)
    }
}

impl<'de> Deserialize<'de> for Counter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, COUNTER).map(Self)
    }
}
