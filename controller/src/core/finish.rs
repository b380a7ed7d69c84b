//! How attempts, tasks, steps and jobs end.
//!
//! What must hold: every edge goes through [`Core::conclude`] (tasks) or
//! [`Core::review`] (steps, jobs), which keep counters, events and the ledger
//! together; a task whose job is to be cancelled ends CANCELLED, whatever its
//! attempt says.

use super::events::By;
use super::model::{Active, Block, Job, Spot, StepRun, cause, cut, over, passing, path};
use super::outbox::Outbox;
use super::retry::{self, Next};
use super::types::EndedJob;
use super::{Core, Timer, Work, blocks, checkpoints, ledger, preempt};
use crate::limits;
use prost::Message;
use proto::spans::Spans;
use proto::v1::{ArraySpec, Artifact, Cause, CauseKind, ManifestRow, State, StepState, TaskNote};
use proto::{array, keys, month};

/// How an attempt ended.
pub(super) enum End {
    /// Well: the outputs of each rank.
    Done(Vec<(u32, Vec<Artifact>)>),
    Failed(Cause),
    /// It gave way to work of higher priority: no try is spent, and none of its nodes avoided.
    GaveWay(Cause),
    /// It never ran: no try is spent. Not again before so many milliseconds.
    Returned(Cause, u64),
}

/// What a task's end needs of its step, borrowed apart.
struct Place<'a> {
    spot: &'a Spot,
    out: &'a mut Outbox,
    run: &'a mut StepRun,
    state: &'a mut StepState,
    active: Active,
    node: String,
    now_ms: u64,
}

impl Core {
    /// Ends the live attempt of a task. Nothing happens if there is none.
    pub(super) fn conclude(&mut self, spot: &Spot, end: End) {
        let Some((active, node)) = self.unbind(spot) else { return };
        let now = self.now;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let cancelled = job
            .state
            .cancel_requested
            .then(|| job.state.cause.clone().unwrap_or_else(|| cause(CauseKind::CancelledByUser, "")));
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let Some(state) = job.state.steps.get_mut(spot.step as usize) else { return };
        let step = job.row.spec.as_ref().and_then(|spec| spec.steps.get(spot.step as usize));
        let retries = step.and_then(|step| step.retries).unwrap_or(self.config.retries);
        state.active -= 1;
        let mut place = Place { spot, out: &mut self.out, run, state, active, node, now_ms: now.wall_ms };
        let (mut ended, mut stored, mut dropped) = (1, 0, 0);
        let well = cancelled.is_none() && matches!(end, End::Done(_));
        match end {
            _ if cancelled.is_some() => {
                world::mark!("controller.end.cancelled_whatever_it_says");
                place.cancelled(&cancelled.unwrap_or_default());
            }
            End::Done(outputs) => {
                stored = place.completed(outputs);
                // Those of other ranks went with their manifests.
                dropped = checkpoints::forget(place.out, place.run, spot, 0);
            }
            End::Returned(cause, wait_ms) => {
                world::mark!("controller.end.given_back_untried");
                ended = 0;
                place.again(&cause, now.mono_ms, wait_ms, 0);
            }
            End::GaveWay(cause) => {
                world::mark!("controller.end.gave_way");
                ended = 0;
                self.stats.preemptions += 1;
                place.gave_way(&cause, now.mono_ms);
                let asked = tenant.grants.get(&active.epoch).and_then(|grant| grant.row.preemption.as_ref());
                preempt::count(&mut place.state.gave_way, &spot.tenant, asked, now.wall_ms);
            }
            End::Failed(cause) => {
                place.note_failure(&cause);
                match retry::decide(&self.config, spot, place.note(), &cause, retries) {
                    Next::Again(wait_ms) => {
                        ended = 0;
                        self.stats.retries += 1;
                        let own = tenant.retries.take(now.mono_ms);
                        let all = self.cluster_retries.take(now.mono_ms);
                        if own.max(all) > wait_ms {
                            world::mark!("controller.retry.waits_for_the_budget");
                        }
                        place.again(&cause, now.mono_ms, wait_ms.max(own).max(all), 1);
                    }
                    Next::Failed => place.failed(&cause, step.and_then(|step| step.array.as_ref())),
                }
            }
        }
        let idle = place.state.pending == 0 && place.state.active == 0;
        let block = StepRun::block_of(spot.task);
        let weight = place.run.blocks.get(&block).map_or(0, blocks::weight);
        ledger::store(&mut tenant.ledger, &mut job.state, stored);
        ledger::drop_stored(&mut tenant.ledger, &mut job.state, dropped);
        ledger::tasks_over(&mut tenant.ledger, &mut job.state, ended);
        self.out.block(&spot.tenant, (spot.number, spot.step, block), weight);
        self.out.state(&spot.tenant, spot.number);
        self.out.wants(&spot.tenant, spot.number, spot.step);
        self.arm_retry(spot);
        if ended > 0 && self.followed(&spot.tenant, spot.number, spot.step) {
            let task = Spans::from_range(spot.task, spot.task);
            self.tasks_ended(&spot.tenant, spot.number, spot.step, &task, well);
        }
        if idle {
            self.review(&spot.tenant, spot.number);
        }
    }

