//! Words for states, causes, times and amounts, the same in every command:
//! those that screens use too, and what only the command line reads.

use crate::failure::Failure;
use proto::v1::State;

pub use proto::words::{money, parse_money};
pub use tui::words::*;

/// Reads a state as people write it.
pub fn parse_state(text: &str) -> Result<State, Failure> {
    State::from_str_name(&format!("STATE_{}", text.to_ascii_uppercase()))
        .filter(|state| *state != State::Unspecified)
        .ok_or_else(|| {
            Failure::wrong_use(
                "state",
                text,
                "is no state",
                "use pending, staging, running, completed, failed or cancelled",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_both_ways() {
        assert_eq!(parse_state("running").unwrap(), State::Running);
        assert_eq!(state(State::Cancelled), "CANCELLED");
        assert_eq!(parse_state("unspecified").unwrap_err().exit_code(), 2);
    }
}
