//! Threads, waiting and dropping, without a runtime.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake},
    thread::{self, Thread},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot};

/// Runs each task on its own thread, starts all of them together, and returns their results in order.
///
/// Within Tokio, the threads enter the runtime of the caller, so that a store finds its timers and sockets, even in
/// a runtime with a single thread.
pub(super) async fn in_parallel<F>(tasks: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<F> = tasks.into_iter().collect();
    let runtime = Handle::try_current().ok();
    let start = Arc::new(Barrier::new(tasks.len()));
    let mut outcomes = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (runtime, start) = (runtime.clone(), start.clone());
        outcomes.push(on_thread(move || {
            let _entered = runtime.as_ref().map(Handle::enter);
            start.wait();
            block_on(task)
        }));
    }
    let mut results = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let Ok(result) = outcome.await else {
            panic!("an operation of the store panicked; its own message stands above");
        };
        results.push(result);
    }
    results
}

/// Runs two tasks as [`in_parallel`] does.
pub(super) async fn in_parallel_with<A, B>(first: A, second: B) -> (A::Output, B::Output)
where
    A: Future<Output: Send> + Send + 'static,
    B: Future<Output: Send> + Send + 'static,
{
    let (first_done, first_result) = oneshot::channel();
    let (second_done, second_result) = oneshot::channel();
    let tasks: [Pin<Box<dyn Future<Output = ()> + Send>>; 2] = [
        Box::pin(async move { drop(first_done.send(first.await)) }),
        Box::pin(async move { drop(second_done.send(second.await)) }),
    ];
    in_parallel(tasks).await;
    match (first_result.await, second_result.await) {
        (Ok(first), Ok(second)) => (first, second),
        _ => panic!("an operation of the store panicked; its own message stands above"),
    }
}

/// Waits in real time.
pub(super) async fn sleep(duration: Duration) {
    // The thread cannot panic, so the answer always comes.
    let _ = on_thread(move || thread::sleep(duration)).await;
}

/// Polls a future so many times and then drops it. Returns `None` if the future was not complete.
pub(super) async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        left = left.saturating_sub(1);
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn on_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> oneshot::Receiver<R> {
    let (done, outcome) = oneshot::channel();
    thread::spawn(move || done.send(work()));
    outcome
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
