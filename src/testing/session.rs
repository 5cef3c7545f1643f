use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::client::Received;
use crate::{error::SessionError, manager::SessionManager, request::RequestSessions};

/// A client with a session, for the tests of an application. It gives the header of a signed-in request, and reads
/// the session from a response.
///
/// It works with every [`Transport`](crate::Transport), in cookie mode and with a store. The application sees a
/// real token, which its manager made. [`testing`](crate::guide::testing) shows whole tests.
///
/// # Example
///
/// ```
/// # use axum::{Router, body::Body, http::Request, response::IntoResponse, routing::post};
/// # use axum_typed_session::{Key, Session, SessionError, SessionManager};
/// # use tower::ServiceExt as _;
/// use axum_typed_session::testing::TestSession;
///
/// # #[derive(Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
/// # struct Login { user: Option<String> }
/// # async fn logout(mut session: Session<Login>) -> Result<impl IntoResponse, SessionError> {
/// #     session.destroy();
/// #     session.commit().await
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let sessions = SessionManager::<Login>::builder().keys(Key::generate()).build()?;
/// # let app = Router::new().route("/logout", post(logout)).with_state(sessions.clone());
/// let mut ada = TestSession::start(&sessions, Login { user: Some("ada".into()) }).await?;
///
/// let (name, value) = ada.header();
/// let request = Request::post("/logout").header(name, value).body(Body::empty())?;
/// let response = app.oneshot(request).await?;
///
/// assert_eq!(ada.after(response.headers()).await?, None); // Signed out.
/// # Ok(())
/// # }
/// ```
#[doc(alias("login", "TestServer", "test client", "mock session", "axum-test"))]
pub struct TestSession<T> {
    manager: SessionManager<T>,
    name: HeaderName,
    value: HeaderValue,
}

impl<T: Send + Sync + 'static> TestSession<T> {
    /// Makes a session that holds `data`, as [`SessionManager::create`] does.
    ///
    /// `validate` and `extend_if` see a request that has only the header of the session. With `store_for`,
    /// `cookie_for` or `audience_for`, choose the tenant first with [`SessionManager::for_request`].
    ///
    /// # Errors
    ///
    /// As [`SessionManager::create`].
    ///
    /// # Cancellation
    ///
    /// If you drop the future, the store may hold a session that no client knows. It expires.
    pub async fn start(manager: &SessionManager<T>, data: T) -> Result<Self, SessionError> {
        let created = manager.create(data).await?;
        let header = manager.core.tenant.carrier.request_header(created.token());
        let (name, value) = header.map_err(SessionError::Encode)?;
        Ok(Self { manager: manager.clone(), name, value })
    }

    /// Returns the request header that carries the session, such as `Cookie` or `Authorization`. After a response
    /// removed the session, the value is empty.
    ///
    /// A request may have several `Cookie` headers, so the sessions of several managers can go together. With
    /// [`Transport::custom`](crate::Transport::custom), it is the first header that `set` writes.
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), self.value.clone())
    }

    /// Takes over the token that a response sets or removes, and returns the data of the session then. Returns
    /// `None` after the user signed out.
    ///
    /// With [`Transport::custom`](crate::Transport::custom), `get` must find in a response the token that `set`
    /// wrote.
    ///
    /// # Errors
    ///
    /// As [`data`](Self::data).
    ///
    /// # Cancellation
    ///
    /// If you drop the future, the token of the response is taken over already.
    pub async fn after(&mut self, response: &HeaderMap) -> Result<Option<T>, SessionError> {
        let carrier = &self.manager.core.tenant.carrier;
        match carrier.receive(response) {
            Received::Nothing => {}
            Received::Token(token) => {
                let header = carrier.request_header(&token);
                (self.name, self.value) = header.map_err(SessionError::Encode)?;
            }
            Received::Removal => self.value = HeaderValue::from_static(""),
        }
        self.data().await
    }

    /// Returns the data that a request with [`header`](Self::header) would find now. Returns `None` if there is no
    /// valid session.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if the store is down, and [`SessionError::Newer`] if a newer version wrote the
    /// session.
    ///
    /// # Cancellation
    ///
    /// You may drop the future at any point. Nothing changes.
    pub async fn data(&self) -> Result<Option<T>, SessionError> {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers.insert(self.name.clone(), self.value.clone());
        let draft = self.manager.core.open(&parts, RequestSessions::without_registry).await?;
        let data = draft.data.downcast().ok().filter(|_| draft.basis.live().is_some());
        Ok(data.map(|data| *data))
    }
}

impl<T> Clone for TestSession<T> {
    fn clone(&self) -> Self {
        Self { manager: self.manager.clone(), name: self.name.clone(), value: self.value.clone() }
    }
}

impl<T> fmt::Debug for TestSession<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSession").field("name", &self.name).finish_non_exhaustive()
    }
}
