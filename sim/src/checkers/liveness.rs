//! Invariant 9: after the last fault heals, every job reaches an end in bounded
//! time, and nothing is left held.

use super::{Checker, Outcome};
use proto::v1::State;

pub struct EveryJobEnds;

impl Checker for EveryJobEnds {
    fn name(&self) -> &'static str {
        "liveness"
    }
    fn invariant(&self) -> u8 {
        9
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        outcome.drained.clone()?;
        let live =
            outcome.mirror.states.iter().find(|(_, state)| {
                !matches!(state.state(), State::Completed | State::Failed | State::Cancelled)
            });
        if let Some((job, state)) = live {
            return Err(format!("job {job} is {:?} for ever", state.state()));
        }
        if let Some(((tenant, epoch), grant)) = outcome.mirror.grants.iter().next() {
            return Err(format!("grant {epoch} of {tenant}-{} is held by nobody for ever", grant.job_number));
        }
        Ok(())
    }
}
