//! Invariant 8: retries stay within budgets, whatever fails. A count never goes
//! back within a try of the user's, and the failures that a row counts are those
//! that its events tell: the work's own, and the platform's, which have a cap of
//! their own. Of the platform's, events tell for sure where an attempt ran or the
//! task failed for good; one that had not begun may have been given back untried.

use super::agreement::{BLOCK_TASKS, events};
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{BlockRow, CauseKind, Event, State, TaskNote};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct RetriesBounded {
    /// The failures of each task that had any, since the user's last retry of it.
    told: BTreeMap<(JobName, u32, u64), Told>,
}

/// What events told of a task's failures.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    own: u32,
    /// The platform's, for sure.
    platform: u32,
    /// Attempts beside these that the platform ended before they ran.
    unbegun: u32,
}

impl Told {
    fn agrees(self, note: &TaskNote) -> bool {
        note.own_failures == self.own
            && (self.platform..=self.platform + self.unbegun).contains(&note.platform_failures)
    }
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
        let (from, to) = (event.from(), event.to());
        let over =
            matches!(from, State::Staging | State::Running) && matches!(to, State::Pending | State::Failed);
        let anew = kind == CauseKind::RetriedByUser;
        for task in event.tasks.iter().filter(|_| over || anew).flat_map(|span| span.first..=span.last) {
            let name = (job.clone(), step, task);
            if anew {
                self.told.remove(&name);
                continue;
            }
            if kind == CauseKind::Preempted && to == State::Pending {
                // No failure: see `gives_way`.
                continue;
            }
            let told = self.told.entry(name).or_default();
            // What is put back in the queue may have lost its grant alone.
            if is_own(kind) {
                told.own += 1;
            } else if to == State::Failed || from == State::Running && kind != CauseKind::Requeued {
                told.platform += 1;
            } else {
                told.unbegun += 1;
            }
        }
    }

    /// A block that was written counts what the events told of its tasks.
    fn check_block(&self, of: (&JobName, u32, u64), block: &BlockRow) -> Result<(), String> {
        let (job, step, number) = of;
        let first = number * BLOCK_TASKS;
        let here = (job.clone(), step, first)..(job.clone(), step, first + BLOCK_TASKS);
        let told: BTreeMap<u64, Told> =
            self.told.range(here).map(|((_, _, task), told)| (*task, *told)).collect();
        let notes: BTreeMap<u64, &TaskNote> = block.notes.iter().map(|note| (note.task, note)).collect();
        let none = TaskNote::default();
        for task in told.keys().chain(notes.keys()) {
            let note = notes.get(task).copied().unwrap_or(&none);
            let told = told.get(task).copied().unwrap_or_default();
            if !told.agrees(note) && !completed(block, *task) {
                return Err(format!(
                    "task {task} of step {step} of {job} failed as its events tell {told:?}, its row counts {} itself and {} by the platform",
                    note.own_failures, note.platform_failures
                ));
            }
        }
        Ok(())
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
        events(commit).for_each(|(tenant, event)| self.event(tenant, event));
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, block: number, row: Some(block) } = row else { continue };
            let state = now.states.get(job).and_then(|row| row.steps.get(*step as usize));
            if state.is_none_or(|state| state.generation != block.generation) {
                continue;
            }
            self.check_block((job, *step, *number), block)?;
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
