//! A page of the keys of a store.

use std::fmt;

use crate::id::StoreKey;

/// A page of keys, from [`SessionStore::list`](crate::SessionStore::list), which describes its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys of this page, in no particular order.
    pub keys: Vec<StoreKey>,
    /// The place at which the next page begins. It is `None` after the last page.
    pub next: Option<Cursor>,
}

/// The place in a list of sessions where a page ends and the next page begins.
///
/// Only the store that made it can read its bytes. A cursor stays valid while sessions begin and end.
///
/// # Example
///
/// ```
/// use axum_typed_session::store::Cursor;
///
/// let cursor = Cursor::new(b"where the engine continues".to_vec());
/// assert_eq!(cursor.as_bytes(), b"where the engine continues");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// Makes a cursor of the bytes from which the store can continue.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes. The type has an [example](Self#example).
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cursor {
    /// Shows no bytes, since they may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cursor").field(&format_args!("{} bytes", self.0.len())).finish()
    }
}
