//! Slurm's words for states, times and reasons.

use crate::failure::Failure;
use proto::v1::{Cause, CauseKind, State};

/// A state as Slurm writes it: in full, and in two letters.
pub type StateWord = (&'static str, &'static str);

/// Every state that a list may show.
const STATES: [(StateWord, &[State]); 10] = [
    (("PENDING", "PD"), &[State::Pending]),
    (("CONFIGURING", "CF"), &[State::Staging]),
    (("RUNNING", "R"), &[State::Running]),
    (("COMPLETING", "CG"), &[State::Pending, State::Staging, State::Running]),
    (("COMPLETED", "CD"), &[State::Completed]),
    (("FAILED", "F"), &[State::Failed]),
    (("TIMEOUT", "TO"), &[State::Failed]),
    (("OUT_OF_MEMORY", "OOM"), &[State::Failed]),
    (("NODE_FAIL", "NF"), &[State::Failed]),
    (("CANCELLED", "CA"), &[State::Cancelled]),
];

/// The word for what became of a job or task.
#[must_use]
pub fn state(state: State, cause: Option<&Cause>, ending: bool) -> StateWord {
    match (state, cause.map(Cause::kind)) {
        (State::Pending | State::Staging | State::Running, _) if ending => ("COMPLETING", "CG"),
        (State::Staging, _) => ("CONFIGURING", "CF"),
        (State::Running, _) => ("RUNNING", "R"),
        (State::Completed, _) => ("COMPLETED", "CD"),
        (State::Cancelled, _) => ("CANCELLED", "CA"),
        (State::Failed, Some(CauseKind::Timeout)) => ("TIMEOUT", "TO"),
        (State::Failed, Some(CauseKind::OutOfMemory)) => ("OUT_OF_MEMORY", "OOM"),
        (State::Failed, Some(CauseKind::NodeLost | CauseKind::LeaseExpired)) => ("NODE_FAIL", "NF"),
        (State::Failed, _) => ("FAILED", "F"),
        (State::Pending | State::Unspecified, _) => ("PENDING", "PD"),
    }
}

/// Reads words for states, in full or in letters; `all` is every one.
pub fn parse_states(texts: &[String]) -> Result<Vec<StateWord>, Failure> {
    let mut words = Vec::new();
    for text in texts {
        let upper = text.trim().to_ascii_uppercase();
        if upper == "ALL" {
            words.extend(STATES.iter().map(|(word, _)| *word));
            continue;
        }
        let found =
            STATES.iter().map(|(word, _)| *word).find(|(full, short)| *full == upper || *short == upper);
        words.push(found.ok_or_else(|| {
            let known: Vec<&str> = STATES.iter().map(|((_, short), _)| *short).collect();
            Failure::wrong_use("--states", text, "is no state", &format!("use {} or all", known.join(", ")))
        })?);
    }
    Ok(words)
}

/// Drumline's states that such a word may stand for.
#[must_use]
pub fn states_behind(words: &[StateWord]) -> Vec<State> {
    let mut states: Vec<State> = STATES
        .iter()
        .filter(|(word, _)| words.contains(word))
        .flat_map(|(_, states)| *states)
        .copied()
        .collect();
    states.sort();
    states.dedup();
    states
}

/// Slurm's word for the reason that `why` gives by its code.
#[must_use]
pub fn reason(code: &str) -> &'static str {
    match code {
        "waiting.job" | "waiting.step" => "Dependency",
        "waiting.quota" => "AssociationResourceLimit",
        "waiting.capacity" => "Resources",
        "waiting.nodes" => "ReqNodeNotAvail",
        "waiting.turn" => "Priority",
        "waiting.backoff" | "waiting.begin" => "BeginTime",
        _ => "None",
    }
}

/// A span as Slurm writes it: `M:SS`, `H:MM:SS`, `D-HH:MM:SS`.
#[must_use]
pub fn span(span_ms: u64) -> String {
    let seconds = span_ms / 1000;
    let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3600);
    let (minutes, seconds) = (seconds % 3600 / 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// An instant, in UTC and without the parts of a second; `N/A` for none.
#[must_use]
pub fn instant(at_ms: u64) -> String {
    if at_ms == 0 {
        return "N/A".to_owned();
    }
    let text = crate::output::words::utc(at_ms);
    text.split_once('.').map_or(text.clone(), |(seconds, _)| seconds.to_owned())
}

/// Memory as Slurm writes it: `500M`, `4G`.
#[must_use]
pub fn memory(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes > 0 && mebibytes.is_multiple_of(1024) {
        format!("{}G", mebibytes / 1024)
    } else {
        format!("{mebibytes}M")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_both_ways() {
        let words = parse_states(&["pd".into(), "RUNNING".into()]).unwrap();
        assert_eq!(words, [("PENDING", "PD"), ("RUNNING", "R")]);
        assert_eq!(states_behind(&words), [State::Pending, State::Running]);
        assert_eq!(parse_states(&["all".into()]).unwrap().len(), STATES.len());
        assert!(parse_states(&["XX".into()]).is_err());
        let timeout = Cause { kind: CauseKind::Timeout.into(), ..Cause::default() };
        assert_eq!(state(State::Failed, Some(&timeout), false).1, "TO");
        assert_eq!(state(State::Failed, None, false).1, "F");
        assert_eq!(state(State::Running, None, true).1, "CG");
    }

    #[test]
    fn spans_and_amounts_are_slurms() {
        for (ms, text) in [(0, "0:00"), (65_000, "1:05"), (3_725_000, "1:02:05"), (90_065_000, "1-01:01:05")]
        {
            assert_eq!(span(ms), text);
        }
        assert_eq!(
            (instant(0).as_str(), instant(1_709_208_000_123).as_str()),
            ("N/A", "2024-02-29T12:00:00")
        );
        assert_eq!(
            (memory(500 << 20).as_str(), memory(4 << 30).as_str(), memory(0).as_str()),
            ("500M", "4G", "0M")
        );
    }
}
