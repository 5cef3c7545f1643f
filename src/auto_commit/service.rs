use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use http::Request;
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
