//! How it went over time: the log's span cut into columns of equal width.

use super::measure::bounded_slowdown;
use super::swf::Log;

/// The course of a log that was worked off.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The first submission, in the log's seconds.
    pub begin: u64,
    /// Seconds of a column.
    pub column_s: f64,
    /// Jobs that waited, in the mean of each column.
    pub queue: Vec<f64>,
    /// The part of the processors that worked, in the mean of each column.
    pub utilisation: Vec<f64>,
    /// Mean bounded slowdown of the jobs submitted in each column; 0 where none was.
    pub slowdown: Vec<f64>,
}

/// A log whose jobs started at `starts`, in so many columns, which end at `end`: courses
/// that are compared must have one.
#[must_use]
pub fn course(log: &Log, starts: &[u64], end: u64, columns: usize) -> Course {
    let begin = log.jobs.iter().map(|job| job.submit).min().unwrap_or_default();
    let column_s = (end.saturating_sub(begin).max(1)) as f64 / columns as f64;
    let column = |second: u64| (((second - begin) as f64 / column_s) as usize).min(columns - 1);
    let mut course = Course {
        begin,
        column_s,
        queue: vec![0.0; columns],
        utilisation: vec![0.0; columns],
        slowdown: vec![0.0; columns],
    };
    let mut submitted = vec![0.0; columns];
    // Adds what lasts from one instant to another to the columns it lies in.
    let spread = |into: &mut [f64], from: u64, to: u64, weight: f64| {
        let (first, last) = (column(from), column(to));
        for (at, sum) in into.iter_mut().enumerate().take(last + 1).skip(first) {
            let left = begin as f64 + at as f64 * column_s;
            let inside = (to as f64).min(left + column_s) - (from as f64).max(left);
            *sum += weight * inside.max(0.0) / column_s;
        }
    };
    for (job, &start) in log.jobs.iter().zip(starts) {
        spread(&mut course.queue, job.submit, start, 1.0);
        let part = job.size as f64 / log.processors as f64;
        spread(&mut course.utilisation, start, start + job.run, part);
        let at = column(job.submit);
        course.slowdown[at] += bounded_slowdown(start - job.submit, job.run);
        submitted[at] += 1.0;
    }
    for (sum, count) in course.slowdown.iter_mut().zip(submitted) {
        *sum /= f64::max(count, 1.0);
    }
    course
}

/// When the last job of a log ends.
#[must_use]
pub fn last_end(log: &Log, starts: &[u64]) -> u64 {
    log.jobs.iter().zip(starts).map(|(job, start)| start + job.run).max().unwrap_or_default()
}
