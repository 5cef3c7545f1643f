//! A middleware that commits what handlers leave uncommitted.

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

/// Commits every session of a request that its handlers did not commit, so that they need not.
///
/// It knows no session type: all of a request's sessions are committed, each once. Nested layers leave it
/// to the outermost. A commit by a handler still counts, and its cookie is sent even if its guard was lost.
///
/// Changes that one part of a request drops uncommitted go on to the next part and are committed with its
/// own, from the layer inwards: put it outside of every middleware that extracts a session. What a
/// middleware outside drops is lost with a warning, as it is without a layer.
///
/// Responses of 500 and above commit nothing, nor does a handler that panicked. A commit that fails
/// replaces the response with its error; cookies of sessions that were committed stay.
///
/// What cuts a handler off and answers for it, such as a timeout, belongs outside of this layer: within, its
/// response below 500 commits what the handler had done until then.
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

    /// Commits on server errors too, as koa-session does; off by default.
    ///
    /// A panic is noticed by what the handler still held of its request or session. With a catch-panic
    /// layer inside this one, a handler that panics after it let go of both looks like one that answered;
    /// put that layer outside, where nothing is ever committed for a panic.
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

/// The service that [`AutoCommitLayer`] wraps around another.
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
            let response = match response.await {
                Ok(response) => response.into_response(),
                Err(error) => {
                    registry.inspect(|registry| registry.close());
                    return Err(error);
                }
            };
            Ok(match registry {
                Some(registry) => finish(&registry, on_server_error, response).await,
                None => response,
            })
        })
    }
}

async fn finish(registry: &Registry, on_server_error: bool, response: Response) -> Response {
    // Nobody extracted a session; what is extracted from now on must not commit for this response.
    if !registry.is_used() {
        registry.close();
        return response;
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
