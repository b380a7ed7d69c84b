//! Invariant 2, the other way round: what is committed as completed was run to
//! its good end by that very attempt, under that epoch, all ranks of it. A word from an earlier
//! attempt must not end a later one.

use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::State;
use std::collections::{BTreeMap, BTreeSet};
use world::sim::ProcessSpan;

/// Job, step, task, attempt, epoch.
pub type AttemptName = (JobName, u32, u64, u32, u64);

#[derive(Default)]
pub struct EndsTrue {
    completed: BTreeSet<AttemptName>,
}

/// Processes that ended well, by rank, of each attempt.
pub fn ended_well(spans: &[ProcessSpan]) -> BTreeMap<AttemptName, BTreeMap<u32, &ProcessSpan>> {
    let mut ends: BTreeMap<AttemptName, BTreeMap<u32, &ProcessSpan>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.succeeded) {
        if let Some((attempt, rank)) = attempt_of(&span.key) {
            ends.entry(attempt).or_default().insert(rank, span);
        }
    }
    ends
}

/// `tenant/job/step/task/rank/attempt/epoch`, as the agent names processes.
pub fn attempt_of(key: &str) -> Option<(AttemptName, u32)> {
    let mut parts = key.split('/');
    let tenant = parts.next()?;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let [job, step, task, rank, attempt, epoch] =
        [number()?, number()?, number()?, number()?, number()?, number()?];
    if parts.next().is_some() {
        return None;
    }
    let job = JobName { tenant: tenant.to_owned(), number: job };
    let attempt = (job, step.try_into().ok()?, task, attempt.try_into().ok()?, epoch);
    Some((attempt, rank.try_into().ok()?))
}

impl Checker for EndsTrue {
    fn name(&self) -> &'static str {
        "ends-true"
    }
    fn invariant(&self) -> u8 {
        2
    }

    fn after(&mut self, _now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Events { tenant, row: Some(batch), .. } = row else { continue };
            for event in batch.events.iter().filter(|event| event.to() == State::Completed) {
                let Some(step) = event.step else { continue };
                let job = JobName { tenant: tenant.clone(), number: event.job_number };
                for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                    self.completed.insert((job.clone(), step, task, event.attempt, event.epoch));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let ends = ended_well(outcome.spans);
        for attempt in &self.completed {
            let (job, step, task, number, epoch) = attempt;
            let spec = outcome.mirror.jobs.get(job).and_then(|row| row.spec.as_ref());
            let step_of = spec.and_then(|spec| spec.steps.get(*step as usize));
            let ranks = step_of.map_or(1, |step| step.nodes.max(1) * step.tasks_per_node.max(1));
            let well = ends.get(attempt).map_or(0, BTreeMap::len);
            if well != ranks as usize {
                return Err(format!(
                    "task {task} of step {step} of {job} completed with attempt {number} of epoch {epoch}, \
                     of whose {ranks} processes {well} ended well"
                ));
            }
        }
        Ok(())
    }
}