    /// Takes the task off its grant, which then wants feeding or releasing.
    fn unbind(&mut self, spot: &Spot) -> Option<(Active, String)> {
        let tenant = self.tenants.get_mut(&spot.tenant)?;
        let run = tenant.jobs.get_mut(&spot.number)?.steps.get_mut(spot.step as usize)?;
        let block = run.blocks.get_mut(&StepRun::block_of(spot.task))?;
        let active = block.active.remove(&spot.task)?;
        block.ranks.clear();
        block.said.remove(&spot.task);
        block.staging.remove(&spot.task);
        let mut node = String::new();
        if let Some(grant) = tenant.grants.get_mut(&active.epoch) {
            for bound in &mut grant.bound {
                bound.remove(&spot.task);
            }
            grant.gang = None;
            grant.node_name(active.node).clone_into(&mut node);
            self.feeding.insert((spot.tenant.clone(), active.epoch));
        }
        if active.state == State::Running {
            self.yields_otherwise(&spot.tenant, active.epoch);
        }
        Some((active, node))
    }

    /// Sets the timer for the earliest task that waits for its time.
    pub(super) fn arm_retry(&mut self, spot: &Spot) {
        let run = self
            .tenants
            .get_mut(&spot.tenant)
            .and_then(|tenant| tenant.jobs.get_mut(&spot.number))
            .and_then(|job| job.steps.get_mut(spot.step as usize));
        let Some(run) = run else { return };
        let next = run.retries.range((self.now.mono_ms + 1, 0)..).next().map(|(at, _)| *at);
        let Some(at) = next.filter(|at| run.retry_timer.is_none_or(|set| *at < set)) else { return };
        if let Some(set) = run.retry_timer.replace(at) {
            self.timers.remove(&(set, Timer::Retry(spot.tenant.clone(), spot.number, spot.step)));
        }
        self.timers.insert((at, Timer::Retry(spot.tenant.clone(), spot.number, spot.step)));
    }

    /// Looks which steps have ended, cancels what can no longer run, and ends
    /// the job with its last step.
    pub(super) fn review(&mut self, tenant: &str, number: u64) {
        loop {
            let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
            let Some(job) = job.filter(|job| !job.over()) else { return };
            match (0..job.steps.len() as u32).find_map(|step| due(job, step)) {
                None => break,
                Some((step, None)) => self.end_step(tenant, number, step),
                Some((step, Some(why))) => {
                    while !self.cancel_step(tenant, number, step, &why) {
                        if self.out.full() {
                            self.backlog.push_front(Work::Review { tenant: tenant.to_owned(), number });
                            return;
                        }
                    }
                }
            }
        }
        self.end_job(tenant, number);
    }

