//! Waiting in simulation.
//!
//! madsim's own sleep sets another timer each time it is polled, and every one
//! of them wakes its task, even long after the sleep was dropped. A loop that
//! waits for a far deadline or a near event, whichever comes first, so drags
//! timers along by the thousand, and its task is woken for nothing, which
//! tokio never does. Here a sleep sets one timer, and wakes nobody once it has
//! been dropped.

use super::{Duration, Instant};
use madsim::time::error::Elapsed;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

/// Who is to be woken when the timer fires; nobody any more once it is empty.
#[derive(Debug, Default)]
struct Sleeper(Mutex<Option<Waker>>);

impl Sleeper {
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().expect("nothing panics while holding it")
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        let waker = self.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Completes at its deadline; see [`sleep`].
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    timer: madsim::time::Sleep,
    /// From the first poll on.
    sleeper: Option<Arc<Sleeper>>,
}

/// Completes once this span has passed; a millisecond at least, as tokio's.
pub fn sleep(span: Duration) -> Sleep {
    Sleep { timer: madsim::time::sleep(span), sleeper: None }
}

/// Completes at this instant; in a millisecond at the earliest.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { timer: madsim::time::sleep_until(deadline), sleeper: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.timer.is_elapsed() {
            return Poll::Ready(());
        }
        match &this.sleeper {
            Some(sleeper) => {
                let mut waker = sleeper.waker();
                match &mut *waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            None => {
                let sleeper = Arc::new(Sleeper(Mutex::new(Some(context.waker().clone()))));
                this.sleeper = Some(Arc::clone(&sleeper));
                // The one poll that sets the timer.
                Pin::new(&mut this.timer).poll(&mut Context::from_waker(&Waker::from(sleeper)))
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.waker().take();
        }
    }
}

/// Waits for a future until so much time has passed, counted from this call.
pub fn timeout<F: Future>(span: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    let deadline = sleep(span);
    async move {
        let mut future = pin!(future);
        let mut deadline = pin!(deadline);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => deadline.as_mut().poll(context).map(|()| Err(Elapsed)),
        })
        .await
    }
}
