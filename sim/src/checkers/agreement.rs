//! Invariant 6, the rows' side: what rows say of a job is what its events told.
//!
//! A small model of each job is played from the events alone: the state of the
//! job, of its steps, of each task. At every commit the rows it touches, by
//! event or by row, must agree with the model: a row that was not written, or
//! an event that was not, is seen at once.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{BlockRow, Event, JobStateRow, Span, State, StepState};
use std::collections::{BTreeMap, BTreeSet};

/// Tasks of a block, as the layout of rows has it.
pub(super) const BLOCK_TASKS: u64 = 4096;

#[derive(Default)]
pub struct RowsAgree {
    jobs: BTreeMap<JobName, State>,
    steps: BTreeMap<(JobName, u32), Told>,
}

/// What events told of a step.
#[derive(Default)]
struct Told {
    state: Option<State>,
    /// Those that are not PENDING.
    tasks: BTreeMap<u64, State>,
    counts: Counts,
    /// As its first row had it.
    size: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    active: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

impl Counts {
    fn of(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Staging | State::Running => Some(&mut self.active),
            State::Completed => Some(&mut self.completed),
            State::Failed => Some(&mut self.failed),
            State::Cancelled => Some(&mut self.cancelled),
            State::Pending | State::Unspecified => None,
        }
    }

    fn all(self) -> u64 {
        self.active + self.completed + self.failed + self.cancelled
    }
}

impl Told {
    fn task(&mut self, task: u64, to: State) {
        let was = if to == State::Pending { self.tasks.remove(&task) } else { self.tasks.insert(task, to) };
        if let Some(count) = was.and_then(|was| self.counts.of(was)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.counts.of(to) {
            *count += 1;
        }
    }

    fn check(&mut self, row: &StepState) -> Result<(), String> {
        let says = Counts {
            active: row.active,
            completed: row.completed,
            failed: row.failed,
            cancelled: row.cancelled,
        };
        let size = row.pending + says.all();
        if *self.size.get_or_insert(size) != size || says != self.counts {
            return Err(format!(
                "counts {says:?} and {} pending, its events {:?} of {:?}",
                row.pending, self.counts, self.size
            ));
        }
        let told = self.state.unwrap_or(State::Pending);
        if row.state() == told {
            Ok(())
        } else {
            Err(format!("is {:?}, its events say {told:?}", row.state()))
        }
    }
}

/// What a commit touched.
#[derive(Default)]
struct Touched {
    jobs: BTreeSet<JobName>,
    tasks: BTreeMap<(JobName, u32), BTreeSet<u64>>,
}

impl RowsAgree {
    fn event(&mut self, tenant: &str, event: &Event, touched: &mut Touched) {
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        touched.jobs.insert(job.clone());
        let Some(step) = event.step else {
            self.jobs.insert(job, event.to());
            return;
        };
        let name = (job, step);
        let told = self.steps.entry(name.clone()).or_default();
        if event.tasks.is_empty() {
            told.state = Some(event.to());
            return;
        }
        let tasks = touched.tasks.entry(name).or_default();
        for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
            told.task(task, event.to());
            tasks.insert(task);
        }
    }

    fn check_job(&mut self, now: &Mirror, job: &JobName) -> Result<(), String> {
        let Some(row) = now.states.get(job) else { return Err(format!("job {job} has events and no state")) };
        if !now.jobs.contains_key(job) {
            return Err(format!("job {job} has a state and no spec"));
        }
        let told = self.jobs.get(job).copied().unwrap_or(State::Unspecified);
        if row.state() != told {
            return Err(format!("the row of {job} says {:?}, its events {told:?}", row.state()));
        }
        for (step, row) in (0..).zip(&row.steps) {
            let told = self.steps.entry((job.clone(), step)).or_default();
            told.check(row).map_err(|why| format!("the row of {job} step {step} {why}"))?;
        }
        Ok(())
    }

    /// What the tasks that moved are in their block.
    fn check_tasks(&self, now: &Mirror, of: &(JobName, u32), moved: &BTreeSet<u64>) -> Result<(), String> {
        let (job, step) = of;
        let Some(state) = now.states.get(job).and_then(|row| row.steps.get(*step as usize)) else {
            return Err(format!("an event of {job} names step {step}, which it does not have"));
        };
        let Some(told) = self.steps.get(of) else { return Ok(()) };
        for &task in moved {
            let is = told.tasks.get(&task).copied().unwrap_or(State::Pending);
            let block = now.blocks.get(&(job.clone(), *step, task / BLOCK_TASKS));
            if !block_says(block.map(|block| &**block), state, task, is) {
                return Err(format!(
                    "events say task {task} of step {step} of {job} is {is:?}, its block does not"
                ));
            }
        }
        Ok(())
    }

