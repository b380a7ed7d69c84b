//! Invariant 9: once faults have healed, every job reaches an end in bounded time, and
//! nothing is left held.
//!
//! The bounds are in `bounds.rs`. Where faults strike one at a time and the cluster has
//! room (scenario `apart`), each must be recovered from within the bound of its kind.
//! Everywhere, once no fault is felt any more, something goes on all the time while any
//! job lives, be it on what is left of the cluster for good.

use super::agreement::events;
use super::{Checker, Committed, Outcome};
use crate::bounds::{self, QUIET_MS};
use crate::mirror::Mirror;
use proto::v1::{JobStateRow, State};

#[derive(Default)]
pub struct EveryJobEnds {
    /// When an event was written last.
    last_ms: u64,
    /// Spans without any that were long, while there was a job that lived.
    quiet: Vec<(u64, u64)>,
}

fn lives(state: &JobStateRow) -> bool {
    !matches!(state.state(), State::Completed | State::Failed | State::Cancelled)
}

impl Checker for EveryJobEnds {
    fn name(&self) -> &'static str {
        "liveness"
    }
    fn invariant(&self) -> u8 {
        9
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        if events(commit).next().is_some() {
            // What was found after a restart may have been written since it was last seen.
            let went_on_ms = commit.since_ms;
            if went_on_ms > self.last_ms + QUIET_MS && before.states.values().any(|state| lives(state)) {
                self.quiet.push((self.last_ms, went_on_ms));
            }
            self.last_ms = commit.at_ms;
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        outcome.drained.clone()?;
        let live = outcome.mirror.states.iter().find(|(_, state)| lives(state));
        if let Some((job, state)) = live {
            return Err(format!("job {job} is {:?} for ever", state.state()));
        }
        if let Some(((tenant, epoch), grant)) = outcome.mirror.grants.iter().next() {
            return Err(format!("grant {epoch} of {tenant}-{} is held by nobody for ever", grant.job_number));
        }
        let well_ms = bounds::well_ms(outcome.faults);
        let long = |(from_ms, until_ms): &&(u64, u64)| *until_ms > well_ms.max(*from_ms) + QUIET_MS;
        if let Some((from_ms, until_ms)) = self.quiet.iter().find(long) {
            return Err(format!(
                "nothing went on from {from_ms} to {until_ms} ms while there were jobs, and all was well from \
                 {well_ms} ms on"
            ));
        }
        let late = |(kind, ms): &&(&'static str, u64)| *ms > bounds::felt_ms(kind);
        match outcome.recovered.iter().find(late) {
            Some((kind, ms)) => Err(format!(
                "{ms} ms after {kind} alone had healed the cluster was not well yet; {} is its bound",
                bounds::felt_ms(kind)
            )),
            None => Ok(()),
        }
    }
}
