//! The middleware that commits sessions which handlers left uncommitted.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::request::{Registry, RequestSessions};

/// Commits every session of a request that its handlers did not commit.
///
/// Under this layer handlers need no [`commit`](crate::Session::commit) and return no guard. The layer has no type
/// parameter: it commits all sessions of a request, of every type, each once. Of nested layers only the outermost
/// commits. Handlers may still commit; the layer then sends the cookie even if the guard was dropped.
///
/// Changes that one part of a request drops uncommitted go on to the next part, and all are committed together. This
/// holds inside the layer, so put it outside of every middleware that extracts a session. Outside of it a dropped
/// change is lost with a warning, as without a layer.
///
/// A response of 500 and above commits no change. A recorded [`destroy`](crate::Session::destroy) is committed at
/// every status. After a panic nothing is committed.
///
/// If a commit fails, its error replaces the response. Cookies of sessions that were committed stay in it.
///
/// A middleware that cuts a handler off and answers for it, such as a timeout, belongs outside of this layer. Inside,
/// its response below 500 would commit the half-done changes of the handler.
///
/// # Retries
///
/// Each attempt of a `tower::retry` inside this layer begins with the session as it was before the failed attempt:
/// changes that the attempt did not commit are dropped, while its commits and a recorded `destroy` stay. Only a policy
/// that copies the request before every call is recognized, so put a loop of your own or hedged requests outside of
/// this layer, where each attempt commits for itself.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_typed_session::{AutoCommitLayer, Key, Session, SessionManager};
///
/// async fn index(mut visits: Session<u32>) -> String {
///     *visits += 1;
///     format!("{} visits", *visits)
/// }
///
/// let sessions = SessionManager::<u32>::builder().keys(Key::generate()).build()?;
/// let app: Router = Router::new()
///     .route("/", get(index))
///     .layer(AutoCommitLayer::new())
///     .with_state(sessions);
/// # Ok::<(), axum_typed_session::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoCommitLayer {
    on_server_error: bool,
}

impl AutoCommitLayer {
    /// Makes a layer that commits on responses below 500.
    pub const fn new() -> Self {
        Self { on_server_error: false }
    }

    /// Commits changes on server errors too, as koa-session does. Default: off.
    ///
    /// Put a catch-panic layer outside of this one; then nothing is ever committed after a panic. Inside, its answer
    /// to a panic looks like an answer of the handler, unless the handler still held its request or session.
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

/// The service that [`AutoCommitLayer`] puts around another.
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
            let response = response.inspect_err(|_| registry.close())?.into_response();
            Ok(finish(&registry, on_server_error, response).await)
        })
    }
}

async fn finish(registry: &Registry, on_server_error: bool, response: Response) -> Response {
    // No part of the request has a session, though one may have failed to choose its tenant. A later extraction must
    // not commit for this response.
    if !registry.is_used() {
        registry.close();
        return registry.render(response);
    }
    let wanted = on_server_error || !response.status().is_server_error();
    let response = match registry.commit(wanted).await {
        Ok(()) => response,
        Err(error) => error.into_response(),
    };
    let mut response = registry.render(response);
    registry.deliver(response.headers_mut());
    response
}
