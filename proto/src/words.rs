//! Words for states, causes, ids and money, the same at every door.

use crate::{
    ids::JobId,
    problem::Problem,
    v1::{AlertSeverity, Cause, CauseKind, Drainer, NodeState, State},
};

/// `RUNNING`.
#[must_use]
pub fn state(state: State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}

/// `READY`; `DRAINED` where it takes no more.
#[must_use]
pub fn node_state(state: NodeState, drained: bool) -> &'static str {
    match (state, drained) {
        (NodeState::Lost, _) => "LOST",
        (_, true) => "DRAINED",
        (other, false) => other.as_str_name().trim_start_matches("NODE_STATE_"),
    }
}

/// `autoscaler`; nothing where it was an operator, or the node itself.
#[must_use]
pub fn drainer(drainer: Drainer) -> Option<&'static str> {
    match drainer {
        Drainer::Unspecified => None,
        Drainer::Autoscaler => Some("autoscaler"),
        Drainer::Removal => Some("removal"),
    }
}

/// `critical`.
#[must_use]
pub fn alert_severity(severity: AlertSeverity) -> &'static str {
    match severity {
        AlertSeverity::Unspecified => "none",
        AlertSeverity::Warning => "warning",
        AlertSeverity::Critical => "critical",
    }
}

/// One line for a cause; empty where there is nothing to say.
#[must_use]
pub fn cause(cause: Option<&Cause>) -> String {
    let Some(cause) = cause else { return String::new() };
    if !cause.text.is_empty() {
        return cause.text.replace(['\n', '\r'], " ");
    }
    match cause.kind() {
        CauseKind::Unspecified => String::new(),
        CauseKind::Exit => format!("exit code {}", cause.exit_code),
        CauseKind::Signal => format!("signal {}", cause.signal),
        kind => kind.as_str_name().trim_start_matches("CAUSE_KIND_").to_lowercase().replace('_', " "),
    }
}

/// `lab-17`.
#[must_use]
pub fn job_id(tenant: &str, number: u64) -> String {
    JobId::new(tenant, number).to_string()
}

/// Money in the operator's currency, from millionths.
#[must_use]
pub fn money(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let trimmed = text.trim_end_matches('0');
    // At least two decimals, as money is written.
    let decimals = trimmed.len() - trimmed.find('.').expect("it was put there") - 1;
    format!("{trimmed}{}", "0".repeat(2_usize.saturating_sub(decimals)))
}

/// Reads money into millionths.
pub fn parse_money(field: &str, text: &str) -> Result<u64, Problem> {
    let refuse =
        || Problem::new("spec.unit", field, text, "is no amount of money", "write it like 500 or 0.04");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
        return Err(refuse());
    }
    let whole: u64 = whole.parse().map_err(|_| refuse())?;
    let fraction: u64 = format!("{decimals:0<6}").parse().map_err(|_| refuse())?;
    whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(fraction)).ok_or_else(refuse)
}

/// True once a job or step will not change by itself any more.
#[must_use]
pub fn is_ended(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_and_read_plainly() {
        assert_eq!(
            (money(0), money(1_500_000), money(40_001)),
            ("0.00".into(), "1.50".into(), "0.040001".into())
        );
        assert_eq!(parse_money("budget", "0.04").unwrap(), 40_000);
        assert_eq!(parse_money("budget", "500").unwrap(), 500_000_000);
        for bad in ["", "-1", "1.", "0.0000001", "1e3", "99999999999999999999"] {
            assert_eq!(parse_money("budget", bad).unwrap_err().field, "budget", "{bad}");
        }
    }

    #[test]
    fn states_are_the_contract_s() {
        assert_eq!((state(State::Cancelled), is_ended(State::Cancelled)), ("CANCELLED", true));
        assert_eq!((state(State::Running), is_ended(State::Running)), ("RUNNING", false));
        assert_eq!(
            (node_state(NodeState::Ready, true), node_state(NodeState::Lost, true)),
            ("DRAINED", "LOST")
        );
    }
}
