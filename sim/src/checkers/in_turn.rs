//! Invariant 6 where one job waits for tasks of another: no task begins before
//! its like over there has completed, or before the one task has ended as it was
//! to; and none is cancelled for want of a like that completed.
//!
//! Of first tries alone: who tries an ended job again says with it that what
//! has ended is not to be looked at.

use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::array;
use proto::spans::Spans;
use proto::v1::{ArraySpec, BlockRow, Dependency, DependencyKind, JobSpec, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct InTurn {
    /// By job and step: tasks that ever completed, and that ever failed or were
    /// cancelled; a user's retry takes nothing out.
    ended: BTreeMap<(JobName, u32), Ended>,
}

#[derive(Default)]
struct Ended {
    completed: Spans,
    ill: Spans,
}

fn looks(on: &Dependency) -> bool {
    on.index.is_some() || on.kind() == DependencyKind::Each
}

/// The only array of a spec, or that of a name.
fn array_of<'a>(spec: &'a JobSpec, name: &str) -> Option<(u32, &'a ArraySpec)> {
    let arrays = spec.steps.iter().zip(0..).filter(|(step, _)| name.is_empty() || step.name == name);
    arrays.filter_map(|(step, at)| Some((at, step.array.as_ref()?))).next()
}

fn named(block: &BlockRow) -> Spans {
    let mut tasks = Spans::from_proto(&block.completed);
    tasks.insert_all(&Spans::from_proto(&block.failed));
    tasks.insert_all(&Spans::from_proto(&block.cancelled));
    tasks.insert_all(&active(block, |_| true));
    tasks
}

fn active(block: &BlockRow, of_attempt: impl Fn(u32) -> bool) -> Spans {
    let runs = block.active.iter().filter(|run| of_attempt(run.attempt)).filter_map(|run| run.tasks);
    runs.map(|span| (span.first, span.last)).collect()
}

impl InTurn {
    /// Takes in what ended with this commit.
    fn note(&mut self, before: &Mirror, commit: &Committed) {
        for row in &commit.rows {
            if let Row::Block { job, step, row: Some(block), .. } = row {
                let ended = self.ended.entry((job.clone(), *step)).or_default();
                ended.completed.insert_all(&Spans::from_proto(&block.completed));
                ended.ill.insert_all(&Spans::from_proto(&block.failed));
                ended.ill.insert_all(&Spans::from_proto(&block.cancelled));
            }
        }
        for row in &commit.rows {
            let Row::State(job, Some(state)) = row else { continue };
            for (state, step) in
                state.steps.iter().zip(0..).filter(|(step, _)| step.rest() == State::Cancelled)
            {
                let mut rest = Spans::new();
                let tasks = state.pending + state.active + state.completed + state.failed + state.cancelled;
                rest.insert_range(0, tasks.saturating_sub(1));
                let mut blocks: BTreeMap<u64, &BlockRow> = BTreeMap::new();
                let first = (job.clone(), step, 0);
                let known = before.blocks.range(first..=(job.clone(), step, u64::MAX));
                blocks.extend(known.map(|((_, _, block), row)| (*block, &**row)));
                blocks.extend(commit.rows.iter().filter_map(|row| match row {
                    Row::Block { job: of, step: at, block, row: Some(row) } if of == job && *at == step => {
                        Some((*block, &**row))
                    }
                    _ => None,
                }));
                for block in blocks.into_values() {
                    rest.remove_all(&named(block));
                }
                self.ended.entry((job.clone(), step)).or_default().ill.insert_all(&rest);
            }
        }
    }

