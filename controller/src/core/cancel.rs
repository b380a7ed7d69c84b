//! Cancelling: what is pending at once and in O(1) rows, what is active by Stop
//! frames until it has ended or its lease has passed.
//!
//! What must hold: once `cancel_requested` is durable no task of the job is
//! bound again and none completes, whatever crashes. It is written in the
//! transaction that answers, and stays until a user's retry.

use super::model::{StepRun, cause, over};
use super::submit::{met_by, not_as_it_should};
use super::types::Reply;
use super::{Core, Timer, Work, blocks, ledger};
use crate::limits;
use proto::problem;
use proto::spans::Spans;
use proto::v1::{Cause, CauseKind, State};
use std::collections::BTreeSet;

impl Core {
    pub(super) fn cancel(
        &mut self,
        ticket: u64,
        tenant: &str,
        number: u64,
        reason: String,
        ended: Option<State>,
    ) {
        let live = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let state = live.map(|job| job.state.state());
        let reply = match state {
            Some(state) if over(state) => Reply::Cancelled(state),
            Some(_) => {
                self.request_cancel(tenant, number, &cause(CauseKind::CancelledByUser, reason));
                let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
                Reply::Cancelled(job.map_or(State::Cancelled, |job| job.state.state()))
            }
            None => match self.recent.end(tenant, number).map(|(end, _)| end).or(ended) {
                Some(state) => {
                    world::mark!("controller.cancel.of_an_ended_job");
                    Reply::Cancelled(state)
                }
                None => Reply::Refused(problem::missing("job", format!("{tenant}-{number}"))),
            },
        };
        self.reply(ticket, reply);
    }

    /// A job that waits for something that will never be.
    pub(super) fn doom(&mut self, tenant: &str, number: u64, text: String) {
        self.request_cancel(tenant, number, &cause(CauseKind::DependencyFailed, text));
    }

    fn request_cancel(&mut self, tenant: &str, number: u64, why: &Cause) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(job) = owner.jobs.get_mut(&number) else { return };
        if job.over() || job.state.cancel_requested {
            world::mark!("controller.cancel.twice");
            return;
        }
        job.state.cancel_requested = true;
        job.state.cause = Some(why.clone());
        for on in std::mem::take(&mut job.waits).into_keys() {
            if let Some(waiters) = owner.waiters.get_mut(&on) {
                waiters.remove(&number);
                if waiters.is_empty() {
                    owner.waiters.remove(&on);
                }
            }
        }
        let steps = job.steps.len() as u32;
        self.unfollow(tenant, number);
        for step in 0..steps {
            self.out.wants(tenant, number, step);
        }
        self.out.state(tenant, number);
        self.send_stops(tenant, number);
        self.cancel_pending(tenant, number, why);
    }

    /// Cancels what the steps of a job still have pending, then looks whether
    /// it has ended.
    pub(super) fn cancel_pending(&mut self, tenant: &str, number: u64, why: &Cause) {
        let steps = self
            .tenants
            .get(tenant)
            .and_then(|tenant| tenant.jobs.get(&number))
            .map_or(0, |job| job.steps.len());
        for step in 0..steps {
            while !self.cancel_step(tenant, number, step as u32, why) {
                if self.out.full() {
                    let (tenant, cause) = (tenant.to_owned(), why.clone());
                    self.backlog.push_front(Work::CancelPending { tenant, number, cause });
                    return;
                }
            }
        }
        self.review(tenant, number);
    }

    /// Cancels the pending tasks of a step: all by its `rest`, or, where they
    /// lie in too many pieces for one event, some by their blocks. True once
    /// none is left.
    pub(super) fn cancel_step(&mut self, tenant: &str, number: u64, step: u32, why: &Cause) -> bool {
        let now_ms = self.now.wall_ms;
        let Some(owner) = self.tenants.get_mut(tenant) else { return true };
        let Some(job) = owner.jobs.get_mut(&number) else { return true };
        let Some(run) = job.steps.get_mut(step as usize) else { return true };
        let Some(state) = job.state.steps.get_mut(step as usize) else { return true };
        if state.pending == 0 {
            return true;
        }
        run.ungate();
        let whole = run.fresh.runs() + run.retries.len() <= limits::SPANS_PER_EVENT_MAX;
        let (taken, touched) = if whole {
            let mut taken = std::mem::take(&mut run.fresh);
            for (_, task) in std::mem::take(&mut run.retries) {
                taken.insert(task);
            }
            state.set_rest(State::Cancelled);
            (taken, BTreeSet::new())
        } else {
            take_some(run)
        };
        let count = taken.count();
        state.pending -= count;
        state.cancelled += count;
        for block in touched {
            let weight = run.blocks.get(&block).map_or(0, blocks::weight);
            self.out.block(tenant, (number, step, block), weight);
        }
        ledger::tasks_over(&mut owner.ledger, &mut job.state, count);
        self.out.state(tenant, number);
        self.out.wants(tenant, number, step);
        self.tasks_ended(tenant, number, step, &taken, false);
        let edge = (State::Pending, State::Cancelled);
        let weight = self.out.events(tenant).whole(now_ms, (number, Some(step)), edge, why, taken);
        self.out.weigh(weight);
        whole
    }

    /// A job ended: those that wait for it go on, or never will.
    pub(super) fn tell_waiters(&mut self, tenant: String, number: u64, state: State, mut waiters: Vec<u64>) {
        while let Some(waiter) = waiters.pop() {
            if self.out.full() {
                waiters.push(waiter);
                self.backlog.push_front(Work::Waiters { tenant, number, state, waiters });
                return;
            }
            let Some(owner) = self.tenants.get_mut(&tenant) else { return };
            let Some(job) = owner.jobs.get_mut(&waiter) else { continue };
            let Some(kind) = job.waits.remove(&number) else { continue };
            if !met_by(kind, state) {
                world::mark!("controller.after.unmet");
                self.doom(&tenant, waiter, not_as_it_should(&tenant, number));
            } else if job.waits.is_empty() {
                world::mark!("controller.after.met");
                for step in 0..job.steps.len() {
                    self.out.wants(&tenant, waiter, step as u32);
                }
            }
        }
    }

    /// Sets the timer that repeats Stop frames until nothing needs them.
    pub(super) fn arm_stops(&mut self, tenant: &str, number: u64) {
        let at = self.now.mono_ms + self.config.stop_resend_ms;
        let job = self.tenants.get_mut(tenant).and_then(|tenant| tenant.jobs.get_mut(&number));
        if let Some(job) = job
            && !job.stop_timer
        {
            job.stop_timer = true;
            self.timers.insert((at, Timer::Stop(tenant.to_owned(), number)));
        }
    }
}

