//! What a socket or a job keeps of a session after the response.

use std::fmt;

use crate::{
    error::SessionError,
    id::StoreKey,
    manager::{SessionManager, StoredSession},
};

/// A stored session after its response is gone: for web sockets, streams and jobs.
///
/// It never creates a session, extends one or sets a cookie. After a logout, or once the session got a
/// new id or another owner, it is [`SessionError::Gone`]: ask again before whatever needs the login, such as each message of
/// a socket, since nothing tells an open connection that its session has ended.
///
/// # Example
///
/// ```
/// use axum_typed_session::{Session, SessionError};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Login { user: Option<String>, exports: u32 }
///
/// async fn start_export(session: Session<Login>) -> Result<&'static str, SessionError> {
///     let handle = session.handle()?;
///     tokio::spawn(async move {
///         // Minutes later, and only if nobody logged out:
///         match handle.update(|login| login.exports += 1).await {
///             Ok(()) => {}
///             Err(SessionError::Gone) => {}
///             Err(error) => eprintln!("the export is not counted: {error}"),
///         }
///     });
///     Ok("started")
/// }
/// ```
pub struct SessionHandle<T> {
    manager: SessionManager<T>,
    key: StoreKey,
    /// Whose session it was when the handle was made.
    epoch: u64,
}

impl<T: Send + Sync + 'static> SessionHandle<T> {
    pub(crate) fn new(manager: SessionManager<T>, key: StoreKey, epoch: u64) -> Self {
        Self { manager, key, epoch }
    }

    /// Returns what names the session to the store.
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns the session as it is stored now.
    ///
    /// # Errors
    ///
    /// [`SessionError::Gone`] if it has ended or got a new id, [`SessionError::Store`] when the store is
    /// down.
    pub async fn load(&self) -> Result<StoredSession<T>, SessionError> {
        self.manager.load_identity(self.key, self.epoch).await
    }

    /// Changes the session, keeping its expiry; see [`SessionManager::update`].
    ///
    /// # Errors
    ///
    /// As [`SessionManager::update`].
    pub async fn update<R>(&self, change: impl FnMut(&mut T) -> R) -> Result<R, SessionError> {
        self.manager.update_of(self.key, Some(self.epoch), change).await
    }

    /// Ends the session; ending an ended one is a success.
    ///
    /// # Errors
    ///
    /// As [`SessionManager::destroy`].
    pub async fn destroy(&self) -> Result<(), SessionError> {
        self.manager.destroy_identity(self.key, self.epoch).await
    }
}

impl<T> Clone for SessionHandle<T> {
    fn clone(&self) -> Self {
        Self { manager: self.manager.clone(), key: self.key, epoch: self.epoch }
    }
}

impl<T> fmt::Debug for SessionHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("key", &self.key).finish_non_exhaustive()
    }
}
