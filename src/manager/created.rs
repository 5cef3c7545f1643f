//! Sessions that begin outside a request.

use std::{fmt, ops::Deref};

use http::HeaderMap;

use super::{SessionManager, any_data::Data, core::Core, stored::StoredSession};
use crate::{decision::Live, error::SessionError, expiry::TimeoutChanges};

/// A session that [`SessionManager::create`] began, and the token that opens it. It derefs to the [`StoredSession`].
///
/// # Security
///
/// The token is the login: whoever has it has the session. [`Debug`](fmt::Debug) shows nothing of it.
#[derive(Clone)]
#[must_use = "nobody can use the session without its token"]
pub struct CreatedSession<T> {
    session: StoredSession<T>,
    token: String,
    headers: HeaderMap,
}

impl<T> CreatedSession<T> {
    /// Returns the token that the client sends: the value of the cookie, what follows `Bearer `, or the value of the
    /// transport's header.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the headers of a response that gives the token to its client.
    ///
    /// The transport decides: `Set-Cookie`, `X-Session-Token`, the header of its own name, or what the `set` of a
    /// [custom transport](crate::Transport::custom) writes. `Cache-Control: no-store` and `Vary` keep the response out
    /// of caches. A cookie comes with the removals of former cookies, so `Set-Cookie` may stand there several times.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl<T> Deref for CreatedSession<T> {
    type Target = StoredSession<T>;

    fn deref(&self) -> &StoredSession<T> {
        &self.session
    }
}

impl<T> fmt::Debug for CreatedSession<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedSession").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> SessionManager<T> {
    /// Begins a session outside a request, such as for a device that its user has approved, or from a command line.
    ///
    /// It is stored as a commit stores a fresh session, also where `data` is the default of `T`. Its id is 32 random
    /// bytes: [`id_generator`](crate::SessionManagerBuilder::id_generator) is not asked, since it wants a request. In
    /// cookie mode the token holds the data and nothing is stored. Where the store, the cookie or the audience depend
    /// on the request, call it on [`for_request`](Self::for_request).
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store is down.
    /// - [`SessionError::TooLarge`], [`SessionError::Encode`] and [`SessionError::Invalid`] as for a
    ///   [`commit`](crate::Session::commit).
    /// - [`SessionError::NoStore`] if `store_for` chooses the store, and no request or
    ///   [`with_store`](Self::with_store) named one.
    /// - [`SessionError::Config`] if `audience_for` chooses the tenant, and no request named one.
    ///
    /// # Security
    ///
    /// In a handler, log in through [`Session`](crate::Session) and its `regenerate`: `create` leaves the visitor's
    /// earlier session as it is.
    ///
    /// Do not put the token into a URL, since URLs end up in logs and histories. A magic link carries a random code of
    /// the application's own that works once. The session begins when the code comes back.
    ///
    /// # Cancellation
    ///
    /// Dropping the future may leave a row under an id that no client knows. It ends with its idle timeout.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    ///
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    /// /// Returns what the device sends as `Authorization: Bearer` from now on.
    /// async fn sign_in_device(
    ///     sessions: &SessionManager<Login>,
    ///     user: String,
    /// ) -> Result<String, SessionError> {
    ///     let created = sessions.create(Login { user: Some(user) }).await?;
    ///     println!("signed in until {}", created.expires_at());
    ///     Ok(created.token().to_owned())
    /// }
    /// ```
    pub async fn create(&self, mut data: T) -> Result<CreatedSession<T>, SessionError> {
        let (live, token, headers) = self.core.create(&mut data).await?;
        let session = StoredSession::new(live.key(), live.record, data, &self.core);
        Ok(CreatedSession { session, token, headers })
    }
}

impl Core {
    /// Begins a session of this data. Returns it, its token, and the headers that set the token.
    async fn create(
        &self,
        data: &mut Data,
    ) -> Result<(Box<Live>, String, HeaderMap), SessionError> {
        self.check_tenant("create")?;
        if !self.data_in_token() {
            self.rows_for("create")?;
        }
        let (now, carrier) = (self.now(), &self.tenant.carrier);
        let prepared = self.prepare(data, None)?;
        let lifetime = self.policy.begun(now, TimeoutChanges::default(), prepared.owner.is_some());
        let live = self.begin(None, &prepared, lifetime).await?;
        let token = self.token(&live, now)?;
        let told = self.header(token.clone(), &live.record, now)?;
        let mut headers = HeaderMap::new();
        carrier.put(Some(told), true, &mut headers);
        carrier.mark(true, &mut headers);
        Ok((live, token, headers))
    }
}