    fn end_step(&mut self, tenant: &str, number: u64, step: u32) {
        let now_ms = self.now.wall_ms;
        let Some(job) = self.tenants.get_mut(tenant).and_then(|tenant| tenant.jobs.get_mut(&number)) else {
            return;
        };
        let (job_cause, cancel) = (job.state.cause.clone(), job.state.cancel_requested);
        let before = job.steps.get(step as usize).map(|run| run.before.clone()).unwrap_or_default();
        let Some(state) = job.state.steps.get_mut(step as usize) else { return };
        let to = if cancel && state.cancelled > 0 {
            State::Cancelled
        } else if state.failed > 0 {
            State::Failed
        } else if state.cancelled > 0 {
            State::Cancelled
        } else {
            State::Completed
        };
        let why = match to {
            State::Completed => cause(CauseKind::Succeeded, ""),
            State::Failed => state.cause.clone().unwrap_or_default(),
            _ if cancel => job_cause.unwrap_or_default(),
            // What tasks of another job did to it.
            _ if state.cause.is_some() => state.cause.clone().unwrap_or_default(),
            _ => cause(CauseKind::DependencyFailed, "a step before it did not complete"),
        };
        let from = state.state();
        state.set_state(to);
        state.ended_ms = now_ms;
        state.cause = Some(why.clone());
        self.out.state(tenant, number);
        self.out.wants(tenant, number, step);
        for next in before {
            self.out.wants(tenant, number, next);
        }
        self.walk(tenant, (number, Some(step)), from, to, &why);
    }

    /// Ends the job if all its steps have ended.
    fn end_job(&mut self, tenant: &str, number: u64) {
        let now_ms = self.now.wall_ms;
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(job) = owner.jobs.get_mut(&number) else { return };
        if job.over() || !job.state.steps.iter().all(|step| over(step.state())) {
            return;
        }
        let failed = job.state.steps.iter().position(|step| step.state() == State::Failed);
        let of_step = |step: usize, kind: CauseKind| {
            let name = job.row.spec.as_ref().and_then(|spec| spec.steps.get(step));
            let inner = job.state.steps[step].cause.clone().unwrap_or_default();
            let text = format!("step {}: {}", name.map_or("", |step| step.name.as_str()), inner.text);
            Cause { kind: kind.into(), text, ..inner }
        };
        let (to, why) = if job.state.cancel_requested {
            (State::Cancelled, job.state.cause.clone().unwrap_or_default())
        } else if let Some(failed) = failed {
            (State::Failed, of_step(failed, CauseKind::StepFailed))
        } else if let Some(unmet) = unmet(job) {
            world::mark!("controller.job.unmet");
            (State::Cancelled, of_step(unmet, CauseKind::DependencyFailed))
        } else {
            (State::Completed, cause(CauseKind::Succeeded, ""))
        };
        let from = job.state.state();
        job.state.set_state(to);
        job.state.ended_ms = now_ms;
        job.state.cause = Some(why.clone());
        let highest = job.state.steps.iter().map(|step| step.exit_code).max().unwrap_or(0);
        job.state.exit_code = match (to, why.kind()) {
            (State::Completed, _) => 0,
            (State::Cancelled, CauseKind::CancelledByUser) => highest.max(128 + 15),
            _ => highest.max(1),
        };
        month::turn(&mut owner.ledger, now_ms);
        ledger::release(&mut owner.ledger, &mut job.state);
        let (generation, ended) = (job.state.generation, EndedJob::ended(number, &job.state));
        owner.retain(&ended);
        let waiters = owner.waiters.remove(&number).unwrap_or_default();
        self.out.state(tenant, number);
        self.out.ledger(tenant);
        self.walk(tenant, (number, None), from, to, &why);
        self.recent.remember_end(tenant, number, (to, generation));
        self.unfollow(tenant, number);
        if !waiters.is_empty() {
            let waiters = waiters.into_iter().rev().collect();
            self.backlog.push_front(Work::Waiters { tenant: tenant.to_owned(), number, state: to, waiters });
        }
    }

    /// The events of a job's or step's way between two states.
    fn walk(&mut self, tenant: &str, of: (u64, Option<u32>), from: State, to: State, why: &Cause) {
        let mut from = from;
        for &next in path(from, to) {
            let passing = passing(next);
            let why = if next == to { why } else { &passing };
            let weight = self.out.events(tenant).whole(self.now.wall_ms, of, (from, next), why, Spans::new());
            self.out.weigh(weight);
            from = next;
        }
    }

