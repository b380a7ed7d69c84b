//! Invariant 6: state moves only along the machine's edges, each with one
//! event; event numbers have no holes.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{CauseKind, Event, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Transitions {
    /// Tasks that have left PENDING, as their events tell.
    tasks: BTreeMap<(JobName, u32), BTreeMap<u64, State>>,
    steps: BTreeMap<(JobName, u32), State>,
    jobs: BTreeMap<JobName, State>,
}

fn legal(from: State, to: State, cause: CauseKind) -> bool {
    use State::{Cancelled, Completed, Failed, Pending, Running, Staging};
    match (from, to) {
        (Pending, Staging | Cancelled | Failed)
        | (Staging, Running | Pending | Failed | Cancelled)
        | (Running, Completed | Failed | Cancelled | Pending) => true,
        (Failed | Cancelled | Completed, Pending) => cause == CauseKind::RetriedByUser,
        _ => false,
    }
}

impl Transitions {
    fn event(&mut self, tenant: &str, event: &Event) -> Result<(), String> {
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let cause = event.cause.as_ref().map_or(CauseKind::Unspecified, proto::v1::Cause::kind);
        let Some(step) = event.step else {
            let from = self.jobs.insert(job.clone(), event.to()).unwrap_or(State::Unspecified);
            let first = from == State::Unspecified && event.to() == State::Pending;
            if from != event.from() && !first {
                return Err(format!(
                    "{job} was {from:?}; event {} moves it from {:?}",
                    event.seq,
                    event.from()
                ));
            }
            // A job follows its steps, so it may skip states they never entered.
            return Ok(());
        };
        if event.tasks.is_empty() {
            let from = self.steps.insert((job.clone(), step), event.to()).unwrap_or(State::Pending);
            if from != event.from() {
                return Err(format!(
                    "step {step} of {job} was {from:?}; event {} moves it from {:?}",
                    event.seq,
                    event.from()
                ));
            }
            return Ok(());
        }
        let tasks = self.tasks.entry((job.clone(), step)).or_default();
        for span in &event.tasks {
            for task in span.first..=span.last {
                let from = tasks.get(&task).copied().unwrap_or(State::Pending);
                if from != event.from() || !legal(from, event.to(), cause) {
                    return Err(format!(
                        "task {task} of step {step} of {job} is {from:?}; event {} moves it {:?} -> {:?} ({cause:?})",
                        event.seq,
                        event.from(),
                        event.to()
                    ));
                }
                if event.to() == State::Pending {
                    tasks.remove(&task);
                } else {
                    tasks.insert(task, event.to());
                }
            }
        }
        Ok(())
    }
}

impl Checker for Transitions {
    fn name(&self) -> &'static str {
        "transitions"
    }
    fn invariant(&self) -> u8 {
        6
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        let mut due = before.next_event.clone();
        let mut batches: Vec<_> = commit
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::Events { tenant, first_seq, row } => Some((tenant, *first_seq, row)),
                _ => None,
            })
            .collect();
        batches.sort_by_key(|(tenant, seq, _)| ((*tenant).clone(), *seq));
        for (tenant, first_seq, row) in batches {
            let Some(row) = row else { return Err(format!("events {first_seq} of {tenant} were deleted")) };
            let next = due.entry(tenant.clone()).or_insert(1);
            for event in &row.events {
                if event.seq != *next || (event.seq - first_seq) as usize >= row.events.len() {
                    return Err(format!("{tenant}: event {} came where {next} was due", event.seq));
                }
                *next += 1;
                self.event(tenant, event)?;
            }
        }
        Ok(())
    }

    /// Each block's word about its tasks is what the events told.
    fn after(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, row: Some(block), .. } = row else { continue };
            let tasks = self.tasks.get(&(job.clone(), *step));
            let told = |task: u64| tasks.and_then(|tasks| tasks.get(&task)).copied();
            let runs = block.active.iter().filter_map(|run| Some((run.tasks?, run.state())));
            let done = block.completed.iter().map(|span| (*span, State::Completed));
            for (span, state) in runs.chain(done) {
                for task in span.first..=span.last {
                    if told(task) != Some(state) {
                        return Err(format!(
                            "the row of {job} says task {task} of step {step} is {state:?}, its events say {:?}",
                            told(task)
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
