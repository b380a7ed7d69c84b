//! How well a log was worked off.

use super::course::last_end;
use super::swf::Log;
use std::collections::BTreeMap;

/// Runs shorter than this count as this: else a job of one second that waited a minute
/// would outweigh a day of others.
const SHORTEST_RUN_S: f64 = 10.0;

/// Spans are in seconds. A job's bounded slowdown is `(wait + run) / max(run, 10 s)`, 1 at
/// least; means are per job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    pub mean_bounded_slowdown: f64,
    pub max_bounded_slowdown: f64,
    pub mean_wait_s: f64,
    /// 99 of 100 jobs waited no longer.
    pub p99_wait_s: f64,
    pub max_wait_s: f64,
    /// The part of the machine's time, from the first submission to the last end, in which
    /// its processors were at work.
    pub utilisation: f64,
    /// Jain's index over the users' mean bounded slowdowns: 1 where all fare alike, towards
    /// 0 where few fare far worse than others.
    pub fairness: f64,
}

impl Measures {
    /// Measure by measure.
    #[must_use]
    pub fn mean(of: &[Self]) -> Self {
        let mean = |measure: fn(&Self) -> f64| of.iter().map(measure).sum::<f64>() / of.len() as f64;
        Self {
            mean_bounded_slowdown: mean(|one| one.mean_bounded_slowdown),
            max_bounded_slowdown: mean(|one| one.max_bounded_slowdown),
            mean_wait_s: mean(|one| one.mean_wait_s),
            p99_wait_s: mean(|one| one.p99_wait_s),
            max_wait_s: mean(|one| one.max_wait_s),
            utilisation: mean(|one| one.utilisation),
            fairness: mean(|one| one.fairness),
        }
    }
}

/// Measures a log whose jobs started at `starts`.
#[must_use]
pub fn measure(log: &Log, starts: &[u64]) -> Measures {
    let jobs = || log.jobs.iter().zip(starts);
    let count = log.jobs.len() as f64;
    let mut waits: Vec<u64> = jobs().map(|(job, start)| start - job.submit).collect();
    waits.sort_unstable();
    let slowdowns = || jobs().map(|(job, start)| bounded_slowdown(start - job.submit, job.run));
    let mut users: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for (job, slowdown) in log.jobs.iter().zip(slowdowns()) {
        let (sum, of) = users.entry(job.user).or_default();
        *sum += slowdown;
        *of += 1.0;
    }
    let begin = log.jobs.iter().map(|job| job.submit).min().unwrap_or_default();
    let end = last_end(log, starts);
    let work: f64 = log.jobs.iter().map(|job| job.size as f64 * job.run as f64).sum();
    Measures {
        mean_bounded_slowdown: slowdowns().sum::<f64>() / count,
        max_bounded_slowdown: slowdowns().fold(0.0, f64::max),
        mean_wait_s: waits.iter().sum::<u64>() as f64 / count,
        p99_wait_s: waits[(waits.len() * 99).div_ceil(100).saturating_sub(1)] as f64,
        max_wait_s: waits[waits.len() - 1] as f64,
        utilisation: work / ((end - begin).max(1) as f64 * log.processors as f64),
        fairness: jain(users.values().map(|(sum, of)| sum / of)),
    }
}

pub(super) fn bounded_slowdown(wait: u64, run: u64) -> f64 {
    ((wait + run) as f64 / (run as f64).max(SHORTEST_RUN_S)).max(1.0)
}

fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum, squares) = values.fold((0.0, 0.0, 0.0), |(count, sum, squares), value| {
        (count + 1.0, sum + value, squares + value * value)
    });
    sum * sum / (count * squares)
}
