//! Invariant 5: what a job gave is kept for its time. It expires once the job has ended, no
//! sooner than its tenant and the job itself say, and for good; rows go behind the mark, and
//! with the last word of it all have gone.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{JobStateRow, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct NotTooSoon {
    /// The shortest retention that a tenant ever had.
    retention_ms: BTreeMap<String, u64>,
}

impl NotTooSoon {
    fn judge(&self, job: &JobName, was: Option<&JobStateRow>, state: &JobStateRow) -> Result<(), String> {
        let told = was.filter(|was| was.expired_ms > 0);
        if let Some(was) = told
            && (JobStateRow { cleared: state.cleared, ..was.clone() } != *state || was.cleared)
        {
            return Err(format!("job {job} had expired, and moved on: {was:?}, then {state:?}"));
        }
        if state.expired_ms == 0 {
            return Ok(());
        }
        let own = (state.keep_ms > 0).then_some(state.keep_ms);
        let least_ms = self.retention_ms.get(&job.tenant).copied().into_iter().chain(own).min();
        let due_ms = least_ms.map_or(u64::MAX, |least_ms| state.ended_ms.saturating_add(least_ms));
        let ended = matches!(state.state(), State::Completed | State::Failed | State::Cancelled);
        if !ended || state.expired_ms < due_ms {
            return Err(format!(
                "job {job} ({:?}) ended at {} and expired at {}, where it was to be kept for {least_ms:?} ms",
                state.state(),
                state.ended_ms,
                state.expired_ms
            ));
        }
        Ok(())
    }
}

impl Checker for NotTooSoon {
    fn name(&self) -> &'static str {
        "expiry"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::Tenant(name, Some(row)) => {
                    if let Some(retention_ms) = row.retention_ms {
                        let least = self.retention_ms.entry(name.clone()).or_insert(retention_ms);
                        *least = retention_ms.min(*least);
                    }
                }
                Row::State(job, Some(state)) => {
                    self.judge(job, before.states.get(job).map(|row| &**row), state)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::Manifest { job, step, task, row: None, .. } => {
                    let state = now.states.get(job);
                    let anew = state
                        .and_then(|state| state.steps.get(*step as usize))
                        .is_some_and(|step| step.reset_generation > 0);
                    if !anew && !now.has_expired(job) {
                        return Err(format!(
                            "the manifest of task {task} of step {step} of {job} is gone, and it has not expired"
                        ));
                    }
                }
                Row::State(job, Some(state)) if state.cleared => {
                    let of_job = (job.clone(), 0, 0, 0)..=(job.clone(), u32::MAX, u64::MAX, u32::MAX);
                    let manifest = now.manifests.range(of_job.clone()).next().map(|(name, _)| name);
                    let left = now.checkpoints.range(of_job).next().map(|(name, _)| name).or(manifest);
                    if let Some((_, step, task, rank)) = left {
                        return Err(format!(
                            "job {job} is done with, and rank {rank} of task {task} of step {step} still has a row"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
