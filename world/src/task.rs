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
/// In simulation the work itself runs in place and takes no time; a drawn delay
/// comes before it (a crash there: it never happened) or after it (a crash
/// there: it happened, and nobody was told), on a slow disk both.
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
    let before = crate::rand::u64().is_multiple_of(2);
    if before || crate::sim::universe::disk_lag_us() > 0 {
        drawn_delay().await;
    }
    let value = work();
    if !before || crate::sim::universe::disk_lag_us() > 0 {
        drawn_delay().await;
    }
    value
}

/// What a disk's answer takes: mostly little, now and then a sync's time; more
/// on a disk that is not fast, and much more on one that was made slow.
#[cfg(madsim)]
async fn drawn_delay() {
    let draw = crate::rand::u64();
    let most_us = if draw % 8 == 0 { 4_000 } else { 200 };
    let slow_us = crate::sim::universe::disk_pace_us() + crate::sim::universe::disk_lag_us();
    crate::time::sleep(crate::time::Duration::from_micros(draw / 8 % (most_us + slow_us))).await;
}