    /// The first task of a step was bound (STAGING) or started (RUNNING): so are
    /// the step and its job.
    pub(super) fn begun(&mut self, tenant: &str, number: u64, step: u32, to: State) {
        let now_ms = self.now.wall_ms;
        let further = |from: State| match to {
            State::Staging => from == State::Pending,
            _ => matches!(from, State::Pending | State::Staging),
        };
        let Some(job) = self.tenants.get_mut(tenant).and_then(|tenant| tenant.jobs.get_mut(&number)) else {
            return;
        };
        let Some(state) = job.state.steps.get_mut(step as usize) else { return };
        let step_from = state.state();
        if further(step_from) {
            state.set_state(to);
            if to == State::Running {
                state.started_ms = now_ms;
            }
        }
        let job_from = job.state.state();
        if further(job_from) {
            job.state.set_state(to);
            if to == State::Running {
                job.state.started_ms = now_ms;
            }
        }
        if further(step_from) || further(job_from) {
            self.out.state(tenant, number);
        }
        if further(job_from) {
            self.walk(tenant, (number, None), job_from, to, &passing(to));
        }
        if further(step_from) {
            self.walk(tenant, (number, Some(step)), step_from, to, &passing(to));
        }
    }
}

impl Place<'_> {
    fn block(&mut self) -> &mut Block {
        self.run.blocks.entry(StepRun::block_of(self.spot.task)).or_default()
    }

    fn note(&mut self) -> &mut TaskNote {
        let task = self.spot.task;
        self.block().notes.entry(task).or_insert_with(|| TaskNote { task, ..TaskNote::default() })
    }

    /// The events of the task's way to a state.
    fn walk(&mut self, to: State, why: &Cause) {
        let mut from = self.active.state;
        for &next in path(from, to) {
            let passing = passing(next);
            let why = if next == to { why } else { &passing };
            let by = By {
                attempt: self.active.attempt,
                epoch: self.active.epoch,
                node_index: self.active.node,
                node: &self.node,
            };
            let drafts = self.out.events(&self.spot.tenant);
            let weight = drafts.task(self.now_ms, self.spot, (from, next), why, by);
            self.out.weigh(weight);
            from = next;
        }
    }

    /// Returns the bytes of the outputs committed.
    fn completed(&mut self, outputs: Vec<(u32, Vec<Artifact>)>) -> u64 {
        let task = self.spot.task;
        let block = self.block();
        block.completed.insert(task);
        if let Some(note) = block.notes.get_mut(&task) {
            *note = blocks::completed_note(note);
        }
        self.state.completed += 1;
        self.walk(State::Completed, &cause(CauseKind::Succeeded, ""));
        outputs.into_iter().map(|(rank, artifacts)| self.manifest(rank, artifacts)).sum()
    }

    /// Writes the manifest of a rank. None is written where there are no
    /// outputs; after a reset one of an earlier generation may lie there.
    pub(super) fn manifest(&mut self, rank: u32, artifacts: Vec<Artifact>) -> u64 {
        let row = ManifestRow {
            task: self.spot.task,
            rank,
            attempt: self.active.attempt,
            epoch: self.active.epoch,
            artifacts,
            committed_ms: self.now_ms,
            generation: Some(self.state.generation),
        };
        write_manifest(self.out, self.run, self.spot, row, self.state.reset_generation > 0)
    }

    fn cancelled(&mut self, why: &Cause) {
        let task = self.spot.task;
        self.block().cancelled.insert(task);
        self.state.cancelled += 1;
        self.walk(State::Cancelled, why);
    }

    /// Back to PENDING, not before `wait_ms` from now.
    fn again(&mut self, why: &Cause, now_mono_ms: u64, wait_ms: u64, retries_spent: u64) {
        let (task, attempt, not_before_ms) = (self.spot.task, self.active.attempt, self.now_ms + wait_ms);
        self.state.pending += 1;
        self.state.retries_spent += retries_spent;
        let note = self.note();
        // Even one that never ran has used its number up: bound to the same
        // grant again it would be taken for the same attempt.
        note.attempts = note.attempts.max(attempt);
        note.not_before_ms = not_before_ms;
        self.run.retries.insert((now_mono_ms + wait_ms, task));
        self.walk(State::Pending, why);
    }

    /// Back to PENDING, at once: whom it gave way to comes before it.
    fn gave_way(&mut self, why: &Cause, now_mono_ms: u64) {
        let note = self.note();
        note.preemptions = note.preemptions.saturating_add(1);
        note.last = Some(why.clone());
        self.again(why, now_mono_ms, 0, 0);
    }

    fn failed(&mut self, why: &Cause, array: Option<&ArraySpec>) {
        let task = self.spot.task;
        self.block().failed.insert(task);
        self.state.failed += 1;
        self.state.exit_code = self.state.exit_code.max(retry::exit_code(why));
        if self.state.failed == 1 {
            let attempts = self.note().attempts;
            let tries = if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() };
            let of = match array.and_then(|array| array::index_of(array, task)) {
                Some(index) => format!("task {index}: "),
                None => String::new(),
            };
            let text = format!("{of}{}{tries}", describe(why));
            self.state.cause = Some(Cause { text, ..why.clone() });
        }
        self.walk(State::Failed, why);
    }

    /// Counts the attempt as begun and remembers what became of it.
    fn note_failure(&mut self, why: &Cause) {
        let attempt = self.active.attempt;
        let node = if why.node.is_empty() { self.node.clone() } else { why.node.clone() };
        let crowded = self.block().notes.len() > limits::NOTES_WITH_TEXT_MAX;
        let note = self.note();
        note.attempts = note.attempts.max(attempt);
        let mut last = why.clone();
        cut(&mut last.text, if crowded { 0 } else { limits::NOTE_TEXT_BYTES_MAX });
        if crowded {
            note.avoid.clear();
            last.node.clear();
        }
        note.last = Some(last);
        if !node.is_empty() {
            note.avoid.retain(|avoided| *avoided != node);
            note.avoid.push(node);
            if note.avoid.len() > limits::AVOID_MAX {
                note.avoid.remove(0);
            }
        }
    }
}

