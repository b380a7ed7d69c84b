//! Whether and when a failed attempt is followed by another.
//!
//! Causes have classes: only the work's own failures spend its `retries`; the
//! platform's have a cap of their own. Back-off doubles and is spread by a hash
//! of who failed, never by chance. A token bucket per tenant and one for the
//! cluster delay retries that come in storms; they never refuse one.

use super::config::Config;
use super::model::Spot;
use proto::ids::fnv1a64;
use proto::v1::{Cause, CauseKind, TaskNote};

/// Who pays for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The work's own doing.
    Own,
    /// Lost nodes, expired leases, staging, preemption.
    Platform,
}

pub(super) fn class(cause: &Cause) -> Class {
    match cause.kind() {
        CauseKind::Exit
        | CauseKind::Signal
        | CauseKind::Timeout
        | CauseKind::OutOfMemory
        | CauseKind::OutputMissing
        | CauseKind::LaunchFailed => Class::Own,
        // Whatever else an agent may say is not the work's fault.
        _ => Class::Platform,
    }
}

/// The exit code a final failure gives its job.
pub(super) fn exit_code(cause: &Cause) -> i32 {
    match (cause.exit_code, cause.signal) {
        (0, 0) => 1,
        (0, signal) => 128_i32.saturating_add(signal),
        (code, _) => code,
    }
}

/// What follows an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Again after so many milliseconds.
    Again(u64),
    /// Its tries are spent.
    Failed,
}

/// Counts the failure in the task's note and decides. `retries` is the step's.
pub(super) fn decide(config: &Config, spot: &Spot, note: &mut TaskNote, cause: &Cause, retries: u32) -> Next {
    let (failures, allowed, base_ms) = match class(cause) {
        Class::Own => {
            note.own_failures += 1;
            (note.own_failures, retries, config.own_backoff_ms)
        }
        Class::Platform => {
            note.platform_failures += 1;
            (note.platform_failures, config.platform_retries, config.platform_backoff_ms)
        }
    };
    if failures > allowed {
        match class(cause) {
            Class::Own => world::mark!("controller.retry.own_spent"),
            Class::Platform => world::mark!("controller.retry.platform_spent"),
        }
        return Next::Failed;
    }
    if failures > 1 {
        world::mark!("controller.retry.backoff_doubles");
    }
    let doubled = doubled_ms(config, base_ms, failures);
    Next::Again(spread(config, spot, note.attempts, doubled))
}

fn doubled_ms(config: &Config, base_ms: u64, failures: u32) -> u64 {
    base_ms.saturating_mul(1 << failures.saturating_sub(1).min(32)).min(config.backoff_ms_max)
}

/// The longest back-off that what a note tells of can have led to.
pub(super) fn longest_ms(config: &Config, note: &TaskNote) -> u64 {
    let own = doubled_ms(config, config.own_backoff_ms, note.own_failures);
    let platform = doubled_ms(config, config.platform_backoff_ms, note.platform_failures);
    let longest_ms =
        own.max(if note.platform_failures > 0 { platform } else { 0 }).max(config.returned_backoff_ms);
    longest_ms / 100 * (100 + config.jitter_percent.min(100)) + longest_ms % 100
}

/// `span_ms` spread by the configured percentage either way.
fn spread(config: &Config, spot: &Spot, attempt: u32, span_ms: u64) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&config.seed.to_le_bytes());
    bytes.extend_from_slice(spot.tenant.as_bytes());
    bytes.extend_from_slice(&spot.number.to_le_bytes());
    bytes.extend_from_slice(&spot.step.to_le_bytes());
    bytes.extend_from_slice(&spot.task.to_le_bytes());
    bytes.extend_from_slice(&attempt.to_le_bytes());
    let percent = config.jitter_percent.min(100);
    // The high bits of this hash mix better than the low ones.
    let hash = fnv1a64(&bytes) >> 24;
    let spread = hash % (2 * percent + 1);
    span_ms / 100 * (100 - percent + spread) + span_ms % 100
}