/// Moves pending tasks of a few blocks into their sets of cancelled ones: no more of them than
/// one event may name.
fn take_some(run: &mut StepRun) -> (Spans, BTreeSet<u64>) {
    let (mut taken, mut touched) = (Spans::new(), BTreeSet::new());
    while touched.len() < limits::BLOCKS_PER_CANCEL_MAX {
        let noted = run.retries.iter().map(|(_, task)| *task).min();
        let Some(first) = run.fresh.first().into_iter().chain(noted).min() else { break };
        let number = StepRun::block_of(first);
        let (from, to) =
            (number * limits::BLOCK_TASKS, number * limits::BLOCK_TASKS + limits::BLOCK_TASKS - 1);
        let mut here = run.fresh.within(from, to);
        let is_here = |task: u64| StepRun::block_of(task) == number;
        for (_, task) in run.retries.iter().filter(|(_, task)| is_here(*task)) {
            here.insert(*task);
        }
        // The first fits by itself: a block has no more than half as many runs as tasks.
        if taken.runs() + here.runs() > limits::SPANS_PER_EVENT_MAX {
            break;
        }
        run.fresh.remove_all(&here);
        run.retries.retain(|(_, task)| !is_here(*task));
        run.blocks.entry(number).or_default().cancelled.insert_all(&here);
        taken.insert_all(&here);
        touched.insert(number);
    }
    (taken, touched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{JobSpec, Step};

    #[test]
    fn what_is_cancelled_in_pieces_lies_in_the_blocks_of_its_tasks() {
        let spec = JobSpec { steps: vec![Step::default()], ..JobSpec::default() };
        let mut run = super::super::submit::prepare(&spec).unwrap().remove(0);
        run.fresh = Spans::new();
        for task in 0..3 * limits::BLOCK_TASKS / 2 {
            run.fresh.insert(task * 2);
        }
        run.retries.insert((0, limits::BLOCK_TASKS + 1));
        let mut left = run.fresh.count() + 1;
        while left > 0 {
            let (taken, touched) = take_some(&mut run);
            assert!(!taken.is_empty() && !touched.is_empty());
            assert!(taken.runs() <= limits::SPANS_PER_EVENT_MAX, "{} runs", taken.runs());
            left -= taken.count();
        }
        for (number, block) in &run.blocks {
            let from = number * limits::BLOCK_TASKS;
            let own = block.cancelled.count_within(from, from + limits::BLOCK_TASKS - 1);
            assert_eq!(own, block.cancelled.count(), "block {number}");
        }
    }
}
