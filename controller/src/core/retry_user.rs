//! A user tries an ended job again.
//!
//! O(1) in rows however many tasks it is: the step's generation grows, and the
//! blocks of the older one read without what failed (or, after a reset, as
//! empty). Only the history names the tasks.

use super::ledger;
use super::model::{Job, StepRun, Tenant, cause, over};
use super::submit::{prepare, waiting};
use super::types::{AdmissionAsk, AdmissionVerdict, LoadedJob, Reply};
use super::{Core, blocks};
use crate::limits;
use proto::after;
use proto::manifests;
use proto::month;
use proto::problem::{self, Problem};
use proto::retention;
use proto::spans::Spans;
use proto::v1::{BlockRow, CauseKind, State, StepState};
use std::collections::{BTreeMap, BTreeSet};

/// Tasks of a step that wait again, by the state they come from.
type Moved = Vec<(u32, State, Spans)>;

impl Core {
    pub(super) fn retry_by_user(
        &mut self,
        ticket: u64,
        tenant: &str,
        number: u64,
        from_step: &str,
        loaded: Option<Box<LoadedJob>>,
    ) {
        let reply = match self.try_retry(tenant, number, from_step, loaded) {
            Ok(tasks) => Reply::Retried(tasks),
            Err(problem) => Reply::Refused(problem),
        };
        self.reply(ticket, reply);
    }

    fn try_retry(
        &mut self,
        name: &str,
        number: u64,
        from_step: &str,
        loaded: Option<Box<LoadedJob>>,
    ) -> Result<u64, Problem> {
        let tenant = self.tenants.get(name).filter(|tenant| tenant.known);
        let tenant = tenant.ok_or_else(|| problem::missing("tenant", name))?;
        let id = format!("{name}-{number}");
        let running = || {
            let reason = "has not ended; only an ended job can be tried again";
            problem::conflict("job_running", "job", &id, reason, "wait for its end, or cancel it first")
        };
        let recent = self.recent.end(name, number);
        if tenant.jobs.contains_key(&number) {
            world::mark!("controller.user_retry.of_a_live_job");
            return Err(running());
        }
        let Some(loaded) = loaded else {
            // The shell saw a live job that ended meanwhile, or none at all.
            return Err(if recent.is_some() { running() } else { problem::missing("job", &id) });
        };
        let stale = recent.is_some_and(|(_, generation)| generation != loaded.state.generation);
        if stale || !over(loaded.state.state()) {
            return Err(running());
        }
        let expired = self.recent.expired(name, number) || tenant.retained.has_expired(number);
        let state = &loaded.state;
        if state.expired_ms > 0 || expired {
            world::mark!("controller.user_retry.of_what_expired");
            let (at_ms, kept_ms) = match state.expired_ms {
                // It was read before.
                0 => (self.now.wall_ms, retention::kept_ms(tenant.row.retention_ms, state.keep_ms)),
                at_ms => (at_ms, Some(state.retained_ms)),
            };
            return Err(retention::expired(&id, at_ms, kept_ms.unwrap_or_default()));
        }
        if self.live_jobs >= limits::LIVE_JOBS_MAX || tenant.jobs.len() >= limits::LIVE_JOBS_PER_TENANT_MAX {
            let reason = "so many jobs have not ended yet that no more are taken";
            return Err(Problem::new(
                "limit.live_jobs",
                "",
                tenant.jobs.len(),
                reason,
                "wait for some to end",
            ));
        }
        let (mut job, moved) = renew(*loaded, from_step)?;
        let mut spec = job.row.spec.clone().unwrap_or_default();
        // They came in and are kept since the first try.
        spec.inputs.clear();
        let ask = AdmissionAsk {
            tenant: &tenant.row,
            ledger: &tenant.ledger,
            held: tenant.held.told(),
            groups: &self.groups_of(tenant),
            spec: &spec,
            now_ms: self.now.wall_ms,
        };
        let price_micros = match self.admission.decide(&ask) {
            AdmissionVerdict::Admit { price_micros, .. } => price_micros,
            AdmissionVerdict::Refuse(problem) => return Err(problem),
        };
        for on in spec.after.iter().filter(|on| !after::by_task(on)) {
            if tenant.jobs.get(&on.job_number).is_some_and(|on| !on.over()) {
                job.waits.insert(on.job_number, on.kind);
            }
        }
        let within = self.look(name, &spec, &[], true)?;
        self.may_follow(name, &within)?;
        let tasks = self.readmit(name, number, job, moved, price_micros);
        self.wait_within(name, number, within);
        self.shut_again(name, number);
        Ok(tasks)
    }