    /// Whether a task of a job may begin, as far as one dependency goes.
    fn allows(
        &self,
        mirror: &Mirror,
        job: &JobName,
        on: &Dependency,
        own: Option<u64>,
    ) -> Result<(), String> {
        let other = JobName { tenant: job.tenant.clone(), number: on.job_number };
        let spec = mirror.jobs.get(&other).and_then(|row| row.spec.as_ref());
        let found = spec.and_then(|spec| array_of(spec, &on.step));
        let Some((step, indexes)) = found else { return Err(format!("{other} has no such array")) };
        let Some(index) = on.index.or(own) else { return Ok(()) };
        let Some(like) = array::ordinal_of(indexes, index) else {
            return Err(format!("{other} has no task {index}"));
        };
        let nothing = Ended::default();
        let ended = self.ended.get(&(other.clone(), step)).unwrap_or(&nothing);
        let (completed, ill) = (ended.completed.contains(like), ended.ill.contains(like));
        let met = match on.kind() {
            DependencyKind::NotOk => ill,
            DependencyKind::Any => completed || ill,
            _ => completed,
        };
        if met { Ok(()) } else { Err(format!("task {index} of {other} has not ended so ({:?})", on.kind())) }
    }

    fn begins(
        &self,
        before: &Mirror,
        spec: &JobSpec,
        place: (&JobName, u32),
        begun: &Spans,
    ) -> Result<(), String> {
        let (job, step) = place;
        let own = array_of(spec, "").filter(|(at, _)| *at == step);
        for on in spec.after.iter().filter(|on| looks(on)) {
            for task in begun.iter() {
                let index = own.and_then(|(_, indexes)| array::index_of(indexes, task));
                self.allows(before, job, on, index)
                    .map_err(|why| format!("task {task} of step {step} of {job} began, and {why}"))?;
            }
        }
        Ok(())
    }
}

impl Checker for InTurn {
    fn name(&self) -> &'static str {
        "in_turn"
    }
    fn invariant(&self) -> u8 {
        6
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.note(before, commit);
        for row in &commit.rows {
            let Row::Block { job, step, block, row: Some(row) } = row else { continue };
            let Some(spec) = before.jobs.get(job).and_then(|row| row.spec.as_ref()) else { continue };
            let told = commit.rows.iter().find_map(|row| match row {
                Row::State(of, Some(state)) if of == job => Some(state.generation),
                _ => None,
            });
            let known = before.states.get(job).map_or(0, |state| state.generation);
            let generation = told.unwrap_or(known);
            if generation > 0 || !spec.after.iter().any(looks) {
                continue;
            }
            let mut begun = active(row, |attempt| attempt == 1);
            if let Some(was) = before.blocks.get(&(job.clone(), *step, *block)) {
                begun.remove_all(&active(was, |_| true));
            }
            self.begins(before, spec, (job, *step), &begun)?;
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mirror = outcome.mirror;
        for (job, state) in &mirror.states {
            let Some(spec) = mirror.jobs.get(job).and_then(|row| row.spec.as_ref()) else { continue };
            let [on] = spec.after.as_slice() else { continue };
            let first_try = state.generation == 0 && !state.cancel_requested && outcome.drained.is_ok();
            if on.kind() != DependencyKind::Each || !first_try {
                continue;
            }
            let Some((step, indexes)) = array_of(spec, "") else { continue };
            let Some(ended) = self.ended.get(&(job.clone(), step)) else { continue };
            let failed = mirror.blocks.range((job.clone(), step, 0)..=(job.clone(), step, u64::MAX));
            let mut cancelled = ended.ill.clone();
            for (_, block) in failed {
                cancelled.remove_all(&Spans::from_proto(&block.failed));
            }
            for task in cancelled.iter() {
                // A like that completed only when it was tried again came too late.
                let other = JobName { tenant: job.tenant.clone(), number: on.job_number };
                let retried = mirror.states.get(&other).is_some_and(|state| state.generation > 0);
                let own = array::index_of(indexes, task);
                if !retried && self.allows(mirror, job, on, own).is_ok() {
                    return Err(format!("task {task} of {job} was cancelled, and its like completed"));
                }
            }
        }
        Ok(())
    }
}
