//! Invariant 3, what ran against what is booked: each end of an attempt that a job
//! counts is paid for by its time, at the price that counted then; and the time a
//! job says that it ran is that for which its processes did.
//!
//! Ends that were told are counted for sure where their tasks completed or failed
//! by an exit of their own. Of others, as of a node that is lost or of a job that
//! is cancelled, the last word may not have come.

use super::agreement::events;
use super::ends::{AttemptName, attempt_of};
use super::in_force::InForce;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::estimate::{cost_micros, step_ranks};
use proto::v1::{Budget, CauseKind, JobSpec, JobStateRow, State};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Booked {
    in_force: InForce,
    /// Attempts whose ends were told, each with whether it completed.
    told: BTreeSet<(AttemptName, bool)>,
}

/// What processes of one step took.
#[derive(Default)]
struct Ran {
    /// Those whose ends were told for sure.
    told: u64,
    told_ms: u64,
    all_ms: u64,
}

/// What the attempts cost that a state counts more than the one before it, at
/// least and at most, at one price. The cost of each is rounded up.
fn cost(spec: &JobSpec, last: Option<&JobStateRow>, next: &JobStateRow, budget: &Budget) -> (u64, u64) {
    let (mut least, mut most) = (0, 0);
    for (index, (step, now)) in spec.steps.iter().zip(&next.steps).enumerate() {
        let was = last.and_then(|last| last.steps.get(index));
        let ended = now.attempts_ended.saturating_sub(was.map_or(0, |was| was.attempts_ended));
        let busy_ms = now.busy_ms.saturating_sub(was.map_or(0, |was| was.busy_ms));
        let whole = cost_micros(&step.per_task.unwrap_or_default(), 1, busy_ms, budget);
        least += whole;
        most += whole + ended.saturating_sub(1);
    }
    (least, most)
}

fn is_same(last: Option<&JobStateRow>, next: &JobStateRow) -> bool {
    let Some(last) = last else { return false };
    let steps = || last.steps.iter().zip(&next.steps);
    last.settled_micros == next.settled_micros
        && last.steps.len() == next.steps.len()
        && steps().all(|(was, is)| (was.busy_ms, was.attempts_ended) == (is.busy_ms, is.attempts_ended))
}

impl Booked {
    fn check(
        &self,
        before: &Mirror,
        commit: &Committed,
        job: &JobName,
        next: &JobStateRow,
    ) -> Result<(), String> {
        let last = before.states.get(job).map(|row| &**row);
        if is_same(last, next) {
            return Ok(());
        }
        let new = commit.rows.iter().find_map(|row| match row {
            Row::Job(name, Some(row)) if name == job => Some(row),
            _ => None,
        });
        let row = before.jobs.get(job).or(new);
        let Some(spec) = row.and_then(|row| row.spec.as_ref()) else { return Ok(()) };
        let mut budgets =
            self.in_force.counted(&job.tenant, commit).map(|row| row.budget.unwrap_or_default());
        let first = cost(spec, last, next, &budgets.next().unwrap_or_default());
        let (least, most) = budgets.fold(first, |(least, most), budget| {
            let (cheap, dear) = cost(spec, last, next, &budget);
            (least.min(cheap), most.max(dear))
        });
        let settled = next.settled_micros.saturating_sub(last.map_or(0, |last| last.settled_micros));
        if (least..=most).contains(&settled) {
            return Ok(());
        }
        Err(format!("job {job} settled {settled} more; what ended cost {least} to {most}"))
    }

    fn note(&mut self, commit: &Committed) {
        for (tenant, event) in events(commit) {
            let Some(step) = event.step else { continue };
            let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, proto::v1::Cause::kind);
            let completed = event.to() == State::Completed;
            let failed = matches!(event.to(), State::Pending | State::Failed)
                && matches!(kind, CauseKind::Exit | CauseKind::Signal | CauseKind::OutputMissing);
            if !completed && !failed {
                continue;
            }
            let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                let attempt = (job.clone(), step, task, event.attempt, event.epoch);
                self.told.insert((attempt, completed));
            }
        }
    }

    /// What ran, by step.
    fn ran(&self, outcome: &Outcome<'_>) -> BTreeMap<(JobName, u32), Ran> {
        // A node that lost power with all it knew runs once more what is told it
        // again; then one of the two is told of, and nobody knows which.
        let mut took_ms: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for span in outcome.spans {
            if let Some((wall_ms, name)) = span.wall_ms.zip(attempt_of(&span.key)) {
                took_ms.entry(name).or_default().push(wall_ms);
            }
        }
        let mut ran: BTreeMap<(JobName, u32), Ran> = BTreeMap::new();
        for ((attempt, _), took_ms) in took_ms {
            let (job, step) = (attempt.0.clone(), attempt.1);
            let spec = outcome.mirror.jobs.get(&job).and_then(|row| row.spec.as_ref());
            let alone =
                spec.and_then(|spec| spec.steps.get(step as usize)).is_some_and(|s| step_ranks(s) == 1);
            let step = ran.entry((job, step)).or_default();
            step.all_ms += took_ms.iter().sum::<u64>();
            // Which rank of a gang failed it, events do not tell.
            let told = alone && self.told.contains(&(attempt.clone(), false));
            if told || self.told.contains(&(attempt, true)) {
                step.told += 1;
                step.told_ms += took_ms.iter().min().expect("one was put there");
            }
        }
        ran
    }
}

impl Checker for Booked {
    fn name(&self) -> &'static str {
        "booked"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.in_force.note(commit);
        self.note(commit);
        for row in &commit.rows {
            if let Row::State(job, Some(next)) = row {
                self.check(before, commit, job, next)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let ran = self.ran(outcome);
        let nothing = Ran::default();
        for (job, state) in &outcome.mirror.states {
            for (number, step) in (0..).zip(&state.steps) {
                let ran = ran.get(&(job.clone(), number)).unwrap_or(&nothing);
                if !(ran.told_ms..=ran.all_ms).contains(&step.busy_ms) || step.attempts_ended < ran.told {
                    return Err(format!(
                        "step {number} of {job} says that {} ends took {} ms; {} that were told took {} ms, all processes {} ms",
                        step.attempts_ended, step.busy_ms, ran.told, ran.told_ms, ran.all_ms
                    ));
                }
            }
        }
        Ok(())
    }
}