    /// Returns how many tasks wait again.
    fn readmit(&mut self, name: &str, number: u64, mut job: Job, moved: Moved, price_micros: u64) -> u64 {
        let now_ms = self.now.wall_ms;
        let why = cause(CauseKind::RetriedByUser, "");
        world::mark!("controller.user_retry.taken");
        let was = job.state.state();
        let Some(Tenant { ledger: books, jobs, waiters, retained, .. }) = self.tenants.get_mut(name) else {
            return 0;
        };
        retained.drop(number, &job.state);
        let state = &mut job.state;
        state.set_state(State::Pending);
        state.cause = None;
        state.cancel_requested = false;
        (state.started_ms, state.ended_ms, state.exit_code) = (0, 0, 0);
        state.generation += 1;
        let tasks = state.steps.iter().map(|step| step.pending).sum();
        month::turn(books, now_ms);
        ledger::reserve(books, state, price_micros, tasks);
        for on in job.waits.keys() {
            waiters.entry(*on).or_default().insert(number);
        }
        let steps = job.steps.len() as u32;
        jobs.insert(number, job);
        self.live_jobs += 1;
        self.out.state(name, number);
        self.out.ledger(name);
        let events = self.out.events(name);
        events.whole(now_ms, (number, None), (was, State::Pending), &why, Spans::new());
        for (step, from, tasks) in moved {
            for part in parts(&tasks) {
                events.whole(now_ms, (number, Some(step)), (from, State::Pending), &why, part);
            }
        }
        for step in 0..steps {
            self.out.wants(name, number, step);
        }
        tasks
    }
}

/// The job as it waits again, and what of it moved. A step itself moves with
/// an empty set of tasks.
fn renew(loaded: LoadedJob, from_step: &str) -> Result<(Job, Moved), Problem> {
    let LoadedJob { job: row, mut state, blocks, manifests, checkpoints } = loaded;
    let spec = row.spec.clone().unwrap_or_default();
    let mut steps = prepare(&spec)?;
    if steps.len() != state.steps.len() {
        return Err(problem::internal("the job's state does not fit its spec"));
    }
    let reset = match from_step {
        "" => BTreeSet::new(),
        name => {
            let from = spec.steps.iter().position(|step| step.name == name);
            let from = from.ok_or_else(|| problem::missing("step", name))?;
            downstream(&steps, &state.steps, from as u32, name)?
        }
    };
    let mut rows: BTreeMap<u32, Vec<(u64, BlockRow)>> = BTreeMap::new();
    for (step, block, row) in blocks {
        rows.entry(step).or_default().push((block, row));
    }
    let mut moved = Vec::new();
    for (index, (run, step)) in steps.iter_mut().zip(&mut state.steps).enumerate() {
        let index = index as u32;
        let rows = rows.remove(&index).unwrap_or_default();
        let whole = reset.contains(&index);
        if from_step.is_empty() || whole {
            renew_step(index, run, step, rows, whole, &mut moved);
        } else {
            run.blocks = rows.into_iter().map(|(block, row)| (block, blocks::decode(row, step))).collect();
            run.fresh = Spans::new();
        }
    }
    if moved.is_empty() {
        let reason = "no task of it failed or was cancelled";
        let remedy = "name the step to begin at with --from-step";
        return Err(problem::conflict("nothing_to_retry", "job", row.number, reason, remedy));
    }
    if moved.iter().map(|(_, _, tasks)| tasks.runs()).sum::<usize>() > limits::SPANS_PER_RETRY_MAX {
        let reason = "the failed tasks lie in too many pieces to be named one by one";
        return Err(Problem::new(
            "limit.retry",
            "job",
            row.number,
            reason,
            "retry whole steps with --from-step",
        ));
    }
    for (step, row) in manifests {
        if let Some(run) = steps.get_mut(step as usize)
            && !run.before.is_empty()
            && state.steps.get(step as usize).is_some_and(|state| manifests::stands(&row, state))
            && run
                .blocks
                .get(&StepRun::block_of(row.task))
                .is_some_and(|block| block.completed.contains(row.task))
        {
            run.outputs.insert((row.task, row.rank), row.artifacts);
        }
    }
    for ((step, task, rank), row) in checkpoints {
        if let Some(run) = steps.get_mut(step as usize) {
            run.checkpoints.insert((task, rank), row);
        }
    }
    Ok((Job::new(row, state, steps), moved))
}

