//! Invariant 8: retries stay within budgets, whatever fails. A count never goes
//! back within a try of the user's, and the work's own failures that a row counts
//! are those that its events tell.

use super::agreement::events;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{BlockRow, CauseKind, Event, State, TaskNote};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct RetriesBounded {
    /// The work's own failures of each task that had any, since the user's last
    /// retry of it.
    own: BTreeMap<(JobName, u32, u64), u32>,
}

/// Those that spend a step's retries.
pub fn is_own(kind: CauseKind) -> bool {
    matches!(
        kind,
        CauseKind::Exit
            | CauseKind::Signal
            | CauseKind::Timeout
            | CauseKind::OutOfMemory
            | CauseKind::OutputMissing
            | CauseKind::LaunchFailed
    )
}

fn completed(block: &BlockRow, task: u64) -> bool {
    block.completed.iter().any(|span| (span.first..=span.last).contains(&task))
}

fn went_back(was: &TaskNote, is: Option<&TaskNote>, completed: bool) -> bool {
    let Some(is) = is else { return true };
    // Of a task that completed only the number of attempts is kept.
    let failures = is.own_failures < was.own_failures || is.platform_failures < was.platform_failures;
    is.attempts < was.attempts || failures && !completed
}

impl RetriesBounded {
    fn event(&mut self, tenant: &str, event: &Event) {
        let Some(step) = event.step else { return };
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, proto::v1::Cause::kind);
        let ran = matches!(event.from(), State::Staging | State::Running);
        let failed = ran && matches!(event.to(), State::Pending | State::Failed) && is_own(kind);
        let anew = kind == CauseKind::RetriedByUser;
        for task in event.tasks.iter().filter(|_| failed || anew).flat_map(|span| span.first..=span.last) {
            let name = (job.clone(), step, task);
            if anew {
                self.own.remove(&name);
            } else {
                *self.own.entry(name).or_default() += 1;
            }
        }
    }
}

impl Checker for RetriesBounded {
    fn name(&self) -> &'static str {
        "retries"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, block, row: Some(next) } = row else { continue };
            let Some(last) = before.blocks.get(&(job.clone(), *step, *block)) else { continue };
            if last.generation != next.generation {
                continue;
            }
            for (at, was) in last.notes.iter().enumerate() {
                // Most stand where they stood.
                let same = next.notes.get(at).filter(|note| note.task == was.task);
                let is = same.or_else(|| next.notes.iter().find(|note| note.task == was.task));
                if went_back(was, is, completed(next, was.task)) {
                    return Err(format!(
                        "the tries of task {} of step {step} of {job} went back: {was:?}, then {is:?}",
                        was.task
                    ));
                }
            }
        }
        events(commit).into_iter().for_each(|(tenant, event)| self.event(tenant, event));
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, row: Some(block), .. } = row else { continue };
            let state = now.states.get(job).and_then(|row| row.steps.get(*step as usize));
            if state.is_none_or(|state| state.generation != block.generation) {
                continue;
            }
            let of_step = (job.clone(), *step, 0)..=(job.clone(), *step, u64::MAX);
            let own: BTreeMap<u64, u32> =
                self.own.range(of_step).map(|((_, _, task), times)| (*task, *times)).collect();
            for note in &block.notes {
                let told = own.get(&note.task).copied().unwrap_or(0);
                if note.own_failures != told && !completed(block, note.task) {
                    return Err(format!(
                        "task {} of step {step} of {job} failed {told} times itself, its row counts {}",
                        note.task, note.own_failures
                    ));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for ((job, step, _), block) in &outcome.mirror.blocks {
            let spec = outcome.mirror.jobs.get(job).and_then(|row| row.spec.as_ref());
            let retries = spec.and_then(|spec| spec.steps.get(*step as usize)).and_then(|step| step.retries);
            let own = retries.unwrap_or(outcome.max_own_retries);
            for note in &block.notes {
                if note.own_failures > own + 1 || note.platform_failures > outcome.max_platform_retries + 1 {
                    return Err(format!(
                        "task {} of step {step} of {job} failed {} times itself (retries {own}) and {} times by the platform",
                        note.task, note.own_failures, note.platform_failures
                    ));
                }
            }
        }
        Ok(())
    }
}
