//! Invariant 8 where work gives way to work of higher priority: it happens only in pools that
//! allow it, to what was asked for, whose priority is higher, and to no task more often than its
//! pool says; it counts as no failure, and is counted as what it is.
//!
//! What a grant is asked for it is asked once: until it is answered the ask stays as it is.
//! And a row that is written again has no more slots than before.
//!
//! Where commits were found after a restart, several as one, an ask may have come and gone in
//! between; of a task that gave way then nobody knows to whom.

use super::agreement::events;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Cause, CauseKind, Event, GrantRow, State};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct GivesWay {
    /// How often each task gave way, since the user's last retry of it.
    times: BTreeMap<(JobName, u32, u64), u32>,
    /// The most of them, by pools of its nodes.
    most: BTreeMap<String, u32>,
    /// Of these that is not known any more.
    unseen: BTreeSet<(JobName, u32)>,
}

fn priority(now: &Mirror, job: &JobName) -> Option<i32> {
    Some(now.jobs.get(job)?.spec.as_ref()?.priority)
}

impl GivesWay {
    fn event(&mut self, before: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
        let Some(step) = event.step else { return Ok(()) };
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, Cause::kind);
        for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
            let name = (job.clone(), step, task);
            if kind == CauseKind::RetriedByUser {
                self.times.remove(&name);
            }
            if kind != CauseKind::Preempted || event.to() != State::Pending {
                continue;
            }
            let Some(grant) = before.grants.get(&(tenant.to_owned(), event.epoch)) else {
                return Err(format!("task {task} of step {step} of {job} gave way without a grant"));
            };
            let Some(asked) = &grant.preemption else {
                return Err(format!("nobody asked task {task} of step {step} of {job} to give way"));
            };
            let named = asked.tasks.iter().any(|named| (named.task, named.attempt) == (task, event.attempt));
            if !named {
                // Behind one that was named it had hardly begun.
                continue;
            }
            let to = JobName { tenant: asked.tenant.clone(), number: asked.job_number };
            let (own, above) = (priority(before, &job), priority(before, &to));
            if own >= above {
                return Err(format!(
                    "task {task} of step {step} of {job}, of priority {own:?}, gave way to {to}, of {above:?}"
                ));
            }
            let times = self.times.entry(name).or_default();
            *times += 1;
            for node in &grant.nodes {
                let pool = before.nodes.get(&node.node).map_or_else(String::new, |row| row.pool.clone());
                let most = self.most.entry(pool).or_default();
                *most = (*most).max(*times);
            }
        }
        Ok(())
    }
}

/// Written again, a grant is what it was but for the ask, and holds no more.
fn written_again(was: &GrantRow, is: &GrantRow) -> Result<(), String> {
    let name = format!("grant {} of {}-{}", is.epoch, is.tenant, is.job_number);
    let slots = |row: &GrantRow| row.nodes.iter().map(|node| u64::from(node.slots)).sum::<u64>();
    let fits = was.nodes.len() == is.nodes.len()
        && was.nodes.iter().zip(&is.nodes).all(|(was, is)| was.node == is.node && was.slots >= is.slots);
    if !fits || was.per_slot != is.per_slot || was.groups != is.groups {
        return Err(format!("{name} was written again with more than it had: {was:?}, then {is:?}"));
    }
    match (&was.preemption, &is.preemption) {
        (Some(first), Some(second)) if first != second => {
            Err(format!("{name} was asked for something else before it had answered"))
        }
        (None, Some(_)) if slots(was) != slots(is) => Err(format!("{name} was asked, and shrank by that")),
        (None | Some(_), _) => Ok(()),
    }
}

impl Checker for GivesWay {
    fn name(&self) -> &'static str {
        "gives-way"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        let alone = commit.since_ms == commit.at_ms;
        for (tenant, event) in events(commit) {
            if alone {
                self.event(before, tenant, event)?;
            } else if let Some(step) = event.step {
                let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
                self.unseen.insert((job, step));
            }
        }
        for row in commit.rows.iter().filter(|_| alone) {
            if let Row::Grant { tenant, epoch, row: Some(is) } = row
                && let Some(was) = before.grants.get(&(tenant.clone(), *epoch))
            {
                written_again(was, is)?;
            }
        }
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, row: Some(block), .. } = row else { continue };
            if self.unseen.contains(&(job.clone(), *step)) {
                continue;
            }
            let state = now.states.get(job).and_then(|row| row.steps.get(*step as usize));
            if state.is_none_or(|state| state.generation != block.generation) {
                continue;
            }
            for note in &block.notes {
                let gave = self.times.get(&(job.clone(), *step, note.task)).copied().unwrap_or(0);
                let done = block.completed.iter().any(|span| (span.first..=span.last).contains(&note.task));
                if gave != note.preemptions && !done {
                    return Err(format!(
                        "task {} of step {step} of {job} gave way {gave} times, its row counts {}",
                        note.task, note.preemptions
                    ));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for (pool, times) in &self.most {
            let most = outcome.preemption.get(pool).map_or(0, |rules| rules.times_max);
            if *times > most {
                return Err(format!("in pool {pool} a task gave way {times} times, {most} are allowed"));
            }
        }
        Ok(())
    }
}
