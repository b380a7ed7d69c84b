//! Tasks and blocking work.
pub use tokio::task::{AbortHandle, JoinHandle};

/// Starts a task on the current node.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs blocking work (disk, digests) where it does not hold up tasks.
///
/// In simulation it runs in place: virtual time stands still meanwhile, and
/// the delays of a slow disk are awaited by whoever models them.
#[cfg(not(madsim))]
pub async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work; nobody is
            // left to read the result then.
            Err(_) => std::future::pending().await,
        },
    }
}

/// See the other build's.
#[cfg(madsim)]
pub async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    work()
}
