use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::request::{Registry, RequestSessions};

/// The service that [`AutoCommitLayer`](super::AutoCommitLayer) wraps around another.
#[derive(Clone, Copy, Debug)]
pub struct AutoCommit<S> {
    inner: S,
    on_server_error: bool,
}

impl<S> AutoCommit<S> {
    pub(super) fn new(inner: S, on_server_error: bool) -> Self {
        Self { inner, on_server_error }
    }
}

impl<S, B> Service<Request<B>> for AutoCommit<S>
where
    S: Service<Request<B>>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let registry = RequestSessions::claim(request.extensions_mut());
        ResponseFuture {
            inner: self.inner.call(request),
            registry,
            on_server_error: self.on_server_error,
            commit: None,
        }
    }
}

pin_project! {
    /// The future of [`AutoCommit`]: the inner response, then the commits.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `None` where an outer layer commits.
        registry: Option<Arc<Registry>>,
        on_server_error: bool,
        commit: Option<Pin<Box<dyn Future<Output = Response> + Send>>>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(commit) = this.commit {
            return commit.as_mut().poll(cx).map(Ok);
        }
        let result = ready!(this.inner.poll(cx));
        let registry = this.registry.take();
        let (registry, response) = match (registry, result) {
            (Some(registry), Ok(response)) if registry.is_used() => (registry, response),
            (registry, result) => {
                // What is extracted from now on must not commit for a response that has left.
                registry.inspect(|registry| registry.close());
                return Poll::Ready(result.map(IntoResponse::into_response));
            }
        };
        let response = response.into_response();
        let wanted = *this.on_server_error || !response.status().is_server_error();
        let commit = this.commit.insert(Box::pin(finish(registry, wanted, response)));
        commit.as_mut().poll(cx).map(Ok)
    }
}

async fn finish(registry: Arc<Registry>, wanted: bool, response: Response) -> Response {
    let mut response = match registry.commit(wanted).await {
        Ok(()) => response,
        Err(error) => error.into_response(),
    };
    registry.deliver(response.headers_mut());
    response
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
