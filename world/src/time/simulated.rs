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

/// Who is to be woken when the timer fires.
#[derive(Debug, Default)]
struct Sleeper(Mutex<Sleeping>);

#[derive(Debug, Default)]
struct Sleeping {
    /// Nobody any more once it is empty.
    waker: Option<Waker>,
    fired: bool,
}

impl Sleeper {
    fn lock(&self) -> MutexGuard<'_, Sleeping> {
        self.0.lock().expect("nothing panics while holding it")
    }

    fn wakes(&self, waker: &Waker) {
        match &mut self.lock().waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        let mut sleeping = self.lock();
        sleeping.fired = true;
        let waker = sleeping.waker.take();
        drop(sleeping);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Sets a timer that wakes this task.
fn set(timer: &mut madsim::time::Sleep, context: &Context<'_>) -> (Arc<Sleeper>, Poll<()>) {
    let sleeper = Arc::new(Sleeper::default());
    sleeper.wakes(context.waker());
    let woken = Waker::from(Arc::clone(&sleeper));
    (sleeper, Pin::new(timer).poll(&mut Context::from_waker(&woken)))
}

/// The runtime's instant; [`Instant::now`] is the same by way of libc.
pub fn now() -> Instant {
    madsim::time::TimeHandle::current().now_instant()
}

/// What was under way in a simulation is dropped outside of it.
pub fn is_over() -> bool {
    madsim::time::TimeHandle::try_current().is_none()
}

/// No wait is shorter, as in tokio.
const GRAIN: Duration = Duration::from_millis(1);

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
        if let Some(sleeper) = &this.sleeper {
            sleeper.wakes(context.waker());
            return Poll::Pending;
        }
        let (sleeper, set) = set(&mut this.timer, context);
        this.sleeper = Some(sleeper);
        set
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.lock().waker = None;
        }
    }
}

/// A timer for a loop that waits for a deadline or for news, whichever comes
/// first. A deadline that moves away costs nothing: the timer that is set fires
/// in its time and is set again.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Instant, Arc<Sleeper>)>);

impl Alarm {
    /// Completes at this instant; in a millisecond at the earliest. Dropped
    /// before, it wakes nobody.
    pub fn at(&mut self, deadline: Instant) -> impl Future<Output = ()> {
        Ring { alarm: self, asked: deadline, deadline: None }
    }

    /// Completes once this span has passed; a millisecond at least.
    pub fn after(&mut self, span: Duration) -> impl Future<Output = ()> {
        self.at(Instant::now() + span)
    }

    /// When the timer that is set fires.
    fn fires(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|(at, sleeper)| (!sleeper.lock().fired).then_some(*at))
    }
}

/// One wait for an [`Alarm`].
struct Ring<'a> {
    alarm: &'a mut Alarm,
    asked: Instant,
    /// From the first poll on.
    deadline: Option<Instant>,
}

impl Future for Ring<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (fires, asked) = (self.alarm.fires(), self.asked);
        // Most waits are for a timer that is set already and has not fired: then
        // nobody need ask what time it is.
        let known = self.deadline.or(fires.filter(|at| *at == asked));
        let (deadline, now) = match known {
            Some(deadline) if fires.is_some_and(|at| at <= deadline) => (deadline, None),
            Some(deadline) => (deadline, Some(now())),
            None => {
                let now = now();
                let earliest = asked.max(now + GRAIN);
                // A timer that fires about then will do, so that a deadline in the
                // past is not put off by each new wait for it.
                let about = fires.filter(|at| (asked..=earliest + GRAIN).contains(at));
                (about.unwrap_or(earliest), Some(now))
            }
        };
        self.deadline = Some(deadline);
        if now.is_some_and(|now| now >= deadline) {
            return Poll::Ready(());
        }
        if fires.is_some_and(|at| at <= deadline) {
            if let Some((_, sleeper)) = &self.alarm.0 {
                sleeper.wakes(context.waker());
            }
            return Poll::Pending;
        }
        let mut timer = madsim::time::sleep_until(deadline);
        let (sleeper, set) = set(&mut timer, context);
        self.alarm.0 = Some((timer.deadline(), sleeper));
        set
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if let Some((_, sleeper)) = &self.alarm.0 {
            sleeper.lock().waker = None;
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
