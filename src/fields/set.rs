use std::{
    collections::{BTreeSet, btree_set},
    ops::{Deref, DerefMut},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SET, read};

/// A [`BTreeSet`] whose concurrent changes unite: what either request added is in, what either removed is out.
///
/// It never conflicts. The JSON is the list of its items, so a `Vec<V>` or a `HashSet<V>` can become a
/// `Set<V>` without a migration. An item that was edited counts as one removed and one added.
///
/// It unites as a field of the session's own type and as a value of a map in it. Inside a nested struct, an
/// enum, a list or below `#[serde(flatten)]` it is a part of that one value.
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
///     session.commit().await  // beside what other requests insert
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set<V>(BTreeSet<V>);

impl<V> Default for Set<V> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<V> Deref for Set<V> {
    type Target = BTreeSet<V>;

    fn deref(&self) -> &BTreeSet<V> {
        &self.0
    }
}

impl<V> DerefMut for Set<V> {
    fn deref_mut(&mut self) -> &mut BTreeSet<V> {
        &mut self.0
    }
}

impl<V> From<BTreeSet<V>> for Set<V> {
    fn from(items: BTreeSet<V>) -> Self {
        Self(items)
    }
}

impl<V: Ord> FromIterator<V> for Set<V> {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<V: Ord> Extend<V> for Set<V> {
    fn extend<I: IntoIterator<Item = V>>(&mut self, items: I) {
        self.0.extend(items);
    }
}

impl<V> IntoIterator for Set<V> {
    type Item = V;
    type IntoIter = btree_set::IntoIter<V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a Set<V> {
    type Item = &'a V;
    type IntoIter = btree_set::Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<V: Serialize> Serialize for Set<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(SET, &self.0)
    }
}

impl<'de, V: Deserialize<'de> + Ord> Deserialize<'de> for Set<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, SET).map(Self)
    }
}
