//! The handle by which a socket or a job reaches a session after the response.

use std::{
    any::{Any, type_name},
    fmt,
};

use crate::{
    decision::Live,
    error::SessionError,
    id::StoreKey,
    manager::{Core, DataOptions, SessionManager, StoredSession},
};

/// Access to a stored session after the response: for web sockets, streams and jobs.
///
/// [`Session::handle`](crate::Session::handle) makes one, and for a fresh session
/// [`SessionCommit::handle`](crate::SessionCommit::handle). It never creates a session, extends one or sets a cookie.
///
/// Once the session is logged out, cleared, or has a new id or another owner, its methods answer
/// [`SessionError::Gone`]. Nothing tells an open connection that its session has ended, so load the session again
/// before each step that needs the login, such as each message of a socket.
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
    pub(crate) manager: SessionManager<T>,
    pub(crate) key: StoreKey,
    /// The identity that the session belonged to when the handle was made.
    pub(crate) epoch: u64,
}

impl<T: Send + Sync + 'static> SessionHandle<T> {
    pub(crate) fn new(core: &Core, live: Option<&Live>) -> Result<Self, SessionError> {
        let data_type: &dyn Any = &*core.data;
        if !data_type.is::<DataOptions<T>>() {
            let (asked, actual) = (type_name::<T>(), core.type_name);
            return Err(SessionError::OtherType { asked, actual });
        }
        core.rows_for("handle")?;
        let live = live.ok_or(SessionError::NotSaved)?;
        let manager = SessionManager::new(core.clone());
        Ok(Self { manager, key: live.key(), epoch: live.record.epoch })
    }

    /// Returns the key under which the store keeps the session.
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns the session as it is stored now.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has ended, or has a new id or another owner.
    /// - [`SessionError::Store`] if the store is down.
    pub async fn load(&self) -> Result<StoredSession<T>, SessionError> {
        let core = &self.manager.core;
        let session = core.load_if("load", self.key, &|record| record.epoch == self.epoch).await?;
        session.and_then(StoredSession::typed).ok_or_else(|| core.gone(Some(self.key)))
    }

    /// Changes the session and keeps its expiry; see [`SessionManager::update`].
    ///
    /// # Errors
    ///
    /// As [`SessionManager::update`], and [`SessionError::Gone`] if the session has another owner.
    pub async fn update<R: Send>(
        &self,
        change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        self.manager.update_if(self.key, &|record| record.epoch == self.epoch, change).await
    }

    /// Ends the session. If it has already ended, this is a success.
    ///
    /// # Errors
    ///
    /// As [`SessionManager::destroy`], and [`SessionError::Gone`] if the session has another owner.
    pub async fn destroy(&self) -> Result<(), SessionError> {
        let core = &self.manager.core;
        core.destroy_if("destroy", self.key, &|record| record.epoch == self.epoch).await
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
