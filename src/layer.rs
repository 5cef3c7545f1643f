//! The middleware that commits the sessions that handlers did not commit: [`AutoCommitLayer`].

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    error::Failed,
    request::{Registry, RequestSessions},
};

/// Commits every session of a request that its handlers did not commit.
///
/// Under this layer a handler needs no [`commit`](crate::Session::commit) and returns no guard (the
/// [`SessionCommit`](crate::SessionCommit) that `commit` returns). The layer has no type parameter: it commits the
/// sessions of every type, each once. A handler may still commit. The layer then sends the cookie even if the
/// handler did not return the guard. If layers are nested, only the outermost commits.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_typed_session::{AutoCommitLayer, ConfigError, Key, Session, SessionManager};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { count: u32 }
///
/// async fn index(mut session: Session<Visits>) -> String {
///     session.count += 1;
///     format!("{} visits", session.count)
/// }
///
/// fn app(sessions: SessionManager<Visits>) -> Router {
///     Router::new()
///         .route("/", get(index))
///         .layer(AutoCommitLayer::new())
///         .with_state(sessions)
/// }
/// # app(SessionManager::builder().keys(Key::generate()).build()?);
/// # Ok::<(), ConfigError>(())
/// ```
///
/// # Which responses commit
///
/// | response | changes | a recorded [`destroy`](crate::Session::destroy) |
/// |---|---|---|
/// | status below 500, also 4xx | committed | committed |
/// | a [`SessionError`](crate::SessionError), such as that of [`verify_csrf`](crate::Session::verify_csrf) | dropped | committed |
/// | status 500 and above | dropped, unless [`commit_on_server_error`](Self::commit_on_server_error) | committed |
/// | the handler panicked, or a task that holds a session of the request | dropped | dropped |
///
/// So a handler that may answer 4xx, such as by `?`, makes its changes after all checks. Otherwise a refused sign-in
/// could sign the user in.
///
/// If a commit fails, its error replaces the response. The cookies of sessions that were committed before stay in
/// it.
///
/// # Where to put it
///
/// Put the layer outside of every middleware that extracts a session. If one part of a request drops a session with
/// uncommitted changes, the next part gets these changes, and the layer commits all of them together. Outside of
/// the layer a dropped change is lost, with a warning.
///
/// Put a layer that sets headers, such as `SetResponseHeaderLayer`, inside of this layer. Outside, it can replace the
/// `Cache-Control` of a response that carries a session cookie.
///
/// Put a middleware that stops a handler and answers for it, such as a timeout, outside of this layer. Inside, its
/// response below 500 would commit the unfinished changes of the handler.
///
/// Each attempt of a `tower::retry` inside this layer begins with the session as it was before the failed attempt.
/// The changes that the attempt did not commit are dropped. Its commits and a recorded `destroy` stay. The layer
/// recognizes only a policy that copies the request before every call, and only if the failed attempt no longer holds
/// its request, as a task may. Put a retry loop of your own, or hedged requests, outside of this layer: each attempt
/// then commits for itself.
///
/// [`guide::middleware`](crate::guide::middleware) has more on the order of layers.
#[doc(alias("auto_commit", "middleware", "SessionManagerLayer"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoCommitLayer {
    on_server_error: bool,
}

impl AutoCommitLayer {
    /// Makes a layer that commits on responses below 500. The example of [`AutoCommitLayer`] uses it.
    pub const fn new() -> Self {
        Self { on_server_error: false }
    }

    /// Commits changes on responses of 500 and above too, as koa-session does. Default: off.
    ///
    /// Put a catch-panic layer outside of this layer, so that nothing is ever committed after a panic. Inside this
    /// layer, its answer to a panic looks like an answer of the handler, unless the handler still held its request
    /// or session.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_typed_session::AutoCommitLayer;
    ///
    /// let layer = AutoCommitLayer::new().commit_on_server_error(true);
    /// ```
    pub const fn commit_on_server_error(self, commit: bool) -> Self {
        Self { on_server_error: commit }
    }
}

impl<S> Layer<S> for AutoCommitLayer {
    type Service = AutoCommitService<S>;

    fn layer(&self, inner: S) -> AutoCommitService<S> {
        AutoCommitService { inner, on_server_error: self.on_server_error }
    }
}

/// The service that [`AutoCommitLayer`] puts around another service. Its example shows how a router gets it.
#[derive(Clone, Copy, Debug)]
pub struct AutoCommitService<S> {
    inner: S,
    on_server_error: bool,
}

impl<S, B> Service<Request<B>> for AutoCommitService<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let registry = RequestSessions::claim(request.extensions_mut());
        let on_server_error = self.on_server_error;
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            let Some(registry) = registry else {
                return Ok(response?.into_response());
            };
            let mut response = response.inspect_err(|_| registry.close())?.into_response();
            finish(&registry, on_server_error, &mut response).await;
            Ok(response)
        })
    }
}

async fn finish(registry: &Arc<Registry>, on_server_error: bool, response: &mut Response) {
    let is_wanted = on_server_error || !response.status().is_server_error();
    // The handler returned the error of a session, such as that of a forged form.
    let wanted = is_wanted && response.extensions().get::<Failed>().is_none();
    if let Err(error) = registry.commit(wanted).await {
        *response = error.into_response();
    }
    registry.render(response);
    registry.deliver(response.headers_mut());
}
