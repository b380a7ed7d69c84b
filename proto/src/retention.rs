//! How long what an ended job gave is kept: its outputs, checkpoints and logs.

use crate::problem::Problem;
use crate::units;
use crate::v1::JobStateRow;
use std::fmt;

/// The least that may be told, in milliseconds.
pub const RETENTION_MS_MIN: u64 = 1_000;
/// The most: a hundred years.
pub const RETENTION_MS_MAX: u64 = 36_600 * 24 * 3_600_000;

/// Checks what a tenant's row is to say.
pub fn check(field: &str, kept_ms: u64) -> Result<(), Problem> {
    if (RETENTION_MS_MIN..=RETENTION_MS_MAX).contains(&kept_ms) {
        return Ok(());
    }
    let remedy = "use 1s to 36600d, or leave it out to keep outputs and logs for ever";
    Err(Problem::new(
        "spec.time",
        field,
        units::format_duration_ms(kept_ms),
        "is no time that outputs and logs can be kept",
        remedy,
    ))
}

/// A job may ask for less than its tenant keeps, not for more.
pub fn check_own(tenant: Option<u64>, keep_ms: u64) -> Result<(), Problem> {
    match tenant {
        Some(most_ms) if keep_ms > most_ms => Err(Problem::new(
            "spec.retention",
            "keep",
            units::format_duration_ms(keep_ms),
            format!("its tenant keeps outputs and logs for {}", units::format_duration_ms(most_ms)),
            "ask for no more than that, or leave it out",
        )),
        _ => Ok(()),
    }
}

/// Refuses where what the job gave has expired.
pub fn kept(job: impl fmt::Display, state: &JobStateRow) -> Result<(), Problem> {
    match state.expired_ms {
        0 => Ok(()),
        at_ms => Err(expired(job, at_ms, state.retained_ms)),
    }
}

/// How long after its end, in milliseconds: as long as its tenant keeps what jobs give
/// (`None`: for ever), or less where the job asked for it (`keep_ms`; 0: it did not).
#[must_use]
pub fn kept_ms(tenant: Option<u64>, keep_ms: u64) -> Option<u64> {
    let own = (keep_ms > 0).then_some(keep_ms);
    tenant.into_iter().chain(own).min()
}

/// What is asked for of a job is kept no longer.
#[must_use]
pub fn expired(job: impl fmt::Display, at_ms: u64, kept_ms: u64) -> Problem {
    let reason = format!(
        "its outputs and logs expired at {}: they were kept for {} after its end",
        units::format_instant(at_ms),
        units::format_duration_ms(kept_ms)
    );
    let remedy = "submit it again; `drumline quota` tells how long outputs are kept";
    Problem::new("outputs.expired", "job", job, reason, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_both_counts() {
        assert_eq!(kept_ms(None, 0), None);
        assert_eq!((kept_ms(Some(5), 0), kept_ms(None, 7)), (Some(5), Some(7)));
        assert_eq!((kept_ms(Some(5), 7), kept_ms(Some(5), 3)), (Some(5), Some(3)));
    }

    #[test]
    fn what_cannot_be_kept_so_is_refused() {
        assert!(check("retention", RETENTION_MS_MIN).is_ok() && check("retention", RETENTION_MS_MAX).is_ok());
        assert_eq!(check("retention", 999).unwrap_err().value, "999ms");
        assert!(check("retention", RETENTION_MS_MAX + 1).is_err());
        assert!(check_own(None, 5_000).is_ok() && check_own(Some(5_000), 5_000).is_ok());
        let problem = check_own(Some(5_000), 5_001).unwrap_err();
        assert_eq!((problem.field.as_str(), problem.value.as_str()), ("keep", "5s1ms"));
        assert!(kept("lab-1", &JobStateRow::default()).is_ok());
    }

    #[test]
    fn what_expired_is_told_with_its_time() {
        let problem = expired("lab-17", 1_700_000_000_123, 7 * 24 * 3_600_000);
        assert_eq!((problem.code.as_str(), problem.value.as_str()), ("outputs.expired", "lab-17"));
        let reason =
            "its outputs and logs expired at 2023-11-14T22:13:20Z: they were kept for 7d after its end";
        assert_eq!(problem.reason, reason);
        assert!(expired("lab-17", u64::MAX, 1).reason.contains("ms since 1970"));
    }
}
