//! When each lease ends, by this node's own monotonic clock.
//!
//! Keeping a lease changes memory alone: after a restart every lease starts its
//! full time again, so nothing durable depends on it. A lease that was judged
//! to be over stays over, even while its end is not durable yet.

use crate::{CommitError, LeaseId};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Deadline {
    ttl_ms: u64,
    ends_ms: u64,
    over: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeMap<LeaseId, Deadline>);

impl Deadlines {
    /// A lease starts its time, unless it already runs.
    pub fn start(&mut self, lease: LeaseId, ttl_ms: u64, now_ms: u64) {
        self.0.entry(lease).or_insert(Deadline {
            ttl_ms,
            ends_ms: now_ms.saturating_add(ttl_ms),
            over: false,
        });
    }

    /// A lease keeps living for its whole time from now.
    pub fn keep(&mut self, lease: LeaseId, now_ms: u64) -> Result<(), CommitError> {
        match self.0.get_mut(&lease) {
            Some(deadline) if !deadline.over && now_ms < deadline.ends_ms => {
                deadline.ends_ms = now_ms.saturating_add(deadline.ttl_ms);
                Ok(())
            }
            _ => Err(CommitError::LeaseGone(lease)),
        }
    }

    /// The leases whose time has passed; none of them can be kept any more.
    pub fn due(&mut self, now_ms: u64) -> Vec<LeaseId> {
        let mut due = Vec::new();
        for (lease, deadline) in &mut self.0 {
            if deadline.over || deadline.ends_ms <= now_ms {
                deadline.over = true;
                due.push(*lease);
            }
        }
        due
    }

    /// It has ended, durably.
    pub fn end(&mut self, lease: LeaseId) {
        self.0.remove(&lease);
    }

    /// Keeps only those that are still there.
    pub fn retain(&mut self, there: impl Fn(LeaseId) -> bool) {
        self.0.retain(|lease, _| there(*lease));
    }

    /// How long until the first one ends.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.0.values().map(|deadline| deadline.ends_ms.saturating_sub(now_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_as_long_as_it_is_kept_and_not_a_moment_longer() {
        let mut deadlines = Deadlines::default();
        deadlines.start(5, 100, 1000);
        assert_eq!(deadlines.next_ms(1000), Some(100));
        assert_eq!(deadlines.keep(5, 1099), Ok(()));
        assert!(deadlines.due(1198).is_empty());
        assert_eq!(deadlines.keep(5, 1199), Err(CommitError::LeaseGone(5)));
        assert_eq!(deadlines.due(1199), vec![5]);
        // A clock that is asked for an older time changes nothing: over is over.
        assert_eq!(deadlines.keep(5, 1100), Err(CommitError::LeaseGone(5)));
        assert_eq!(deadlines.due(1100), vec![5]);
        deadlines.end(5);
        assert!(deadlines.due(5000).is_empty());
    }
}
