//! What a policy would have done with a workload: a log of jobs is worked off in
//! virtual time, and measured.
//!
//! At one instant all completions come first, then all submissions, then the policy
//! decides once. A policy sees what a scheduler knows at the time: sizes, estimates,
//! and how long jobs ran that have ended. [`policies`] has them all. Pure: equal logs
//! and policies, equal results.

mod course;
mod machine;
mod measure;
pub mod policies;
mod predict;
mod profile;
pub mod swf;

pub use course::{Course, course, last_end};
pub use machine::{JobIndex, Machine, Policy, work_off};
pub use measure::{Measures, measure};
pub use policies::Name;
pub use swf::{Log, LogError, LogJob};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The log with each submission moved by 0 to `seconds`, differently for each copy. How
/// a policy fares on one log is chance to some part; the mean over copies is less so.
#[must_use]
pub fn shaken(log: &Log, seconds: u64, copy: u64) -> Log {
    let mut log = log.clone();
    let mut rng = StdRng::seed_from_u64(copy);
    for job in &mut log.jobs {
        job.submit = job.submit.saturating_add(rng.random_range(0..=seconds));
    }
    log.jobs.sort_by_key(|job| job.submit);
    log
}

#[cfg(test)]
mod tests;
