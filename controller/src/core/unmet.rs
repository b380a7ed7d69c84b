//! Tasks that wait for what can never be are cancelled, each for its reason; the
//! rest of their step goes on.

use super::model::{StepRun, cause};
use super::{Core, Work, blocks, ledger};
use crate::limits;
use proto::array;
use proto::spans::Spans;
use proto::v1::{ArraySpec, Cause, CauseKind, State};
use std::collections::BTreeSet;

impl Core {
    /// Sees to it that the doomed tasks of a step are cancelled.
    pub(super) fn unmet(&mut self, tenant: &str, number: u64, step: u32) {
        let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let run = job.and_then(|job| job.steps.get(step as usize));
        if run.is_some_and(|run| !run.doomed.is_empty()) {
            self.backlog.push_back(Work::Unmet { tenant: tenant.to_owned(), number, step });
        }
    }

    /// Cancels the doomed tasks of a step, as many as fit, and then looks
    /// whether it has ended.
    pub(super) fn cancel_unmet(&mut self, tenant: String, number: u64, step: u32) {
        loop {
            if self.out.full() {
                self.backlog.push_front(Work::Unmet { tenant, number, step });
                return;
            }
            if !self.cancel_some_unmet(&tenant, number, step) {
                break;
            }
        }
        self.review(&tenant, number);
    }

    /// True while there were some.
    fn cancel_some_unmet(&mut self, tenant: &str, number: u64, step: u32) -> bool {
        let now_ms = self.now.wall_ms;
        let Some(owner) = self.tenants.get_mut(tenant) else { return false };
        let Some(job) = owner.jobs.get_mut(&number) else { return false };
        let spec = job.row.spec.as_ref().and_then(|spec| spec.steps.get(step as usize));
        let Some(run) = job.steps.get_mut(step as usize) else { return false };
        let Some(state) = job.state.steps.get_mut(step as usize) else { return false };
        let Some((text, tasks)) = run.doomed.first_key_value() else { return false };
        let why = cause(CauseKind::DependencyFailed, text.clone());
        if state.cause.is_none() {
            state.cause = Some(first_of(&why, spec.and_then(|step| step.array.as_ref()), tasks.first()));
        }
        // All that is left, and nothing that could come back to be pending.
        let whole = state.active == 0 && tasks.count() == state.pending;
        if whole && tasks.runs() <= limits::SPANS_PER_EVENT_MAX {
            return !self.cancel_step(tenant, number, step, &why);
        }
        let taken = run.take_doomed(&why.text);
        state.pending -= taken.count();
        state.cancelled += taken.count();
        for block in blocks_of(&taken) {
            let weight = run.blocks.get(&block).map_or(0, blocks::weight);
            self.out.block(tenant, (number, step, block), weight);
        }
        ledger::tasks_over(&mut owner.ledger, &mut job.state, taken.count());
        self.out.ledger(tenant);
        self.out.state(tenant, number);
        self.tasks_ended(tenant, number, step, &taken, false);
        let edge = (State::Pending, State::Cancelled);
        let weight = self.out.events(tenant).whole(now_ms, (number, Some(step)), edge, &why, taken);
        self.out.weigh(weight);
        true
    }
}

fn blocks_of(tasks: &Spans) -> BTreeSet<u64> {
    tasks.ranges().flat_map(|(first, last)| StepRun::block_of(first)..=StepRun::block_of(last)).collect()
}

/// The cause of a step, told of its first task.
fn first_of(why: &Cause, array: Option<&ArraySpec>, task: Option<u64>) -> Cause {
    let index = array.zip(task).and_then(|(array, task)| array::index_of(array, task));
    let text = match index {
        Some(index) => format!("task {index}: {}", why.text),
        None => why.text.clone(),
    };
    Cause { text, ..why.clone() }
}
