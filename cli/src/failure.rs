//! How a command fails, and with which exit code.
//!
//! Every failure is one line: field, value, reason, remedy. The codes are part
//! of the contract; `drumline --help` lists them.

use jiff::Timestamp;
use proto::problem::Problem;
use proto::v1::QuotaDetail;
use std::{fmt, io};

/// Did what was asked.
pub const EXIT_OK: u8 = 0;
/// This machine, or Drumline itself, failed.
pub const EXIT_BROKEN: u8 = 1;
/// Wrong use: flags, files that are not there.
pub const EXIT_WRONG_USE: u8 = 2;
/// Refused: by the server, or before it was asked.
pub const EXIT_REFUSED: u8 = 3;
/// The server is out of reach.
pub const EXIT_UNREACHABLE: u8 = 4;

/// Why a command ended without having done what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Flags or files that make no sense.
    WrongUse(Problem),
    /// The server said no, or would.
    Refused(Problem),
    /// Nobody answers.
    Unreachable(Problem),
    /// This machine or Drumline failed.
    Broken(Problem),
    /// Whoever read our output is gone: nothing is left to say.
    OutputClosed,
}

impl Failure {
    /// Wrong use of a flag or argument.
    pub fn wrong_use(field: &str, value: impl fmt::Display, reason: &str, remedy: &str) -> Self {
        Self::WrongUse(Problem::new("use.wrong", field, value, reason, remedy))
    }

    /// This machine failed.
    pub fn broken(field: &str, value: impl fmt::Display, reason: impl Into<String>, remedy: &str) -> Self {
        Self::Broken(Problem::new("local.failed", field, value, reason, remedy))
    }

    /// What the shell sees.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::WrongUse(_) => EXIT_WRONG_USE,
            Self::Refused(_) => EXIT_REFUSED,
            Self::Unreachable(_) => EXIT_UNREACHABLE,
            Self::Broken(_) => EXIT_BROKEN,
            Self::OutputClosed => EXIT_OK,
        }
    }

    /// The one line. A refusal has its code at the end, by which it is the same
    /// at every door; one by quota has its amounts behind it, under the names that
    /// they have at the other doors.
    pub fn print(&self) {
        match self {
            Self::Refused(problem) => {
                eprintln!("error: {problem} [{}]", problem.code);
                if let Some(quota) = &problem.quota {
                    eprintln!("quota: {}", amounts(quota));
                }
            }
            _ => {
                if let Some(problem) = self.problem() {
                    eprintln!("error: {problem}");
                }
            }
        }
    }

    /// What is behind it.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::WrongUse(problem)
            | Self::Refused(problem)
            | Self::Unreachable(problem)
            | Self::Broken(problem) => Some(problem),
            Self::OutputClosed => None,
        }
    }
}

/// What a limit says of what was asked; instants are UTC.
fn amounts(quota: &QuotaDetail) -> String {
    let QuotaDetail { dimension, used, asked, limit, threshold, fits_at_ms } = quota;
    let eta = match Timestamp::from_millisecond(fits_at_ms.cast_signed()) {
        Ok(at) if *fits_at_ms > 0 => at.to_string(),
        _ => "unknown".to_owned(),
    };
    format!("dimension={dimension} used={used} asked={asked} limit={limit} threshold={threshold} eta={eta}")
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem.family() {
            "unavailable" => Self::Unreachable(problem),
            "internal" => Self::Broken(problem),
            _ => Self::Refused(problem),
        }
    }
}

/// Only for writing to our own output; files have their own words.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::broken("output", "", error.to_string(), "look where the output goes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_follows_from_the_problem() {
        let exit = |code: &str| Failure::from(Problem::new(code, "f", "v", "r", "m")).exit_code();
        assert_eq!(
            [exit("spec.cycle"), exit("quota.exceeded"), exit("auth.token"), exit("missing.job")],
            [3; 4]
        );
        assert_eq!((exit("unavailable.server"), exit("internal.fault")), (4, 1));
        assert_eq!(Failure::wrong_use("f", "v", "r", "m").exit_code(), 2);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }

    #[test]
    fn amounts_are_told_by_name() {
        let mut quota = QuotaDetail {
            dimension: "cores".to_owned(),
            used: 7.5,
            asked: 2.0,
            limit: 10.0,
            threshold: 9.0,
            fits_at_ms: 0,
        };
        assert_eq!(amounts(&quota), "dimension=cores used=7.5 asked=2 limit=10 threshold=9 eta=unknown");
        quota.fits_at_ms = 1_798_761_600_000;
        assert!(amounts(&quota).ends_with(" eta=2027-01-01T00:00:00Z"), "{}", amounts(&quota));
    }
}
