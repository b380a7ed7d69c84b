//! Spans of time as the console writes them, and when such a text changes next:
//! so that time passing costs a frame only where it can be seen.

use proto::units;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long ago, in one unit: `42s`, `5m`, `3h`, `12d`; `-` where it never was.
pub(crate) fn age(at_ms: u64, now_ms: u64) -> String {
    if at_ms == 0 {
        return "-".to_owned();
    }
    let span = now_ms.saturating_sub(at_ms);
    match span {
        ..MINUTE => format!("{}s", span / SECOND),
        MINUTE..HOUR => format!("{}m", span / MINUTE),
        HOUR..DAY => format!("{}h", span / HOUR),
        _ => format!("{}d", span / DAY),
    }
}

/// When [`age`] reads differently from how it reads now.
pub(crate) fn age_due(at_ms: u64, now_ms: u64) -> Option<u64> {
    next(at_ms, now_ms, |span| match span {
        ..MINUTE => SECOND,
        MINUTE..HOUR => MINUTE,
        HOUR..DAY => HOUR,
        _ => DAY,
    })
}

/// From start to end, or to now where it still runs: `5s`, `3m05s`, `2h14m`.
pub(crate) fn ran(started_ms: u64, ended_ms: u64, now_ms: u64) -> String {
    if started_ms == 0 {
        return "-".to_owned();
    }
    if ended_ms != 0 {
        return units::brief_duration_ms(ended_ms.saturating_sub(started_ms));
    }
    let span = now_ms.saturating_sub(started_ms);
    match span {
        ..MINUTE => format!("{}s", span / SECOND),
        _ => units::brief_duration_ms(span),
    }
}

/// When [`ran`] reads differently from how it reads now.
pub(crate) fn ran_due(started_ms: u64, ended_ms: u64, now_ms: u64) -> Option<u64> {
    if ended_ms != 0 {
        return None;
    }
    next(started_ms, now_ms, |span| match span {
        ..HOUR => SECOND,
        HOUR..DAY => MINUTE,
        _ => HOUR,
    })
}

/// The next whole unit, counted from `at_ms`.
fn next(at_ms: u64, now_ms: u64, unit: impl Fn(u64) -> u64) -> Option<u64> {
    if at_ms == 0 {
        return None;
    }
    // A server's clock may be ahead of ours.
    let span = now_ms.saturating_sub(at_ms);
    let unit = unit(span);
    at_ms.checked_add((span / unit + 1) * unit)
}

/// `12:03:04`, in UTC.
pub(crate) fn time_of_day(at_ms: u64) -> String {
    let seconds = at_ms / SECOND % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_short() {
        let now = 100 * DAY;
        let ages = [0, now, now - 59_999, now - 60_000, now - HOUR, now - 3 * DAY, now + 5];
        assert_eq!(ages.map(|at| age(at, now)), ["-", "0s", "59s", "1m", "1h", "3d", "0s"]);
        assert_eq!(ran(now - 7_500, 0, now), "7s");
        assert_eq!(ran(now - 7_500, now, now + 9), "7.5s");
        assert_eq!(ran(now - 125_000, 0, now), "2m05s");
        assert_eq!(ran(0, 0, now), "-");
        assert_eq!(time_of_day(now + 3 * HOUR + 61_000), "03:01:01");
    }

    proptest! {
        /// Between now and then the text is the same; then it is another.
        #[test]
        fn a_text_changes_when_it_is_said_to(at in 1_u64..100 * DAY, span in 0_u64..10 * DAY, part in 0.0..1.0_f64) {
            let now = at + span;
            for (text, due) in [
                (&age as &dyn Fn(u64, u64) -> String, age_due(at, now)),
                (&|at, now| ran(at, 0, now), ran_due(at, 0, now)),
            ] {
                let due = due.unwrap();
                prop_assert!(due > now);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place between two instants")]
                let between = now + ((due - 1 - now) as f64 * part) as u64;
                prop_assert_eq!(text(at, now), text(at, between));
                prop_assert_ne!(text(at, now), text(at, due));
            }
        }
    }
}
