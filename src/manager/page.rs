//! A page of stored sessions.

use std::{fmt, ops::Deref, slice, vec};

use super::{any_data::Data, stored::StoredSession};
use crate::{id::StoreKey, store::Cursor};

/// A page of stored sessions, from [`SessionManager::sessions`](crate::SessionManager::sessions) and
/// [`SessionManager::sessions_of`](crate::SessionManager::sessions_of), which have examples. It derefs to the list of
/// [`sessions`](Self::sessions).
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionPage<T> {
    /// The sessions of this page.
    pub sessions: Vec<StoredSession<T>>,
    /// The sessions of this page that this node cannot read: a newer version of the application or of this crate
    /// wrote them, or they are damaged. [`SessionManager::destroy`](crate::SessionManager::destroy) ends them too.
    pub unreadable: Vec<StoreKey>,
    /// The place at which the next page begins. It is `None` after the last page.
    pub next: Option<Cursor>,
}

impl<T> Deref for SessionPage<T> {
    type Target = [StoredSession<T>];

    fn deref(&self) -> &Self::Target {
        &self.sessions
    }
}

impl<T> fmt::Debug for SessionPage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPage")
            .field("sessions", &self.sessions)
            .field("unreadable", &self.unreadable)
            .field("next", &self.next)
            .finish()
    }
}

impl<'a, T> IntoIterator for &'a SessionPage<T> {
    type Item = &'a StoredSession<T>;
    type IntoIter = slice::Iter<'a, StoredSession<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> IntoIterator for SessionPage<T> {
    type Item = StoredSession<T>;
    type IntoIter = vec::IntoIter<StoredSession<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.sessions.into_iter()
    }
}

impl SessionPage<Box<Data>> {
    pub(super) fn typed<T: 'static>(self) -> SessionPage<T> {
        let sessions = self.sessions.into_iter().filter_map(StoredSession::typed).collect();
        SessionPage { sessions, unreadable: self.unreadable, next: self.next }
    }
}
