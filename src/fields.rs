//! Field types whose concurrent changes merge.
//!
//! Each is a serde newtype struct, so the JSON holds only the value. An existing field can get one of these types
//! without a migration, and no data can imitate the type. The merge recognizes the types by the name that their
//! `Deserialize` asks for.

use std::{
    collections::{BTreeSet, btree_set},
    fmt,
    ops::{AddAssign, Deref, DerefMut, SubAssign},
};

use serde::{Deserialize, Serialize};

/// Makes a newtype that derefs to its value.
macro_rules! field_type {
    ($(#[$meta:meta])* $name:ident$(<$v:ident>)?($inner:ty)) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        $(#[$meta])*
        pub struct $name$(<$v>)?($inner);

        impl$(<$v>)? Deref for $name$(<$v>)? {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl$(<$v>)? DerefMut for $name$(<$v>)? {
            fn deref_mut(&mut self) -> &mut $inner {
                &mut self.0
            }
        }

        impl$(<$v>)? From<$inner> for $name$(<$v>)? {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

field_type! {
    /// A number whose concurrent changes add up: if two requests each add one, the result is two more.
    ///
    /// The JSON is the plain number, so a field of an integer type can become a `Counter` without a migration. An
    /// assignment counts as the addition of the difference: if one request sets 5 to 0 while another adds one, the
    /// result is 1. `+=` and `-=` stop at the limits of an `i64`. If two requests together go beyond these limits,
    /// the later commit is a [`Conflict`](crate::SessionError::Conflict).
    ///
    /// It merges as a field of the session's own type, and as a value of a map in that type. A nested struct, an
    /// enum, a list and `#[serde(flatten)]` merge as one value, so it has no effect inside them.
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) compares the field types.
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
    ///     session.count += 1; // a hundred requests at once add a hundred
    ///     session.commit().await
    /// }
    /// ```
    #[derive(Copy, Default, PartialOrd, Ord)]
    #[serde(rename = "axum_typed_session::Counter")]
    Counter(i64)
}

field_type! {
    /// A value that a later commit may overwrite: if two requests change it, the value of the later commit is kept.
    ///
    /// Use it for a page number, a filter or the time of the last visit. A plain `String` merges in this way too.
    /// The JSON is only the value, so a field of type `V` can become a `Latest<V>` without a migration. In a
    /// type with a `HashSet`, a list whose items only changed their order counts as unchanged if the other request
    /// changed it.
    ///
    /// It merges as a field of the session's own type, and as a value of a map in that type. A nested struct, an
    /// enum, a list and `#[serde(flatten)]` merge as one value, so it has no effect inside them.
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) compares the field types.
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
    ///     session.commit().await // no conflict with a request that sets page 8
    /// }
    /// ```
    #[derive(Copy, Default)]
    #[serde(rename = "axum_typed_session::Latest")]
    Latest<V>(V)
}

field_type! {
    /// An `Option` that only one of two concurrent requests may change. The later commit is a
    /// [`Conflict`](crate::SessionError::Conflict), even if both requests set the same value.
    ///
    /// Use it for a value that is used once, such as a challenge or a coupon. If two requests `take` it, only one
    /// of them succeeds. The JSON is that of the `Option`, so an `Option<V>` can become a `Once<V>` without a
    /// migration. Unlike an `Option`, it needs `#[serde(default)]` if stored data may lack the field.
    ///
    /// It merges as a field of the session's own type, and as a value of a map in that type. A nested struct, an
    /// enum, a list and `#[serde(flatten)]` merge as one value, so it has no effect inside them.
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) compares the field types.
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
    ///     session.commit().await // an error if another request has taken it
    /// }
    /// ```
    #[doc(alias("nonce", "one-time"))]
    #[derive(Copy)]
    #[serde(rename = "axum_typed_session::Once")]
    Once<V>(Option<V>)
}

field_type! {
    /// A [`BTreeSet`](std::collections::BTreeSet) that keeps the additions and removals of concurrent requests.
    ///
    /// It never conflicts, unless the session contains an integer beyond 64 bits. The JSON is the list of its items, so a `Vec<V>` or a `HashSet<V>` can become a `Set<V>`
    /// without a migration. An edited item counts as one removed item and one added item.
    ///
    /// It merges as a field of the session's own type, and as a value of a map in that type. A nested struct, an
    /// enum, a list and `#[serde(flatten)]` merge as one value, so it has no effect inside them.
    /// [`guide::parallel_requests`](crate::guide::parallel_requests) compares the field types.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{Session, SessionCommit, SessionError, Set};
    ///
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct Visits { pages: Set<String> }
    ///
    /// async fn about(mut session: Session<Visits>) -> Result<SessionCommit, SessionError> {
    ///     session.pages.insert("about".to_owned());
    ///     session.commit().await // the insertions of other requests are kept too
    /// }
    /// ```
    #[serde(rename = "axum_typed_session::Set", bound(deserialize = "V: Deserialize<'de> + Ord"))]
    Set<V>(BTreeSet<V>)
}

impl AddAssign<i64> for Counter {
    fn add_assign(&mut self, more: i64) {
        self.0 = self.0.saturating_add(more);
    }
}

impl SubAssign<i64> for Counter {
    fn sub_assign(&mut self, less: i64) {
        self.0 = self.0.saturating_sub(less);
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

impl<V> Latest<V> {
    /// Returns the value.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::Latest;
    ///
    /// assert_eq!(Latest::from(7).into_inner(), 7);
    /// ```
    pub fn into_inner(self) -> V {
        self.0
    }
}

impl<V> Default for Once<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> From<V> for Once<V> {
    fn from(value: V) -> Self {
        Self(Some(value))
    }
}

impl<V> Default for Set<V> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<V: Ord> FromIterator<V> for Set<V> {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<'a, V> IntoIterator for &'a Set<V> {
    type Item = &'a V;
    type IntoIter = btree_set::Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<V> IntoIterator for Set<V> {
    type Item = V;
    type IntoIter = btree_set::IntoIter<V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