    /// A block that was written names what the events told of its tasks, and
    /// nothing else.
    fn check_block(&self, now: &Mirror, of: (&JobName, u32, u64), block: &BlockRow) -> Result<(), String> {
        let (job, step, number) = of;
        let state = now.states.get(job).and_then(|row| row.steps.get(step as usize));
        if state.is_none_or(|state| state.generation != block.generation) {
            return Ok(());
        }
        let rest_cancelled = state.is_some_and(|state| state.rest() == State::Cancelled);
        let mut says = Counts {
            active: block.active.iter().filter_map(|run| run.tasks).map(|span| length(&span)).sum(),
            completed: block.completed.iter().map(length).sum(),
            failed: block.failed.iter().map(length).sum(),
            cancelled: block.cancelled.iter().map(length).sum(),
        };
        let mut told = Counts::default();
        if let Some(step) = self.steps.get(&(job.clone(), step)) {
            let first = number * BLOCK_TASKS;
            for (_, state) in step.tasks.range(first..first + BLOCK_TASKS) {
                told.of(*state).into_iter().for_each(|count| *count += 1);
            }
        }
        // What a step's `rest` cancels no block needs to name.
        if rest_cancelled && says.cancelled <= told.cancelled {
            says.cancelled = told.cancelled;
        }
        if says == told {
            return Ok(());
        }
        Err(format!("block {number} of step {step} of {job} counts {says:?}, its events {told:?}"))
    }
}

fn length(span: &Span) -> u64 {
    span.last + 1 - span.first
}

fn names(spans: &[Span], task: u64) -> bool {
    spans.iter().any(|span| (span.first..=span.last).contains(&task))
}

fn block_says(block: Option<&BlockRow>, step: &StepState, task: u64, is: State) -> bool {
    let Some(block) = block else {
        return is == State::Pending || is == State::Cancelled && step.rest() == State::Cancelled;
    };
    let active = |state: Option<State>| {
        let runs = block.active.iter().filter(|run| state.is_none_or(|state| run.state() == state));
        runs.filter_map(|run| run.tasks).any(|span| (span.first..=span.last).contains(&task))
    };
    match is {
        State::Staging | State::Running => active(Some(is)),
        State::Completed => names(&block.completed, task),
        State::Failed => names(&block.failed, task),
        State::Cancelled => names(&block.cancelled, task) || step.rest() == State::Cancelled,
        // A block of an older generation reads without what it had active.
        State::Pending | State::Unspecified => block.generation != step.generation || !active(None),
    }
}

/// The commit's events, in order.
pub fn events(commit: &Committed) -> impl Iterator<Item = (&str, &Event)> {
    let batches = commit.rows.iter().filter_map(|row| match row {
        Row::Events { tenant, first_seq, row: Some(row) } => Some((tenant.as_str(), *first_seq, row)),
        _ => None,
    });
    let mut batches: Vec<_> = batches.collect();
    batches.sort_by_key(|(tenant, first_seq, _)| (*tenant, *first_seq));
    batches.into_iter().flat_map(|(tenant, _, row)| row.events.iter().map(move |event| (tenant, event)))
}

impl Checker for RowsAgree {
    fn name(&self) -> &'static str {
        "rows-agree"
    }
    fn invariant(&self) -> u8 {
        6
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        let mut touched = Touched::default();
        for (tenant, event) in events(commit) {
            self.event(tenant, event, &mut touched);
        }
        touched.jobs.extend(commit.rows.iter().filter_map(|row| match row {
            Row::State(job, Some(_)) => Some(job.clone()),
            _ => None,
        }));
        for job in &touched.jobs {
            self.check_job(now, job)?;
        }
        for (of, tasks) in &touched.tasks {
            self.check_tasks(now, of, tasks)?;
        }
        for row in &commit.rows {
            if let Row::Block { job, step, block, row: Some(row) } = row {
                self.check_block(now, (job, *step, *block), row)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &super::Outcome<'_>) -> Result<(), String> {
        let state = |row: &JobStateRow| row.state();
        let strange = outcome.mirror.states.iter().find(|(job, row)| self.jobs.get(job) != Some(&state(row)));
        match strange {
            None => Ok(()),
            Some((job, row)) => {
                Err(format!("at the end {job} is {:?}, its events say {:?}", row.state(), self.jobs.get(job)))
            }
        }
    }
}
