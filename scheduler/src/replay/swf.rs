//! Workload logs in the Standard Workload Format, as the Parallel Workloads
//! Archive has them: a line for each job, eighteen numbers in it, -1 for what is
//! not known; lines that begin with `;` tell of the whole log.

use std::fmt;

/// One job of a log. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogJob {
    /// Its number in the log.
    pub id: u64,
    /// Since the log began.
    pub submit: u64,
    /// How long it ran; never longer than it was expected to.
    pub run: u64,
    /// How long its user expected it to run at most.
    pub estimate: u64,
    /// Processors.
    pub size: u64,
    /// Who submitted it; -1: nobody knows.
    pub user: i64,
}

/// What was read of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// In the order of their submission.
    pub jobs: Vec<LogJob>,
    /// Of the machine.
    pub processors: u64,
    /// Jobs that could not have run as the log says.
    pub dropped: usize,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// A line that is no job.
    Line {
        /// From 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// The log does not say how large its machine was.
    NoProcessors,
    /// No job is left.
    Empty,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, why } => write!(f, "line {number}: {why}"),
            Self::NoProcessors => f.write_str(
                "the log does not say how many processors its machine had \
                 (`; MaxProcs:` or `; MaxNodes:`); give --processors",
            ),
            Self::Empty => f.write_str("the log has no job that could have run on its machine"),
        }
    }
}

impl std::error::Error for LogError {}

/// Columns, from 0.
const SUBMIT: usize = 1;
const RUN: usize = 3;
const ALLOCATED: usize = 4;
const REQUESTED: usize = 7;
const REQUESTED_TIME: usize = 8;
const USER: usize = 11;
const COLUMNS: usize = 18;
/// Three hundred years in seconds; larger numbers are mistakes.
const LARGEST: f64 = 1e10;

/// Reads a log. `processors` is what the machine had where the log does not say,
/// or says something else. Jobs larger than the machine and those without a span, a
/// size or an estimate are left out; where no job has an estimate, its run is it.
pub fn read(text: &str, processors: Option<u64>) -> Result<Log, LogError> {
    let mut rows = Vec::new();
    let mut said = [None, None];
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if let Some(comment) = line.strip_prefix(';') {
            for (found, field) in said.iter_mut().zip(["MaxProcs:", "MaxNodes:"]) {
                let value = comment.trim().strip_prefix(field).map(str::trim);
                *found = found.or(value.and_then(|value| value.split(' ').next()?.parse().ok()));
            }
        } else if !line.is_empty() {
            rows.push(row(line).map_err(|why| LogError::Line { number, why })?);
        }
    }
    let processors = processors.or(said[0]).or(said[1]).filter(|processors| *processors > 0);
    let processors = processors.ok_or(LogError::NoProcessors)?;
    let without_estimates = rows.iter().all(|row| row[REQUESTED_TIME] <= 0);
    let read = rows.len();
    let mut jobs: Vec<LogJob> =
        rows.iter().filter_map(|row| job(row, processors, without_estimates)).collect();
    // Logs are in this order already, but for a few.
    jobs.sort_by_key(|job| job.submit);
    if jobs.is_empty() {
        return Err(LogError::Empty);
    }
    let dropped = read - jobs.len();
    Ok(Log { jobs, processors, dropped })
}

fn row(line: &str) -> Result<[i64; COLUMNS], String> {
    let mut row = [-1; COLUMNS];
    let mut count = 0;
    for word in line.split_ascii_whitespace() {
        let at = row.get_mut(count).ok_or_else(|| format!("more than {COLUMNS} columns"))?;
        // Means are told with fractions, and some logs tell spans so.
        *at = word
            .parse::<f64>()
            .ok()
            .filter(|value| value.abs() <= LARGEST)
            .map(|value| value as i64)
            .ok_or_else(|| format!("column {} is {word:?}, which is no number, or too large", count + 1))?;
        count += 1;
    }
    if count == COLUMNS { Ok(row) } else { Err(format!("{count} columns, where a job has {COLUMNS}")) }
}

fn job(row: &[i64; COLUMNS], processors: u64, without_estimates: bool) -> Option<LogJob> {
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let fits = |size: i64| u64::try_from(size).map_or(true, |size| size <= processors);
    if !fits(row[ALLOCATED]) || !fits(row[REQUESTED]) {
        return None;
    }
    let run = positive(row[RUN])?;
    let estimate = if without_estimates { run } else { positive(row[REQUESTED_TIME])? };
    Some(LogJob {
        id: u64::try_from(row[0]).ok()?,
        submit: u64::try_from(row[SUBMIT]).ok()?,
        run: run.min(estimate),
        estimate,
        size: positive(row[REQUESTED]).or_else(|| positive(row[ALLOCATED]))?,
        user: row[USER],
    })
}
