use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::client::Received;
use crate::{error::SessionError, manager::SessionManager, request::RequestSessions};

/// One client's session in a test of an application: a logged-in request in one line, and the data back
/// from a response.
///
/// It works with every transport, in cookie mode and with a store. What the application under test sees
/// is a real token that its manager made.
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
/// assert_eq!(ada.after(response.headers()).await?, None);
/// # Ok(())
/// # }
/// ```
pub struct TestSession<T> {
    manager: SessionManager<T>,
    name: HeaderName,
    value: HeaderValue,
}

impl<T: Send + Sync + 'static> TestSession<T> {
    /// [Creates](SessionManager::create) a session that holds `data`, as a committed request would have.
    ///
    /// `validate` and `extend_if` see a request with nothing but the session's header. With `store_for`, `cookie_for`
    /// or `audience_for`, choose the tenant first: [`sessions.for_request(..)`](SessionManager::for_request).
    ///
    /// # Errors
    ///
    /// As [`SessionManager::create`].
    pub async fn start(manager: &SessionManager<T>, data: T) -> Result<Self, SessionError> {
        let created = manager.create(data).await?;
        let header = manager.core.tenant.carrier.request_header(created.token());
        let (name, value) = header.map_err(SessionError::Encode)?;
        Ok(Self { manager: manager.clone(), name, value })
    }

    /// Returns the request header that carries the session: `Cookie`, `Authorization`, or the transport's
    /// own; empty once a response has removed the session.
    ///
    /// Requests take several `Cookie` headers, so sessions of several managers go together. With
    /// [`Transport::custom`](crate::Transport::custom) it is the first header that `set` writes.
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), self.value.clone())
    }

    /// Takes over what a response sets or removes, and returns the session's data then.
    ///
    /// `None` after a logout. With [`Transport::custom`](crate::Transport::custom), `get` must find in a
    /// response what `set` put there.
    ///
    /// # Errors
    ///
    /// As [`data`](Self::data).
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

    /// Returns what a request with [`header`](Self::header) would find now; `None` if that is no valid
    /// session.
    ///
    /// # Errors
    ///
    /// What the extractor answers: the store is down, or a newer version wrote the session.
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
