//! How long a job will probably run. Users expect far too much, since who expects too
//! little is killed; what they submitted before tells more.

use super::swf::LogJob;
use std::collections::{BTreeMap, VecDeque};

/// Jobs that are looked back at.
const LOOK_BACK: usize = 9;
/// Alike jobs needed to go by them alone.
const ALIKE_MIN: usize = 2;

/// What jobs took that have ended.
#[derive(Debug, Default)]
pub(super) struct Predictor {
    /// How long jobs ran, by user, estimate and size: who asks for the same again most
    /// likely runs the same again.
    alike: BTreeMap<(i64, u64, u64), VecDeque<u64>>,
    /// Which part of its estimate each job of a user took.
    parts: BTreeMap<i64, VecDeque<f64>>,
}

impl Predictor {
    pub(super) fn ended(&mut self, job: &LogJob) {
        if job.user < 0 {
            return;
        }
        remember(self.alike.entry(alike(job)).or_default(), job.run);
        remember(self.parts.entry(job.user).or_default(), job.run as f64 / job.estimate as f64);
    }

    /// In seconds, from 1 to the job's estimate.
    pub(super) fn predict(&self, job: &LogJob) -> f64 {
        let estimate = job.estimate as f64;
        let ran = self.alike.get(&alike(job)).filter(|ran| ran.len() >= ALIKE_MIN);
        let ran = ran.map(|ran| median(ran.iter().map(|seconds| *seconds as f64)));
        let part = || self.parts.get(&job.user).map(|parts| median(parts.iter().copied()) * estimate);
        ran.or_else(part).unwrap_or(estimate).clamp(1.0, estimate)
    }
}

fn alike(job: &LogJob) -> (i64, u64, u64) {
    (job.user, job.estimate, job.size)
}

fn remember<T>(those: &mut VecDeque<T>, one: T) {
    if those.len() == LOOK_BACK {
        those.pop_front();
    }
    those.push_back(one);
}

/// Of an even number the upper one of the two in the middle. Panics where there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
