//! Sessions that begin outside a request.

use std::{fmt, ops::Deref};

use http::HeaderMap;

use super::{SessionManager, any_data::Data, core::Core, stored::StoredSession};
use crate::{
    decision::Live, error::SessionError, event::SessionEventKind as Kind, expiry::TimeoutChanges,
};

/// A session that [`SessionManager::create`] began, and its token. It derefs to the [`StoredSession`].
///
/// [`SessionManager::create`] has an example.
///
/// # Security
///
/// A client that has the token has the session. [`Debug`](fmt::Debug) shows nothing of the token.
#[derive(Clone)]
#[must_use = "no client can use the session without its token"]
pub struct CreatedSession<T> {
    session: StoredSession<T>,
    token: String,
    headers: HeaderMap,
}

impl<T> CreatedSession<T> {
    /// Returns the token that the client sends: the value of the cookie, the text after `Bearer `, or the value of
    /// the transport's header. The example of [`SessionManager::create`] returns it to a device.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the response headers that give the token to its client.
    ///
    /// The [transport](crate::Transport) decides: they contain `Set-Cookie`, `X-Session-Token`, the header that the
    /// transport names, or the headers that the `set` of a [custom transport](crate::Transport::custom) writes.
    /// `Cache-Control: no-store` and `Vary` keep the response out of caches. `Set-Cookie` can occur several times,
    /// since a cookie comes with the removals of former cookies.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::response::{IntoResponse, Response};
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// async fn first_session(
    ///     sessions: &SessionManager<Login>,
    ///     user: String,
    /// ) -> Result<Response, SessionError> {
    ///     let created = sessions.create(Login { user: Some(user) }).await?;
    ///     Ok((created.headers().clone(), "welcome").into_response())
    /// }
    /// ```
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
    /// The session is stored as the commit of a new session stores it, even if `data` is the default of `T`. Its id
    /// is 32 random bytes: [`id_generator`](crate::SessionManagerBuilder::id_generator) is not called, since it
    /// needs a request. Without a store, the token holds the data and nothing is stored. If the store, the cookie
    /// or the audience depend on the request, call `create` on [`for_request`](Self::for_request).
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::{SessionError, SessionManager};
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// # struct Login { user: Option<String> }
    ///
    /// /// Returns the token that the device sends as `Authorization: Bearer` from now on.
    /// async fn sign_in_device(
    ///     sessions: &SessionManager<Login>,
    ///     user: String,
    /// ) -> Result<String, SessionError> {
    ///     let created = sessions.create(Login { user: Some(user) }).await?;
    ///     println!("signed in until {}", created.expires_at());
    ///     Ok(created.token().to_owned())
    /// }
    /// ```
    ///
    /// [`guide::api_tokens`](crate::guide::api_tokens) has the whole API.
    ///
    /// # Errors
    ///
    /// - [`SessionError::Store`] if the store failed or did not answer.
    /// - [`SessionError::TooLarge`], [`SessionError::Encode`], [`SessionError::Invalid`],
    ///   [`SessionError::IdInUse`], [`SessionError::Seal`] and [`SessionError::Random`], as for a
    ///   [`commit`](crate::Session::commit).
    /// - [`SessionError::NoStore`] if [`store_for`](crate::SessionManagerBuilder::store_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request) or [`with_store`](Self::with_store).
    /// - [`SessionError::Config`] if [`audience_for`](crate::SessionManagerBuilder::audience_for) is set, and the
    ///   manager is not from [`for_request`](Self::for_request).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, a stored session may remain under an id that no client knows. It ends with its
    /// idle timeout.
    ///
    /// # Security
    ///
    /// In a handler, sign in with [`Session`](crate::Session) and its [`regenerate`](crate::Session::regenerate).
    /// `create` does not end the session that the visitor already has.
    ///
    /// Do not put the token into a URL, since URLs end up in logs and histories. A magic link contains a random
    /// code of the application that works once. The session begins when the code comes back.
    #[doc(alias("insert", "login", "sign in", "new session"))]
    pub async fn create(&self, mut data: T) -> Result<CreatedSession<T>, SessionError> {
        let (live, token, headers) = self.core.create(&mut data).await?;
        let session = StoredSession::new(live.key(), *live.record, data, &self.core);
        Ok(CreatedSession { session, token, headers })
    }
}

impl Core {
    /// Begins a session of this data. Returns it, its token, and the headers that set the token.
    async fn create(&self, data: &mut Data) -> Result<(Live, String, HeaderMap), SessionError> {
        self.check_tenant("create")?;
        if !self.data_in_token() {
            self.rows_for("create")?;
        }
        let (now, carrier) = (self.now(), &self.tenant.carrier);
        let prepared = self.prepare(data, None)?;
        let lifetime = self.policy.begun(now, TimeoutChanges::default(), prepared.owner.is_some());
        let mut live = self.new_live(None, self.record(&prepared, lifetime, 0))?;
        self.insert(None, &mut live).await?;
        self.report(Kind::Created, || live.key());
        self.end_surplus(live.key(), &mut live.record).await;
        let mut token = String::new();
        self.write_token(&live, now, &mut token)?;
        let copy = |into: &mut String| {
            into.push_str(&token);
            Ok(())
        };
        let told = self.header(&live.record, now, copy)?;
        let mut headers = HeaderMap::new();
        carrier.put(Some(told), (true, false), &mut headers);
        carrier.mark(true, &mut headers);
        Ok((live, token, headers))
    }
}
