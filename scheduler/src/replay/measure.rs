//! How well a log was worked off.

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
    let end = jobs().map(|(job, start)| start + job.run).max().unwrap_or_default();
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

fn bounded_slowdown(wait: u64, run: u64) -> f64 {
    ((wait + run) as f64 / (run as f64).max(SHORTEST_RUN_S)).max(1.0)
}

fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum, squares) = values.fold((0.0, 0.0, 0.0), |(count, sum, squares), value| {
        (count + 1.0, sum + value, squares + value * value)
    });
    sum * sum / (count * squares)
}

/// A span of the log's time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When it begins, in seconds.
    pub at_s: u64,
    /// Processors that waiting jobs want, in the mean of its time.
    pub queued: f64,
    /// The part of the processors that were at work.
    pub utilisation: f64,
    /// Of the jobs submitted in it; none: 0.
    pub mean_bounded_slowdown: f64,
}

/// A log's course in so many spans of equal length.
#[must_use]
pub fn samples(log: &Log, starts: &[u64], count: usize) -> Vec<Sample> {
    let begin = log.jobs.iter().map(|job| job.submit).min().unwrap_or_default();
    let end = log.jobs.iter().zip(starts).map(|(job, start)| start + job.run).max().unwrap_or_default();
    let span = (end - begin).div_ceil(count as u64).max(1);
    let mut samples: Vec<Sample> =
        (0..count as u64).map(|index| Sample { at_s: begin + index * span, ..Sample::default() }).collect();
    let mut submitted = vec![0.0; count];
    for (job, &start) in log.jobs.iter().zip(starts) {
        let size = job.size as f64 / span as f64;
        spread(begin, span, (job.submit, start), |index, seconds| samples[index].queued += seconds * size);
        let part = size / log.processors as f64;
        spread(begin, span, (start, start + job.run), |index, seconds| {
            samples[index].utilisation += seconds * part;
        });
        let index = ((job.submit - begin) / span) as usize;
        samples[index].mean_bounded_slowdown += bounded_slowdown(start - job.submit, job.run);
        submitted[index] += 1.0;
    }
    for (sample, submitted) in samples.iter_mut().zip(submitted) {
        sample.mean_bounded_slowdown /= f64::max(submitted, 1.0);
    }
    samples
}

/// Tells of each span how many seconds of it lie in `[from, to)`.
fn spread(begin: u64, span: u64, (from, to): (u64, u64), mut tell: impl FnMut(usize, f64)) {
    let mut at = from;
    while at < to {
        let index = (at - begin) / span;
        let next = (begin + (index + 1) * span).min(to);
        tell(index as usize, (next - at) as f64);
        at = next;
    }
}
