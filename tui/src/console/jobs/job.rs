//! What the list holds of one job.

use proto::v1::{JobSummary, State, StepState};
use std::cmp::Reverse;

/// A job's name inside: its tenant's place, its number.
pub(crate) type Key = (u16, u64);

/// What the list shows of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub tenant: u16,
    pub number: u64,
    pub name: String,
    pub state: State,
    pub submitted_ms: u64,
    pub started_ms: u64,
    pub ended_ms: u64,
    pub priority: i32,
    /// Tasks: all, over, failed among these.
    pub tasks: u64,
    pub over: u64,
    pub failed: u64,
    /// Something happened since this was read.
    pub stale: bool,
}

impl Job {
    pub(crate) fn new(tenant: u16, summary: JobSummary) -> Self {
        let state = summary.state.unwrap_or_default();
        let sum = |of: fn(&StepState) -> u64| state.steps.iter().map(of).fold(0, u64::saturating_add);
        Self {
            tenant,
            number: summary.number,
            name: summary.name,
            state: state.state(),
            submitted_ms: summary.submitted_ms,
            started_ms: state.started_ms,
            ended_ms: state.ended_ms,
            priority: summary.priority,
            tasks: summary.tasks,
            over: sum(|step| step.completed.saturating_add(step.failed).saturating_add(step.cancelled)),
            failed: sum(|step| step.failed),
            stale: false,
        }
    }

    pub(super) fn key(&self) -> Key {
        (self.tenant, self.number)
    }

    /// Newest first; the same for two jobs only where they are one.
    pub(super) fn rank(&self) -> (Reverse<u64>, u16, Reverse<u64>) {
        (Reverse(self.submitted_ms), self.tenant, Reverse(self.number))
    }

    /// What an edge to this state tells of its times.
    pub(super) fn set_times(&mut self, state: State, at_ms: u64) {
        match state {
            State::Completed | State::Failed | State::Cancelled => self.ended_ms = at_ms,
            State::Staging | State::Running if self.started_ms == 0 => self.started_ms = at_ms,
            // The user tries again.
            State::Pending => self.ended_ms = 0,
            _ => {}
        }
    }
}
