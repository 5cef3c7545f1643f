//! Credentials that the application gives anew for each connection, such as tokens that expire.

use std::{io, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    Stream, StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream,
};
use redis::{
    RedisError, RedisResult,
    auth::{BasicAuth, StreamingCredentialsProvider},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{error::BoxError, store::connect_error::one_line};

/// How long an answer of the application is used.
///
/// The driver subscribes twice for one connection, and a cluster has many connections.
const REUSE: Duration = Duration::from_secs(1);

/// How long the application may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// User and password.
pub(super) type Answer = Result<(String, String), BoxError>;

/// Asks the application for user and password, at most once a second; clones share the answer.
#[derive(Clone)]
pub(super) struct Credentials(Arc<Shared>);

struct Shared {
    provider: Box<dyn Fn() -> BoxFuture<'static, Answer> + Send + Sync>,
    latest: Mutex<Option<(Instant, RedisResult<BasicAuth>)>>,
}

impl Credentials {
    pub(super) fn new<F, A>(provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let provider = Box::new(move || provider().boxed());
        Self(Arc::new(Shared { provider, latest: Mutex::default() }))
    }

    /// Returns the credentials. In a task of its own, so that a slow answer is there for the next connection even if
    /// this one is given up.
    async fn latest(self) -> RedisResult<BasicAuth> {
        let answer = tokio::spawn(async move {
            let mut latest = self.0.latest.lock().await;
            match &*latest {
                Some((at, answer)) if at.elapsed() < REUSE => answer.clone(),
                _ => {
                    let answer = self.0.ask().await;
                    *latest = Some((Instant::now(), answer.clone()));
                    answer
                }
            }
        });
        answer.await.unwrap_or_else(|error| Err(failure(error)))
    }
}

impl Shared {
    async fn ask(&self) -> RedisResult<BasicAuth> {
        let answer = AssertUnwindSafe(async { (self.provider)().await }).catch_unwind();
        match timeout(TIMEOUT, answer).await {
            Ok(Ok(Ok((user, password)))) => Ok(BasicAuth::new(user, password)),
            Ok(Ok(Err(error))) => Err(failure(error)),
            Ok(Err(_panic)) => Err(failure("the function that returns them panicked")),
            Err(_elapsed) => {
                Err(failure(format!("the function that returns them took longer than {TIMEOUT:?}")))
            }
        }
    }
}

impl StreamingCredentialsProvider for Credentials {
    fn subscribe(&self) -> Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send + 'static>> {
        // The driver would log the end of the stream as a failure.
        Box::pin(stream::once(self.clone().latest()).chain(stream::pending()))
    }
}

fn failure(reason: impl Into<BoxError>) -> RedisError {
    let reason = one_line(&*reason.into());
    RedisError::from(io::Error::other(format!("no credentials for Redis: {reason}")))
}
