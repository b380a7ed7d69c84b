//! Which jobs are listed: by state, and by a text in their id or name.

use super::Job;
use crate::{limits::FILTER_CHARS_MAX, words};
use proto::v1::State;
use std::fmt::Write as _;

/// The states one can ask for, in the order of asking.
const STATES: [State; 6] =
    [State::Pending, State::Staging, State::Running, State::Completed, State::Failed, State::Cancelled];

/// Both parts must hold; what is empty always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub text: String,
    pub state: Option<State>,
}

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.state.is_none()
    }

    /// The next state after this one, or none.
    pub(crate) fn next_state(&self, back: bool) -> Option<State> {
        let at = self.state.and_then(|state| STATES.iter().position(|other| *other == state));
        match (at, back) {
            (None, false) => STATES.first().copied(),
            (None, true) => STATES.last().copied(),
            (Some(at), false) => STATES.get(at + 1).copied(),
            (Some(at), true) => at.checked_sub(1).map(|at| STATES[at]),
        }
    }

    /// Takes a character more, where there is room.
    pub(crate) fn push(text: &mut String, typed: char) {
        if !typed.is_control() && text.chars().count() < FILTER_CHARS_MAX {
            text.push(typed);
        }
    }

    /// Tells jobs that pass. Upper and lower case of ASCII are one.
    pub(super) fn matcher<'a>(&'a self, tenants: &'a [String]) -> impl FnMut(&Job) -> bool + 'a {
        let wanted = self.text.to_ascii_lowercase();
        // One buffer for all jobs: this runs over all of them at each key.
        let mut told = String::new();
        move |job| {
            if self.state.is_some_and(|state| state != job.state) {
                return false;
            }
            if wanted.is_empty() {
                return true;
            }
            told.clear();
            let tenant = tenants.get(usize::from(job.tenant)).map_or("", String::as_str);
            // Writing to a string cannot fail.
            let _ = write!(told, "{tenant}-{} {}", job.number, job.name);
            told.make_ascii_lowercase();
            told.contains(&wanted)
        }
    }

    /// In words, for the head of the list.
    pub(crate) fn words(&self) -> String {
        let mut words = Vec::new();
        if let Some(state) = self.state {
            words.push(words::state(state).to_owned());
        }
        if !self.text.is_empty() {
            words.push(format!("“{}”", self.text));
        }
        words.join(" with ")
    }
}
