//! This machine's clock.
#![expect(clippy::disallowed_methods, reason = "the one reader of the machine's wall clock")]

use crate::clock::NodeClock;
use nix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// Monotonic by `CLOCK_BOOTTIME`: a machine that slept has spent its leases.
#[derive(Debug)]
pub struct SystemClock {
    start_ms: u64,
}

impl SystemClock {
    /// Its monotonic reading starts near 0.
    #[must_use]
    pub fn new() -> Self {
        Self { start_ms: boot_ms() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    let (seconds, nanos) = (now.tv_sec(), now.tv_nsec());
    u64::try_from(seconds).expect("time since boot is positive") * 1000
        + u64::try_from(nanos).expect("nanoseconds are positive") / 1_000_000
}

impl NodeClock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        boot_ms().saturating_sub(self.start_ms)
    }

    fn wall_ms(&self) -> u64 {
        // Before 1970 only on a machine without any date: then 0.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
