//! What a step waits for, task by task: gates that the other job's progress
//! opens. Sets of runs alone; `follow` says where they come from.

use super::blocks;
use super::model::{Gate, StepRun, TaskWait};
use super::types::LoadedJob;
use crate::limits;
use proto::estimate;
use proto::spans::Spans;
use std::collections::BTreeMap;

/// How far the tasks of a step have got.
pub(super) struct Ends {
    tasks: u64,
    pub completed: Spans,
    /// Failed for good, or cancelled.
    pub ill: Spans,
}

impl Ends {
    pub(super) fn of(run: &StepRun) -> Self {
        let mut completed = Spans::new();
        let mut open = run.unbegun();
        for (_, task) in &run.retries {
            open.insert(*task);
        }
        for block in run.blocks.values() {
            completed.insert_all(&block.completed);
            for task in block.active.keys() {
                open.insert(*task);
            }
        }
        let mut ill = all_of(run.tasks);
        ill.remove_all(&completed);
        ill.remove_all(&open);
        Self { tasks: run.tasks, completed, ill }
    }

    /// Of a job that has ended: what did not complete never will.
    pub(super) fn of_rows(rows: &LoadedJob, step: u32) -> Option<Self> {
        let state = rows.state.steps.get(step as usize)?;
        let tasks = estimate::step_tasks(rows.job.spec.as_ref()?.steps.get(step as usize)?);
        let mut completed = Spans::new();
        for (_, _, row) in rows.blocks.iter().filter(|(of, _, _)| *of == step) {
            completed.insert_all(&blocks::decode(row.clone(), state).completed);
        }
        let mut ill = all_of(tasks);
        ill.remove_all(&completed);
        Some(Self { tasks, completed, ill })
    }
}

pub(super) fn all_of(tasks: u64) -> Spans {
    if tasks == 0 { Spans::new() } else { Spans::from_range(0, tasks - 1) }
}

impl Gate {
    /// Ours that must wait, as far as the others have got.
    pub(super) fn shut_by(&self, ends: &Ends) -> Spans {
        let mut open = all_of(ends.tasks);
        open.remove_all(&ends.completed);
        open.remove_all(&ends.ill);
        self.pairs.ours_of(&open)
    }

    pub(super) fn unmet(&self, tenant: &str) -> String {
        format!("the task of job {tenant}-{} step {} with its index did not complete", self.on, self.name)
    }

    pub(super) fn unpaired(&self, tenant: &str) -> String {
        format!("job {tenant}-{} step {} has no task with its index", self.on, self.name)
    }
}

impl TaskWait {
    pub(super) fn unmet(&self, tenant: &str) -> String {
        format!("task {} of job {tenant}-{} did not end as it should", self.index, self.on)
    }
}

impl StepRun {
    /// Pending, and never begun.
    pub(super) fn unbegun(&self) -> Spans {
        let mut all = self.fresh.clone();
        all.insert_all(&self.gated);
        for tasks in self.doomed.values() {
            all.insert_all(tasks);
        }
        all
    }

    /// What has not begun and is not doomed waits where any gate is shut.
    pub(super) fn sort_gated(&mut self) {
        self.fresh.insert_all(&self.gated);
        self.gated = Spans::new();
        for gate in &self.gates {
            self.gated.insert_all(&gate.shut.intersection(&self.fresh));
        }
        self.fresh.remove_all(&self.gated);
    }

    /// No gate speaks any more: what has not begun is merely pending.
    pub(super) fn ungate(&mut self) {
        self.fresh = self.unbegun();
        self.gated = Spans::new();
        self.doomed.clear();
    }

    pub(super) fn doom(&mut self, text: &str, tasks: &Spans) {
        let mut tasks = tasks.clone();
        for known in self.doomed.values() {
            tasks.remove_all(&known.intersection(&tasks));
        }
        self.fresh.remove_all(&tasks);
        self.gated.remove_all(&tasks);
        if !tasks.is_empty() {
            self.doomed.entry(text.to_owned()).or_default().insert_all(&tasks);
        }
    }

    /// Some tasks over there ended: opens and dooms what follows. True where
    /// anything did.
    pub(super) fn follow(&mut self, on: (u64, u32), completed: &Spans, ill: &Spans, tenant: &str) -> bool {
        let (mut met, mut dead) = (Spans::new(), BTreeMap::new());
        for gate in self.gates.iter_mut().filter(|gate| (gate.on, gate.step) == on) {
            let now_met = gate.pairs.ours_of(completed).intersection(&gate.shut);
            let now_dead = gate.pairs.ours_of(ill).intersection(&gate.shut);
            gate.shut.remove_all(&now_met);
            gate.shut.remove_all(&now_dead);
            met.insert_all(&now_met);
            dead.insert(gate.unmet(tenant), now_dead);
        }
        let mut changed = false;
        for (text, tasks) in dead {
            let tasks = tasks.intersection(&self.gated);
            changed |= !tasks.is_empty();
            self.doom(&text, &tasks);
        }
        let mut open = met.intersection(&self.gated);
        for gate in &self.gates {
            open.remove_all(&gate.shut.intersection(&open));
        }
        changed |= !open.is_empty();
        self.gated.remove_all(&open);
        self.fresh.insert_all(&open);
        changed
    }

    /// Moves doomed tasks of a few blocks into their sets of cancelled ones.
    pub(super) fn take_doomed(&mut self, text: &str) -> Spans {
        let mut taken = Spans::new();
        let Some(doomed) = self.doomed.get_mut(text) else { return taken };
        for _ in 0..limits::BLOCKS_PER_CANCEL_MAX {
            let Some(first) = doomed.first().filter(|_| taken.runs() < limits::SPANS_PER_EVENT_MAX / 2)
            else {
                break;
            };
            let block = Self::block_of(first);
            let from = block * limits::BLOCK_TASKS;
            let here = doomed.within(from, from + limits::BLOCK_TASKS - 1);
            doomed.remove_all(&here);
            self.blocks.entry(block).or_default().cancelled.insert_all(&here);
            taken.insert_all(&here);
        }
        if doomed.is_empty() {
            self.doomed.remove(text);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{JobSpec, Step};

    #[test]
    fn what_is_doomed_is_taken_in_pieces_that_one_event_can_name() {
        let spec = JobSpec { steps: vec![Step::default()], ..JobSpec::default() };
        let mut run = super::super::submit::prepare(&spec).unwrap().remove(0);
        let mut doomed = Spans::new();
        for task in 0..3 * limits::BLOCK_TASKS / 2 {
            doomed.insert(task * 2);
        }
        let mut left = doomed.count();
        run.doomed.insert("unmet".to_owned(), doomed);
        while run.doomed.contains_key("unmet") {
            let taken = run.take_doomed("unmet");
            assert!((1..=limits::SPANS_PER_EVENT_MAX).contains(&taken.runs()), "{} runs", taken.runs());
            left -= taken.count();
        }
        assert_eq!(left, 0);
    }
}
