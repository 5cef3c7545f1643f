//! The handle with which a socket or a job reaches a session after the response.

use std::{
    any::{Any, type_name},
    fmt,
    time::Duration,
};

use crate::{
    decision::Live,
    error::SessionError,
    id::StoreKey,
    manager::{Core, DataOptions, SessionManager, StoredSession},
};

/// The longest time between two looks of [`SessionHandle::ended`] at the store.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Access to a stored session after the response, for web sockets, streams and jobs.
///
/// [`Session::handle`](crate::Session::handle) returns it, and after a commit
/// [`SessionCommit::handle`](crate::SessionCommit::handle) does. It needs a
/// [store](crate::SessionManagerBuilder::store). It never creates a session, extends its life or sets a cookie.
///
/// [`load`](Self::load) and [`update`](Self::update) return [`SessionError::Gone`] once the session has ended, was
/// cleared, or has a new id or another owner. So load the session again before each step that needs the sign-in, such
/// as each message of a socket. [`ended`](Self::ended) waits for the end of the session, to close a connection.
/// [`guide::websockets`](crate::guide::websockets) shows this.
///
/// # Example
///
/// ```
/// use axum::response::IntoResponse;
/// use axum_typed_session::{Session, SessionError};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
///
/// async fn start(session: Session<Visits>) -> Result<impl IntoResponse, SessionError> {
///     let handle = session.handle()?;
///     tokio::spawn(async move {
///         // Minutes later, if the session has not ended:
///         match handle.update(|visits| visits.count += 1).await {
///             Ok(()) | Err(SessionError::Gone) => {}
///             Err(error) => eprintln!("the visit is not counted: {error}"),
///         }
///     });
///     session.commit().await
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

    /// Returns the key under which the store keeps the session, such as for
    /// [`SessionManager::destroy`](crate::SessionManager::destroy), which has an example.
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// Returns the session as it is stored now. The example of
    /// [`SessionCommit::handle`](crate::SessionCommit::handle) loads it once a second.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has ended, or has a new id or another owner.
    /// - [`SessionError::Store`] if the store failed or did not answer.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias("get", "refresh", "reload"))]
    pub async fn load(&self) -> Result<StoredSession<T>, SessionError> {
        let core = &self.manager.core;
        let session = core.load_if("load", self.key, &|record| record.epoch == self.epoch).await?;
        session.and_then(StoredSession::typed).ok_or_else(|| core.gone(Some(self.key)))
    }

    /// Changes the stored session, keeps its expiry, and returns the result of `change`. See the
    /// [example](Self#example).
    ///
    /// If another writer writes first, `change` runs again on the newest stored data. So it should do nothing but
    /// change the data.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has ended, or has a new id or another owner.
    /// - All other errors of [`SessionManager::update`].
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the stored session is entirely old or entirely new.
    pub async fn update<R: Send>(
        &self,
        change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, SessionError> {
        self.manager.update_if(self.key, &|record| record.epoch == self.epoch, change).await
    }

    /// Waits until the session has ended: by a sign-out, by expiry, or because it has a new id or another owner.
    ///
    /// It asks the store every five seconds, and at the expiry. So it returns at most five seconds, and the time of
    /// one store call, after the end, on every node and with every store. A store that does not answer is asked
    /// again, since that is no end of the session.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::SessionHandle;
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// # async fn serve_messages() {}
    ///
    /// async fn socket(handle: SessionHandle<Login>) {
    ///     tokio::select! {
    ///         () = serve_messages() => {}
    ///         () = handle.ended() => println!("signed out, so the socket closes"),
    ///     }
    /// }
    /// ```
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, nothing has changed.
    #[doc(alias("closed", "wait", "notify"))]
    pub async fn ended(&self) {
        let core = &self.manager.core;
        loop {
            let mut pause = BETWEEN_LOOKS;
            match self.load().await {
                Ok(session) => {
                    let left = session.expires_at() - core.clock.now();
                    // Just after the expiry, when the session has surely ended.
                    let left = left + time::Duration::milliseconds(1);
                    let left = left.try_into().unwrap_or_default();
                    pause = pause.min(left).max(Duration::from_millis(1));
                }
                Err(SessionError::Gone) => return,
                // The store is down, or a newer node wrote the session. Neither ends it.
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends the session. If it has already ended, the call succeeds.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionHandle};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// /// The socket got the message "sign out".
    /// async fn sign_out(handle: SessionHandle<Login>) -> Result<(), SessionError> {
    ///     handle.destroy().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SessionError::Gone`] if the session has a new id or another owner.
    /// - [`SessionError::Store`] unless it is certain that the session has ended.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the session may have ended or not. It is safe to call again.
    #[doc(alias("logout", "sign out"))]
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