/// What is to be done about a step: end it (`None`), or cancel what it has
/// pending for a reason.
fn due(job: &Job, step: u32) -> Option<(u32, Option<Cause>)> {
    let (run, state) = (job.steps.get(step as usize)?, job.state.steps.get(step as usize)?);
    if over(state.state()) {
        return None;
    }
    if state.pending == 0 {
        return (state.active == 0).then_some((step, None));
    }
    if job.state.cancel_requested {
        return Some((step, Some(job.state.cause.clone().unwrap_or_default())));
    }
    let broken = run.after.iter().find(|before| {
        let state = job.step_state(**before);
        over(state) && state != State::Completed
    })?;
    world::mark!("controller.step.dependency_failed");
    let name = job.row.spec.as_ref().and_then(|spec| spec.steps.get(*broken as usize));
    let text = format!("step {} did not complete", name.map_or("", |step| step.name.as_str()));
    Some((step, Some(cause(CauseKind::DependencyFailed, text))))
}

/// The step, if any, that lost tasks because of another job's.
fn unmet(job: &Job) -> Option<usize> {
    let by_others = |run: &StepRun, state: &StepState| {
        state.state() == State::Cancelled
            && state.cause.as_ref().is_some_and(|why| why.kind() == CauseKind::DependencyFailed)
            && run.after.iter().all(|before| job.step_state(*before) == State::Completed)
    };
    job.steps.iter().zip(&job.state.steps).position(|(run, state)| by_others(run, state))
}

/// Returns the bytes of the artifacts.
pub(super) fn write_manifest(
    out: &mut Outbox,
    run: &mut StepRun,
    spot: &Spot,
    row: ManifestRow,
    reset: bool,
) -> u64 {
    let key = keys::manifest(&spot.tenant, spot.number, spot.step, row.task, row.rank);
    if row.artifacts.is_empty() {
        if reset {
            out.direct(&spot.tenant, key, None);
        }
        return 0;
    }
    out.direct(&spot.tenant, key, Some(row.encode_to_vec().into()));
    let bytes = row.artifacts.iter().fold(0, |sum: u64, artifact| sum.saturating_add(artifact.size_bytes));
    if !run.before.is_empty() {
        run.outputs.insert((row.task, row.rank), row.artifacts);
    }
    bytes
}

/// A failure in a few words, where the agent gave none.
fn describe(why: &Cause) -> String {
    if !why.text.is_empty() {
        return why.text.clone();
    }
    match (why.exit_code, why.signal) {
        (0, 0) => why.kind().as_str_name().trim_start_matches("CAUSE_KIND_").to_lowercase().replace('_', " "),
        (0, signal) => format!("ended by signal {signal}"),
        (code, _) => format!("exit code {code}"),
    }
}