/// A token bucket as the generic cell rate algorithm has it: one number, the
/// time at which it would be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    burst: u64,
    /// Between two tokens, in microseconds, since 1000/rate is coarse.
    every_us: u64,
    full_at_us: u64,
}

impl Bucket {
    pub(super) fn new(burst: u64, per_second: u64) -> Self {
        Self { burst: burst.max(1), every_us: 1_000_000 / per_second.clamp(1, 1_000_000), full_at_us: 0 }
    }

    /// Who takes a token now must wait for it.
    pub(super) fn is_empty(&self, now_ms: u64) -> bool {
        let mut asked = *self;
        asked.take(now_ms) > 0
    }

    /// Takes a token; returns how long its owner must wait for it.
    pub(super) fn take(&mut self, now_ms: u64) -> u64 {
        let now_us = now_ms.saturating_mul(1000);
        self.full_at_us = self.full_at_us.max(now_us).saturating_add(self.every_us);
        let within_us = self.burst.saturating_mul(self.every_us);
        self.full_at_us.saturating_sub(within_us).saturating_sub(now_us).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::cause;

    fn spot() -> Spot {
        Spot { tenant: "lab".into(), number: 1, step: 0, task: 7 }
    }

    #[test]
    fn own_failures_double_their_backoff_until_the_retries_are_spent() {
        let config = Config::default();
        let mut note = TaskNote::default();
        let mut waits = Vec::new();
        for attempt in 1..=3 {
            note.attempts = attempt;
            match decide(&config, &spot(), &mut note, &cause(CauseKind::Exit, ""), 3) {
                Next::Again(wait_ms) => waits.push(wait_ms),
                Next::Failed => panic!("attempt {attempt} was the last"),
            }
        }
        for (wait_ms, base_ms) in waits.iter().zip([1000, 2000, 4000]) {
            assert!((base_ms * 8 / 10..=base_ms * 12 / 10).contains(wait_ms), "{waits:?}");
        }
        assert_eq!(decide(&config, &spot(), &mut note, &cause(CauseKind::Exit, ""), 3), Next::Failed);
    }

    #[test]
    fn platform_failures_have_their_own_cap() {
        let config = Config::default();
        let mut note = TaskNote { own_failures: 3, ..TaskNote::default() };
        for _ in 0..3 {
            assert_ne!(decide(&config, &spot(), &mut note, &cause(CauseKind::NodeLost, ""), 3), Next::Failed);
        }
        assert_eq!(note.own_failures, 3);
        assert_eq!(decide(&config, &spot(), &mut note, &cause(CauseKind::NodeLost, ""), 3), Next::Failed);
    }

    #[test]
    fn the_backoff_is_capped_and_absurd_counts_do_not_overflow() {
        let config = Config::default();
        let mut note = TaskNote { own_failures: 90, ..TaskNote::default() };
        match decide(&config, &spot(), &mut note, &cause(CauseKind::Exit, ""), 100) {
            Next::Again(wait_ms) => assert!(wait_ms <= config.backoff_ms_max * 12 / 10),
            Next::Failed => panic!("100 retries are allowed"),
        }
    }

    #[test]
    fn a_bucket_is_empty_while_whoever_takes_from_it_must_wait() {
        let mut bucket = Bucket::new(2, 10);
        assert!(!bucket.is_empty(0));
        bucket.take(0);
        bucket.take(0);
        assert!(bucket.is_empty(0) && bucket.is_empty(99) && !bucket.is_empty(100));
        // To ask takes nothing.
        assert_eq!(bucket.take(100), 0);
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(2, 10);
        assert_eq!([bucket.take(0), bucket.take(0), bucket.take(0), bucket.take(0)], [0, 0, 100, 200]);
        // Two seconds later it is full again.
        assert_eq!([bucket.take(2_400), bucket.take(2_400), bucket.take(2_400)], [0, 0, 100]);
    }
}
