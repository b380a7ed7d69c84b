//! Waiting. Virtual in simulation, so that years pass in seconds there.
//!
//! For *reading* time use a node's own [`crate::NodeClock`]; these functions
//! only measure spans of waiting.
#[cfg(madsim)]
mod simulated;

#[cfg(not(madsim))]
mod alarm;

#[cfg(not(madsim))]
pub use alarm::Alarm;
#[cfg(madsim)]
pub use simulated::{Alarm, Sleep, sleep, sleep_until, timeout};
#[cfg(madsim)]
pub(crate) use simulated::{is_over, now};
pub use std::time::Duration;
#[cfg_attr(
    madsim,
    expect(clippy::disallowed_types, reason = "madsim makes the standard instant virtual")
)]
pub use tokio::time::Instant;
#[cfg(not(madsim))]
pub use tokio::time::{Sleep, sleep, sleep_until, timeout};

#[cfg(not(madsim))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Whether a simulation has ended, and what was under way in it is only being dropped: then
/// there is no time to ask for.
#[cfg(not(madsim))]
pub(crate) fn is_over() -> bool {
    false
}

/// `Duration::from_millis`, since most of our spans are told in milliseconds.
#[must_use]
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