/// The step and all that come after it, through any number of others.
fn downstream(
    steps: &[StepRun],
    states: &[StepState],
    from: u32,
    name: &str,
) -> Result<BTreeSet<u32>, Problem> {
    let upstream = steps.get(from as usize).map(|step| step.after.as_slice()).unwrap_or_default();
    let whole =
        |step: &u32| states.get(*step as usize).is_some_and(|state| state.state() == State::Completed);
    if !upstream.iter().all(whole) {
        let reason = "comes after a step that did not complete";
        let remedy = "begin at an earlier step, or retry without --from-step";
        return Err(problem::conflict("step_not_ready", "from_step", name, reason, remedy));
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(step) = open.pop() {
        if found.insert(step) {
            open.extend(steps.get(step as usize).into_iter().flat_map(|step| &step.before));
        }
    }
    Ok(found)
}

/// What failed or was cancelled waits again, or, where `whole`, everything does.
fn renew_step(
    index: u32,
    run: &mut StepRun,
    step: &mut StepState,
    rows: Vec<(u64, BlockRow)>,
    whole: bool,
    moved: &mut Moved,
) {
    let was = step.state();
    let all = if run.tasks == 0 { Spans::new() } else { Spans::from_range(0, run.tasks - 1) };
    let old: BTreeMap<u64, _> =
        rows.iter().map(|(block, row)| (*block, blocks::decode(row.clone(), step))).collect();
    let (mut completed, mut failed) = (Spans::new(), Spans::new());
    for block in old.values() {
        completed.insert_all(&block.completed);
        failed.insert_all(&block.failed);
    }
    let mut cancelled = all.clone();
    cancelled.remove_all(&completed);
    cancelled.remove_all(&failed);
    if !whole && failed.is_empty() && cancelled.is_empty() {
        run.blocks = old;
        run.fresh = Spans::new();
        return;
    }
    let generation = step.generation + 1;
    let reset_generation = if whole { generation } else { step.reset_generation };
    let kept = if whole { 0 } else { completed.count() };
    let spent = (step.attempts_ended, step.busy_ms, step.retries_spent);
    let gave_way = step.gave_way.take();
    *step = waiting(run.tasks - kept);
    step.completed = kept;
    (step.attempts_ended, step.busy_ms, step.retries_spent) = spent;
    step.gave_way = gave_way;
    step.generation = generation;
    step.reset_generation = reset_generation;
    run.blocks = rows.into_iter().map(|(block, row)| (block, blocks::decode(row, step))).collect();
    run.fresh = all;
    moved.push((index, was, Spans::new()));
    let from_completed = if whole { completed.clone() } else { Spans::new() };
    if !whole {
        run.fresh.remove_all(&completed);
    }
    let sets = [(State::Completed, from_completed), (State::Failed, failed), (State::Cancelled, cancelled)];
    moved.extend(
        sets.into_iter().filter(|(_, tasks)| !tasks.is_empty()).map(|(from, tasks)| (index, from, tasks)),
    );
}

/// A set in pieces that one event may name; the empty set is one piece.
fn parts(tasks: &Spans) -> Vec<Spans> {
    let ranges: Vec<(u64, u64)> = tasks.ranges().collect();
    if ranges.is_empty() {
        return vec![Spans::new()];
    }
    ranges.chunks(limits::SPANS_PER_EVENT_MAX).map(|part| part.iter().copied().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{JobRow, JobSpec, JobStateRow, Span, Step};

    /// A step of which every second task failed.
    fn with_failed(count: u64) -> LoadedJob {
        let array = proto::array::parse(&format!("0-{}", 2 * count - 1)).unwrap();
        let step = Step { name: "many".to_owned(), array: Some(array), ..Step::default() };
        let spec = JobSpec { steps: vec![step], ..JobSpec::default() };
        let block = |block: u64| {
            let tasks = (block * limits::BLOCK_TASKS..2 * count).take(limits::BLOCK_TASKS as usize);
            let one = |task| Span { first: task, last: task };
            let (completed, failed) = tasks.map(one).partition(|span| span.first % 2 == 0);
            (0, block, BlockRow { completed, failed, ..BlockRow::default() })
        };
        let states = vec![StepState { state: State::Failed.into(), ..StepState::default() }];
        LoadedJob {
            job: JobRow { number: 1, spec: Some(spec), ..JobRow::default() },
            state: JobStateRow { state: State::Failed.into(), steps: states, ..JobStateRow::default() },
            blocks: (0..(2 * count).div_ceil(limits::BLOCK_TASKS)).map(block).collect(),
            ..LoadedJob::default()
        }
    }

    #[test]
    fn what_failed_in_more_pieces_than_can_be_named_is_not_retried() {
        let most = limits::SPANS_PER_RETRY_MAX as u64;
        let (job, moved) = renew(with_failed(most), "").unwrap();
        assert_eq!(job.steps[0].fresh.count(), most);
        assert_eq!(moved.iter().map(|(_, _, tasks)| tasks.count()).sum::<u64>(), most);
        assert_eq!(renew(with_failed(most + 1), "").err().unwrap().code, "limit.retry");
    }
}
